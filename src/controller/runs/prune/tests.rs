use std::time::Duration;

use epochwarden_core::schedule::LastRun;
use serde_json::json;

use super::*;
use crate::controller::status::{differs, status};
use crate::controller::workbench::{self, Bench, Hands};

fn bench() -> Bench {
    let spec = json!({ "retention": { "keepLast": 1 }, "prune": { "approval": "Manual", "minAge": "0s" } });
    Bench::new(&Hands::at("2026-01-01T00:00:00Z"), &spec)
}

async fn prune(bench: &Bench) -> After {
    let cancel = CancellationToken::new();
    let ended = tokio::time::timeout(Duration::from_hours(1), run(&bench.context, &bench.handle, &cancel)).await;
    ended.expect("it waits for something that does not come")
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

fn prune_healthy(bench: &Bench, observed: &Observed) -> (String, String) {
    let written = status(&bench.handle.current(), observed, &[], Timestamp::UNIX_EPOCH);
    let found = written.conditions.into_iter().find(|condition| condition.type_ == PruneHealthy::TYPE).unwrap();
    (found.reason, found.message)
}

async fn left(bench: &Bench) -> usize {
    epochwarden_store::list_epochs(&bench.root).await.unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_deleted_by_an_approval_that_would_be_lost_with_the_operator() {
    let bench = bench();
    for epoch in 1..=5 {
        bench.seal(epoch).await;
    }
    prune(&bench).await;
    let digest = approve(&bench);
    assert_eq!(prune(&bench).await, After::Unasked);
    let failed = observed(&bench);
    let said = failed.pruned.as_ref().unwrap();
    assert_eq!(said.reason, PruneHealthy::Failed);
    for words in [digest.as_str(), "approval could not be written", "by itself"] {
        assert!(said.message.contains(words), "{words} is not in {}", said.message);
    }
    assert!(failed.approved_plan(&bench.handle.current()).is_some(), "it is still approved");
    assert_eq!((failed.is_owed(), left(&bench).await), (true, 5));

    // Written down, it goes on: to the next thing that it needs, which is an answer of the API server.
    bench.handle.approved.send_replace(Some(digest));
    bench.handle.observed.send_modify(|observed| {
        observed.begins(RunKind::Prune, Phase::Running, bench.context.clock.now());
    });
    assert_eq!(prune(&bench).await, After::Unasked);
    let said = observed(&bench).pruned.unwrap();
    assert_eq!(said.reason, PruneHealthy::Failed);
    assert!(said.message.contains("the API server could not be asked"), "{}", said.message);
    assert!(observed(&bench).approved_plan(&bench.handle.current()).is_some(), "it has all of its rest");
    assert_eq!(left(&bench).await, 5);
}

#[tokio::test(start_paused = true)]
async fn while_its_approval_is_being_written_down_a_prune_holds_no_permit() {
    let bench = bench();
    for epoch in 1..=5 {
        bench.seal(epoch).await;
    }
    prune(&bench).await;
    approve(&bench);
    let _all = bench.context.prunes.try_acquire().unwrap();
    let begun = tokio::time::Instant::now();
    assert_eq!(prune(&bench).await, After::Unasked, "it has not even come to wait for its turn");
    assert!(begun.elapsed() <= Duration::from_mins(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_prune_that_could_not_ask_is_owed_says_so_and_asks_before_it_lists_or_takes_a_permit_again() {
    let spec = json!({ "retention": { "keepLast": 1 }, "prune": { "minAge": "0s" } });
    let bench = Bench::new(&Hands::at("2026-01-01T00:00:00Z"), &spec);
    for epoch in 1..=5 {
        bench.seal(epoch).await;
    }
    assert_eq!(prune(&bench).await, After::Unasked);
    let owed = observed(&bench);
    assert_eq!(owed.prune.phase, Some(Phase::Pending));
    assert_eq!(owed.history[0].result, Phase::Stopped);
    let (reason, message) = prune_healthy(&bench, &owed);
    assert_eq!(reason, "Failed", "an API server that refuses for ever must not pass for a prune that runs");
    assert!(message.contains("the API server could not be asked") && message.contains("by itself"), "{message}");
    assert!(owed.goes_on(&bench.handle.current()));

    // The next operator owes it, and says the same until it begins.
    let written = status(&bench.handle.current(), &owed, &[], Timestamp::UNIX_EPOCH);
    let next = Observed::of(&crate::controller::workbench::policy(&spec, Some(&written)));
    assert!(matches!(next.schedules().prune.remembered.last, LastRun::Unfinished { .. }));
    assert_eq!(prune_healthy(&bench, &next), (reason, message));
    assert_eq!(next.open_for, None, "nobody may approve what no plan waits for");

    // Not one request to the store, and not a word, as long as there is no answer.
    let _all = bench.context.prunes.try_acquire().unwrap();
    let requests = bench.root.requests().total();
    for _ in 0..3 {
        bench.clock.jump(jiff::SignedDuration::from_mins(1));
        assert_eq!(prune(&bench).await, After::Unasked);
    }
    assert_eq!(bench.root.requests().total(), requests);
    let later = observed(&bench);
    assert_eq!((&later.prune, &later.history), (&owed.prune, &owed.history));
    assert_eq!(left(&bench).await, 5);
}

#[tokio::test(start_paused = true)]
async fn an_approval_that_comes_while_a_prune_waits_for_its_turn_is_written_down_before_it_counts() {
    let bench = bench();
    for epoch in 1..=5 {
        bench.seal(epoch).await;
    }
    prune(&bench).await;
    let turn = bench.context.prunes.try_acquire().unwrap();
    let approval = async {
        tokio::time::advance(Duration::from_secs(1)).await;
        approve(&bench);
        drop(turn);
    };
    let (after, ()) = tokio::join!(prune(&bench), approval);
    assert_eq!(after, After::Unasked);
    let said = observed(&bench).pruned.unwrap();
    assert!(said.message.contains("approval could not be written"), "{}", said.message);
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
async fn the_deadline_covers_the_claim_of_the_root_too() {
    let spec = json!({ "retention": { "keepLast": 1 }, "prune": { "minAge": "0s", "deadline": "20s" } });
    let bench = Bench::new(&Hands::at("2026-01-01T00:00:00Z"), &spec);
    // Nobody is there to claim it.
    bench.handle.stores.send_modify(|held| held.as_mut().unwrap().owner = None);
    let begun = tokio::time::Instant::now();
    assert_eq!(prune(&bench).await, After::Over);
    assert_eq!(begun.elapsed().as_secs(), 20);
    let said = observed(&bench).pruned.unwrap();
    assert!(said.message.contains("deadline of 20s"), "{}", said.message);
}
