//! Deletes that fail: what stays with them, and what is said of them.

use epochwarden_testkit::fault::Operation;

use super::*;

#[tokio::test]
async fn a_seal_that_is_not_confirmed_gone_holds_its_epoch_with_every_partial() {
    let bench = Bench::new().await;
    bench.put("epoch=2/manifest").await;
    bench.seal(1..=4).await;
    bench.faults.before(Operation::Delete, "epoch=2/_COMMIT").once().fail();
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::PartlyFailed, ((2, 6), (1, 4))));
    assert_eq!((report.failed, report.errors.len()), (1, 1));
    assert_eq!(report.errors[0].key, "epoch=2/_COMMIT");
    assert_eq!(bench.keys("epoch=2/").await.len(), 4);
    assert_eq!(bench.epochs().await, [2, 4]);

    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::Succeeded, ((1, 4), (0, 0))));
    assert_eq!(bench.epochs().await, [4]);
}

#[tokio::test]
async fn a_seal_whose_delete_was_not_answered_holds_its_epoch_and_the_next_run_finishes_it() {
    let bench = Bench::sealed(1..=3).await;
    bench.faults.after(Operation::Delete, "epoch=1/_COMMIT").once().fail();
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::PartlyFailed, ((1, 3), (1, 3))));
    assert_eq!(bench.keys("epoch=1/").await, ["epoch=1/vnode=0/partial.bin", "epoch=1/vnode=1/partial.bin"]);

    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::Succeeded, ((1, 2), (0, 0))));
    assert_eq!(bench.epochs().await, [3]);
}

#[tokio::test]
async fn a_delete_that_failed_is_counted_and_told_and_never_counted_as_done() {
    let bench = Bench::sealed(1..=4).await;
    bench.faults.before(Operation::Delete, "epoch=2/vnode=1/partial.bin").once().fail();
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::PartlyFailed, ((2, 8), (1, 1))));
    assert_eq!(report.bytes, 2 * OBJECTS * 5, "of the epochs that are gone");
    assert_eq!((report.failed, report.errors.len()), (1, 1));
    assert_eq!(report.errors[0].key, "epoch=2/vnode=1/partial.bin");
    assert!(report.errors[0].error.contains("no answer about"), "{:?}", report.errors);
    assert_eq!(bench.keys("epoch=2").await, ["epoch=2/vnode=1/partial.bin"]);

    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::Succeeded, ((1, 1), (0, 0))));
    assert_eq!(bench.epochs().await, [4]);
}

#[tokio::test]
async fn a_failed_delete_of_an_epoch_that_has_to_be_listed_is_told_too() {
    let bench = Bench::new().await;
    for number in 0..100 {
        bench.put(&format!("epoch=1/notes/{number}")).await;
    }
    bench.seal(1..=2).await;
    bench.faults.before(Operation::Delete, "epoch=1/notes/70").once().fail();
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::PartlyFailed, ((0, 102), (1, 1))));
    assert_eq!((report.failed, report.errors[0].key.as_str()), (1, "epoch=1/notes/70"));
    assert_eq!(bench.keys("epoch=1/").await, ["epoch=1/notes/70"]);
    assert_eq!(bench.prune().await.unwrap().outcome, PruneOutcome::Succeeded);
    assert_eq!(bench.epochs().await, [2]);
}

#[tokio::test]
async fn an_epoch_that_cannot_be_listed_to_its_end_is_a_failure_and_not_done() {
    let bench = Bench::new().await;
    for number in 0..100 {
        bench.put(&format!("epoch=1/notes/{number}")).await;
    }
    bench.put("epoch=2/manifest").await;
    bench.seal(1..=3).await;
    bench.faults.before(Operation::List, "epoch=*").fail();
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome.clone(), report.epochs), (PruneOutcome::PartlyFailed, 0), "{report:?}");
    assert!(report.failed >= 2, "{:?}", report.errors);
    assert_eq!(report.remainder.epochs, 2, "whether epoch 2 is gone could not be looked at");
    bench.faults.clear();
    assert_eq!(bench.prune().await.unwrap().outcome, PruneOutcome::Succeeded);
    assert_eq!(bench.epochs().await, [3]);
}

#[tokio::test]
async fn all_failures_are_counted_and_the_first_are_told() {
    let bench = Bench::sealed(1..=41).await;
    bench.faults.before(Operation::Delete, "*/vnode=0/*").fail();
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::PartlyFailed, ((0, 80), (40, 40))));
    assert_eq!((report.failed, report.errors.len()), (40, MAX_ERRORS));
    assert_eq!(report.bytes, 0);
}

#[tokio::test]
async fn where_nothing_can_be_deleted_nothing_counts_as_deleted() {
    let bench = Bench::sealed(1..=4).await;
    bench
        .faults
        .before(Operation::Delete, "epoch=*")
        .fail_with(|key| object_store::Error::PermissionDenied { path: key.to_owned(), source: "no".into() });
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::PartlyFailed, ((0, 0), (3, 9))));
    assert_eq!(report.failed, 3, "the seals; what they seal was not even tried");
    assert_eq!((bench.epochs().await.len(), bench.keys("epoch=").await.len()), (4, 12));
}

#[tokio::test]
async fn a_key_that_is_not_there_is_as_good_as_deleted() {
    let bench = Bench::sealed(1..=3).await;
    for key in ["epoch=1/_COMMIT", "epoch=2/vnode=0/partial.bin"] {
        let journal = bench.journal.clone();
        bench.faults.before(Operation::Delete, key).once().run(move || {
            let journal = journal.clone();
            async move { journal.remove_unnoticed(key).await }
        });
        bench
            .faults
            .before(Operation::Delete, key)
            .once()
            .fail_with(|key| object_store::Error::NotFound { path: key.to_owned(), source: "it is not there".into() });
    }
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::Succeeded, ((2, 6), (0, 0))));
    assert_eq!((bench.faults.pending(), bench.epochs().await), (0, vec![3]));
}
