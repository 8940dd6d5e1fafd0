//! Writes the status of one policy: whole, by server-side apply, and only when it says something new.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use kube::api::{Patch, PatchParams};
use tokio::time::Instant;

use super::answer::NoAnswer;
use super::backoff::Backoff;
use super::context::Context;
use super::registry::Handle;
use super::status::{differs, status};
use crate::api::condition::{AuditClean, FenceCurrent, PruneHealthy, Ready, Reason, Reconciling, Stalled, StoreReady};
use crate::api::{FIELD_MANAGER, StateEpochPolicy, StateEpochPolicyStatus};

/// The shortest time between two writes that show nothing but progress.
const PROGRESS: Duration = Duration::from_secs(2);

/// How long the last write may take. What does not get through then is found out again by the next operator.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// Where the status goes.
#[async_trait]
pub(super) trait Destination: Send + Sync {
    /// Makes it the status of the policy.
    async fn write(&self, policy: &StateEpochPolicy, status: &StateEpochPolicyStatus) -> Result<(), NoAnswer>;
}

/// Runs until the policy's work has ended, and writes how it ended.
pub(super) async fn run(context: Arc<Context>, handle: Arc<Handle>) {
    report(&context, &handle, context.as_ref()).await;
}

/// The same, to any destination.
pub(super) async fn report(context: &Context, handle: &Handle, destination: &dyn Destination) {
    let mut policy = handle.policy.subscribe();
    let mut observed = handle.observed.subscribe();
    let mut written = handle.current().status.clone().unwrap_or_default();
    tell_of_approval(handle, &written);
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    let mut progress_from = Instant::now();
    let mut shown = Vec::new();
    loop {
        let current = Arc::clone(&policy.borrow_and_update());
        let next = status(&current, &observed.borrow_and_update(), &written.conditions, context.clock.now());
        if next.conditions != shown {
            show(context, handle, &next.conditions);
            shown.clone_from(&next.conditions);
        }
        let mut again = None;
        if differs(&next, &written) {
            let only_progress = !differs(&without_progress(&next), &without_progress(&written));
            if only_progress && Instant::now() < progress_from {
                again = Some(progress_from);
            } else {
                match destination.write(&current, &next).await {
                    Ok(()) => {
                        written = next;
                        tell_of_approval(handle, &written);
                        progress_from = Instant::now() + PROGRESS;
                        backoff.reset();
                    }
                    Err(error) => {
                        // A deletion is the watch's to tell; an API server that just starts says the same of what is there.
                        if !is_gone(&error) {
                            let (namespace, policy) = (&handle.name.namespace, &handle.name.name);
                            tracing::warn!(
                                namespace,
                                policy,
                                reason = "StatusNotWritten",
                                %error,
                                "the status could not be written; trying again"
                            );
                        }
                        again = Some(Instant::now() + backoff.next());
                    }
                }
            }
        }
        tokio::select! {
            () = handle.ended.cancelled() => break,
            _ = policy.changed() => {}
            _ = observed.changed() => {}
            () = async { match again { Some(again) => tokio::time::sleep_until(again).await, None => std::future::pending().await } } => {}
        }
    }
    write_last(context, handle, &written, destination).await;
}

/// Says which approval would survive the end of this process: nothing is deleted on one that would not.
fn tell_of_approval(handle: &Handle, written: &StateEpochPolicyStatus) {
    let approved = written.plan.as_ref().filter(|plan| plan.approved_at.is_some()).map(|plan| plan.digest.clone());
    handle.approved.send_if_modified(|known| {
        let news = *known != approved;
        *known = approved;
        news
    });
}

/// The last word of a policy's work: a run that was interrupted says so. A policy that is gone takes no status.
async fn write_last(
    context: &Context,
    handle: &Handle,
    written: &StateEpochPolicyStatus,
    destination: &dyn Destination,
) {
    let next = status(&handle.current(), &handle.observed.borrow().clone(), &written.conditions, context.clock.now());
    if differs(&next, written) {
        let last = tokio::time::timeout(LAST_WRITE, destination.write(&handle.current(), &next)).await;
        if let Ok(Err(error)) = last.as_ref()
            && !is_gone(error)
        {
            let (namespace, policy) = (&handle.name.namespace, &handle.name.name);
            tracing::warn!(namespace, policy, reason = "StatusNotWritten", %error, "the last status could not be written");
        }
    }
}

fn without_progress(status: &StateEpochPolicyStatus) -> StateEpochPolicyStatus {
    let mut status = status.clone();
    if let Some(prune) = &mut status.prune {
        prune.progress = None;
    }
    status
}

#[async_trait]
impl Destination for Context {
    async fn write(&self, policy: &StateEpochPolicy, status: &StateEpochPolicyStatus) -> Result<(), NoAnswer> {
        let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let patch = serde_json::json!({
            "apiVersion": <StateEpochPolicy as kube::Resource>::api_version(&()),
            "kind": <StateEpochPolicy as kube::Resource>::kind(&()),
            // The uid makes this fail for a namesake that was created in the meantime.
            "metadata": { "name": name, "uid": policy.metadata.uid },
            "status": status,
        });
        let api = Api::<StateEpochPolicy>::namespaced(self.client.clone(), namespace);
        let (params, patch) = (PatchParams::apply(FIELD_MANAGER).force(), Patch::Apply(patch));
        self.status_lane.answer(api.patch_status(name, &params, &patch)).await.map(|_| ())
    }
}

/// The policy was deleted, or another one has its name.
fn is_gone(error: &NoAnswer) -> bool {
    matches!(error, NoAnswer::Failed(kube::Error::Api(status))
        if status.is_not_found() || (status.is_conflict() && status.message.contains("UID")))
}

/// Makes the conditions metrics, too. One that is absent has no series.
fn show(context: &Context, handle: &Handle, conditions: &[Condition]) {
    let series = &context.metrics.condition;
    for type_ in TYPES {
        series.forget_where_first_is(&handle.name, type_);
    }
    for condition in conditions {
        let Some((type_, reason)) = words(&condition.type_, &condition.reason) else { continue };
        let value = if condition.status == "True" { 1.0 } else { 0.0 };
        series.of(&handle.name, &[type_, reason]).set(value);
    }
}

/// Every type of condition.
const TYPES: [&str; 7] = [
    Ready::TYPE,
    StoreReady::TYPE,
    FenceCurrent::TYPE,
    PruneHealthy::TYPE,
    AuditClean::TYPE,
    Stalled::TYPE,
    Reconciling::TYPE,
];

/// The words of a condition as the program has them: labels are never made of text from elsewhere.
fn words(type_: &str, reason: &str) -> Option<(&'static str, &'static str)> {
    fn of<R: Reason>(type_: &str, reason: &str) -> Option<(&'static str, &'static str)> {
        let found = R::ALL.iter().map(|reason| reason.as_str()).find(|word| *word == reason);
        found.filter(|_| R::TYPE == type_).map(|word| (R::TYPE, word))
    }
    of::<Ready>(type_, reason)
        .or_else(|| of::<StoreReady>(type_, reason))
        .or_else(|| of::<FenceCurrent>(type_, reason))
        .or_else(|| of::<PruneHealthy>(type_, reason))
        .or_else(|| of::<AuditClean>(type_, reason))
        .or_else(|| of::<Stalled>(type_, reason))
        .or_else(|| of::<Reconciling>(type_, reason))
}
