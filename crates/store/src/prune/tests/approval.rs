//! What a run may do at all: approvals, dry runs, and plans that are held.

use super::*;

#[tokio::test]
async fn a_plan_of_another_digest_than_the_approved_one_writes_nothing() {
    let bench = Bench::sealed(1..=4).await;
    let approved = bench.plan().await.digest().to_owned();
    bench.seal([5]).await;
    let error = bench.prune_by(Approval::Digest(approved.clone()), &Always).await.unwrap_err();
    let found = bench.plan().await.digest().to_owned();
    assert_ne!(approved, found);
    assert!(error.is_refusal() && error.class().is_none());
    assert!(error.to_string().contains(&approved) && error.to_string().contains(&found), "{error}");
    assert!(matches!(error, PruneError::NotApproved { .. }));
    bench.wrote_nothing();
    assert_eq!(bench.epochs().await.len(), 5);
}

#[tokio::test]
async fn the_approved_plan_is_carried_out() {
    let bench = Bench::sealed(1..=4).await;
    let plan = bench.plan().await;
    let report = bench.prune_by(Approval::Digest(plan.digest().to_owned()), &Always).await.unwrap();
    assert_eq!((report.outcome, report.plan), (PruneOutcome::Succeeded, plan.summary()));
    assert_eq!(bench.epochs().await, [4]);
}

#[tokio::test]
async fn of_an_approved_plan_only_what_a_fresh_one_deletes_too_goes() {
    // A seal more: the fresh plan would delete epoch 4 as well, which nobody approved.
    let bench = Bench::sealed(1..=4).await;
    let approved = bench.plan().await;
    bench.seal([5]).await;
    let report = bench.prune_by(Approval::Plan(Box::new(approved)), &Always).await.unwrap();
    assert_eq!((report.outcome, report.epochs, report.remainder), (PruneOutcome::Succeeded, 3, Remainder::default()));
    assert_eq!(report.floor.map(ShownEpoch::get), Some(4), "right above what goes");
    assert_eq!(bench.epochs().await, [4, 5]);

    // A pin more: the fresh plan keeps epoch 2, which was approved.
    let mut bench = Bench::sealed(1..=4).await;
    let approved = bench.plan().await;
    bench.rules.plan.retention.pinned.insert(Epoch::new(2));
    let report = bench.prune_by(Approval::Plan(Box::new(approved)), &Always).await.unwrap();
    assert_eq!((report.outcome, report.epochs), (PruneOutcome::Succeeded, 2));
    assert_eq!(bench.epochs().await, [2, 4]);
}

#[tokio::test]
async fn an_approved_plan_of_which_nothing_may_go_any_more_writes_nothing() {
    let mut bench = Bench::sealed(1..=2).await;
    let approved = bench.plan().await;
    bench.seal([3]).await;
    bench.rules.plan.retention.pinned.insert(Epoch::new(1));
    let report = bench.prune_by(Approval::Plan(Box::new(approved)), &Always).await.unwrap();
    assert_eq!((report.outcome, report.epochs, report.floor), (PruneOutcome::Succeeded, 0, None));
    bench.wrote_nothing();
}

#[tokio::test]
async fn runs_that_only_plan_or_may_not_delete_write_nothing_at_all() {
    type Case = (&'static str, fn(&mut PruneRules), &'static str);
    let keep_none: fn(&mut PruneRules) = |rules| rules.plan.retention = Retention::default();
    let cases: [Case; 6] = [
        ("DryRun", |rules| rules.dry_run = true, ""),
        ("KeepsEverything", keep_none, ""),
        ("Succeeded", |rules| rules.plan.retention = keep_last(9), ""),
        // No epoch has so many vnodes.
        ("Succeeded", |rules| rules.plan.vnodes = 3, ""),
        ("EpochRegression", |_| (), "epoch=1/late"),
        ("UnknownLayout", |_| (), "epoch=9/_SEAL"),
    ];
    for (outcome, change, key) in cases {
        let mut bench = Bench::sealed(1..=3).await;
        if !key.is_empty() {
            bench.put(key).await;
        }
        change(&mut bench.rules);
        // A claim would be a write too.
        bench.identity.policy = Some(ownership::policy("orders", "u1"));
        let before = bench.keys("").await;
        let report = bench.prune().await.unwrap();
        match &report.outcome {
            PruneOutcome::Held { reason, message } => {
                assert_eq!(*reason, outcome);
                assert!(message.contains("epoch"), "{message}");
            }
            other => assert!(format!("{other:?}").starts_with(outcome), "{other:?}"),
        }
        assert_eq!((account(&report), report.floor), (((0, 0), (0, 0)), None), "{outcome}");
        bench.wrote_nothing();
        assert_eq!(bench.keys("").await, before);
    }
}

#[tokio::test]
async fn a_dry_run_shows_what_a_run_would_do() {
    let mut bench = Bench::sealed(1..=4).await;
    bench.rules.dry_run = true;
    let dry = bench.prune().await.unwrap();
    bench.rules.dry_run = false;
    let wet = bench.prune().await.unwrap();
    assert_eq!((dry.plan.clone(), dry.found.sealed), (wet.plan, wet.found.sealed));
    assert_eq!((dry.plan.totals.epochs, dry.plan.totals.objects), (wet.epochs, wet.objects));
}
