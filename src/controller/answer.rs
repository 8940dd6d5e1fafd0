//! Waiting for the API server, but not for ever.
//!
//! The client itself has to be patient, since a watch may be silent for minutes. A request that is waited for with a connection that
//! has died would be as patient: the poll of a Lease, which is there for just that case, would hang with the watch.

use std::time::Duration;

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
    use super::*;

    #[tokio::test]
    async fn a_server_that_never_answers_is_not_waited_for() {
        let never = std::future::pending::<Result<(), kube::Error>>();
        assert!(matches!(answer_within(Duration::from_millis(1), never).await, Err(NoAnswer::Silent)));
        assert_eq!(answer(std::future::ready(Ok(7))).await.unwrap(), 7);
    }
}
