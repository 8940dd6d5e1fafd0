//! Waiting for a condition, with a deadline.

use std::time::Duration;

use anyhow::Context;

const INTERVAL: Duration = Duration::from_millis(20);

/// Asks `probe` until it has an answer, and returns that; an error that names `what` when `deadline` passes first.
///
/// Real time: not for tests that pause tokio's clock.
pub async fn until<T, P>(what: &str, deadline: Duration, mut probe: P) -> anyhow::Result<T>
where
    P: AsyncFnMut() -> Option<T>,
{
    let asked = async {
        loop {
            if let Some(answer) = probe().await {
                return answer;
            }
            pause().await;
        }
    };
    tokio::time::timeout(deadline, asked).await.with_context(|| format!("{what}: not within {deadline:?}"))
}

#[allow(
    clippy::disallowed_methods,
    reason = "other processes do not wake this one: between two looks at them it pauses"
)]
pub(crate) async fn pause() {
    tokio::time::sleep(INTERVAL).await;
}
