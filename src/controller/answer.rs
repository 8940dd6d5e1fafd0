//! Waiting for the API server, but not for ever.
//!
//! The client itself has to be patient, since a watch may be silent for minutes. A request that is waited for with a connection that
//! has died would be as patient: the poll of a Lease, which is there for just that case, would hang with the watch.
//!
//! Nor do all policies ask at once: a request that finds no idle connection makes one, so a thousand at the same moment would be a
//! thousand connections. Each kind of request has a [`Lane`] of its own, so that a fence never waits behind anybody's status.

use std::time::Duration;

use futures::FutureExt;
use futures::future::select_ok;
use tokio::sync::{Semaphore, SemaphorePermit};
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

    /// A turn, for as long as it is kept. It is waited for as long as it takes.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // A lane is never closed.
        self.0.acquire().await.ok()
    }

    /// Waits for its turn, and then for one request like [`answer`].
    pub(crate) async fn answer<T>(&self, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, NoAnswer> {
        let _turn = self.turn().await;
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

/// How long the usual connection has the field to itself. Beyond what a busy server takes, and well within the 2 s that a half-open
/// connection may cost the fence.
const HEAD_START: Duration = Duration::from_millis(500);

/// Waits for the first answer to the same question, which is asked again when `usual` takes long: its connection may be half-open, and
/// `afresh` uses another. A refusal is an answer.
pub(crate) async fn answer_of_either<T>(
    usual: impl Future<Output = Result<T, kube::Error>> + Send,
    afresh: impl Future<Output = Result<T, kube::Error>> + Send,
) -> Result<T, NoAnswer> {
    answer(async {
        let mut usual = usual.map(refusal_is_an_answer).boxed();
        if let Ok(answered) = timeout(HEAD_START, &mut usual).await {
            return answered?;
        }
        let afresh = afresh.map(refusal_is_an_answer).boxed();
        let (answered, _) = select_ok([usual, afresh]).await?;
        answered
    })
    .await
}

fn refusal_is_an_answer<T>(result: Result<T, kube::Error>) -> Result<Result<T, kube::Error>, kube::Error> {
    match result {
        Ok(answer) => Ok(Ok(answer)),
        Err(refusal @ kube::Error::Api(_)) => Ok(Err(refusal)),
        Err(error) => Err(error),
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

    fn refused() -> kube::Error {
        let status = kube::core::Status { code: 403, ..kube::core::Status::default() };
        kube::Error::Api(Box::new(status))
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_not_waited_for_where_another_answers() {
        let began = tokio::time::Instant::now();
        let silent = || std::future::pending::<Result<u8, kube::Error>>();
        assert_eq!(answer_of_either(silent(), std::future::ready(Ok(7))).await.unwrap(), 7);
        assert_eq!(began.elapsed(), HEAD_START);
        let refusal = answer_of_either(silent(), std::future::ready(Err(refused()))).await;
        assert_eq!(refusal.unwrap_err().code(), Some(403), "a refusal is an answer");
        assert!(matches!(answer_of_either(silent(), silent()).await, Err(NoAnswer::Silent)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_server_is_asked_twice_and_the_first_answer_counts() {
        let slow = async {
            timeout(3 * HEAD_START, std::future::pending::<()>()).await.unwrap_err();
            Ok(1)
        };
        let lost = std::future::ready(Err(kube::Error::TlsRequired));
        assert_eq!(answer_of_either(slow, lost).await.unwrap(), 1, "a second connection that fails answers nothing");
        let began = tokio::time::Instant::now();
        let never_asked = async { panic!("asked although the first one answered") };
        assert_eq!(answer_of_either(std::future::ready(Ok(1)), never_asked).await.unwrap(), 1);
        assert_eq!(began.elapsed(), Duration::ZERO);
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
