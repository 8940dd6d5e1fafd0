use std::time::Duration;

use epochwarden_core::inventory::{Inventory, InventoryBuilder};
use epochwarden_core::plan::{Plan, Rules, Subject};
use epochwarden_core::retention::Retention;
use epochwarden_store::RequestCounts;
use epochwarden_store::prune::Remainder;
use jiff::Timestamp;

use super::*;

fn report(outcome: PruneOutcome, left: u64) -> PruneReport {
    let rules = Rules { vnodes: 1, retention: Retention::default(), min_age: Duration::ZERO };
    let inventory: Inventory = InventoryBuilder::new(1).finish();
    let subject = Subject { root: "s3://state/orders".into(), policy_uid: "u1".into() };
    PruneReport {
        started_at: Timestamp::UNIX_EPOCH,
        finished_at: Timestamp::UNIX_EPOCH,
        outcome,
        plan: Plan::new(&inventory, &rules, &subject).summary(),
        found: inventory.summary(Timestamp::UNIX_EPOCH),
        floor: None,
        epochs: 3,
        objects: 12,
        bytes: 120,
        failed: 0,
        errors: Vec::new(),
        remainder: Remainder { epochs: left, objects: left },
        requests: RequestCounts::default(),
        frozen_stands: false,
        approved: None,
    }
}

fn stopped(stop: Stop, left: u64) -> PruneReport {
    report(PruneOutcome::Stopped { stop }, left)
}

fn name() -> PolicyName {
    PolicyName { namespace: "streaming".into(), name: "orders".into() }
}

fn told(report: &PruneReport, backlog: &mut Backlog) -> Told {
    let mut told = Told::of(&name(), report, None);
    told.or_falling_behind(report, backlog);
    told
}

#[test]
fn a_plan_that_waits_is_told_with_its_numbers_and_the_very_command_that_approves_it() {
    let plan =
        PlanStatus { digest: "d1".into(), epochs: 7_u64.into(), objects: 35_u64.into(), ..PlanStatus::default() };
    for (reason, expected, held) in [
        ("AwaitingApproval", PruneHealthy::AwaitingApproval, None),
        ("MassDeletion", PruneHealthy::MassDeletion, Some("MassDeletion")),
    ] {
        let outcome = PruneOutcome::AwaitingApproval { reason, message: "plan d1 waits".into() };
        let report = PruneReport { frozen_stands: true, ..report(outcome, 0) };
        let told = Told::of(&name(), &report, Some(&plan));
        assert_eq!((told.phase, told.said.unwrap().reason, told.held), (Phase::AwaitingApproval, expected, held));
        for words in [
            "plan d1 waits",
            "7 epochs",
            "35 objects",
            "kubectl -n streaming annotate --overwrite sep orders epochwarden.io/approve-plan=d1",
        ] {
            assert!(told.message.contains(words), "{words} is not in {}", told.message);
        }
        assert_eq!(told.notice, Some(Reason::PrunePlanned));
    }
}

#[test]
fn a_prune_that_cannot_ask_the_api_server_has_failed_and_one_that_is_not_wanted_has_not() {
    for (stop, expected) in [
        (Stop::CannotAsk { message: "no answer".into() }, PruneHealthy::Failed),
        (Stop::NotPermitted { message: "suspended".into() }, PruneHealthy::Succeeded),
        (Stop::OwnerChanged, PruneHealthy::Held),
    ] {
        let told = told(&stopped(stop.clone(), 5), &mut Backlog::default());
        assert_eq!(told.said.unwrap().reason, expected, "{stop:?}");
        assert_eq!(told.phase, Phase::Stopped);
    }
}

#[test]
fn a_backlog_that_grows_is_told_with_its_numbers_and_every_way_out() {
    for stop in [Stop::MaxObjects, Stop::Deadline] {
        let mut backlog = Backlog::default();
        for left in [10, 20] {
            assert_eq!(told(&stopped(stop.clone(), left), &mut backlog).said.unwrap().reason, PruneHealthy::Succeeded);
        }
        let behind = told(&stopped(stop.clone(), 30), &mut backlog);
        assert_eq!(behind.notice, Some(Reason::PruneFailed));
        let said = behind.said.unwrap();
        assert_eq!(said.reason, PruneHealthy::FallingBehind);
        for words in ["10, 20, 30", "maxObjects", "deadline", "maxKeysPerSecond", "spec.prune.schedule"] {
            assert!(said.message.contains(words), "{words} is not in {}", said.message);
        }
    }
}

#[test]
fn what_is_left_for_another_reason_than_a_limit_is_no_backlog_and_a_run_that_comes_to_its_end_clears_it() {
    let mut backlog = Backlog::default();
    for left in [10, 20] {
        told(&stopped(Stop::MaxObjects, left), &mut backlog);
    }
    // None of these counts, so the third run that counts is the one that shows it.
    for stop in [Stop::Cancelled, Stop::OwnerChanged, Stop::CannotAsk { message: String::new() }] {
        assert_ne!(told(&stopped(stop, 99), &mut backlog).said.unwrap().reason, PruneHealthy::FallingBehind);
    }
    let mut ended = backlog.clone();
    assert_eq!(told(&stopped(Stop::MaxObjects, 30), &mut backlog).said.unwrap().reason, PruneHealthy::FallingBehind);
    told(&report(PruneOutcome::PartlyFailed, 25), &mut ended);
    assert_eq!(told(&stopped(Stop::MaxObjects, 30), &mut ended).said.unwrap().reason, PruneHealthy::Succeeded);
}

#[test]
fn what_could_not_be_deleted_outweighs_what_was_not_come_to() {
    let mut backlog = Backlog::default();
    for left in [10, 20, 30] {
        let failing = PruneReport { failed: 1, ..stopped(Stop::MaxObjects, left) };
        assert_eq!(told(&failing, &mut backlog).said.unwrap().reason, PruneHealthy::PartlyFailed);
    }
}
