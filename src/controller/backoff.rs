//! Waiting longer after each failure, with a random part so that a thousand policies do not come back in the same moment.

use std::time::Duration;

use kube::runtime::utils;

/// The waits between two attempts to watch. The longest is what an API server that is back may still be waited for: its first answer is
/// often that the watch has expired, which takes another one.
const WATCH: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(5));

/// Doubles from a shortest to a longest wait.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Begins with the shortest wait.
    #[must_use]
    pub(crate) const fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, next: shortest }
    }

    /// How long to wait now; the next wait is twice as long. Jittered by up to a quarter either way.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.longest);
        jitter(wait)
    }

    /// Begins again with the shortest wait.
    pub(crate) fn reset(&mut self) {
        self.next = self.shortest;
    }
}

/// How long a watch that was interrupted waits until it begins again. Whatever it is told starts over.
pub(crate) fn of_a_watch() -> impl utils::Backoff {
    Watching(Backoff::new(WATCH.0, WATCH.1))
}

struct Watching(Backoff);

impl Iterator for Watching {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0.next())
    }
}

impl utils::Backoff for Watching {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// A duration between three and five quarters of `around`.
#[must_use]
pub(crate) fn jitter(around: Duration) -> Duration {
    around.mul_f64(0.75 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let within = |wait: Duration, seconds: f64| {
            let share = wait.as_secs_f64() / seconds;
            assert!((0.75..=1.25).contains(&share), "{wait:?} is not around {seconds} s");
        };
        for seconds in [1.0, 2.0, 4.0, 5.0, 5.0] {
            within(backoff.next(), seconds);
        }
        backoff.reset();
        within(backoff.next(), 1.0);
    }

    #[test]
    fn a_watch_is_never_given_up_nor_waited_for_much_longer_than_the_longest() {
        let mut waits = of_a_watch();
        let longest = WATCH.1.mul_f64(1.25);
        for _ in 0..100 {
            assert!(waits.next().is_some_and(|wait| wait <= longest));
        }
        assert!(waits.next().is_some_and(|wait| wait > 2 * WATCH.0));
        utils::Backoff::reset(&mut waits);
        assert!(waits.next().is_some_and(|wait| wait <= 2 * WATCH.0));
    }
}
