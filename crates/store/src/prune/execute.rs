//! Carrying out a plan batch after batch, with everything asked again before each.

use std::collections::HashSet;
use std::time::Duration;

use epochwarden_core::Epoch;
use epochwarden_core::plan::{Deletion, Plan};
use epochwarden_core::register::Reading;
use tokio::time::Instant;

use super::prepare::Prepared;
use super::report::{PruneOutcome, PruneReport, Remainder, Stop};
use super::{Run, list};
use crate::crash;

/// The most epochs of one batch.
pub(super) const BATCH: usize = 1000;

/// How long one batch takes, about, where keys are deleted at a pace: nothing is asked again in the middle of a batch, so a slow one must
/// be small for a pin, a change of the rules or another owner to be heeded soon. One epoch is never cut.
const BATCH_TAKES: Duration = Duration::from_secs(10);

impl Run<'_> {
    /// Deletes. What was found so far is in `prepared`.
    pub(super) async fn carry_out(&self, prepared: Prepared) -> PruneReport {
        let Prepared { mut report, mut deletions, owner, mut listed, more } = prepared;
        let mut allowance = Allowance { objects: self.rules.max_objects, first: true };
        let total = Remainder::of(&deletions).objects;
        deletions.reverse();
        let stop = loop {
            let Some(next) = deletions.last() else { break None };
            if !allowance.covers(next) {
                break Some(Stop::MaxObjects);
            }
            if let Err(stop) = self.until.bound(self.admit(&mut deletions, owner, &mut listed)).await.flatten() {
                break Some(stop);
            }
            crash::point("prune-batch-asked");
            let batch = allowance.next_batch(&mut deletions, self.pace.keys_in(BATCH_TAKES));
            self.delete_batch(&batch, &mut report, total).await;
            crash::point("prune-batch-deleted");
        };
        crash::point("prune-done");
        report.remainder.add(Remainder::of(&deletions));
        // The last batch may have been cut short.
        let stop = stop.or_else(|| self.until.stop().filter(|_| report.remainder != Remainder::default()));
        if let Some(stop) = stop {
            report.outcome = PruneOutcome::Stopped { stop };
        }
        report.end(self.clock.now(), self.root.requests(), more)
    }

    /// Whether the next batch may be deleted now: asks the registers and the caller again, and in that order, since the caller's word is
    /// the one that can be withdrawn at any moment. Takes out of `left` what may not go any more; leaves it as it is when dropped.
    async fn admit(&self, left: &mut Vec<Deletion>, owner: u64, listed: &mut Instant) -> Result<(), Stop> {
        let reading = self.read_again(owner).await?;
        if reading.fence.is_off() && listed.elapsed() > self.rules.plan.min_age {
            // The floor binds nobody here, so an old listing may be wrong about what is the newest. All that is left is judged by the
            // new one: the batches to come are then as young as this one.
            let begun = Instant::now();
            *left = self.still_deletable(left).await?;
            *listed = begun;
            self.read_again(owner).await?;
        }
        self.permission.ask().await
    }

    /// One LIST of the registers.
    pub(super) async fn read_again(&self, owner: u64) -> Result<Reading, Stop> {
        let reading = self.registers.read().await?;
        if reading.owner == owner { Ok(reading) } else { Err(Stop::OwnerChanged) }
    }

    /// Of what is left, what a plan of now still deletes, as it is now, in the same order. One listing of the root.
    async fn still_deletable(&self, left: &[Deletion]) -> Result<Vec<Deletion>, Stop> {
        let inventory = list(self.root, &self.rules.plan, &|_| {}).await?;
        let plan = Plan::new(&inventory, &self.rules.plan, &self.subject);
        let planned: HashSet<Epoch> = left.iter().map(Deletion::epoch).collect();
        let deletions =
            plan.into_deletions().map_err(|hold| Stop::Held { hold: hold.as_str(), message: hold.to_string() })?;
        // The floor was published for what was planned at first, so nothing joins it.
        Ok(deletions.into_iter().rev().filter(|deletion| planned.contains(&deletion.epoch())).collect())
    }
}

/// How much one run may still delete.
struct Allowance {
    objects: u64,
    /// The first epoch of a run always fits, however many objects it has: otherwise it would never go.
    first: bool,
}

impl Allowance {
    fn covers(&self, deletion: &Deletion) -> bool {
        self.first || deletion.objects() <= self.objects
    }

    /// Takes the next epochs from the end of `left`, oldest first: as many whole ones as fit, and no more than `keys` unless the first
    /// alone has more.
    fn next_batch(&mut self, left: &mut Vec<Deletion>, keys: Option<u64>) -> Vec<Deletion> {
        let mut batch = Vec::new();
        let mut keys = keys.unwrap_or(u64::MAX);
        while batch.len() < BATCH
            && let Some(deletion) =
                left.pop_if(|deletion| self.covers(deletion) && (batch.is_empty() || deletion.objects() <= keys))
        {
            keys = keys.saturating_sub(deletion.objects());
            self.first = false;
            self.objects = self.objects.saturating_sub(deletion.objects());
            batch.push(deletion);
        }
        batch
    }
}
