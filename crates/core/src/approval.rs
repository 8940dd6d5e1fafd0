//! Whether a plan may be carried out, or waits for a person.
//!
//! A plan that waits is *frozen*: what was shown is what may be approved, however long that takes and however often the operator starts
//! anew meanwhile. It is remembered as its few numbers and ranges and built again from the listing of the day ([`rebuild`]); its digest
//! says whether that gave the same epochs. Approved, it is carried out as far as a fresh plan still deletes the same.

mod rebuild;

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;

use crate::epoch::Epoch;
use crate::inventory::Inventory;
use crate::numbering::ShownEpoch;
use crate::plan::{Decision, KeepReason, Plan, Rules, Subject};

/// A plan that deletes more than both of these waits for approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldAbove {
    /// More epochs than this.
    pub epochs: u64,
    /// And more than this many percent of the epochs listed. 100 turns it off.
    pub percent: u8,
}

impl HoldAbove {
    fn holds(self, epochs: u64, listed: u64) -> bool {
        epochs > self.epochs && u128::from(epochs) * 100 > u128::from(listed) * u128::from(self.percent)
    }
}

/// What is remembered of a plan that waits, or of one that was approved: as much of [`crate::plan::PlanSummary`] as a status has room
/// for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// See [`Plan::digest`].
    pub digest: String,
    /// See [`Plan::before`].
    pub before: Option<Epoch>,
    /// See [`Plan::through`].
    pub through: Option<Epoch>,
    /// See [`Plan::computed_at`].
    pub computed_at: Option<Timestamp>,
    /// The first and the last epoch of each range to delete, ascending.
    pub delete: Vec<(Epoch, Epoch)>,
    /// Whether `delete` may lack ranges: then it has the lowest of them.
    pub truncated: bool,
}

/// What stands between a plan and its execution.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gate {
    /// Whether every plan waits for approval.
    pub manual: bool,
    /// Which plans wait in any case.
    pub hold_above: Option<HoldAbove>,
    /// The plan that was made to wait before, by the same rules.
    pub frozen: Option<Frozen>,
    /// Whether that one was approved since.
    pub approved: bool,
}

/// Why a plan waits for approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Every plan does.
    Manual,
    /// It deletes very much at once.
    MassDeletion {
        /// How many epochs it deletes.
        epochs: u64,
        /// How many were listed.
        listed: u64,
        /// What it exceeds.
        above: HoldAbove,
    },
}

impl Waiting {
    /// The reason's word.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Manual => "AwaitingApproval",
            Self::MassDeletion { .. } => "MassDeletion",
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manual => f.write_str("every plan does (approval: Manual)"),
            Self::MassDeletion { epochs, listed, above: HoldAbove { epochs: most, percent } } => write!(
                f,
                "it deletes {epochs} of {listed} listed epochs, and more than {most} epochs and {percent}% at once are not deleted \
                 without one (holdAbove): make sure that retention says what it should"
            ),
        }
    }
}

/// Why a plan that was frozen does not count any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Void {
    /// It would delete what has to be kept by now.
    WouldDeleteKept {
        /// The lowest such epoch.
        epoch: ShownEpoch,
        /// Why that is kept.
        reason: KeepReason,
        /// How many there are.
        epochs: u64,
    },
    /// The listing does not show the epochs any more that it was made of.
    NotRebuilt,
}

impl fmt::Display for Void {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldDeleteKept { epoch, reason, epochs } => write!(
                f,
                "it would delete epoch {epoch}, which is kept by now ({})",
                if *epochs > 1 { format!("{}, one of {epochs}", reason.as_str()) } else { reason.as_str().to_owned() }
            ),
            Self::NotRebuilt => f.write_str(
                "the epochs that it was made of are not all there as they were, so what it would delete cannot be told any more",
            ),
        }
    }
}

/// Which plan waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitingPlan {
    /// The one that was frozen before.
    Frozen,
    /// The fresh one, which is frozen from now on.
    Fresh {
        /// Why it took the place of the one before; `None` where there was none, or that was carried out.
        instead_of: Option<Void>,
    },
}

/// Whether a plan may be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// The fresh plan may, as it is.
    Free,
    /// A frozen plan was approved: these epochs may go, all of which the fresh plan deletes too.
    Approved(BTreeSet<Epoch>),
    /// Nothing may be deleted.
    Waits {
        /// Why.
        why: Waiting,
        /// Which plan it is that waits.
        plan: WaitingPlan,
    },
}

/// Decides whether a plan may be carried out. `fresh` was made of `inventory` by `rules` for `subject`.
///
/// A frozen plan comes first: one that waits goes on waiting until it is approved or void, one that was approved is carried out as far as
/// the fresh one deletes the same, and is done when that is nothing. Only then is the fresh plan judged.
#[must_use]
pub fn admit(gate: &Gate, fresh: &Plan, inventory: &Inventory, rules: &Rules, subject: &Subject) -> Admission {
    let mut instead_of = None;
    if let Some(frozen) = &gate.frozen {
        match rebuild::rebuild(frozen, gate.approved, inventory, rules, subject) {
            None => instead_of = Some(Void::NotRebuilt),
            Some(mut epochs) if gate.approved => {
                epochs.retain(|epoch| fresh.decision(*epoch).is_some_and(Decision::is_delete));
                if !epochs.is_empty() {
                    return Admission::Approved(epochs);
                }
            }
            Some(epochs) => {
                instead_of = kept(&epochs, fresh);
                let listed = inventory.epochs().filter(|(epoch, _)| frozen.through.is_some_and(|last| *epoch <= last));
                if instead_of.is_none()
                    && let Some(why) = gate.waits(epochs.len() as u64, listed.count() as u64)
                {
                    return Admission::Waits { why, plan: WaitingPlan::Frozen };
                }
            }
        }
    }
    match gate.waits(fresh.delete_totals().epochs, inventory.len() as u64) {
        Some(why) => Admission::Waits { why, plan: WaitingPlan::Fresh { instead_of } },
        None => Admission::Free,
    }
}

impl Gate {
    /// Why a plan waits that deletes `epochs` of `listed`; one that deletes nothing never does.
    fn waits(&self, epochs: u64, listed: u64) -> Option<Waiting> {
        if epochs == 0 {
            return None;
        }
        if self.manual {
            return Some(Waiting::Manual);
        }
        let above = self.hold_above.filter(|above| above.holds(epochs, listed))?;
        Some(Waiting::MassDeletion { epochs, listed, above })
    }
}

/// Why `epochs` must not all be deleted.
fn kept(epochs: &BTreeSet<Epoch>, fresh: &Plan) -> Option<Void> {
    let mut kept = epochs.iter().filter_map(|epoch| match fresh.decision(*epoch)? {
        Decision::Keep(reason) => Some((*epoch, reason)),
        Decision::Delete(_) => None,
    });
    let (epoch, reason) = kept.next()?;
    let epoch = fresh.numbering().show(epoch);
    Some(Void::WouldDeleteKept { epoch, reason, epochs: 1 + kept.count() as u64 })
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
