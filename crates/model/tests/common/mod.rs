//! What both test binaries do with a search.

use epochwarden_model::pipeline::{NINE_TO_ELEVEN, Pipeline, Promise, RESTARTED, Row, Start, THREE};
use epochwarden_model::search::{self, Found, Searchable};

/// The first sequence numbers of a version.
pub(crate) fn versioned(versions: [u64; 3], sequences: &[u64]) -> Vec<u64> {
    versions.iter().flat_map(|version| sequences.iter().map(move |sequence| (version << 40) + sequence)).collect()
}

/// Numbers without gaps, of which the second is listed before the first.
pub(crate) const DENSE: [u64; 6] = [9, 10, 11, 12, 13, 14];

/// Numbers as a clock gives them, of differing length.
pub(crate) const SPARSE: [u64; 7] = [5, 40, 70, 300, 2_000, 30_000, 100_000];

/// Leaders of a row with two epochs each, and numbers without gaps.
pub(crate) fn dense(row: Row) -> Pipeline {
    match row {
        Row::Versioned => Pipeline::new(row, &NINE_TO_ELEVEN, &versioned([9, 10, 11], &[1, 2]), 2),
        _ => Pipeline::new(row, &THREE, &DENSE, 2),
    }
}

/// Leaders of a row with two epochs each, each with a choice of two numbers.
pub(crate) fn sparse(row: Row) -> Pipeline {
    let pipeline = match row {
        Row::Versioned => Pipeline::new(row, &NINE_TO_ELEVEN, &versioned([9, 10, 11], &[1, 2, 500]), 2),
        _ => Pipeline::new(row, &THREE, &SPARSE, 2),
    };
    pipeline.choice(2)
}

/// The second leader is the first one's process, under the same name.
pub(crate) fn restarted(row: Row) -> Pipeline {
    match row {
        Row::Versioned => Pipeline::new(row, &RESTARTED, &versioned([1, 2, 3], &[1, 2]), 2),
        _ => Pipeline::new(row, &RESTARTED, &DENSE, 2),
    }
}

/// The first two leaders alone, with two epochs each.
pub(crate) fn two(row: Row) -> Pipeline {
    let starts: &[Start] = if row == Row::Versioned { &NINE_TO_ELEVEN[..2] } else { &THREE[..2] };
    let mut numbers = if row == Row::Versioned { versioned([9, 10, 11], &[1, 2]) } else { DENSE.to_vec() };
    numbers.truncate(4);
    Pipeline::new(row, starts, &numbers, 2)
}

/// The first two leaders alone, with two epochs each, each with a choice of two numbers.
pub(crate) fn two_sparse(row: Row) -> Pipeline {
    let pipeline = match row {
        Row::Versioned => {
            let mut numbers = versioned([9, 10, 11], &[1, 2, 500]);
            numbers.truncate(6);
            Pipeline::new(row, &NINE_TO_ELEVEN[..2], &numbers, 2)
        }
        _ => Pipeline::new(row, &THREE[..2], &[5, 40, 70, 300, 2_000], 2),
    };
    pipeline.choice(2)
}

/// Tells people what was found, also where the words of tests that pass are kept back.
fn say(words: &str) {
    use std::io::Write as _;
    // A reader that has gone is no reason to fail.
    let _ = writeln!(std::io::stdout().lock(), "{words}");
}

/// No model that is worth a search has fewer states.
const FEWEST: usize = 1_000;

/// Searches everything, and requires that it was everything, that nothing breaks and that nothing is empty.
#[track_caller]
pub(crate) fn holds<M: Searchable>(what: &str, model: &M) {
    let Found { states, complete, depth, took, broken, never } = search::all(model);
    say(&format!("{what}: {states} states, up to {depth} steps, {:.1} s", took.as_secs_f64()));
    for (promise, way) in &broken {
        println!("BROKEN: {promise}\n{way}");
    }
    assert!(broken.is_empty(), "{what}: see the way above");
    assert!(complete, "{what}: {states} states, and the search was not over");
    assert!(states >= FEWEST, "{what}: {states} states are too few to be a search of anything");
    assert!(never.is_empty(), "{what}: never happens, so the promises say nothing: {never:?}");
}

/// Requires that the search finds the way to break `promise`, and prints it.
#[track_caller]
pub(crate) fn breaks<M: Searchable>(what: &str, model: &M, promise: &'static str) {
    let Found { states, took, broken, .. } = search::counterexample(model, Some(promise));
    let way = broken.iter().find(|(broken, _)| *broken == promise).map(|(_, way)| way);
    assert!(way.is_some(), "{what}: {states} states, and nothing breaks {promise:?}");
    let way = way.map_or("", String::as_str);
    say(&format!("{what}: breaks {promise:?}, {states} states, {:.1} s\n{way}", took.as_secs_f64()));
}

/// The promises of the protocol's table and whether a row keeps them.
pub(crate) fn table(row: Row) -> [(Promise, bool); 3] {
    let keeps = match row {
        Row::Classic => [false, false, false],
        Row::Plain => [false, true, false],
        Row::Exclusive | Row::Versioned => [true, true, true],
    };
    [(Promise::TABLE[0], keeps[0]), (Promise::TABLE[1], keeps[1]), (Promise::TABLE[2], keeps[2])]
}
