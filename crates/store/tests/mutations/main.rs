//! Whether the simulation has teeth: the shipped code is broken in one place after the other, and some seed has to notice each.
//!
//! The sources are copied, one mutation is made in the copy, and the simulation is built and run there. A mutation whose text is not
//! found exactly once fails: then the code has changed, and the mutation has to follow it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what went wrong by failing"
)]

mod table;
mod tree;

use table::MUTATIONS;
use tree::Tree;

#[test]
fn every_mutation_is_caught_by_some_seed() {
    let tree = Tree::copied();
    let clean = tree.hunt("", 0..30);
    assert!(clean.starts_with("not caught"), "without any mutation: {clean}");
    let only = std::env::var("EPOCHWARDEN_MUTATION").unwrap_or_default();
    let mut escaped = Vec::new();
    for mutation in MUTATIONS.iter().filter(|mutation| mutation.name.contains(&only)) {
        let broken = tree.broken_by(mutation);
        let caught = tree.hunt(mutation.scenario, 0..mutation.seeds);
        drop(broken);
        println!("{}: {caught}", mutation.name);
        if !mutation.promises.iter().any(|promise| caught.starts_with("caught") && caught.contains(promise)) {
            escaped.push(mutation.name);
        }
    }
    assert!(escaped.is_empty(), "not caught, or not for the reason that they break: {escaped:?}");
}
