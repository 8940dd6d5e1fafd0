//! A pipeline that goes on sealing epochs, through changes of its leader, and remembers what it was told is durable.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use epochwarden_store::{ObjectStoreBackend, Root, StateBackend, StateBackendError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::SOON;
use super::lease::Leader;

/// The time between two epochs.
const PACE: Duration = Duration::from_millis(60);

/// One epoch in so many is begun and never sealed, as by a worker that was lost.
const ABANDONED: u64 = 6;

/// What the pipeline is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Order {
    /// Lead after so many changes of leadership.
    Lead(i32),
    Stop,
}

/// A running pipeline. Each of its leaders is a process start of its own: a new name, a new version.
pub(crate) struct Pipeline {
    leader: Leader,
    transitions: i32,
    orders: watch::Sender<Order>,
    acknowledged: Arc<Mutex<BTreeSet<u64>>>,
    task: JoinHandle<Result<()>>,
}

impl Pipeline {
    /// Starts its first leader, which waits for its fence like every other.
    pub(crate) async fn start(leader: Leader, root: &Root, vnodes: u32) -> Result<Self> {
        leader.lead(&holder(0), 0).await?;
        let (orders, receiver) = watch::channel(Order::Lead(0));
        let acknowledged = Arc::default();
        let worker = Worker {
            root: root.clone(),
            vnodes,
            orders: receiver,
            acknowledged: Arc::clone(&acknowledged),
            deposed: None,
        };
        Ok(Self { leader, transitions: 0, orders, acknowledged, task: tokio::spawn(worker.run()) })
    }

    /// Another leader, at once. The old one finds out by itself.
    pub(crate) async fn fail_over(&mut self) -> Result<()> {
        self.transitions += 1;
        self.leader.lead(&holder(self.transitions), self.transitions).await?;
        self.orders.send_replace(Order::Lead(self.transitions));
        Ok(())
    }

    /// The version of the leader.
    pub(crate) fn version(&self) -> u64 {
        u64::try_from(self.transitions).unwrap_or_default() + 1
    }

    /// The epochs of which it was told that they are sealed.
    pub(crate) fn acknowledged(&self) -> BTreeSet<u64> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it. An error when it met anything that a pipeline must not meet.
    pub(crate) async fn stop(self) -> Result<BTreeSet<u64>> {
        self.orders.send_replace(Order::Stop);
        timeout(SOON, self.task).await.context("the pipeline does not end")???;
        let acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(acknowledged.clone())
    }

    /// An error when it has ended: it met something that a pipeline must not meet.
    pub(crate) async fn check(&mut self) -> Result<()> {
        if self.task.is_finished() {
            (&mut self.task).await??;
            bail!("the pipeline has ended without being told to");
        }
        Ok(())
    }
}

fn holder(transitions: i32) -> String {
    format!("pod-{transitions}")
}

struct Worker {
    root: Root,
    vnodes: u32,
    orders: watch::Receiver<Order>,
    acknowledged: Arc<Mutex<BTreeSet<u64>>>,
    /// The leader before, and an epoch that it had begun.
    deposed: Option<(ObjectStoreBackend, u64)>,
}

impl Worker {
    async fn run(mut self) -> Result<()> {
        loop {
            let order = self.orders.borrow_and_update().clone();
            match order {
                Order::Stop => return Ok(()),
                Order::Lead(transitions) => {
                    self.term(transitions).await.with_context(|| format!("the leader {}", holder(transitions)))?;
                }
            }
        }
    }

    /// Leads until something else is ordered.
    async fn term(&mut self, transitions: i32) -> Result<()> {
        let version = u64::try_from(transitions)? + 1;
        let backend = ObjectStoreBackend::builder(self.root.prefixed_store())
            .instance_id(holder(transitions))
            .vnode_capacity(self.vnodes)
            .leading(version)
            .fence_refresh(Duration::from_millis(200))
            .build();
        let mut orders = self.orders.clone();
        tokio::select! {
            _ = orders.changed() => return Ok(()),
            reached = backend.await_fence(version, 2 * SOON) => match reached {
                // The next leader is declared, and its fence stands.
                Err(StateBackendError::StaleVersion { .. }) => {
                    self.orders.changed().await?;
                    return Ok(());
                }
                reached => reached.context("waiting for the fence")?,
            },
        }
        if let Some((deposed, begun)) = self.deposed.take() {
            // It has not heard that it was deposed. From now on nothing of it may become durable.
            let stale = deposed.epoch_complete(begun, &self.all()).await;
            ensure!(
                matches!(stale, Err(StateBackendError::StaleVersion { .. })),
                "a deposed leader was told {stale:?}"
            );
        }
        let Some(next) = self.restore(&backend).await? else {
            return Ok(());
        };
        self.seal(backend, version, next).await
    }

    /// Restores as a leader must, and gives the number of its first epoch; `None` where it was deposed meanwhile.
    async fn restore(&self, backend: &ObjectStoreBackend) -> Result<Option<u64>> {
        let newest = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).last().copied();
        let restored = async {
            let Some(restore) = backend.restore(None).await? else { return Ok(None) };
            for vnode in 0..self.vnodes {
                restore.read_partial(vnode).await?;
            }
            let epoch = restore.epoch();
            restore.finish().await?;
            Ok(Some(epoch))
        };
        match restored.await {
            Ok(None) => {
                ensure!(newest.is_none(), "nothing was restored, and epoch {newest:?} was acknowledged");
                Ok(backend.first_epoch(None))
            }
            Ok(Some(epoch)) => {
                ensure!(Some(epoch) >= newest, "epoch {epoch} was restored, and {newest:?} was acknowledged");
                Ok(backend.first_epoch(None))
            }
            Err(StateBackendError::StaleVersion { .. }) => Ok(None),
            Err(error) => Err(error).context("restoring"),
        }
    }

    async fn seal(&mut self, backend: ObjectStoreBackend, version: u64, first: u64) -> Result<()> {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut epoch = first;
        let mut abandoned = None;
        loop {
            let abandon = epoch.is_multiple_of(ABANDONED);
            match self.epoch(&backend, version, epoch, abandon).await {
                Ok(()) if abandon => abandoned = Some(epoch),
                Ok(()) => {}
                Err(StateBackendError::StaleVersion { .. }) => {
                    // Deposed. What replaced it is ordered, or about to be.
                    self.orders.changed().await?;
                    return Ok(());
                }
                Err(error) => return Err(error).context(format!("epoch {epoch}")),
            }
            epoch += 1;
            tokio::select! {
                changed = self.orders.changed() => {
                    changed?;
                    self.deposed = abandoned.map(|begun| (backend, begun));
                    return Ok(());
                }
                _ = pace.tick() => {}
            }
        }
    }

    async fn epoch(
        &self,
        backend: &ObjectStoreBackend,
        version: u64,
        epoch: u64,
        abandon: bool,
    ) -> Result<(), StateBackendError> {
        let vnodes = if abandon { 1 } else { self.vnodes };
        for vnode in 0..vnodes {
            backend.write_partial(vnode, epoch, version, Bytes::from(format!("{epoch}/{vnode}"))).await?;
        }
        if !abandon && backend.epoch_complete(epoch, &self.all()).await? {
            self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert(epoch);
        }
        Ok(())
    }

    fn all(&self) -> Vec<u32> {
        (0..self.vnodes).collect()
    }
}
