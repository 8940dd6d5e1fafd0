use super::*;

const FLOOR_3: &str = "_epochwarden/floor/00000000000000000003";

#[tokio::test]
async fn the_floor_is_durable_before_the_first_delete() {
    let mut bucket = Bucket::with(1..=3).await;
    let memory = Arc::clone(bucket.memory());
    bucket.faults.before(Operation::Delete, "*").run(move || {
        let memory = Arc::clone(&memory);
        async move {
            memory.head(&Path::from(FLOOR_3)).await.expect("the floor is durable");
        }
    });
    let report = bucket.prune().await.unwrap();
    assert_eq!((report.outcome, report.floor), (PruneOutcome::Succeeded, Some(Epoch::new(3))));
    assert_eq!(bucket.epochs().await, [3].into());
}

#[tokio::test]
async fn the_floor_says_which_plan_of_which_policy_raised_it() {
    let mut bucket = Bucket::with(1..=3).await;
    bucket.identity.policy = Some(policy("streaming", "u1"));
    let report = bucket.prune().await.unwrap();
    let body = bucket.memory().get(&Path::from(FLOOR_3)).await.unwrap().bytes().await.unwrap();
    let floor: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&floor["before"], &floor["policy"]), (&"3".into(), &"u1".into()));
    assert_eq!((&floor["planDigest"], &floor["publisher"]), (&report.plan.digest.into(), &"test".into()));
}

#[tokio::test(start_paused = true)]
async fn where_the_floor_cannot_be_published_nothing_is_deleted() {
    let mut bucket = Bucket::with(1..=3).await;
    bucket.faults.before(Operation::Put, "_epochwarden/floor/*").fail();
    bucket.prune().await.unwrap_err();
    assert_eq!(bucket.keys().await, (1..=3).flat_map(whole).collect());
}

#[tokio::test]
async fn a_policy_claims_the_root_before_its_first_other_write() {
    let ours = policy("streaming", "u1");
    for (highest, claimed) in [(None, 1), (Some(policy("streaming", "u0")), 2), (Some(ours.clone()), 1)] {
        let mut bucket = Bucket::with(1..=3).await;
        if let Some(owner) = &highest {
            bucket.put_owner(1, owner).await;
        }
        bucket.identity.policy = Some(ours.clone());
        let (memory, expected) = (Arc::clone(bucket.memory()), Path::from(key::register(RegisterKind::Owner, claimed)));
        bucket.faults.before(Operation::Put, "_epochwarden/floor/*").once().run(move || {
            let (memory, expected) = (Arc::clone(&memory), expected.clone());
            async move {
                let body = memory.get(&expected).await.unwrap().bytes().await.unwrap();
                let owner: OwnerRecord = serde_json::from_slice(&body).unwrap();
                assert_eq!(owner, policy("streaming", "u1"));
            }
        });
        assert_eq!(bucket.prune().await.unwrap().epochs, 2);
        assert_eq!(bucket.faults.pending(), 0);
        let owners = bucket.registers().await.iter().filter(|key| key.contains("/owner/")).count();
        assert_eq!(owners as u64, claimed, "{highest:?}");
    }
}

#[tokio::test]
async fn seals_go_first_batch_by_batch_and_oldest_first() {
    const BATCH: u64 = 1000;
    let mut bucket = Bucket::with(1..=BATCH + 2).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    // Of the first partial that goes at all, and of the first one of the second batch.
    for first in ["epoch=*/vnode=*".to_owned(), format!("epoch={}/vnode=*", BATCH + 1)] {
        let (memory, seen) = (Arc::clone(bucket.memory()), Arc::clone(&seen));
        bucket.faults.before(Operation::Delete, &first).once().run(move || {
            let (memory, seen) = (Arc::clone(&memory), Arc::clone(&seen));
            async move {
                let keys = keys(&memory).await;
                let sealed = |key: &String| key.strip_prefix("epoch=")?.strip_suffix("/_COMMIT")?.parse::<u64>().ok();
                seen.lock().unwrap().push(keys.iter().filter_map(sealed).collect::<Vec<_>>());
            }
        });
    }
    assert_eq!(bucket.prune().await.unwrap().epochs, BATCH + 1);
    assert_eq!(*seen.lock().unwrap(), [vec![BATCH + 1, BATCH + 2], vec![BATCH + 2]], "the seals that were left then");
}

#[tokio::test]
async fn an_epoch_whose_seal_is_not_confirmed_gone_stays_whole() {
    let mut bucket = Bucket::with(1..=4).await;
    bucket.faults.before(Operation::Delete, "epoch=2/_COMMIT").fail();
    let report = bucket.prune().await.unwrap();
    assert_eq!(report.outcome, PruneOutcome::PartlyFailed);
    assert_eq!((report.epochs, report.objects, report.failed), (2, 6, 1));
    assert_eq!(report.remainder, Remainder { epochs: 1, objects: 3 });
    assert_eq!(report.errors[0].key, "epoch=2/_COMMIT");
    let left = bucket.keys().await.into_iter().filter(|key| key.starts_with("epoch=")).collect::<BTreeSet<_>>();
    assert_eq!(left, [2, 4].into_iter().flat_map(whole).collect());
}

#[tokio::test]
async fn a_seal_whose_deletion_was_not_answered_holds_its_epoch_too() {
    let mut bucket = Bucket::with(1..=3).await;
    bucket.faults.after(Operation::Delete, "epoch=1/_COMMIT").once().fail();
    let report = bucket.prune().await.unwrap();
    assert_eq!((report.epochs, report.failed), (1, 1));
    let left = bucket.keys().await;
    assert!(left.contains("epoch=1/vnode=0/partial.bin") && left.contains("epoch=1/vnode=1/partial.bin"), "{left:?}");
    assert_eq!(bucket.prune().await.unwrap().outcome, PruneOutcome::Succeeded);
    assert_eq!(bucket.epochs().await, [3].into());
}

#[tokio::test]
async fn two_pruners_at_once_delete_only_what_their_plans_say() {
    let mut one = Bucket::with(1..=40).await;
    one.rules = rules(5);
    let mut other = Bucket { faults: one.faults.clone(), rules: rules(9), ..Bucket::with([]).await };
    let (a, b) = tokio::join!(one.prune(), other.prune());
    assert_eq!((a.unwrap().outcome, b.unwrap().outcome), (PruneOutcome::Succeeded, PruneOutcome::Succeeded));
    assert_eq!(one.epochs().await, (36..=40).collect());
}
