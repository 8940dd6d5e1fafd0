use epochwarden_core::Version;
use epochwarden_core::lease::{Declared, InvalidVersion};
use epochwarden_core::register::{RegisterKind, RegisterLost};
use std::time::Duration;

use super::*;

fn reasons_of<R: Reason>() -> Vec<(String, &'static str)> {
    R::ALL.iter().map(|reason| (reason.as_str().to_owned(), reason.status().as_str())).collect()
}

fn words(truth: &'static str, reasons: &str) -> Vec<(String, &'static str)> {
    reasons.split(", ").map(|reason| (reason.to_owned(), truth)).collect()
}

#[test]
fn every_reason_goes_with_the_status_that_the_documentation_gives_it() {
    let store = [
        words("True", "Reachable"),
        words("Unknown", "Pending"),
        words(
            "False",
            "Unreachable, BucketNotFound, AccessDenied, SecretNotFound, InvalidConfiguration, CredentialsNotAllowed, UnsafeStore, \
             RootConflict, UnknownLayout",
        ),
    ];
    assert_eq!(reasons_of::<StoreReady>(), store.concat());
    let fence = [
        words("True", "Published"),
        words("Unknown", "NotConfigured, Suspended, Pending"),
        words(
            "False",
            "StoreNotReady, LeaseNotFound, NoHolder, LeaseExpired, LeaseRegressed, FenceConflict, InvalidVersion, VersionJump, RegisterLost, \
             PublishFailed",
        ),
    ];
    assert_eq!(reasons_of::<FenceCurrent>(), fence.concat());
    let prune = [
        words("True", "Succeeded, KeepsEverything, DryRun, AwaitingApproval, Running"),
        words("Unknown", "NotScheduled, Suspended, Pending"),
        words("False", "Held, MassDeletion, FallingBehind, PartlyFailed, Failed, InvalidSchedule"),
    ];
    assert_eq!(reasons_of::<PruneHealthy>(), prune.concat());
    let audit = [
        words("True", "Clean, Warnings"),
        words("Unknown", "NotScheduled, Suspended, Pending"),
        words("False", "Findings, Failed, InvalidSchedule"),
    ];
    assert_eq!(reasons_of::<AuditClean>(), audit.concat());
}

#[test]
fn ready_is_true_only_while_the_store_is_reachable_and_no_register_is_lost() {
    for store in StoreReady::ALL {
        for lost in [false, true] {
            let ready = Ready::of(*store, lost);
            assert_eq!(ready.status() == Truth::True, *store == StoreReady::Reachable && !lost, "{store:?} {lost}");
            if !lost {
                assert_eq!((ready.as_str(), ready.status()), (store.as_str(), store.status()));
            }
        }
    }
}

#[test]
fn kstatus_sees_stalled_or_reconciling_or_neither_and_never_both() {
    let (stalled, reconciling): (Vec<_>, Vec<_>) = StoreReady::ALL
        .iter()
        .map(|store| Ready::of(*store, false))
        .map(|ready| (ready.stalled().map(Reason::as_str), ready.reconciling().map(Reason::as_str)))
        .unzip();
    assert_eq!(
        stalled.iter().flatten().copied().collect::<Vec<_>>(),
        ["InvalidConfiguration", "CredentialsNotAllowed", "UnsafeStore", "RootConflict", "UnknownLayout"]
    );
    assert_eq!(reconciling.iter().flatten().copied().collect::<Vec<_>>(), ["Pending", "Unreachable", "SecretNotFound"]);
    assert!(stalled.iter().zip(&reconciling).all(|(stalled, reconciling)| stalled.is_none() || reconciling.is_none()));
}

#[test]
fn a_lost_register_stalls_a_policy_even_while_its_store_is_away() {
    for store in [StoreReady::Reachable, StoreReady::Unreachable, StoreReady::Pending, StoreReady::AccessDenied] {
        assert_eq!(Ready::of(store, true).stalled(), Some(Stalled::RegisterLost), "{store:?}");
        assert_eq!(Ready::of(store, true).reconciling(), None, "{store:?}");
    }
    assert_eq!(Ready::of(StoreReady::RootConflict, true), Ready::RootConflict);
}

#[test]
fn a_refused_fence_has_the_same_reason_here_as_in_the_rules() {
    let lease = || "streaming/orders".to_owned();
    let version = Version::new;
    let refusals = [
        FenceRefusal::LeaseNotFound { lease: lease() },
        FenceRefusal::NoHolder { lease: lease() },
        FenceRefusal::LeaseExpired { lease: lease(), holder: "a".to_owned(), silent: Duration::from_secs(20) },
        FenceRefusal::LeaseRegressed {
            lease: lease(),
            from: Declared::LeaseTransitions,
            version: version(1),
            fence: version(2),
        },
        FenceRefusal::FenceConflict {
            lease: lease(),
            from: Declared::Annotation,
            version: version(1),
            recorded_holder: None,
            holder: "a".to_owned(),
        },
        FenceRefusal::InvalidVersion { lease: lease(), text: String::new(), why: InvalidVersion::NoAnnotation },
        FenceRefusal::VersionJump { lease: lease(), fence: version(1), version: version(2_000_000) },
        FenceRefusal::RegisterLost(RegisterLost { register: RegisterKind::Fence, seen: 2, found: 1 }),
    ];
    for refusal in refusals {
        assert_eq!(FenceCurrent::from(&refusal).as_str(), refusal.reason());
        assert_eq!(FenceCurrent::from(&refusal).status(), Truth::False);
    }
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn a_condition_keeps_its_time_while_its_status_stays() {
    let first =
        Observation { generation: 1, previous: &[], now: second(10) }.condition(StoreReady::Unreachable, "no answer");
    assert_eq!(first.last_transition_time, Time(second(10)));
    assert_eq!(
        (first.type_.as_str(), first.status.as_str(), first.reason.as_str()),
        ("StoreReady", "False", "Unreachable")
    );
    assert_eq!(first.observed_generation, Some(1));

    let previous = [first];
    let observation = Observation { generation: 2, previous: &previous, now: second(20) };
    let same_status = observation.condition(StoreReady::AccessDenied, "403");
    assert_eq!(same_status.last_transition_time, Time(second(10)));
    assert_eq!((same_status.reason.as_str(), same_status.observed_generation), ("AccessDenied", Some(2)));

    let other_status = observation.condition(StoreReady::Reachable, "");
    assert_eq!(other_status.last_transition_time, Time(second(20)));

    let other_type = observation.condition(AuditClean::Failed, "");
    assert_eq!(other_type.last_transition_time, Time(second(20)));
}

#[test]
fn a_message_is_cut_to_what_a_condition_may_hold() {
    let observation = Observation { generation: 1, previous: &[], now: second(10) };
    let longest = "ü".repeat(MAX_MESSAGE);
    assert_eq!(observation.condition(PruneHealthy::Failed, longest.clone()).message, longest);
    let cut = observation.condition(PruneHealthy::Failed, format!("{longest}ü")).message;
    assert_eq!(cut.chars().count(), MAX_MESSAGE);
    assert!(cut.ends_with("ü…"));
}
