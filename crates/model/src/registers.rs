//! Operators that publish the fence for a Lease, and pruners that raise the floor, on the records of one register.
//!
//! A Lease changes hands, and may be deleted and made anew; operators, which know nothing of each other, read it, list the register,
//! read records, and create new ones. A read is one step, at the moment when the store or the API server looks. A create lands whenever
//! it likes, also twice, and also long after its sender went on without an answer, or stopped and started again. Publishers trim
//! all but the highest record they listed. People may lose the records once.

mod words;

use std::time::Duration;

use epochwarden_core::lease::{
    FenceDecision, FenceSeen, LeaseIdentity, LeaseObservation, LeaseSeen, RecordSeen, VersionFrom, decide,
};
use epochwarden_core::register::{FenceRecord, FenceStep, Reading, fence_step};
use epochwarden_core::{Epoch, Numbering, Version};
use stateright::{Model, Property};

/// How many records a register has at most.
pub const RECORDS: usize = 6;
/// How many publishers there are at most.
pub const PUBLISHERS: usize = 3;

/// A published value never falls, where people lose none.
pub const NEVER_FALLS: &str = "the highest record that ever stood still stands";
/// Who was told that a value is durable finds it so.
pub const DURABLE: &str = "the register stands at or above every value that was reported as published";
/// A version is nobody else's. Below the highest it leads nowhere, so whose it is there does not matter.
pub const ONE_HOLDER: &str = "no version that stands is reported as published for two terms";
/// The order of the terms is that of their versions.
pub const IN_ORDER: &str = "a higher version never names an older term than a lower one";

/// One rule left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// Trimming deletes the highest record too.
    TrimHighest,
    /// A register that reads lower than it was seen counts as what it reads.
    LostIsZero,
    /// Highest = v counts as done, whoever holds it.
    HighestIsDone,
    /// `AlreadyExists` counts as success.
    AlreadyExistsAsSuccess,
    /// `Assigned` reads the Lease before the listing, and not again after it.
    AssignedWithoutSecondGet,
}

/// What is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The fence, by `leaseTransitions`.
    LeaseTransitions,
    /// The fence, each term with the next version.
    Assigned,
    /// The floor: publisher n raises it to the n-th value.
    Floor,
}

/// A term of the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenure {
    /// Which Lease.
    pub uid: &'static str,
    /// Who holds it.
    pub holder: &'static str,
    /// Its transitions.
    pub transitions: i32,
}

/// A Lease that passes through three hands, and is deleted and made anew for the last.
pub const TENURES: [Tenure; 4] = [
    Tenure { uid: "u1", holder: "a", transitions: 0 },
    Tenure { uid: "u1", holder: "b", transitions: 1 },
    Tenure { uid: "u2", holder: "c", transitions: 0 },
    Tenure { uid: "u2", holder: "a", transitions: 1 },
];

type Term = u8;
type Number = u8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Idle,
    /// The Lease was read before anything else.
    SawLease(Term),
    /// The register was listed, for the term that was read before it, if any.
    Listed {
        highest: Number,
        term: Option<Term>,
    },
    /// As listed, and the record of the highest was read.
    ReadRecord {
        highest: Number,
        record: Option<Term>,
        term: Option<Term>,
    },
    /// A record has to be compared with the term.
    Compare {
        number: Number,
        term: Term,
    },
    /// A create is under way.
    Creating {
        number: Number,
        term: Term,
    },
    /// Published; trims next, with what it lists then.
    Trimming {
        highest: Number,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Publisher {
    step: Step,
    /// The highest value it has seen, in memory and in `.status`: it outlives a restart.
    seen: Number,
    /// A create of it that is still under way though it waits no more.
    stray: Option<(Number, Term)>,
}

/// One instant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    lease: Term,
    records: [Option<Term>; RECORDS],
    publishers: [Publisher; PUBLISHERS],
    /// The highest record that ever stood.
    ever: Number,
    lost: bool,
    /// For which terms each number was reported as published, as bits.
    told: [u8; RECORDS],
}

impl State {
    fn highest(&self) -> Number {
        let highest = self.records.iter().rposition(Option::is_some);
        highest.map_or(0, |index| index as Number + 1)
    }

    fn record(&self, number: Number) -> Option<Term> {
        self.records[usize::from(number) - 1]
    }
}

/// The bounds of one search.
#[derive(Debug, Clone)]
pub struct Registers {
    /// What is published.
    pub mode: Mode,
    /// The Lease's terms, in order.
    pub tenures: Vec<Tenure>,
    /// How many publishers there are.
    pub publishers: usize,
    /// Whether people may lose all records, once.
    pub loss: bool,
    /// The rule left out.
    pub mutation: Option<Mutation>,
    leases: Vec<LeaseObservation>,
}

impl Registers {
    /// Publishers of a register, for a Lease with these terms.
    ///
    /// # Panics
    ///
    /// With more publishers or terms than a state has room for.
    #[must_use]
    pub fn new(mode: Mode, tenures: &[Tenure], publishers: usize) -> Self {
        assert!(publishers <= PUBLISHERS && tenures.len() <= RECORDS, "more than the state has room for");
        let lease = |tenure: &Tenure| LeaseObservation {
            namespace: "streaming".to_owned(),
            name: "leader".to_owned(),
            uid: tenure.uid.to_owned(),
            holder: Some(tenure.holder.to_owned()),
            transitions: Some(tenure.transitions),
            duration: None,
            annotation: None,
            renewed: Duration::ZERO,
            holder_since: Duration::ZERO,
        };
        let leases = tenures.iter().map(lease).collect();
        Self { mode, tenures: tenures.to_vec(), publishers, loss: false, mutation: None, leases }
    }

    /// Where people may lose all records, once.
    #[must_use]
    pub fn with_loss(mut self) -> Self {
        self.loss = true;
        self
    }

    /// Without one of the rules.
    #[must_use]
    pub fn without(mut self, mutation: Mutation) -> Self {
        self.mutation = Some(mutation);
        self
    }

    fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

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

    fn advance(&self, state: &mut State, index: usize) {
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

    fn create(&self, state: &mut State, index: usize, number: Number, term: Term) -> Step {
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
}

/// One step of one process, or of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The Lease changes hands.
    LeaseMoves,
    /// A publisher takes its next step: a read, or a trim.
    Publisher(usize),
    /// The create that a publisher waits for lands, and it hears of it.
    Lands(usize),
    /// A publisher waits no more for its create, which stays under way: no answer came, or it was started again.
    GivesUp(usize),
    /// A create that nobody waits for lands.
    StrayLands(usize),
    /// People lose all records.
    Loss,
}

impl Model for Registers {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let publisher = Publisher { step: Step::Idle, seen: 0, stray: None };
        let publishers = [publisher; PUBLISHERS];
        vec![State { lease: 0, records: [None; RECORDS], publishers, ever: 0, lost: false, told: [0; RECORDS] }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if self.mode != Mode::Floor && usize::from(state.lease) + 1 < self.tenures.len() {
            actions.push(Action::LeaseMoves);
        }
        for index in 0..self.publishers {
            let publisher = &state.publishers[index];
            if let Step::Creating { .. } = publisher.step {
                actions.push(Action::Lands(index));
                if publisher.stray.is_none() {
                    actions.push(Action::GivesUp(index));
                }
            } else {
                actions.push(Action::Publisher(index));
            }
            if publisher.stray.is_some() {
                actions.push(Action::StrayLands(index));
            }
        }
        if self.loss && !state.lost {
            actions.push(Action::Loss);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::LeaseMoves => state.lease += 1,
            Action::Publisher(index) => self.advance(&mut state, index),
            Action::Lands(index) => {
                if let Step::Creating { number, term } = state.publishers[index].step {
                    let step = self.create(&mut state, index, number, term);
                    state.publishers[index].step = step;
                }
            }
            Action::GivesUp(index) => {
                if let Step::Creating { number, term } = state.publishers[index].step {
                    state.publishers[index].stray = Some((number, term));
                    state.publishers[index].step = Step::Idle;
                }
            }
            Action::StrayLands(index) => {
                if let Some((number, term)) = state.publishers[index].stray.take()
                    && state.record(number).is_none()
                {
                    state.records[usize::from(number) - 1] = Some(term);
                    state.ever = state.ever.max(number);
                }
            }
            Action::Loss => {
                state.lost = true;
                state.records = [None; RECORDS];
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(NEVER_FALLS, |_, state: &State| state.lost || state.highest() >= state.ever),
            Property::always(DURABLE, |_, state: &State| {
                let told = state.told.iter().rposition(|terms| *terms != 0).map_or(0, |index| index + 1);
                state.lost || usize::from(state.highest()) >= told
            }),
            Property::sometimes("the last term is published", |model: &Self, state: &State| {
                // By its transitions, a Lease that was made anew regresses, and moves nothing.
                let regresses = |pair: &[Tenure]| pair[1].transitions <= pair[0].transitions;
                let until =
                    model.tenures.windows(2).position(regresses).filter(|_| model.mode == Mode::LeaseTransitions);
                let last = until.unwrap_or(model.tenures.len() - 1);
                state.told.iter().any(|terms| terms & (1 << last) != 0)
            }),
            Property::sometimes("an old record is trimmed", |_, state: &State| {
                let highest = usize::from(state.highest());
                state.told.iter().zip(&state.records).take(highest).any(|(told, record)| *told != 0 && record.is_none())
            }),
        ];
        if self.mode != Mode::Floor {
            properties.push(Property::always(ONE_HOLDER, |model: &Self, state: &State| {
                // Two terms of one Lease with the same holder are the same to whoever compares, but have numbers of their own.
                let same = |term: &Term, other: &Term| {
                    let (term, other) = (model.tenures[usize::from(*term)], model.tenures[usize::from(*other)]);
                    (term.uid, term.holder) == (other.uid, other.holder)
                };
                state.told.iter().all(|terms| {
                    let terms: Vec<Term> =
                        (0..model.tenures.len() as Term).filter(|term| terms & (1 << term) != 0).collect();
                    terms.windows(2).all(|pair| same(&pair[0], &pair[1]))
                })
            }));
        }
        if self.mode == Mode::Assigned {
            properties.push(Property::always(IN_ORDER, |_, state: &State| {
                let told: Vec<u8> = state.told.iter().copied().filter(|terms| *terms != 0).collect();
                told.windows(2).all(|pair| pair[0].ilog2() <= pair[1].trailing_zeros())
            }));
        }
        properties
    }
}
