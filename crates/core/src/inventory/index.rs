//! What an index of a root shows: which epochs there are, and their seals. Not their objects.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{EpochEntry, Inventory, Seal};
use crate::epoch::Epoch;
use crate::key::Key;

/// How sealing goes: the newest seal, and what is written above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealing {
    /// The newest sealed epoch, and when it was sealed, by the store's clock.
    pub newest: Option<(Epoch, Timestamp)>,
    /// The lowest epoch above it; where nothing was ever sealed, the lowest of all.
    pub first_above: Option<Epoch>,
    /// How many epochs are above it.
    pub above: u64,
    /// Where nothing was ever sealed: since when a seal is waited for, as far as that is known.
    pub begun: Option<Timestamp>,
}

/// The epochs of a root with their seals: bounded by the number of epochs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EpochIndex {
    epochs: BTreeMap<Epoch, Option<Seal>>,
    newer_layout: Option<String>,
    begun: Option<Timestamp>,
}

impl EpochIndex {
    /// Notes an object, of whatever kind: its key relative to the store root, its size in bytes, its last-modified by the store's clock,
    /// its `ETag`.
    pub fn observe(&mut self, key: &str, size: u64, modified: Timestamp, etag: Option<&str>) {
        if let Key::Commit { epoch } = Key::parse(key) {
            let seal = self.epochs.entry(epoch).or_default();
            // A seal that shows up twice was written again while the listing ran: the later one stands.
            if seal.as_ref().is_none_or(|seal| seal.modified < modified) {
                *seal = Some(Seal { modified, etag: etag.map(Into::into), size });
            }
        } else {
            self.observe_folder(key);
        }
    }

    /// Notes that there is something below a folder, whose objects are not shown.
    pub fn observe_folder(&mut self, folder: &str) {
        match Key::parse(folder) {
            Key::Partial { epoch, .. } | Key::Commit { epoch } | Key::Extra { epoch } | Key::FolderMarker { epoch } => {
                self.epochs.entry(epoch).or_default();
            }
            Key::NewerLayout => {
                self.newer_layout.get_or_insert_with(|| folder.to_owned());
            }
            Key::Register { .. } | Key::Probe | Key::Foreign => {}
        }
    }

    /// Notes since when a seal is waited for, which an index does not show where nothing was ever sealed.
    pub fn begun_at(&mut self, begun: Timestamp) {
        self.begun = Some(begun);
    }

    /// The lowest epoch, where there are epochs and none of them is sealed.
    #[must_use]
    pub fn never_sealed(&self) -> Option<Epoch> {
        let (first, _) = self.epochs.first_key_value()?;
        self.newest_sealed().is_none().then_some(*first)
    }

    /// The epochs, ascending.
    #[must_use]
    pub fn epochs(&self) -> impl DoubleEndedIterator<Item = Epoch> {
        self.epochs.keys().copied()
    }

    fn seals(&self) -> impl DoubleEndedIterator<Item = (Epoch, &Seal)> {
        self.epochs.iter().filter_map(|(epoch, seal)| Some((*epoch, seal.as_ref()?)))
    }

    /// The sealed epoch with the highest number, and its seal.
    #[must_use]
    pub fn newest_sealed(&self) -> Option<(Epoch, &Seal)> {
        self.seals().next_back()
    }

    /// The sealed epoch with the lowest number.
    #[must_use]
    pub fn oldest_sealed(&self) -> Option<Epoch> {
        self.seals().next().map(|(epoch, _)| epoch)
    }

    /// How many epochs are sealed.
    #[must_use]
    pub fn sealed(&self) -> usize {
        self.seals().count()
    }

    /// How many epochs are not.
    #[must_use]
    pub fn unsealed(&self) -> usize {
        self.epochs.len() - self.sealed()
    }

    /// A key that shows a layout newer than this one: then nothing here says anything.
    #[must_use]
    pub fn newer_layout(&self) -> Option<&str> {
        self.newer_layout.as_deref()
    }

    /// How sealing goes.
    #[must_use]
    pub fn sealing(&self) -> Sealing {
        let newest = self.newest_sealed().map(|(epoch, seal)| (epoch, seal.modified));
        above(newest, self.epochs(), self.begun)
    }
}

impl From<&Inventory> for EpochIndex {
    fn from(inventory: &Inventory) -> Self {
        Self {
            epochs: inventory.epochs().map(|(epoch, entry)| (epoch, entry.seal().cloned())).collect(),
            newer_layout: inventory.newer_layout().map(str::to_owned),
            begun: inventory.sealing().begun,
        }
    }
}

impl Inventory {
    /// How sealing goes.
    #[must_use]
    pub fn sealing(&self) -> Sealing {
        let newest = self.seals().next_back().map(|(epoch, seal)| (epoch, seal.modified));
        // The wait began with the first epoch that was written.
        let begun = self.epochs().map(|(_, entry)| EpochEntry::newest(entry)).min();
        above(newest, self.epochs().map(|(epoch, _)| epoch), begun)
    }
}

fn above(
    newest: Option<(Epoch, Timestamp)>,
    epochs: impl DoubleEndedIterator<Item = Epoch>,
    begun: Option<Timestamp>,
) -> Sealing {
    let unsealed = epochs.rev().take_while(|epoch| newest.is_none_or(|(newest, _)| *epoch > newest));
    let (first_above, above) = unsealed.fold((None, 0), |(_, count), epoch| (Some(epoch), count + 1));
    Sealing { newest, first_above, above, begun: begun.filter(|_| newest.is_none()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::InventoryBuilder;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn epoch(number: u64) -> Epoch {
        Epoch::new(number)
    }

    /// Objects as a delimiter listing shows them, and the folders whose objects it hides.
    fn index(objects: &[(&str, i64)], folders: &[&str]) -> EpochIndex {
        let mut index = EpochIndex::default();
        for (key, second) in objects {
            index.observe(key, 7, at(*second), Some("tag"));
        }
        for folder in folders {
            index.observe_folder(folder);
        }
        index
    }

    #[test]
    fn an_index_tells_sealed_epochs_from_unsealed_ones() {
        let index = index(
            &[
                ("epoch=9/_COMMIT", 90),
                ("epoch=10/_COMMIT", 100),
                ("epoch=11/notes.txt", 105),
                ("epoch=007/_COMMIT", 500),
                ("readme.txt", 500),
            ],
            &["epoch=9/vnode=", "epoch=10/vnode=", "epoch=12/vnode=", "epoch=x/vnode=", "_epochwarden/fence"],
        );
        assert_eq!(index.epochs().map(Epoch::get).collect::<Vec<_>>(), [9, 10, 11, 12]);
        let (newest, seal) = index.newest_sealed().unwrap();
        assert_eq!((newest, seal.modified, seal.size, seal.etag.as_deref()), (epoch(10), at(100), 7, Some("tag")));
        assert_eq!((index.oldest_sealed(), index.sealed(), index.unsealed()), (Some(epoch(9)), 2, 2));
        assert_eq!((index.never_sealed(), index.newer_layout()), (None, None));
        let sealing = index.sealing();
        assert_eq!(
            sealing,
            Sealing { newest: Some((epoch(10), at(100))), first_above: Some(epoch(11)), above: 2, begun: None }
        );
    }

    #[test]
    fn a_seal_that_is_shown_twice_counts_once_with_its_later_time() {
        let index = index(&[("epoch=9/_COMMIT", 95), ("epoch=9/_COMMIT", 90)], &["epoch=9/vnode="]);
        assert_eq!((index.sealed(), index.unsealed()), (1, 0));
        assert_eq!(index.newest_sealed().unwrap().1.modified, at(95));
    }

    #[test]
    fn where_nothing_was_sealed_the_lowest_epoch_is_asked_for() {
        let mut index = index(&[], &["epoch=4/vnode=", "epoch=3/vnode="]);
        assert_eq!(index.never_sealed(), Some(epoch(3)));
        let unknown = Sealing { newest: None, first_above: Some(epoch(3)), above: 2, begun: None };
        assert_eq!(index.sealing(), unknown);
        index.begun_at(at(7));
        assert_eq!(index.sealing(), Sealing { begun: Some(at(7)), ..unknown });
        assert_eq!(EpochIndex::default().never_sealed(), None);
    }

    #[test]
    fn the_mark_of_a_newer_layout_is_kept() {
        assert_eq!(index(&[("epoch=5/_SEAL", 1)], &[]).newer_layout(), Some("epoch=5/_SEAL"));
    }

    #[test]
    fn a_whole_listing_says_the_same_of_sealing_as_its_index() {
        for objects in [
            &[("epoch=9/_COMMIT", 90), ("epoch=9/vnode=0/partial.bin", 80), ("epoch=11/vnode=0/partial.bin", 99)][..],
            &[("epoch=9/vnode=0/partial.bin", 80), ("epoch=7/vnode=0/partial.bin", 85)],
            &[("epoch=9/_COMMIT", 90), ("epoch=7/vnode=0/partial.bin", 185)],
            &[],
        ] {
            let mut builder = InventoryBuilder::new(1);
            for (key, second) in objects {
                builder.observe(key, 7, at(*second), Some("tag"));
            }
            let inventory = builder.finish();
            let converted = EpochIndex::from(&inventory);
            assert_eq!(converted.sealing(), inventory.sealing());
            let mut observed = index(objects, &[]);
            if observed.never_sealed().is_some() {
                observed.begun_at(at(80));
            }
            assert_eq!(observed.sealing(), inventory.sealing(), "{objects:?}");
        }
    }
}
