use std::time::Duration;

use epochwarden_core::inventory::InventoryBuilder;
use epochwarden_core::plan::{Plan, Rules, Subject};
use epochwarden_core::retention::Retention;
use epochwarden_core::{Epoch, Numbering};
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
        floor: Some(Numbering::Plain.show(Epoch::new(9))),
        epochs: 2,
        objects: 2000,
        bytes: 2048,
        failed: 0,
        errors: Vec::new(),
        remainder: Remainder::default(),
        requests: RequestCounts { delete: 2, ..RequestCounts::default() },
        frozen_stands: false,
        approved: None,
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

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    prune: Prune,
}

fn limits(line: &str, policy: Option<&StateEpochPolicy>) -> Limits {
    use clap::Parser;
    let line = ["line", "--policy", "orders.yaml"].into_iter().chain(line.split_whitespace());
    Line::try_parse_from(line).unwrap().prune.limits(policy).unwrap()
}

#[test]
fn without_a_policy_the_limits_are_the_defaults_of_one() {
    let defaults = limits("", None);
    let minimal = crate::api::parse_manifest(include_str!("../../../examples/policies/minimal.yaml")).unwrap();
    let settings = validate::prune_settings(&minimal.spec).unwrap();
    assert_eq!(
        (defaults.max_objects, defaults.max_keys_per_second, defaults.deadline),
        (settings.max_objects, settings.max_keys_per_second, settings.deadline)
    );
    assert!(defaults.gate.is_none());
}

#[test]
fn the_limits_and_the_gate_of_a_policy_count_and_flags_are_nearer() {
    let manifest = include_str!("../../../examples/policies/full.yaml")
        .replace("approval: Automatic", "approval: Manual")
        .replace("maxObjects: 1000000", "maxObjects: 7");
    let policy = crate::api::parse_manifest(&manifest).unwrap();
    let of_policy = limits("", Some(&policy));
    assert_eq!((of_policy.max_objects, of_policy.deadline), (7, Duration::from_mins(5)));
    let gate = of_policy.gate.unwrap();
    assert!(gate.manual && gate.hold_above.is_some() && gate.frozen.is_none() && !gate.approved);
    let of_flags = limits("--max-objects 8 --max-keys-per-second 9 --deadline 10s", Some(&policy));
    assert_eq!((of_flags.max_objects, of_flags.max_keys_per_second), (8, 9));
    assert_eq!(of_flags.deadline, Duration::from_secs(10));
    assert!(of_flags.gate.is_some(), "a limit says nothing about who approves");
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
