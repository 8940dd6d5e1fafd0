use super::*;

#[tokio::test]
async fn a_root_of_another_policy_is_refused_and_nothing_is_written() {
    let (ours, other) = (policy("streaming", "u1"), policy("elsewhere", "u2"));
    for (who, identity) in [
        ("another policy", Identity { policy: Some(ours.clone()), ..anybody() }),
        (
            "another policy, which nothing lets ignore it",
            Identity { policy: Some(ours), ignore_owner: true, ..anybody() },
        ),
        ("nobody in particular", anybody()),
    ] {
        let mut bucket = Bucket::with(1..=3).await;
        bucket.put_owner(1, &other).await;
        bucket.identity = identity;
        let before = bucket.keys().await;
        let error = bucket.prune().await.unwrap_err();
        assert_eq!(error.class(), Some(ErrorClass::RootConflict), "{who}");
        assert!(error.is_refusal() && error.to_string().contains("elsewhere/orders"), "{who}: {error}");
        assert_eq!(bucket.keys().await, before, "{who}");
    }
}

#[tokio::test]
async fn an_owner_that_cannot_be_read_is_an_owner() {
    let mut bucket = Bucket::with(1..=3).await;
    bucket.put(&key::register(RegisterKind::Owner, 1)).await;
    assert_eq!(bucket.prune().await.unwrap_err().class(), Some(ErrorClass::RootConflict));
    assert_eq!(bucket.epochs().await, [1, 2, 3].into());
}

#[tokio::test]
async fn a_person_may_ignore_the_owner() {
    let mut bucket = Bucket::with(1..=3).await;
    bucket.put_owner(1, &policy("elsewhere", "u2")).await;
    bucket.identity.ignore_owner = true;
    assert_eq!(bucket.prune().await.unwrap().epochs, 2);
}

#[tokio::test]
async fn a_register_below_what_was_seen_refuses_the_run() {
    for seen in [
        Reading { floor: Epoch::new(2), ..Reading::default() },
        Reading { owner: 1, ..Reading::default() },
        Reading { fence: epochwarden_core::Version::new(1), ..Reading::default() },
    ] {
        let mut bucket = Bucket::with(1..=3).await;
        bucket.identity.seen = seen;
        let error = bucket.prune().await.unwrap_err();
        assert_eq!(error.class(), Some(ErrorClass::RegisterLost), "{seen:?}");
        assert!(error.is_refusal());
        assert_eq!(bucket.epochs().await, [1, 2, 3].into());
    }
}

#[tokio::test]
async fn a_held_plan_is_reported_and_nothing_is_written() {
    for (key, hold) in [
        ("epoch=1/vnode=0/partial.bin", "EpochRegression"),
        ("state-v2/x", "UnknownLayout"),
        ("epoch=2/_SEAL", "UnknownLayout"),
    ] {
        let mut bucket = Bucket::with(1..=3).await;
        bucket.put(key).await;
        let before = bucket.keys().await;
        let report = bucket.prune().await.unwrap();
        assert!(matches!(&report.outcome, PruneOutcome::Held { reason, .. } if *reason == hold), "{key}: {report:?}");
        assert_eq!(report.plan.hold.as_ref().map(epochwarden_core::plan::Hold::as_str), Some(hold));
        assert_eq!((report.floor, report.objects), (None, 0));
        assert_eq!(bucket.keys().await, before, "{key}");
    }
}

#[tokio::test]
async fn a_key_that_no_request_can_name_refuses_the_run() {
    let mut bucket = Bucket::with(1..=3).await;
    bucket.faults.before(Operation::List, "").fail_with(|_| object_store::Error::InvalidPath {
        source: object_store::path::Error::EmptySegment { path: "epoch=1//x".into() },
    });
    let error = bucket.prune().await.unwrap_err();
    assert!(
        matches!(&error, PruneError::Store(StoreError::UnaddressableKey { key }) if key == "epoch=1//x"),
        "{error:?}"
    );
    assert!(error.is_refusal());
    assert_eq!(bucket.epochs().await, [1, 2, 3].into());
}

#[tokio::test]
async fn a_root_without_a_complete_epoch_loses_nothing() {
    let mut bucket = Bucket::with(1..=3).await;
    for epoch in 1..=3 {
        bucket.memory().delete(&Path::from(format!("epoch={epoch}/vnode=1/partial.bin"))).await.unwrap();
    }
    let before = bucket.keys().await;
    let report = bucket.prune().await.unwrap();
    assert_eq!((report.objects, report.floor), (0, None));
    assert_eq!(bucket.keys().await, before);
}

#[tokio::test]
async fn a_retention_that_keeps_everything_says_so() {
    let mut bucket = Bucket::with(1..=3).await;
    bucket.rules.plan.retention = Retention::default();
    assert_eq!(bucket.prune().await.unwrap().outcome, PruneOutcome::KeepsEverything);
    assert_eq!(bucket.epochs().await, [1, 2, 3].into());
}

#[tokio::test]
async fn a_dry_run_plans_and_writes_nothing() {
    let mut bucket = Bucket::with(1..=3).await;
    bucket.rules.dry_run = true;
    bucket.identity.policy = Some(policy("streaming", "u1"));
    let before = bucket.keys().await;
    let report = bucket.prune().await.unwrap();
    assert_eq!(report.outcome, PruneOutcome::DryRun);
    assert_eq!((report.plan.totals.epochs, report.plan.before, report.floor), (2, Some(Epoch::new(3)), None));
    assert_eq!((report.requests.put, report.requests.delete), (0, 0));
    assert_eq!(bucket.keys().await, before);
}

#[tokio::test]
async fn only_the_plan_with_the_approved_digest_is_executed() {
    let mut bucket = Bucket::with(1..=3).await;
    let approved = bucket.plan().await.digest().to_owned();
    bucket.seal(4).await;
    bucket.approval = Approval::Digest(approved.clone());
    let before = bucket.keys().await;
    let error = bucket.prune().await.unwrap_err();
    let found = bucket.plan().await.digest().to_owned();
    assert!(
        matches!(&error, PruneError::NotApproved { approved: a, found: f } if *a == approved && *f == found),
        "{error:?}"
    );
    assert!(error.is_refusal());
    assert_eq!(bucket.keys().await, before);

    bucket.approval = Approval::Digest(found);
    assert_eq!(bucket.prune().await.unwrap().epochs, 3);
    assert_eq!(bucket.epochs().await, [4].into());
}

#[tokio::test]
async fn of_an_approved_plan_goes_what_a_fresh_one_still_deletes_and_nothing_else() {
    let mut bucket = Bucket::with(1..=3).await;
    let approved = bucket.plan().await;
    bucket.seal(4).await;
    bucket.rules.plan.retention.pinned = [Epoch::new(1)].into();
    bucket.approval = Approval::Plan(Box::new(approved));
    let report = bucket.prune().await.unwrap();
    assert_eq!(
        (report.epochs, report.floor),
        (1, Some(Epoch::new(3))),
        "the floor covers what goes, not what the plan would take"
    );
    assert_eq!(bucket.epochs().await, [1, 3, 4].into());
}
