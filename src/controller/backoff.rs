//! Waiting longer after each failure, with a random part so that a thousand policies do not come back in the same moment.

use std::time::Duration;

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
}
