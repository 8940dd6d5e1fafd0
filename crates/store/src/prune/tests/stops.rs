//! What ends a run in the middle, and what it leaves.

use std::sync::atomic::{AtomicUsize, Ordering};

use epochwarden_testkit::fault::Operation;

use super::*;

/// Two batches: the last key of the first that goes, and how many epochs the second has.
const BATCH: u64 = 1000;
const SECOND: u64 = 300;

/// One vnode per epoch, two objects, so many epochs to delete that they are two batches.
async fn two_batches() -> Bench {
    let mut bench = Bench::new().await;
    bench.rules.plan.vnodes = 1;
    bench.seal(1..=BATCH + SECOND + 1).await;
    bench
}

async fn only_the_second_batch_is_left(bench: &Bench, report: &PruneReport) {
    assert_eq!(account(report), ((BATCH, 2 * BATCH), (SECOND, 2 * SECOND)));
    assert_eq!(bench.epochs().await, (BATCH + 1..=BATCH + SECOND + 1).collect::<Vec<_>>());
    assert_eq!(bench.keys("epoch=").await.len() as u64, 2 * (SECOND + 1), "nothing of it was begun");
    assert!(report.floor.is_some());
}

#[tokio::test]
async fn a_cancelled_run_stops_between_requests_with_the_rest_intact_and_the_floor_standing() {
    let bench = Bench::sealed(1..=8).await;
    let cancel = bench.cancel.clone();
    bench.faults.after(Operation::Delete, "epoch=3/vnode=0/partial.bin").once().run(move || {
        let cancel = cancel.clone();
        async move { cancel.cancel() }
    });
    let report = bench.prune().await.unwrap();
    assert_eq!(report.outcome, PruneOutcome::Stopped { stop: Stop::Cancelled });
    let deleted = bench.journal.all_of(&["DELETE"]);
    assert_eq!(deleted.last().unwrap(), "DELETE epoch=3/vnode=0/partial.bin", "{deleted:?}");
    // All seals, two whole epochs, and a partial of the third.
    assert_eq!(account(&report), ((2, 7 + 5), (5, 9)));
    assert_eq!((report.floor.map(ShownEpoch::get), bench.floors().await), (Some(8), vec![floor(8)]));
    assert_eq!(report.failed, 0);

    let mut bench = bench;
    bench.cancel = CancellationToken::new();
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::Succeeded, ((5, 9), (0, 0))));
    assert_eq!(bench.epochs().await, [8]);
}

#[tokio::test]
async fn a_run_that_is_cancelled_among_the_seals_leaves_every_partial() {
    let bench = Bench::sealed(1..=5).await;
    let cancel = bench.cancel.clone();
    bench.faults.after(Operation::Delete, "epoch=2/_COMMIT").once().run(move || {
        let cancel = cancel.clone();
        async move { cancel.cancel() }
    });
    let report = bench.prune().await.unwrap();
    assert_eq!(report.outcome, PruneOutcome::Stopped { stop: Stop::Cancelled });
    assert_eq!(account(&report), ((0, 2), (4, 10)));
    assert_eq!(bench.keys("epoch=").await.len(), 13);
}

#[tokio::test]
async fn a_run_that_is_cancelled_before_the_floor_writes_nothing() {
    let bench = Bench::sealed(1..=3).await;
    bench.cancel.cancel();
    assert!(matches!(bench.prune().await.unwrap_err(), PruneError::Cancelled));
    bench.wrote_nothing();

    let bench = Bench::sealed(1..=3).await;
    let cancel = bench.cancel.clone();
    bench.faults.after(Operation::List, "").run(move || {
        let cancel = cancel.clone();
        async move { cancel.cancel() }
    });
    match bench.prune().await {
        Err(PruneError::Cancelled) => {}
        Ok(report) => assert_eq!(report.outcome, PruneOutcome::Stopped { stop: Stop::Cancelled }),
        Err(other) => panic!("{other}"),
    }
    bench.wrote_nothing();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_does_not_keep_a_cancelled_run() {
    let bench = Bench::sealed(1..=3).await;
    bench.faults.before(Operation::Delete, "epoch=1/_COMMIT").delay(Duration::from_hours(10));
    let cancel = bench.cancel.clone();
    let started = Instant::now();
    let (report, ()) = tokio::join!(bench.prune(), async move {
        tokio::time::sleep_until(started + Duration::from_secs(3)).await;
        cancel.cancel();
    });
    let report = report.unwrap();
    assert_eq!(report.outcome, PruneOutcome::Stopped { stop: Stop::Cancelled });
    assert!(started.elapsed() < Duration::from_mins(1), "{:?}", started.elapsed());
    assert_eq!(bench.keys("epoch=1/").await.len(), 3, "its seal was not confirmed gone");
}

#[tokio::test]
async fn another_owner_between_two_batches_stops_the_run() {
    let bench = two_batches().await;
    let journal = bench.journal.clone();
    bench.faults.after(Operation::Delete, "epoch=1000/vnode=0/partial.bin").once().run(move || {
        let journal = journal.clone();
        async move { journal.put_unnoticed("_epochwarden/owner/00000000000000000001", "{}").await }
    });
    let report = bench.prune().await.unwrap();
    assert_eq!(report.outcome, PruneOutcome::Stopped { stop: Stop::OwnerChanged });
    only_the_second_batch_is_left(&bench, &report).await;
}

#[tokio::test]
async fn a_permission_that_is_withdrawn_stops_the_run_before_the_next_batch() {
    let bench = two_batches().await;
    let permission = until_gone(&bench.journal, "epoch=1/vnode=0/partial.bin");
    let report = bench.prune_by(Approval::Automatic, &permission).await.unwrap();
    let stop = Stop::NotPermitted { message: "suspended".into() };
    assert_eq!(report.outcome, PruneOutcome::Stopped { stop });
    only_the_second_batch_is_left(&bench, &report).await;
}

#[tokio::test]
async fn a_register_that_falls_stops_the_run_before_the_next_batch() {
    let bench = two_batches().await;
    let journal = bench.journal.clone();
    bench.faults.after(Operation::Delete, "epoch=1000/vnode=0/partial.bin").once().run(move || {
        let journal = journal.clone();
        async move { journal.remove_unnoticed(&floor(BATCH + SECOND + 1)).await }
    });
    let report = bench.prune().await.unwrap();
    let PruneOutcome::Stopped { stop: Stop::Store { class, .. } } = &report.outcome else { panic!("{report:?}") };
    assert_eq!(*class, ErrorClass::RegisterLost);
    only_the_second_batch_is_left(&bench, &report).await;
}

#[tokio::test]
async fn registers_that_cannot_be_read_stop_the_run_before_the_next_batch() {
    let bench = two_batches().await;
    let faults = bench.faults.clone();
    bench.faults.after(Operation::Delete, "epoch=1000/vnode=0/partial.bin").once().run(move || {
        let faults = faults.clone();
        async move { faults.before(Operation::List, "_epochwarden").fail() }
    });
    let report = bench.prune().await.unwrap();
    assert!(matches!(report.outcome, PruneOutcome::Stopped { stop: Stop::Store { .. } }), "{report:?}");
    only_the_second_batch_is_left(&bench, &report).await;
    bench.faults.clear();
    assert_eq!(bench.prune().await.unwrap().outcome, PruneOutcome::Succeeded);
}

#[tokio::test]
async fn without_permission_not_even_the_floor_is_written() {
    let bench = Bench::sealed(1..=3).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let permission = Asking(move || -> BoxFuture<'static, Result<(), Stop>> {
        counter.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Err(Stop::NotPermitted { message: "suspended".into() }) })
    });
    let report = bench.prune_by(Approval::Automatic, &permission).await.unwrap();
    assert!(matches!(report.outcome, PruneOutcome::Stopped { stop: Stop::NotPermitted { .. } }), "{report:?}");
    assert_eq!((asked.load(Ordering::Relaxed), account(&report)), (1, ((0, 0), (2, 6))));
    assert_eq!(report.floor, None);
    bench.wrote_nothing();
}

#[tokio::test]
async fn a_root_that_is_claimed_while_it_is_listed_gets_no_floor() {
    let bench = Bench::sealed(1..=3).await;
    let journal = bench.journal.clone();
    bench.faults.after(Operation::List, "").once().run(move || {
        let journal = journal.clone();
        async move { journal.put_unnoticed("_epochwarden/owner/00000000000000000001", "{}").await }
    });
    let report = bench.prune().await.unwrap();
    assert_eq!(report.outcome, PruneOutcome::Stopped { stop: Stop::OwnerChanged });
    bench.wrote_nothing();
}
