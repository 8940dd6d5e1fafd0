#![allow(clippy::unchecked_time_subtraction, reason = "a test that underflows fails, and says where")]

mod assigned;

use proptest::prelude::*;

use super::*;
use crate::register::{Reading, RegisterKind};

const SECOND: Duration = Duration::from_secs(1);
const NOW: Duration = Duration::from_secs(1_000);

/// A Lease that `a` has held for long and renewed just now, with three transitions.
fn lease() -> LeaseObservation {
    LeaseObservation {
        namespace: "streaming".into(),
        name: "orders-leader".into(),
        uid: "u1".into(),
        holder: Some("a".into()),
        transitions: Some(3),
        duration: Some(15 * SECOND),
        annotation: Some("4".into()),
        renewed: NOW,
        holder_since: Duration::ZERO,
    }
}

fn record(holder: &str, uid: Option<&str>) -> RecordSeen {
    RecordSeen::Read(FenceRecord {
        version: Version::new(4),
        holder: holder.into(),
        lease: uid.map(|uid| LeaseIdentity {
            namespace: "streaming".into(),
            name: "orders-leader".into(),
            uid: uid.into(),
            transitions: 3,
        }),
        publisher: "operator".into(),
        published_at: jiff::Timestamp::UNIX_EPOCH,
    })
}

fn fence(highest: u64, record: RecordSeen) -> FenceSeen {
    FenceSeen { highest: Version::new(highest), record, lost: None }
}

/// What was decided, in one word, for every way to a version.
fn word(decision: &FenceDecision) -> &'static str {
    match decision {
        FenceDecision::Publish(_) => "Publish",
        FenceDecision::Current(_) => "Current",
        FenceDecision::ReadRecord(_) => "ReadRecord",
        FenceDecision::AwaitingAnnotation { .. } => "AwaitingAnnotation",
        FenceDecision::Refused(refusal) => refusal.reason(),
    }
}

fn decided(lease: &LeaseObservation, from: VersionFrom, fence: &FenceSeen) -> FenceDecision {
    decide(LeaseSeen::Found(lease), from, Numbering::Plain, fence, NOW)
}

/// The first term that a Lease names.
fn term(lease: &LeaseObservation, from: VersionFrom) -> Result<Term, FenceRefusal> {
    match decided(lease, from, &fence(0, RecordSeen::Unread)) {
        FenceDecision::Publish(term) => Ok(term),
        FenceDecision::Refused(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_holder_has_version_1_and_each_transition_adds_one() {
    for (transitions, version) in [(None, 1), (Some(0), 1), (Some(1), 2), (Some(i32::MAX), 2_147_483_648)] {
        let term = term(&LeaseObservation { transitions, ..lease() }, VersionFrom::LeaseTransitions).unwrap();
        assert_eq!(term.version, Version::new(version), "{transitions:?}");
        assert_eq!(term.lease.transitions, transitions.unwrap_or(0));
        assert_eq!((term.holder.as_str(), term.lease.uid.as_str()), ("a", "u1"));
    }
    for transitions in [-1, i32::MIN] {
        let refusal =
            term(&LeaseObservation { transitions: Some(transitions), ..lease() }, VersionFrom::LeaseTransitions);
        assert_eq!(
            refusal,
            Err(FenceRefusal::InvalidVersion {
                lease: "streaming/orders-leader".into(),
                text: transitions.to_string(),
                why: InvalidVersion::NegativeTransitions
            })
        );
    }
}

#[test]
fn an_annotation_is_a_canonical_decimal_from_1_to_the_highest_version() {
    let with = |annotation: Option<&str>| {
        term(&LeaseObservation { annotation: annotation.map(str::to_owned), ..lease() }, VersionFrom::Annotation)
    };
    for (text, version) in [("1", 1), ("42", 42), ("9007199254740991", (1 << 53) - 1)] {
        assert_eq!(with(Some(text)).unwrap().version, Version::new(version));
    }
    for text in [
        "",
        "0",
        "-1",
        "+1",
        "01",
        " 1",
        "1 ",
        "1.0",
        "1e3",
        "0x1",
        "seven",
        "9007199254740992",
        "18446744073709551616",
    ] {
        match with(Some(text)) {
            Err(FenceRefusal::InvalidVersion { text: told, why: InvalidVersion::MalformedAnnotation, .. }) => {
                assert_eq!(told, text);
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }
    assert!(matches!(with(None), Err(FenceRefusal::InvalidVersion { why: InvalidVersion::NoAnnotation, .. })));
    // Negative transitions are nothing to this mode.
    let odd = LeaseObservation { transitions: Some(-1), ..lease() };
    assert_eq!(term(&odd, VersionFrom::Annotation).unwrap().version, Version::new(4));
}

#[test]
fn a_lease_expires_when_no_renewal_arrived_for_its_duration() {
    let renewed = LeaseObservation { renewed: 100 * SECOND, ..lease() };
    for (now, expected) in [
        (100 * SECOND, Expiry::At(115 * SECOND)),
        (115 * SECOND - Duration::from_nanos(1), Expiry::At(115 * SECOND)),
        (115 * SECOND, Expiry::Expired { silent: 15 * SECOND }),
        (190 * SECOND, Expiry::Expired { silent: 90 * SECOND }),
        // An observation that was taken after `now` was read.
        (99 * SECOND, Expiry::At(115 * SECOND)),
    ] {
        assert_eq!(expiry(&renewed, now), expected, "{now:?}");
    }
    let endless = LeaseObservation { duration: None, ..renewed };
    assert_eq!(expiry(&endless, Duration::MAX), Expiry::Never);
}

#[test]
fn the_version_is_compared_with_the_fence() {
    // The Lease gives version 4 to `a`, in both modes, long after fail-over.
    for (case, seen, expected) in [
        ("no fence yet", fence(0, RecordSeen::Unread), "Publish"),
        ("a lower fence", fence(3, RecordSeen::Unread), "Publish"),
        ("a lower fence of ours", fence(3, record("a", Some("u1"))), "Publish"),
        ("a lower fence that cannot be read", fence(3, RecordSeen::Unreadable), "Publish"),
        ("ours, not read", fence(4, RecordSeen::Unread), "ReadRecord"),
        ("ours", fence(4, record("a", Some("u1"))), "Current"),
        ("ours, without a Lease", fence(4, record("a", None)), "Current"),
        ("another holder", fence(4, record("b", Some("u1"))), "FenceConflict"),
        ("another Lease", fence(4, record("a", Some("u2"))), "FenceConflict"),
        ("another holder, without a Lease", fence(4, record("b", None)), "FenceConflict"),
        ("unreadable", fence(4, RecordSeen::Unreadable), "FenceConflict"),
        ("a higher fence", fence(5, RecordSeen::Unread), "LeaseRegressed"),
        ("a higher fence of ours", fence(5, record("a", Some("u1"))), "LeaseRegressed"),
        ("the highest fence", fence(u64::MAX, RecordSeen::Unread), "LeaseRegressed"),
    ] {
        for from in [VersionFrom::LeaseTransitions, VersionFrom::Annotation] {
            assert_eq!(word(&decided(&lease(), from, &seen)), expected, "{case}, {from:?}");
        }
    }
}

#[test]
fn what_is_published_is_the_term_of_the_lease() {
    let decision = decided(&lease(), VersionFrom::LeaseTransitions, &fence(3, RecordSeen::Unread));
    let identity =
        LeaseIdentity { namespace: "streaming".into(), name: "orders-leader".into(), uid: "u1".into(), transitions: 3 };
    assert_eq!(
        decision,
        FenceDecision::Publish(Term { version: Version::new(4), holder: "a".into(), lease: identity })
    );
}

#[test]
fn a_jump_is_counted_from_a_fence_that_stands() {
    for (fence_at, version, expected) in [
        (0, Version::MAX.get(), "Publish"),
        (1, 1_000_001, "Publish"),
        (1, 1_000_002, "VersionJump"),
        (7, Version::MAX.get(), "VersionJump"),
        (Version::MAX.get() - 1, Version::MAX.get(), "Publish"),
    ] {
        let lease = LeaseObservation { annotation: Some(version.to_string()), ..lease() };
        let decision = decided(&lease, VersionFrom::Annotation, &fence(fence_at, RecordSeen::Unread));
        assert_eq!(word(&decision), expected, "{fence_at} to {version}");
    }
}

#[test]
fn a_lease_that_names_no_leader_moves_nothing() {
    let seen = fence(3, RecordSeen::Unread);
    let stale = LeaseObservation { renewed: NOW - 15 * SECOND, ..lease() };
    let fresh = LeaseObservation { renewed: NOW - 15 * SECOND + Duration::from_nanos(1), ..lease() };
    for (case, lease, expected) in [
        ("no holder", LeaseObservation { holder: None, ..lease() }, "NoHolder"),
        ("released", LeaseObservation { holder: Some(String::new()), ..lease() }, "NoHolder"),
        ("released and silent", LeaseObservation { holder: Some(String::new()), ..stale.clone() }, "NoHolder"),
        ("silent", stale.clone(), "LeaseExpired"),
        (
            "silent with a malformed version",
            LeaseObservation { transitions: Some(-1), ..stale.clone() },
            "LeaseExpired",
        ),
        ("renewed in time", fresh, "Publish"),
        ("never expires", LeaseObservation { duration: None, ..stale }, "Publish"),
        ("negative", LeaseObservation { transitions: Some(-1), ..lease() }, "InvalidVersion"),
    ] {
        assert_eq!(word(&decided(&lease, VersionFrom::LeaseTransitions, &seen)), expected, "{case}");
    }
    let missing = LeaseSeen::Missing { namespace: "streaming", name: "orders-leader" };
    assert_eq!(word(&decide(missing, VersionFrom::LeaseTransitions, Numbering::Plain, &seen, NOW)), "LeaseNotFound");
}

#[test]
fn a_lost_register_comes_before_everything() {
    let found = Reading::default();
    let lost = found.check(&Reading { fence: Version::new(9), ..found }).unwrap_err();
    assert_eq!(lost.register, RegisterKind::Fence);
    let seen = FenceSeen { lost: Some(lost), ..fence(0, RecordSeen::Unread) };
    for lease in [
        LeaseSeen::Found(&lease()),
        LeaseSeen::Found(&LeaseObservation { holder: None, ..lease() }),
        LeaseSeen::Missing { namespace: "streaming", name: "orders-leader" },
    ] {
        let decision = decide(lease, VersionFrom::LeaseTransitions, Numbering::Plain, &seen, NOW);
        assert_eq!(decision, FenceDecision::Refused(FenceRefusal::RegisterLost(lost)));
    }
}

#[test]
fn an_old_annotation_beside_a_new_holder_is_a_conflict_only_after_one_lease_duration() {
    let seen = fence(4, record("a", Some("u1")));
    for (case, duration, held_for, expected) in [
        ("just acquired", Some(15 * SECOND), Duration::ZERO, "AwaitingAnnotation"),
        ("right before", Some(15 * SECOND), 15 * SECOND - Duration::from_nanos(1), "AwaitingAnnotation"),
        ("one duration", Some(15 * SECOND), 15 * SECOND, "FenceConflict"),
        ("without a duration", None, 15 * SECOND - Duration::from_nanos(1), "AwaitingAnnotation"),
        ("without a duration, later", None, 15 * SECOND, "FenceConflict"),
    ] {
        let failed_over =
            LeaseObservation { holder: Some("b".into()), duration, holder_since: NOW - held_for, ..lease() };
        let decision = decided(&failed_over, VersionFrom::Annotation, &seen);
        assert_eq!(word(&decision), expected, "{case}");
        if let FenceDecision::AwaitingAnnotation { until, term } = decision {
            assert_eq!((until, term.version), (NOW - held_for + 15 * SECOND, Version::new(4)));
        }
        // Transitions count with the holder, in one write: there is nothing to wait for.
        let decision = decided(&failed_over, VersionFrom::LeaseTransitions, &seen);
        assert_eq!(word(&decision), "FenceConflict", "{case}");
    }
}

#[test]
fn a_refusal_says_what_is_wrong_on_which_object_and_what_to_do() {
    let version = Version::new(4);
    let (lease, holder) = ("streaming/orders-leader".to_owned(), "b".to_owned());
    let transitions = Declared::LeaseTransitions;
    let conflict = |recorded_holder: Option<&str>, from| FenceRefusal::FenceConflict {
        lease: lease.clone(),
        from,
        version,
        recorded_holder: recorded_holder.map(str::to_owned),
        holder: holder.clone(),
    };
    for (refusal, words) in [
        (
            FenceRefusal::LeaseNotFound { lease: lease.clone() },
            &["no Lease streaming/orders-leader", "spec.fence.leaseRef"][..],
        ),
        (FenceRefusal::NoHolder { lease: lease.clone() }, &["streaming/orders-leader", "no holder", "acquires"]),
        (
            FenceRefusal::LeaseExpired { lease: lease.clone(), holder: holder.clone(), silent: 90 * SECOND },
            &["streaming/orders-leader", "\"b\"", "1m30s", "leader"],
        ),
        (
            FenceRefusal::LeaseRegressed { lease: lease.clone(), from: transitions, version, fence: Version::new(9) },
            &[
                "streaming/orders-leader",
                "version 4",
                "stands at 9",
                "leaseTransitions at 9 or above",
                "versionFrom: Assigned",
            ],
        ),
        (
            FenceRefusal::LeaseRegressed {
                lease: lease.clone(),
                from: Declared::Annotation,
                version,
                fence: Version::new(9),
            },
            &["epochwarden.io/assignment-version above 9"],
        ),
        (
            conflict(Some("a"), transitions),
            &["version 4 to \"b\"", "belongs to \"a\"", "leaseTransitions at 4 or above"],
        ),
        (conflict(Some("b"), transitions), &["the same holder under another Lease"]),
        (conflict(None, Declared::Annotation), &["cannot be read", "epochwarden.io/assignment-version above 4"]),
        (
            FenceRefusal::InvalidVersion {
                lease: lease.clone(),
                text: "seven".into(),
                why: InvalidVersion::MalformedAnnotation,
            },
            &["streaming/orders-leader", "\"seven\"", "from 1 to 9007199254740991"],
        ),
        (
            FenceRefusal::InvalidVersion {
                lease: lease.clone(),
                text: "8388608".into(),
                why: InvalidVersion::OutOfRange(Numbering::Versioned.check_version(Version::new(1 << 23)).unwrap_err()),
            },
            &["streaming/orders-leader", "8388608", "Versioned numbering", "1..=8388607", "another root"],
        ),
        (
            FenceRefusal::VersionJump { lease: lease.clone(), fence: version, version: Version::new(2_000_000) },
            &["streaming/orders-leader", "from 4 to 2000000", "more than 1000000", "correct the Lease"],
        ),
    ] {
        let message = refusal.to_string();
        for word in words {
            assert!(message.contains(word), "{message}");
        }
    }
}

#[test]
fn until_the_fence_stands_the_reason_is_pending() {
    for (seen, reason) in [
        (fence(3, RecordSeen::Unread), "Pending"),
        (fence(4, RecordSeen::Unread), "Pending"),
        (fence(4, record("a", Some("u1"))), "Published"),
        (fence(5, RecordSeen::Unread), "LeaseRegressed"),
    ] {
        assert_eq!(decided(&lease(), VersionFrom::LeaseTransitions, &seen).reason(), reason);
    }
}

#[test]
fn a_lease_identity_is_camel_case_json() {
    let json = r#"{"namespace":"streaming","name":"orders-leader","uid":"u1","transitions":3}"#;
    let identity = term(&lease(), VersionFrom::LeaseTransitions).unwrap().lease;
    assert_eq!(serde_json::to_string(&identity).unwrap(), json);
    assert_eq!(serde_json::from_str::<LeaseIdentity>(json).unwrap(), identity);
}

proptest! {
    /// Whatever the Lease says, what is published is above the fence, valid, no jump, and by a holder that was heard of in time.
    #[test]
    fn a_fence_only_rises_by_a_live_holders_valid_version(
        transitions in prop::option::of(any::<i32>()),
        annotation in prop::option::of("[0-9]{0,17}"),
        holder in prop::option::of("[ab]{0,1}"),
        duration in prop::option::of(0_u64..30),
        silent in 0_u64..30,
        highest in prop_oneof![0_u64..10, 0..=Version::MAX.get()],
        from in prop::sample::select(vec![VersionFrom::LeaseTransitions, VersionFrom::Annotation, VersionFrom::Assigned]),
        numbering in prop::sample::select(vec![Numbering::Plain, Numbering::Versioned]),
    ) {
        let lease = LeaseObservation {
            transitions,
            annotation,
            holder,
            duration: duration.map(Duration::from_secs),
            renewed: NOW - Duration::from_secs(silent),
            ..lease()
        };
        let seen = fence(highest, RecordSeen::Unreadable);
        if let FenceDecision::Publish(term) = decide(LeaseSeen::Found(&lease), from, numbering, &seen, NOW) {
            prop_assert!(term.version.is_valid() && term.version.get() > highest);
            prop_assert!(numbering.range(term.version).is_some());
            prop_assert!(from != VersionFrom::Assigned || term.version.get() == highest + 1);
            prop_assert!(highest == 0 || term.version.get() - highest <= HIGHEST_JUMP);
            prop_assert!(!term.holder.is_empty() && Some(&term.holder) == lease.holder.as_ref());
            prop_assert!(duration.is_none_or(|duration| silent < duration));
        }
    }
}
