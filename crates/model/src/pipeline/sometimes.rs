//! What has to happen somewhere, or a dimension of the search is empty and its promises say nothing.
//!
//! Each is a mark that a state bears and that nothing else leaves behind, within the bounds under which it is asked for.

use stateright::Property;

use super::{Base, Phase, Pipeline, Pruner, Slot, State, VNODES, Writer, bit};

/// Whether something has happened in a state.
type Happens = fn(&Pipeline, &State) -> bool;

impl Pipeline {
    /// What has to happen with the dimensions that are on.
    pub(super) fn happenings(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::sometimes("an epoch is acknowledged to every leader", |model: &Self, state: &State| {
                state.acknowledged.iter().take(model.starts.len()).all(|mask| *mask != 0)
            }),
            Property::sometimes(
                "the last leader restores what the one before it was told is durable",
                |model: &Self, state: &State| {
                    let last = model.starts.len() - 1;
                    matches!(state.leaders[last].base, Base::Restored(slot, _) if state.acknowledged[last - 1] & bit(slot) != 0)
                },
            ),
            Property::sometimes("a restore's LIST has passed an epoch that is sealed since", Self::hides_from_restore),
        ];
        if self.pruners > 0 {
            properties.push(Property::sometimes(
                "a prune deletes an acknowledged epoch to the last object",
                |_, state: &State| {
                    let gone = |slot: Slot| !state.is_sealed(slot) && state.partials[usize::from(slot)] == [0; VNODES];
                    state.acknowledgements().any(|(_, slot)| gone(slot))
                },
            ));
            properties.push(Property::sometimes("a seal lands below the floor", |_, state: &State| state.late != 0));
        }
        let dimensions: [(bool, &'static str, Happens); 10] = [
            (self.resend, "a leader whose create was refused reads its own seal", |_, state| {
                state.leaders.iter().zip(1..).any(|(leader, writer)| {
                    let refused = leader.phase == Phase::Compare { refused: true };
                    refused && state.seals[usize::from(leader.slot)] == writer
                })
            }),
            (self.choice > 1, "a leader leaves a number out", |_, state| {
                let first = &state.leaders[0];
                first.begun == 1 && first.slot > 0
            }),
            (self.pruners > 1, "two pruners delete the same epoch", Self::prunes_twice),
            (self.pruners > 0 && self.torn_prune, "a prune's LIST has passed an epoch that is sealed since", {
                Self::hides_from_prune
            }),
            (self.pruners > 0 && self.any_order, "a prune takes a newer epoch before an older one", Self::leaps),
            (self.early, "a commit begins before its writes returned", |_, state| {
                state.leaders.iter().any(|leader| is_before_seal(leader.phase) && leader.awaits(leader.slot))
            }),
            (self.resend && !self.gives_up, "the second copy of a seal lands before the first", Self::overtakes),
            (self.gives_up, "the seal of an epoch that its leader left behind is still to land", |_, state| {
                state.leaders.iter().any(|leader| leader.seals & !bit(leader.slot) != 0)
            }),
            (self.gives_up, "a leader commits anew what it has sent the seal of", |_, state| {
                state.leaders.iter().any(|leader| is_before_seal(leader.phase) && leader.seals & bit(leader.slot) != 0)
            }),
            (self.is_exclusive() && !self.gives_up, "a conflict burns a number", Self::burns),
        ];
        let on = dimensions.into_iter().filter(|(on, ..)| *on);
        properties.extend(on.map(|(_, name, happens)| Property::sometimes(name, happens)));
        let same_name = self.starts.windows(2).any(|pair| pair[0].name == pair[1].name);
        if same_name {
            properties.push(Property::sometimes("two starts of one name have sealed", Self::seals_under_one_name));
        }
        properties
    }

    fn hides_from_restore(&self, state: &State) -> bool {
        state.leaders.iter().any(|leader| match leader.phase {
            Phase::RestoreList { cursor, sealed, .. } => {
                let mut passed = self.order.iter().take(usize::from(cursor));
                passed.any(|slot| Some(*slot) > sealed && state.is_sealed(*slot))
            }
            _ => false,
        })
    }

    fn hides_from_prune(&self, state: &State) -> bool {
        state.pruners.iter().flatten().any(|pruner| match pruner {
            Pruner::Listing { cursor, sealed, .. } => {
                let mut passed = self.order.iter().take(usize::from(*cursor));
                passed.any(|slot| sealed & bit(*slot) == 0 && state.is_sealed(*slot))
            }
            _ => false,
        })
    }

    fn prunes_twice(_: &Self, state: &State) -> bool {
        let mut plans = state.pruners.iter().flatten().map(|pruner| match pruner {
            Pruner::Deleting { plan, done, .. } => plan & !done,
            _ => 0,
        });
        plans.next().zip(plans.next()).is_some_and(|(one, other)| one & other != 0)
    }

    fn leaps(&self, state: &State) -> bool {
        state.pruners.iter().flatten().any(|pruner| match pruner {
            Pruner::Deleting { plan, open, done, .. } => {
                self.slots().any(|slot| open & bit(slot) != 0 && plan & !done & !open & (bit(slot) - 1) != 0)
            }
            _ => false,
        })
    }

    /// A seal that stands, and whose first copy is on its way though the leader has its answer.
    fn overtakes(&self, state: &State) -> bool {
        state.leaders.iter().zip(1..).any(|(leader, writer)| {
            let stands = |slot: Slot| leader.seals & bit(slot) != 0 && state.seals[usize::from(slot)] == writer;
            leader.phase != Phase::Sealing && leader.resent.is_none() && self.slots().any(stands)
        })
    }

    /// An epoch of two leaders' partials that one of them left: it cannot have been told that its own were all written.
    fn burns(&self, state: &State) -> bool {
        self.slots().any(|slot| {
            let writers = state.partials[usize::from(slot)];
            let left = |writer: &Writer| {
                usize::from(*writer).checked_sub(1).map(|index| &state.leaders[index]).is_some_and(|leader| {
                    let past = leader.slot > slot || leader.slot == slot && leader.phase == Phase::Choosing;
                    past && !leader.awaits(slot)
                })
            };
            writers[0] != writers[1] && !writers.contains(&0) && writers.iter().any(left)
        })
    }

    fn seals_under_one_name(&self, state: &State) -> bool {
        let names = |writer: &Writer| usize::from(*writer).checked_sub(1).map(|index| self.starts[index].name);
        let seals = || state.seals.iter().filter(|writer| **writer != 0);
        seals().any(|writer| seals().any(|other| other != writer && names(other) == names(writer)))
    }
}

/// Between the beginning of a commit and the sending of its seal.
fn is_before_seal(phase: Phase) -> bool {
    matches!(phase, Phase::Guard | Phase::Exists | Phase::Compare { refused: false } | Phase::List)
}
