//! What becomes of a task that panics: it is logged, and the task is started again. A fault that one policy meets must cost the others
//! nothing, and that one no more than a moment.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::backoff::Backoff;
use super::observed::Observed;
use super::registry::Handle;

/// The shortest and the longest time before a task that panicked is started again.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// What people are told of a panic. Its own words are only in the log: nobody knows what they quote.
pub(super) const FAULT: &str =
    "a fault of the operator itself ended this unexpectedly: its log says where, and is worth reporting";

/// Makes panics lines of the log, in the log's own form, for the rest of the process.
pub fn log_panics() {
    panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("without a message");
        let at = info.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        tracing::error!(at, backtrace, "a task panicked: {message}");
    }));
}

/// Runs a task of a policy to its end, and starts it again after each panic until the policy's work ends. `fallen` observes a panic.
///
/// What a task knows is observed or held by the handle, so one that begins anew misses nothing.
pub(super) async fn keep<F>(what: &str, handle: &Handle, make: impl Fn() -> F, fallen: impl Fn(&mut Observed))
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut backoff = Backoff::new(AGAIN.0, AGAIN.1);
    while let Err(ended) = tokio::spawn(make()).await {
        // Anything else is the end of the runtime.
        if !ended.is_panic() {
            return;
        }
        let wait = backoff.next();
        tracing::error!(
            namespace = handle.name.namespace,
            policy = handle.name.name,
            reason = "Panicked",
            "{what} panicked and is started again in {wait:?}"
        );
        handle.observed.send_modify(&fallen);
        let waited = tokio::time::sleep_until(tokio::time::Instant::now() + wait);
        if handle.cancel.run_until_cancelled(waited).await.is_none() {
            return;
        }
    }
}

/// The tasks that all policies hang on. When one of them panics the operator ends: a process that is started again is better than one that
/// does a part of its work.
#[derive(Debug, Clone)]
pub(super) struct Vital {
    tasks: TaskTracker,
    shutdown: CancellationToken,
    fallen: Arc<OnceLock<&'static str>>,
}

impl Vital {
    /// None yet. `shutdown` ends the operator.
    pub(super) fn new(tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        Self { tasks, shutdown, fallen: Arc::default() }
    }

    /// Runs one of them. `what` it does is for people.
    pub(super) fn spawn(&self, what: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let Self { shutdown, fallen, .. } = self.clone();
        self.tasks.spawn(async move {
            if tokio::spawn(task).await.is_err_and(|ended| ended.is_panic()) {
                // Of several the first counts.
                let _ = fallen.set(what);
                shutdown.cancel();
            }
        });
    }

    /// Which of them fell, if any.
    pub(super) fn fallen(&self) -> Option<&'static str> {
        self.fallen.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn the_fall_of_what_all_policies_hang_on_ends_the_operator_and_is_told() {
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let vital = Vital::new(tasks.clone(), shutdown.clone());
        vital.spawn("what ends by itself", async {});
        vital.spawn("what falls", async { panic!("an injected panic") });
        shutdown.cancelled().await;
        tasks.close();
        tasks.wait().await;
        assert_eq!(vital.fallen(), Some("what falls"));
    }

    fn handle() -> Handle {
        let policy = serde_json::from_value(json!({
            "apiVersion": "epochwarden.io/v1alpha1",
            "kind": "StateEpochPolicy",
            "metadata": { "name": "orders", "namespace": "streaming", "uid": "u1", "generation": 1 },
            "spec": { "store": { "url": "file:///nowhere" }, "vnodes": 4 },
        }));
        Handle::new(&Arc::new(policy.unwrap()), CancellationToken::new())
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_started_again_until_it_ends_by_itself() {
        let (handle, begun) = (handle(), Arc::new(AtomicUsize::new(0)));
        let task = || {
            let begun = begun.fetch_add(1, Ordering::Relaxed);
            async move { assert!(begun == 3, "an injected panic") }
        };
        let told = AtomicUsize::new(0);
        keep("a task", &handle, task, |observed| {
            told.fetch_add(1, Ordering::Relaxed);
            observed.store.message = FAULT.into();
        })
        .await;
        assert_eq!((begun.load(Ordering::Relaxed), told.load(Ordering::Relaxed)), (4, 3));
        assert_eq!(handle.observed.borrow().store.message, FAULT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_always_panics_ends_with_its_policy() {
        let handle = handle();
        let started = tokio::time::Instant::now();
        let cancel = handle.cancel.clone();
        let end = async {
            tokio::time::sleep_until(started + Duration::from_mins(10)).await;
            cancel.cancel();
        };
        let begun = AtomicUsize::new(0);
        let task = || {
            begun.fetch_add(1, Ordering::Relaxed);
            async { panic!("an injected panic") }
        };
        tokio::join!(keep("a task", &handle, task, |_| ()), end);
        // Growing waits: a task that panics at once is begun 7 times in the first minute, and about once a minute from then on.
        let begun = begun.load(Ordering::Relaxed);
        assert!((13..=22).contains(&begun), "{begun}");
        assert!(started.elapsed() < Duration::from_mins(11), "it waited beyond the end");
    }
}
