//! The seeds: that they are repeatable, that they find nothing, and that they can find what is there.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::oracle::Promise;
use crate::run::{Outcome, run};
use crate::setup::Scenario;
use crate::world::Counts;

/// How many seeds every test run plays.
const SEEDS: u64 = 2_000;
/// How much of a failing run is shown.
const TAIL: usize = 80;
/// What no 2,000 seeds may go without: otherwise they prove less than they seem to.
const MUST_HAPPEN: &[&str] = &[
    "acknowledged",
    "audits",
    "burned epochs",
    "conflicts in flight",
    "crashes",
    "epochs below the floor",
    "epochs read by number",
    "failed keys of bulk deletes",
    "fence conflicts",
    "leaderships awaited",
    "lost answers",
    "lost registers told",
    "partial conflicts",
    "pauses",
    "prunes that partly failed",
    "prunes with deletions",
    "resent creates",
    "restores",
    "restores begun anew",
    "seals lost during a restore",
    "seals of other versions asked for",
    "seals of others",
    "short pages",
    "slow requests",
    "stale versions",
    "stale writes",
    "stalls",
    "states missed by a restore",
    "terms",
    "torn lists",
    "undead processes",
    "versions assigned",
];

/// The scenarios that hold, each with everything that it promises, and those that do not.
const SCENARIOS: &[(&str, Scenario)] = &[
    ("plain", Scenario::PLAIN),
    ("exclusive", Scenario::EXCLUSIVE),
    ("versioned", Scenario::VERSIONED),
    ("classic-asked-for-all", Scenario::CLASSIC.whole()),
    ("classic-asked-for-unmixed", Scenario { unmixed: true, ..Scenario::CLASSIC }),
    ("classic", Scenario::CLASSIC),
    ("plain-asked-for-all", Scenario::PLAIN.whole()),
    ("exclusive-with-shared-versions", Scenario { raises_transitions: false, ..Scenario::EXCLUSIVE }),
    ("exclusive-without-a-look", Scenario { begins_above_unsealed: false, ..Scenario::EXCLUSIVE }),
];

/// How many of them hold.
const HOLD: u64 = 3;

fn scenario(name: &str) -> Scenario {
    let found = SCENARIOS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("there is no scenario {name}")).1
}

/// The scenario of a seed, where none is named.
fn scenario_of(seed: u64) -> &'static str {
    SCENARIOS[usize::try_from(seed % HOLD).unwrap()].0
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What went wrong, and how to see it again.
fn report(seed: u64, name: &str, outcome: &Outcome) -> String {
    let violation = outcome.violation.as_ref().unwrap();
    // The same run once more, for its words.
    let worded = run(seed, scenario(name), true);
    assert_eq!(worded.hash, outcome.hash, "seed {seed} of {name} gives another trace when it is run again");
    let tail = worded.lines.len().saturating_sub(TAIL);
    format!(
        "seed {seed} of scenario {name} breaks a promise\n  {violation}\nthe end of its trace:\n{}\nthe whole of it:\n  \
         EPOCHWARDEN_SEED={seed} EPOCHWARDEN_SCENARIO={name} cargo test -p epochwarden-store --test simulation replay -- --nocapture\n",
        worded.lines[tail..].join("\n")
    )
}

/// Plays seeds on two threads until one breaks a promise, and returns the lowest that was found to.
fn play(
    seeds: std::ops::Range<u64>,
    name: Option<&str>,
    mut each: impl FnMut(u64, &Outcome) + Send,
) -> Option<(u64, &'static str, Outcome)> {
    let next = AtomicU64::new(seeds.start);
    let over = AtomicBool::new(false);
    let found = Mutex::new(None::<(u64, &'static str, Outcome)>);
    let each = Mutex::new(&mut each);
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let known = SCENARIOS.iter().map(|(known, _)| *known).find(|known| name == Some(*known));
                    let name = known.unwrap_or_else(|| scenario_of(seed));
                    let outcome = run(seed, scenario(name), false);
                    each.lock().unwrap()(seed, &outcome);
                    if outcome.violation.is_some() {
                        over.store(true, Ordering::Relaxed);
                        let mut found = found.lock().unwrap();
                        if found.as_ref().is_none_or(|(lowest, ..)| seed < *lowest) {
                            *found = Some((seed, name, outcome));
                        }
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
}

fn add(counts: &mut Counts, outcome: &Outcome) {
    for (what, count) in &outcome.counts {
        *counts.entry(what).or_default() += count;
    }
}

#[test]
fn no_seed_of_2000_breaks_a_promise_and_together_they_meet_everything() {
    let mut counts = Counts::new();
    let found = play(0..SEEDS, None, |_, outcome| add(&mut counts, outcome));
    if let Some((seed, name, outcome)) = found {
        panic!("{}", report(seed, name, &outcome));
    }
    println!("{SEEDS} seeds met: {counts:#?}");
    let never: Vec<_> = MUST_HAPPEN.iter().filter(|what| !counts.contains_key(**what)).collect();
    assert!(never.is_empty(), "no seed has met {never:?}: what they were to show is not shown");
}

#[test]
fn a_seed_run_twice_gives_one_trace() {
    for (name, scenario) in SCENARIOS {
        for seed in 0..6 {
            let (first, second) = (run(seed, *scenario, false), run(seed, *scenario, true));
            assert_eq!((first.hash, first.events), (second.hash, second.events), "seed {seed} of {name}");
            assert_eq!(first.counts, second.counts, "seed {seed} of {name}");
            assert_eq!(second.events, u64::try_from(second.lines.len()).unwrap());
        }
        assert_ne!(run(1, *scenario, false).hash, run(2, *scenario, false).hash, "seeds of {name} differ");
    }
}

/// What the table of guarantees says "no" to is found: the oracle can see it, and the faults bring it about.
#[test]
fn what_is_not_promised_is_broken_by_some_seed() {
    for (name, promise) in [
        ("classic-asked-for-all", Promise::Lineage),
        ("classic-asked-for-unmixed", Promise::Unmixed),
        ("plain-asked-for-all", Promise::Lineage),
        ("plain-asked-for-all", Promise::Unmixed),
        ("exclusive-with-shared-versions", Promise::Lineage),
        ("exclusive-without-a-look", Promise::Lineage),
    ] {
        let broken = (0..1_500).find_map(|seed| {
            let outcome = run(seed, scenario(name), false);
            outcome.violation.filter(|violation| violation.promise == promise).map(|violation| (seed, violation))
        });
        let (seed, violation) = broken.unwrap_or_else(|| panic!("no seed of {name} breaks {promise:?}"));
        println!("seed {seed} of {name}: {violation}");
    }
}

/// Shows one run: the seed of `EPOCHWARDEN_SEED`, by the scenario of `EPOCHWARDEN_SCENARIO` or its own.
#[test]
fn replay() {
    let seed = variable("EPOCHWARDEN_SEED").map_or(0, |seed| seed.parse().unwrap());
    let name = variable("EPOCHWARDEN_SCENARIO").unwrap_or_else(|| scenario_of(seed).to_owned());
    let outcome = run(seed, scenario(&name), true);
    for line in &outcome.lines {
        println!("{line}");
    }
    println!("seed {seed} of scenario {name}: {} events, hash {:016x}", outcome.events, outcome.hash);
    if let Some(violation) = outcome.violation {
        panic!("{violation}");
    }
}

/// Plays the seeds of `EPOCHWARDEN_SEEDS` (`FROM..TO`) until one breaks a promise, and says which: the test of mutations asks for it.
#[test]
#[ignore = "for the test of mutations"]
fn hunt() {
    let seeds = variable("EPOCHWARDEN_SEEDS").unwrap_or_else(|| "0..500".to_owned());
    let (from, to) = seeds.split_once("..").unwrap();
    let name = variable("EPOCHWARDEN_SCENARIO");
    match play(from.parse().unwrap()..to.parse().unwrap(), name.as_deref(), |_, _| ()) {
        Some((seed, name, outcome)) => println!("caught by seed {seed} of {name}: {}", outcome.violation.unwrap()),
        None => println!("not caught by the seeds {seeds}"),
    }
}

/// Counts which promises are broken by the seeds of `EPOCHWARDEN_SEEDS`, without stopping at the first.
#[test]
#[ignore = "for a person who looks at the whole"]
fn census() {
    let seeds = variable("EPOCHWARDEN_SEEDS").unwrap_or_else(|| "0..500".to_owned());
    let (from, to) = seeds.split_once("..").unwrap();
    let name = variable("EPOCHWARDEN_SCENARIO");
    let (from, to): (u64, u64) = (from.parse().unwrap(), to.parse().unwrap());
    let mut broken: BTreeMap<Promise, Vec<u64>> = BTreeMap::new();
    let mut counts = Counts::new();
    for seed in from..to {
        let outcome = run(seed, scenario(name.as_deref().unwrap_or_else(|| scenario_of(seed))), false);
        add(&mut counts, &outcome);
        if let Some(violation) = outcome.violation {
            broken.entry(violation.promise).or_default().push(seed);
        }
    }
    println!("{counts:#?}\n{broken:?}");
}

/// Plays seeds for ever: `make soak`.
#[test]
#[ignore = "runs until it is stopped: make soak"]
fn soak() {
    let mut from = variable("EPOCHWARDEN_SEED").map_or(SEEDS, |seed| seed.parse().unwrap());
    let mut counts = Counts::new();
    loop {
        let found = play(from..from + 500, None, |_, outcome| add(&mut counts, outcome));
        if let Some((seed, name, outcome)) = found {
            panic!("{}", report(seed, name, &outcome));
        }
        from += 500;
        let of = |what| counts.get(what).copied().unwrap_or_default();
        println!(
            "up to seed {from}: {} epochs acknowledged in {} terms, {} restores, {} prunes, {} lost answers: every promise kept",
            of("acknowledged"),
            of("terms"),
            of("restores"),
            of("prunes with deletions"),
            of("lost answers")
        );
    }
}
