//! One audit of a policy, from its settings to what was observed.

use std::sync::Arc;

use epochwarden_core::finding::Verdict;
use epochwarden_store::audit::{AuditError, AuditReport, AuditRules};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{Ended, store_failed};
use crate::api::condition::{AuditClean, Reason as _};
use crate::api::status::{AuditStatus, EpochsStatus, FindingStatus, Phase, RunKind};
use crate::api::validate;
use crate::controller::context::Context;
use crate::controller::notices::Reason;
use crate::controller::observed::{Said, told_by_audit};
use crate::controller::registry::Handle;
use crate::controller::supervise::FAULT;

/// Runs one audit, when its turn has come. Whatever comes of it is observed; nothing is written to the store.
pub(super) async fn run(context: &Arc<Context>, handle: &Arc<Handle>, cancel: &CancellationToken) {
    let turn = super::permit(context, RunKind::Audit, cancel).await;
    if turn.is_none() && handle.cancel.is_cancelled() {
        // The status says that it waits for its turn: the next operator owes it.
        return;
    }
    let started = context.clock.now();
    handle.observed.send_if_modified(|observed| observed.begins(RunKind::Audit, Phase::Running, started));
    let outcome = attempt(context, handle, cancel).await;
    let finished = context.clock.now();
    match outcome {
        Ok(report) => succeeded(context, handle, &report, started, finished),
        Err(failure) => failed(context, handle, failure, started, finished),
    }
}

/// Why an audit says nothing.
struct Failure {
    phase: Phase,
    message: String,
}

async fn attempt(
    context: &Arc<Context>,
    handle: &Arc<Handle>,
    cancel: &CancellationToken,
) -> Result<AuditReport, Failure> {
    let policy = handle.current();
    let invalid = |error: validate::Invalid| Failure { phase: Phase::Failed, message: error.to_string() };
    let settings = validate::audit_settings(&policy.spec).map_err(invalid)?;
    let begun = context.monotonic.now();
    let late = || failure(handle, &AuditError::DeadlineExceeded { deadline: settings.deadline });
    let opened = tokio::time::timeout(settings.deadline, super::stores(context, handle));
    let opened = cancel.run_until_cancelled(opened).await.ok_or_else(|| failure(handle, &AuditError::Cancelled))?;
    let stores = opened.map_err(|_| late())?.map_err(|message| Failure { phase: Phase::Failed, message })?;
    // What it took to open the store is part of the audit.
    let deadline = settings.deadline.saturating_sub(context.monotonic.now().saturating_sub(begun));
    let rules = AuditRules { plan: settings.rules, stalled_after: settings.stalled_after, deadline: Some(deadline) };
    let audited = epochwarden_store::audit::run(&stores.runs, &rules, context.clock.as_ref(), cancel, &|_| {}).await;
    audited.map_err(|error| match error {
        AuditError::DeadlineExceeded { .. } => late(),
        error => failure(handle, &error),
    })
}

fn failure(handle: &Handle, error: &AuditError) -> Failure {
    if let Some(class) = error.class() {
        store_failed(handle, class);
    }
    match error {
        AuditError::Cancelled if handle.cancel.is_cancelled() => {
            Failure { phase: Phase::Pending, message: super::INTERRUPTED.into() }
        }
        AuditError::Cancelled => Failure { phase: Phase::Stopped, message: error.to_string() },
        error => Failure { phase: Phase::Failed, message: error.to_string() },
    }
}

fn succeeded(context: &Context, handle: &Handle, report: &AuditReport, started: Timestamp, finished: Timestamp) {
    let audit = &report.audit;
    let status = AuditStatus {
        phase: Some(Phase::Succeeded),
        started_at: Some(started),
        finished_at: Some(finished),
        verdict: Some(audit.verdict.as_str().to_owned()),
        coverage: Some(audit.coverage.to_string()),
        counts: audit.counts.iter().map(|(kind, count)| (kind.as_str().to_owned(), (*count).into())).collect(),
        findings: audit.findings.iter().map(FindingStatus::from).collect(),
        next_run_at: None,
    };
    let Some(said) = told_by_audit(&status) else { return };
    let ended =
        Ended { kind: RunKind::Audit, started, finished, phase: Phase::Succeeded, message: said.message.clone() };
    let mut before = None;
    handle.observed.send_modify(|observed| {
        before = observed.audit_said();
        observed.audited = Some(said.clone());
        observed.audit = AuditStatus { next_run_at: observed.audit.next_run_at, ..status };
        observed.stalled = observed.stalled_by_audit();
        observed.epochs = Some(EpochsStatus {
            latest_committer: audit.latest_committer.clone(),
            ..EpochsStatus::from(&report.epochs)
        });
        observed.ended(ended.past());
    });
    super::show(context, handle, &handle.observed.borrow());
    context.metrics.audit_runs.of(&handle.name, &[audit.verdict.as_str()]).inc();
    // Once per transition: a finding that stays is in the status, not in an Event an hour.
    let changed = before.is_none_or(|before| {
        before.reason != said.reason || (said.reason == AuditClean::Findings && before.message != said.message)
    });
    let Said { reason, message, .. } = said;
    if changed {
        let notice = if audit.verdict == Verdict::Clean { Reason::AuditClean } else { Reason::AuditFinding };
        context.notices.send_for(&handle.reference, notice, reason.as_str(), message);
    } else {
        let (namespace, policy) = (&handle.name.namespace, &handle.name.name);
        tracing::info!(namespace, policy, reason = reason.as_str(), "the audit found the same as before: {message}");
    }
}

fn failed(context: &Context, handle: &Handle, failure: Failure, started: Timestamp, finished: Timestamp) {
    let Failure { phase, message } = failure;
    let ended = Ended { kind: RunKind::Audit, started, finished, phase, message: message.clone() };
    let (namespace, policy) = (&handle.name.namespace, &handle.name.name);
    let reason = if phase == Phase::Failed { AuditClean::Failed.as_str() } else { phase.as_str() };
    tracing::warn!(namespace, policy, reason, "the audit ended without a result: {message}");
    handle.observed.send_modify(|observed| {
        observed.audit.phase = Some(phase);
        observed.audit.finished_at = Some(finished);
        // What was found before an audit was stopped still stands; one that failed may hide anything.
        if phase == Phase::Failed {
            observed.audited = Some(Said::new(AuditClean::Failed, message));
        }
        observed.ended(ended.past());
    });
    context.metrics.audit_runs.of(&handle.name, &[phase.as_str()]).inc();
}

/// The task of an audit has panicked.
pub(super) fn fell(context: &Context, handle: &Handle) {
    let finished = context.clock.now();
    let started = handle.observed.borrow().audit.started_at.unwrap_or(finished);
    failed(context, handle, Failure { phase: Phase::Failed, message: FAULT.into() }, started, finished);
}
