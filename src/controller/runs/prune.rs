//! One prune of a policy, from its settings to what was observed.

use std::sync::Arc;

use async_trait::async_trait;
use epochwarden_core::duration::format_duration;
use epochwarden_core::plan::{KeepReason, PlanSummary};
use epochwarden_store::ErrorClass;
use epochwarden_store::prune::{
    Approval, Identity, Permission, PruneError, PruneOutcome, PruneProgress, PruneReport, PruneRules, Stop,
};
use jiff::Timestamp;
use kube::{Api, ResourceExt};
use tokio_util::sync::CancellationToken;

use super::{Ended, store_failed};
use crate::api::condition::PruneHealthy;
use crate::api::status::{EpochsStatus, Phase, PlanStatus, RunKind};
use crate::api::{StateEpochPolicy, validate};
use crate::controller::answer::answer;
use crate::controller::context::Context;
use crate::controller::notices::Reason;
use crate::controller::observed::Said;
use crate::controller::registry::Handle;

/// How a prune ended, in every form in which it is told.
struct Told {
    phase: Phase,
    said: Option<Said<PruneHealthy>>,
    notice: Option<Reason>,
    message: String,
    /// Why nothing may be deleted, in one word.
    held: Option<&'static str>,
}

/// Runs one prune. Whatever comes of it is observed.
pub(super) async fn run(context: &Arc<Context>, handle: &Arc<Handle>, cancel: &CancellationToken) {
    let started = context.clock.now();
    handle.observed.send_if_modified(|observed| observed.begins(RunKind::Prune, Phase::Running, started));
    let outcome = attempt(context, handle, cancel).await;
    let finished = context.clock.now();
    let (mut told, report) = match outcome {
        Ok(report) => {
            if let PruneOutcome::Stopped { stop: Stop::Store { class, .. } } = &report.outcome {
                store_failed(handle, *class);
            }
            (tell(&report), Some(report))
        }
        Err(told) => (told, None),
    };
    if told.phase == Phase::Stopped && handle.cancel.is_cancelled() {
        told = Told { phase: Phase::Pending, said: None, notice: None, message: super::INTERRUPTED.into(), held: None };
    }
    conclude(context, handle, told, report.as_ref(), (started, finished));
}

async fn attempt(
    context: &Arc<Context>,
    handle: &Arc<Handle>,
    cancel: &CancellationToken,
) -> Result<PruneReport, Told> {
    let policy = handle.current();
    let settings = validate::prune_settings(&policy.spec).map_err(|error| failure(error.to_string()))?;
    let Some(stores) = cancel.run_until_cancelled(super::stores(context, handle)).await else {
        return Err(refused(handle, &PruneError::Cancelled));
    };
    let stores = stores.map_err(failure)?;
    let seen = handle.observed.borrow().seen;
    let identity = Identity {
        policy: Some(handle.owner_record(context)),
        ignore_owner: false,
        publisher: context.publisher.clone(),
        seen,
    };
    let rules = PruneRules {
        plan: settings.rules,
        dry_run: settings.dry_run,
        max_objects: settings.max_objects,
        deadline: settings.deadline,
    };
    let permission = StillWanted { context, policy: &policy };
    let progress = |progress| {
        if let PruneProgress::Deleting { done, total } = progress {
            handle.observed.send_if_modified(|observed| {
                if observed.prune.progress.is_none() {
                    observed.prune.message = Some("objects are being deleted".into());
                    let note = format!("deleting {total} objects that retention does not keep");
                    context.notices.send(&handle.reference, Reason::PruneStarted, note);
                }
                observed.progressed(done, total);
                // The status task writes progress now and then; it need not be woken a thousand times a second for it.
                done % 1000 == 1 || done == total
            });
        }
    };
    let pruned = epochwarden_store::prune::run(
        &stores.runs,
        &rules,
        &identity,
        Approval::Automatic,
        &permission,
        &context.clock,
        cancel,
        &progress,
    );
    pruned.await.map_err(|error| refused(handle, &error))
}

/// The policy as the API server has it: an operator that is cut off from it must not go on for long.
struct StillWanted<'a> {
    context: &'a Context,
    policy: &'a StateEpochPolicy,
}

#[async_trait]
impl Permission for StillWanted<'_> {
    async fn ask(&self) -> Result<(), Stop> {
        let not = |message: &str| Err(Stop::NotPermitted { message: message.to_owned() });
        let namespace = self.policy.namespace().unwrap_or_default();
        let api = Api::<StateEpochPolicy>::namespaced(self.context.client.clone(), &namespace);
        let now = match answer(api.get_opt(&self.policy.name_any())).await {
            Ok(Some(now)) => now,
            Ok(None) => return not("the policy was deleted"),
            Err(error) => return not(&format!("the policy could not be read again: {error}")),
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

fn failure(message: String) -> Told {
    let said = Some(Said::new(PruneHealthy::Failed, message.clone()));
    Told { phase: Phase::Failed, said, notice: Some(Reason::PruneFailed), message, held: None }
}

fn held(why: &'static str, message: String) -> Told {
    let said = Some(Said::new(PruneHealthy::Held, message.clone()));
    Told { phase: Phase::Held, said, notice: Some(Reason::PruneHeld), message, held: Some(why) }
}

/// A prune that did not take place.
fn refused(handle: &Handle, error: &PruneError) -> Told {
    if let Some(class) = error.class() {
        store_failed(handle, class);
    }
    match error {
        // What an earlier prune said still stands.
        PruneError::Cancelled => {
            Told { phase: Phase::Stopped, said: None, notice: None, message: error.to_string(), held: None }
        }
        error if error.is_refusal() => held(error.class().map_or("NotApproved", ErrorClass::as_str), error.to_string()),
        error => failure(error.to_string()),
    }
}

fn none_complete(plan: &PlanSummary) -> bool {
    plan.keep.iter().any(|range| range.reason == KeepReason::NoneComplete)
}

/// A prune that made a plan.
fn tell(report: &PruneReport) -> Told {
    let PruneReport { epochs, objects, failed, plan, .. } = report;
    let done = format!("deleted {epochs} epochs with {objects} objects");
    let told = |phase, reason, notice, message: String| Told {
        phase,
        said: Some(Said::new(reason, message.clone())),
        notice,
        message,
        held: None,
    };
    match &report.outcome {
        // Nothing to restore from is nobody's success, whatever retention says. A pipeline that has sealed nothing yet is not meant.
        PruneOutcome::Succeeded if report.found.sealed > 0 && none_complete(plan) => {
            let message = format!(
                "none of the {} sealed epochs is complete, so nothing is deleted: see the audit, and check spec.vnodes",
                report.found.sealed
            );
            held(KeepReason::NoneComplete.as_str(), message)
        }
        PruneOutcome::Succeeded if *objects == 0 => {
            told(Phase::Succeeded, PruneHealthy::Succeeded, None, "retention keeps everything that is there".into())
        }
        PruneOutcome::Succeeded => told(Phase::Succeeded, PruneHealthy::Succeeded, Some(Reason::PruneCompleted), done),
        PruneOutcome::KeepsEverything => {
            let message = "retention has no keepLast, keepWithin or keepEvery: everything is kept".into();
            told(Phase::Succeeded, PruneHealthy::KeepsEverything, None, message)
        }
        PruneOutcome::DryRun => {
            let message = format!(
                "would delete {} epochs with {} objects (spec.prune.dryRun)",
                plan.totals.epochs, plan.totals.objects
            );
            told(Phase::Succeeded, PruneHealthy::DryRun, Some(Reason::PrunePlanned), message)
        }
        PruneOutcome::Held { reason, message } => held(reason, message.clone()),
        PruneOutcome::PartlyFailed => {
            let first = report
                .errors
                .first()
                .map(|first| format!("; first {}: {}", first.key, first.error))
                .unwrap_or_default();
            let message = format!("{done}, and could not delete {failed}{first}; the next run tries again");
            told(Phase::PartlyFailed, PruneHealthy::PartlyFailed, Some(Reason::PruneFailed), message)
        }
        PruneOutcome::Stopped { stop } => {
            let message = format!(
                "{done} and stopped, because {stop}; {} epochs are left for the next run",
                report.remainder.epochs
            );
            let (reason, notice) = match stop {
                Stop::OwnerChanged | Stop::Held { .. } => (PruneHealthy::Held, Reason::PruneHeld),
                Stop::Store { .. } => (PruneHealthy::Failed, Reason::PruneFailed),
                _ if *failed > 0 => (PruneHealthy::PartlyFailed, Reason::PruneFailed),
                _ => (PruneHealthy::Succeeded, Reason::PruneCompleted),
            };
            let held = match stop {
                Stop::OwnerChanged => Some(ErrorClass::RootConflict.as_str()),
                Stop::Held { hold, .. } => Some(*hold),
                _ => None,
            };
            Told { held, ..told(Phase::Stopped, reason, Some(notice), message) }
        }
    }
}

fn conclude(
    context: &Context,
    handle: &Handle,
    told: Told,
    report: Option<&PruneReport>,
    (started, finished): (Timestamp, Timestamp),
) {
    let Told { phase, said, notice, message, held } = told;
    let ended = Ended { kind: RunKind::Prune, started, finished, phase, message: message.clone() };
    let mut transition = true;
    handle.observed.send_modify(|observed| {
        let prune = &mut observed.prune;
        prune.phase = Some(phase);
        prune.finished_at = Some(finished);
        prune.message = Some(message.clone());
        prune.progress = None;
        if let Some(report) = report {
            prune.epochs = Some(report.epochs.into());
            prune.objects = Some(report.objects.into());
            prune.bytes = Some(report.bytes.into());
            prune.failed = Some(report.failed.into());
            prune.requests = Some(report.requests.total().into());
            prune.floor = report.floor.or(prune.floor);
            let committer =
                observed.epochs.take().filter(|known| known.latest_committed == report.found.latest_committed);
            observed.plan = Some(PlanStatus::from(&report.plan));
            observed.epochs = Some(EpochsStatus {
                latest_committer: committer.and_then(|known| known.latest_committer),
                ..EpochsStatus::from(&report.found)
            });
            observed.seen.floor = observed.seen.floor.max(report.floor.unwrap_or_default());
        }
        if let Some(said) = said {
            // The same trouble again is in the status and in the history, not in an Event a quarter of an hour.
            transition = observed.pruned.as_ref().is_none_or(|before| before.reason != said.reason)
                || said.reason == PruneHealthy::Succeeded;
            observed.pruned = Some(said);
        }
        observed.ended(ended.past());
    });
    super::show(context, handle, &handle.observed.borrow());
    count(context, handle, phase, held, report);
    match notice {
        Some(notice) if transition => context.notices.send(&handle.reference, notice, message),
        _ => {
            let took = format_duration((finished.duration_since(started)).try_into().unwrap_or_default());
            let (namespace, policy) = (&handle.name.namespace, &handle.name.name);
            tracing::info!(namespace, policy, phase = phase.as_str(), took, "the prune ended: {message}");
        }
    }
}

fn count(context: &Context, handle: &Handle, phase: Phase, held: Option<&'static str>, report: Option<&PruneReport>) {
    let metrics = &context.metrics;
    metrics.prune_runs.of(&handle.name, &[phase.as_str()]).inc();
    metrics.prune_held.forget(&handle.name);
    if let Some(held) = held {
        metrics.prune_held.of(&handle.name, &[held]).set(1.0);
    }
    let Some(report) = report else { return };
    metrics.prune_deleted_objects.of(&handle.name, &[]).inc_by(report.objects);
    metrics.prune_deleted_bytes.of(&handle.name, &[]).inc_by(report.bytes);
    if let Ok(took) = std::time::Duration::try_from(report.finished_at.duration_since(report.started_at)) {
        metrics.prune_duration_seconds.observe(took.as_secs_f64());
    }
}
