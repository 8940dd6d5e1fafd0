//! Prunes and audits: supervised tasks outside of reconcile, one per policy and a bounded number in all.
//!
//! A run ends by itself, at its deadline, or when its token is cancelled: on suspension, deletion and shutdown. It hands over values;
//! the status is made of them elsewhere.

mod audit;
mod prune;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use epochwarden_core::finding::FindingKind;
use epochwarden_store::ErrorClass;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::credentials;
use super::observed::Observed;
use super::registry::Handle;
use super::stores::Stores;
use crate::api::StateEpochPolicy;
use crate::api::status::{PastRun, Phase, RunKind};

/// How long a run waits for the store to be opened with another Secret.
const REOPENED: Duration = Duration::from_secs(30);

/// Starts a run, which the caller has marked as begun. Without a permit it waits for one first.
pub(super) fn start(context: &Arc<Context>, handle: &Arc<Handle>, kind: RunKind, permit: Option<OwnedSemaphorePermit>) {
    let (context, handle_of_task) = (Arc::clone(context), Arc::clone(handle));
    handle.tasks.spawn(async move {
        let handle = handle_of_task;
        let cancel = handle.cancel.child_token();
        // One permit per run in all: waiting for it is part of the run, and ends with it.
        let permit = match permit {
            Some(permit) => Some(permit),
            None => cancel.run_until_cancelled(Arc::clone(&context.runs).acquire_owned()).await.and_then(Result::ok),
        };
        if let Some(permit) = permit {
            let watched = watch_for_suspension(&handle, kind, &cancel);
            let run = async {
                match kind {
                    RunKind::Prune => prune::run(&context, &handle, &cancel).await,
                    RunKind::Audit => audit::run(&context, &handle, &cancel).await,
                }
            };
            tokio::pin!(run, watched);
            // The watch only cancels the token: the run itself says when it has stopped.
            tokio::select! {
                () = &mut run => {}
                () = &mut watched => run.await,
            }
            drop(permit);
        }
        {
            let mut schedules = handle.schedules.lock().unwrap_or_else(PoisonError::into_inner);
            schedules.slot(kind).finished();
            schedules.running = None;
        }
        handle.wake(&context);
    });
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

/// The clients of a run, with the credentials of now: a run may take hours, and a key may have been rotated since it was last read.
async fn stores(context: &Context, handle: &Handle) -> Result<Stores, String> {
    let mut held = handle.stores.subscribe();
    let not_ready = || "the store is not ready: see the condition StoreReady".to_owned();
    let stores = held.borrow_and_update().clone().ok_or_else(not_ready)?;
    let policy = handle.current();
    let Some(credentials) = &policy.spec.store.credentials else {
        return Ok(stores);
    };
    match credentials::read(&context.client, &handle.name.namespace, &credentials.secret_ref.name).await {
        Ok(read) if stores.were_made_with(&read.identity) => Ok(stores),
        // An API server that does not answer for a moment says nothing about the credentials that are held.
        Err(problem) if !problem.lasting => Ok(stores),
        _ => {
            handle.look_again.notify_one();
            if tokio::time::timeout(REOPENED, held.changed()).await.is_err() {
                return Err(
                    "the Secret has changed, and the store was not opened again in time; see the condition StoreReady"
                        .into(),
                );
            }
            held.borrow().clone().ok_or_else(not_ready)
        }
    }
}

/// A store that failed in a run is looked at again at once, where its credentials, its registers or its very existence are in doubt.
fn store_failed(handle: &Handle, class: ErrorClass) {
    if matches!(
        class,
        ErrorClass::AccessDenied
            | ErrorClass::BucketNotFound
            | ErrorClass::Unreachable
            | ErrorClass::RootConflict
            | ErrorClass::RegisterLost
    ) {
        handle.look_again.notify_one();
    }
}

/// What was observed, as metrics; also of an earlier life, so that a restart leaves no gap until the next run.
#[allow(clippy::cast_precision_loss, reason = "these are numbers for graphs")]
pub(super) fn show(context: &Context, handle: &Handle, observed: &Observed) {
    let metrics = &context.metrics;
    if let Some(epochs) = &observed.epochs {
        metrics.epochs.of(&handle.name, &["sealed"]).set(epochs.sealed.get() as f64);
        metrics.epochs.of(&handle.name, &["unsealed"]).set(epochs.unsealed.get() as f64);
        metrics.store_bytes.of(&handle.name, &[]).set(epochs.bytes.get() as f64);
        if let Some(at) = epochs.latest_committed_at {
            metrics.latest_committed_timestamp_seconds.of(&handle.name, &[]).set(at.as_second() as f64);
        }
    }
    if observed.audit.verdict.is_some() {
        for kind in FindingKind::ALL {
            let count = observed.audit.counts.get(kind.as_str()).map_or(0, |count| count.get());
            metrics.audit_findings.of(&handle.name, &[kind.as_str()]).set(count as f64);
        }
    }
}
