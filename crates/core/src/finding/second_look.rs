//! The second look: what seemed critical and still is.

use std::collections::{BTreeSet, VecDeque};

use super::collect::Collected;
use super::committer::Malformed;
use super::draft::{AuditContext, Draft, incomplete, late_write};
use super::evidence::Floors;
use super::problem::{Problem, Regression};
use super::{Audit, Coverage, MAX_FINDINGS};
use crate::epoch::Epoch;
use crate::inventory::EpochEntry;

/// The audit while epochs that look critical are listed once more.
///
/// Ask for [`SecondLook::to_confirm`], list these, then read the floor, and hand both to [`SecondLook::confirm`], until none is asked
/// for. In this order: the floor that stood before a seal is then surely among those read.
#[derive(Debug)]
pub struct SecondLook<'a> {
    context: AuditContext<'a>,
    collected: Collected,
    queue: VecDeque<Epoch>,
    not_utf8: BTreeSet<Epoch>,
    regression: Option<Regression>,
    markers_read: u64,
    looked_again: u64,
    latest_committer: Option<String>,
}

impl<'a> SecondLook<'a> {
    pub(super) fn new(draft: Draft<'a>) -> Self {
        let Draft { context, collected, mut suspects, not_utf8, regression, markers_read, latest_committer, .. } =
            draft;
        // In the order in which findings are listed, so that the first to be confirmed are those that will be shown.
        let first = regression.as_ref().map(|regression| regression.epoch).filter(|epoch| suspects.remove(epoch));
        let queue = first.into_iter().chain(suspects.into_iter().rev()).collect();
        Self { context, collected, queue, not_utf8, regression, markers_read, looked_again: 0, latest_committer }
    }

    /// The next epochs to list again, at most `limit`. None when nothing looks critical any more, or when the list of findings is full of
    /// confirmed ones.
    pub fn to_confirm(&mut self, limit: usize) -> Vec<Epoch> {
        if self.collected.criticals() >= MAX_FINDINGS {
            return Vec::new();
        }
        self.queue.drain(..limit.min(self.queue.len())).collect()
    }

    /// Takes the second listing of an epoch, `None` when nothing of it is left, and the floors that were read after it.
    pub fn confirm(&mut self, epoch: Epoch, entry: Option<&EpochEntry>, floors: &Floors) {
        self.looked_again += 1;
        let Some(entry) = entry else { return };
        let vnodes = self.context.inventory.vnodes();
        let found = [
            incomplete(epoch, entry, vnodes, floors),
            late_write(epoch, entry),
            self.malformed(epoch, entry),
            self.regression(epoch, entry),
        ];
        for problem in found.into_iter().flatten() {
            self.collected.add(problem);
        }
    }

    fn malformed(&self, epoch: Epoch, entry: &EpochEntry) -> Option<Problem> {
        let seal = entry.seal()?;
        let same = || self.context.inventory.get(epoch).and_then(EpochEntry::seal) == Some(seal);
        let fetched = || (self.not_utf8.contains(&epoch) && same()).then_some(Malformed::NotUtf8);
        let why = Malformed::by_size(seal.size).or_else(fetched)?;
        Some(Problem::MalformedMarker { epoch, why })
    }

    fn regression(&self, epoch: Epoch, entry: &EpochEntry) -> Option<Problem> {
        let regression = self.regression.as_ref().filter(|regression| regression.epoch == epoch)?;
        let at = if regression.sealed_late > 0 { entry.seal()?.modified } else { entry.newest() };
        (at > regression.newest_sealed)
            .then(|| Problem::EpochRegression { regression: Regression { at, ..regression.clone() }, stalled: true })
    }

    /// The result. Epochs that were never handed in are not in it, but for their number.
    #[must_use]
    pub fn finish(self) -> Audit {
        let inventory = self.context.inventory;
        let totals = inventory.totals();
        let unconfirmed = self.queue.len() as u64;
        let coverage = Coverage {
            epochs: totals.sealed + totals.unsealed,
            sealed: totals.sealed,
            objects: totals.objects,
            markers_read: self.markers_read,
            records_read: self.context.evidence.records,
            looked_again: self.looked_again,
            unconfirmed,
        };
        let verdict = self.collected.verdict();
        let truncated = self.collected.truncated() || unconfirmed > 0;
        let (counts, findings) = self.collected.into_parts(inventory.numbering());
        Audit { verdict, coverage, counts, findings, truncated, latest_committer: self.latest_committer }
    }
}
