//! Whether a plan has its approval, and what that covers.

use std::collections::BTreeSet;

use epochwarden_core::Epoch;
use epochwarden_core::approval::{Admission, Gate, Void, Waiting, WaitingPlan, admit};
use epochwarden_core::inventory::Inventory;
use epochwarden_core::plan::{Decision, Plan};

use super::report::{ApprovedState, PruneOutcome, PruneReport};
use super::{Approval, PruneError, Run};

/// What somebody said yes to.
pub(super) struct Approved {
    pub(super) epochs: BTreeSet<Epoch>,
    /// The digest of the plan that they saw.
    pub(super) digest: String,
}

impl Run<'_> {
    /// What the approval covers; `None`: all of `plan`, or nothing, when a plan waits: then that is the outcome of `report`.
    pub(super) fn approved(
        &self,
        approval: Approval,
        plan: &Plan,
        inventory: &Inventory,
        report: &mut PruneReport,
    ) -> Result<Option<Approved>, PruneError> {
        match approval {
            Approval::Automatic => Ok(None),
            Approval::Digest(approved) if approved == plan.digest() => Ok(None),
            Approval::Digest(approved) => Err(PruneError::NotApproved { approved, found: plan.digest().to_owned() }),
            Approval::Plan(approved) => {
                let deleted = approved.decisions().filter(|planned| Decision::is_delete(planned.decision));
                let epochs = deleted.map(|planned| planned.epoch.epoch()).collect();
                Ok(Some(Approved { epochs, digest: approved.digest().to_owned() }))
            }
            Approval::Gate(gate) => {
                let admission = admit(&gate, plan, inventory, &self.rules.plan, &self.subject);
                Ok(pass(gate, admission, plan, report))
            }
        }
    }
}

fn pass(gate: Gate, admission: Admission, plan: &Plan, report: &mut PruneReport) -> Option<Approved> {
    let frozen = gate.frozen.map(|frozen| frozen.digest).unwrap_or_default();
    match admission {
        Admission::Free => None,
        Admission::Approved(epochs) => {
            report.approved = Some(ApprovedState::Rest);
            report.frozen_stands = true;
            Some(Approved { epochs, digest: frozen })
        }
        Admission::Waits { why, plan: WaitingPlan::Frozen } => {
            report.frozen_stands = true;
            report.outcome = waits(why, &frozen, "");
            None
        }
        Admission::Waits { why, plan: WaitingPlan::Fresh { instead_of } } => {
            let instead_of = instead_of.map(|void| replaced(&frozen, gate.approved, void)).unwrap_or_default();
            report.outcome = waits(why, plan.digest(), &instead_of);
            None
        }
    }
}

fn waits(why: Waiting, digest: &str, instead_of: &str) -> PruneOutcome {
    let message = format!("plan {digest} waits for approval: {why}{instead_of}");
    PruneOutcome::AwaitingApproval { reason: why.as_str(), message }
}

/// What became of the plan that was frozen before.
fn replaced(digest: &str, approved: bool, void: Void) -> String {
    let was = if approved { "was approved" } else { "waited" };
    format!("; it takes the place of plan {digest}, which {was} and is void, because {void}")
}
