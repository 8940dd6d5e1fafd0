//! The reason of every epoch.

use jiff::Timestamp;

use crate::epoch::Epoch;
use crate::plan::Rules;
use crate::plan::reasons::{Decision, DeleteReason, KeepReason};
use crate::plan::view::{View, Viewed};
use crate::retention::{Chosen, nanoseconds, span_nanoseconds};

/// Decides about every epoch in view, in the order of [`View::epochs`].
pub(super) fn decide(view: View<'_>, rules: &Rules) -> Vec<Decision> {
    let all = |reason| vec![Decision::Keep(reason); view.len()];
    if rules.retention.keeps_everything() {
        return all(KeepReason::KeepsEverything);
    }
    let Some(survey) = Survey::of(view, rules) else {
        return all(KeepReason::NoneComplete);
    };
    let mut decisions = survey.walk(view);
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
    fn of(view: View<'_>, rules: &'a Rules) -> Option<Self> {
        if view.vnodes() != Some(rules.vnodes) {
            return None;
        }
        let sealed = || view.epochs().rev().filter_map(|viewed| Some((viewed, viewed.seal?)));
        let complete = sealed().find(|(viewed, _)| viewed.entry.is_complete()).map(|(viewed, _)| viewed.epoch)?;
        let newest_first: Vec<_> = sealed().map(|(viewed, seal)| (viewed.epoch, seal.modified)).collect();
        let latest = newest_first.first().map(|(epoch, _)| *epoch)?;
        let chosen = rules.retention.choose(&newest_first);
        // The newest complete epoch is never above the latest one.
        let lowest = [chosen.last.first(), chosen.within.first()].into_iter().flatten().min();
        let in_flight_above = lowest.map_or(complete, |lowest| complete.min(*lowest));
        Some(Self { rules, computed_at: view.computed_at()?, latest, complete, chosen, in_flight_above })
    }

    /// Decides downwards from the highest epoch, since what keeps an epoch lies above it.
    fn walk(&self, view: View<'_>) -> Vec<Decision> {
        let mut settled_above = false;
        let mut bases_left = 0_u32;
        let mut decisions = Vec::with_capacity(view.len());
        for viewed in view.epochs().rev() {
            let in_itself = self.keeps_in_itself(&viewed, settled_above);
            let reason = in_itself.or_else(|| self.keeps_for_others(&viewed, bases_left > 0));
            decisions.push(match reason {
                Some(reason) => Decision::Keep(reason),
                None if viewed.seal.is_some() => Decision::Delete(DeleteReason::Expired),
                None => Decision::Delete(DeleteReason::Abandoned),
            });
            if let Some(seal) = viewed.seal {
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
    fn keeps_in_itself(&self, viewed: &Viewed<'_>, settled_above: bool) -> Option<KeepReason> {
        let epoch = viewed.epoch;
        let too_young = self.min_age() > 0 && (self.age(viewed.newest) < self.min_age() || !settled_above);
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
    fn keeps_for_others(&self, viewed: &Viewed<'_>, base: bool) -> Option<KeepReason> {
        [
            (base, KeepReason::IncrementalBase),
            (viewed.seal.is_none() && viewed.epoch > self.in_flight_above, KeepReason::Unsealed),
            (viewed.entry.unaddressable().is_some(), KeepReason::UnaddressableKey),
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
