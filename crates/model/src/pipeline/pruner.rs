//! A pruner: list, plan, floor, delete.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use epochwarden_core::inventory::InventoryBuilder;
use epochwarden_core::plan::{Decision, Plan, Rules, Subject};
use epochwarden_core::retention::Retention;
use epochwarden_core::{Vnode, key};
use jiff::Timestamp;

use super::{Action, Mask, Mutation, Pipeline, Promise, Pruner, Slot, State, VNODES, bit};

type Listing = (Vec<u64>, Mask, [Mask; VNODES]);

thread_local! {
    /// Plans are pure, and the same few listings come again and again.
    static PLANS: RefCell<HashMap<Listing, Mask>> = RefCell::default();
}

impl Pipeline {
    pub(super) fn pruner_actions(&self, state: &State, index: usize, actions: &mut Vec<Action>) {
        match state.pruners[index] {
            None => {}
            Some(Pruner::Listing { .. }) => actions.push(Action::Lists(index)),
            Some(Pruner::Planned { .. }) => actions.push(Action::FloorLands(index)),
            Some(Pruner::Deleting { plan, open, done, floor }) => {
                let left = self.slots().filter(|slot| plan & !done & bit(*slot) != 0);
                // Oldest first, or as it comes.
                for slot in left.take(if self.any_order { usize::MAX } else { 1 }) {
                    let is_open = open & bit(slot) != 0;
                    let partials_first = self.is(Mutation::PartialsBeforeSeal);
                    let there = |vnode: &usize| state.partials[usize::from(slot)][*vnode] != 0;
                    let mut there =
                        (0..VNODES).filter(there).map(|vnode| Action::PartialGoes(index, slot, vnode)).peekable();
                    if !is_open && (!partials_first || there.peek().is_none()) {
                        actions.push(Action::SealGoes(index, slot));
                    }
                    if is_open || partials_first {
                        actions.extend(there);
                    }
                }
                if !floor && plan == done {
                    actions.push(Action::FloorLands(index));
                }
            }
        }
    }

    pub(super) fn list(&self, state: &mut State, index: usize) {
        let Some(Pruner::Listing { mut cursor, mut sealed, mut partials }) = state.pruners[index] else { return };
        loop {
            let slot = self.order[usize::from(cursor)];
            if state.is_sealed(slot) {
                sealed |= bit(slot);
            }
            for (vnode, seen) in partials.iter_mut().enumerate() {
                if state.partials[usize::from(slot)][vnode] != 0 {
                    *seen |= bit(slot);
                }
            }
            cursor += 1;
            if usize::from(cursor) == self.order.len() {
                break;
            }
            if self.torn_prune {
                state.pruners[index] = Some(Pruner::Listing { cursor, sealed, partials });
                return;
            }
        }
        let mut plan = self.plan(sealed, partials);
        if plan != 0 && self.is(Mutation::PrunesUnacknowledgedLatest) {
            let latest = (Mask::BITS - 1 - sealed.leading_zeros()) as Slot;
            let told = state.acknowledgements().any(|(_, slot)| slot == latest);
            // Nor will be: its leader has been superseded.
            let by = usize::from(state.seals[usize::from(latest)]).checked_sub(1);
            if !told && by.is_some_and(|by| self.version(by).get() < u64::from(state.fence)) {
                plan |= bit(latest);
            }
        }
        state.pruners[index] = Some(match plan {
            0 => Pruner::NEW,
            plan if self.is(Mutation::FloorAfterDeletes) => Pruner::Deleting { plan, open: 0, done: 0, floor: false },
            plan => Pruner::Planned { plan },
        });
    }

    /// The epochs that the plan over a listing deletes, with `keepLast: 1`: the most that any retention does.
    fn plan(&self, sealed: Mask, partials: [Mask; VNODES]) -> Mask {
        let listing = (self.numbers.clone(), sealed, partials);
        PLANS.with_borrow_mut(|plans| *plans.entry(listing).or_insert_with(|| self.fresh_plan(sealed, partials)))
    }

    fn fresh_plan(&self, sealed: Mask, partials: [Mask; VNODES]) -> Mask {
        let vnodes = VNODES as u32;
        let mut listing = InventoryBuilder::new(vnodes).numbered(self.numbering());
        for slot in self.slots() {
            let epoch = self.epoch(slot);
            if sealed & bit(slot) != 0 {
                listing.observe(&key::commit(epoch), 1, Timestamp::UNIX_EPOCH, None);
            }
            for (vnode, seen) in (0..vnodes).zip(partials) {
                if seen & bit(slot) != 0 {
                    listing.observe(&key::partial(epoch, Vnode::new(vnode)), 1, Timestamp::UNIX_EPOCH, None);
                }
            }
        }
        let retention = Retention { keep_last: Some(1), ..Retention::default() };
        let rules = Rules { vnodes, retention, min_age: Duration::ZERO };
        let subject = Subject { root: String::new(), policy_uid: String::new() };
        let plan = Plan::new(&listing.finish(), &rules, &subject);
        let deleted = |slot: &Slot| plan.decision(self.epoch(*slot)).is_some_and(Decision::is_delete);
        if plan.hold().is_some() { 0 } else { self.slots().filter(deleted).fold(0, |mask, slot| mask | bit(slot)) }
    }

    pub(super) fn floor_lands(&self, state: &mut State, index: usize) {
        let (plan, open, done) = match state.pruners[index] {
            Some(Pruner::Planned { plan }) => (plan, 0, 0),
            Some(Pruner::Deleting { plan, open, done, .. }) => (plan, open, done),
            _ => return,
        };
        let before = (Mask::BITS - plan.leading_zeros()) as Slot;
        state.floor = state.floor.max(before);
        state.pruners[index] = Some(Pruner::Deleting { plan, open, done, floor: true });
        self.carry_on(state, index);
    }

    pub(super) fn seal_goes(&self, state: &mut State, index: usize, slot: Slot) {
        if state.is_sealed(slot) {
            self.prunes(state, slot);
        }
        state.seals[usize::from(slot)] = 0;
        state.late &= !bit(slot);
        if let Some(Pruner::Deleting { open, .. }) = &mut state.pruners[index] {
            *open |= bit(slot);
        }
        self.carry_on(state, index);
    }

    pub(super) fn partial_goes(&self, state: &mut State, index: usize, slot: Slot, vnode: usize) {
        self.prunes(state, slot);
        state.partials[usize::from(slot)][vnode] = 0;
        self.carry_on(state, index);
    }

    /// An epoch of which nothing is left is done, and after the last one the next run begins.
    fn carry_on(&self, state: &mut State, index: usize) {
        let Some(Pruner::Deleting { plan, open, mut done, floor }) = state.pruners[index] else { return };
        for slot in self.slots().filter(|slot| open & bit(*slot) != 0) {
            if state.partials[usize::from(slot)] == [0; VNODES] {
                done |= bit(slot);
            }
        }
        let over = done == plan && floor;
        state.pruners[index] = Some(if over { Pruner::NEW } else { Pruner::Deleting { plan, open, done, floor } });
    }

    /// Something of an epoch goes, so what was acknowledged has to live on: of the epoch itself, and of every one below it that lives
    /// on in a newer one alone, which may be this.
    fn prunes(&self, state: &mut State, slot: Slot) {
        let now: &State = state;
        let whole_above =
            |of: Slot| self.slots().filter(move |above| *above > of && *above != slot && now.is_whole(*above));
        let rests = |(_, of): &(usize, Slot)| *of == slot || (*of < slot && !now.is_whole(*of));
        let resting = || now.acknowledgements().filter(rests);
        let inherits = |(leader, of): (usize, Slot)| {
            whole_above(of).any(|above| {
                let writers = now.partials[usize::from(above)];
                writers.iter().all(|writer| now.descends(*writer, above, leader, of))
            })
        };
        let kept = resting().all(|(_, of)| whole_above(of).next().is_some());
        let in_line = resting().all(inherits);
        if !kept {
            self.breaks(state, Promise::Kept);
        }
        if !in_line {
            self.breaks(state, Promise::KeptInLine);
        }
    }
}
