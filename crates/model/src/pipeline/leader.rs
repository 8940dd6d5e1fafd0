//! A leader: restore, write, commit.

use epochwarden_core::guard::{Committer, Guard, SealOwner, Standing, guard, seal_owner};
use epochwarden_core::register::Reading;
use epochwarden_core::{Epoch, Version};

use super::{Action, Base, Mutation, Phase, Pipeline, Promise, Row, SLOTS, Slot, State, VNODES, Writer, bit};

pub(super) const BEGIN_LIST: Phase = Phase::RestoreList { cursor: 0, sealed: None, highest: None, floor: false };

const ALL_VNODES: u16 = (1 << VNODES) - 1;

impl Pipeline {
    pub(super) fn leader_actions(&self, state: &State, index: usize, actions: &mut Vec<Action>) {
        let leader = &state.leaders[index];
        match leader.phase {
            // It does not lead yet. Where there are guards, its first read shows so, and is made again.
            _ if self.version(index).get() > u64::from(state.fence) => {}
            Phase::Refused => {}
            Phase::Sealing => {
                if self.gives_up {
                    actions.push(Action::CommitsAgain(index));
                    actions.push(Action::GivesUp(index));
                }
            }
            Phase::Choosing => actions.extend(self.choices(state, index).map(|slot| Action::Begins(index, slot))),
            Phase::Writing { written } => {
                if self.early && written != ALL_VNODES {
                    actions.push(Action::CommitsEarly(index));
                }
                if self.gives_up {
                    actions.push(Action::GivesUp(index));
                }
            }
            _ => actions.push(Action::Leader(index)),
        }
        for slot in self.slots() {
            for vnode in 0..VNODES {
                if leader.partials[vnode] & bit(slot) != 0 {
                    actions.push(Action::PartialLands(index, slot, vnode));
                }
            }
            if leader.seals & bit(slot) != 0 {
                actions.push(Action::SealLands(index, slot));
            }
        }
        if leader.resent.is_some() {
            actions.push(Action::ResentSealLands(index));
        } else if self.resend && leader.phase == Phase::Sealing {
            actions.push(Action::Resends(index));
        }
    }

    /// The slots that a leader may take for its next epoch.
    fn choices(&self, state: &State, index: usize) -> impl Iterator<Item = Slot> + use<> {
        let leader = &state.leaders[index];
        let range = self.numbering().range(self.version(index));
        let first = leader.from;
        let usable: Vec<Slot> = self
            .slots()
            .filter(|slot| *slot >= first && range.as_ref().is_none_or(|range| range.contains(&self.epoch(*slot))))
            .take(usize::from(self.choice))
            .collect();
        let left = leader.begun < self.epochs;
        usable.into_iter().filter(move |_| left)
    }

    /// Goes on to the next epoch where there is nothing to choose: what is sent is seen only when it lands.
    pub(super) fn settle(&self, state: &mut State, index: usize) {
        if state.leaders[index].phase != Phase::Choosing {
            return;
        }
        let mut choices = self.choices(state, index);
        if let (Some(only), None) = (choices.next(), choices.next()) {
            Self::begin(state, index, only);
        }
    }

    pub(super) fn begin(state: &mut State, index: usize, slot: Slot) {
        let leader = &mut state.leaders[index];
        leader.slot = slot;
        leader.from = slot + 1;
        leader.begun += 1;
        for partials in &mut leader.partials {
            *partials |= bit(slot);
        }
        leader.phase = Phase::Writing { written: 0 };
    }

    pub(super) fn next_epoch(&self, state: &mut State, index: usize) {
        state.leaders[index].phase = Phase::Choosing;
        self.settle(state, index);
    }

    pub(super) fn begin_commit(&self, state: &mut State, index: usize) {
        let guarded = self.has_guards() && !self.is(Mutation::NoFirstGuard);
        state.leaders[index].phase = if guarded { Phase::Guard } else { Phase::Exists };
    }

    pub(super) fn partial_lands(&self, state: &mut State, index: usize, slot: Slot, vnode: usize) {
        let writer = index as Writer + 1;
        state.leaders[index].partials[vnode] &= !bit(slot);
        let object = &mut state.partials[usize::from(slot)][vnode];
        let conflict = self.is_exclusive() && *object != 0 && *object != writer;
        if !conflict {
            *object = writer;
        }
        let leader = &mut state.leaders[index];
        let Phase::Writing { mut written } = leader.phase else { return };
        if leader.slot != slot {
            return;
        }
        if conflict && !self.is(Mutation::PartialAlreadyExistsAsSuccess) && !self.is(Mutation::ConflictDoesNotBurn) {
            return self.next_epoch(state, index);
        }
        written |= 1 << vnode;
        leader.phase = Phase::Writing { written };
        if written == ALL_VNODES {
            self.begin_commit(state, index);
        }
    }

    pub(super) fn seal_lands(&self, state: &mut State, index: usize, slot: Slot, is_heard: bool) {
        let seal = &mut state.seals[usize::from(slot)];
        let stands = *seal;
        if stands == 0 {
            *seal = index as Writer + 1;
            if slot < state.floor {
                state.late |= bit(slot);
            } else {
                state.late &= !bit(slot);
            }
        }
        if !is_heard || state.leaders[index].phase != Phase::Sealing || state.leaders[index].slot != slot {
            return;
        }
        if stands == 0 || self.is(Mutation::SealAlreadyExistsAsSuccess) {
            self.sealed(state, index);
        } else {
            state.leaders[index].phase = Phase::Compare { refused: true };
        }
    }

    fn send_seal(state: &mut State, index: usize) {
        let leader = &mut state.leaders[index];
        leader.seals |= bit(leader.slot);
        leader.phase = Phase::Sealing;
    }

    fn compare(&self, state: &mut State, index: usize, stands: Writer) {
        let body = self.starts[usize::from(stands) - 1].name.as_bytes();
        match seal_owner(body, &self.instances[index]) {
            SealOwner::Ours => self.sealed(state, index),
            SealOwner::Another(_) => state.leaders[index].phase = Phase::Refused,
        }
    }

    fn sealed(&self, state: &mut State, index: usize) {
        if self.has_guards() && !self.is(Mutation::NoSecondGuard) {
            state.leaders[index].phase = Phase::GuardAgain;
        } else {
            self.acknowledge(state, index);
        }
    }

    fn acknowledge(&self, state: &mut State, index: usize) {
        let slot = state.leaders[index].slot;
        state.acknowledged[index] |= bit(slot);
        if !state.is_whole(slot) {
            self.breaks(state, Promise::Kept);
            self.breaks(state, Promise::KeptInLine);
        }
        if state.seals[usize::from(slot)]
            .checked_sub(1)
            .is_none_or(|by| self.starts[usize::from(by)].name != self.starts[index].name)
        {
            self.breaks(state, Promise::OwnSeal);
        }
        let version = self.version(index);
        for later in 0..self.starts.len() {
            let behind = match state.leaders[later].base {
                Base::None => false,
                Base::Empty => later != 0,
                Base::Restored(from, writers) => {
                    !writers.iter().all(|writer| state.descends(*writer, from, index, slot))
                }
            };
            if later > index && self.version(later) >= version && behind {
                self.breaks(state, Promise::Lineage);
            }
        }
        self.next_epoch(state, index);
    }

    /// A guard read, decided by the rule of the library.
    fn guard(&self, state: &State, index: usize, epoch: Option<Epoch>) -> Guard {
        let committer =
            Committer { version: self.version(index), holder: self.starts[index].name, seen: Reading::default() };
        let reading = Reading { fence: Version::new(u64::from(state.fence)), floor: self.floor_of(state), owner: 0 };
        guard(&committer, epoch, &reading, Standing::Record(&self.records[index_of(self, state.fence)]))
    }

    /// What a commit asks the guard about.
    fn compared(&self, slot: Slot) -> Option<Epoch> {
        (!self.is(Mutation::CommitIgnoresFloor)).then(|| self.epoch(slot))
    }

    /// The floor as an epoch: right above the highest slot below it.
    fn floor_of(&self, state: &State) -> Epoch {
        let below = state.floor.checked_sub(1).map(|slot| self.epoch(slot));
        below.and_then(Epoch::next).unwrap_or(Epoch::ZERO)
    }

    pub(super) fn step(&self, state: &mut State, index: usize) {
        let slot = state.leaders[index].slot;
        match state.leaders[index].phase {
            Phase::RestoreGuard => {
                let stands = matches!(self.guard(state, index, None), Guard::Holds | Guard::FenceConflict { .. });
                let floor = state.floor > 0 && self.is(Mutation::EmptyWithoutSecondRead);
                let list = Phase::RestoreList { cursor: 0, sealed: None, highest: None, floor };
                state.leaders[index].phase = if stands { list } else { Phase::Refused };
            }
            Phase::RestoreList { cursor, sealed, highest, floor } => {
                self.restore_list(state, index, (cursor, sealed, highest, floor));
            }
            Phase::RestoreRead { vnode, slot, first, highest } => {
                let writer = state.partials[usize::from(slot)][usize::from(vnode)];
                state.leaders[index].phase = match (writer, vnode) {
                    (0, _) => self.begin_restore(),
                    (writer, 0) => Phase::RestoreRead { vnode: 1, slot, first: writer, highest },
                    (writer, _) => Phase::RestoreCheck { found: Some((slot, [first, writer])), highest },
                };
                if let Phase::RestoreCheck { found, highest } = state.leaders[index].phase
                    && (!self.has_guards() || self.is(Mutation::RestoreWithoutSecondRead))
                {
                    self.restored(state, index, found, highest);
                }
            }
            Phase::RestoreCheck { found, highest } => self.restore_check(state, index, found, highest),
            Phase::Guard => match self.guard(state, index, self.compared(slot)) {
                Guard::Holds => state.leaders[index].phase = Phase::Exists,
                Guard::EpochPruned { .. } => self.next_epoch(state, index),
                _ => state.leaders[index].phase = Phase::Refused,
            },
            Phase::Exists => match state.seals[usize::from(slot)] {
                0 => state.leaders[index].phase = Phase::List,
                _ => state.leaders[index].phase = Phase::Compare { refused: false },
            },
            Phase::Compare { refused } => match state.seals[usize::from(slot)] {
                0 if refused => Self::send_seal(state, index),
                0 => state.leaders[index].phase = Phase::List,
                stands => self.compare(state, index, stands),
            },
            Phase::List => {
                let there = state.partials[usize::from(slot)].iter().all(|writer| *writer != 0);
                if there {
                    Self::send_seal(state, index);
                } else if state.leaders[index].awaits(slot) {
                    // `Ok(false)`: asked again while some of them are on their way.
                    self.begin_commit(state, index);
                } else {
                    self.next_epoch(state, index);
                }
            }
            Phase::GuardAgain => match self.guard(state, index, self.compared(slot)) {
                Guard::Holds => self.acknowledge(state, index),
                Guard::EpochPruned { .. } => self.next_epoch(state, index),
                _ => state.leaders[index].phase = Phase::Refused,
            },
            Phase::Choosing | Phase::Writing { .. } | Phase::Sealing | Phase::Refused => {}
        }
    }

    fn begin_restore(&self) -> Phase {
        if self.has_guards() { Phase::RestoreGuard } else { BEGIN_LIST }
    }

    fn restore_list(
        &self,
        state: &mut State,
        index: usize,
        (cursor, mut sealed, mut highest, floor): (u8, Option<Slot>, Option<Slot>, bool),
    ) {
        let slot = self.order[usize::from(cursor)];
        if state.is_sealed(slot) {
            sealed = sealed.max(Some(slot));
        }
        if state.is_sealed(slot) || state.partials[usize::from(slot)] != [0; VNODES] {
            highest = highest.max(Some(slot));
        }
        let cursor = cursor + 1;
        if usize::from(cursor) < self.order.len() {
            state.leaders[index].phase = Phase::RestoreList { cursor, sealed, highest, floor };
            return;
        }
        let unchecked = !self.has_guards()
            || self.is(Mutation::RestoreWithoutSecondRead)
            || self.is(Mutation::EmptyWithoutSecondRead);
        match sealed {
            Some(slot) => {
                state.leaders[index].phase = Phase::RestoreRead { vnode: 0, slot, first: 0, highest };
            }
            None if floor => state.leaders[index].phase = self.begin_restore(),
            None if unchecked => self.restored(state, index, None, highest),
            None => state.leaders[index].phase = Phase::RestoreCheck { found: None, highest },
        }
    }

    fn restore_check(
        &self,
        state: &mut State,
        index: usize,
        found: Option<(Slot, [Writer; VNODES])>,
        highest: Option<Slot>,
    ) {
        match self.guard(state, index, None) {
            Guard::Holds | Guard::FenceConflict { .. } => {}
            _ => {
                state.leaders[index].phase = Phase::Refused;
                return;
            }
        }
        let passed = match found {
            Some((slot, _)) => self.floor_of(state) > self.epoch(slot),
            None => state.floor > 0,
        };
        if passed && !self.is(Mutation::RestoreIgnoresFloor) {
            state.leaders[index].phase = self.begin_restore();
        } else {
            self.restored(state, index, found, highest);
        }
    }

    /// A restore that may be used.
    fn restored(
        &self,
        state: &mut State,
        index: usize,
        found: Option<(Slot, [Writer; VNODES])>,
        highest: Option<Slot>,
    ) {
        let descends = |state: &State, leader, of| match found {
            None => false,
            Some((slot, writers)) => writers.iter().all(|writer| state.descends(*writer, slot, leader, of)),
        };
        if state.acknowledgements().any(|(leader, of)| !descends(state, leader, of)) {
            self.breaks(state, Promise::Lineage);
        }
        if found.is_some_and(|(_, writers)| writers.iter().any(|writer| *writer != writers[0])) {
            self.breaks(state, Promise::Unmixed);
        }
        let above = |slot: Option<Slot>| slot.map_or(0, |slot| slot + 1);
        let restored = above(found.map(|(slot, _)| slot));
        let leader = &mut state.leaders[index];
        leader.base = found.map_or(Base::Empty, |(slot, writers)| Base::Restored(slot, writers));
        leader.from = match self.row {
            Row::Classic | Row::Plain => restored,
            Row::Exclusive if self.is(Mutation::NumbersFromRestored) => restored,
            Row::Exclusive => restored.max(above(highest)),
            Row::Versioned => {
                let highest = highest.map(|slot| self.numbers[usize::from(slot)]).map(Epoch::new);
                let first = self.numbering().first_epoch(self.version(index), highest);
                let free = |slot: &Slot| first.is_some_and(|first| self.epoch(*slot) >= first);
                self.slots().find(free).unwrap_or(SLOTS as Slot)
            }
        };
        leader.phase = Phase::Choosing;
        self.settle(state, index);
    }
}

/// The leader whose start has the version of the fence.
fn index_of(model: &Pipeline, fence: u8) -> usize {
    model.starts.iter().position(|start| start.version == u64::from(fence)).unwrap_or_default()
}
