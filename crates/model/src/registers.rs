//! Operators that publish the fence for a Lease, and pruners that raise the floor, on the records of one register.
//!
//! A Lease changes hands, and may be deleted and made anew; operators, which know nothing of each other, read it, list the register,
//! read records, and create new ones. A read is one step, at the moment when the store or the API server looks. A create lands whenever
//! it likes, also twice, and also long after its sender went on without an answer, or stopped and started again. Publishers trim
//! all but the highest record they listed. People may lose the records once.

mod publisher;
mod rules;
mod state;
mod words;

use std::time::Duration;

use epochwarden_core::lease::LeaseObservation;
use stateright::{Model, Property};

pub use rules::{DURABLE, IN_ORDER, Mutation, NEVER_FALLS, ONE_HOLDER};
pub use state::State;
pub(crate) use state::{Number, Publisher, Step, Term};

/// How many records a register has at most.
pub const RECORDS: usize = 6;
/// How many publishers there are at most.
pub const PUBLISHERS: usize = 3;

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
            Property::sometimes("a create that nobody waits for lands below the highest", |_, state: &State| {
                let mut strays = state.publishers.iter().filter_map(|publisher| publisher.stray);
                strays.any(|(number, _)| number < state.highest() && state.record(number).is_none())
            }),
        ];
        if self.loss {
            properties.push(Property::sometimes("a publisher refuses what people lost", Self::refuses_loss));
        }
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
