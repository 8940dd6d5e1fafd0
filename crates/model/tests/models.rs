//! The table of `docs/protocol.md`, and what each rule is there for.

mod common;

use common::{breaks, dense, holds, restarted, sparse, table, two, two_sparse};
use epochwarden_model::pipeline::{Mutation, Pipeline, Promise, Row, SEALED_IS_WHOLE, SHARED_VERSION};
use epochwarden_model::registers::{self, Mode, Registers, TENURES};

/// What the table says `Plain` keeps, and that nobody takes another's seal for its own.
const PLAIN: [Promise; 2] = [Promise::Kept, Promise::OwnSeal];

#[test]
fn every_no_of_the_table_has_its_counterexample() {
    for row in [Row::Classic, Row::Plain] {
        for (promise, _) in table(row).into_iter().filter(|(_, keeps)| !keeps) {
            breaks(&format!("{row:?}"), &dense(row).pruners(1).watching(&[promise]), promise.sentence());
        }
    }
}

#[test]
fn plain_numbers_let_a_prune_keep_the_wrong_line() {
    let model = dense(Row::Plain).pruners(1).watching(&[Promise::KeptInLine]);
    breaks("Plain", &model, Promise::KeptInLine.sentence());
}

#[test]
fn plain_keeps_what_is_acknowledged() {
    let plain = |pipeline: Pipeline| pipeline.watching(&PLAIN);
    holds("Plain, 3 leaders, no pruner", &plain(dense(Row::Plain)));
    holds("Plain, 2 leaders, 1 pruner", &plain(two(Row::Plain).pruners(1)));
    holds("Plain, 2 leaders, sparse, 1 pruner", &plain(two_sparse(Row::Plain).pruners(1)));
}

#[test]
fn exclusive_partials_keep_every_promise() {
    let row = Row::Exclusive;
    holds("Plain + exclusive, 3 leaders, dense, 1 pruner", &dense(row).pruners(1));
    holds("Plain + exclusive, 3 leaders, sparse", &sparse(row));
    holds("Plain + exclusive, 2 leaders, sparse, 1 pruner", &two_sparse(row).pruners(1));
    holds("Plain + exclusive, 3 leaders, seals resent", &dense(row).resend());
    holds("Plain + exclusive, the same name again", &restarted(row));
    holds("Plain + exclusive, 2 leaders, 2 pruners", &two(row).pruners(2));
    holds("Plain + exclusive, 2 leaders that give up, 1 pruner", &two(row).gives_up().pruners(1));
    holds(
        "Plain + exclusive, 2 leaders, 1 pruner in any order, torn, seals resent",
        &two(row).pruners(1).torn_prune().any_order().resend(),
    );
}

#[test]
fn versioned_numbers_keep_every_promise() {
    let row = Row::Versioned;
    holds("Versioned, 3 leaders, dense, 1 pruner", &dense(row).pruners(1));
    holds("Versioned, 3 leaders, sparse", &sparse(row));
    holds("Versioned, 3 leaders, commits before the writes returned", &dense(row).early());
    holds("Versioned, 3 leaders, seals resent", &dense(row).resend());
    holds("Versioned, 2 leaders, sparse, 1 pruner", &two_sparse(row).pruners(1));
    holds("Versioned, the same name again", &restarted(row));
    holds("Versioned, 2 leaders, 2 pruners", &two(row).pruners(2));
    holds("Versioned, 2 leaders that give up, 1 pruner", &two(row).gives_up().pruners(1));
    holds(
        "Versioned, 2 leaders, 1 pruner in any order, torn, seals resent",
        &two(row).pruners(1).torn_prune().any_order().resend(),
    );
}

#[test]
fn every_rule_of_commit_restore_and_prune_is_needed() {
    use Row::{Exclusive, Plain, Versioned};
    let lineage = Promise::Lineage.sentence();
    let kept = Promise::Kept.sentence();
    let unmixed = Promise::Unmixed.sentence();
    let kept_in_line = Promise::KeptInLine.sentence();
    let own_seal = Promise::OwnSeal.sentence();
    let cases: &[(Mutation, Pipeline, &'static str)] = &[
        (Mutation::NoFirstGuard, dense(Exclusive), lineage),
        (Mutation::NoSecondGuard, dense(Exclusive), lineage),
        (Mutation::NoSecondGuard, dense(Versioned), lineage),
        (Mutation::CommitIgnoresFloor, two_sparse(Plain).pruners(1).watching(&[Promise::Kept]), kept),
        (Mutation::RestoreWithoutSecondRead, two(Exclusive).pruners(1), lineage),
        (Mutation::RestoreWithoutSecondRead, dense(Versioned), lineage),
        (Mutation::EmptyWithoutSecondRead, two(Exclusive).pruners(1), lineage),
        (Mutation::RestoreIgnoresFloor, two(Exclusive).pruners(1), lineage),
        (Mutation::PartialAlreadyExistsAsSuccess, dense(Exclusive), unmixed),
        (Mutation::SealAlreadyExistsAsSuccess, dense(Plain).watching(&[Promise::OwnSeal]), own_seal),
        (Mutation::FloorAfterDeletes, two(Exclusive).pruners(1), SEALED_IS_WHOLE),
        (Mutation::FloorAfterDeletes, two(Versioned).pruners(1), SEALED_IS_WHOLE),
        (Mutation::PartialsBeforeSeal, two(Versioned).pruners(1), SEALED_IS_WHOLE),
        (Mutation::PrunesUnacknowledgedLatest, two(Versioned).pruners(1).watching(&[Promise::Kept]), kept),
        (
            Mutation::PrunesUnacknowledgedLatest,
            two(Exclusive).pruners(1).watching(&[Promise::KeptInLine]),
            kept_in_line,
        ),
        (Mutation::CommitOnPresence, dense(Exclusive), unmixed),
        (Mutation::NumbersFromRestored, sparse(Exclusive), lineage),
        (
            Mutation::NumbersFromRestored,
            two_sparse(Exclusive).pruners(1).watching(&[Promise::KeptInLine]),
            kept_in_line,
        ),
        (Mutation::ConflictDoesNotBurn, dense(Exclusive), unmixed),
    ];
    for mutation in Mutation::ALL {
        assert!(cases.iter().any(|(tried, ..)| *tried == mutation), "{mutation:?} is not tried");
    }
    for (mutation, pipeline, promise) in cases {
        breaks(&format!("{mutation:?} ({:?})", pipeline.row), &pipeline.clone().without(*mutation), promise);
    }
}

#[test]
fn a_version_that_two_starts_share_breaks_the_line() {
    let pipeline = Pipeline::new(Row::Exclusive, &SHARED_VERSION, &common::DENSE, 2);
    breaks("a version shared (Exclusive)", &pipeline, Promise::Lineage.sentence());
    let pipeline = Pipeline::new(Row::Versioned, &SHARED_VERSION, &common::versioned([1, 2, 3], &[1, 2]), 2);
    breaks("a version shared (Versioned)", &pipeline, Promise::Lineage.sentence());
}

#[test]
fn registers_only_rise_and_no_version_stands_for_two_terms() {
    for mode in [Mode::LeaseTransitions, Mode::Assigned] {
        holds(&format!("{mode:?}, 2 operators"), &Registers::new(mode, &TENURES[..3], 2));
        holds(&format!("{mode:?}, 1 operator, records lost"), &Registers::new(mode, &TENURES, 1).with_loss());
    }
    holds("floor, 3 pruners", &Registers::new(Mode::Floor, &TENURES[..3], 3));
}

#[test]
fn every_rule_of_the_registers_is_needed() {
    use registers::Mutation::{
        AlreadyExistsAsSuccess, AssignedWithoutSecondGet, HighestIsDone, LostIsZero, TrimHighest,
    };
    use registers::{DURABLE, IN_ORDER, NEVER_FALLS, ONE_HOLDER};
    let fence = |mode| Registers::new(mode, &TENURES, 2);
    for (mutation, model, promise) in [
        (TrimHighest, fence(Mode::LeaseTransitions), NEVER_FALLS),
        (TrimHighest, Registers::new(Mode::Floor, &TENURES[..2], 2), DURABLE),
        (LostIsZero, Registers::new(Mode::Assigned, &TENURES, 1).with_loss(), ONE_HOLDER),
        (HighestIsDone, fence(Mode::LeaseTransitions), ONE_HOLDER),
        (AlreadyExistsAsSuccess, fence(Mode::Assigned), ONE_HOLDER),
        (AssignedWithoutSecondGet, fence(Mode::Assigned), IN_ORDER),
    ] {
        breaks(&format!("{mutation:?} ({:?})", model.mode), &model.without(mutation), promise);
    }
}
