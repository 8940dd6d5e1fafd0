//! A distribution in few numbers, and the row of a table that they make.

use std::fmt;
use std::time::Duration;

/// Quantiles of what was measured.
pub(crate) struct Figures {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    worst: Duration,
    count: usize,
}

impl Figures {
    /// Of at least one measurement.
    pub(crate) fn of(mut measured: Vec<Duration>) -> Self {
        measured.sort_unstable();
        let count = measured.len();
        let at = |percent: usize| measured[(count * percent / 100).min(count - 1)];
        Self { p50: at(50), p99: at(99), worst: measured[count - 1], count }
    }

    pub(crate) fn millis(span: Duration) -> f64 {
        span.as_secs_f64() * 1000.0
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, worst] = [self.p50, self.p99, self.worst].map(Self::millis);
        write!(f, "{p50:.1} ms | {p99:.1} ms | {worst:.1} ms | {}", self.count)
    }
}

/// The same changes of Leases, measured from two beginnings.
pub(crate) struct Since {
    /// From the change accepted by the API server.
    pub(crate) accepted: Figures,
    /// From the event received by the operator.
    pub(crate) received: Figures,
}

impl Since {
    /// Of at least one change: the time since it was accepted, and since its event was received.
    pub(crate) fn of(changes: Vec<(Duration, Duration)>) -> Self {
        let (accepted, received) = changes.into_iter().unzip();
        Self { accepted: Figures::of(accepted), received: Figures::of(received) }
    }
}
