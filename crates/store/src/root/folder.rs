//! Folders that may not answer.

use std::time::Duration;

use crate::error::StoreError;

/// How long a folder may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks something about the folder of the root at `url`, for 5 s at most. A folder on a server that is away can keep whoever asks waiting
/// for ever, so it is asked on one of the runtime's threads for blocking calls, and left behind there: `question` may end long after this
/// has, and each that does not end keeps one of those threads until the folder answers.
///
/// Fails with [`StoreError::Folder`] when there was no answer. Dropping the future ends the waiting only.
pub async fn ask<T: Send + 'static>(url: &str, question: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    let silent = || StoreError::Folder { url: url.to_owned(), source: std::io::ErrorKind::TimedOut.into() };
    match tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(question)).await {
        Ok(Ok(answer)) => Ok(answer),
        _ => Err(silent()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorClass;

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_never_answers_is_unreachable_after_five_seconds() {
        let (answer, question) = std::sync::mpsc::channel::<()>();
        let began = tokio::time::Instant::now();
        let asked = tokio::spawn(async move { ask("file:///away", move || question.recv().is_ok()).await });
        tokio::task::yield_now().await;
        // While a thread is asked, a paused clock stands still.
        tokio::time::advance(PATIENCE).await;
        let error = asked.await.unwrap().unwrap_err();
        assert_eq!((error.class(), began.elapsed()), (ErrorClass::Unreachable, PATIENCE), "{error}");
        drop(answer);
    }

    #[tokio::test]
    async fn an_answer_is_handed_on() {
        assert_eq!(ask("file:///here", || 7).await.unwrap(), 7);
    }
}
