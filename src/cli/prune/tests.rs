use std::time::Duration;

use epochwarden_core::Epoch;
use epochwarden_core::inventory::InventoryBuilder;
use epochwarden_core::plan::{Plan, Rules, Subject};
use epochwarden_core::retention::Retention;
use epochwarden_store::prune::{DeleteFailure, Remainder};
use epochwarden_store::{ErrorClass, RequestCounts};
use jiff::Timestamp;

use super::*;

fn report(outcome: PruneOutcome) -> PruneReport {
    let inventory = InventoryBuilder::new(1).finish();
    let rules = Rules { vnodes: 1, retention: Retention::default(), min_age: Duration::ZERO };
    let plan = Plan::new(&inventory, &rules, &Subject { root: "s3://state".into(), policy_uid: String::new() });
    PruneReport {
        started_at: Timestamp::UNIX_EPOCH,
        finished_at: Timestamp::UNIX_EPOCH,
        outcome,
        plan: plan.summary(),
        found: inventory.summary(Timestamp::UNIX_EPOCH),
        floor: Some(Epoch::new(9)),
        epochs: 2,
        objects: 2000,
        bytes: 2048,
        failed: 0,
        errors: Vec::new(),
        remainder: Remainder::default(),
        requests: RequestCounts { delete: 2, ..RequestCounts::default() },
    }
}

#[test]
fn only_a_clear_yes_is_one() {
    for (answer, yes) in [
        ("y\n", true),
        ("Yes\n", true),
        (" YES \n", true),
        ("", false),
        ("\n", false),
        ("n\n", false),
        ("yes please\n", false),
    ] {
        let mut question = Vec::new();
        let answered = ask("2 epochs", &mut answer.as_bytes(), &mut question);
        assert_eq!(answered.is_ok(), yes, "{answer:?}");
        assert_eq!(String::from_utf8(question).unwrap(), "Delete 2 epochs? This cannot be undone. [y/N] ");
        if let Err(error) = answered {
            assert!(matches!(error, CliError::Declined));
        }
    }
}

#[test]
fn how_a_prune_ended_has_a_code() {
    let held = PruneOutcome::Held { reason: "EpochRegression", message: "x".into() };
    let stopped = |stop| PruneOutcome::Stopped { stop };
    for (outcome, code) in [
        (PruneOutcome::Succeeded, 0),
        (PruneOutcome::KeepsEverything, 0),
        (PruneOutcome::PartlyFailed, 1),
        (held, 4),
        (stopped(Stop::MaxObjects), 0),
        (stopped(Stop::Deadline), 0),
        (stopped(Stop::Cancelled), 1),
        (stopped(Stop::OwnerChanged), 4),
        (stopped(Stop::Store { class: ErrorClass::RegisterLost, message: "x".into() }), 4),
        (stopped(Stop::Store { class: ErrorClass::Unreachable, message: "x".into() }), 1),
        (stopped(Stop::Held { hold: "EpochRegression", message: "x".into() }), 4),
    ] {
        assert_eq!(exit(&outcome) as i32, code, "{outcome:?}");
    }
}

#[test]
fn people_read_what_is_gone_and_what_is_left() {
    let expected = "deleted 2 epochs, 2,000 objects, 2.0 KiB\nfloor 9: no epoch below it can be sealed any more\n";
    assert_eq!(Text(&report(PruneOutcome::Succeeded)).to_string(), expected);

    let mut partly = report(PruneOutcome::PartlyFailed);
    partly.failed = 2;
    partly.errors = vec![DeleteFailure { key: "epoch=1/x".into(), error: "denied\u{7}".into() }];
    let text = Text(&partly).to_string();
    let failures = "2 objects could not be deleted, and will be planned again:\n  epoch=1/x: denied\\u{7}\n  …\n";
    assert_eq!(text, format!("{expected}{failures}"));

    let mut stopped = report(PruneOutcome::Stopped { stop: Stop::Deadline });
    stopped.remainder = Remainder { epochs: 1, objects: 3 };
    let rest = "stopped before the end: its deadline was reached\nleft for the next run: 1 epoch, 3 objects\n";
    assert_eq!(Text(&stopped).to_string(), format!("{expected}{rest}"));

    let keeps = Text(&report(PruneOutcome::KeepsEverything)).to_string();
    assert!(keeps.starts_with("everything is kept: none of --keep-last"), "{keeps}");
}

#[test]
fn programs_are_shown_the_report() {
    let report = report(PruneOutcome::Stopped { stop: Stop::MaxObjects });
    let json = serde_json::to_value(Shown { root: "s3://state", report: &report }).unwrap();
    assert_eq!(json["root"], "s3://state");
    assert_eq!(json["outcome"], "Stopped");
    assert_eq!(json["stop"]["reason"], "MaxObjects");
    assert_eq!((&json["epochs"], &json["objects"], &json["bytes"]), (&2.into(), &2000.into(), &2048.into()));
    assert_eq!(json["floor"], "9");
    assert_eq!(json["requests"], serde_json::json!({"list": 0, "get": 0, "head": 0, "put": 0, "delete": 2}));
}
