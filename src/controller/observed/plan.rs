//! The plan that waits for approval: what the status remembers of it across restarts, who says yes, and what is said meanwhile.
//!
//! A plan is *open* while it waits, or was approved and has a rest. The status has no field for that, and needs none: the plan of a run
//! that carried it out is shown with a phase that says so ([`is_open`]), and is let go of when the next run begins.

use epochwarden_core::ShownEpoch;
use epochwarden_core::approval::Frozen;
use jiff::Timestamp;
use kube::ResourceExt;

use super::{Observed, Said};
use crate::api::condition::PruneHealthy;
use crate::api::status::{MAX_RANGES, Phase, PlanStatus, PruneStatus};
use crate::api::{APPROVE_ANNOTATION, RUN_ANNOTATION, StateEpochPolicy};

/// The most that is repeated of an annotation's value: a digest, and as much again.
const MAX_REPEATED: usize = 128;

/// Whether a plan that an earlier operator wrote waits, or was approved and has a rest.
pub(super) fn is_open(plan: &PlanStatus, prune: &PruneStatus) -> bool {
    let over = match (prune.phase, plan.approved_at) {
        (None | Some(Phase::Succeeded), _) | (Some(Phase::Stopped | Phase::PartlyFailed), None) => true,
        // What could not be deleted is tried again, by whichever operator.
        (Some(_), _) => false,
    };
    plan.epochs.get() > 0 && !over
}

/// Whether a plan waits, by the reason of the condition.
pub(super) const fn is_waiting(reason: PruneHealthy) -> bool {
    matches!(reason, PruneHealthy::AwaitingApproval | PruneHealthy::MassDeletion)
}

/// What begins the part of a message that says of whose word the annotation speaks.
fn note() -> String {
    format!("; the annotation {APPROVE_ANNOTATION} ")
}

/// What is said of a word that stands since an earlier plan.
const USED: &str =
    "has approved an earlier plan of the same digest, and is not taken for this one too: take it away and set it again";

/// The digest that the annotation approved last, as the status tells it: of the plan that it shows as approved, or of the one that waits
/// though the annotation names it.
pub(super) fn used(plan: Option<&PlanStatus>, said: Option<&Said<PruneHealthy>>) -> Option<String> {
    let marked = said.is_some_and(|said| said.message.contains(&format!("{}{USED}", note())));
    plan.filter(|plan| plan.approved_at.is_some() || marked).map(|plan| plan.digest.clone())
}

/// What a run has said, from the message that the status made of it.
pub(super) fn as_said(said: Said<PruneHealthy>) -> Said<PruneHealthy> {
    let message = said.message.split_once(&note()).map_or(said.message.as_str(), |(said, _)| said).to_owned();
    if is_waiting(said.reason) { Said { message, ..said } } else { said }
}

impl Observed {
    /// The plan that waits, or was approved and has a rest. One that was made for another generation is void.
    #[must_use]
    pub(crate) fn open_plan(&self, policy: &StateEpochPolicy) -> Option<&PlanStatus> {
        let for_this_one = self.open_for.is_some() && self.open_for == policy.metadata.generation;
        self.plan.as_ref().filter(|_| for_this_one)
    }

    /// The plan that waits for a person.
    #[must_use]
    pub(crate) fn waiting_plan(&self, policy: &StateEpochPolicy) -> Option<&PlanStatus> {
        self.open_plan(policy).filter(|plan| plan.approved_at.is_none())
    }

    /// The plan that a person approved, while it has a rest.
    #[must_use]
    pub(crate) fn approved_plan(&self, policy: &StateEpochPolicy) -> Option<&PlanStatus> {
        self.open_plan(policy).filter(|plan| plan.approved_at.is_some())
    }

    /// The plan for the status: a void one is not shown, so that whoever reads it knows what may be approved, and the next operator
    /// knows that it was made for the generation that was observed.
    #[must_use]
    pub(crate) fn plan_to_show(&self, policy: &StateEpochPolicy) -> Option<&PlanStatus> {
        if self.open_for.is_some() { self.open_plan(policy) } else { self.plan.as_ref() }
    }

    /// Whether the plan that is open was made for another generation.
    fn is_void(&self, policy: &StateEpochPolicy) -> bool {
        self.open_for.is_some() && self.open_plan(policy).is_none()
    }

    /// Lets go of a plan that is void because the policy has changed. `true` when there was one.
    pub(crate) fn void_plan(&mut self, policy: &StateEpochPolicy) -> bool {
        let void = self.is_void(policy);
        if void {
            (self.plan, self.open_for) = (None, None);
            self.outgrown = true;
        }
        void
    }

    /// Takes a person's word for the plan that waits. It is taken once: what becomes of the annotation afterwards changes nothing, and
    /// one that is just left standing says nothing of a later plan, though that may have the same digest: in a root that was emptied and
    /// is filled again with the same numbers, say. `true` when it was given just now.
    pub(crate) fn approve(&mut self, policy: &StateEpochPolicy, now: Timestamp) -> bool {
        let word = policy.annotations().get(APPROVE_ANNOTATION);
        self.used.take_if(|used| word != Some(used));
        let approved = self.used.is_none() && self.waiting_plan(policy).is_some_and(|plan| word == Some(&plan.digest));
        if approved && let Some(plan) = &mut self.plan {
            plan.approved_at = Some(now);
            self.used = Some(plan.digest.clone());
        }
        approved
    }

    /// What is said of prune where a plan waits or has waited; `None` where it is the last run that has something to say.
    #[must_use]
    pub(crate) fn waiting_said(&self, policy: &StateEpochPolicy) -> Option<Said<PruneHealthy>> {
        if let Some(plan) = self.approved_plan(policy)
            && self.prune.phase == Some(Phase::AwaitingApproval)
        {
            let message = format!("plan {} was approved: its prune begins as soon as it can", plan.digest);
            return Some(Said::new(PruneHealthy::Running, message));
        }
        if self.outgrown || self.is_void(policy) {
            return Some(void_said(policy));
        }
        let said = self.pruned.as_ref().filter(|said| is_waiting(said.reason))?;
        let Some(plan) = self.open_plan(policy) else { return Some(void_said(policy)) };
        let word = policy.annotations().get(APPROVE_ANNOTATION);
        let note = word.and_then(|word| {
            if *word != plan.digest {
                let word: String = word.chars().take(MAX_REPEATED).collect();
                return Some(format!("{}approves {word:?}, which is another plan than this", note()));
            }
            (self.used.as_ref() == Some(word)).then(|| format!("{}{USED}", note()))
        });
        let message = format!("{}{}", said.message, note.unwrap_or_default());
        self.waiting_plan(policy).map(|_| Said::new(said.reason, message))
    }
}

/// What is said after a change of the policy that a plan did not outlive.
fn void_said(policy: &StateEpochPolicy) -> Said<PruneHealthy> {
    let void = "the policy has changed, so the plan that it was made for, and any approval of it, is void";
    match &policy.spec.prune.schedule {
        Some(_) => {
            Said::new(PruneHealthy::Pending, format!("{void}: the next prune makes another (status.prune.nextRunAt)"))
        }
        None => Said::new(
            PruneHealthy::NotScheduled,
            format!(
                "{void}. spec.prune.schedule is not set, so nothing makes another by itself: {}",
                ask_for_a_prune(policy)
            ),
        ),
    }
}

/// How to have a prune run that no schedule brings.
#[must_use]
pub(crate) fn ask_for_a_prune(policy: &StateEpochPolicy) -> String {
    let (namespace, name) = (policy.namespace().unwrap_or_default(), policy.name_any());
    // A value that was honoured before never runs again.
    format!(
        "ask for one with `kubectl -n {namespace} annotate --overwrite sep {name} {RUN_ANNOTATION}=prune@$(date +%s)`"
    )
}

/// What the rules want to know of a plan that is remembered.
#[must_use]
pub(crate) fn frozen(plan: &PlanStatus) -> Frozen {
    Frozen {
        digest: plan.digest.clone(),
        before: plan.before.map(ShownEpoch::epoch),
        through: plan.through.map(ShownEpoch::epoch),
        computed_at: plan.computed_at,
        delete: plan.delete.iter().map(|range| (range.from.epoch(), range.to.epoch())).collect(),
        // It may also be the ranges to keep that are too many.
        truncated: plan.truncated && plan.delete.len() >= MAX_RANGES,
    }
}

#[cfg(test)]
mod tests;
