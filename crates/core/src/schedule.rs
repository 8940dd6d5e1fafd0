//! When a run is due.
//!
//! A schedule is five cron fields in a time zone. Its *slots* are the instants at which a run should start. [`Schedule::due`] decides
//! from what the policy's status remembers, so that a restart of the operator loses no slot and repeats none.
//!
//! # Expressions
//!
//! `minute hour day-of-month month day-of-week` with numbers, ranges, steps, lists and English names, `L`, `LW` and `15W` in
//! day-of-month, `FRIL` and `FRI#2` in day-of-week; or `@hourly`, `@daily`, `@midnight`, `@weekly`, `@monthly`, `@yearly` and
//! `@annually`, which stay on the exact minute. A sixth field (seconds or a year) is refused. When neither day field is `*`, a day
//! that either of them names counts.
//!
//! `H` in any field is a number that the seed picks, so that a thousand policies do not start in the same second: `H` one value,
//! `H(0-29)` one of this range, `H/15` an offset below 15 and every 15 from there, `H(0-29)/10` the same within a range. It never
//! changes for one seed. A bare `H` in day-of-month picks from 1-28.
//!
//! # Changes of the clock
//!
//! - An expression that runs in every hour of the day follows real time: what the clock skips has no slots, and the hour that comes
//!   twice has them twice. `*/15 * * * *` is a slot every 15 minutes all year round.
//! - Any other expression names times of the day, and each of them is one slot: a time that the clock skips is moved to the first
//!   instant after the gap (together with the others in the gap: one run), and of a time that comes twice the first counts.

mod field;
#[cfg(test)]
mod tests;

use croner::Cron;
use jiff::civil::{DateTime, date};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp, Zoned};
use thiserror::Error;

pub use field::Field;

/// The most that [`Due::Now`] counts as missed.
pub const MISSED_AT_MOST: u32 = 100;

/// How far in the future a recorded start is still believed: a clock that was set back by up to a day waits for the slots that ran
/// already to pass. A start further ahead was written by a clock that was wrong, and would silence the schedule for as long.
const BELIEVED_AHEAD: SignedDuration = SignedDuration::from_hours(25);

/// A schedule that cannot be used. Each variant names the field and says what to write.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ScheduleError {
    /// Not five fields.
    #[error(
        "schedule: {expression:?} has {found} fields: write five (minute, hour, day of month, month, day of week; no seconds, no year), \
         such as \"H/15 * * * *\", or @hourly"
    )]
    Fields {
        /// The expression.
        expression: String,
        /// How many fields it has.
        found: usize,
    },
    /// An unknown word after `@`.
    #[error(
        "schedule: {expression:?} is not known: write @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually or five fields"
    )]
    Nickname {
        /// The expression.
        expression: String,
    },
    /// A field that is not well-formed.
    #[error("schedule: the {field} field {text:?} is wrong ({problem}): write {hint}", hint = .field.hint())]
    Field {
        /// Which field.
        field: Field,
        /// The field as written.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No day is ever named, such as the 30th of February.
    #[error("schedule: {expression:?} never comes: write a day-of-month field that its month field has")]
    NeverComes {
        /// The expression.
        expression: String,
    },
    /// A time zone that is not in the database.
    #[error(
        "timeZone: {name:?} is not known: write a name of the IANA time zone database, such as Etc/UTC or Europe/Berlin"
    )]
    TimeZone {
        /// The name.
        name: String,
    },
}

/// A parsed schedule in its time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    resolved: String,
    every_hour: bool,
    time_zone: TimeZone,
}

/// What the policy's status remembers of one schedule.
///
/// These two are all that [`Schedule::due`] needs, so the order of the writes is what makes a restart safe:
/// 1. [`Due::NotYet`] is written down: its `next` becomes `promised` (`status.….nextRunAt`).
/// 2. [`Due::Now`] keeps the promise as it is while the run waits for its turn.
/// 3. When the run starts, and before its first request, `last` becomes [`LastRun::Unfinished`] and `promised` becomes
///    [`Schedule::next_after`] of that instant, in one write.
/// 4. When it ended, with whatever result, `last` becomes [`LastRun::Finished`]. No decision is asked for while it runs.
/// 5. [`Due::Suspended`] and [`Due::Never`] clear the promise, and so does a policy without a schedule: that is how slots that pass in
///    the meantime are skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Remembered {
    /// The slot that was promised as the next. `None`: nothing was: the policy or its schedule is new, or was just resumed.
    pub promised: Option<Timestamp>,
    /// The last run, whatever asked for it.
    pub last: LastRun,
}

/// The last run, as the status shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LastRun {
    /// There was none.
    #[default]
    None,
    /// It ended, with whatever result.
    Finished {
        /// When it started.
        started: Timestamp,
    },
    /// It started and did not end, though none is running: the operator was stopped in the middle of it.
    Unfinished {
        /// When it started.
        started: Timestamp,
    },
}

/// Whether a run is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// The schedule is suspended: slots pass, and are not made up for.
    Suspended,
    /// No slot has passed since the last one that was considered.
    NotYet {
        /// The next slot.
        next: Timestamp,
    },
    /// One run is due, however many slots it stands for.
    Now {
        /// The latest slot that has passed; the start of the run that did not end, where none passed since.
        slot: Timestamp,
        /// How many earlier ones this run makes up for, counted up to [`MISSED_AT_MOST`]; 0 when it is on time.
        missed: u32,
    },
    /// There is no slot any more before the calendar ends.
    Never,
}

impl Schedule {
    /// Parses five cron fields, or a word such as `@hourly`, for a time zone by its IANA name.
    ///
    /// `seed` picks the value of every `H`: the same seed gives the same values for ever. It should name the policy and what is run
    /// (its uid and `prune`, say), so that two schedules of one policy do not coincide.
    pub fn parse(expression: &str, time_zone: &str, seed: &str) -> Result<Self, ScheduleError> {
        let time_zone = TimeZoneDatabase::bundled()
            .get(time_zone)
            .ok()
            .filter(|zone| !zone.is_unknown())
            .ok_or_else(|| ScheduleError::TimeZone { name: time_zone.to_owned() })?;
        let resolved = resolve(expression, seed)?;
        let never = || ScheduleError::NeverComes { expression: expression.to_owned() };
        let cron = field::parse_cron(&resolved).map_err(|_| never())?;
        // The calendar repeats every 400 years, so a pattern that has no day from here on has none at all.
        cron.find_next_occurrence(&date(2000, 1, 1).at(0, 0, 0, 0), true).map_err(|_| never())?;
        let every_hour = cron.pattern.hours.values().len() == 24;
        Ok(Self { cron, resolved, every_hour, time_zone })
    }

    /// The five fields with every `H` resolved and every `@` word written out.
    #[must_use]
    pub fn resolved(&self) -> &str {
        &self.resolved
    }

    /// The first slot after an instant. `None` when the calendar ends before.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        if self.every_hour {
            let start = Zoned::new(after, self.time_zone.clone());
            return Some(self.cron.find_next_occurrence(&start, false).ok()?.timestamp());
        }
        let mut time = self.time_zone.to_datetime(after);
        loop {
            time = self.cron.find_next_occurrence(&time, false).ok()?;
            let slot = self.instant(time)?;
            // In the second pass of an hour that comes twice, the times ahead on the clock had their slot in the first.
            if slot > after {
                return Some(slot);
            }
        }
    }

    /// The instant of a time of day: after a gap, and in the first pass of what comes twice.
    fn instant(&self, time: DateTime) -> Option<Timestamp> {
        let instant = self.time_zone.to_ambiguous_timestamp(time);
        let in_gap = matches!(instant.offset(), AmbiguousOffset::Gap { .. });
        let earlier = instant.earlier().ok()?;
        if in_gap { Some(self.time_zone.following(earlier).next()?.timestamp()) } else { Some(earlier) }
    }

    /// Decides whether a run is due at `now`, which is read once per decision.
    ///
    /// - Slots that passed unseen (the operator was down, or a run took longer than a slot) are made up for by one run.
    /// - Slots that pass while suspended are skipped, and so are those before the schedule was first seen.
    /// - A run that did not end is due again at once: killing the operator loses nothing.
    /// - A changed expression or time zone counts from the change on.
    /// - A clock that was set back does not run a slot again: it waits until the slots that ran have passed, for up to 25 hours; when it
    ///   was set back further, the schedule goes on from the present. A clock that was set ahead makes one run due.
    #[must_use]
    pub fn due(&self, remembered: &Remembered, now: Timestamp, suspended: bool) -> Due {
        if suspended {
            return Due::Suspended;
        }
        let considered = remembered.considered(now);
        let first = self.next_after(considered);
        let passed =
            first.filter(|slot| *slot <= now).map(|first| (self.latest_from(first, now), self.count(first, now)));
        match (remembered.last, passed) {
            (LastRun::Unfinished { .. }, Some((slot, count))) => Due::Now { slot, missed: count.min(MISSED_AT_MOST) },
            (LastRun::Unfinished { started }, None) => Due::Now { slot: started.min(now), missed: 0 },
            (_, Some((slot, count))) => Due::Now { slot, missed: count.saturating_sub(1).min(MISSED_AT_MOST) },
            (_, None) => first.map_or(Due::Never, |next| Due::NotYet { next }),
        }
    }

    /// The latest slot up to `now`, from one that is known. Bisecting keeps a year of missed minutes as cheap as an hour of them.
    fn latest_from(&self, known: Timestamp, now: Timestamp) -> Timestamp {
        let (mut latest, mut end) = (known, now);
        // `latest` is a slot, and none lies after `end` up to `now`.
        while latest < end {
            let middle = latest + SignedDuration::from_secs(end.duration_since(latest).as_secs() / 2);
            match self.next_after(middle) {
                Some(slot) if slot <= end => latest = slot,
                _ => end = middle,
            }
        }
        latest
    }

    /// How many slots there are from `first` up to `now`, counted no further than one above what is ever told.
    fn count(&self, first: Timestamp, now: Timestamp) -> u32 {
        let mut slot = first;
        let mut count = 1;
        while count <= MISSED_AT_MOST {
            match self.next_after(slot) {
                Some(next) if next <= now => slot = next,
                _ => break,
            }
            count += 1;
        }
        count
    }
}

impl Remembered {
    /// The instant up to which every slot has been dealt with.
    fn considered(&self, now: Timestamp) -> Timestamp {
        // A promise is kept although its time has passed; one that lies ahead binds nothing, for the schedule may have changed since.
        let promised = self
            .promised
            .map_or(now, |slot| slot.checked_sub(SignedDuration::from_secs(1)).unwrap_or(Timestamp::MIN).min(now));
        match self.last {
            LastRun::Finished { started } | LastRun::Unfinished { started }
                if started.duration_since(now) <= BELIEVED_AHEAD =>
            {
                promised.max(started)
            }
            _ => promised,
        }
    }
}

/// Writes out a word such as `@hourly` and resolves every `H`.
fn resolve(expression: &str, seed: &str) -> Result<String, ScheduleError> {
    let trimmed = expression.trim();
    if let Some(word) = trimmed.strip_prefix('@') {
        let fields = match word.to_ascii_lowercase().as_str() {
            "hourly" => "0 * * * *",
            "daily" | "midnight" => "0 0 * * *",
            "weekly" => "0 0 * * 0",
            "monthly" => "0 0 1 * *",
            "yearly" | "annually" => "0 0 1 1 *",
            _ => return Err(ScheduleError::Nickname { expression: expression.to_owned() }),
        };
        return Ok(fields.to_owned());
    }
    let fields: Vec<&str> = trimmed.split_ascii_whitespace().collect();
    if fields.len() != Field::ALL.len() {
        return Err(ScheduleError::Fields { expression: expression.to_owned(), found: fields.len() });
    }
    let resolved = Field::ALL.into_iter().zip(fields).map(|(field, text)| {
        field::resolve(field, &text.to_ascii_uppercase(), seed).map_err(|problem| ScheduleError::Field {
            field,
            text: text.to_owned(),
            problem,
        })
    });
    Ok(resolved.collect::<Result<Vec<_>, _>>()?.join(" "))
}
