//! When a policy's runs are due: the schedules of its spec against what its status remembers, and what its annotation asks for.

mod again;

use std::time::Duration;

use epochwarden_core::schedule::{Due, LastRun, Remembered, Schedule};
use jiff::Timestamp;

use crate::api::status::RunKind;

pub(crate) use again::{After, Again};

/// Both kinds of runs, in the order in which they go when both are due.
pub(crate) const KINDS: [RunKind; 2] = [RunKind::Prune, RunKind::Audit];

/// The word of the annotation for a kind of run.
const fn word(kind: RunKind) -> &'static str {
    match kind {
        RunKind::Prune => "prune",
        RunKind::Audit => "audit",
    }
}

/// The word of the annotation for a probe of the store.
const PROBE: &str = "probe";

/// What one schedule remembers between two looks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slot {
    /// Promise and last run, as the status shows them.
    pub(crate) remembered: Remembered,
    /// The expression and time zone that the promise was made for.
    pub(crate) made_for: Option<(String, String)>,
    /// A run was asked for: by hand, by an approval, or by one that goes on.
    pub(crate) requested: bool,
    /// A run that ended before its work was done, and goes on by itself.
    pub(crate) again: Again,
}

/// Both schedules of a policy, and the run that is under way.
#[derive(Debug, Default)]
pub(crate) struct Schedules {
    /// Of the prune.
    pub(crate) prune: Slot,
    /// Of the audit.
    pub(crate) audit: Slot,
    /// What is running or waiting for its turn: one at a time.
    pub(crate) running: Option<RunKind>,
}

/// What a look at one schedule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Whether a run is due now.
    pub(crate) due: bool,
    /// The slot after this look, for the status.
    pub(crate) next: Option<Timestamp>,
    /// The slots that the due run stands for as well, where there are any.
    pub(crate) missed: Option<Missed>,
}

/// Slots that went by without a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Missed {
    /// The one that is due.
    pub(crate) slot: Timestamp,
    /// How many before it had no run.
    pub(crate) count: u32,
}

impl Schedules {
    /// The state of one kind.
    pub(crate) fn slot(&mut self, kind: RunKind) -> &mut Slot {
        match kind {
            RunKind::Prune => &mut self.prune,
            RunKind::Audit => &mut self.audit,
        }
    }
}

impl Slot {
    /// Looks at a schedule at `now`. `schedule` is `None` where the policy names none, or one that cannot be read.
    pub(crate) fn look(
        &mut self,
        schedule: Option<&Schedule>,
        written: Option<(String, String)>,
        now: Timestamp,
        suspended: bool,
    ) -> Look {
        // A promise that was made for another schedule says nothing about this one.
        if self.made_for.is_some() && self.made_for != written {
            self.remembered.promised = None;
        }
        self.made_for = written;
        // Without a schedule nothing is promised, but what was asked for and did not end is still owed.
        let owed = self.requested || matches!(self.remembered.last, LastRun::Unfinished { .. });
        let Some(schedule) = schedule else {
            self.remembered.promised = None;
            return Look { due: owed && !suspended, next: None, missed: None };
        };
        match schedule.due(&self.remembered, now, suspended) {
            Due::Suspended | Due::Never => {
                self.remembered.promised = None;
                Look { due: owed && !suspended, next: None, missed: None }
            }
            Due::NotYet { next } => {
                self.remembered.promised = Some(next);
                Look { due: self.requested, next: Some(next), missed: None }
            }
            Due::Now { slot, missed } => {
                let missed = (missed > 0).then_some(Missed { slot, count: missed });
                Look { due: true, next: self.remembered.promised, missed }
            }
        }
    }

    /// A run starts at `now`. Gives the next slot.
    pub(crate) fn started(&mut self, schedule: Option<&Schedule>, now: Timestamp) -> Option<Timestamp> {
        self.requested = false;
        self.again.begins();
        self.remembered.last = LastRun::Unfinished { started: now };
        self.remembered.promised = schedule.and_then(|schedule| schedule.next_after(now));
        self.remembered.promised
    }

    /// The run that started last has ended, with whatever result.
    pub(crate) fn finished(&mut self) {
        if let LastRun::Unfinished { started } = self.remembered.last {
            self.remembered.last = LastRun::Finished { started };
        }
    }
}

/// A run that somebody asked for with the annotation `epochwarden.io/run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// There is none, or it was handled before.
    None,
    /// It was there when the policy was first seen: written down, and not run.
    Record(String),
    /// Run this, once.
    Run(RunKind, String),
    /// Probe the store, once. Whoever probes writes the request down, with what was found.
    Probe,
    /// It asks for something that there is not.
    Unknown(String),
}

/// Reads the annotation: a word and, to ask again, `@` and anything.
#[must_use]
pub(crate) fn request(annotation: Option<&str>, last: Option<&str>, first_seen: bool) -> Request {
    let Some(text) = annotation.filter(|text| Some(*text) != last) else {
        return Request::None;
    };
    if first_seen {
        return Request::Record(text.to_owned());
    }
    let asked = text.split_once('@').map_or(text, |(word, _)| word);
    match KINDS.into_iter().find(|kind| word(*kind) == asked) {
        Some(kind) => Request::Run(kind, text.to_owned()),
        None if asked == PROBE => Request::Probe,
        None => Request::Unknown(text.to_owned()),
    }
}

/// How long until the next look: until the earliest slot that is yet to come, but never so long that a clock that was set ahead goes
/// unnoticed. A slot that has passed waits for something that asks for a look by itself: the store, or the end of another run.
#[must_use]
pub(crate) fn until(next: impl IntoIterator<Item = Timestamp>, now: Timestamp, longest: Duration) -> Duration {
    next.into_iter()
        .filter(|slot| *slot > now)
        .map(|slot| Duration::try_from(slot.duration_since(now)).unwrap_or(Duration::ZERO))
        .min()
        .map_or(longest, |wait| wait.min(longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn every_minute() -> Schedule {
        Schedule::parse("* * * * *", "Etc/UTC", "seed").unwrap()
    }

    #[allow(clippy::unnecessary_wraps, reason = "a policy may have none")]
    fn written(text: &str) -> Option<(String, String)> {
        Some((text.into(), "Etc/UTC".into()))
    }

    #[test]
    fn a_slot_that_passed_while_nobody_looked_is_run_once() {
        let schedule = every_minute();
        let mut slot = Slot::default();
        assert_eq!(
            slot.look(Some(&schedule), written("a"), at("2026-01-01T00:00:30Z"), false),
            Look { due: false, next: Some(at("2026-01-01T00:01:00Z")), missed: None }
        );
        let later = at("2026-01-01T00:05:10Z");
        assert!(slot.look(Some(&schedule), written("a"), later, false).due);
        slot.started(Some(&schedule), later);
        slot.finished();
        assert_eq!(
            slot.look(Some(&schedule), written("a"), later, false),
            Look { due: false, next: Some(at("2026-01-01T00:06:00Z")), missed: None }
        );
    }

    #[test]
    fn slots_that_pass_while_suspended_are_skipped() {
        let schedule = every_minute();
        let mut slot = Slot::default();
        slot.look(Some(&schedule), written("a"), at("2026-01-01T00:00:30Z"), false);
        assert_eq!(
            slot.look(Some(&schedule), written("a"), at("2026-01-01T00:03:00Z"), true),
            Look { due: false, next: None, missed: None }
        );
        let resumed = slot.look(Some(&schedule), written("a"), at("2026-01-01T00:05:30Z"), false);
        assert_eq!(resumed, Look { due: false, next: Some(at("2026-01-01T00:06:00Z")), missed: None });
    }

    #[test]
    fn a_changed_schedule_counts_from_the_change_on() {
        let mut slot = Slot::default();
        slot.look(Some(&every_minute()), written("a"), at("2026-01-01T00:00:30Z"), false);
        let hourly = Schedule::parse("@hourly", "Etc/UTC", "seed").unwrap();
        assert_eq!(
            slot.look(Some(&hourly), written("b"), at("2026-01-01T00:02:00Z"), false),
            Look { due: false, next: Some(at("2026-01-01T01:00:00Z")), missed: None }
        );
    }

    #[test]
    fn a_request_runs_once_without_a_schedule_and_waits_while_suspended() {
        let now = at("2026-01-01T00:00:30Z");
        let mut slot = Slot { requested: true, ..Slot::default() };
        assert!(!slot.look(None, None, now, true).due);
        assert!(slot.look(None, None, now, false).due);
        slot.started(None, now);
        slot.finished();
        assert!(!slot.look(None, None, now, false).due);
    }

    #[test]
    fn a_run_that_did_not_end_is_owed_also_without_a_schedule() {
        let now = at("2026-01-01T00:00:30Z");
        let remembered =
            Remembered { promised: None, last: LastRun::Unfinished { started: at("2026-01-01T00:00:00Z") } };
        let mut slot = Slot { remembered, ..Slot::default() };
        assert!(slot.look(None, None, now, false).due);
        slot.finished();
        assert!(!slot.look(None, None, now, false).due);
    }

    #[test]
    fn the_annotation_is_a_word_and_anything_behind_an_at() {
        for (annotation, last, first, expected) in [
            (None, None, false, Request::None),
            (Some("prune"), None, false, Request::Run(RunKind::Prune, "prune".into())),
            (Some("audit@2"), Some("audit@1"), false, Request::Run(RunKind::Audit, "audit@2".into())),
            (Some("audit@2"), Some("audit@2"), false, Request::None),
            (Some("prune"), None, true, Request::Record("prune".into())),
            (Some("probe"), None, false, Request::Probe),
            (Some("probe@1"), Some("probe@1"), false, Request::None),
            (Some("probe"), None, true, Request::Record("probe".into())),
            (Some("dance"), None, false, Request::Unknown("dance".into())),
            (Some("prune2"), None, false, Request::Unknown("prune2".into())),
        ] {
            assert_eq!(request(annotation, last, first), expected, "{annotation:?} {last:?} {first}");
        }
    }

    #[test]
    fn a_look_is_never_further_away_than_the_longest_wait() {
        let now = at("2026-01-01T00:00:30Z");
        let longest = Duration::from_mins(1);
        assert_eq!(until([], now, longest), longest);
        assert_eq!(
            until([at("2026-01-01T00:00:40Z"), at("2026-01-01T01:00:00Z")], now, longest),
            Duration::from_secs(10)
        );
        assert_eq!(until([at("2026-01-02T00:00:00Z")], now, longest), longest);
        // Nothing is due sooner because something is overdue: what it waits for is not the time.
        assert_eq!(until([at("2025-01-01T00:00:00Z")], now, longest), longest);
        assert_eq!(until([now, at("2026-01-01T00:00:40Z")], now, longest), Duration::from_secs(10));
    }
}
