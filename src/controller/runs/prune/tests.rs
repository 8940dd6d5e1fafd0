use std::time::Duration;

use serde_json::json;

use super::*;
use crate::controller::status::{differs, status};
use crate::controller::workbench::{self, Bench, Hands};

fn bench() -> Bench {
    let spec = json!({ "retention": { "keepLast": 1 }, "prune": { "approval": "Manual", "minAge": "0s" } });
    Bench::new(&Hands::at("2026-01-01T00:00:00Z"), &spec)
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
    prune(&bench).await;
    let failed = observed(&bench);
    let said = failed.pruned.as_ref().unwrap();
    assert_eq!(said.reason, PruneHealthy::Failed);
    assert!(said.message.contains(&digest) && said.message.contains("approval"), "{}", said.message);
    assert!(failed.approved_plan(&bench.handle.current()).is_some(), "it is still approved");

    // Written down, it goes on: to the next thing that it needs, which is an answer of the API server.
    bench.handle.approved.send_replace(Some(digest));
    prune(&bench).await;
    let said = observed(&bench).pruned.unwrap();
    assert_eq!(said.reason, PruneHealthy::Failed);
    assert!(said.message.contains("API server"), "{}", said.message);
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
