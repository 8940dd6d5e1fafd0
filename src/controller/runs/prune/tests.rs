use std::time::Duration;

use serde_json::json;

use super::*;
use crate::controller::status::{differs, status};
use crate::controller::workbench::{self, Bench, Hands};

fn bench() -> Bench {
    let spec = json!({ "retention": { "keepLast": 1 }, "prune": { "approval": "Manual", "minAge": "0s" } });
    Bench::new(&Hands::at("2026-01-01T00:00:00Z"), &spec)
}

/// What a look writes down of a run that is more than a look at a plan.
fn begins(bench: &Bench) {
    let now = bench.context.clock.now();
    bench.handle.observed.send_if_modified(|observed| observed.begins(RunKind::Prune, Phase::Running, now));
}

async fn prune(bench: &Bench) {
    run(&bench.context, &bench.handle, &CancellationToken::new()).await;
}

fn observed(bench: &Bench) -> Observed {
    bench.handle.observed.borrow().clone()
}

fn approve(bench: &Bench) -> String {
    let mut digest = String::new();
    bench.handle.observed.send_modify(|observed| {
        let plan = observed.plan.as_mut().unwrap();
        plan.approved_at = Some(bench.context.clock.now());
        digest.clone_from(&plan.digest);
    });
    digest
}

#[tokio::test]
async fn a_slot_that_finds_the_plan_still_waiting_changes_nothing_but_the_epochs() {
    let bench = bench();
    for epoch in 1..=5 {
        bench.seal(epoch).await;
    }
    prune(&bench).await;
    let first = observed(&bench);
    assert_eq!(first.prune.phase, Some(Phase::AwaitingApproval));
    assert_eq!(first.history.len(), 1);
    let plan = first.plan.clone().unwrap();
    assert_eq!((plan.epochs.get(), plan.before), (4, Some(workbench::shown(5))));

    // Nothing happened in the bucket: not a word is to be written.
    bench.clock.jump(jiff::SignedDuration::from_mins(15));
    prune(&bench).await;
    let shown = |observed: &Observed| status(&bench.handle.current(), observed, &[], Timestamp::UNIX_EPOCH);
    assert!(!differs(&shown(&first), &shown(&observed(&bench))));

    // The pipeline goes on.
    for epoch in 6..=9 {
        bench.seal(epoch).await;
    }
    prune(&bench).await;
    let mut later = observed(&bench);
    assert_eq!(later.epochs.as_ref().unwrap().latest_committed, Some(workbench::shown(9)));
    later.epochs.clone_from(&first.epochs);
    assert!(!differs(&shown(&first), &shown(&later)), "{:#?}", shown(&later));
    assert_eq!(later.plan, Some(plan), "times included");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_deleted_by_an_approval_that_would_be_lost_with_the_operator() {
    let bench = bench();
    for epoch in 1..=5 {
        bench.seal(epoch).await;
    }
    prune(&bench).await;
    let digest = approve(&bench);
    begins(&bench);
    prune(&bench).await;
    let owed = observed(&bench);
    assert_eq!(owed.prune.phase, Some(Phase::Pending));
    let message = owed.prune.message.clone().unwrap();
    assert!(message.contains(&digest) && message.contains("approval") && message.contains("again"), "{message}");
    assert_eq!(owed.history.len(), 1, "one that has not begun has no history");
    assert!(owed.approved_plan(&bench.handle.current()).is_some(), "it is still approved");

    // Written down, it goes on: to the next thing that it needs, which is an answer of the API server.
    bench.handle.approved.send_replace(Some(digest));
    prune(&bench).await;
    let message = observed(&bench).prune.message.unwrap();
    assert!(message.contains("API server") && message.contains("again"), "{message}");
    assert!(observed(&bench).approved_plan(&bench.handle.current()).is_some(), "it has all of its rest");
    let left = epochwarden_store::list_epochs(&bench.root).await.unwrap();
    assert_eq!(left.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_approval_that_is_not_written_down_yet_holds_nobody_up_when_the_policy_changes() {
    let bench = bench();
    for epoch in 1..=5 {
        bench.seal(epoch).await;
    }
    prune(&bench).await;
    approve(&bench);
    let begun = tokio::time::Instant::now();
    let change = async {
        tokio::time::advance(Duration::from_secs(1)).await;
        let mut changed = (*bench.handle.current()).clone();
        changed.metadata.generation = Some(2);
        bench.handle.policy.send_replace(Arc::new(changed));
    };
    tokio::join!(prune(&bench), change);
    assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_an_approved_plan_goes_on_without_a_schedule_and_waits_for_its_slot_with_one() {
    for (schedule, expected) in [(None, true), (Some("@daily"), false)] {
        let mut spec = json!({ "retention": { "keepLast": 1 }, "prune": { "approval": "Manual", "minAge": "0s" } });
        if let Some(schedule) = schedule {
            spec["prune"]["schedule"] = schedule.into();
        }
        let bench = Bench::new(&Hands::at("2026-01-01T00:00:00Z"), &spec);
        for epoch in 1..=5 {
            bench.seal(epoch).await;
        }
        prune(&bench).await;
        bench.handle.approved.send_replace(Some(approve(&bench)));
        // No store to work with is a failure of the run, and changes nothing about what was approved.
        bench.handle.stores.send_replace(None);
        let ended = run(&bench.context, &bench.handle, &CancellationToken::new()).await;
        let seen = observed(&bench);
        assert_eq!(seen.prune.phase, Some(Phase::Failed), "{:?}", seen.prune.message);
        assert_eq!(matches!(ended, Ending::Again { .. }), expected, "{schedule:?}");
        assert_eq!(seen.prune.message.unwrap().contains("goes on by itself"), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_prune_that_begins_again_asks_before_it_lists() {
    let bench = bench();
    bench.seal(1).await;
    bench.handle.schedules.lock().unwrap().slot(RunKind::Prune).waited = Some(Duration::from_secs(5));
    begins(&bench);
    prune(&bench).await;
    let seen = observed(&bench);
    assert_eq!(seen.prune.phase, Some(Phase::Pending));
    assert!(seen.prune.message.unwrap().contains("API server") && seen.epochs.is_none() && seen.history.is_empty());
}
