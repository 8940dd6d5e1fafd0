//! One term of a leader: from its version to the error that ends it.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, ensure};
use epochwarden_store::{ObjectStoreBackend, Root, StateBackend, StateBackendError};
use futures::future::try_join_all;
use tokio::time::{MissedTickBehavior, interval};

use crate::election::Candidate;
use crate::pause::Pause;
use crate::state::Counter;

/// How long the operator may take to publish this term's fence.
const FENCE_TIMEOUT: Duration = Duration::from_secs(15);

/// How often a restore that was overtaken by a prune starts over.
const RESTORES: u32 = 5;

/// What a term needs to know.
pub(crate) struct Term<'a> {
    pub(crate) root: &'a Root,
    pub(crate) identity: &'a str,
    pub(crate) version: u64,
    pub(crate) vnodes: u32,
    pub(crate) interval: Duration,
}

/// The state that a term starts from.
struct Restored {
    counters: Vec<Counter>,
    /// Above every epoch number in the bucket, sealed or not: an unsealed epoch may hold partials of another term.
    next_epoch: u64,
}

impl Term<'_> {
    /// Waits for the fence, restores, and seals an epoch per interval, until the Lease or the bucket says that the term is over.
    pub(crate) async fn lead(&self, candidate: &mut Candidate, pause: &mut Pause) -> anyhow::Result<Infallible> {
        let backend = ObjectStoreBackend::builder(self.root.prefixed_store())
            .instance_id(self.identity)
            .vnode_capacity(self.vnodes)
            .leading(self.version)
            // Whoever led before may have been paused in the middle of writing: no state is ever overwritten, so none of its gets into an
            // epoch of this term.
            .exclusive_partials(true)
            .build();
        // Once the version is durable in the bucket, no leader before this one can commit any more; and not before it this one can.
        backend.await_fence(self.version, FENCE_TIMEOUT).await?;
        println!("fenced version {}", self.version);

        let Restored { mut counters, next_epoch: mut epoch } = self.restore(&backend).await?;
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            ensure!(candidate.renew().await?, "the Lease has another holder");
            counters.iter_mut().for_each(Counter::count_events);
            self.write(&backend, epoch, &counters).await?;
            pause.between_writing_and_sealing(epoch).await?;
            self.seal(&backend, epoch, &counters).await?;
            epoch += 1;
        }
    }

    /// Writes the partial of each vnode. The epoch may be sealed only after every one of them was written by this very term: that
    /// an object is there does not say who wrote it. A conflict with what another has written ends the term, as any failure does; the
    /// next one begins above this epoch.
    async fn write(&self, backend: &ObjectStoreBackend, epoch: u64, counters: &[Counter]) -> anyhow::Result<()> {
        let partials = (0..self.vnodes)
            .zip(counters)
            .map(async |(vnode, counter)| backend.write_partial(vnode, epoch, self.version, counter.to_bytes()).await);
        try_join_all(partials).await.with_context(|| format!("writing epoch {epoch}"))?;
        Ok(())
    }

    /// Seals the epoch. The backend reads the fence before and after it creates the seal: `Ok(true)` alone is an acknowledgement.
    async fn seal(&self, backend: &ObjectStoreBackend, epoch: u64, counters: &[Counter]) -> anyhow::Result<()> {
        let vnodes: Vec<u32> = (0..self.vnodes).collect();
        match backend.epoch_complete(epoch, &vnodes).await {
            Ok(true) => println!("sealed {epoch}: {} events so far", total(counters)),
            // Gaps between epochs are normal: the next one takes in what this one would have.
            Ok(false) => println!("skipped {epoch}: a partial is missing"),
            Err(refusal) => {
                println!("refused {epoch}: {refusal}");
                return Err(refusal).with_context(|| format!("sealing epoch {epoch}"));
            }
        }
        Ok(())
    }

    /// The state of the newest sealed epoch; an empty one only when nothing was ever sealed.
    async fn restore(&self, backend: &ObjectStoreBackend) -> anyhow::Result<Restored> {
        let mut tries = 1;
        loop {
            match self.try_restore(backend).await {
                // The bucket moved on while it was read. What was read is dropped; never lead without state instead.
                Err(error) if tries < RESTORES && started_over(&error) => tries += 1,
                outcome => return outcome.context("restoring"),
            }
        }
    }

    async fn try_restore(&self, backend: &ObjectStoreBackend) -> anyhow::Result<Restored> {
        let Some(restore) = backend.restore(None).await? else {
            println!("restored nothing: no epoch is sealed yet");
            let next_epoch = backend.first_epoch(None).context("no epoch is left")?;
            let counters = (0..self.vnodes).map(|_| Counter::default()).collect();
            return Ok(Restored { counters, next_epoch });
        };
        let partials = try_join_all((0..self.vnodes).map(|vnode| restore.read_partial(vnode))).await?;
        let epoch = restore.epoch();
        let next_epoch = backend.first_epoch(None).context("no epoch is left")?;
        // Only after this second look is it certain that no prune and no other leader came in between.
        restore.finish().await?;
        let counters =
            partials.iter().map(|partial| Counter::from_bytes(partial)).collect::<anyhow::Result<Vec<_>>>()?;
        println!("restored {epoch}: {} events so far", total(&counters));
        Ok(Restored { counters, next_epoch })
    }
}

fn started_over(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(StateBackendError::RestoreIncomplete { .. }))
}

fn total(counters: &[Counter]) -> u64 {
    counters.iter().map(Counter::events).sum()
}
