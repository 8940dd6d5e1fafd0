//! A step in words that a person can read.

use super::{Action, Base, Phase, Pipeline, Pruner, Slot, State, VNODES, Writer, bit};
use crate::Words;

impl Pipeline {
    fn name(&self, leader: usize) -> String {
        let start = self.starts[leader];
        format!("leader {} ({}, version {})", leader + 1, start.name, start.version)
    }

    fn of(&self, slot: Slot) -> String {
        format!("epoch {}", self.numbering().show(self.epoch(slot)))
    }

    fn epochs_of(&self, mask: u16) -> String {
        let shown = self.slots().filter(|slot| mask & bit(*slot) != 0);
        shown.map(|slot| self.numbering().show(self.epoch(slot)).to_string()).collect::<Vec<_>>().join(", ")
    }

    fn floor_in_words(&self, state: &State) -> String {
        match state.floor.checked_sub(1) {
            None => "no floor".to_owned(),
            Some(highest) => format!("floor right above {}", self.of(highest)),
        }
    }

    fn state_of(&self, slot: Slot, writers: [Writer; VNODES]) -> String {
        let parts = writers.map(|writer| format!("leader {}", usize::from(writer)));
        format!("{} (vnode 0 by {}, vnode 1 by {})", self.of(slot), parts[0], parts[1])
    }

    fn guard_in_words(&self, state: &State) -> String {
        format!("the guard read shows fence {} and {}", state.fence, self.floor_in_words(state))
    }

    fn leader_in_words(&self, before: &State, index: usize, after: &State) -> String {
        let name = self.name(index);
        let (was, is) = (&before.leaders[index], &after.leaders[index]);
        let slot = was.slot;
        let seen = match was.phase {
            Phase::RestoreGuard => format!("restores: {}", self.guard_in_words(before)),
            Phase::RestoreList { cursor, .. } => {
                let slot = self.order[usize::from(cursor)];
                let shown = match (before.is_sealed(slot), before.partials[usize::from(slot)] != [0; VNODES]) {
                    (true, _) => "sealed",
                    (false, true) => "not sealed",
                    (false, false) => "not there",
                };
                format!("restores: its LIST passes {}: {shown}", self.of(slot))
            }
            Phase::RestoreRead { vnode, slot, .. } => match before.partials[usize::from(slot)][usize::from(vnode)] {
                0 => format!("restores: vnode {vnode} of {} is missing", self.of(slot)),
                writer => format!("restores: reads vnode {vnode} of {}, which leader {writer} wrote", self.of(slot)),
            },
            Phase::RestoreCheck { .. } => format!("restores: {} the second time", self.guard_in_words(before)),
            Phase::Guard => format!("commits {}: {}", self.of(slot), self.guard_in_words(before)),
            Phase::Exists => match before.seals[usize::from(slot)] {
                0 => format!("commits {}: it has no seal yet", self.of(slot)),
                writer => format!("commits {}: it has the seal of leader {writer}", self.of(slot)),
            },
            Phase::Compare { .. } => match before.seals[usize::from(slot)] {
                0 => format!("commits {}: the seal is gone when it is read", self.of(slot)),
                writer => format!("commits {}: reads the seal of leader {writer}", self.of(slot)),
            },
            Phase::List => {
                let there = before.partials[usize::from(slot)].iter().filter(|writer| **writer != 0).count();
                format!("commits {}: LIST shows {there} of {VNODES} partials", self.of(slot))
            }
            Phase::GuardAgain => format!("commits {}: {} after the seal", self.of(slot), self.guard_in_words(before)),
            Phase::Choosing | Phase::Writing { .. } | Phase::Sealing | Phase::Refused => String::new(),
        };
        let restored = match is.base {
            base if base == was.base => String::new(),
            Base::Restored(slot, writers) => format!("; goes on from {}", self.state_of(slot, writers)),
            Base::Empty => "; begins without state".to_owned(),
            Base::None => String::new(),
        };
        format!("{name} {seen}{restored}{}", self.what_follows(before, index, after))
    }

    /// What a leader does right after, in the same step.
    fn what_follows(&self, before: &State, index: usize, after: &State) -> String {
        let (was, is) = (&before.leaders[index], &after.leaders[index]);
        let mut words = String::new();
        if after.acknowledged[index] != before.acknowledged[index] {
            words += "; ACKNOWLEDGES it";
        }
        if is.phase == Phase::Refused {
            words += "; is refused";
        }
        if is.phase == Phase::Sealing && was.phase != Phase::Sealing {
            words += "; sends the seal";
        }
        if is.begun != was.begun {
            words += "; sends the partials of ";
            words += &self.of(is.slot);
        }
        if matches!(is.phase, Phase::RestoreGuard | Phase::RestoreList { cursor: 0, .. })
            && was.phase != is.phase
            && was.base == Base::None
            && !matches!(was.phase, Phase::RestoreGuard)
        {
            words += "; starts over";
        }
        words
    }

    fn plan_in_words(&self, before: &State, index: usize, after: &State) -> String {
        let passed = match before.pruners[index] {
            Some(Pruner::Listing { cursor, .. }) if self.torn_prune => {
                let slot = self.order[usize::from(cursor)];
                let sealed = if before.is_sealed(slot) { "sealed" } else { "without a seal" };
                format!("'s LIST passes {}: {sealed}", self.of(slot))
            }
            _ => {
                let sealed = self.slots().filter(|slot| before.is_sealed(*slot)).fold(0, |mask, slot| mask | bit(slot));
                format!(" lists: sealed are {}", self.epochs_of(sealed))
            }
        };
        let plan = match after.pruners[index] {
            Some(Pruner::Planned { plan } | Pruner::Deleting { plan, .. }) => {
                format!("; it plans to delete {}", self.epochs_of(plan))
            }
            _ => String::new(),
        };
        format!("pruner {}{passed}{plan}", index + 1)
    }
}

impl Words for Pipeline {
    fn in_words(&self, before: &State, action: &Action, after: &State) -> String {
        match *action {
            Action::FenceMoves => format!("the fence moves to {}", after.fence),
            Action::Leader(leader) => self.leader_in_words(before, leader, after),
            Action::Begins(leader, slot) => {
                format!("{} sends the partials of {}", self.name(leader), self.of(slot))
            }
            Action::CommitsEarly(leader) => {
                let slot = before.leaders[leader].slot;
                format!("{} commits {} before its writes returned", self.name(leader), self.of(slot))
            }
            Action::PartialLands(leader, slot, vnode) => {
                let (was, is) = (before.partials[usize::from(slot)][vnode], after.partials[usize::from(slot)][vnode]);
                let writer = leader as Writer + 1;
                let effect = match (was, is) {
                    (0, _) => String::new(),
                    (was, is) if is == writer && was != writer => format!(", over that of leader {was}"),
                    (was, is) if was == is && was != writer => format!(": leader {was}'s is there, PartialConflict"),
                    _ => ", again".to_owned(),
                };
                let next = self.what_follows(before, leader, after);
                format!("{}'s vnode {vnode} of {} lands{effect}{next}", self.name(leader), self.of(slot))
            }
            Action::SealLands(leader, slot) => self.seal_in_words(before, leader, slot, after),
            Action::ResentSealLands(leader) => {
                let slot = before.leaders[leader].resent.unwrap_or_default();
                format!("{} (the second copy)", self.seal_in_words(before, leader, slot, after))
            }
            Action::Resends(leader) => format!("{} has no answer, and sends its seal again", self.name(leader)),
            Action::CommitsAgain(leader) => {
                let epoch = self.of(before.leaders[leader].slot);
                format!("{} has no answer, and commits {epoch} anew", self.name(leader))
            }
            Action::GivesUp(leader) => {
                let epoch = self.of(before.leaders[leader].slot);
                format!("{} has no answer, and leaves {epoch} behind", self.name(leader))
            }
            Action::Lists(pruner) => self.plan_in_words(before, pruner, after),
            Action::FloorLands(pruner) => {
                format!("pruner {} publishes: {}", pruner + 1, self.floor_in_words(after))
            }
            Action::SealGoes(pruner, slot) => format!("pruner {} deletes the seal of {}", pruner + 1, self.of(slot)),
            Action::PartialGoes(pruner, slot, vnode) => {
                format!("pruner {} deletes vnode {vnode} of {}", pruner + 1, self.of(slot))
            }
        }
    }
}

impl Pipeline {
    fn seal_in_words(&self, before: &State, leader: usize, slot: Slot, after: &State) -> String {
        let effect = match before.seals[usize::from(slot)] {
            0 => "lands".to_owned(),
            other => format!("meets that of leader {other}"),
        };
        let next = self.what_follows(before, leader, after);
        format!("{}'s seal of {} {effect}{next}", self.name(leader), self.of(slot))
    }
}
