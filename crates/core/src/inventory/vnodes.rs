//! Which vnodes of an epoch have their partial, in as little memory as that takes.

use crate::epoch::Vnode;

/// The vnodes of `0..vnodes` that were seen.
///
/// The bitmap exists only while some were seen and some were not: an epoch without partials and a whole one cost nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VnodeSet {
    vnodes: u32,
    seen: u32,
    words: Box<[u64]>,
}

impl VnodeSet {
    /// An empty set over `0..vnodes`.
    pub(crate) fn new(vnodes: u32) -> Self {
        Self { vnodes, seen: 0, words: Box::default() }
    }

    /// Whether `vnode` is one of `0..vnodes`.
    pub(crate) const fn spans(&self, vnode: Vnode) -> bool {
        vnode.get() < self.vnodes
    }

    /// Whether every vnode was seen. Over no vnodes at all nothing is whole: what cannot be known to be complete is not.
    pub(crate) const fn is_whole(&self) -> bool {
        self.vnodes > 0 && self.seen == self.vnodes
    }

    /// Counts a vnode; `false` when it was seen before or lies outside of the range.
    pub(crate) fn insert(&mut self, vnode: Vnode) -> bool {
        if !self.spans(vnode) || self.is_whole() {
            return false;
        }
        if self.words.is_empty() {
            self.words = vec![0; self.vnodes.div_ceil(u64::BITS) as usize].into_boxed_slice();
        }
        let (index, bit) = position(vnode);
        let Some(word) = self.words.get_mut(index) else {
            return false;
        };
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
        self.seen += 1;
        if self.is_whole() {
            self.words = Box::default();
        }
        true
    }

    /// Whether `vnode` was seen.
    pub(crate) fn contains(&self, vnode: Vnode) -> bool {
        let (index, bit) = position(vnode);
        self.spans(vnode) && (self.is_whole() || self.words.get(index).is_some_and(|word| word & bit != 0))
    }

    /// How many were not seen.
    pub(crate) const fn missing_count(&self) -> u32 {
        self.vnodes - self.seen
    }

    /// Those that were not seen, ascending.
    pub(crate) fn missing(&self) -> impl Iterator<Item = Vnode> + '_ {
        (0..self.vnodes).map(Vnode::new).filter(|vnode| !self.contains(*vnode))
    }

    /// Those that were seen, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Vnode> + '_ {
        (0..self.vnodes).map(Vnode::new).filter(|vnode| self.contains(*vnode))
    }

    /// The bytes of the bitmap.
    #[cfg(test)]
    pub(crate) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.words)
    }
}

/// Which word of the bitmap holds a vnode, and its bit there.
const fn position(vnode: Vnode) -> (usize, u64) {
    ((vnode.get() / u64::BITS) as usize, 1 << (vnode.get() % u64::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(vnodes: u32, numbers: impl IntoIterator<Item = u32>) -> VnodeSet {
        let mut set = VnodeSet::new(vnodes);
        for number in numbers {
            set.insert(Vnode::new(number));
        }
        set
    }

    #[test]
    fn a_set_is_whole_when_every_vnode_was_seen_and_then_needs_no_bitmap() {
        for vnodes in [1, 63, 64, 65, 200] {
            let mut set = seen(vnodes, 1..vnodes);
            assert!(!set.is_whole(), "{vnodes}");
            assert_eq!(set.missing().collect::<Vec<_>>(), [Vnode::new(0)]);
            assert!(set.insert(Vnode::new(0)));
            assert!(set.is_whole());
            assert_eq!((set.heap_bytes(), set.missing_count()), (0, 0));
            assert_eq!(set.iter().count(), vnodes as usize);
        }
    }

    #[test]
    fn seeing_a_vnode_again_counts_nothing() {
        let mut set = seen(3, [1, 1, 1]);
        assert!(!set.insert(Vnode::new(1)));
        assert_eq!(set.missing().collect::<Vec<_>>(), [Vnode::new(0), Vnode::new(2)]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [Vnode::new(1)]);
        let mut whole = seen(2, 0..2);
        assert!(!whole.insert(Vnode::new(1)));
        assert!(whole.is_whole());
    }

    #[test]
    fn what_lies_outside_of_the_range_is_never_in_the_set() {
        let mut set = seen(2, 0..2);
        for number in [2, 64, u32::MAX] {
            assert!(!set.insert(Vnode::new(number)) && !set.contains(Vnode::new(number)), "{number}");
        }
    }

    #[test]
    fn over_no_vnodes_nothing_is_whole() {
        assert!(!seen(0, [0, 1]).is_whole());
    }
}
