use epochwarden_core::Epoch;
use epochwarden_core::register::{RegisterKind, RegisterLost};
use serde_json::{Value, json};

use super::*;
use crate::api::condition::StoreReady;
use crate::api::status::{EpochsStatus, PastRun, RunKind};
use crate::controller::workbench::shown;

fn policy(extra: &Value) -> StateEpochPolicy {
    let mut spec = json!({ "store": { "url": "s3://state/orders" }, "vnodes": 4 });
    for (field, value) in extra.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "epochwarden.io/v1alpha1",
        "kind": "StateEpochPolicy",
        "metadata": { "name": "orders", "namespace": "streaming", "uid": "u1", "generation": 3 },
        "spec": spec,
    }))
    .unwrap()
}

fn observed() -> Observed {
    let mut observed = Observed::of(&policy(&json!({})));
    observed.store = Said::new(StoreReady::Reachable, "it can be used");
    observed.fence = Said::new(FenceCurrent::Published, "version 7");
    observed
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn reason(status: &StateEpochPolicyStatus, type_: &str) -> Option<(String, String)> {
    let condition = status.conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((condition.status.clone(), condition.reason.clone()))
}

#[allow(clippy::unnecessary_wraps, reason = "a condition may be absent")]
fn is(status: &str, reason: &str) -> Option<(String, String)> {
    Some((status.into(), reason.into()))
}

#[test]
fn a_policy_is_ready_when_its_store_is_whatever_its_lease_says() {
    let mut observed = observed();
    for fence in
        [FenceCurrent::Published, FenceCurrent::NoHolder, FenceCurrent::LeaseExpired, FenceCurrent::FenceConflict]
    {
        observed.fence.reason = fence;
        let status = status(&policy(&json!({})), &observed, &[], at(1));
        assert_eq!(reason(&status, "Ready"), is("True", "Reachable"), "{fence:?}");
        assert_eq!((reason(&status, "Stalled"), reason(&status, "Reconciling")), (None, None), "{fence:?}");
    }
}

#[test]
fn what_a_person_has_to_mend_is_stalled_and_what_may_pass_is_reconciling() {
    let mut observed = observed();
    for (store, type_) in [
        (StoreReady::InvalidConfiguration, Some("Stalled")),
        (StoreReady::CredentialsNotAllowed, Some("Stalled")),
        (StoreReady::RootConflict, Some("Stalled")),
        (StoreReady::UnknownLayout, Some("Stalled")),
        (StoreReady::Unreachable, Some("Reconciling")),
        (StoreReady::SecretNotFound, Some("Reconciling")),
        (StoreReady::Pending, Some("Reconciling")),
        (StoreReady::AccessDenied, None),
        (StoreReady::BucketNotFound, None),
    ] {
        observed.store.reason = store;
        let status = status(&policy(&json!({})), &observed, &[], at(1));
        assert_ne!(reason(&status, "Ready").map(|(status, _)| status), Some("True".into()), "{store:?}");
        for candidate in ["Stalled", "Reconciling"] {
            assert_eq!(reason(&status, candidate).is_some(), type_ == Some(candidate), "{store:?} {candidate}");
        }
    }
}

#[test]
fn a_lost_register_lowers_ready_and_is_stalled() {
    let mut observed = observed();
    observed.lost = Some(RegisterLost { register: RegisterKind::Floor, seen: 7, found: 0 });
    let status = status(&policy(&json!({})), &observed, &[], at(1));
    assert_eq!(reason(&status, "Ready"), is("False", "RegisterLost"));
    assert_eq!(reason(&status, "Stalled"), is("True", "RegisterLost"));
    let message = &status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap().message;
    assert!(message.contains("floor"), "{message}");
}

#[test]
fn prune_says_why_there_is_none_before_it_says_how_the_last_one_was() {
    let scheduled = json!({ "prune": { "schedule": "@hourly" } });
    let mut observed = observed();
    for (spec, pruned, expected) in [
        (json!({}), None, is("Unknown", "NotScheduled")),
        (scheduled.clone(), None, is("Unknown", "Pending")),
        (scheduled.clone(), Some(PruneHealthy::Held), is("False", "Held")),
        (json!({}), Some(PruneHealthy::Succeeded), is("True", "Succeeded")),
        (
            json!({ "suspend": true, "prune": { "schedule": "@hourly" } }),
            Some(PruneHealthy::Failed),
            is("Unknown", "Suspended"),
        ),
        (
            json!({ "prune": { "schedule": "@hourly", "suspend": true } }),
            Some(PruneHealthy::Failed),
            is("Unknown", "Suspended"),
        ),
        (
            json!({ "prune": { "schedule": "@hourly", "timeZone": "Mars/Olympus" } }),
            None,
            is("False", "InvalidSchedule"),
        ),
    ] {
        observed.pruned = pruned.map(|reason| Said::new(reason, "x"));
        let status = status(&policy(&spec), &observed, &[], at(1));
        assert_eq!(reason(&status, "PruneHealthy"), expected, "{spec} {pruned:?}");
    }
    observed.prune.phase = Some(Phase::Running);
    assert_eq!(reason(&status(&policy(&scheduled), &observed, &[], at(1)), "PruneHealthy"), is("True", "Running"));
}

#[test]
fn an_audit_that_found_something_stays_false_until_another_finds_nothing() {
    let scheduled = json!({ "audit": { "schedule": "@hourly" } });
    let mut observed = observed();
    observed.audited = Some(Said::new(AuditClean::Findings, "epoch 3"));
    observed.audit.phase = Some(Phase::Running);
    assert_eq!(reason(&status(&policy(&scheduled), &observed, &[], at(1)), "AuditClean"), is("False", "Findings"));
    observed.audited = None;
    assert_eq!(
        reason(&status(&policy(&json!({})), &observed, &[], at(1)), "AuditClean"),
        is("Unknown", "NotScheduled")
    );
}

#[test]
fn a_condition_keeps_its_time_while_its_status_stays() {
    let observed = observed();
    let first = status(&policy(&json!({})), &observed, &[], at(1));
    let second = status(&policy(&json!({})), &observed, &first.conditions, at(99));
    assert_eq!(first, second);
    let mut worse = observed;
    worse.store.reason = StoreReady::Unreachable;
    let third = status(&policy(&json!({})), &worse, &second.conditions, at(100));
    let time = |status: &StateEpochPolicyStatus, type_: &str| {
        status.conditions.iter().find(|condition| condition.type_ == type_).unwrap().last_transition_time.0
    };
    assert_eq!((time(&third, "StoreReady"), time(&third, "FenceCurrent")), (at(100), at(1)));
}

#[test]
fn times_alone_are_no_difference_and_anything_else_is() {
    let mut observed = observed();
    observed.epochs = Some(EpochsStatus { observed_at: Some(at(1)), ..EpochsStatus::default() });
    observed.prune.started_at = Some(at(1));
    observed.history = vec![PastRun {
        kind: RunKind::Audit,
        started_at: at(1),
        finished_at: at(2),
        result: Phase::Succeeded,
        message: None,
    }];
    let before = status(&policy(&json!({})), &observed, &[], at(5));
    let mut later = observed.clone();
    later.epochs.as_mut().unwrap().observed_at = Some(at(50));
    later.prune.started_at = Some(at(50));
    later.history[0].finished_at = at(51);
    assert!(!differs(&before, &status(&policy(&json!({})), &later, &[], at(55))));
    later.epochs.as_mut().unwrap().latest_committed = Some(shown(9));
    assert!(differs(&before, &status(&policy(&json!({})), &later, &[], at(55))));
}

#[test]
fn what_an_earlier_life_wrote_is_what_the_next_one_knows() {
    let mut observed = observed();
    observed.pruned = Some(Said::new(PruneHealthy::PartlyFailed, "3 left"));
    observed.prune.phase = Some(Phase::Running);
    observed.prune.started_at = Some(at(7));
    observed.prune.floor = Some(shown(12));
    let mut written = status(&policy(&json!({})), &observed, &[], at(1));
    // While it ran, the condition said so, and not how the last one ended.
    let knows = |written: &StateEpochPolicyStatus| {
        Observed::of(&StateEpochPolicy { status: Some(written.clone()), ..policy(&json!({})) })
    };
    assert_eq!(knows(&written).pruned, None);
    observed.prune.phase = Some(Phase::PartlyFailed);
    written.conditions = status(&policy(&json!({})), &observed, &[], at(1)).conditions;
    let next = knows(&written);
    assert_eq!(next.pruned, Some(Said::new(PruneHealthy::PartlyFailed, "3 left")));
    assert_eq!(next.seen.floor, Epoch::new(12));
    assert!(!next.first_seen && Observed::of(&policy(&json!({}))).first_seen);
    assert_eq!(
        next.schedules().prune.remembered.last,
        epochwarden_core::schedule::LastRun::Unfinished { started: at(7) },
        "a prune that was running when its operator ended is due again"
    );
}

#[test]
fn a_restart_changes_no_condition_until_something_is_found_out() {
    let written = status(&policy(&json!({})), &observed(), &[], at(1));
    let policy = StateEpochPolicy { status: Some(written.clone()), ..policy(&json!({})) };
    let next = Observed::of(&policy);
    assert!(!next.opened, "what the status says was not found out by this process");
    assert!(!differs(&written, &status(&policy, &next, &written.conditions, at(9))));
}

#[test]
fn a_condition_of_an_earlier_generation_says_nothing_of_this_one() {
    let written = status(&policy(&json!({})), &observed(), &[], at(1));
    let mut policy = StateEpochPolicy { status: Some(written), ..policy(&json!({})) };
    policy.metadata.generation = Some(4);
    let next = Observed::of(&policy);
    assert_eq!((next.store.reason, next.fence.reason), (StoreReady::Pending, FenceCurrent::Pending));
}

#[test]
fn a_run_that_waits_for_its_turn_is_owed_by_the_next_operator() {
    for kind in [RunKind::Prune, RunKind::Audit] {
        let mut observed = observed();
        assert!(observed.begins(kind, Phase::Pending, at(7)));
        assert!(!observed.begins(kind, Phase::Pending, at(8)), "a time alone is no news");
        let written = status(&policy(&json!({})), &observed, &[], at(8));
        let next = Observed::of(&StateEpochPolicy { status: Some(written), ..policy(&json!({})) });
        let last = next.schedules().slot(kind).remembered.last;
        assert_eq!(last, epochwarden_core::schedule::LastRun::Unfinished { started: at(8) }, "{kind:?}");
    }
}
