//! When the fence was last read, and one refresh at a time for however many writers find it too old.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex as StdMutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::error::StateBackendError;

/// The age of what is known about the fence. The version itself is what the registers have seen.
#[derive(Debug)]
pub(super) struct FenceCache {
    keep: Duration,
    read_at: StdMutex<Option<Instant>>,
    /// The text of the last refresh's failure; held while one is under way.
    flight: Mutex<Option<String>>,
    finished: AtomicU64,
}

impl FenceCache {
    pub(super) fn new(keep: Duration) -> Self {
        Self { keep, read_at: StdMutex::new(None), flight: Mutex::new(None), finished: AtomicU64::new(0) }
    }

    /// Counts a reading whose request was sent at `sent`.
    pub(super) fn was_read(&self, sent: Instant) {
        let mut read_at = self.read_at.lock().unwrap_or_else(PoisonError::into_inner);
        *read_at = (*read_at).max(Some(sent));
    }

    fn is_fresh(&self) -> bool {
        let read_at = *self.read_at.lock().unwrap_or_else(PoisonError::into_inner);
        read_at.is_some_and(|at| at.elapsed() < self.keep)
    }

    /// Runs `refresh` when the last reading is too old, unless another caller does so meanwhile: its outcome, failure included, is
    /// shared, so that a store that does not answer is not asked once for every waiting writer. A dropped refresh is taken over by the
    /// next caller.
    pub(super) async fn keep_fresh(
        &self,
        refresh: impl Future<Output = Result<(), StateBackendError>>,
    ) -> Result<(), StateBackendError> {
        if self.is_fresh() {
            return Ok(());
        }
        let finished = self.finished.load(Ordering::Acquire);
        let mut failure = self.flight.lock().await;
        if self.is_fresh() {
            return Ok(());
        }
        if self.finished.load(Ordering::Acquire) != finished
            && let Some(failure) = failure.as_ref()
        {
            return Err(StateBackendError::Io {
                key: epochwarden_core::key::REGISTERS.to_owned(),
                source: format!("another write's refresh of the fence failed: {failure}").into(),
            });
        }
        let outcome = refresh.await;
        *failure = outcome.as_ref().err().map(ToString::to_string);
        self.finished.fetch_add(1, Ordering::AcqRel);
        outcome
    }
}
