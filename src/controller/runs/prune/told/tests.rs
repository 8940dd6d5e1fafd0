use std::time::Duration;

use epochwarden_core::inventory::{Inventory, InventoryBuilder};
use epochwarden_core::plan::{Plan, Rules, Subject};
use epochwarden_core::retention::Retention;
use epochwarden_store::RequestCounts;
use epochwarden_store::prune::Remainder;
use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::controller::workbench;

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

/// What is known of a policy; `approved`: with a plan of which something is left.
fn known(schedule: Option<&str>, approved: bool) -> (StateEpochPolicy, Observed) {
    let policy = workbench::policy(&json!({ "prune": { "schedule": schedule } }), None);
    let mut observed = Observed::of(&policy);
    if approved {
        observed.plan = Some(PlanStatus { approved_at: Some(Timestamp::UNIX_EPOCH), ..PlanStatus::default() });
        observed.open_for = policy.metadata.generation;
    }
    (policy, observed)
}

#[test]
fn what_is_left_goes_on_by_itself_where_nobody_else_would_come_back_to_it_and_the_message_says_who_does() {
    let (cannot, fails) = (Stop::CannotAsk { message: "no answer".into() }, After::Failed { progress: true });
    let down = Stop::Store { class: ErrorClass::Unreachable, message: "no answer".into() };
    let (daily, never) = (Some("@daily"), None);
    let (next_run, ask) = ("left for the next run", "epochwarden.io/run=prune@$(date +%s)");
    for (stop, schedule, approved, after, words) in [
        // Nobody decided it.
        (cannot.clone(), daily, false, After::Unasked, "when the API server can be reached"),
        (cannot, never, true, After::Unasked, "when the API server can be reached"),
        (down, never, false, fails, "tried again by itself"),
        // A limit was set by somebody: it is the next slot's, or else whoever approved the plan waits for all of it.
        (Stop::MaxObjects, daily, false, After::Over, next_run),
        (Stop::MaxObjects, daily, true, After::Over, next_run),
        (Stop::MaxObjects, never, true, After::Limit, "goes on by itself in a moment"),
        (Stop::Deadline, never, true, After::Limit, "goes on by itself in a moment"),
        (Stop::MaxObjects, never, false, After::Over, ask),
        // Somebody did not want it any more.
        (Stop::NotPermitted { message: "suspended".into() }, never, true, After::Over, ask),
        (Stop::NotPermitted { message: "suspended".into() }, daily, true, After::Over, next_run),
        (Stop::OwnerChanged, never, true, fails, "tried again by itself"),
    ] {
        let case = format!("{stop:?} {schedule:?} {approved}");
        let report = PruneReport { frozen_stands: approved, ..stopped(stop, 5) };
        let mut told = Told::of(&name(), &report, None);
        let (policy, observed) = known(schedule, approved);
        assert_eq!(told.goes_on(&policy, Some(&report), &observed), after, "{case}");
        assert!(told.message.contains("5 epochs are left") && told.message.contains(words), "{case}: {}", told.message);
        assert_eq!(told.said.unwrap().message, told.message, "{case}");
    }
}

#[test]
fn an_approved_plan_that_fails_is_tried_again_where_no_schedule_does_that() {
    for (schedule, approved, after) in [
        (None, true, After::Failed { progress: false }),
        (Some("@daily"), true, After::Over),
        (None, false, After::Over),
    ] {
        let (policy, observed) = known(schedule, approved);
        for mut told in [Told::failure("no answer".into()), Told::held("NoneComplete", "none".into())] {
            assert_eq!(told.goes_on(&policy, None, &observed), after, "{schedule:?} {approved}");
            assert_eq!(told.message.contains("by itself"), after != After::Over, "{}", told.message);
        }
        let report = PruneReport { frozen_stands: approved, ..report(PruneOutcome::PartlyFailed, 1) };
        let mut told = Told::of(&name(), &report, None);
        let goes_on = told.goes_on(&policy, Some(&report), &observed) != After::Over;
        assert_eq!(goes_on, after != After::Over);
        let words = match (schedule, goes_on) {
            (Some(_), _) => "the next run tries again",
            (None, true) => "tried again by itself",
            (None, false) => "no schedule brings another prune",
        };
        assert!(told.message.contains(words), "{}", told.message);
    }
    // What was carried out to its end is over, and so is what the operator's end has interrupted: the next one owes it.
    let (policy, observed) = known(None, true);
    let report = PruneReport { frozen_stands: false, ..report(PruneOutcome::PartlyFailed, 1) };
    assert_eq!(Told::of(&name(), &report, None).goes_on(&policy, Some(&report), &observed), After::Over);
    let mut told = Told::interrupted();
    assert_eq!(told.goes_on(&policy, Some(&stopped(Stop::Cancelled, 5)), &observed), After::Over);
    assert_eq!(told.message, INTERRUPTED);
}
