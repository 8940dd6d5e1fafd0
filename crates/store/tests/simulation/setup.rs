//! What a seed decides before its run begins: how the pipeline works, how bad the store is, how often something stops or dies.

use std::time::Duration;

use epochwarden_core::retention::{KeepEvery, Retention};
use fastrand::Rng;

/// How the pipeline numbers its epochs and guards its partials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// No registers at all.
    Classic,
    /// Plain numbers, and nothing but the guards.
    Plain,
    /// Plain numbers, exclusive partials and the three rules.
    Exclusive,
    /// Numbers that begin with the version.
    Versioned,
}

/// What a run plays and what is asked of it.
#[allow(clippy::struct_excessive_bools, reason = "independent answers")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) mode: Mode,
    /// Asked: a restored epoch descends from every acknowledged one.
    pub(crate) lineage: bool,
    /// Asked: no restored epoch mixes the partials of two terms.
    pub(crate) unmixed: bool,
    /// A process that finds the Lease in its own name raises the transitions before it leads.
    pub(crate) raises_transitions: bool,
    /// A leader that finds nothing sealed begins above what it was shown unsealed, and not with the lowest number.
    pub(crate) begins_above_unsealed: bool,
}

impl Scenario {
    pub(crate) const PLAIN: Self = Self {
        mode: Mode::Plain,
        lineage: false,
        unmixed: false,
        raises_transitions: true,
        begins_above_unsealed: true,
    };
    pub(crate) const EXCLUSIVE: Self = Self { mode: Mode::Exclusive, ..Self::PLAIN }.whole();
    pub(crate) const VERSIONED: Self = Self { mode: Mode::Versioned, ..Self::PLAIN }.whole();
    pub(crate) const CLASSIC: Self = Self { mode: Mode::Classic, ..Self::PLAIN };

    /// With every property asked for.
    pub(crate) const fn whole(self) -> Self {
        Self { lineage: true, unmixed: true, ..self }
    }

    /// Whether the registers are used.
    pub(crate) const fn fenced(self) -> bool {
        !matches!(self.mode, Mode::Classic)
    }
}

/// How often requests of one kind go wrong, in parts of 1,000.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// Take long before or after their effect.
    pub(crate) slow: u32,
    /// Fail, with or without effect, or are never answered.
    pub(crate) fails: u32,
}

impl Weather {
    fn draw(rng: &mut Rng) -> Self {
        let mut one_of = |choices: [u32; 4]| choices[rng.usize(..choices.len())];
        Self { slow: one_of([0, 10, 60, 200]), fails: one_of([0, 5, 20, 80]) }
    }
}

/// What a seed decides.
#[allow(clippy::struct_excessive_bools, reason = "independent answers")]
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) pods: usize,
    pub(crate) vnodes: u32,
    /// The furthest from one epoch's number to the next.
    pub(crate) step: u64,
    /// The number that the first epoch lies above.
    pub(crate) begin: u64,
    /// Most keys of one page of a listing.
    pub(crate) page: usize,
    pub(crate) writes: Weather,
    pub(crate) seals: Weather,
    pub(crate) records: Weather,
    pub(crate) reads: Weather,
    pub(crate) lists: Weather,
    pub(crate) deletes: Weather,
    /// How long a slow request may take, in milliseconds.
    pub(crate) slowest: u64,
    pub(crate) lease: Duration,
    /// Mean milliseconds between two pauses of a process, and the longest pause.
    pub(crate) pause_every: Option<u64>,
    pub(crate) longest_pause: u64,
    /// How often a process stands still right after an answer, in parts of 1,000: where the order of two requests matters.
    pub(crate) stalls: u32,
    pub(crate) crash_every: Option<u64>,
    /// Whether a process that starts again has the name that it had.
    pub(crate) same_name: bool,
    /// Whether a deposed leader goes on until the store tells it.
    pub(crate) stubborn: bool,
    /// Whether an epoch may be overtaken by the next one before it is sealed.
    pub(crate) overtaken: bool,
    pub(crate) publishes_itself: bool,
    /// Whether the operators give the versions, instead of the Lease.
    pub(crate) assigned: bool,
    pub(crate) pruned_by_leader: bool,
    pub(crate) fence_refresh: Duration,
    pub(crate) retention: Retention,
    pub(crate) pins: bool,
    pub(crate) min_age: Duration,
    /// Mean milliseconds between two prunes of an operator.
    pub(crate) prune_every: u64,
    pub(crate) max_objects: u64,
    /// Records of each register that are there from long ago.
    pub(crate) old_records: u64,
    /// The millisecond at which somebody deletes all records.
    pub(crate) wiped_at: Option<u64>,
    /// The millisecond at which somebody deletes the Lease.
    pub(crate) lease_deleted_at: Option<u64>,
    /// When the faults end.
    pub(crate) calm_at: u64,
}

impl Setup {
    pub(crate) fn draw(rng: &mut Rng, scenario: Scenario) -> Self {
        let chance = |rng: &mut Rng, percent: u32| rng.u32(..100) < percent;
        let calm_at = rng.u64(30_000..90_000);
        let sometime = |rng: &mut Rng| rng.u64(10_000..calm_at);
        let retention = Retention {
            keep_last: Some(rng.u32(1..4)),
            keep_every: if chance(rng, 20) {
                vec![KeepEvery { every: Duration::from_secs(10), for_: Duration::from_mins(1) }]
            } else {
                Vec::new()
            },
            incremental_depth: u32::from(chance(rng, 20)),
            ..Retention::default()
        };
        let old_records = if scenario.fenced() && chance(rng, 10) { 16 } else { 0 };
        // Old floors lie below every epoch.
        let begin = [0, 0, 7, 95][rng.usize(..4)].max(old_records);
        let same_name = chance(rng, 40);
        // Who waits for the fence to name him needs a name that nobody had before.
        let assigned = scenario.fenced() && !same_name && chance(rng, 40);
        Self {
            pods: rng.usize(2..4),
            vnodes: rng.u32(2..5),
            step: if chance(rng, 50) { 1 } else { rng.u64(2..60) },
            begin,
            page: [2, 3, 5, 9, 1000][rng.usize(..5)],
            writes: Weather::draw(rng),
            seals: Weather::draw(rng),
            records: Weather::draw(rng),
            reads: Weather::draw(rng),
            lists: Weather::draw(rng),
            deletes: Weather::draw(rng),
            slowest: [500, 5_000, 30_000][rng.usize(..3)],
            lease: Duration::from_secs(rng.u64(2..6)),
            pause_every: if chance(rng, 80) { Some(rng.u64(3_000..30_000)) } else { None },
            longest_pause: [2_000, 10_000, 40_000][rng.usize(..3)],
            stalls: [0, 10, 30, 80][rng.usize(..4)],
            crash_every: if chance(rng, 70) { Some(rng.u64(8_000..60_000)) } else { None },
            same_name,
            assigned,
            stubborn: chance(rng, 60),
            overtaken: scenario.mode != Mode::Exclusive && chance(rng, 40),
            publishes_itself: scenario.fenced() && !assigned && chance(rng, 40),
            pruned_by_leader: chance(rng, 15),
            fence_refresh: Duration::from_secs([0, 1, 10][rng.usize(..3)]),
            retention,
            pins: chance(rng, 40),
            min_age: Duration::from_secs([0, 0, 5][rng.usize(..3)]),
            prune_every: rng.u64(2_000..15_000),
            max_objects: if chance(rng, 30) { rng.u64(1..20) } else { 1_000_000 },
            old_records,
            wiped_at: if scenario.fenced() && chance(rng, 4) { Some(sometime(rng)) } else { None },
            lease_deleted_at: if chance(rng, 8) { Some(sometime(rng)) } else { None },
            calm_at,
        }
    }
}
