//! One prune of a policy, from its settings to what was observed.

mod permission;
mod told;

use std::sync::Arc;

use epochwarden_core::approval::Gate;
use epochwarden_core::duration::format_duration;
use epochwarden_core::{Epoch, ShownEpoch};
use epochwarden_store::ErrorClass;
use epochwarden_store::prune::{
    Approval, ApprovedState, Identity, PruneError, PruneOutcome, PruneProgress, PruneReport, PruneRules, Stop,
};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use self::permission::StillWanted;
use self::told::Told;
use super::Ended;
use crate::api::condition::{PruneHealthy, Reason as _, StoreReady};
use crate::api::spec::Approval as Approves;
use crate::api::status::{EpochsStatus, Phase, PlanStatus, RunKind};
use crate::api::{StateEpochPolicy, validate};
use crate::controller::context::Context;
use crate::controller::notices::Reason;
use crate::controller::observed::{Observed, frozen};
use crate::controller::registry::Handle;
use crate::controller::schedules::After;
use crate::controller::stores::{self, NotReady, Stores, Writing};
use crate::controller::supervise::FAULT;

/// Runs one prune, when it may begin and its turn has come. Whatever comes of it is observed.
pub(super) async fn run(context: &Arc<Context>, handle: &Arc<Handle>, cancel: &CancellationToken) -> After {
    let asked = context.clock.now();
    let owed = handle.observed.borrow().is_owed();
    let (policy, plan, permit) = loop {
        let policy = handle.current();
        let plan = handle.observed.borrow().open_plan(&policy).cloned();
        let permission = StillWanted { context, handle, policy: &policy };
        let ready = permission::ready(&permission, plan.as_ref(), owed, cancel).await;
        let permit = match &ready {
            Ok(()) => super::permit(context, RunKind::Prune, cancel).await,
            Err(_) => None,
        };
        let Some(permit) = permit else {
            // Then what the status says of it stands: that it waits for its turn, or is owed.
            if owed || handle.cancel.is_cancelled() {
                return After::Unasked;
            }
            let told = ready.err().unwrap_or_else(|| Told::refused(&PruneError::Cancelled));
            return conclude(context, handle, &policy, told, None, (asked, context.clock.now()));
        };
        // Its turn may have been long in coming.
        let unchanged = handle.current().metadata.generation == policy.metadata.generation;
        if unchanged && handle.observed.borrow().open_plan(&policy) == plan.as_ref() {
            break (policy, plan, permit);
        }
    };
    let permission = StillWanted { context, handle, policy: &policy };
    let started = context.clock.now();
    handle.observed.send_if_modified(|observed| {
        // One that only looks whether a waiting plan still may was not begun in the eyes of the status.
        observed.prune.phase == Some(Phase::Pending) && observed.begins(RunKind::Prune, Phase::Running, started)
    });
    let outcome = attempt(&permission, plan.as_ref(), cancel).await;
    drop(permit);
    let finished = context.clock.now();
    let (mut told, report) = match outcome {
        Ok(report) => {
            doubt(handle, &report.outcome);
            (Told::of(&handle.name, &report, handle.observed.borrow().plan.as_ref()), Some(report))
        }
        Err(told) => (told, None),
    };
    if told.phase == Phase::Stopped && handle.cancel.is_cancelled() {
        told = Told::interrupted();
    }
    conclude(context, handle, &policy, told, report.as_ref(), (started, finished))
}

/// Has looked at again what the end of a run leaves in doubt.
fn doubt(handle: &Handle, outcome: &PruneOutcome) {
    match outcome {
        PruneOutcome::Stopped { stop: Stop::Store { class, .. } } => store_failed(handle, *class),
        PruneOutcome::Stopped { stop: Stop::OwnerChanged } => store_failed(handle, ErrorClass::RootConflict),
        // What could not be deleted may have failed for the credentials: then others are tried as soon as there are any.
        PruneOutcome::PartlyFailed => store_failed(handle, ErrorClass::AccessDenied),
        PruneOutcome::Held { reason, .. } if *reason == ErrorClass::UnknownLayout.as_str() => {
            store_failed(handle, ErrorClass::UnknownLayout);
        }
        _ => {}
    }
}

/// `plan` is the one that is open; where it is approved, that is written down.
async fn attempt(
    permission: &StillWanted<'_>,
    plan: Option<&PlanStatus>,
    cancel: &CancellationToken,
) -> Result<PruneReport, Told> {
    let StillWanted { context, handle, policy } = permission;
    let settings = validate::prune_settings(&policy.spec).map_err(|error| Told::failure(error.to_string()))?;
    let begun = context.monotonic.now();
    let late = || Told::refused(&PruneError::DeadlineExceeded { deadline: settings.deadline });
    let opened = tokio::time::timeout(settings.deadline, clients(context, handle, settings.dry_run));
    let opened = cancel.run_until_cancelled(opened).await.ok_or_else(|| Told::refused(&PruneError::Cancelled))?;
    let (stores, _writing) = opened.map_err(|_| late())??;
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
        max_keys_per_second: Some(settings.max_keys_per_second),
        // What it took to open the store is part of the prune.
        deadline: settings.deadline.saturating_sub(context.monotonic.now().saturating_sub(begun)),
    };
    let gate = Gate {
        manual: settings.approval == Approves::Manual,
        hold_above: Some(settings.hold_above),
        approved: plan.is_some_and(|plan| plan.approved_at.is_some()),
        frozen: plan.map(frozen),
    };
    let share = context.metrics.store_keys_per_second_limit.share(stores.runs.bucket(), handle.name.clone());
    let progress = |progress| {
        if let PruneProgress::Deleting { done, total, keys_per_second } = progress {
            if let Some(keys_per_second) = keys_per_second {
                share.set(keys_per_second);
            }
            handle.observed.send_if_modified(|observed| {
                if observed.prune.progress.is_none() {
                    observed.prune.phase = Some(Phase::Running);
                    observed.prune.message = Some("objects are being deleted".into());
                    let note = format!("deleting {total} objects that retention does not keep");
                    let running = PruneHealthy::Running.as_str();
                    context.notices.send_for(&handle.reference, Reason::PruneStarted, running, note);
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
        Approval::Gate(gate),
        permission,
        &context.clock,
        cancel,
        &progress,
    );
    pruned.await.map_err(|error| {
        if let Some(class) = error.class() {
            store_failed(handle, class);
        }
        match error {
            PruneError::DeadlineExceeded { .. } => late(),
            error => Told::refused(&error),
        }
    })
}

/// The clients of a prune; of one that deletes, those of a root that is claimed and was probed.
async fn clients(context: &Context, handle: &Handle, dry_run: bool) -> Result<(Stores, Option<Writing>), Told> {
    let told = |NotReady { reason, message }| match reason {
        Some(reason @ (StoreReady::RootConflict | StoreReady::UnsafeStore)) => Told::held(reason.as_str(), message),
        _ => Told::failure(message),
    };
    let stores = stores::current(context, handle).await.map_err(told)?;
    if dry_run {
        return Ok((stores, None));
    }
    let (stores, writing) = stores::for_writing(handle, stores).await.map_err(told)?;
    Ok((stores, Some(writing)))
}

/// As for every run; and one that was turned away for its credentials is owed as soon as there are others.
fn store_failed(handle: &Handle, class: ErrorClass) {
    if class == ErrorClass::AccessDenied {
        handle.owed.denied();
    }
    super::store_failed(handle, class);
}

/// The task of a prune has panicked.
pub(super) fn fell(context: &Context, handle: &Handle) -> After {
    let finished = context.clock.now();
    let started = handle.observed.borrow().prune.started_at.unwrap_or(finished);
    conclude(context, handle, &handle.current(), Told::failure(FAULT.into()), None, (started, finished))
}

/// What the status shows of the epochs and the plan by what a run has found.
fn observe(observed: &mut Observed, policy: &StateEpochPolicy, phase: Phase, report: &PruneReport) {
    let committer = observed.epochs.take().filter(|known| known.latest_committed == report.found.latest_committed);
    observed.epochs = Some(EpochsStatus {
        latest_committer: committer.and_then(|known| known.latest_committer),
        ..EpochsStatus::from(&report.found)
    });
    observed.seen.floor = observed.seen.floor.max(report.floor.map_or(Epoch::ZERO, ShownEpoch::epoch));
    if report.frozen_stands {
        return;
    }
    observed.open_for = None;
    if report.approved != Some(ApprovedState::Finished) {
        // With one of these phases, a plan in the status would pass for one that is open.
        let passes = matches!(phase, Phase::Held | Phase::Failed | Phase::Pending);
        observed.plan = Some(PlanStatus::from(&report.plan)).filter(|_| !passes);
    }
    if phase == Phase::AwaitingApproval {
        observed.open_for = policy.metadata.generation;
    }
}

/// A run that found the plan of before still waiting: nothing has happened that anybody has to hear of.
fn goes_on_waiting(observed: &mut Observed, told: &Told, finished: Timestamp) {
    let prune = &mut observed.prune;
    if prune.phase.replace(told.phase) != Some(told.phase) {
        (prune.finished_at, prune.message) = (Some(finished), Some(told.message.clone()));
    }
    if observed.pruned.as_ref().map(|before| before.reason) != told.said.as_ref().map(|said| said.reason) {
        observed.pruned.clone_from(&told.said);
    }
}

fn conclude(
    context: &Context,
    handle: &Handle,
    policy: &StateEpochPolicy,
    mut told: Told,
    report: Option<&PruneReport>,
    (started, finished): (Timestamp, Timestamp),
) -> After {
    let after = told.goes_on(&handle.current(), report, &handle.observed.borrow());
    // In the eyes of the status, one that is owed has not come to its end.
    let phase = if told.owed { Phase::Pending } else { told.phase };
    let waits = told.phase == Phase::AwaitingApproval;
    let goes_on = waits && report.is_some_and(|report| report.frozen_stands);
    let mut transition = !goes_on;
    handle.observed.send_modify(|observed| {
        if let Some(report) = report {
            told.or_falling_behind(report, &mut observed.backlog);
            observe(observed, policy, phase, report);
        }
        if goes_on {
            goes_on_waiting(observed, &told, finished);
            return;
        }
        let running = matches!(observed.prune.phase, Some(Phase::Running | Phase::Pending));
        if told.phase == Phase::Pending && !running {
            // It was only about to look at the plan that waits, which the next operator does as well.
            transition = false;
            return;
        }
        // Also that of an earlier run, which may have ended before it could tell of it.
        let floor = Some(observed.seen.floor).filter(|floor| *floor > Epoch::default());
        let prune = &mut observed.prune;
        prune.phase = Some(phase);
        let interrupted = told.phase == Phase::Pending;
        (prune.started_at, prune.finished_at) = (Some(started), Some(finished).filter(|_| !interrupted));
        prune.message = Some(told.message.clone());
        prune.progress = None;
        if let Some(report) = report {
            prune.epochs = Some(report.epochs.into());
            prune.objects = Some(report.objects.into());
            prune.bytes = Some(report.bytes.into());
            prune.failed = Some(report.failed.into());
            prune.requests = Some(report.requests.total().into());
            prune.floor = floor.map(|floor| policy.spec.numbering.show(floor)).or(prune.floor);
        }
        if let Some(said) = told.said.clone() {
            // The same trouble again is in the status and in the history, not in an Event a quarter of an hour.
            transition = waits
                || observed.pruned.as_ref().is_none_or(|before| before.reason != said.reason)
                || said.reason == PruneHealthy::Succeeded;
            observed.pruned = Some(said);
        }
        let (phase, message) = (told.phase, told.message.clone());
        observed.ended(Ended { kind: RunKind::Prune, started, finished, phase, message }.past());
    });
    let Told { phase, said, notice, message, held, .. } = told;
    // Of one that was interrupted the condition says nothing: there the phase is all that there is to give.
    let reason = said.map_or(phase.as_str(), |said| said.reason.as_str());
    super::show(context, handle, &handle.observed.borrow());
    count(context, handle, phase, held, report);
    match notice {
        Some(notice) if transition => context.notices.send_for(&handle.reference, notice, reason, message),
        _ => {
            let took = format_duration((finished.duration_since(started)).try_into().unwrap_or_default());
            let (namespace, policy) = (&handle.name.namespace, &handle.name.name);
            tracing::info!(namespace, policy, reason, phase = phase.as_str(), took, "the prune ended: {message}");
        }
    }
    after
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

#[cfg(test)]
mod tests;
