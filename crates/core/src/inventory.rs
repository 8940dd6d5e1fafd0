//! What a listing of a store root shows, folded to one small entry per epoch.
//!
//! [`InventoryBuilder::observe`] takes the keys one by one, in any order, as often as there are objects; what it keeps is bounded by the
//! number of epochs. A key that is observed twice (a page that was listed again) counts once, as far as the layout knows it.

mod entry;
mod index;
mod vnodes;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use crate::epoch::{Epoch, Vnode};
use crate::key::Key;
use crate::numbering::{Numbering, ShownEpoch};
use crate::register::Reading;

pub use entry::{EXTRAS_KEPT, EpochEntry, OutOfRange, Seal};
pub use index::{EpochIndex, Sealing};
pub(crate) use vnodes::VnodeSet;

/// How many foreign keys are kept as examples.
pub const FOREIGN_EXAMPLES: usize = 10;

/// Keys that fit nothing of the layout: never deleted, only reported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foreign {
    count: u64,
    examples: BTreeSet<String>,
}

impl Foreign {
    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The first [`FOREIGN_EXAMPLES`] of them, ascending.
    pub fn examples(&self) -> impl Iterator<Item = &str> {
        self.examples.iter().map(String::as_str)
    }

    fn observe(&mut self, key: &str) {
        self.count = self.count.saturating_add(1);
        self.examples.insert(key.to_owned());
        if self.examples.len() > FOREIGN_EXAMPLES {
            self.examples.pop_last();
        }
    }
}

/// Sums over all epochs of a listing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Epochs with a seal.
    pub sealed: u64,
    /// Epochs without one.
    pub unsealed: u64,
    /// Objects of epochs.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a listing says about a root's epochs, in a few numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EpochsSummary {
    /// The newest sealed epoch.
    pub latest_committed: Option<ShownEpoch>,
    /// When it was sealed, by the store's clock.
    pub latest_committed_at: Option<Timestamp>,
    /// The oldest sealed epoch.
    pub oldest_sealed: Option<ShownEpoch>,
    /// Epochs with a seal.
    pub sealed: u64,
    /// Epochs without one.
    pub unsealed: u64,
    /// Objects of epochs.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the listing was made.
    pub observed_at: Timestamp,
}

/// Folds a listing to an [`Inventory`].
#[derive(Debug)]
pub struct InventoryBuilder {
    inventory: Inventory,
}

impl InventoryBuilder {
    /// For a pipeline of `vnodes` vnodes: an epoch is complete with the partials of `0..vnodes`.
    #[must_use]
    pub fn new(vnodes: u32) -> Self {
        Self::with(Some(vnodes))
    }

    /// Where the number of vnodes is not known: no epoch is complete, and so no plan made of this deletes anything.
    #[must_use]
    pub fn without_vnodes() -> Self {
        Self::with(None)
    }

    fn with(vnodes: Option<u32>) -> Self {
        Self {
            inventory: Inventory {
                vnodes,
                numbering: Numbering::Plain,
                epochs: BTreeMap::new(),
                foreign: Foreign::default(),
                newer_layout: None,
                reading: Reading::default(),
            },
        }
    }

    /// Where epochs are shown as `numbering` writes them: here, and in all that is made of this inventory. Without it, plainly.
    #[must_use]
    pub fn numbered(mut self, numbering: Numbering) -> Self {
        self.inventory.numbering = numbering;
        self
    }

    /// Counts one object: its key relative to the store root, its size in bytes, its last-modified by the store's clock, its `ETag`.
    pub fn observe(&mut self, key: &str, size: u64, modified: Timestamp, etag: Option<&str>) {
        match Key::parse(key) {
            Key::Partial { epoch, vnode } => self.entry(epoch, modified).observe_partial(key, vnode, size, modified),
            Key::Commit { epoch } => self.entry(epoch, modified).observe_seal(size, modified, etag),
            Key::Extra { epoch } if is_addressable(key, size) => {
                self.entry(epoch, modified).observe_extra(key, size, modified);
            }
            Key::Extra { epoch } | Key::FolderMarker { epoch } => {
                self.entry(epoch, modified).observe_unaddressable(key, size, modified);
            }
            Key::Register { kind, number } => self.inventory.reading.observe(kind, number),
            Key::Probe => {}
            Key::NewerLayout => {
                let first = &mut self.inventory.newer_layout;
                if first.as_deref().is_none_or(|first| key < first) {
                    *first = Some(key.to_owned());
                }
            }
            Key::Foreign => self.inventory.foreign.observe(key),
        }
    }

    fn entry(&mut self, epoch: Epoch, modified: Timestamp) -> &mut EpochEntry {
        let vnodes = self.inventory.vnodes;
        self.inventory.epochs.entry(epoch).or_insert_with(|| EpochEntry::new(vnodes, modified))
    }

    /// The inventory of everything that was observed.
    #[must_use]
    pub fn finish(self) -> Inventory {
        self.inventory
    }
}

/// Whether deleting the extra key `key` by its name removes it.
///
/// Clients strip a trailing slash, so the marker of the folder `epoch=5/vnode=3/` lists as an empty object `epoch=5/vnode=3`, and deleting
/// it by that name succeeds without removing anything, time and again.
fn is_addressable(key: &str, size: u64) -> bool {
    let name = key.split('/').next_back().unwrap_or(key);
    let vnode_folder = key.split('/').count() == 2
        && name.strip_prefix("vnode=").is_some_and(|number| number.parse::<Vnode>().is_ok())
        && size == 0;
    let odd_segment = key.split('/').any(|segment| matches!(segment, "" | "." | ".."));
    !vnode_folder && !odd_segment && !key.contains(char::is_control)
}

/// A listing of a store root: its epochs, the registers that were seen on the way, and what belongs to neither.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    vnodes: Option<u32>,
    numbering: Numbering,
    epochs: BTreeMap<Epoch, EpochEntry>,
    foreign: Foreign,
    newer_layout: Option<String>,
    reading: Reading,
}

impl Inventory {
    /// All listed epochs, sealed or not, ascending.
    #[must_use]
    pub fn epochs(&self) -> impl DoubleEndedIterator<Item = (Epoch, &EpochEntry)> + ExactSizeIterator {
        self.epochs.iter().map(|(epoch, entry)| (*epoch, entry))
    }

    /// The sealed epochs with their seals, ascending.
    #[must_use]
    pub fn seals(&self) -> impl DoubleEndedIterator<Item = (Epoch, &Seal)> {
        self.epochs().filter_map(|(epoch, entry)| Some((epoch, entry.seal()?)))
    }

    /// One epoch.
    #[must_use]
    pub fn get(&self, epoch: Epoch) -> Option<&EpochEntry> {
        self.epochs.get(&epoch)
    }

    /// How many epochs are listed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.epochs.len()
    }

    /// Whether no epoch is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.epochs.is_empty()
    }

    /// The sealed epoch with the highest number.
    #[must_use]
    pub fn newest_sealed(&self) -> Option<Epoch> {
        self.seals().next_back().map(|(epoch, _)| epoch)
    }

    /// The sealed epoch with the lowest number.
    #[must_use]
    pub fn oldest_sealed(&self) -> Option<Epoch> {
        self.seals().next().map(|(epoch, _)| epoch)
    }

    /// The highest epoch that is sealed and has the partials of all vnodes. `None` where the number of vnodes is not known.
    #[must_use]
    pub fn newest_complete(&self) -> Option<Epoch> {
        self.epochs().rev().find(|(_, entry)| entry.is_sealed() && entry.is_complete()).map(|(epoch, _)| epoch)
    }

    /// The highest epoch listed, sealed or not.
    #[must_use]
    pub fn highest_listed(&self) -> Option<Epoch> {
        self.epochs.last_key_value().map(|(epoch, _)| *epoch)
    }

    /// The newest last-modified of all objects of epochs. Registers and foreign keys do not count: they are written while a pipeline
    /// stands still, and would make its epochs age.
    #[must_use]
    pub fn newest_modified(&self) -> Option<Timestamp> {
        self.epochs.values().map(EpochEntry::newest).max()
    }

    /// Sums over all epochs.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.epochs.values().fold(Totals::default(), |totals, entry| Totals {
            sealed: totals.sealed + u64::from(entry.is_sealed()),
            unsealed: totals.unsealed + u64::from(!entry.is_sealed()),
            objects: totals.objects.saturating_add(entry.objects()),
            bytes: totals.bytes.saturating_add(entry.bytes()),
        })
    }

    /// The epochs in a few numbers; `observed_at` is when the listing was made.
    #[must_use]
    pub fn summary(&self, observed_at: Timestamp) -> EpochsSummary {
        let Totals { sealed, unsealed, objects, bytes } = self.totals();
        let latest = self.seals().next_back();
        EpochsSummary {
            latest_committed: latest.map(|(epoch, _)| self.numbering.show(epoch)),
            latest_committed_at: latest.map(|(_, seal)| seal.modified),
            oldest_sealed: self.oldest_sealed().map(|epoch| self.numbering.show(epoch)),
            sealed,
            unsealed,
            objects,
            bytes,
            observed_at,
        }
    }

    /// The keys outside of the layout.
    #[must_use]
    pub const fn foreign(&self) -> &Foreign {
        &self.foreign
    }

    /// The first key that shows a layout newer than this one: the whole root is to be left alone.
    #[must_use]
    pub fn newer_layout(&self) -> Option<&str> {
        self.newer_layout.as_deref()
    }

    /// The number of vnodes that completeness was judged by.
    #[must_use]
    pub const fn vnodes(&self) -> Option<u32> {
        self.vnodes
    }

    /// How its epochs are shown.
    #[must_use]
    pub const fn numbering(&self) -> Numbering {
        self.numbering
    }

    /// The registers, as far as their records were among the keys observed.
    #[must_use]
    pub const fn reading(&self) -> Reading {
        self.reading
    }
}

#[cfg(test)]
mod tests;
