//! When a run that ended before its work was done begins again by itself.

use std::time::Duration;

use crate::controller::backoff::{Backoff, jitter};

/// The pause after a limit: it is there to be felt, and others have their turn meanwhile.
const PAUSE: Duration = Duration::from_secs(10);

/// The waits while the API server cannot be asked: each question is one request, and costs the store nothing.
const ASKING: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// The waits after a failure: each attempt may list the whole root.
const FAILING: (Duration, Duration) = (Duration::from_secs(15), Duration::from_mins(15));

/// What becomes of a run that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Nothing, until something asks for one.
    Over,
    /// It goes on by itself. It came to a limit.
    Limit,
    /// It goes on by itself. The API server could not be asked, or not be told.
    Unasked,
    /// It goes on by itself. Something failed.
    Failed {
        /// Whether anything was done before: then the waits begin with the shortest again.
        progress: bool,
    },
}

/// A run that goes on by itself.
#[derive(Debug, Clone)]
pub(crate) struct Again {
    /// Not before this, by monotonic time. `None`: there is none.
    at: Option<Duration>,
    asking: Backoff,
    failing: Backoff,
}

impl Default for Again {
    fn default() -> Self {
        Self { at: None, asking: Backoff::new(ASKING.0, ASKING.1), failing: Backoff::new(FAILING.0, FAILING.1) }
    }
}

impl Again {
    /// A run has ended at `now`.
    pub(crate) fn ended(&mut self, after: After, now: Duration) {
        let wait = match after {
            After::Over => {
                *self = Self::default();
                return;
            }
            After::Limit => {
                *self = Self::default();
                jitter(PAUSE)
            }
            After::Unasked => self.asking.next(),
            After::Failed { progress } => {
                self.asking.reset();
                if progress {
                    self.failing.reset();
                }
                self.failing.next()
            }
        };
        self.at = Some(now + wait);
    }

    /// A run begins, whatever asked for it. How long was waited before is not forgotten: it may fail as the last one did.
    pub(super) fn begins(&mut self) {
        self.at = None;
    }

    /// Whether one is due at `now`. It is from then on no more: who asks has to start it. One that is not `owed` any more is let go of.
    pub(crate) fn take_due(&mut self, now: Duration, owed: bool) -> bool {
        if !owed {
            *self = Self::default();
        }
        let due = self.at.is_some_and(|at| at <= now);
        if due {
            self.at = None;
        }
        due
    }

    /// How long until one is due.
    pub(crate) fn wait(&self, now: Duration) -> Option<Duration> {
        self.at.map(|at| at.saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The wait after each of these ends.
    fn waits(ends: &[After]) -> Vec<Option<Duration>> {
        let mut again = Again::default();
        let wait = |end: &After| {
            again.ended(*end, secs(1000));
            again.wait(secs(1000))
        };
        ends.iter().map(wait).collect()
    }

    #[track_caller]
    fn around(wait: Option<Duration>, expected: Duration) {
        let share = wait.unwrap().as_secs_f64() / expected.as_secs_f64();
        assert!((0.75..=1.25).contains(&share), "{wait:?} is not around {expected:?}");
    }

    #[test]
    fn each_failure_in_a_row_is_waited_for_longer_up_to_a_bound_and_progress_begins_anew() {
        let failed = After::Failed { progress: false };
        for (end, (shortest, longest)) in [(After::Unasked, ASKING), (failed, FAILING)] {
            let waits = waits(&[end; 20]);
            around(waits[0], shortest);
            around(waits[1], 2 * shortest);
            around(waits[19], longest);
        }
        let waits = waits(&[failed, failed, failed, After::Failed { progress: true }, After::Limit, failed]);
        around(waits[3], FAILING.0);
        around(waits[4], PAUSE);
        around(waits[5], FAILING.0);
    }

    #[test]
    fn it_is_due_once_and_not_before_its_time_nor_when_it_is_not_owed_any_more() {
        let mut again = Again::default();
        assert!(!again.take_due(secs(1000), true), "nothing has ended");
        again.ended(After::Limit, secs(1000));
        let wait = again.wait(secs(1000)).unwrap();
        assert!(!again.take_due(secs(1000), true));
        assert!(again.take_due(secs(1000) + wait, true));
        assert!(!again.take_due(secs(9000), true), "once");
        again.ended(After::Limit, secs(1000));
        assert!(!again.take_due(secs(9000), false));
        assert!(!again.take_due(secs(9000), true), "it was let go of");
        again.ended(After::Limit, secs(1000));
        again.ended(After::Over, secs(1001));
        assert_eq!(again.wait(secs(1001)), None, "another run has come to its end since");
    }
}
