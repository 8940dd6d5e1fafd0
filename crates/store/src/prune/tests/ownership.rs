//! In whose name a root is pruned.

use super::*;

pub(super) fn policy(name: &str, uid: &str) -> OwnerRecord {
    OwnerRecord {
        cluster: "c1".into(),
        namespace: "streaming".into(),
        name: name.into(),
        uid: uid.into(),
        take_over: None,
    }
}

fn owner(number: u64) -> String {
    format!("_epochwarden/owner/{number:020}")
}

/// Three epochs, owned by the policy `orders` with the uid `u1`.
async fn owned() -> Bench {
    let bench = Bench::sealed(1..=3).await;
    Registers::new(bench.root(), "test").claim_owner(&policy("orders", "u1")).await.unwrap();
    bench.journal.forget();
    bench
}

async fn refused(bench: &Bench, class: ErrorClass) {
    for dry_run in [false, true] {
        let rules = PruneRules { dry_run, ..bench.rules.clone() };
        let clock: Arc<dyn Clock> = Arc::new(LongAgo);
        let Bench { identity, cancel, .. } = bench;
        let error = run(&bench.root(), &rules, identity, Approval::Automatic, &Always, &clock, cancel, &|_| ())
            .await
            .unwrap_err();
        assert_eq!((error.class(), error.is_refusal()), (Some(class), true), "{error}");
    }
    bench.wrote_nothing();
    assert_eq!(bench.keys("epoch=").await.len(), 9);
}

#[tokio::test]
async fn a_policy_claims_the_root_before_its_first_other_write() {
    let mut bench = Bench::sealed(1..=3).await;
    bench.identity.policy = Some(policy("orders", "u1"));
    bench.prune().await.unwrap();
    let written = bench.journal.all_of(&["PUT", "DELETE"]);
    assert_eq!(written[..2], [format!("PUT {}", owner(1)), format!("PUT {}", floor(3))], "{written:?}");
    let record =
        Registers::new(bench.root(), "test").floor_record(Epoch::new(3)).await.unwrap().unwrap().readable().unwrap();
    assert_eq!((record.policy.as_deref(), record.publisher.as_str()), (Some("u1"), "test"));
    assert_eq!(record.before, Epoch::new(3));

    bench.seal([4]).await;
    bench.journal.forget();
    let report = bench.prune().await.unwrap();
    assert_eq!(report.outcome, PruneOutcome::Succeeded);
    assert_eq!(bench.journal.count(&format!("PUT {}", owner(2))), 0, "it is claimed once");
}

#[tokio::test]
async fn the_floor_names_the_plan_that_it_was_published_for() {
    let bench = Bench::sealed(1..=3).await;
    let report = bench.prune().await.unwrap();
    let record =
        Registers::new(bench.root(), "test").floor_record(Epoch::new(3)).await.unwrap().unwrap().readable().unwrap();
    assert_eq!((record.policy, record.plan_digest), (None, Some(report.plan.digest)));
}

#[tokio::test]
async fn the_root_of_another_policy_is_refused() {
    let mut bench = owned().await;
    bench.identity.policy = Some(policy("payments", "u2"));
    refused(&bench, ErrorClass::RootConflict).await;
    // It is about the command line, not about policies.
    bench.identity.ignore_owner = true;
    refused(&bench, ErrorClass::RootConflict).await;
}

#[tokio::test]
async fn a_root_whose_owner_cannot_be_read_is_refused() {
    let mut bench = Bench::sealed(1..=3).await;
    bench.put(&owner(1)).await;
    refused(&bench, ErrorClass::RootConflict).await;
    bench.identity.policy = Some(policy("orders", "u1"));
    refused(&bench, ErrorClass::RootConflict).await;
}

#[tokio::test]
async fn a_policy_that_was_created_again_takes_over() {
    let mut bench = owned().await;
    bench.identity.policy = Some(policy("orders", "u2"));
    let report = bench.prune().await.unwrap();
    assert_eq!(report.outcome, PruneOutcome::Succeeded);
    let written = bench.journal.all_of(&["PUT", "DELETE"]);
    assert_eq!(written[0], format!("PUT {}", owner(2)), "{written:?}");
    assert_eq!(bench.epochs().await, [3]);
}

/// The operator has not heard that the policy was deleted and created again: the record of the one that there is now is a namesake's.
#[tokio::test]
async fn a_policy_that_there_is_no_more_does_not_take_the_root_from_its_successor() {
    let mut bench = owned().await;
    bench.identity.policy = Some(policy("orders", "u0"));
    let recreated = Stop::NotPermitted { message: "the policy was created again".into() };
    let stop = recreated.clone();
    let permission = Asking(move || -> BoxFuture<'static, Result<(), Stop>> {
        let stop = stop.clone();
        Box::pin(async move { Err(stop) })
    });
    let report = bench.prune_by(Approval::Automatic, &permission).await.unwrap();
    assert_eq!(report.outcome, PruneOutcome::Stopped { stop: recreated });
    assert_eq!(account(&report), ((0, 0), (2, 2 * OBJECTS)));
    bench.wrote_nothing();
    assert_eq!(bench.keys("_epochwarden/owner/").await, [owner(1)]);
}

#[tokio::test]
async fn without_a_policy_an_owned_root_is_refused_unless_the_owner_is_to_be_ignored() {
    let mut bench = owned().await;
    refused(&bench, ErrorClass::RootConflict).await;
    bench.identity.ignore_owner = true;
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome, bench.epochs().await), (PruneOutcome::Succeeded, vec![3]));
    assert_eq!(bench.keys("_epochwarden/owner/").await, [owner(1)], "it stays the owner's");
}

#[tokio::test]
async fn a_lost_register_is_refused_before_anything_is_written() {
    for seen in [
        Reading { fence: epochwarden_core::Version::new(2), ..Reading::default() },
        Reading { floor: Epoch::new(1), ..Reading::default() },
        Reading { owner: 1, ..Reading::default() },
    ] {
        let mut bench = Bench::sealed(1..=3).await;
        bench.identity.seen = seen;
        refused(&bench, ErrorClass::RegisterLost).await;
        bench.identity.policy = Some(policy("orders", "u1"));
        refused(&bench, ErrorClass::RegisterLost).await;
    }
}

#[tokio::test]
async fn old_owners_are_trimmed_and_the_new_one_stays() {
    let mut bench = Bench::sealed(1..=3).await;
    for number in 1..20 {
        bench.put(&owner(number)).await;
    }
    let body = r#"{"cluster":"c1","namespace":"streaming","name":"orders","uid":"u1","takeOver":null}"#;
    bench.journal.put_unnoticed(&owner(20), body).await;
    bench.identity.policy = Some(policy("orders", "u2"));
    bench.prune().await.unwrap();
    let owners = bench.keys("_epochwarden/owner/").await;
    assert!(owners.len() <= 17, "{owners:?}");
    assert_eq!(owners.last(), Some(&owner(21)));
}
