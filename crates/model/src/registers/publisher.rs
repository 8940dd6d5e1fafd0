//! A publisher: read the Lease, list, read, create, compare, trim.

use std::time::Duration;

use epochwarden_core::lease::{FenceDecision, FenceSeen, LeaseIdentity, LeaseSeen, RecordSeen, VersionFrom, decide};
use epochwarden_core::register::{FenceRecord, FenceStep, Reading, fence_step};
use epochwarden_core::{Epoch, Numbering, Version};

use super::{Mode, Mutation, Number, Publisher, Registers, State, Step, Term};

impl Registers {
    fn record_of(&self, number: Number, term: Term) -> FenceRecord {
        let tenure = self.tenures[usize::from(term)];
        FenceRecord {
            version: Version::new(u64::from(number)),
            holder: tenure.holder.to_owned(),
            lease: Some(self.identity(term)),
            publisher: "operator".to_owned(),
            published_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn identity(&self, term: Term) -> LeaseIdentity {
        let tenure = self.tenures[usize::from(term)];
        LeaseIdentity {
            namespace: "streaming".to_owned(),
            name: "leader".to_owned(),
            uid: tenure.uid.to_owned(),
            transitions: tenure.transitions,
        }
    }

    /// What the rule of the operator says for a Lease and a reading.
    fn decide(&self, term: Term, highest: Number, seen: Number, record: RecordSeen) -> FenceDecision {
        let reading = Reading { fence: Version::new(u64::from(highest)), ..Reading::default() };
        let remembered = Reading { fence: Version::new(u64::from(seen)), ..Reading::default() };
        let lost = reading.check(&remembered).err().filter(|_| !self.is(Mutation::LostIsZero));
        let fence = FenceSeen { highest: reading.fence, record, lost };
        let from = match self.mode {
            Mode::Assigned => VersionFrom::Assigned,
            Mode::LeaseTransitions | Mode::Floor => VersionFrom::LeaseTransitions,
        };
        decide(LeaseSeen::Found(&self.leases[usize::from(term)]), from, Numbering::Plain, &fence, Duration::ZERO)
    }

    pub(super) fn advance(&self, state: &mut State, index: usize) {
        let Publisher { step, seen, .. } = state.publishers[index];
        let early_lease = self.mode == Mode::LeaseTransitions || self.is(Mutation::AssignedWithoutSecondGet);
        let next = match step {
            Step::Idle if self.mode == Mode::Floor => Step::SawLease(index as Term),
            Step::Idle if early_lease => Step::SawLease(state.lease),
            Step::Idle => self.listed(state, index, None),
            Step::SawLease(term) => self.listed(state, index, Some(term)),
            Step::Listed { highest, term } => {
                let record = highest.checked_sub(1).and_then(|_| state.record(highest));
                // Listed, and trimmed or lost since: begin again.
                if highest > 0 && record.is_none() { Step::Idle } else { Step::ReadRecord { highest, record, term } }
            }
            Step::ReadRecord { highest, record, term } => {
                let term = term.unwrap_or(state.lease);
                let record = record.map_or(RecordSeen::Unread, |of| RecordSeen::Read(self.record_of(highest, of)));
                match self.decide(term, highest, seen, record) {
                    FenceDecision::Publish(decided) => Step::Creating { number: decided.version.get() as Number, term },
                    FenceDecision::Current(_) => Self::report(state, index, highest, term),
                    _ => Step::Idle,
                }
            }
            Step::Compare { number, term } => match state.record(number) {
                Some(of) if self.is_of(number, of, term) => Self::report(state, index, number, term),
                // A conflict; or nothing to read back, because it was trimmed since: begin again.
                _ => Step::Idle,
            },
            Step::Trimming { highest } => {
                let stays = if self.is(Mutation::TrimHighest) { 0 } else { highest };
                for number in 1..=highest {
                    if number != stays {
                        state.records[usize::from(number) - 1] = None;
                    }
                }
                Step::Idle
            }
            Step::Creating { .. } => step,
        };
        state.publishers[index].step = next;
    }

    fn is_of(&self, number: Number, of: Term, term: Term) -> bool {
        let holder = self.tenures[usize::from(term)].holder;
        self.mode == Mode::Floor || self.record_of(number, of).is_of(holder, Some(&self.identity(term)))
    }

    fn listed(&self, state: &mut State, index: usize, term: Option<Term>) -> Step {
        let highest = state.highest();
        let seen = state.publishers[index].seen;
        state.publishers[index].seen = seen.max(highest);
        let reading = |value: Number| Reading { floor: Epoch::new(u64::from(value)), ..Reading::default() };
        if reading(highest).check(&reading(seen)).is_err() && !self.is(Mutation::LostIsZero) {
            return Step::Idle;
        }
        if self.is(Mutation::LostIsZero) {
            state.publishers[index].seen = highest;
        }
        match (self.mode, term) {
            (Mode::Floor, Some(term)) if highest > term => Self::report(state, index, highest, term),
            (Mode::Floor, Some(term)) => Step::Creating { number: term + 1, term },
            (Mode::LeaseTransitions, Some(term)) => {
                let number = self.tenures[usize::from(term)].transitions.unsigned_abs() as Number + 1;
                match fence_step(Version::new(u64::from(number)), Version::new(u64::from(highest))) {
                    FenceStep::Superseded { .. } => Step::Idle,
                    FenceStep::Compare if self.is(Mutation::HighestIsDone) => Self::report(state, index, number, term),
                    FenceStep::Compare => Step::Compare { number, term },
                    FenceStep::Create => Step::Creating { number, term },
                }
            }
            _ => Step::Listed { highest, term },
        }
    }

    /// The caller is told that `number` stands for `term`; it trims next.
    fn report(state: &mut State, index: usize, number: Number, term: Term) -> Step {
        if number >= state.highest() {
            state.told[usize::from(number) - 1] |= 1 << term;
        }
        state.publishers[index].seen = state.publishers[index].seen.max(number);
        Step::Trimming { highest: state.highest() }
    }

    pub(super) fn create(&self, state: &mut State, index: usize, number: Number, term: Term) -> Step {
        let stands = state.record(number);
        if stands.is_none() {
            state.records[usize::from(number) - 1] = Some(term);
            state.ever = state.ever.max(number);
        }
        let seen = &mut state.publishers[index].seen;
        *seen = (*seen).max(number);
        if stands.is_none() || self.is(Mutation::AlreadyExistsAsSuccess) || self.mode == Mode::Floor {
            Self::report(state, index, number, term)
        } else {
            Step::Compare { number, term }
        }
    }

    /// A publisher is about to list what people lost, and then publishes nothing.
    pub(super) fn refuses_loss(&self, state: &State) -> bool {
        (0..self.publishers).any(|index| {
            let Publisher { step, seen, .. } = state.publishers[index];
            let lists = matches!(step, Step::Idle | Step::SawLease(_));
            if !(lists && state.lost && state.highest() == 0 && seen > 0) {
                return false;
            }
            let mut after = state.clone();
            self.advance(&mut after, index);
            after.publishers[index].step == Step::Idle
        })
    }
}
