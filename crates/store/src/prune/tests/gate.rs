//! Plans that wait for a person, and plans that were approved.

use epochwarden_core::approval::{Frozen, HoldAbove};
use epochwarden_core::plan::PlanSummary;
use epochwarden_testkit::fault::Operation;

use super::*;
use crate::registers::Record;

fn manual() -> Gate {
    Gate { manual: true, ..Gate::default() }
}

/// As a status remembers it.
fn frozen(plan: &PlanSummary) -> Frozen {
    Frozen {
        digest: plan.digest.clone(),
        before: plan.before.map(ShownEpoch::epoch),
        through: plan.through.map(ShownEpoch::epoch),
        computed_at: plan.computed_at,
        delete: plan.delete.iter().map(|range| (range.from.epoch(), range.to.epoch())).collect(),
        truncated: false,
    }
}

impl Bench {
    async fn gated(&self, gate: Gate) -> PruneReport {
        self.prune_by(Approval::Gate(gate), &Always).await.unwrap()
    }

    /// The plan of now, frozen.
    async fn freeze(&self) -> Frozen {
        let report = self.gated(manual()).await;
        assert!(matches!(report.outcome, PruneOutcome::AwaitingApproval { .. }), "{report:?}");
        frozen(&report.plan)
    }
}

fn approved(frozen: Frozen) -> Gate {
    Gate { frozen: Some(frozen), approved: true, ..manual() }
}

#[track_caller]
fn waits(report: &PruneReport) -> (&'static str, &str) {
    match &report.outcome {
        PruneOutcome::AwaitingApproval { reason, message } => (reason, message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_plan_that_waits_writes_nothing_and_stays_the_same_while_the_pipeline_goes_on() {
    let mut bench = Bench::sealed(1..=4).await;
    // A claim would be a write too.
    bench.identity.policy = Some(ownership::policy("orders", "u1"));
    let first = bench.gated(manual()).await;
    let digest = first.plan.digest.clone();
    assert_eq!(waits(&first).0, "AwaitingApproval");
    assert!(waits(&first).1.contains(&digest), "{}", waits(&first).1);
    assert_eq!((first.frozen_stands, first.approved, account(&first)), (false, None, ((0, 0), (0, 0))));

    for epoch in 5..=9 {
        bench.seal([epoch]).await;
        let gate = Gate { frozen: Some(frozen(&first.plan)), ..manual() };
        let report = bench.gated(gate).await;
        assert_ne!(report.plan.digest, digest, "a fresh plan is another one");
        assert!(waits(&report).1.contains(&digest), "the one that waits is named: {}", waits(&report).1);
        assert_eq!((report.frozen_stands, report.approved), (true, None));
    }
    bench.wrote_nothing();
}

#[tokio::test]
async fn an_approved_plan_is_carried_out_as_it_was_shown() {
    let mut bench = Bench::sealed(1..=4).await;
    bench.identity.policy = Some(ownership::policy("orders", "u1"));
    let frozen = bench.freeze().await;
    bench.seal(5..=9).await;
    let report = bench.gated(approved(frozen.clone())).await;
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::Succeeded, ((3, 9), (0, 0))));
    assert_eq!((report.approved, report.frozen_stands), (Some(ApprovedState::Finished), false));
    assert_eq!(bench.epochs().await, (4..=9).collect::<Vec<_>>());
    assert_eq!(bench.floors().await, [floor(4)], "above what went, and not above what nobody approved");
    let registers = Registers::new(bench.root(), "test");
    let Some(Record::Readable(record)) = registers.floor_record(Epoch::new(4)).await.unwrap() else { panic!() };
    assert_eq!(record.plan_digest, Some(frozen.digest.clone()), "the floor names the plan that was approved");

    // Its approval is used up: what is to go by now waits for its own.
    let next = bench.gated(approved(frozen)).await;
    assert_eq!((waits(&next).0, next.approved, next.frozen_stands), ("AwaitingApproval", None, false));
    assert!(!waits(&next).1.contains("takes the place"), "{}", waits(&next).1);
    assert_eq!(bench.epochs().await.len(), 6);
}

#[tokio::test]
async fn an_approved_plan_goes_on_after_a_run_that_stopped() {
    let mut bench = Bench::sealed(1..=6).await;
    let frozen = bench.freeze().await;
    bench.rules.max_objects = 2 * OBJECTS;
    for left in [vec![3, 4, 5, 6, 7], vec![5, 6, 7, 8]] {
        bench.seal([*left.last().unwrap()]).await;
        let report = bench.gated(approved(frozen.clone())).await;
        assert_eq!(report.outcome, PruneOutcome::Stopped { stop: Stop::MaxObjects });
        assert_eq!((report.approved, report.frozen_stands), (Some(ApprovedState::Rest), true));
        assert_eq!(bench.epochs().await, left);
    }
    let report = bench.gated(approved(frozen)).await;
    assert_eq!((report.outcome, report.approved), (PruneOutcome::Succeeded, Some(ApprovedState::Finished)));
    assert_eq!(bench.epochs().await, [6, 7, 8], "nobody approved 6 and 7");
}

#[tokio::test]
async fn a_key_that_cannot_be_deleted_does_not_keep_an_approved_plan_open() {
    let bench = Bench::sealed(1..=4).await;
    let frozen = bench.freeze().await;
    bench.faults.before(Operation::Delete, "epoch=2/vnode=0/*").fail();
    let report = bench.gated(approved(frozen)).await;
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::PartlyFailed, ((2, 8), (1, 1))));
    assert_eq!((report.approved, report.frozen_stands), (Some(ApprovedState::Finished), false));
}

#[tokio::test]
async fn a_mass_deletion_waits_though_plans_need_no_approval() {
    let bench = Bench::sealed(1..=10).await;
    let above = |epochs| Gate { hold_above: Some(HoldAbove { epochs, percent: 50 }), ..Gate::default() };
    let report = bench.gated(above(8)).await;
    assert_eq!(waits(&report).0, "MassDeletion");
    assert!(waits(&report).1.contains("9 of 10 listed epochs"), "{}", waits(&report).1);
    bench.wrote_nothing();
    let gate = Gate { frozen: Some(frozen(&report.plan)), approved: true, ..above(8) };
    bench.seal([11]).await;
    assert_eq!(account(&bench.gated(gate).await), ((9, 27), (0, 0)));
    // One more is no mass.
    let report = bench.gated(above(8)).await;
    assert_eq!((report.outcome, report.approved, report.epochs), (PruneOutcome::Succeeded, None, 1));
    assert_eq!(bench.epochs().await, [11]);
}

#[tokio::test]
async fn an_approval_whose_epochs_are_not_there_any_more_deletes_nothing_and_says_so() {
    let bench = Bench::sealed(1..=5).await;
    let frozen = bench.freeze().await;
    let digest = frozen.digest.clone();
    for key in bench.keys("epoch=2/").await {
        bench.journal.remove_unnoticed(&key).await;
    }
    let report = bench.gated(approved(frozen)).await;
    let message = waits(&report).1;
    assert!(message.starts_with(&format!("plan {} waits", report.plan.digest)), "{message}");
    assert!(message.contains(&format!("plan {digest}, which was approved and is void")), "{message}");
    assert_eq!((report.frozen_stands, report.approved), (false, None));
    bench.wrote_nothing();
    assert_eq!(bench.epochs().await, [1, 3, 4, 5]);
}

#[tokio::test]
async fn a_run_that_does_not_come_to_look_at_a_frozen_plan_leaves_it_standing() {
    let mut bench = Bench::sealed(1..=4).await;
    let frozen = bench.freeze().await;
    bench.rules.dry_run = true;
    let dry = bench.gated(approved(frozen.clone())).await;
    assert_eq!((dry.outcome, dry.frozen_stands), (PruneOutcome::DryRun, true));
    bench.rules.dry_run = false;
    // The numbering may have restarted.
    bench.put("epoch=1/late").await;
    let held = bench.gated(approved(frozen.clone())).await;
    assert!(matches!(held.outcome, PruneOutcome::Held { reason: "EpochRegression", .. }), "{held:?}");
    assert!(held.frozen_stands);
    assert!(!bench.gated(manual()).await.frozen_stands, "there is none");
    // The next seal shows that it was a straggler: the approval still stands.
    bench.seal([5]).await;
    assert_eq!(bench.gated(approved(frozen)).await.approved, Some(ApprovedState::Finished));
    assert_eq!(bench.epochs().await, [4, 5]);
}

#[tokio::test]
async fn an_approval_that_cannot_be_asked_for_any_more_stops_the_run_and_stands() {
    let bench = Bench::sealed(1..=4).await;
    let frozen = bench.freeze().await;
    let cannot = Asking(|| -> BoxFuture<'static, Result<(), Stop>> {
        Box::pin(async { Err(Stop::CannotAsk { message: "the policy could not be read again".into() }) })
    });
    let report = bench.prune_by(Approval::Gate(approved(frozen)), &cannot).await.unwrap();
    let stop = Stop::CannotAsk { message: "the policy could not be read again".into() };
    assert_eq!(stop.to_string(), "the policy could not be read again");
    assert_eq!(serde_json::to_value(&stop).unwrap()["reason"], "CannotAsk");
    assert_eq!(report.outcome, PruneOutcome::Stopped { stop });
    assert_eq!((report.approved, report.frozen_stands), (Some(ApprovedState::Rest), true));
    bench.wrote_nothing();
}
