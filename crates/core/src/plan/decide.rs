//! The reason of every epoch.

use jiff::Timestamp;

use crate::epoch::Epoch;
use crate::inventory::{EpochEntry, Inventory};
use crate::plan::Rules;
use crate::plan::reasons::{Decision, DeleteReason, KeepReason};
use crate::retention::{Chosen, nanoseconds, span_nanoseconds};

/// Decides about every listed epoch; ascending, as [`Inventory::epochs`] lists them.
pub(super) fn decide(inventory: &Inventory, rules: &Rules) -> Vec<Decision> {
    let all = |reason| vec![Decision::Keep(reason); inventory.len()];
    if rules.retention.keeps_everything() {
        return all(KeepReason::KeepsEverything);
    }
    let Some(survey) = Survey::of(inventory, rules) else {
        return all(KeepReason::NoneComplete);
    };
    let mut decisions = survey.walk(inventory);
    decisions.reverse();
    decisions
}

/// What the decision about one epoch has to know of the others.
struct Survey<'a> {
    rules: &'a Rules,
    computed_at: Timestamp,
    latest: Epoch,
    complete: Epoch,
    chosen: Chosen,
    /// Unsealed epochs above this one may be in flight.
    in_flight_above: Epoch,
}

impl<'a> Survey<'a> {
    /// `None` when no sealed epoch is complete, or when completeness was judged by another number of vnodes.
    fn of(inventory: &Inventory, rules: &'a Rules) -> Option<Self> {
        let complete = inventory.newest_complete().filter(|_| inventory.vnodes() == Some(rules.vnodes))?;
        let latest = inventory.newest_sealed()?;
        let newest_first: Vec<_> = inventory.seals().rev().map(|(epoch, seal)| (epoch, seal.modified)).collect();
        let chosen = rules.retention.choose(&newest_first);
        // The newest complete epoch is never above the latest one.
        let lowest = [chosen.last.first(), chosen.within.first()].into_iter().flatten().min();
        let in_flight_above = lowest.map_or(complete, |lowest| complete.min(*lowest));
        Some(Self { rules, computed_at: inventory.newest_modified()?, latest, complete, chosen, in_flight_above })
    }

    /// Decides downwards from the highest epoch, since what keeps an epoch lies above it.
    fn walk(&self, inventory: &Inventory) -> Vec<Decision> {
        let mut settled_above = false;
        let mut bases_left = 0_u32;
        let mut decisions = Vec::with_capacity(inventory.len());
        for (epoch, entry) in inventory.epochs().rev() {
            let in_itself = self.keeps_in_itself(epoch, entry, settled_above);
            let reason = in_itself.or_else(|| self.keeps_for_others(epoch, entry, bases_left > 0));
            decisions.push(match reason {
                Some(reason) => Decision::Keep(reason),
                None if entry.is_sealed() => Decision::Delete(DeleteReason::Expired),
                None => Decision::Delete(DeleteReason::Abandoned),
            });
            if let Some(seal) = entry.seal() {
                settled_above |= self.age(seal.modified) > self.min_age();
                // A base that is kept as such has no bases of its own: the count goes on from where it started.
                bases_left = if in_itself.is_some() {
                    self.rules.retention.incremental_depth
                } else {
                    bases_left.saturating_sub(1)
                };
            }
        }
        decisions
    }

    /// The reasons whose sealed epochs are restored from, and so need their incremental bases.
    fn keeps_in_itself(&self, epoch: Epoch, entry: &EpochEntry, settled_above: bool) -> Option<KeepReason> {
        let too_young = self.min_age() > 0 && (self.age(entry.newest()) < self.min_age() || !settled_above);
        [
            (epoch == self.latest, KeepReason::Latest),
            (epoch == self.complete, KeepReason::NewestComplete),
            (self.rules.retention.pinned.contains(&epoch), KeepReason::Pinned),
            (self.chosen.last.contains(&epoch), KeepReason::KeepLast),
            (self.chosen.within.contains(&epoch), KeepReason::KeepWithin),
            (self.chosen.every.contains(&epoch), KeepReason::KeepEvery),
            (too_young, KeepReason::TooYoung),
        ]
        .into_iter()
        .find_map(|(holds, reason)| holds.then_some(reason))
    }

    /// The reasons that come after those.
    fn keeps_for_others(&self, epoch: Epoch, entry: &EpochEntry, base: bool) -> Option<KeepReason> {
        [
            (base, KeepReason::IncrementalBase),
            (!entry.is_sealed() && epoch > self.in_flight_above, KeepReason::Unsealed),
            (entry.unaddressable().is_some(), KeepReason::UnaddressableKey),
        ]
        .into_iter()
        .find_map(|(holds, reason)| holds.then_some(reason))
    }

    /// Nanoseconds before the newest last-modified of the listing.
    fn age(&self, modified: Timestamp) -> i128 {
        nanoseconds(modified, self.computed_at)
    }

    fn min_age(&self) -> i128 {
        span_nanoseconds(self.rules.min_age)
    }
}
