//! One instant of a pipeline: the objects of its bucket, its leaders and its pruners.

use super::{LEADERS, PRUNERS, SLOTS, VNODES};

/// A set of slots, or of vnodes.
pub(crate) type Mask = u16;

/// The index of an epoch number among the numbers of the model, ascending.
pub(crate) type Slot = u8;

/// Who wrote: the index of a leader + 1, or 0 for nobody, which means that the object is not there.
pub(crate) type Writer = u8;

/// Where the state of a leader comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Base {
    /// Nothing was restored yet.
    None,
    /// It began without state, because nothing was ever sealed.
    Empty,
    /// The partials of this epoch, by those who wrote them.
    Restored(Slot, [Writer; VNODES]),
}

/// What a leader does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// A restore: the first guard read.
    RestoreGuard,
    /// A restore: LIST, with `cursor` the next folder in the order of the keys.
    /// `floor` is kept only where a mutation remembers that the first guard read showed one.
    RestoreList { cursor: u8, sealed: Option<Slot>, highest: Option<Slot>, floor: bool },
    /// A restore: GET of the partial of `vnode`.
    RestoreRead { vnode: u8, slot: Slot, first: Writer, highest: Option<Slot> },
    /// A restore: the second guard read.
    RestoreCheck { found: Option<(Slot, [Writer; VNODES])>, highest: Option<Slot> },
    /// It takes the number of its next epoch.
    Choosing,
    /// The partials are under way; what `write_partial` answered is in `written`.
    Writing { written: Mask },
    /// A commit: the first guard read.
    Guard,
    /// A commit: whether `_COMMIT` exists.
    Exists,
    /// A commit: GET of the `_COMMIT` that is there. Where it is gone by then, the create is sent again if one was `refused`; otherwise
    /// the commit goes on as if none had been there.
    Compare { refused: bool },
    /// A commit: LIST of the epoch.
    List,
    /// A commit: the create of `_COMMIT` is under way.
    Sealing,
    /// A commit: the second guard read.
    GuardAgain,
    /// It was refused, and leads no more.
    Refused,
}

/// One start of a process that leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Leader {
    pub(crate) phase: Phase,
    pub(crate) base: Base,
    /// Slots below this one are not for it.
    pub(crate) from: Slot,
    /// The epoch under way, once it has begun one.
    pub(crate) slot: Slot,
    /// How many epochs it began.
    pub(crate) begun: u8,
    /// Its PUTs of partials that may still land, whether or not it still waits for them.
    pub(crate) partials: [Mask; VNODES],
    /// Its PUTs of seals that may still land.
    pub(crate) seals: Mask,
    /// A second copy of the PUT of a seal, sent because no answer came.
    pub(crate) resent: Option<Slot>,
}

impl Leader {
    /// Whether a PUT of a partial of `slot` may still land.
    pub(crate) fn awaits(&self, slot: Slot) -> bool {
        self.partials.iter().any(|partials| partials & bit(slot) != 0)
    }
}

/// What a pruner does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Pruner {
    /// LIST of the root.
    Listing { cursor: u8, sealed: Mask, partials: [Mask; VNODES] },
    /// The floor has to be durable before anything is deleted.
    Planned { plan: Mask },
    /// Deletes; `open` are the epochs whose seals are confirmed gone, `done` those with which it is through.
    Deleting { plan: Mask, open: Mask, done: Mask, floor: bool },
}

impl Pruner {
    pub(crate) const NEW: Self = Self::Listing { cursor: 0, sealed: 0, partials: [0; VNODES] };
}

/// One instant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// The highest version; without guards, that of the newest leader.
    pub(crate) fence: u8,
    /// Slots below this one are below the floor.
    pub(crate) floor: Slot,
    pub(crate) seals: [Writer; SLOTS],
    pub(crate) partials: [[Writer; VNODES]; SLOTS],
    /// Seals that landed below a floor which stood already: never acknowledged, and no finding of an audit.
    pub(crate) late: Mask,
    pub(crate) leaders: [Leader; LEADERS],
    pub(crate) pruners: [Option<Pruner>; PRUNERS],
    /// What each leader was told `Ok(true)` for.
    pub(crate) acknowledged: [Mask; LEADERS],
    /// The promises that were broken on the way here, as bits of [`super::Promise`].
    pub(crate) broken: u8,
}

impl State {
    pub(crate) fn is_sealed(&self, slot: Slot) -> bool {
        self.seals[usize::from(slot)] != 0
    }

    pub(crate) fn is_whole(&self, slot: Slot) -> bool {
        self.is_sealed(slot) && self.partials[usize::from(slot)].iter().all(|writer| *writer != 0)
    }

    /// Whether what `writer` wrote at `slot` descends from what `leader` wrote at `of`.
    pub(crate) fn descends(&self, writer: Writer, slot: Slot, leader: usize, of: Slot) -> bool {
        let Some(index) = usize::from(writer).checked_sub(1) else { return false };
        if index == leader && of <= slot {
            return true;
        }
        match self.leaders[index].base {
            // A state never comes from a later one, so this ends.
            Base::Restored(slot, writers) => writers.iter().all(|writer| self.descends(*writer, slot, leader, of)),
            Base::None | Base::Empty => false,
        }
    }

    /// Every epoch that was acknowledged, with the leader that it was acknowledged to.
    pub(crate) fn acknowledgements(&self) -> impl Iterator<Item = (usize, Slot)> + '_ {
        let slots = |mask: Mask| (0..SLOTS as Slot).filter(move |slot| mask & bit(*slot) != 0);
        self.acknowledged
            .iter()
            .enumerate()
            .flat_map(move |(leader, mask)| slots(*mask).map(move |slot| (leader, slot)))
    }
}

pub(crate) const fn bit(slot: Slot) -> Mask {
    1 << slot
}
