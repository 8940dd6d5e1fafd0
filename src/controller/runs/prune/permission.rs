//! What a prune waits for and asks: that its approval would outlive this process, and that it is still wanted.

use std::time::Duration;

use async_trait::async_trait;
use epochwarden_store::prune::{Permission, PruneError, Stop};
use kube::ResourceExt;
use tokio_util::sync::CancellationToken;

use super::told::Told;
use crate::api::StateEpochPolicy;
use crate::api::status::PlanStatus;
use crate::controller::context::Context;
use crate::controller::registry::Handle;

/// How long a prune waits for its approval to be written down before it lets another run of its policy go first.
const WRITTEN: Duration = Duration::from_secs(30);

/// Waits for what a prune needs of the API server before it may even look at the store. Nothing is held meanwhile that other policies
/// need.
pub(super) async fn ready(
    permission: &StillWanted<'_>,
    plan: Option<&PlanStatus>,
    owed: bool,
    cancel: &CancellationToken,
) -> Result<(), Told> {
    let StillWanted { handle, policy, .. } = permission;
    if let Some(plan) = plan.filter(|plan| plan.approved_at.is_some()) {
        written_down(handle, policy, plan, cancel).await?;
    }
    // Others ask when they know what they would delete. One that could not ask then would list the whole root for nothing again.
    if owed {
        match cancel.run_until_cancelled(permission.ask()).await {
            Some(Err(Stop::CannotAsk { message })) => return Err(Told::unasked(message)),
            // Whatever else it is, the run says so.
            Some(_) => {}
            None => return Err(Told::refused(&PruneError::Cancelled)),
        }
    }
    Ok(())
}

/// Waits until the status in the cluster shows the approval: were it lost with this process, the annotation may be gone by then, and what
/// is left of a plan that was begun proves nothing.
async fn written_down(
    handle: &Handle,
    policy: &StateEpochPolicy,
    plan: &PlanStatus,
    cancel: &CancellationToken,
) -> Result<(), Told> {
    let (mut approved, mut current) = (handle.approved.subscribe(), handle.policy.subscribe());
    let shown = async {
        tokio::select! {
            shown = approved.wait_for(|digest| digest.as_deref() == Some(plan.digest.as_str())) => shown.is_ok(),
            // Then the plan is void, and nobody writes it any more.
            _ = current.wait_for(|now| now.metadata.generation != policy.metadata.generation) => false,
        }
    };
    match cancel.run_until_cancelled(tokio::time::timeout(WRITTEN, shown)).await {
        Some(Ok(true)) => Ok(()),
        Some(Err(_)) => {
            let message = "its approval could not be written to the status yet, so nothing is deleted: see the log";
            Err(Told::unasked(format!("plan {} is still there: {message}", plan.digest)))
        }
        Some(Ok(false)) | None => Err(Told::refused(&PruneError::Cancelled)),
    }
}

/// The policy as the API server has it: an operator that is cut off from it must not go on for long.
pub(super) struct StillWanted<'a> {
    pub(super) context: &'a Context,
    pub(super) handle: &'a Handle,
    pub(super) policy: &'a StateEpochPolicy,
}

#[async_trait]
impl Permission for StillWanted<'_> {
    async fn ask(&self) -> Result<(), Stop> {
        let not = |message: &str| Err(Stop::NotPermitted { message: message.to_owned() });
        if !self.handle.may_run() {
            self.handle.owed.denied();
            let message = "the store cannot be used any more: see the condition StoreReady".to_owned();
            return Err(Stop::CannotAsk { message });
        }
        let now = match self.handle.read_again(self.context).await {
            Ok(Some(now)) => now,
            Ok(None) => return not("the policy was deleted"),
            Err(error) => {
                let message = format!("the API server could not be asked whether the prune is still wanted: {error}");
                return Err(Stop::CannotAsk { message });
            }
        };
        if now.uid() != self.policy.uid() {
            return not("the policy was deleted and created again");
        }
        if now.metadata.generation != self.policy.metadata.generation {
            return not("the policy has changed: what is left is planned by its new rules");
        }
        if now.spec.suspend || now.spec.prune.suspend {
            return not("prune was suspended");
        }
        Ok(())
    }
}
