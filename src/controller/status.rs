//! The status of a policy: a pure function of the policy and of what was observed, and its only author.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::observed::{Observed, Said};
use crate::api::condition::{AuditClean, FenceCurrent, Observation, PruneHealthy, Ready};
use crate::api::status::{AuditStatus, Phase, PruneStatus, RunKind, StoreStatus};
use crate::api::validate;
use crate::api::{RUN_ANNOTATION, StateEpochPolicy, StateEpochPolicyStatus};

/// Computes the whole status. `previous` gives the times of conditions that stay as they are.
#[must_use]
pub(crate) fn status(
    policy: &StateEpochPolicy,
    observed: &Observed,
    previous: &[Condition],
    now: Timestamp,
) -> StateEpochPolicyStatus {
    let generation = policy.metadata.generation.unwrap_or_default();
    let at = Observation { generation, previous, now };
    let lost = observed.lost.is_some() || observed.fence.reason == FenceCurrent::RegisterLost;
    let ready = Ready::of(observed.store.reason, lost);
    let ready_message = match (&observed.lost, ready) {
        (Some(lost), Ready::RegisterLost) => lost.to_string(),
        (None, Ready::RegisterLost) => observed.fence.message.clone(),
        _ => observed.store.message.clone(),
    };
    let pruned = prune_healthy(policy, observed);
    let audited = audit_clean(policy, observed);
    let mut conditions = vec![
        at.condition(ready, ready_message.clone()),
        at.condition(observed.store.reason, observed.store.message.clone()),
        at.condition(observed.fence.reason, observed.fence.message.clone()),
        at.condition(pruned.reason, pruned.message),
        at.condition(audited.reason, audited.message),
    ];
    conditions.extend(ready.stalled().map(|reason| at.condition(reason, ready_message.clone())));
    conditions.extend(ready.reconciling().map(|reason| at.condition(reason, ready_message)));
    StateEpochPolicyStatus {
        observed_generation: Some(generation),
        conditions,
        store: Some(StoreStatus {
            provider: observed.provider.clone(),
            capabilities: observed.capabilities.map(|(capabilities, _)| capabilities),
            probed_at: observed.capabilities.map(|(_, at)| at),
        })
        .filter(|store| *store != StoreStatus::default()),
        fence: observed.published.clone(),
        epochs: observed.epochs.clone(),
        plan: observed.plan_to_show(policy).cloned(),
        prune: Some(observed.prune.clone()).filter(|prune| *prune != PruneStatus::default()),
        audit: Some(observed.audit.clone()).filter(|audit| *audit != AuditStatus::default()),
        history: observed.history.clone(),
        last_run_request: observed.last_run_request.clone(),
        last_take_over: observed.last_take_over.clone(),
    }
}

fn prune_healthy(policy: &StateEpochPolicy, observed: &Observed) -> Said<PruneHealthy> {
    let schedule = policy.spec.prune.schedule.as_deref();
    if let Err(error) = validate::prune_schedule(policy) {
        return Said::new(PruneHealthy::InvalidSchedule, format!("spec.prune: {error}"));
    }
    if policy.spec.suspend {
        return Said::new(PruneHealthy::Suspended, "the policy is suspended (spec.suspend): nothing is pruned");
    }
    if policy.spec.prune.suspend {
        return Said::new(PruneHealthy::Suspended, "prune is suspended (spec.prune.suspend)");
    }
    if matches!(observed.prune.phase, Some(Phase::Running | Phase::Pending)) && !observed.is_owed() {
        return Said::new(
            PruneHealthy::Running,
            observed.prune.message.clone().unwrap_or_else(|| "a prune is under way".into()),
        );
    }
    match (observed.waiting_said(policy).or_else(|| observed.pruned.clone()), schedule) {
        (Some(said), _) => said,
        (None, None) => {
            let message = "spec.prune.schedule is not set: nothing is pruned until somebody asks for it";
            Said::new(PruneHealthy::NotScheduled, format!("{message} ({RUN_ANNOTATION}: prune)"))
        }
        (None, Some(_)) if observed.history.iter().any(|run| run.kind == RunKind::Prune) => {
            Said::new(PruneHealthy::Pending, "the next prune is yet to come (status.prune.nextRunAt)")
        }
        (None, Some(_)) => Said::new(PruneHealthy::Pending, "the first prune is yet to come"),
    }
}

fn audit_clean(policy: &StateEpochPolicy, observed: &Observed) -> Said<AuditClean> {
    let schedule = policy.spec.audit.schedule.as_deref();
    if let Err(error) = validate::audit_schedule(policy) {
        return Said::new(AuditClean::InvalidSchedule, format!("spec.audit: {error}"));
    }
    if policy.spec.suspend {
        return Said::new(AuditClean::Suspended, "the policy is suspended (spec.suspend): nothing is audited");
    }
    if policy.spec.audit.suspend {
        return Said::new(AuditClean::Suspended, "the audit is suspended (spec.audit.suspend)");
    }
    match (observed.audit_said(), schedule) {
        (Some(said), _) => said,
        (None, None) => Said::new(AuditClean::NotScheduled, "spec.audit.schedule is not set: nothing is audited"),
        (None, Some(_)) => Said::new(AuditClean::Pending, "the first audit is yet to come"),
    }
}

/// Whether two statuses differ in more than times: only then is it worth a write.
#[must_use]
pub(crate) fn differs(one: &StateEpochPolicyStatus, other: &StateEpochPolicyStatus) -> bool {
    without_times(one) != without_times(other)
}

fn without_times(status: &StateEpochPolicyStatus) -> StateEpochPolicyStatus {
    let mut status = status.clone();
    for condition in &mut status.conditions {
        condition.last_transition_time.0 = Timestamp::UNIX_EPOCH;
    }
    if let Some(store) = &mut status.store {
        store.probed_at = None;
    }
    if let Some(epochs) = &mut status.epochs {
        epochs.observed_at = None;
    }
    if let Some(plan) = &mut status.plan {
        plan.computed_at = None;
    }
    if let Some(prune) = &mut status.prune {
        (prune.started_at, prune.finished_at) = (None, None);
    }
    if let Some(audit) = &mut status.audit {
        (audit.started_at, audit.finished_at) = (None, None);
    }
    for run in &mut status.history {
        (run.started_at, run.finished_at) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
    }
    status
}

#[cfg(test)]
mod tests;
