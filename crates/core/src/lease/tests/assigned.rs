//! Versions that the operator gives, and versions that a numbering does not have.

use super::*;

fn assigned(lease: &LeaseObservation, seen: &FenceSeen) -> FenceDecision {
    decided(lease, VersionFrom::Assigned, seen)
}

/// A record of version 4 for this holder, Lease and number of transitions.
fn record_of(holder: &str, uid: &str, transitions: i32) -> RecordSeen {
    match record(holder, Some(uid)) {
        RecordSeen::Read(mut record) => {
            record.lease.as_mut().unwrap().transitions = transitions;
            RecordSeen::Read(record)
        }
        other => other,
    }
}

#[test]
fn each_term_has_one_version_and_a_new_one_gets_the_next() {
    // The Lease names `a`, with uid `u1`, after 3 transitions.
    for (case, seen, expected, version) in [
        ("no fence yet", fence(0, RecordSeen::Unread), "Publish", 1),
        ("its own record, not read", fence(4, RecordSeen::Unread), "ReadRecord", 4),
        ("its own record", fence(4, record_of("a", "u1", 3)), "Current", 4),
        ("an earlier term of its own", fence(4, record_of("a", "u1", 2)), "Publish", 5),
        ("a term of its own that the Lease no longer shows", fence(4, record_of("a", "u1", 9)), "Publish", 5),
        ("another holder", fence(4, record_of("b", "u1", 3)), "Publish", 5),
        ("a Lease that was deleted and created again", fence(4, record_of("a", "u2", 3)), "Publish", 5),
        ("published by hand, for no Lease", fence(4, record("a", None)), "Publish", 5),
        ("unreadable", fence(4, RecordSeen::Unreadable), "Publish", 5),
        ("far above the transitions", fence(4_000_000, record("b", Some("u1"))), "Publish", 4_000_001),
        ("the last but one", fence(Version::MAX.get() - 1, RecordSeen::Unreadable), "Publish", Version::MAX.get()),
    ] {
        match assigned(&lease(), &seen) {
            decision @ (FenceDecision::Publish(_) | FenceDecision::Current(_) | FenceDecision::ReadRecord(_)) => {
                assert_eq!(word(&decision), expected, "{case}");
                let (FenceDecision::Publish(term) | FenceDecision::Current(term) | FenceDecision::ReadRecord(term)) =
                    decision
                else {
                    unreachable!()
                };
                assert_eq!(term.version, Version::new(version), "{case}");
                assert_eq!((term.holder.as_str(), term.lease.uid.as_str(), term.lease.transitions), ("a", "u1", 3));
            }
            other => panic!("{case}: {other:?}"),
        }
    }
}

#[test]
fn what_is_published_is_current_from_then_on() {
    let FenceDecision::Publish(term) = assigned(&lease(), &fence(4, record_of("b", "u1", 2))) else { panic!() };
    let written = FenceRecord {
        version: term.version,
        holder: term.holder.clone(),
        lease: Some(term.lease.clone()),
        publisher: "operator".into(),
        published_at: jiff::Timestamp::UNIX_EPOCH,
    };
    let stands = FenceSeen { highest: term.version, record: RecordSeen::Read(written), lost: None };
    assert_eq!(assigned(&lease(), &stands), FenceDecision::Current(term));
}

#[test]
fn an_assigned_version_does_not_come_from_the_lease() {
    for odd in [
        LeaseObservation { transitions: Some(-1), ..lease() },
        LeaseObservation { transitions: None, ..lease() },
        LeaseObservation { transitions: Some(i32::MAX), ..lease() },
        LeaseObservation { annotation: Some("seven".into()), ..lease() },
        LeaseObservation { annotation: None, ..lease() },
    ] {
        let FenceDecision::Publish(term) = assigned(&odd, &fence(4, RecordSeen::Unreadable)) else { panic!("{odd:?}") };
        assert_eq!(term.version, Version::new(5));
        assert_eq!(term.lease.transitions, odd.transitions.unwrap_or(0));
    }
}

#[test]
fn a_lease_that_names_no_leader_is_assigned_nothing() {
    let stale = LeaseObservation { renewed: NOW - 15 * SECOND, ..lease() };
    for (lease, expected) in [
        (LeaseObservation { holder: None, ..lease() }, "NoHolder"),
        (LeaseObservation { holder: Some(String::new()), ..lease() }, "NoHolder"),
        (stale, "LeaseExpired"),
    ] {
        for seen in [fence(0, RecordSeen::Unread), fence(4, RecordSeen::Unread), fence(4, record_of("a", "u1", 3))] {
            assert_eq!(word(&assigned(&lease, &seen)), expected);
        }
    }
    let missing = LeaseSeen::Missing { namespace: "streaming", name: "orders-leader" };
    let seen = fence(4, RecordSeen::Unread);
    assert_eq!(word(&decide(missing, VersionFrom::Assigned, Numbering::Plain, &seen, NOW)), "LeaseNotFound");
}

#[test]
fn a_version_without_epochs_moves_nothing() {
    const LAST: u64 = (1 << 23) - 1;
    let versioned = |lease: &LeaseObservation, from, fence: &FenceSeen| {
        decide(LeaseSeen::Found(lease), from, Numbering::Versioned, fence, NOW)
    };
    let transitions = |transitions| LeaseObservation { transitions: Some(transitions), ..lease() };
    let annotation = |text: u64| LeaseObservation { annotation: Some(text.to_string()), ..lease() };
    let last = i32::try_from(LAST).unwrap();
    for (case, lease, from, highest, expected) in [
        ("the last", transitions(last - 1), VersionFrom::LeaseTransitions, 0, "Publish"),
        ("one too many", transitions(last), VersionFrom::LeaseTransitions, 0, "InvalidVersion"),
        ("rather than a jump", transitions(last), VersionFrom::LeaseTransitions, 4, "InvalidVersion"),
        ("the last", annotation(LAST), VersionFrom::Annotation, 0, "Publish"),
        ("one too many", annotation(LAST + 1), VersionFrom::Annotation, 0, "InvalidVersion"),
        ("above a fence without epochs", annotation(LAST + 9), VersionFrom::Annotation, LAST + 2, "InvalidVersion"),
        ("below a fence without epochs", annotation(LAST), VersionFrom::Annotation, LAST + 2, "LeaseRegressed"),
        ("the last", lease(), VersionFrom::Assigned, LAST - 1, "Publish"),
        ("used up", lease(), VersionFrom::Assigned, LAST, "InvalidVersion"),
        ("a fence without epochs", lease(), VersionFrom::Assigned, LAST + 1, "InvalidVersion"),
    ] {
        let seen = fence(highest, RecordSeen::Unreadable);
        assert_eq!(word(&versioned(&lease, from, &seen)), expected, "{case}, {from:?}");
        // Plain numbering has all of these versions.
        assert_ne!(word(&decided(&lease, from, &seen)), "InvalidVersion", "{case}, {from:?}");
    }
    let refusal = versioned(&annotation(LAST + 1), VersionFrom::Annotation, &fence(0, RecordSeen::Unread));
    let FenceDecision::Refused(FenceRefusal::InvalidVersion { text, why, .. }) = refusal else { panic!("{refusal:?}") };
    assert_eq!(text, "8388608");
    assert!(matches!(why, InvalidVersion::OutOfRange(_)), "{why:?}");
}

#[test]
fn nothing_follows_the_last_version_of_all() {
    for highest in [Version::MAX.get(), u64::MAX] {
        let decision = assigned(&lease(), &fence(highest, RecordSeen::Unreadable));
        assert_eq!(word(&decision), "InvalidVersion", "{highest}");
    }
}
