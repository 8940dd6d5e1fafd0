//! Leaders that commit and restore, and pruners, on one bucket.
//!
//! **Requests.** A read is one step, at the moment when the store looks; its sending and its answer are no steps of their own, because
//! its process may stand still for any time before and after. A write is sent in one step and lands in another, whenever it likes,
//! also long after its sender was refused. A LIST of the root looks at one folder after the other, in the order of the keys
//! (`epoch=10/` before `epoch=9/`), with any number of other steps between.
//!
//! **Crashes.** A process may stop for good after every step, because nothing obliges it to take another; what it sent still lands. Its
//! next start is another leader of the model, with a name of its own or the same one. Every promise is checked in every state, so
//! one that is broken by a crash is broken in the state where the others go on.
//!
//! **Time.** There is none: every object seems equally old, and `minAge` is zero, so no promise rests on a clock.

mod leader;
mod pruner;
mod rules;
mod sometimes;
mod state;
mod words;

use epochwarden_core::register::FenceRecord;
use epochwarden_core::{Epoch, InstanceId, Numbering, Version, key};
use stateright::{Model, Property};

pub use rules::{Mutation, Promise, Row, SEALED_IS_WHOLE};
pub use state::State;
pub(crate) use state::{Base, Leader, Mask, Phase, Pruner, Slot, Writer, bit};

/// How many leaders there are at most: starts of processes.
pub const LEADERS: usize = 3;
/// How many vnodes an epoch has.
pub const VNODES: usize = 2;
/// How many epoch numbers there are at most.
pub const SLOTS: usize = 9;
/// How many pruners there are at most.
pub const PRUNERS: usize = 2;

/// One start of a process that leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Its name, as the fence's records and its seals have it.
    pub name: &'static str,
    /// Its version.
    pub version: u64,
}

/// Three processes, each with a name and a version of its own.
pub const THREE: [Start; 3] =
    [Start { name: "a", version: 1 }, Start { name: "b", version: 2 }, Start { name: "c", version: 3 }];

/// As [`THREE`], with versions whose numbers do not sort as their texts do: `Versioned` epochs of 10 are listed before those of 9.
pub const NINE_TO_ELEVEN: [Start; 3] =
    [Start { name: "a", version: 9 }, Start { name: "b", version: 10 }, Start { name: "c", version: 11 }];

/// The second leader is the first one's process, started again under its name, with a version of its own.
pub const RESTARTED: [Start; 3] =
    [Start { name: "a", version: 1 }, Start { name: "a", version: 2 }, Start { name: "b", version: 3 }];

/// As [`RESTARTED`], with the version of the start before: what the protocol forbids.
pub const SHARED_VERSION: [Start; 3] =
    [Start { name: "a", version: 1 }, Start { name: "a", version: 1 }, Start { name: "b", version: 2 }];

/// The bounds of one search.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a dimension of the search, on or off")]
pub struct Pipeline {
    /// Which rules the leaders follow.
    pub row: Row,
    /// The leaders, in the order of their versions. The first has begun already, on an empty bucket.
    pub starts: Vec<Start>,
    /// Every epoch number there is, ascending.
    pub numbers: Vec<u64>,
    /// How many epochs a leader begins at most.
    pub epochs: u8,
    /// How many of the next numbers a leader may choose among: more than one gives gaps.
    pub choice: u8,
    /// How many pruners there are. Each runs as often as it likes.
    pub pruners: usize,
    /// Whether a pruner's LIST is torn as a restore's is, or one step.
    pub torn_prune: bool,
    /// Whether a pruner deletes its epochs in any order, or oldest first.
    pub any_order: bool,
    /// Whether a leader may commit before its writes returned, where the rules allow it.
    pub early: bool,
    /// Whether the PUT of a seal may be sent a second time, and land twice.
    pub resend: bool,
    /// Whether a leader may go on without an answer: to its next epoch, or to the same commit anew. What it sent lands all the same.
    pub gives_up: bool,
    /// The rule that is left out.
    pub mutation: Option<Mutation>,
    /// Bits of the promises that are checked.
    watched: u8,
    /// Whether [`SEALED_IS_WHOLE`] is checked.
    watch_seals: bool,
    order: Vec<Slot>,
    records: Vec<FenceRecord>,
    instances: Vec<InstanceId>,
}

impl Pipeline {
    /// Leaders by the rules of `row`, without pruners.
    ///
    /// # Panics
    ///
    /// With more leaders or numbers than a state has room for.
    #[must_use]
    pub fn new(row: Row, starts: &[Start], numbers: &[u64], epochs: u8) -> Self {
        assert!(numbers.len() <= SLOTS && starts.len() <= LEADERS, "more than the state has room for");
        let mut order: Vec<Slot> = (0..numbers.len() as Slot).collect();
        order.sort_by_key(|slot| key::epoch_folder(Epoch::new(numbers[usize::from(*slot)])));
        let record = |start: &Start| FenceRecord {
            version: Version::new(start.version),
            holder: start.name.to_owned(),
            lease: None,
            publisher: "operator".to_owned(),
            published_at: jiff::Timestamp::UNIX_EPOCH,
        };
        Self {
            row,
            starts: starts.to_vec(),
            numbers: numbers.to_vec(),
            epochs,
            choice: 1,
            pruners: 0,
            torn_prune: false,
            any_order: false,
            early: matches!(row, Row::Classic | Row::Plain),
            resend: false,
            gives_up: false,
            mutation: None,
            watched: u8::MAX,
            watch_seals: true,
            order,
            records: starts.iter().map(record).collect(),
            instances: starts.iter().map(|start| InstanceId::new(start.name)).collect(),
        }
    }

    /// With this many pruners.
    #[must_use]
    pub fn pruners(mut self, pruners: usize) -> Self {
        self.pruners = pruners;
        self
    }

    /// With pruners whose LIST is torn.
    #[must_use]
    pub fn torn_prune(mut self) -> Self {
        self.torn_prune = true;
        self
    }

    /// With pruners that delete their epochs in any order.
    #[must_use]
    pub fn any_order(mut self) -> Self {
        self.any_order = true;
        self
    }

    /// With commits before the writes returned, which all but [`Row::Exclusive`] allow.
    #[must_use]
    pub fn early(mut self) -> Self {
        self.early = true;
        self
    }

    /// With seals that are sent twice.
    #[must_use]
    pub fn resend(mut self) -> Self {
        self.resend = true;
        self
    }

    /// With leaders that go on without an answer.
    #[must_use]
    pub fn gives_up(mut self) -> Self {
        self.gives_up = true;
        self
    }

    /// With a choice among this many numbers for every epoch.
    #[must_use]
    pub fn choice(mut self, choice: u8) -> Self {
        self.choice = choice;
        self
    }

    /// Without one of the rules.
    #[must_use]
    pub fn without(mut self, mutation: Mutation) -> Self {
        self.mutation = Some(mutation);
        self.early |= mutation == Mutation::CommitOnPresence;
        self
    }

    /// Checks these promises alone.
    #[must_use]
    pub fn watching(mut self, promises: &[Promise]) -> Self {
        self.watched = promises.iter().fold(0, |bits, promise| bits | promise.bit());
        self.watch_seals = false;
        self
    }

    pub(crate) fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    pub(crate) fn has_guards(&self) -> bool {
        self.row != Row::Classic
    }

    pub(crate) fn is_exclusive(&self) -> bool {
        self.row == Row::Exclusive
    }

    pub(crate) fn numbering(&self) -> Numbering {
        if self.row == Row::Versioned { Numbering::Versioned } else { Numbering::Plain }
    }

    pub(crate) fn epoch(&self, slot: Slot) -> Epoch {
        Epoch::new(self.numbers[usize::from(slot)])
    }

    pub(crate) fn version(&self, leader: usize) -> Version {
        Version::new(self.starts[leader].version)
    }

    pub(crate) fn slots(&self) -> std::ops::Range<Slot> {
        0..self.numbers.len() as Slot
    }

    fn breaks(&self, state: &mut State, promise: Promise) {
        state.broken |= promise.bit() & self.watched;
    }
}

/// One step of one process, or of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The next leader is elected, and the record of its version becomes durable. Without guards nobody reads it.
    FenceMoves,
    /// A leader takes its next step: a read, seen by the store now, and what follows from it.
    Leader(usize),
    /// A leader chooses a number and sends the partials.
    Begins(usize, Slot),
    /// A leader commits without having waited for its partials.
    CommitsEarly(usize),
    /// The PUT of a partial lands.
    PartialLands(usize, Slot, usize),
    /// The create of a seal lands.
    SealLands(usize, Slot),
    /// The second copy of the create of a seal lands.
    ResentSealLands(usize),
    /// A leader has no answer for its seal, and sends it again.
    Resends(usize),
    /// A leader has no answer for its seal, and commits the same epoch anew.
    CommitsAgain(usize),
    /// A leader has no answer for what it sent, and goes on to its next epoch.
    GivesUp(usize),
    /// A pruner looks at the next folder, or at all; the last one gives the plan.
    Lists(usize),
    /// A pruner's floor becomes durable.
    FloorLands(usize),
    /// A pruner's delete of a seal takes place.
    SealGoes(usize, Slot),
    /// A pruner's delete of a partial takes place.
    PartialGoes(usize, Slot, usize),
}

impl Model for Pipeline {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let waiting = Leader {
            phase: if self.has_guards() { Phase::RestoreGuard } else { leader::BEGIN_LIST },
            base: Base::None,
            from: 0,
            slot: 0,
            begun: 0,
            partials: [0; VNODES],
            seals: 0,
            resent: None,
        };
        let mut state = State {
            fence: self.starts[0].version as u8,
            floor: 0,
            seals: [0; SLOTS],
            partials: [[0; VNODES]; SLOTS],
            late: 0,
            leaders: std::array::from_fn(|_| waiting.clone()),
            pruners: std::array::from_fn(|pruner| (pruner < self.pruners).then_some(Pruner::NEW)),
            acknowledged: [0; LEADERS],
            broken: 0,
        };
        state.leaders[0].phase = Phase::Choosing;
        state.leaders[0].base = Base::Empty;
        self.settle(&mut state, 0);
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken != 0 {
            // What follows on a broken promise shows nothing new.
            return;
        }
        if self.starts.iter().any(|start| start.version > u64::from(state.fence)) {
            actions.push(Action::FenceMoves);
        }
        for leader in 0..self.starts.len() {
            self.leader_actions(state, leader, actions);
        }
        for pruner in 0..self.pruners {
            self.pruner_actions(state, pruner, actions);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::FenceMoves => state.fence += 1,
            Action::Leader(leader) => self.step(&mut state, leader),
            Action::Begins(leader, slot) => Self::begin(&mut state, leader, slot),
            Action::CommitsEarly(leader) | Action::CommitsAgain(leader) => self.begin_commit(&mut state, leader),
            Action::GivesUp(leader) => self.next_epoch(&mut state, leader),
            Action::PartialLands(leader, slot, vnode) => self.partial_lands(&mut state, leader, slot, vnode),
            Action::SealLands(leader, slot) => {
                state.leaders[leader].seals &= !bit(slot);
                // Once it was sent again, nobody hears the answer to the first copy.
                let is_heard = state.leaders[leader].resent != Some(slot);
                self.seal_lands(&mut state, leader, slot, is_heard);
            }
            Action::ResentSealLands(leader) => {
                if let Some(slot) = state.leaders[leader].resent.take() {
                    self.seal_lands(&mut state, leader, slot, true);
                }
            }
            Action::Resends(leader) => state.leaders[leader].resent = Some(state.leaders[leader].slot),
            Action::Lists(pruner) => self.list(&mut state, pruner),
            Action::FloorLands(pruner) => self.floor_lands(&mut state, pruner),
            Action::SealGoes(pruner, slot) => self.seal_goes(&mut state, pruner, slot),
            Action::PartialGoes(pruner, slot, vnode) => self.partial_goes(&mut state, pruner, slot, vnode),
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = self.happenings();
        properties.extend([
            Property::always(Promise::Lineage.sentence(), |_, state: &State| {
                state.broken & Promise::Lineage.bit() == 0
            }),
            Property::always(Promise::Kept.sentence(), |_, state: &State| state.broken & Promise::Kept.bit() == 0),
            Property::always(Promise::KeptInLine.sentence(), |_, state: &State| {
                state.broken & Promise::KeptInLine.bit() == 0
            }),
            Property::always(Promise::Unmixed.sentence(), |_, state: &State| {
                state.broken & Promise::Unmixed.bit() == 0
            }),
            Property::always(Promise::OwnSeal.sentence(), |_, state: &State| {
                state.broken & Promise::OwnSeal.bit() == 0
            }),
        ]);
        if self.watch_seals {
            properties.push(Property::always(SEALED_IS_WHOLE, |model: &Self, state: &State| {
                let excused = |slot| state.late & bit(slot) != 0 || state.is_whole(slot);
                model.slots().all(|slot| !state.is_sealed(slot) || excused(slot))
            }));
        }
        properties
    }
}
