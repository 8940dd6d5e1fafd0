//! Prunes and audits: supervised tasks outside of reconcile, one per policy and a bounded number in all.
//!
//! A run ends by itself, at its deadline, or when its token is cancelled: on suspension, deletion and shutdown. It hands over values;
//! the status is made of them elsewhere.

mod audit;
mod prune;
pub(super) mod threads;

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use epochwarden_core::finding::FindingKind;
use epochwarden_store::ErrorClass;
use tokio::sync::SemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::observed::Observed;
use super::registry::Handle;
use super::schedules::After;
use super::stores::{self, Stores};
use crate::api::StateEpochPolicy;
use crate::api::status::{PastRun, Phase, RunKind};

/// Starts a run, which the caller has marked as begun. It waits for its turn by itself.
pub(super) fn start(context: &Arc<Context>, handle: &Arc<Handle>, kind: RunKind) {
    let (context, handle_of_task) = (Arc::clone(context), Arc::clone(handle));
    handle.tasks.spawn(async move {
        let handle = handle_of_task;
        let mut turn = Turn { context: &context, handle: &handle, kind, after: After::Over };
        let cancel = handle.cancel.child_token();
        let watched = watch_for_suspension(&handle, kind, &cancel);
        // A task of its own, so that a panic is its end alone, and where it keeps no fence waiting.
        let mut run = context.runs.spawn(one(Arc::clone(&context), Arc::clone(&handle), kind, cancel.clone()));
        // The watch only cancels the token: the run itself says when it has stopped.
        let ended = tokio::select! {
            ended = &mut run => ended,
            () = watched => run.await,
        };
        turn.after = match (ended, kind) {
            (Ok(after), _) => after,
            (Err(ended), RunKind::Prune) if ended.is_panic() => prune::fell(&context, &handle),
            (Err(ended), RunKind::Audit) if ended.is_panic() => {
                audit::fell(&context, &handle);
                After::Over
            }
            (Err(_), _) => After::Over,
        };
    });
}

async fn one(context: Arc<Context>, handle: Arc<Handle>, kind: RunKind, cancel: CancellationToken) -> After {
    match kind {
        RunKind::Prune => prune::run(&context, &handle, &cancel).await,
        RunKind::Audit => {
            audit::run(&context, &handle, &cancel).await;
            After::Over
        }
    }
}

/// Waits for one of the permits of a kind of run: one per run, and only while it works on the store. `None`: it was cancelled before.
async fn permit<'a>(context: &'a Context, kind: RunKind, cancel: &CancellationToken) -> Option<SemaphorePermit<'a>> {
    cancel.run_until_cancelled(context.permits(kind).acquire()).await.and_then(Result::ok)
}

/// A policy's turn to run something. Whatever ends it leaves the policy able to run again.
struct Turn<'a> {
    context: &'a Context,
    handle: &'a Handle,
    kind: RunKind,
    after: After,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut schedules = self.handle.schedules.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = schedules.slot(self.kind);
        slot.finished();
        slot.again.ended(self.after, self.context.monotonic.now());
        schedules.running = None;
        drop(schedules);
        self.handle.wake(self.context);
    }
}

/// Cancels a run when its policy does not want it any more.
async fn watch_for_suspension(handle: &Handle, kind: RunKind, cancel: &CancellationToken) {
    let mut policy = handle.policy.subscribe();
    let suspended = |policy: &Arc<StateEpochPolicy>| {
        policy.spec.suspend
            || match kind {
                RunKind::Prune => policy.spec.prune.suspend,
                RunKind::Audit => policy.spec.audit.suspend,
            }
    };
    if policy.wait_for(suspended).await.is_ok() {
        cancel.cancel();
    }
}

/// What the status says of a run that ended with its operator: the next operator owes it.
const INTERRUPTED: &str = "the operator ended in the middle of it: the next one begins again";

/// What every run writes down at its end.
struct Ended {
    kind: RunKind,
    started: jiff::Timestamp,
    finished: jiff::Timestamp,
    phase: Phase,
    message: String,
}

impl Ended {
    fn past(&self) -> PastRun {
        PastRun {
            kind: self.kind,
            started_at: self.started,
            finished_at: self.finished,
            result: self.phase,
            message: Some(self.message.clone()),
        }
    }
}

/// The clients of a run.
async fn stores(context: &Context, handle: &Handle) -> Result<Stores, String> {
    stores::current(context, handle).await.map_err(|not_ready| not_ready.message)
}

/// A store that failed in a run is looked at again at once, where its credentials, its registers or its very existence are in doubt.
pub(super) fn store_failed(handle: &Handle, class: ErrorClass) {
    if class == ErrorClass::UnknownLayout {
        handle.layout_doubted.store(true, Ordering::Relaxed);
    }
    if matches!(
        class,
        ErrorClass::AccessDenied
            | ErrorClass::UnknownLayout
            | ErrorClass::BucketNotFound
            | ErrorClass::Unreachable
            | ErrorClass::RootConflict
            | ErrorClass::RegisterLost
    ) {
        handle.look_again.notify_one();
    }
    // What a listing says by itself may be the store's fault for good: the probe tells.
    if class == ErrorClass::UnsafeStore {
        handle.probe_requested.notify_one();
    }
}

/// What was observed, as metrics; also of an earlier life, so that a restart leaves no gap until the next run.
#[allow(clippy::cast_precision_loss, reason = "these are numbers for graphs")]
pub(super) fn show(context: &Context, handle: &Handle, observed: &Observed) {
    let metrics = &context.metrics;
    if let Some(epochs) = &observed.epochs {
        metrics.epochs.of(&handle.name, &["sealed"]).set(epochs.sealed.get() as f64);
        metrics.epochs.of(&handle.name, &["unsealed"]).set(epochs.unsealed.get() as f64);
        if let Some(bytes) = epochs.bytes {
            metrics.store_bytes.of(&handle.name, &[]).set(bytes.get() as f64);
        }
        if let Some(at) = epochs.latest_committed_at {
            metrics.latest_committed_timestamp_seconds.of(&handle.name, &[]).set(at.as_second() as f64);
        }
    }
    for kind in FindingKind::ALL {
        let count = observed.audit.counts.get(kind.as_str()).map_or(0, |count| count.get());
        let (known, count) = match kind {
            // A check between two audits knows better.
            FindingKind::StalledSealing => (observed.epochs.is_some(), u64::from(observed.stalled.is_some())),
            _ => (observed.audit.verdict.is_some(), count),
        };
        if known {
            metrics.audit_findings.of(&handle.name, &[kind.as_str()]).set(count as f64);
        }
    }
}

#[cfg(test)]
mod tests;
