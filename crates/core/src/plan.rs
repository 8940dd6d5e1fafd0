//! What a prune would delete, with a reason for every epoch.
//!
//! A plan is pure: an [`Inventory`] and [`Rules`] go in, and the same listing, in whatever order, gives the same plan. Every time in it
//! is the store's. Only [`Plan::into_deletions`] leads to the executor, and only planning makes a [`Plan`].
//!
//! Whatever the rules say, the newest sealed epoch and the newest complete one stay, and where no sealed epoch is complete, all stay.

mod decide;
mod deletion;
mod digest;
mod reasons;
mod view;

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::epoch::Epoch;
use crate::inventory::Inventory;
use crate::numbering::{Numbering, ShownEpoch};
use crate::retention::Retention;

pub use deletion::Deletion;
pub(crate) use digest::digest;
pub use reasons::{Decision, DeleteReason, Hold, KeepReason};
pub(crate) use view::Past;
use view::View;

/// The rules of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// How many vnodes a complete epoch has. An inventory made for another number shows no complete epoch, and everything stays.
    pub vnodes: u32,
    /// What is kept.
    pub retention: Retention,
    /// How old, counted back from the newest object, an epoch must be to go, and a seal above it: someone may have chosen it for a
    /// restore just before. Zero turns this off.
    pub min_age: Duration,
}

/// What a plan is about. Both are part of the digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The URL of the root.
    pub root: String,
    /// The uid of the policy; empty where none is involved.
    pub policy_uid: String,
}

/// One epoch of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedEpoch {
    /// Which epoch.
    pub epoch: ShownEpoch,
    /// What becomes of it, and why.
    #[serde(flatten)]
    pub decision: Decision,
    /// Whether it is sealed.
    pub sealed: bool,
    /// Whether it has the partials of all vnodes.
    pub complete: bool,
    /// How many objects it has.
    pub objects: u64,
    /// How many bytes these are.
    pub bytes: u64,
    /// The last-modified of its newest object.
    pub newest: Timestamp,
}

/// Epochs next to each other in the listing (their numbers need not be) that share a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Range<R> {
    /// The lowest of them.
    pub from: ShownEpoch,
    /// The highest of them.
    pub to: ShownEpoch,
    /// Why.
    pub reason: R,
}

/// A sum over epochs of a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PlanTotals {
    /// How many epochs.
    pub epochs: u64,
    /// How many objects they have.
    pub objects: u64,
    /// How many bytes these are.
    pub bytes: u64,
}

/// A plan in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanSummary {
    /// See [`Plan::digest`].
    pub digest: String,
    /// See [`Plan::before`].
    pub before: Option<ShownEpoch>,
    /// See [`Plan::through`].
    pub through: Option<ShownEpoch>,
    /// See [`Plan::computed_at`].
    pub computed_at: Option<Timestamp>,
    /// What would go.
    #[serde(flatten)]
    pub totals: PlanTotals,
    /// What stays.
    pub keep: Vec<Range<KeepReason>>,
    /// What would go.
    pub delete: Vec<Range<DeleteReason>>,
    /// Why nothing of it may be executed for now.
    pub hold: Option<Hold>,
}

/// A decision about every epoch of a listing.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    numbering: Numbering,
    epochs: Vec<PlannedEpoch>,
    deletions: Vec<Deletion>,
    before: Option<Epoch>,
    computed_at: Option<Timestamp>,
    digest: String,
    hold: Option<Hold>,
}

impl Plan {
    /// Plans over everything that was listed.
    #[must_use]
    pub fn new(inventory: &Inventory, rules: &Rules, subject: &Subject) -> Self {
        let mut epochs = Vec::with_capacity(inventory.len());
        let mut deletions = Vec::new();
        for ((epoch, entry), decision) in inventory.epochs().zip(decide::decide(View::now(inventory), rules)) {
            epochs.push(PlannedEpoch {
                epoch: inventory.numbering().show(epoch),
                decision,
                sealed: entry.is_sealed(),
                complete: entry.is_complete(),
                objects: entry.objects(),
                bytes: entry.bytes(),
                newest: entry.newest(),
            });
            if decision.is_delete() {
                deletions.push(Deletion::new(epoch, entry));
            }
        }
        let deleted: Vec<Epoch> = deletions.iter().map(Deletion::epoch).collect();
        // A deleted epoch lies below the newest sealed one, so there is a number above it.
        let before = deleted.last().copied().and_then(Epoch::next);
        Self {
            numbering: inventory.numbering(),
            digest: digest(subject, rules, before, &deleted),
            hold: hold(inventory, &epochs),
            computed_at: inventory.newest_modified(),
            before,
            deletions,
            epochs,
        }
    }

    /// Every listed epoch with its decision, ascending.
    #[must_use]
    pub fn decisions(&self) -> impl DoubleEndedIterator<Item = &PlannedEpoch> + ExactSizeIterator {
        self.epochs.iter()
    }

    /// The decision about one epoch; `None` when it was not listed.
    #[must_use]
    pub fn decision(&self, epoch: Epoch) -> Option<Decision> {
        let index = self.epochs.binary_search_by_key(&epoch, |planned| planned.epoch.epoch()).ok()?;
        self.epochs.get(index).map(|planned| planned.decision)
    }

    /// How its epochs are shown.
    #[must_use]
    pub const fn numbering(&self) -> Numbering {
        self.numbering
    }

    /// Whether nothing would be deleted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deletions.is_empty()
    }

    /// The floor that has to be durable before the first delete: right above the highest epoch to delete, and never above the newest
    /// sealed one. Kept epochs may lie below it. `None` when nothing would be deleted.
    #[must_use]
    pub const fn before(&self) -> Option<Epoch> {
        self.before
    }

    /// The highest epoch listed; `None` when there was none.
    #[must_use]
    pub fn through(&self) -> Option<Epoch> {
        self.epochs.last().map(|planned| planned.epoch.epoch())
    }

    /// What ages were counted back from: the newest last-modified of all objects of epochs listed.
    #[must_use]
    pub const fn computed_at(&self) -> Option<Timestamp> {
        self.computed_at
    }

    /// The SHA-256, in lower-case hexadecimal, of what an approval covers: root, policy, rules, `before` and the epochs to delete. Not
    /// time, nor what is kept.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Why nothing of this plan may be executed for now.
    #[must_use]
    pub const fn hold(&self) -> Option<&Hold> {
        self.hold.as_ref()
    }

    /// What would be deleted, in sum.
    #[must_use]
    pub fn delete_totals(&self) -> PlanTotals {
        self.sum(true)
    }

    /// What stays, in sum.
    #[must_use]
    pub fn keep_totals(&self) -> PlanTotals {
        self.sum(false)
    }

    fn sum(&self, delete: bool) -> PlanTotals {
        let epochs = self.epochs.iter().filter(|planned| planned.decision.is_delete() == delete);
        epochs.fold(PlanTotals::default(), |totals, planned| PlanTotals {
            epochs: totals.epochs + 1,
            objects: totals.objects.saturating_add(planned.objects),
            bytes: totals.bytes.saturating_add(planned.bytes),
        })
    }

    /// What stays, ascending.
    #[must_use]
    pub fn keep_ranges(&self) -> Vec<Range<KeepReason>> {
        self.ranges(|decision| match decision {
            Decision::Keep(reason) => Some(reason),
            Decision::Delete(_) => None,
        })
    }

    /// What would be deleted, ascending.
    #[must_use]
    pub fn delete_ranges(&self) -> Vec<Range<DeleteReason>> {
        self.ranges(|decision| match decision {
            Decision::Keep(_) => None,
            Decision::Delete(reason) => Some(reason),
        })
    }

    fn ranges<R: Copy>(&self, reason: impl Fn(Decision) -> Option<R>) -> Vec<Range<R>> {
        self.epochs
            .chunk_by(|a, b| a.decision == b.decision)
            .filter_map(|run| {
                let (first, last) = (run.first()?, run.last()?);
                Some(Range { from: first.epoch, to: last.epoch, reason: reason(first.decision)? })
            })
            .collect()
    }

    /// The plan in short.
    #[must_use]
    pub fn summary(&self) -> PlanSummary {
        PlanSummary {
            digest: self.digest.clone(),
            before: self.before.map(|before| self.numbering.show(before)),
            through: self.epochs.last().map(|planned| planned.epoch),
            computed_at: self.computed_at,
            totals: self.delete_totals(),
            keep: self.keep_ranges(),
            delete: self.delete_ranges(),
            hold: self.hold.clone(),
        }
    }

    /// The epochs to delete, oldest first; none of them when the plan is held.
    pub fn into_deletions(self) -> Result<Vec<Deletion>, Hold> {
        match self.hold {
            Some(hold) => Err(hold),
            None => Ok(self.deletions),
        }
    }
}

/// What a plan of an earlier instant deleted, ascending, as far as a listing of now can tell.
pub(crate) fn deleted_then(inventory: &Inventory, rules: &Rules, past: Past) -> Vec<Epoch> {
    let view = View::past(inventory, past);
    let decided = view.epochs().zip(decide::decide(view, rules));
    decided.filter(|(_, decision)| decision.is_delete()).map(|(viewed, _)| viewed.epoch).collect()
}

/// Why a plan may not be executed for now.
fn hold(inventory: &Inventory, epochs: &[PlannedEpoch]) -> Option<Hold> {
    if let Some(key) = inventory.newer_layout() {
        return Some(Hold::UnknownLayout { key: key.to_owned() });
    }
    let (newest_sealed, seal) = inventory.seals().next_back()?;
    // Strictly newer: a store may keep whole seconds, and what went before a seal may carry the same one.
    epochs
        .iter()
        .filter(|planned| planned.decision.is_delete() && planned.newest > seal.modified)
        .max_by_key(|planned| (planned.newest, planned.epoch))
        .map(|planned| Hold::EpochRegression {
            epoch: planned.epoch,
            modified: planned.newest,
            newest_sealed: inventory.numbering().show(newest_sealed),
            sealed_at: seal.modified,
        })
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
