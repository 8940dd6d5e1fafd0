//! The state backend of a pipeline: partial states and seals of epochs, guarded by the registers.

mod builder;
mod commit;
mod fence_cache;
mod guards;
mod partial;
mod prune_before;
mod restore;
mod scan;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use epochwarden_core::lease::LeaseIdentity;
use epochwarden_core::{Epoch, InstanceId, Version, Vnode};
use object_store::{Error, ObjectStore};

pub use self::builder::ObjectStoreBackendBuilder;
use self::guards::Guards;
use self::partial::get;
use self::prune_before::PruneProgress;
pub use self::restore::Restore;
use self::scan::HighestListed;
use crate::crash;
use crate::create::ATTEMPTS;
use crate::error::{StateBackendError, StoreError};

/// Where a pipeline keeps the states of its vnodes, epoch by epoch.
#[async_trait]
pub trait StateBackend: Send + Sync + 'static {
    /// Stores the state of `vnode` at `epoch`, overwriting what is there. `assignment_version` is the version under which the vnode
    /// was given to the caller: one below the authoritative version is [`StateBackendError::StaleVersion`]. That check is advisory;
    /// the commit is where it binds. Dropping the future leaves it open whether the state was written.
    ///
    /// A backend with [`ObjectStoreBackendBuilder::numbering`] or [`ObjectStoreBackendBuilder::exclusive_partials`] refuses more.
    async fn write_partial(
        &self,
        vnode: u32,
        epoch: u64,
        assignment_version: u64,
        bytes: Bytes,
    ) -> Result<(), StateBackendError>;

    /// The state of `vnode` at `epoch`; `None` when there is none.
    async fn read_partial(&self, vnode: u32, epoch: u64) -> Result<Option<Bytes>, StateBackendError>;

    /// Seals `epoch` once the state of each of `vnodes` is there. `Ok(true)` means that it is durably sealed by this instance, now or
    /// earlier; `Ok(false)` that a state is missing yet; an error that it must not be taken as sealed, even where a seal was written.
    /// Dropping the future leaves it open; calling again settles it.
    async fn epoch_complete(&self, epoch: u64, vnodes: &[u32]) -> Result<bool, StateBackendError>;

    /// Deletes every epoch below `before`.
    async fn prune_before(&self, before: u64) -> Result<(), StateBackendError>;

    /// The newest sealed epoch; `None` when none is sealed.
    async fn latest_committed_epoch(&self) -> Result<Option<u64>, StateBackendError>;

    /// Raises the authoritative version; a lower one changes nothing.
    fn set_authoritative_version(&self, version: u64);

    /// The highest authoritative version known: what was set, or what the fence was last seen at.
    fn authoritative_version(&self) -> u64;
}

/// A [`StateBackend`] over any object store.
///
/// [`ObjectStoreBackend::new`] is the classic backend: it reads no register until a version above 0 was set or
/// [`ObjectStoreBackend::refresh_fence`] was called. One from [`ObjectStoreBackend::builder`] always reads them. The version it commits
/// as is what [`ObjectStoreBackendBuilder::leading`] gave, else the highest that was set: never one that was read from the bucket.
///
/// | call | classic requests | with the registers |
/// |---|---|---|
/// | `write_partial` | 1 PUT; with exclusive partials 1 GET where something is there | a LIST of a handful of keys where the fence was read too long ago |
/// | `read_partial` | 1 GET | none |
/// | `epoch_complete` | HEAD, LIST of the epoch, PUT; HEAD, GET where it is sealed | 2 such LISTs, and 1 GET per version |
/// | `latest_committed_epoch` | 1 LIST of everything | 1 such LIST |
/// | `prune_before` | 1 LIST of the epochs, a HEAD or few; per deleted epoch a LIST and the deletes | 1 such LIST, 1 PUT |
pub struct ObjectStoreBackend {
    store: Arc<dyn ObjectStore>,
    instance: InstanceId,
    vnode_capacity: u32,
    exclusive_partials: bool,
    guards: Arc<Guards>,
    listed: HighestListed,
    pruned: PruneProgress,
}

impl ObjectStoreBackend {
    /// The classic backend. `instance_id` becomes the body of the seals: it should be new at every start of a process. Vnodes are
    /// numbered below `vnode_capacity`.
    pub fn new(store: Arc<dyn ObjectStore>, instance_id: impl Into<String>, vnode_capacity: u32) -> Self {
        Self::builder(store).instance_id(instance_id).vnode_capacity(vnode_capacity).build_classic()
    }

    /// A backend that always reads the registers.
    pub fn builder(store: Arc<dyn ObjectStore>) -> ObjectStoreBackendBuilder {
        ObjectStoreBackendBuilder::new(store)
    }

    /// The number that all vnodes lie below.
    #[must_use]
    pub fn vnode_capacity(&self) -> u32 {
        self.vnode_capacity
    }

    /// The counter of the authoritative version, which the caller may raise instead of
    /// [`StateBackend::set_authoritative_version`]. It holds what was set; what the fence was seen at is kept apart, so that it never
    /// becomes the version that this instance commits as.
    #[must_use]
    pub fn authoritative_version_handle(&self) -> Arc<AtomicU64> {
        self.guards.handle()
    }

    /// Below this epoch everything was deleted by a clean [`StateBackend::prune_before`]; stragglers may have come since.
    #[must_use]
    pub fn prune_cursor(&self) -> u64 {
        self.pruned.cursor()
    }

    /// Reads the fence now, and from now on at every commit. Returns its version; 0 when it is off. One LIST of a handful of keys.
    pub async fn refresh_fence(&self) -> Result<u64, StateBackendError> {
        self.guards.wake();
        let reading = self.guards.sample().await?.checked()?;
        Ok(reading.fence.get())
    }

    /// Makes `version` durable as this instance's term. A higher fence is [`StateBackendError::StaleVersion`]; a record of `version`
    /// by another holder, or from another Lease, is [`StateBackendError::FenceConflict`]. From now on the registers are read at every
    /// commit. One PUT, and one LIST where the registers were not read before.
    pub async fn publish_fence(&self, version: u64, lease: Option<LeaseIdentity>) -> Result<(), StateBackendError> {
        self.guards.publish_fence(Version::new(version), lease.as_ref()).await
    }

    /// Waits until the fence stands at `version`. A higher one is [`StateBackendError::StaleVersion`]; where this instance leads
    /// `version` and its record names another, [`StateBackendError::FenceConflict`]; [`StateBackendError::FenceNotReached`] after
    /// `timeout`. From now on the registers are read at every commit. It lists a handful of keys, first 10 times a second and later
    /// once.
    pub async fn await_fence(&self, version: u64, timeout: Duration) -> Result<(), StateBackendError> {
        self.guards.await_fence(Version::new(version), timeout).await
    }

    /// The epoch that a term of this instance begins with: one that the version which this instance commits as may use, above every
    /// number, sealed or not, that its listings have shown in [`ObjectStoreBackend::restore`] (also where that found nothing sealed) and
    /// [`StateBackend::latest_committed_epoch`], and above `highest_listed`: what [`Restore::highest_listed`] or a listing of the
    /// caller's own gave, if any.
    ///
    /// An instance that has listed nothing knows of nothing: restore first. `None` where there is no such number: this version has used
    /// up its range, or a higher one has written already. No request.
    #[must_use]
    pub fn first_epoch(&self, highest_listed: Option<u64>) -> Option<u64> {
        self.guards.first_epoch(highest_listed.map(Epoch::new).max(self.listed.get())).map(Epoch::get)
    }

    /// Waits until the fence names this instance as its holder, and returns the version: with `versionFrom: Assigned`, after the Lease
    /// was acquired. [`StateBackendError::FenceNotReached`] after `timeout`; [`StateBackendError::StaleVersion`] where this instance was
    /// built to lead a version that the fence has passed. From now on the registers are read at every commit.
    ///
    /// The version is *not* what this backend commits as from then on: a term that is still under way in this process must not end as
    /// part of the next one. Lead with a backend of its own, built with [`ObjectStoreBackendBuilder::leading`], or pass the version to
    /// [`StateBackend::set_authoritative_version`] once nothing of an earlier term is left; until then commits are refused.
    ///
    /// It relies on a name that no other process had before: see [`ObjectStoreBackendBuilder::instance_id`]. Where the Lease is acquired
    /// again by the same process, the version of its earlier term may be returned as long as that one stands; the commit finds out when
    /// it is superseded. Wait again then, and keep the Lease: who gives it up for that may meet the same at the next one.
    ///
    /// It lists a handful of keys, first 10 times a second and later once, and reads one record whenever the fence has risen. Dropping
    /// the future changes nothing.
    pub async fn await_leadership(&self, timeout: Duration) -> Result<u64, StateBackendError> {
        self.guards.await_leadership(timeout).await.map(Version::get)
    }

    fn check_vnode(&self, vnode: u32) -> Result<Vnode, StateBackendError> {
        check_vnode(vnode, self.vnode_capacity)
    }
}

fn check_vnode(vnode: u32, capacity: u32) -> Result<Vnode, StateBackendError> {
    if vnode < capacity {
        return Ok(Vnode::new(vnode));
    }
    let reason =
        format!("vnodes lie below the capacity {capacity} of this backend: build it with more, or correct the vnode");
    Err(StateBackendError::Io { key: format!("vnode={vnode}"), source: reason.into() })
}

/// A failed request for `key`.
fn io(key: impl Into<String>) -> impl FnOnce(Error) -> StateBackendError {
    let key = key.into();
    |source| StateBackendError::Io { key, source: Box::new(source) }
}

/// Nothing settled whether `key` was created: the last failure, or that the store answered and shows nothing.
fn unknown(key: String, last: Option<Error>) -> StateBackendError {
    let source: Box<dyn std::error::Error + Send + Sync> = match last {
        Some(error) => Box::new(error),
        None => Box::new(StoreError::OutcomeUnknown { location: key.clone(), attempts: ATTEMPTS, source: None }),
    };
    StateBackendError::Io { key, source }
}

#[async_trait]
impl StateBackend for ObjectStoreBackend {
    async fn write_partial(
        &self,
        vnode: u32,
        epoch: u64,
        assignment_version: u64,
        bytes: Bytes,
    ) -> Result<(), StateBackendError> {
        let (vnode, epoch) = (self.check_vnode(vnode)?, Epoch::new(epoch));
        let version = Version::new(assignment_version);
        // A number that is not the caller's is never written, whatever is known of the fence; so no answer is waited for to refuse it.
        self.guards.check_epoch(epoch, version)?;
        self.guards.check_assignment(version).await?;
        crash::point("partial-before-put");
        self.put_partial(vnode, epoch, bytes).await?;
        crash::point("partial-put");
        Ok(())
    }

    async fn read_partial(&self, vnode: u32, epoch: u64) -> Result<Option<Bytes>, StateBackendError> {
        let vnode = self.check_vnode(vnode)?;
        get(self.store.as_ref(), vnode, Epoch::new(epoch)).await
    }

    async fn epoch_complete(&self, epoch: u64, vnodes: &[u32]) -> Result<bool, StateBackendError> {
        self.commit(Epoch::new(epoch), vnodes).await
    }

    /// Deletes every epoch below `before`, except that the newest sealed one is never among them: that is
    /// [`StateBackendError::LatestSealed`], before anything is deleted. Calls 0, 32, 64, … look at all epochs; those between only at
    /// what lies above [`ObjectStoreBackend::prune_cursor`], so a straggler below it stays until then. With the fence on, the floor is
    /// raised to `before` first. A delete that fails is an error after the rest was tried; the cursor then stays.
    async fn prune_before(&self, before: u64) -> Result<(), StateBackendError> {
        self.delete_below(Epoch::new(before)).await
    }

    async fn latest_committed_epoch(&self) -> Result<Option<u64>, StateBackendError> {
        Ok(self.newest_sealed().await?.map(Epoch::get))
    }

    fn set_authoritative_version(&self, version: u64) {
        self.guards.raise(Version::new(version));
    }

    fn authoritative_version(&self) -> u64 {
        self.guards.authoritative().get()
    }
}

impl fmt::Debug for ObjectStoreBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStoreBackend")
            .field("store", &format_args!("{}", self.store))
            .field("instance", &self.instance)
            .field("vnode_capacity", &self.vnode_capacity)
            .field("exclusive_partials", &self.exclusive_partials)
            .field("guards", &self.guards)
            .field("listed", &self.listed)
            .field("pruned", &self.pruned)
            .finish()
    }
}
