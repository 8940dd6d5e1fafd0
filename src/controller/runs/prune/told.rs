//! How a prune ended, in words: for the condition, the status, the history and the Events.

use epochwarden_core::plan::{KeepReason, PlanSummary};
use epochwarden_store::ErrorClass;
use epochwarden_store::prune::{PruneError, PruneOutcome, PruneReport, Stop};

use crate::api::condition::{PruneHealthy, Reason as _};
use crate::api::status::{Phase, PlanStatus};
use crate::api::{APPROVE_ANNOTATION, StateEpochPolicy};
use crate::controller::notices::Reason;
use crate::controller::observed::{Backlog, Observed, Said, ask_for_a_prune};
use crate::controller::runs::INTERRUPTED;
use crate::controller::schedules::After;
use crate::server::PolicyName;

/// How a prune ended, in every form in which it is told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) phase: Phase,
    /// `None`: what an earlier prune said still stands.
    pub(super) said: Option<Said<PruneHealthy>>,
    pub(super) notice: Option<Reason>,
    pub(super) message: String,
    /// Why nothing may be deleted, in one word.
    pub(super) held: Option<&'static str>,
    /// Whether it stopped for what nobody decided, and is to begin again when that has passed.
    pub(super) owed: bool,
}

impl Told {
    fn new(phase: Phase, reason: PruneHealthy, notice: Option<Reason>, message: String) -> Self {
        Self { phase, said: Some(Said::new(reason, message.clone())), notice, message, held: None, owed: false }
    }

    /// It could not do its work.
    pub(super) fn failure(message: String) -> Self {
        Self::new(Phase::Failed, PruneHealthy::Failed, Some(Reason::PruneFailed), message)
    }

    /// It did not begin, because the API server could not be asked, or not be told.
    pub(super) fn unasked(message: String) -> Self {
        let told = Self::new(Phase::Stopped, PruneHealthy::Failed, Some(Reason::PruneFailed), message);
        Self { owed: true, ..told }
    }

    /// It deleted nothing, because something is not as it should be.
    pub(super) fn held(why: &'static str, message: String) -> Self {
        Self { held: Some(why), ..Self::new(Phase::Held, PruneHealthy::Held, Some(Reason::PruneHeld), message) }
    }

    /// The operator ended in the middle of it.
    pub(super) fn interrupted() -> Self {
        Self { phase: Phase::Pending, said: None, notice: None, message: INTERRUPTED.into(), held: None, owed: false }
    }

    /// A prune that did not take place.
    pub(super) fn refused(error: &PruneError) -> Self {
        let message = error.to_string();
        match error {
            PruneError::Cancelled => {
                Self { phase: Phase::Stopped, said: None, notice: None, message, held: None, owed: false }
            }
            error if error.is_refusal() => Self::held(error.class().map_or("NotApproved", ErrorClass::as_str), message),
            _ => Self::failure(message),
        }
    }

    /// A prune whose plan waits for a person. `plan` is the one that does.
    fn waits(name: &PolicyName, reason: &str, why: &str, plan: &PlanStatus) -> Self {
        let PlanStatus { digest, epochs, objects, .. } = plan;
        let PolicyName { namespace, name } = name;
        let message = format!(
            "{why}. It deletes {} epochs with {} objects: read status.plan, then approve it with \
             `kubectl -n {namespace} annotate --overwrite sep {name} {APPROVE_ANNOTATION}={digest}`",
            epochs.get(),
            objects.get(),
        );
        let (reason, held) = if reason == PruneHealthy::MassDeletion.as_str() {
            (PruneHealthy::MassDeletion, Some(PruneHealthy::MassDeletion.as_str()))
        } else {
            (PruneHealthy::AwaitingApproval, None)
        };
        Self { held, ..Self::new(Phase::AwaitingApproval, reason, Some(Reason::PrunePlanned), message) }
    }

    /// A prune that made a plan. `standing` is the plan that was frozen before, where there is one.
    pub(super) fn of(name: &PolicyName, report: &PruneReport, standing: Option<&PlanStatus>) -> Self {
        let PruneReport { epochs, objects, failed, plan, .. } = report;
        let approved = if report.approved.is_some() { " of the plan that was approved" } else { "" };
        let done = format!("deleted {epochs} epochs with {objects} objects{approved}");
        match &report.outcome {
            // Nothing to restore from is nobody's success, whatever retention says. A pipeline that has sealed nothing yet is not meant.
            PruneOutcome::Succeeded if report.found.sealed > 0 && none_complete(plan) => {
                let message = format!(
                    "none of the {} sealed epochs is complete, so nothing is deleted: see the audit, and check spec.vnodes",
                    report.found.sealed
                );
                Self::held(KeepReason::NoneComplete.as_str(), message)
            }
            PruneOutcome::Succeeded if *objects == 0 => {
                let message = "retention keeps everything that is there".into();
                Self::new(Phase::Succeeded, PruneHealthy::Succeeded, None, message)
            }
            PruneOutcome::Succeeded => {
                Self::new(Phase::Succeeded, PruneHealthy::Succeeded, Some(Reason::PruneCompleted), done)
            }
            PruneOutcome::KeepsEverything => {
                let message = "retention has no keepLast, keepWithin or keepEvery: everything is kept".into();
                Self::new(Phase::Succeeded, PruneHealthy::KeepsEverything, None, message)
            }
            PruneOutcome::DryRun => {
                let message = format!(
                    "would delete {} epochs with {} objects (spec.prune.dryRun)",
                    plan.totals.epochs, plan.totals.objects
                );
                Self::new(Phase::Succeeded, PruneHealthy::DryRun, Some(Reason::PrunePlanned), message)
            }
            PruneOutcome::Held { reason, message } => Self::held(reason, message.clone()),
            PruneOutcome::AwaitingApproval { reason, message } => {
                let fresh = PlanStatus::from(plan);
                Self::waits(name, reason, message, standing.filter(|_| report.frozen_stands).unwrap_or(&fresh))
            }
            PruneOutcome::PartlyFailed => {
                let first = report
                    .errors
                    .first()
                    .map(|first| format!("; first {}: {}", first.key, first.error))
                    .unwrap_or_default();
                let message = format!("{done}, and could not delete {failed}{first}");
                Self::new(Phase::PartlyFailed, PruneHealthy::PartlyFailed, Some(Reason::PruneFailed), message)
            }
            PruneOutcome::Stopped { stop } => {
                let message =
                    format!("{done} and stopped, because {stop}; {} epochs are left", report.remainder.epochs);
                let (reason, notice) = match stop {
                    Stop::OwnerChanged | Stop::Held { .. } => (PruneHealthy::Held, Reason::PruneHeld),
                    Stop::Store { .. } | Stop::CannotAsk { .. } => (PruneHealthy::Failed, Reason::PruneFailed),
                    _ if *failed > 0 => (PruneHealthy::PartlyFailed, Reason::PruneFailed),
                    _ => (PruneHealthy::Succeeded, Reason::PruneCompleted),
                };
                let held = match stop {
                    Stop::OwnerChanged => Some(ErrorClass::RootConflict.as_str()),
                    Stop::Held { hold, .. } => Some(*hold),
                    _ => None,
                };
                let owed = stop.may_pass();
                Self { held, owed, ..Self::new(Phase::Stopped, reason, Some(notice), message) }
            }
        }
    }

    /// What becomes of what it has left, by itself or by whose doing; and says so. `policy` is as it is now, `observed` as it was before
    /// this prune was taken into account.
    pub(super) fn goes_on(
        &mut self,
        policy: &StateEpochPolicy,
        report: Option<&PruneReport>,
        observed: &Observed,
    ) -> After {
        // The next operator owes it.
        if self.phase == Phase::Pending {
            return After::Over;
        }
        let outcome = report.map(|report| &report.outcome);
        let stop = match outcome {
            Some(PruneOutcome::Stopped { stop }) => Some(stop),
            _ => None,
        };
        let progress = report.is_some_and(|report| report.objects > 0);
        // Somebody has said yes to all of it, and no schedule would come back to it.
        let scheduled = policy.spec.prune.schedule.is_some();
        let rest = observed.approved_plan(policy).is_some() && report.is_none_or(|report| report.frozen_stands);
        let unwanted = matches!(stop, Some(Stop::Cancelled | Stop::NotPermitted { .. }));
        let ended = matches!(self.phase, Phase::AwaitingApproval | Phase::Succeeded);
        let after = match stop {
            Some(Stop::Store { .. }) if self.owed => After::Failed { progress },
            _ if self.owed => After::Unasked,
            _ if ended || unwanted || !rest || scheduled || self.said.is_none() => After::Over,
            Some(Stop::Deadline | Stop::MaxObjects) => After::Limit,
            _ => After::Failed { progress },
        };
        let next = match (after, outcome) {
            (After::Limit, _) => "; it goes on by itself in a moment".to_owned(),
            (After::Unasked, _) => "; it goes on by itself when the API server can be reached".to_owned(),
            (After::Failed { .. }, _) => "; it is tried again by itself, with growing waits".to_owned(),
            (After::Over, Some(PruneOutcome::Stopped { .. })) if scheduled => " for the next run".to_owned(),
            (After::Over, Some(PruneOutcome::PartlyFailed)) if scheduled => "; the next run tries again".to_owned(),
            (After::Over, Some(PruneOutcome::Stopped { .. } | PruneOutcome::PartlyFailed)) => {
                format!("; no schedule brings another prune: {}", ask_for_a_prune(policy))
            }
            (After::Over, _) => String::new(),
        };
        self.message.push_str(&next);
        if let Some(said) = &mut self.said {
            said.message.push_str(&next);
        }
        after
    }

    /// Says so where prune is falling behind, and nothing worse is to be said.
    pub(super) fn or_falling_behind(&mut self, report: &PruneReport, backlog: &mut Backlog) {
        let limited = matches!(report.outcome, PruneOutcome::Stopped { stop: Stop::Deadline | Stop::MaxObjects });
        let ended = matches!(report.outcome, PruneOutcome::Succeeded | PruneOutcome::PartlyFailed);
        // What is left for another reason says nothing about how fast a prune is.
        if !limited && !ended {
            return;
        }
        let behind = backlog.after(if limited { report.remainder.objects } else { 0 });
        let Some(said) = self.said.as_mut().filter(|said| behind && said.reason == PruneHealthy::Succeeded) else {
            return;
        };
        said.reason = PruneHealthy::FallingBehind;
        said.message = format!(
            "{}. The pipeline writes faster than prune deletes: {} objects were left by the last runs. Raise spec.prune.maxObjects, \
             deadline or maxKeysPerSecond, or prune more often (spec.prune.schedule)",
            self.message,
            backlog.numbers()
        );
        self.message.clone_from(&said.message);
        self.notice = Some(Reason::PruneFailed);
    }
}

fn none_complete(plan: &PlanSummary) -> bool {
    plan.keep.iter().any(|range| range.reason == KeepReason::NoneComplete)
}

#[cfg(test)]
mod tests;
