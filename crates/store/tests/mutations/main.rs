//! Whether the tests have teeth: the shipped code is broken in one place after the other, and each must be noticed, by a seed of the
//! simulation or by the test of the conformance suite that makes the rare schedule on purpose.
//!
//! The sources are copied, one mutation is made in the copy, and what has to notice it is built and run there. A mutation whose text is
//! not found exactly once fails: then the code has changed, and the mutation has to follow it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what went wrong by failing"
)]

mod table;
mod tree;

use std::path::Path;

use table::{By, MUTATIONS, Mutation};
use tree::Tree;

#[test]
fn the_text_of_every_mutation_is_there_once() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for mutation in MUTATIONS {
        for (file, old, _) in mutation.edits {
            let found = std::fs::read_to_string(sources.join(file)).unwrap().matches(old).count();
            assert_eq!(found, 1, "{}: in {file} the text is there {found} times:\n{old}", mutation.name);
        }
    }
}

/// A mutation as `docs/simulation.md` shows it.
fn row(mutation: &Mutation) -> String {
    let quoted = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let (noticed_by, broken) = match &mutation.noticed_by {
        By::Seeds { scenario: "", promises, .. } => ("a seed".to_owned(), quoted(promises)),
        By::Seeds { scenario, promises, .. } => (format!("a seed of `{scenario}`"), quoted(promises)),
        By::Conformance(test) => (format!("`{}`", test.trim_end_matches("::in_memory")), "-".to_owned()),
    };
    format!("| {} | {noticed_by} | {broken} |", mutation.name)
}

#[test]
fn the_documentation_has_each_mutation_and_what_notices_it() {
    let documentation = include_str!("../../../../docs/simulation.md");
    let rows: Vec<String> = MUTATIONS.iter().map(row).collect();
    let (_, table) = documentation.split_once("| what is broken | noticed by | promise |\n|---|---|---|\n").unwrap();
    let documented: Vec<&str> = table.lines().take_while(|line| line.starts_with('|')).collect();
    assert_eq!(documented, rows, "the table should be:\n{}", rows.join("\n"));
}

#[test]
#[ignore = "builds the library once for each: make mutations"]
fn every_mutation_is_noticed() {
    let tree = Tree::copied();
    let clean = tree.hunt("", 0..30);
    assert!(clean.starts_with("not caught"), "without any mutation: {clean}");
    let only = std::env::var("EPOCHWARDEN_MUTATION").unwrap_or_default();
    let mut escaped = Vec::new();
    for mutation in MUTATIONS.iter().filter(|mutation| mutation.name.contains(&only)) {
        let broken = tree.broken_by(mutation);
        let (noticed, told) = match &mutation.noticed_by {
            By::Seeds { scenario, promises, seeds } => {
                let told = tree.hunt(scenario, 0..*seeds);
                let broken = |promise: &&str| told.contains(&format!(": {promise}:"));
                (told.starts_with("caught") && promises.iter().any(broken), told)
            }
            By::Conformance(test) => tree.conforms(test),
        };
        drop(broken);
        println!("{}: {told}", mutation.name);
        if !noticed {
            escaped.push(mutation.name);
        }
    }
    assert!(escaped.is_empty(), "not noticed, or not for the reason that they break: {escaped:?}");
}
