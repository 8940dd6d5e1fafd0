//! Larger bounds, and what `models` searches apart searched together: `make model`.

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::{dense, holds, restarted, sparse, two, two_sparse, versioned};
use epochwarden_model::pipeline::{NINE_TO_ELEVEN, Pipeline, Promise, Row, THREE};
use epochwarden_model::registers::{Mode, Registers, TENURES};

const ROWS: [Row; 2] = [Row::Exclusive, Row::Versioned];

#[test]
fn three_epochs_of_each_of_three_leaders() {
    let numbers: Vec<u64> = (8..17).collect();
    holds("Exclusive, 3 leaders, 3 epochs each", &Pipeline::new(Row::Exclusive, &THREE, &numbers, 3));
    let numbers = versioned([9, 10, 11], &[1, 2, 3]);
    holds("Versioned, 3 leaders, 3 epochs each", &Pipeline::new(Row::Versioned, &NINE_TO_ELEVEN, &numbers, 3));
}

#[test]
fn two_pruners_whose_every_listing_is_torn() {
    for row in ROWS {
        holds(&format!("{row:?}, 2 leaders, 2 pruners, every LIST torn"), &two(row).pruners(2).torn_prune());
    }
}

#[test]
fn a_torn_pruner_among_three_leaders() {
    for row in ROWS {
        holds(&format!("{row:?}, 3 leaders, 1 pruner, every LIST torn"), &dense(row).pruners(1).torn_prune());
    }
}

#[test]
fn two_pruners_among_three_leaders() {
    for row in ROWS {
        holds(&format!("{row:?}, 3 leaders, 2 pruners"), &dense(row).pruners(2));
    }
}

#[test]
fn two_pruners_among_gaps() {
    for row in ROWS {
        holds(&format!("{row:?}, 2 leaders, sparse, 2 pruners"), &two_sparse(row).pruners(2));
    }
}

#[test]
fn leaders_that_give_up() {
    for row in ROWS {
        holds(&format!("{row:?}, 3 leaders that give up"), &dense(row).gives_up());
    }
    let plain = two(Row::Plain).gives_up().pruners(1).watching(&[Promise::Kept, Promise::OwnSeal]);
    holds("Plain, 2 leaders that give up, 1 pruner", &plain);
}

#[test]
fn a_pruner_among_gaps() {
    for row in ROWS {
        holds(&format!("{row:?}, 3 leaders, sparse, 1 pruner"), &sparse(row).pruners(1));
    }
}

#[test]
fn a_pruner_beside_a_leader_that_was_started_again() {
    for row in ROWS {
        holds(&format!("{row:?}, the same name again, seals resent"), &restarted(row).resend());
        holds(&format!("{row:?}, the same name again, 1 pruner"), &restarted(row).pruners(1));
        let torn = restarted(row).pruners(1).torn_prune();
        holds(&format!("{row:?}, the same name again, 1 pruner, every LIST torn"), &torn);
    }
}

#[test]
fn versioned_commits_before_the_writes_returned_beside_a_pruner() {
    holds("Versioned, 3 leaders, early commits, 1 pruner", &dense(Row::Versioned).early().pruners(1));
    holds("Versioned, 3 leaders, early commits, seals resent", &dense(Row::Versioned).early().resend());
    let two = two(Row::Versioned).early().pruners(1).torn_prune().any_order().resend();
    holds("Versioned, 2 leaders, early commits, 1 pruner in any order, torn, seals resent", &two);
}

#[test]
fn plain_keeps_what_is_acknowledged_beside_a_pruner() {
    let plain = |pipeline: Pipeline| pipeline.watching(&[Promise::Kept, Promise::OwnSeal]);
    holds("Plain, 3 leaders, 1 pruner", &plain(dense(Row::Plain).pruners(1)));
    holds("Plain, 2 leaders, sparse, 2 pruners", &plain(two_sparse(Row::Plain).pruners(2)));
    holds("Plain, 2 leaders, 1 pruner, every LIST torn", &plain(two(Row::Plain).pruners(1).torn_prune()));
}

#[test]
fn plain_keeps_what_is_acknowledged_among_gaps_and_resent_seals() {
    let plain = |pipeline: Pipeline| pipeline.watching(&[Promise::Kept, Promise::OwnSeal]);
    holds("Plain, 3 leaders, sparse", &plain(sparse(Row::Plain)));
    holds("Plain, 3 leaders, seals resent", &plain(dense(Row::Plain).resend()));
}

#[test]
fn more_operators_and_more_terms() {
    for mode in [Mode::LeaseTransitions, Mode::Assigned] {
        holds(&format!("{mode:?}, 2 operators, 4 terms"), &Registers::new(mode, &TENURES, 2));
    }
    holds("LeaseTransitions, 3 operators", &Registers::new(Mode::LeaseTransitions, &TENURES[..3], 3));
}
