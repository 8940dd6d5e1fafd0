//! The epochs of a frozen plan, from what was remembered of it and a later listing.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::Frozen;
use crate::epoch::Epoch;
use crate::inventory::{EpochEntry, Inventory};
use crate::plan::{Past, Rules, Subject, deleted_then, digest};
use crate::retention::{nanoseconds, span_nanoseconds};

/// How many seals of the very instant of a plan may have come after it. Where a store keeps whole seconds, that is how many a pipeline
/// seals in one.
const SAME_INSTANT: usize = 16;

/// The epochs that `frozen` deletes; `None` when that cannot be told.
///
/// The digest proves them, as long as none of them was deleted. Once deleting has begun (`approved`, and the floor stands where the plan
/// wants it), what is left of them cannot give the digest any more: then an epoch counts only when everything known of the plan speaks
/// for it.
pub(super) fn rebuild(
    frozen: &Frozen,
    approved: bool,
    inventory: &Inventory,
    rules: &Rules,
    subject: &Subject,
) -> Option<BTreeSet<Epoch>> {
    let past = Remembered { frozen, inventory, rules, before: frozen.before?, at: frozen.computed_at? };
    let proven = |epochs: &Vec<Epoch>| digest(subject, rules, Some(past.before), epochs) == frozen.digest;
    if let Some(epochs) = past.guesses().find(proven) {
        return Some(epochs.into_iter().collect());
    }
    let begun = approved && inventory.reading().floor >= past.before;
    begun.then(|| past.what_is_left())
}

struct Remembered<'a> {
    frozen: &'a Frozen,
    inventory: &'a Inventory,
    rules: &'a Rules,
    before: Epoch,
    at: Timestamp,
}

impl Remembered<'_> {
    /// What it may have been, the likeliest first; each with and without what was written to since.
    fn guesses(&self) -> impl Iterator<Item = Vec<Epoch>> {
        let replays = self.frozen.truncated.then(|| self.instants()).into_iter().flatten();
        let replays = replays.map(|past| deleted_then(self.inventory, self.rules, past));
        std::iter::once(self.in_ranges()).chain(replays).flat_map(|epochs| {
            let untouched =
                epochs.iter().copied().filter(|epoch| self.entry_is(*epoch, |entry| entry.newest() <= self.at));
            let untouched: Vec<Epoch> = untouched.collect();
            let both = untouched.len() != epochs.len();
            std::iter::once(epochs).chain(both.then_some(untouched))
        })
    }

    /// What is left of it after some of it was deleted. It never has more than the plan had: nothing that was written since, nothing that
    /// was too young then, nothing between the ranges.
    fn what_is_left(&self) -> BTreeSet<Epoch> {
        let old_enough = |entry: &EpochEntry| {
            let age = nanoseconds(entry.newest(), self.at);
            age >= 0 && age >= span_nanoseconds(self.rules.min_age)
        };
        let candidates =
            if self.frozen.truncated { self.surely_replayed() } else { self.in_ranges().into_iter().collect() };
        let known_up_to = self.frozen.delete.last().map(|(_, to)| *to);
        candidates
            .into_iter()
            .filter(|epoch| *epoch < self.before && self.entry_is(*epoch, old_enough))
            .filter(|epoch| self.is_in_ranges(*epoch) || known_up_to.is_none_or(|last| *epoch > last))
            .collect()
    }

    /// What the plan deleted whichever seals of its instant it saw.
    fn surely_replayed(&self) -> BTreeSet<Epoch> {
        let replay = |past| deleted_then(self.inventory, self.rules, past);
        let mut replays: Vec<Vec<Epoch>> = self.instants().map(replay).collect();
        // The highest epoch goes last. As long as it is whole, it tells which replays may be the plan: those that end with it.
        let highest = self.before.get().checked_sub(1).map(Epoch::new);
        if highest.is_some_and(|highest| self.entry_is(highest, EpochEntry::is_sealed)) {
            replays.retain(|replay| replay.last().copied() == highest);
        }
        let mut replays = replays.into_iter();
        let first: BTreeSet<Epoch> = replays.next().unwrap_or_default().into_iter().collect();
        replays.fold(first, |both, replay| replay.into_iter().filter(|epoch| both.contains(epoch)).collect())
    }

    /// The instants at which the plan may have been made: with all seals of the last one, without the highest, and so on.
    fn instants(&self) -> impl Iterator<Item = Past> {
        let through = self.frozen.through.unwrap_or(self.before);
        let at = self.at;
        let same = self.inventory.seals().rev().filter(move |(epoch, seal)| *epoch <= through && seal.modified == at);
        let open = same.take(SAME_INSTANT).map(|(epoch, _)| Some(epoch));
        std::iter::once(None).chain(open).map(move |open_from| Past { through, at, open_from })
    }

    fn in_ranges(&self) -> Vec<Epoch> {
        let listed = self.inventory.epochs().map(|(epoch, _)| epoch);
        listed.filter(|epoch| self.is_in_ranges(*epoch)).collect()
    }

    fn is_in_ranges(&self, epoch: Epoch) -> bool {
        // Ascending and apart from each other: the only range that can have it is the last one that begins at or below it.
        let above = self.frozen.delete.partition_point(|(from, _)| *from <= epoch);
        let range = above.checked_sub(1).and_then(|index| self.frozen.delete.get(index));
        range.is_some_and(|(_, to)| epoch <= *to)
    }

    fn entry_is(&self, epoch: Epoch, what: impl Fn(&EpochEntry) -> bool) -> bool {
        self.inventory.get(epoch).is_some_and(what)
    }
}
