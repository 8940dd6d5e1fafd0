//! One epoch of a listing.

use jiff::Timestamp;

use crate::epoch::Vnode;
use crate::inventory::vnodes::VnodeSet;

/// How many keys outside of the layout are kept per epoch. Beyond that, the epoch has to be listed again to be deleted.
pub const EXTRAS_KEPT: usize = 64;

/// The seal of an epoch, as the listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// Its last-modified, by the store's clock.
    pub modified: Timestamp,
    /// Its `ETag`, where the store gives one.
    pub etag: Option<Box<str>>,
    /// Its size in bytes.
    pub size: u64,
}

/// The partials of vnodes that the pipeline should not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfRange {
    /// How many there are.
    pub count: u64,
    /// The lowest of these vnodes.
    pub first: Vnode,
}

/// What is known about one epoch: enough to judge it and to delete it key by key, whatever the number of its objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochEntry {
    newest: Timestamp,
    newest_partial: Option<(Timestamp, Vnode)>,
    /// Objects and bytes without the seal, which is counted from `seal`.
    objects: u64,
    bytes: u64,
    seal: Option<Box<Seal>>,
    /// `None` where the number of vnodes is not known.
    vnodes: Option<VnodeSet>,
    unusual: Option<Box<Unusual>>,
}

/// What few epochs have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Unusual {
    /// Ascending, the lowest [`EXTRAS_KEPT`].
    extras: Vec<String>,
    overflow: bool,
    /// The lowest key that cannot be deleted by its name.
    unaddressable: Option<Box<str>>,
    out_of_range: Option<OutOfRange>,
}

impl Unusual {
    /// Keeps a key; `false` when it is known to have been kept before.
    fn insert(&mut self, key: &str) -> bool {
        match self.extras.binary_search_by(|extra| extra.as_str().cmp(key)) {
            Ok(_) => false,
            Err(index) => {
                // Which keys stay must not depend on the order of the listing: always the lowest.
                if index < EXTRAS_KEPT {
                    self.extras.insert(index, key.to_owned());
                }
                if index >= EXTRAS_KEPT || self.extras.len() > EXTRAS_KEPT {
                    self.extras.truncate(EXTRAS_KEPT);
                    self.overflow = true;
                }
                true
            }
        }
    }
}

impl EpochEntry {
    pub(super) fn new(vnodes: Option<u32>, modified: Timestamp) -> Self {
        Self {
            newest: modified,
            newest_partial: None,
            objects: 0,
            bytes: 0,
            seal: None,
            vnodes: vnodes.map(VnodeSet::new),
            unusual: None,
        }
    }

    pub(super) fn observe_partial(&mut self, key: &str, vnode: Vnode, size: u64, modified: Timestamp) {
        self.newest_partial = self.newest_partial.max(Some((modified, vnode)));
        let new = match &mut self.vnodes {
            None => true,
            Some(vnodes) if vnodes.spans(vnode) => vnodes.insert(vnode),
            Some(_) => self.observe_out_of_range(key, vnode),
        };
        self.count(new, size, modified);
    }

    fn observe_out_of_range(&mut self, key: &str, vnode: Vnode) -> bool {
        let unusual = self.unusual.get_or_insert_default();
        let new = unusual.insert(key);
        if new {
            let found = unusual.out_of_range.get_or_insert(OutOfRange { count: 0, first: vnode });
            found.count += 1;
            found.first = found.first.min(vnode);
        }
        new
    }

    pub(super) fn observe_seal(&mut self, size: u64, modified: Timestamp, etag: Option<&str>) {
        self.newest = self.newest.max(modified);
        // A seal that shows up twice was written again while the listing ran: the later one stands.
        if self.seal.as_ref().is_none_or(|seal| seal.modified < modified) {
            self.seal = Some(Box::new(Seal { modified, etag: etag.map(Into::into), size }));
        }
    }

    pub(super) fn observe_extra(&mut self, key: &str, size: u64, modified: Timestamp) {
        let new = self.unusual.get_or_insert_default().insert(key);
        self.count(new, size, modified);
    }

    pub(super) fn observe_unaddressable(&mut self, key: &str, size: u64, modified: Timestamp) {
        self.observe_extra(key, size, modified);
        let lowest = &mut self.unusual.get_or_insert_default().unaddressable;
        if lowest.as_deref().is_none_or(|lowest| key < lowest) {
            *lowest = Some(key.into());
        }
    }

    fn count(&mut self, new: bool, size: u64, modified: Timestamp) {
        self.newest = self.newest.max(modified);
        if new {
            self.objects = self.objects.saturating_add(1);
            self.bytes = self.bytes.saturating_add(size);
        }
    }

    /// How many objects it has, the seal included.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.objects.saturating_add(u64::from(self.is_sealed()))
    }

    /// How many bytes these are.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.saturating_add(self.seal.as_ref().map_or(0, |seal| seal.size))
    }

    /// The last-modified of its newest object, of whatever kind, by the store's clock.
    #[must_use]
    pub const fn newest(&self) -> Timestamp {
        self.newest
    }

    /// Its newest partial: when it was written, and whose it is. The highest vnode of those with the same time.
    #[must_use]
    pub const fn newest_partial(&self) -> Option<(Timestamp, Vnode)> {
        self.newest_partial
    }

    /// Its seal.
    #[must_use]
    pub fn seal(&self) -> Option<&Seal> {
        self.seal.as_deref()
    }

    /// Whether it has a seal.
    #[must_use]
    pub const fn is_sealed(&self) -> bool {
        self.seal.is_some()
    }

    /// Whether every vnode of `0..vnodes` has its partial. `false` where the number of vnodes is not known.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.vnodes.as_ref().is_some_and(VnodeSet::is_whole)
    }

    /// How many vnodes of `0..vnodes` have no partial; 0 where the number of vnodes is not known.
    #[must_use]
    pub fn missing_count(&self) -> u32 {
        self.vnodes.as_ref().map_or(0, VnodeSet::missing_count)
    }

    /// The vnodes of `0..vnodes` without a partial, ascending, the first `limit` of them.
    #[must_use]
    pub fn missing(&self, limit: usize) -> Vec<Vnode> {
        self.vnodes.iter().flat_map(VnodeSet::missing).take(limit).collect()
    }

    /// The partials of vnodes at or above the number of vnodes.
    #[must_use]
    pub fn out_of_range(&self) -> Option<OutOfRange> {
        self.unusual.as_ref().and_then(|unusual| unusual.out_of_range)
    }

    /// Its keys that are neither the seal nor the partial of a vnode of `0..vnodes`, ascending: all of them, or the first
    /// [`EXTRAS_KEPT`] where [`EpochEntry::extras_overflow`].
    #[must_use]
    pub fn extras(&self) -> &[String] {
        self.unusual.as_ref().map_or(&[], |unusual| unusual.extras.as_slice())
    }

    /// Whether it has more extra keys than were kept: only listing it shows all of its keys.
    #[must_use]
    pub fn extras_overflow(&self) -> bool {
        self.unusual.as_ref().is_some_and(|unusual| unusual.overflow)
    }

    /// The first key that cannot be deleted by its name, such as a folder marker.
    #[must_use]
    pub fn unaddressable(&self) -> Option<&str> {
        self.unusual.as_ref().and_then(|unusual| unusual.unaddressable.as_deref())
    }

    /// The vnodes whose partials were seen; `None` where the number of vnodes is not known.
    pub(crate) const fn vnodes(&self) -> Option<&VnodeSet> {
        self.vnodes.as_ref()
    }

    /// The bytes that this entry occupies, in itself and behind its pointers.
    #[cfg(test)]
    pub(super) fn footprint(&self) -> usize {
        let seal = self.seal().map_or(0, |seal| size_of_val(seal) + seal.etag.as_ref().map_or(0, |etag| etag.len()));
        let unusual = self.unusual.as_deref().map_or(0, |unusual| {
            let text = unusual.extras.iter().map(String::capacity).sum::<usize>();
            size_of_val(unusual) + unusual.extras.capacity() * size_of::<String>() + text
        });
        size_of_val(self) + seal + unusual + self.vnodes.as_ref().map_or(0, VnodeSet::heap_bytes)
    }
}
