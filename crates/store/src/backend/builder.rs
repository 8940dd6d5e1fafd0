//! Building a backend that reads the registers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use epochwarden_core::{InstanceId, Numbering, Version};
use object_store::ObjectStore;
use uuid::Uuid;

use super::ObjectStoreBackend;
use super::guards::Guards;
use super::prune_before::PruneProgress;
use super::scan::HighestListed;
use crate::registers::Registers;
use crate::root::Root;

/// How old a write lets the cached fence become, unless it is told otherwise.
const FENCE_REFRESH: Duration = Duration::from_secs(10);

/// Makes an [`ObjectStoreBackend`]. Building does no request and spawns nothing.
#[must_use = "nothing is built before `build`"]
pub struct ObjectStoreBackendBuilder {
    store: Arc<dyn ObjectStore>,
    instance_id: Option<String>,
    holder: Option<String>,
    vnode_capacity: u32,
    leading: Option<u64>,
    numbering: Numbering,
    exclusive_partials: bool,
    fence_refresh: Duration,
}

impl ObjectStoreBackendBuilder {
    pub(super) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            store,
            instance_id: None,
            holder: None,
            vnode_capacity: u32::MAX,
            leading: None,
            numbering: Numbering::Plain,
            exclusive_partials: false,
            fence_refresh: FENCE_REFRESH,
        }
    }

    /// The name of this process start, and the body of its seals: see [`UniqueInstanceId`](crate::UniqueInstanceId). Without it, a random
    /// one.
    pub fn instance_id(mut self, instance_id: impl Into<String>) -> Self {
        self.instance_id = Some(instance_id.into());
        self
    }

    /// The name of this instance in the Lease, where it is not the instance id: fence records know it by this one.
    pub fn holder(mut self, holder: impl Into<String>) -> Self {
        self.holder = Some(holder.into());
        self
    }

    /// Vnodes are numbered below this. Without it, every `u32` but the highest is a vnode.
    pub fn vnode_capacity(mut self, vnode_capacity: u32) -> Self {
        self.vnode_capacity = vnode_capacity;
        self
    }

    /// This instance commits as the leader of `version`, whatever versions it hears of later. 0: with the fence off.
    pub fn leading(mut self, version: u64) -> Self {
        self.leading = Some(version);
        self
    }

    /// How this pipeline numbers its epochs. Without it, [`Numbering::Plain`].
    ///
    /// With [`Numbering::Versioned`], a write and a commit refuse an epoch outside of the range of the caller's version, before any
    /// request, with [`StateBackendError::EpochOutOfRange`](crate::StateBackendError::EpochOutOfRange). The caller's version is the
    /// `assignment_version` of a write, and the version that the instance commits as of a commit. Version 0, with which the fence is off,
    /// has no epochs at all: without a fence there are no terms to keep apart. [`ObjectStoreBackend::first_epoch`] says where a term begins.
    pub fn numbering(mut self, numbering: Numbering) -> Self {
        self.numbering = numbering;
        self
    }

    /// Whether a partial state is written once and never overwritten. Without it, the last writer wins.
    ///
    /// A write then succeeds where the object that is there has the same bytes, as after a write whose answer was lost, and is
    /// [`StateBackendError::PartialConflict`](crate::StateBackendError::PartialConflict) where it has others. That epoch is burnt: the
    /// leader goes on with a higher number. So no restored epoch holds the partials of two leaders, as long as a leader seals an epoch
    /// only after each of its partials was written with `Ok` in this term, and numbers its epochs above every one in the listing that it
    /// restored from.
    ///
    /// A write costs one PUT, as otherwise; where something is there already, a GET more. It waits and tries again, a bounded number of
    /// times, while the store says neither that the object was written nor that another one is there.
    pub fn exclusive_partials(mut self, exclusive: bool) -> Self {
        self.exclusive_partials = exclusive;
        self
    }

    /// How old the fence that a write compares with may be before it is read again. Without it, 10 seconds.
    pub fn fence_refresh(mut self, age: Duration) -> Self {
        self.fence_refresh = age;
        self
    }

    /// The backend.
    #[must_use]
    pub fn build(self) -> ObjectStoreBackend {
        self.finish(true)
    }

    pub(super) fn build_classic(self) -> ObjectStoreBackend {
        self.finish(false)
    }

    fn finish(self, reads_registers: bool) -> ObjectStoreBackend {
        let Self { store, instance_id, holder, vnode_capacity, leading, numbering, exclusive_partials, fence_refresh } =
            self;
        let instance_id = instance_id.unwrap_or_else(|| Uuid::new_v4().to_string());
        let registers = Registers::new(Root::from_store(Arc::clone(&store)).numbered(numbering), instance_id.clone());
        let guards = Guards::new(
            registers,
            holder.unwrap_or_else(|| instance_id.clone()),
            leading.map(Version::new),
            reads_registers,
            fence_refresh,
        );
        ObjectStoreBackend {
            store,
            instance: InstanceId::new(instance_id),
            vnode_capacity,
            exclusive_partials,
            guards: Arc::new(guards),
            listed: HighestListed::default(),
            pruned: PruneProgress::default(),
        }
    }
}

impl fmt::Debug for ObjectStoreBackendBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStoreBackendBuilder")
            .field("instance_id", &self.instance_id)
            .field("holder", &self.holder)
            .field("vnode_capacity", &self.vnode_capacity)
            .field("leading", &self.leading)
            .field("numbering", &self.numbering)
            .field("exclusive_partials", &self.exclusive_partials)
            .field("fence_refresh", &self.fence_refresh)
            .finish_non_exhaustive()
    }
}
