//! A listing as rules look at it: as it is, or as it was at an earlier instant.

use jiff::Timestamp;

use crate::epoch::Epoch;
use crate::inventory::{EpochEntry, Inventory, Seal};

/// An instant that an earlier plan was made at, as far as a later listing can tell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Past {
    /// The highest epoch that was listed then.
    pub(crate) through: Epoch,
    /// The newest last-modified that was listed then. What is newer was not there.
    pub(crate) at: Timestamp,
    /// Of the seals of that very instant, those from this epoch on were not there yet: a store may keep whole seconds, and a pipeline
    /// seals upwards.
    pub(crate) open_from: Option<Epoch>,
}

/// The epochs of a listing.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    inventory: &'a Inventory,
    past: Option<Past>,
}

/// One epoch of a view.
#[derive(Debug, Clone, Copy)]
pub(super) struct Viewed<'a> {
    pub(super) epoch: Epoch,
    pub(super) entry: &'a EpochEntry,
    pub(super) seal: Option<&'a Seal>,
    /// The last-modified of its newest object, as far as it was there.
    pub(super) newest: Timestamp,
}

impl<'a> View<'a> {
    /// The listing as it is.
    pub(super) const fn now(inventory: &'a Inventory) -> Self {
        Self { inventory, past: None }
    }

    /// The listing as it was, unless something was deleted since.
    pub(super) const fn past(inventory: &'a Inventory, past: Past) -> Self {
        Self { inventory, past: Some(past) }
    }

    /// Ascending.
    pub(super) fn epochs(self) -> impl DoubleEndedIterator<Item = Viewed<'a>> {
        self.inventory.epochs().filter(move |(epoch, _)| self.past.is_none_or(|past| *epoch <= past.through)).map(
            move |(epoch, entry)| match self.past {
                None => Viewed { epoch, entry, seal: entry.seal(), newest: entry.newest() },
                Some(past) => Viewed {
                    epoch,
                    entry,
                    seal: entry.seal().filter(|seal| past.had(epoch, seal)),
                    newest: entry.newest().min(past.at),
                },
            },
        )
    }

    /// How many there are.
    pub(super) fn len(self) -> usize {
        match self.past {
            None => self.inventory.len(),
            Some(_) => self.epochs().count(),
        }
    }

    /// What ages count back from.
    pub(super) fn computed_at(self) -> Option<Timestamp> {
        self.past.map(|past| past.at).or_else(|| self.inventory.newest_modified())
    }

    /// The number of vnodes that completeness was judged by.
    pub(super) const fn vnodes(self) -> Option<u32> {
        self.inventory.vnodes()
    }
}

impl Past {
    fn had(&self, epoch: Epoch, seal: &Seal) -> bool {
        let open = self.open_from.is_some_and(|open| epoch >= open);
        seal.modified < self.at || (seal.modified == self.at && !open)
    }
}
