//! Monotonic time as the rules of Leases want it: the time since this process began to look.

use std::time::Duration;

use tokio::time::Instant;

/// Counts from its creation, by tokio's clock, so that tests can pause it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Monotonic {
    origin: Instant,
}

impl Monotonic {
    /// Starts counting.
    #[must_use]
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// The time since the start.
    #[must_use]
    pub(crate) fn now(&self) -> Duration {
        self.origin.elapsed()
    }
}
