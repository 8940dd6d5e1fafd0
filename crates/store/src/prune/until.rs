//! How long a run may go on.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::report::Stop;

/// How long the answers to deletes that are under way are waited for once a run has to stop.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// As good as the deadlines that no clock can hold.
const CENTURY: Duration = Duration::from_hours(24 * 365 * 100);

/// Until it is cancelled, or its deadline.
#[derive(Debug, Clone)]
pub(super) struct Until {
    cancel: CancellationToken,
    ends: Instant,
}

impl Until {
    pub(super) fn new(cancel: &CancellationToken, deadline: Duration) -> Self {
        let now = Instant::now();
        let ends = now.checked_add(deadline).unwrap_or_else(|| now + CENTURY);
        Self { cancel: cancel.clone(), ends }
    }

    /// Why no further request may be sent.
    pub(super) fn stop(&self) -> Option<Stop> {
        if self.cancel.is_cancelled() {
            return Some(Stop::Cancelled);
        }
        (Instant::now() >= self.ends).then_some(Stop::Deadline)
    }

    /// Waits until no further request may be sent.
    pub(super) async fn stopped(&self) -> Stop {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Stop::Cancelled,
            () = sleep_until(self.ends) => Stop::Deadline,
        }
    }

    /// Does what can be given up at any point: `Err` when it was.
    pub(super) async fn bound<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            stop = self.stopped() => Err(stop),
            done = work => Ok(done),
        }
    }

    /// Waits until no answer is waited for any more. The outcome of a delete should be known, so this comes later than
    /// [`Until::stopped`], and still leaves a process that is told to end the time to do so.
    pub(super) async fn overdue(&self) {
        self.stopped().await;
        sleep_until(Instant::now() + LAST_ANSWERS).await;
    }
}
