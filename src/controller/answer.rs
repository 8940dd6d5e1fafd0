//! Waiting for the API server, but not for ever.
//!
//! The client itself has to be patient, since a watch may be silent for minutes. A request that is waited for with a connection that
//! has died would be as patient: the poll of a Lease, which is there for just that case, would hang with the watch.
//!
//! Nor do all policies ask at once: a request that finds no idle connection makes one, so a thousand at the same moment would be a
//! thousand connections. Each kind of request has a [`Lane`] of its own, so that a fence never waits behind anybody's status.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long an answer to one request is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// The API server did not answer in time.
    #[error("the API server did not answer within {} s", PATIENCE.as_secs())]
    Silent,
    /// It answered with an error, or could not be reached.
    #[error(transparent)]
    Failed(#[from] kube::Error),
}

impl NoAnswer {
    /// The HTTP status, where the API server itself refused.
    #[must_use]
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Failed(kube::Error::Api(status)) => Some(status.code),
            Self::Failed(_) | Self::Silent => None,
        }
    }
}

/// Waits for one request, which is given up after [`PATIENCE`].
pub(crate) async fn answer<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, NoAnswer> {
    answer_within(PATIENCE, request).await
}

/// One kind of request to the API server: so many of them are under way at once, whatever the number of policies. Who comes first is
/// served first.
#[derive(Debug)]
pub(crate) struct Lane(Semaphore);

impl Lane {
    /// For `width` requests at once.
    pub(crate) fn new(width: usize) -> Self {
        Self(Semaphore::new(width))
    }

    /// Waits for its turn, and then for one request like [`answer`]: the turn is waited for as long as it takes.
    pub(crate) async fn answer<T>(&self, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, NoAnswer> {
        // A lane is never closed.
        let _turn = self.0.acquire().await.ok();
        answer(request).await
    }
}

async fn answer_within<T>(
    patience: Duration,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, NoAnswer> {
    match timeout(patience, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(NoAnswer::Silent),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_server_that_never_answers_is_not_waited_for() {
        let never = std::future::pending::<Result<(), kube::Error>>();
        assert!(matches!(answer_within(Duration::from_millis(1), never).await, Err(NoAnswer::Silent)));
        assert_eq!(answer(std::future::ready(Ok(7))).await.unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_lets_so_many_pass_at_once_and_its_wait_is_not_the_servers_silence() {
        let (lane, under_way, most) = (Lane::new(3), AtomicUsize::new(0), AtomicUsize::new(0));
        let request = |()| async {
            most.fetch_max(under_way.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            let _ = timeout(PATIENCE / 2, std::future::pending::<()>()).await;
            under_way.fetch_sub(1, Ordering::Relaxed);
            Ok::<_, kube::Error>(())
        };
        let answers = futures::future::join_all([(); 30].map(|()| lane.answer(request(())))).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(most.into_inner(), 3);
    }
}
