//! One epoch that a plan deletes, with every key it takes.

use crate::epoch::Epoch;
use crate::inventory::{EpochEntry, VnodeSet};
use crate::key;

/// An epoch to delete. Its keys are made again from what the listing showed: nothing has to be listed a second time.
#[derive(Debug, PartialEq, Eq)]
pub struct Deletion {
    epoch: Epoch,
    sealed: bool,
    objects: u64,
    bytes: u64,
    vnodes: Option<VnodeSet>,
    extras: Vec<String>,
    must_list: bool,
}

impl Deletion {
    pub(super) fn new(epoch: Epoch, entry: &EpochEntry) -> Self {
        Self {
            epoch,
            sealed: entry.is_sealed(),
            objects: entry.objects(),
            bytes: entry.bytes(),
            vnodes: entry.vnodes().cloned(),
            extras: entry.extras().to_vec(),
            must_list: entry.extras_overflow(),
        }
    }

    /// Which epoch.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether it had a seal when it was listed.
    #[must_use]
    pub const fn sealed(&self) -> bool {
        self.sealed
    }

    /// How many objects it had, the seal included.
    #[must_use]
    pub const fn objects(&self) -> u64 {
        self.objects
    }

    /// How many bytes these were.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The key of its seal, which has to be gone, confirmed, before any other key goes. `None` when it had none.
    #[must_use]
    pub fn seal_key(&self) -> Option<String> {
        self.sealed.then(|| key::commit(self.epoch))
    }

    /// Its keys other than the seal, each once.
    pub fn keys(&self) -> impl Iterator<Item = String> + '_ {
        let partials = self.vnodes.iter().flat_map(VnodeSet::iter).map(|vnode| key::partial(self.epoch, vnode));
        partials.chain(self.extras.iter().cloned())
    }

    /// Whether it has keys of the application, of which some may be listed by a name that deletes nothing.
    #[must_use]
    pub const fn has_extras(&self) -> bool {
        !self.extras.is_empty()
    }

    /// Whether it has keys beyond those of [`Deletion::keys`], so that it has to be listed to be deleted.
    #[must_use]
    pub const fn must_list(&self) -> bool {
        self.must_list
    }
}
