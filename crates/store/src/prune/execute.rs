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

/// The most epochs of one batch.
pub(super) const BATCH: usize = 1000;

/// With the fence off a listing is trusted for `minAge`. Where that is less than this, no listing could be made that is younger when its
/// batch is sent, so this much age is none.
const FRESH: Duration = Duration::from_secs(1);

/// What the batches are judged by.
struct Grounds {
    approved: Option<HashSet<Epoch>>,
    owner: u64,
    listed: Instant,
}

impl Run<'_> {
    /// Deletes. What was found so far is in `prepared`.
    pub(super) async fn carry_out(&self, prepared: Prepared) -> PruneReport {
        let Prepared { mut report, mut deletions, approved, owner, listed } = prepared;
        let mut grounds = Grounds { approved, owner, listed };
        let mut allowance = Allowance { objects: self.rules.max_objects, first: true };
        let total = Remainder::of(&deletions).objects;
        deletions.reverse();
        let stop = loop {
            if deletions.is_empty() {
                break None;
            }
            if let Some(stop) = self.until.stop() {
                break Some(stop);
            }
            let batch = allowance.next_batch(&mut deletions);
            if batch.is_empty() {
                break Some(Stop::MaxObjects);
            }
            let unstarted = Remainder::of(&batch);
            match self.until.bound(self.admit(batch, &mut grounds)).await.flatten() {
                Ok(batch) => self.delete_batch(&batch, &mut report, total).await,
                Err(stop) => {
                    report.remainder.add(unstarted);
                    break Some(stop);
                }
            }
        };
        report.remainder.add(Remainder::of(&deletions));
        // The last batch may have been cut short.
        let stop = stop.or_else(|| self.until.stop().filter(|_| report.remainder != Remainder::default()));
        if let Some(stop) = stop {
            report.outcome = PruneOutcome::Stopped { stop };
        }
        report.end(self.clock.now(), self.root.requests())
    }

    /// What of a batch may be deleted now: asks the registers and the caller again, and in that order, since the caller's word is the one
    /// that can be withdrawn at any moment.
    async fn admit(&self, batch: Vec<Deletion>, grounds: &mut Grounds) -> Result<Vec<Deletion>, Stop> {
        let reading = self.read_again(grounds.owner).await?;
        let trusted = self.rules.plan.min_age.max(FRESH);
        let batch = if reading.fence.is_off() && grounds.listed.elapsed() > trusted {
            // The floor binds nobody here, so an old listing may be wrong about what is the newest.
            grounds.listed = Instant::now();
            let batch = self.still_deletable(&batch).await?;
            self.read_again(grounds.owner).await?;
            batch
        } else {
            batch
        };
        self.permission.ask().await?;
        Ok(match &grounds.approved {
            Some(approved) => batch.into_iter().filter(|deletion| approved.contains(&deletion.epoch())).collect(),
            None => batch,
        })
    }

    /// One LIST of the registers.
    async fn read_again(&self, owner: u64) -> Result<Reading, Stop> {
        let reading = self.registers.read().await?;
        if reading.owner == owner { Ok(reading) } else { Err(Stop::OwnerChanged) }
    }

    /// Of a batch, what a plan of now still deletes, as it is now. One listing of the root.
    async fn still_deletable(&self, batch: &[Deletion]) -> Result<Vec<Deletion>, Stop> {
        let inventory = list(self.root, &self.rules.plan, &|_| {}).await?;
        let plan = Plan::new(&inventory, &self.rules.plan, &self.subject);
        let planned: HashSet<Epoch> = batch.iter().map(Deletion::epoch).collect();
        let deletions =
            plan.into_deletions().map_err(|hold| Stop::Held { hold: hold.as_str(), message: hold.to_string() })?;
        Ok(deletions.into_iter().filter(|deletion| planned.contains(&deletion.epoch())).collect())
    }
}

/// How much one run may still delete.
struct Allowance {
    objects: u64,
    /// The first epoch of a run always fits, however many objects it has: otherwise it would never go.
    first: bool,
}

impl Allowance {
    /// Takes the next epochs from the end of `left`, oldest first: as many whole ones as fit.
    fn next_batch(&mut self, left: &mut Vec<Deletion>) -> Vec<Deletion> {
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(deletion) = left.pop_if(|deletion| self.first || deletion.objects() <= self.objects)
        {
            self.first = false;
            self.objects = self.objects.saturating_sub(deletion.objects());
            batch.push(deletion);
        }
        batch
    }
}
