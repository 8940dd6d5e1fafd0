//! Looks for the newest seal between two audits: for `status.epochs`, and to say early that a pipeline seals no more.
//!
//! A check is one index pass ([`epochwarden_store::list_index`]): a LIST for each 500 epochs, whatever these hold. It writes nothing, and
//! what it finds is worth a write of the status only when it is something else than before.

use std::sync::Arc;
use std::time::Duration;

use epochwarden_core::duration::format_duration;
use epochwarden_core::finding::{committer_of, stalled_sealing};
use epochwarden_core::inventory::{EpochIndex, Sealing};
use epochwarden_core::{Numbering, ShownEpoch};
use jiff::Timestamp;
use tokio::time::Instant;

use super::backoff::jitter;
use super::context::Context;
use super::notices::Reason;
use super::observed::{Observed, in_words};
use super::registry::Handle;
use super::runs;
use crate::api::condition::{self, AuditClean, Reason as _, StoreReady};
use crate::api::status::{EpochsStatus, FindingStatus};
use crate::api::{StateEpochPolicy, validate};

/// How many checks may be under way at once, in all. Apart from the runs', so that neither waits for the other.
pub(super) const CHECKS: usize = 16;

/// The longest time before the first check of a policy whose epochs were never listed.
const SOON: Duration = Duration::from_secs(5);

/// The longest time before a store that cannot be used is considered again.
const NOT_READY: Duration = Duration::from_secs(30);

/// How a policy wants to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    every: Duration,
    stalled_after: Duration,
    /// The longest that one check takes: as long as an audit may.
    deadline: Duration,
}

impl Wanted {
    /// `None` where nothing is to be checked: never, or not now.
    fn by(policy: &StateEpochPolicy) -> Option<Self> {
        if policy.spec.suspend || policy.spec.audit.suspend {
            return None;
        }
        let settings = validate::audit_settings(&policy.spec).ok()?;
        let (stalled_after, deadline) = (settings.stalled_after, settings.deadline);
        Some(Self { every: settings.seal_check_every?, stalled_after, deadline })
    }
}

/// Runs until the policy's work ends.
pub(super) async fn run(context: Arc<Context>, handle: Arc<Handle>) {
    let work = check_for_ever(&context, &handle);
    handle.cancel.run_until_cancelled(work).await;
}

async fn check_for_ever(context: &Context, handle: &Handle) {
    let mut policy = handle.policy.subscribe();
    let mut stores = handle.stores.subscribe();
    let mut every = None;
    let mut next = Instant::now();
    let mut failing = false;
    loop {
        let wanted = Wanted::by(&policy.borrow_and_update());
        if every != wanted.map(|wanted| wanted.every) {
            every = wanted.map(|wanted| wanted.every);
            next = Instant::now() + first(handle, every.unwrap_or_default());
        }
        let Some(wanted) = wanted else {
            forget(handle);
            if policy.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            changed = policy.changed() => if changed.is_ok() { continue } else { return },
            // Until there is a store, there is nothing to wait for but that.
            () = async { let _ = stores.wait_for(Option::is_some).await; tokio::time::sleep_until(next).await } => {}
        }
        let checked = tokio::select! {
            changed = policy.changed() => if changed.is_ok() { continue } else { return },
            checked = check(context, handle, wanted) => checked,
        };
        let wait = match checked {
            Some(outcome) => {
                let failed = outcome.is_err();
                if let (Err(problem), false) = (outcome, failing) {
                    let (namespace, policy) = (&handle.name.namespace, &handle.name.name);
                    tracing::warn!(
                        namespace,
                        policy,
                        reason = "SealCheckFailed",
                        "the newest seal could not be looked for: {problem}"
                    );
                }
                failing = failed;
                wanted.every
            }
            None => wanted.every.min(NOT_READY),
        };
        next = Instant::now() + jitter(wait);
    }
}

/// Policies that were all begun at once are not all checked at once.
fn first(handle: &Handle, every: Duration) -> Duration {
    let known = handle.observed.borrow().epochs.is_some();
    (if known { every } else { every.min(SOON) }).mul_f64(fastrand::f64())
}

/// Nobody looks any more: what only a check has said is not said any longer.
fn forget(handle: &Handle) {
    handle
        .observed
        .send_if_modified(|observed| !observed.audit_found_stalled_sealing() && observed.stalled.take().is_some());
}

/// One check, or why it failed; `None` where the store cannot be used now.
async fn check(context: &Context, handle: &Handle, wanted: Wanted) -> Option<Result<(), String>> {
    let stores = handle.stores.borrow().clone()?;
    let before = {
        let observed = handle.observed.borrow();
        if observed.store.reason != StoreReady::Reachable {
            return None;
        }
        observed.epochs.clone()
    };
    let Ok(_permit) = context.seal_checks.acquire().await else { return None };
    let listed = tokio::time::timeout(wanted.deadline, epochwarden_store::list_index(&stores.runs)).await;
    match listed {
        Ok(Ok(index)) => {
            observe(context, handle, &index, wanted.stalled_after, before.as_ref());
            Some(Ok(()))
        }
        Ok(Err(error)) => {
            runs::store_failed(handle, error.class());
            Some(Err(error.to_string()))
        }
        Err(_) => Some(Err(format!("it was not done after {}", format_duration(wanted.deadline)))),
    }
}

fn observe(
    context: &Context,
    handle: &Handle,
    index: &EpochIndex,
    stalled_after: Duration,
    before: Option<&EpochsStatus>,
) {
    let now = context.clock.now();
    let sealing = index.sealing();
    let numbering = handle.current().spec.numbering;
    let stalled = stalled_sealing(&sealing, numbering, now, stalled_after);
    let stalled = stalled.map(|finding| in_words(&FindingStatus::from(&finding)));
    let mut turned = None;
    let newest = index.newest_sealed().map(|(epoch, _)| epoch);
    handle.observed.send_if_modified(|observed| {
        let said = observed.audit_said().map(|said| said.reason);
        let mut news = false;
        let mut stalled = stalled.as_ref();
        if observed.epochs.as_ref() == before {
            let epochs = Some(epochs(observed, index, numbering, now));
            news = without_time(epochs.as_ref()) != without_time(observed.epochs.as_ref());
            observed.epochs = epochs;
        } else {
            // A run has listed everything meanwhile, and knows better. A seal that only it has seen was made since, so nothing has stalled;
            // otherwise no run says whether sealing has.
            let known = observed.epochs.as_ref().and_then(|epochs| epochs.latest_committed);
            stalled = stalled.filter(|_| known.map(ShownEpoch::epoch) <= newest);
        }
        news |= observed.stalled.as_ref() != stalled;
        observed.stalled = stalled.cloned();
        turned = Some((said, observed.audit_said().map(|said| said.reason)));
        news
    });
    runs::show(context, handle, &handle.observed.borrow());
    // Once per transition.
    match turned {
        Some((before, Some(AuditClean::Warnings))) if before != Some(AuditClean::Warnings) => {
            let warnings = AuditClean::Warnings.as_str();
            context.notices.send_for(&handle.reference, Reason::AuditFinding, warnings, stalled.unwrap_or_default());
        }
        Some((Some(AuditClean::Warnings), after)) if after != Some(AuditClean::Warnings) => {
            let after = after.map_or(Reason::AuditClean.as_str(), condition::Reason::as_str);
            context.notices.send_for(&handle.reference, Reason::AuditClean, after, goes_on(&sealing, numbering));
        }
        _ => {}
    }
}

fn goes_on(sealing: &Sealing, numbering: Numbering) -> String {
    match sealing.newest {
        Some((epoch, sealed)) => format!("sealing goes on: epoch {} was sealed at {sealed}", numbering.show(epoch)),
        None => "no unsealed epoch waits for its seal any more".into(),
    }
}

/// The epochs as the index shows them; what it does not show stays as the last run has counted it.
fn epochs(observed: &Observed, index: &EpochIndex, numbering: Numbering, now: Timestamp) -> EpochsStatus {
    let before = observed.epochs.clone().unwrap_or_default();
    let newest = index.newest_sealed();
    let latest = newest.map(|(epoch, _)| numbering.show(epoch));
    let known = before.latest_committer.as_deref();
    let committer = if latest == before.latest_committed && known.is_some() {
        known
    } else {
        // Only whom the seal's ETag proves: whoever sealed before, and the holder of the fence.
        let holder = observed.published.as_ref().and_then(|fence| fence.holder.as_deref());
        newest.and_then(|(_, seal)| committer_of(seal, holder.into_iter().chain(known)))
    };
    EpochsStatus {
        latest_committed: latest,
        latest_committed_at: newest.map(|(_, seal)| seal.modified),
        latest_committer: committer.map(str::to_owned),
        oldest_sealed: index.oldest_sealed().map(|epoch| numbering.show(epoch)),
        sealed: index.sealed().into(),
        unsealed: index.unsealed().into(),
        objects: before.objects,
        bytes: before.bytes,
        observed_at: Some(now),
    }
}

fn without_time(epochs: Option<&EpochsStatus>) -> Option<EpochsStatus> {
    epochs.map(|epochs| EpochsStatus { observed_at: None, ..epochs.clone() })
}

#[cfg(test)]
mod tests;
