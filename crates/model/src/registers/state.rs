//! One instant of a register: its records, those who publish, and the Lease.

use super::{PUBLISHERS, RECORDS};

pub(crate) type Term = u8;
pub(crate) type Number = u8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
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
pub(crate) struct Publisher {
    pub(crate) step: Step,
    /// The highest value it has seen, in memory and in `.status`: it outlives a restart.
    pub(crate) seen: Number,
    /// A create of it that is still under way though it waits no more.
    pub(crate) stray: Option<(Number, Term)>,
}

/// One instant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub(crate) lease: Term,
    pub(crate) records: [Option<Term>; RECORDS],
    pub(crate) publishers: [Publisher; PUBLISHERS],
    /// The highest record that ever stood.
    pub(crate) ever: Number,
    pub(crate) lost: bool,
    /// For which terms each number was reported as published, as bits.
    pub(crate) told: [u8; RECORDS],
}

impl State {
    pub(crate) fn highest(&self) -> Number {
        let highest = self.records.iter().rposition(Option::is_some);
        highest.map_or(0, |index| index as Number + 1)
    }

    pub(crate) fn record(&self, number: Number) -> Option<Term> {
        self.records[usize::from(number) - 1]
    }
}
