use std::time::Duration;

use epochwarden_core::schedule::LastRun;
use epochwarden_store::Root;
use epochwarden_testkit::fault::{FaultStore, Operation};
use serde_json::json;

use super::*;
use crate::api::condition::{AuditClean, PruneHealthy};
use crate::controller::observed::Said;
use crate::controller::supervise::FAULT;
use crate::controller::workbench::{self, Bench, Hands};

/// Begins a run as a look does.
fn begin(bench: &Bench, kind: RunKind) {
    let mut schedules = bench.handle.schedules.lock().unwrap();
    schedules.slot(kind).started(None, "2026-01-01T00:00:00Z".parse().unwrap());
    schedules.running = Some(kind);
    drop(schedules);
    start(&bench.context, &bench.handle, kind);
}

/// Lets this time pass.
async fn wait(time: Duration) {
    tokio::time::sleep_until(tokio::time::Instant::now() + time).await;
}

async fn end(bench: &Bench) {
    workbench::end_of_run(&bench.handle).await;
}

fn observed(bench: &Bench) -> Observed {
    bench.handle.observed.borrow().clone()
}

#[tokio::test]
async fn an_audit_that_panics_has_failed_and_the_next_one_runs() {
    let bench = Bench::new(&Hands::at("2026-01-01T00:00:00Z"), &json!({}));
    bench.seal(7).await;
    bench.clock.break_for(1);
    begin(&bench, RunKind::Audit);
    end(&bench).await;
    let seen = observed(&bench);
    assert_eq!(seen.audit.phase, Some(Phase::Failed));
    let said = seen.audited.unwrap();
    assert_eq!((said.reason, said.message.as_str()), (AuditClean::Failed, FAULT));
    assert_eq!(seen.history.len(), 1);
    assert_eq!(bench.context.audits.available_permits(), 1, "its permit is another run's now");

    begin(&bench, RunKind::Audit);
    end(&bench).await;
    assert_eq!(observed(&bench).audited.unwrap().reason, AuditClean::Clean);
}

#[tokio::test]
async fn a_prune_that_panics_has_failed_and_the_next_one_runs() {
    let bench = Bench::new(&Hands::at("2026-01-01T00:00:00Z"), &json!({}));
    bench.seal(7).await;
    bench.clock.break_for(1);
    begin(&bench, RunKind::Prune);
    end(&bench).await;
    let seen = observed(&bench);
    assert_eq!(seen.prune.phase, Some(Phase::Failed));
    let said = seen.pruned.unwrap();
    assert_eq!((said.reason, said.message.as_str()), (PruneHealthy::Failed, FAULT));

    begin(&bench, RunKind::Prune);
    end(&bench).await;
    assert_eq!(observed(&bench).pruned.unwrap().reason, PruneHealthy::KeepsEverything);
}

#[tokio::test]
async fn even_a_run_whose_end_panics_leaves_its_policy_able_to_run() {
    let bench = Bench::new(&Hands::at("2026-01-01T00:00:00Z"), &json!({}));
    bench.seal(7).await;
    // The run, and then what is to be said of it.
    bench.clock.break_for(2);
    begin(&bench, RunKind::Audit);
    end(&bench).await;
    assert_eq!(bench.context.audits.available_permits(), 1);
    begin(&bench, RunKind::Audit);
    end(&bench).await;
    assert_eq!(observed(&bench).audited.unwrap().reason, AuditClean::Clean);
}

/// A policy whose store takes its time to list.
fn slow(more: &serde_json::Value) -> Bench {
    let bench = Bench::new(&Hands::at("2026-01-01T00:00:00Z"), more);
    let store = FaultStore::new(Arc::clone(bench.root.store()));
    store.before(Operation::List, "*").delay(Duration::from_hours(1));
    workbench::open(&bench.handle, &Root::from_store(Arc::new(store)));
    bench
}

#[tokio::test(start_paused = true)]
async fn an_audit_that_does_not_end_by_its_deadline_has_failed_and_says_so() {
    let bench = slow(&json!({ "audit": { "deadline": "90s" } }));
    let started = tokio::time::Instant::now();
    begin(&bench, RunKind::Audit);
    let over =
        bench.handle.observed.subscribe().wait_for(|seen| seen.audit.phase == Some(Phase::Failed)).await.map(drop);
    over.unwrap();
    assert_eq!(started.elapsed().as_secs(), 90);
    let said = observed(&bench).audited.unwrap();
    assert_eq!(said.reason, AuditClean::Failed);
    assert!(said.message.contains("deadline of 1m30s"), "{}", said.message);
}

#[tokio::test(start_paused = true)]
async fn suspending_the_audit_or_the_policy_stops_an_audit_and_leaves_what_was_found_before() {
    for more in [json!({ "audit": { "suspend": true } }), json!({ "suspend": true })] {
        let bench = slow(&json!({}));
        let before = Some(Said::new(AuditClean::Findings, "epoch 3"));
        bench.handle.observed.send_modify(|seen| seen.audited.clone_from(&before));
        begin(&bench, RunKind::Audit);
        tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_secs(5)).await;
        assert_eq!(observed(&bench).audit.phase, Some(Phase::Running));
        bench.handle.policy.send_replace(Arc::new(workbench::policy(&more, None)));
        let stopped =
            bench.handle.observed.subscribe().wait_for(|seen| seen.audit.phase == Some(Phase::Stopped)).await.map(drop);
        stopped.unwrap();
        let seen = observed(&bench);
        assert_eq!(seen.audited, before, "what was found stands");
        assert_eq!(seen.history[0].result, Phase::Stopped);
        end(&bench).await;
    }
}

#[tokio::test(start_paused = true)]
async fn suspending_the_prune_is_nothing_to_an_audit() {
    let bench = slow(&json!({}));
    begin(&bench, RunKind::Audit);
    tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_secs(5)).await;
    let suspended = json!({ "prune": { "suspend": true } });
    bench.handle.policy.send_replace(Arc::new(workbench::policy(&suspended, None)));
    tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_mins(1)).await;
    assert_eq!(observed(&bench).audit.phase, Some(Phase::Running));
}

#[tokio::test(start_paused = true)]
async fn a_slow_run_of_one_kind_keeps_none_of_the_other_waiting_and_none_of_its_own_beyond_its_deadline() {
    for (slow_kind, other) in [(RunKind::Prune, RunKind::Audit), (RunKind::Audit, RunKind::Prune)] {
        let bench = slow(&json!({ "prune": { "deadline": "10m" }, "audit": { "deadline": "10m" } }));
        begin(&bench, slow_kind);
        wait(Duration::from_secs(5)).await;
        assert_eq!(bench.context.permits(slow_kind).available_permits(), 0, "the store takes an hour to list");

        // Another policy, of the same operator.
        let quick = bench.neighbour();
        quick.seal(7).await;
        begin(&quick, other);
        end(&quick).await;
        assert_eq!(observed(&quick).history.len(), 1, "{other:?} has waited for {slow_kind:?}");
        begin(&quick, slow_kind);
        wait(Duration::from_mins(5)).await;
        assert_eq!(observed(&quick).history.len(), 1, "there is one permit, and it is taken");
        wait(Duration::from_mins(6)).await;
        assert_eq!(observed(&quick).history.len(), 2, "the deadline of the slow one is over");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_waits_for_its_turn_ends_with_a_suspension_and_with_the_operator() {
    for kind in [RunKind::Prune, RunKind::Audit] {
        let bench = Bench::new(&Hands::at("2026-01-01T00:00:00Z"), &json!({}));
        let _taken = bench.context.permits(kind).try_acquire().unwrap();
        begin(&bench, kind);
        wait(Duration::from_secs(5)).await;
        bench.handle.policy.send_replace(Arc::new(workbench::policy(&json!({ "suspend": true }), None)));
        end(&bench).await;
        assert_eq!(observed(&bench).history[0].result, Phase::Stopped);

        let bench = Bench::new(&Hands::at("2026-01-01T00:00:00Z"), &json!({}));
        let _taken = bench.context.permits(kind).try_acquire().unwrap();
        bench.handle.observed.send_modify(|observed| {
            observed.begins(kind, Phase::Pending, bench.context.clock.now());
        });
        begin(&bench, kind);
        wait(Duration::from_secs(5)).await;
        bench.handle.cancel.cancel();
        end(&bench).await;
        let left = observed(&bench);
        assert!(left.history.is_empty(), "it has not begun");
        assert!(matches!(left.schedules().slot(kind).remembered.last, LastRun::Unfinished { .. }), "it is owed");
    }
}
