#![allow(clippy::unchecked_time_subtraction, reason = "a test that underflows fails, and says where")]

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MOMENT: Duration = Duration::from_nanos(1);
const NOW: Duration = Duration::from_secs(1_000);

/// A Lease that `holder` renewed just now, with three transitions.
fn held_by(holder: &str) -> LeaseObservation {
    LeaseObservation {
        namespace: "epochwarden".into(),
        name: "epochwarden".into(),
        uid: "u1".into(),
        holder: Some(holder.into()),
        transitions: Some(3),
        duration: Some(15 * SECOND),
        annotation: None,
        renewed: NOW,
        holder_since: Duration::ZERO,
    }
}

fn silent_for(silent: Duration) -> LeaseObservation {
    LeaseObservation { renewed: NOW - silent, ..held_by("b") }
}

#[test]
fn a_candidate_takes_what_nobody_holds_and_waits_for_what_somebody_renews() {
    let by_b = |until| Decision::StandBy { holder: "b".into(), until };
    let expired = |silent| Decision::Acquire(Vacancy::Expired { holder: "b".into(), silent });
    let nobody = |holder: Option<&str>| LeaseObservation { holder: holder.map(str::to_owned), ..held_by("b") };
    let without_duration = |silent| LeaseObservation { duration: None, ..silent_for(silent) };
    for (case, lease, expected) in [
        ("there is none", None, Decision::Acquire(Vacancy::Missing)),
        ("no holder", Some(nobody(None)), Decision::Acquire(Vacancy::Released)),
        ("an empty holder", Some(nobody(Some(""))), Decision::Acquire(Vacancy::Released)),
        ("renewed just now", Some(held_by("b")), by_b(NOW + 15 * SECOND)),
        ("silent for long", Some(silent_for(14 * SECOND)), by_b(NOW + SECOND)),
        ("right before", Some(silent_for(15 * SECOND - MOMENT)), by_b(NOW + MOMENT)),
        ("silent for its duration", Some(silent_for(15 * SECOND)), expired(15 * SECOND)),
        ("a shorter one", Some(LeaseObservation { duration: Some(SECOND), ..silent_for(SECOND) }), expired(SECOND)),
        (
            "a longer one",
            Some(LeaseObservation { duration: Some(60 * SECOND), ..silent_for(15 * SECOND) }),
            by_b(NOW + 45 * SECOND),
        ),
        ("without a duration", Some(without_duration(14 * SECOND)), by_b(NOW + SECOND)),
        ("without a duration, for long", Some(without_duration(15 * SECOND)), expired(15 * SECOND)),
        ("its own, unanswered", Some(held_by("a")), Decision::Acquire(Vacancy::Unconfirmed)),
        // An observation that was taken after `now` was read.
        ("of the future", Some(LeaseObservation { renewed: NOW + SECOND, ..held_by("b") }), by_b(NOW + 16 * SECOND)),
    ] {
        assert_eq!(decide("a", lease.as_ref(), None, NOW), expected, "{case}");
    }
}

#[test]
fn a_leader_renews_in_time_and_steps_down_when_it_could_not_or_is_not_named_any_more() {
    let replaced = |holder: Option<&str>| Decision::StepDown(Deposed::Replaced { holder: holder.map(str::to_owned) });
    let not_renewed = |silent| Decision::StepDown(Deposed::NotRenewed { silent });
    let free = LeaseObservation { holder: None, ..held_by("a") };
    for (case, lease, since_sent, expected) in [
        ("renewed just now", Some(held_by("a")), Duration::ZERO, Decision::Lead { until: NOW + 2 * SECOND }),
        ("right before", Some(held_by("a")), 2 * SECOND - MOMENT, Decision::Lead { until: NOW + MOMENT }),
        ("due", Some(held_by("a")), 2 * SECOND, Decision::Renew),
        ("overdue", Some(held_by("a")), 10 * SECOND - MOMENT, Decision::Renew),
        ("too late", Some(held_by("a")), 10 * SECOND, not_renewed(10 * SECOND)),
        ("paused for a minute", Some(held_by("a")), 60 * SECOND, not_renewed(60 * SECOND)),
        ("another one's", Some(held_by("b")), Duration::ZERO, replaced(Some("b"))),
        ("another one's, and expired", Some(silent_for(60 * SECOND)), SECOND, replaced(Some("b"))),
        ("released by somebody", Some(free), Duration::ZERO, replaced(None)),
        ("deleted", None, Duration::ZERO, replaced(None)),
    ] {
        assert_eq!(decide("a", lease.as_ref(), Some(NOW - since_sent), NOW), expected, "{case}");
    }
    // What counts for the leader is what it has sent, not what it sees of the Lease: that is later.
    let seen_later = held_by("a");
    assert_eq!(decide("a", Some(&seen_later), Some(NOW - 10 * SECOND), NOW), not_renewed(10 * SECOND));
}

#[test]
fn transitions_count_when_the_lease_changes_hands() {
    let free = LeaseObservation { holder: None, ..held_by("b") };
    let without = LeaseObservation { transitions: None, ..held_by("b") };
    let last = LeaseObservation { transitions: Some(i32::MAX), ..held_by("b") };
    for (case, lease, expected) in [
        ("a new one", None, 0),
        ("its own", Some(held_by("a")), 3),
        ("another one's", Some(held_by("b")), 4),
        ("released", Some(free), 4),
        ("not counted yet", Some(without), 1),
        ("at the end of the numbers", Some(last), i32::MAX),
    ] {
        assert_eq!(transitions("a", lease.as_ref()), expected, "{case}");
    }
}

#[test]
fn who_is_deposed_is_told_why() {
    for (deposed, words) in [
        (Deposed::Replaced { holder: Some("b".into()) }, "held by \"b\""),
        (Deposed::Replaced { holder: None }, "released or deleted"),
        (Deposed::NotRenewed { silent: 12 * SECOND }, "for 12s"),
    ] {
        assert!(deposed.to_string().contains(words), "{deposed}");
    }
}

#[test]
fn a_leader_that_cannot_renew_has_ended_its_work_before_another_may_begin() {
    assert!(DEADLINE + FAREWELL < LASTS);
    assert!(RENEW_AFTER * 3 < DEADLINE, "one renewal that is lost costs no leadership");
}

proptest! {
    /// A leader whose last renewal was seen by a candidate `lag` after it was sent: there is no moment at which the leader may still work
    /// and the candidate may take the Lease.
    #[test]
    fn no_moment_belongs_to_two(lag in 0_u64..60_000, at in 0_u64..120_000) {
        let millis = Duration::from_millis;
        let (sent, now) = (NOW, NOW + millis(at));
        // The candidate sees the renewal at its own time, by a clock that began an hour earlier.
        let ahead = Duration::from_hours(1);
        let seen = LeaseObservation { renewed: sent + millis(lag) + ahead, duration: Some(LASTS), ..held_by("a") };
        let works = match decide("a", Some(&held_by("a")), Some(sent), now) {
            Decision::StepDown(_) => now < sent + DEADLINE + FAREWELL,
            _ => true,
        };
        let takes = matches!(decide("b", Some(&seen), None, now + ahead), Decision::Acquire(_));
        prop_assert!(!(works && takes));
    }
}
