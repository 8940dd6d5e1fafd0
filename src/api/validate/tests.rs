use std::collections::BTreeSet;

use epochwarden_core::Epoch;
use serde_json::{Value, json};

use super::*;

fn policy(spec: &Value) -> StateEpochPolicy {
    serde_json::from_value(json!({
        "apiVersion": "epochwarden.io/v1alpha1",
        "kind": "StateEpochPolicy",
        "metadata": { "name": "orders", "namespace": "streaming", "uid": "5f1f" },
        "spec": spec,
    }))
    .unwrap()
}

fn spec(path: &str, value: Value) -> StateEpochPolicySpec {
    let mut spec = json!({ "store": { "url": "s3://state" }, "vnodes": 4 });
    let mut place = &mut spec;
    for key in path.split('.') {
        place = &mut place[key];
    }
    *place = value;
    policy(&spec).spec
}

const DAY: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn every_field_of_a_policy_reaches_the_rules() {
    let spec = policy(&json!({
        "store": { "url": "s3://state" },
        "vnodes": 256,
        "retention": {
            "keepLast": 10,
            "keepWithin": "1d12h",
            "keepEvery": [{ "every": "1h", "for": "7d" }, { "every": "1d", "for": "30d" }],
            "pinned": [{ "epoch": "4711", "note": "INC-12" }, { "epoch": "0" }],
            "incrementalDepth": 2,
        },
        "prune": {
            "dryRun": true,
            "approval": "Manual",
            "holdAbove": { "epochs": 5, "percent": 10 },
            "minAge": "0s",
            "maxObjects": 7,
            "maxKeysPerSecond": 9,
            "deadline": "5m",
        },
        "audit": { "sealCheckEvery": "90s", "stalledAfter": "0s", "deadline": "1h" },
    }))
    .spec;
    let rules = Rules {
        vnodes: 256,
        retention: Retention {
            keep_last: Some(10),
            keep_within: Some(DAY + 12 * HOUR),
            keep_every: vec![KeepEvery { every: HOUR, for_: 7 * DAY }, KeepEvery { every: DAY, for_: 30 * DAY }],
            pinned: BTreeSet::from([Epoch::new(4711), Epoch::new(0)]),
            incremental_depth: 2,
        },
        min_age: Duration::ZERO,
    };
    assert_eq!(
        prune_settings(&spec),
        Ok(PruneSettings {
            rules: rules.clone(),
            dry_run: true,
            max_objects: 7,
            max_keys_per_second: 9,
            approval: Approval::Manual,
            hold_above: HoldAbove { epochs: 5, percent: 10 },
            deadline: 5 * MINUTE,
        })
    );
    let seal_check_every = Some(Duration::from_secs(90));
    let audit = AuditSettings { rules, seal_check_every, stalled_after: Duration::ZERO, deadline: HOUR };
    assert_eq!(audit_settings(&spec), Ok(audit));
    assert_eq!(check(&spec), Ok(()));
}

#[test]
fn a_policy_that_says_nothing_keeps_everything_and_gets_the_defaults_of_the_schema() {
    let spec = spec("vnodes", json!(4));
    let prune = prune_settings(&spec).unwrap();
    assert!(prune.rules.retention.keeps_everything());
    assert_eq!(prune.rules.min_age, 10 * MINUTE);
    assert_eq!((prune.max_objects, prune.deadline, prune.dry_run), (1_000_000, 30 * MINUTE, false));
    assert_eq!((prune.approval, prune.max_keys_per_second), (Approval::Automatic, 2_000));
    assert_eq!(prune.hold_above, HoldAbove { epochs: 1_000, percent: 50 });
    let audit = audit_settings(&spec).unwrap();
    assert_eq!((audit.stalled_after, audit.deadline), (30 * MINUTE, 30 * MINUTE));
    assert_eq!(audit.seal_check_every, Some(5 * MINUTE));
}

#[test]
fn no_time_between_two_seal_checks_is_none_at_all() {
    let spec = spec("audit", json!({ "sealCheckEvery": "0s" }));
    assert_eq!(audit_settings(&spec).unwrap().seal_check_every, None);
}

#[test]
fn what_cannot_be_names_its_field_and_says_what_to_write() {
    for (path, value, field, what_to_write) in [
        ("vnodes", json!(0), "spec.vnodes", "a number from 1 to 1048576"),
        ("vnodes", json!(1_048_577), "spec.vnodes", "a number from 1 to 1048576"),
        ("prune.maxObjects", json!(0), "spec.prune.maxObjects", "a number from 1 to"),
        ("prune.maxKeysPerSecond", json!(0), "spec.prune.maxKeysPerSecond", "a number from 1 to"),
        ("prune.holdAbove", json!({ "percent": 101 }), "spec.prune.holdAbove.percent", "a number from 0 to 100"),
        ("audit.sealCheckEvery", json!("soon"), "spec.audit.sealCheckEvery", "such as 90s"),
        ("retention.keepLast", json!(0), "spec.retention.keepLast", "a number from 1 to"),
        ("retention.incrementalDepth", json!(1_000_001), "spec.retention.incrementalDepth", "a number from 0 to"),
        ("retention.keepWithin", json!("yesterday"), "spec.retention.keepWithin", "such as 90s"),
        ("retention.keepWithin", json!("0s"), "spec.retention.keepWithin", "longer than 0s"),
        (
            "retention.keepEvery",
            json!([{ "every": "1h", "for": "1h" }, { "every": "0s", "for": "1h" }]),
            "spec.retention.keepEvery[1].every",
            "longer than 0s",
        ),
        (
            "retention.keepEvery",
            json!([{ "every": "1h", "for": "" }]),
            "spec.retention.keepEvery[0].for",
            "such as 90s",
        ),
        (
            "retention.pinned",
            json!([{ "epoch": "1" }, { "epoch": "007" }]),
            "spec.retention.pinned[1].epoch",
            "without sign or leading zeros",
        ),
        ("prune.minAge", json!("-1s"), "spec.prune.minAge", "such as 90s"),
        ("prune.deadline", json!("0m"), "spec.prune.deadline", "longer than 0s"),
        ("audit.deadline", json!("0m"), "spec.audit.deadline", "longer than 0s"),
        ("audit.stalledAfter", json!("1"), "spec.audit.stalledAfter", "such as 90s"),
    ] {
        let message = check(&spec(path, value.clone())).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("{field}: ")) && message.contains(what_to_write),
            "{path} = {value}: {message}"
        );
    }
}

#[test]
fn an_epoch_that_no_json_number_holds_can_be_pinned() {
    let spec = spec("retention.pinned", json!([{ "epoch": "18446744073709551615" }]));
    assert_eq!(retention(&spec.retention, spec.numbering).unwrap().pinned, BTreeSet::from([Epoch::new(u64::MAX)]));
}

#[test]
fn a_policy_without_a_schedule_never_runs() {
    let policy = policy(&json!({ "store": { "url": "s3://state" }, "vnodes": 4 }));
    assert!(prune_schedule(&policy).unwrap().is_none());
    assert!(audit_schedule(&policy).unwrap().is_none());
}

#[test]
fn an_offset_is_stable_for_a_policy_and_another_for_its_other_run_and_for_another_policy() {
    let schedules = |uid: &str| {
        let mut policy = policy(&json!({
            "store": { "url": "s3://state" },
            "vnodes": 4,
            "prune": { "schedule": "H H * * *" },
            "audit": { "schedule": "H H * * *" },
        }));
        policy.metadata.uid = Some(uid.to_owned());
        let resolved = |schedule: Option<Schedule>| schedule.unwrap().resolved().to_owned();
        (resolved(prune_schedule(&policy).unwrap()), resolved(audit_schedule(&policy).unwrap()))
    };
    let (prune, audit) = schedules("5f1f");
    assert_eq!((prune.clone(), audit.clone()), schedules("5f1f"));
    assert_ne!(prune, audit);
    assert_ne!((prune, audit), schedules("5f20"));
}

#[test]
fn a_schedule_in_an_unknown_time_zone_concerns_only_its_run() {
    let policy = policy(&json!({
        "store": { "url": "s3://state" },
        "vnodes": 4,
        "prune": { "schedule": "@hourly", "timeZone": "Middle/Earth" },
        "audit": { "schedule": "@hourly" },
    }));
    assert!(matches!(prune_schedule(&policy), Err(ScheduleError::TimeZone { .. })));
    assert!(audit_schedule(&policy).unwrap().is_some());
    assert_eq!(check(&policy.spec), Ok(()));
}
