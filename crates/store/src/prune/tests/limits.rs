//! What bounds a run: objects, time, memory.

use epochwarden_testkit::fault::Operation;

use super::*;

#[tokio::test]
async fn max_objects_is_kept_in_whole_epochs_and_the_next_run_goes_on() {
    let mut bench = Bench::sealed(1..=6).await;
    for (max, gone) in [(7, vec![1, 2]), (6, vec![3, 4])] {
        bench.rules.max_objects = max;
        let before = bench.epochs().await;
        let report = bench.prune().await.unwrap();
        let left = before.len() as u64 - 1 - 2;
        let stop = PruneOutcome::Stopped { stop: Stop::MaxObjects };
        assert_eq!((report.outcome.clone(), account(&report)), (stop, ((2, 6), (left, left * OBJECTS))));
        assert_eq!(
            report.floor.map(ShownEpoch::get),
            Some(6),
            "the floor is the plan's: what is left is planned again"
        );
        let expected: Vec<_> = before.into_iter().filter(|epoch| !gone.contains(epoch)).collect();
        assert_eq!(bench.epochs().await, expected, "the oldest went");
        assert_eq!(bench.keys("epoch=").await.len() as u64, expected.len() as u64 * OBJECTS, "no epoch is cut");
    }
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome, bench.epochs().await), (PruneOutcome::Succeeded, vec![6]));
}

#[tokio::test]
async fn at_least_one_epoch_goes_whatever_max_objects_is() {
    for max in [0, 1] {
        let mut bench = Bench::sealed(1..=3).await;
        bench.rules.max_objects = max;
        let report = bench.prune().await.unwrap();
        let stop = PruneOutcome::Stopped { stop: Stop::MaxObjects };
        assert_eq!((report.outcome.clone(), account(&report)), (stop, ((1, 3), (1, 3))));
        assert_eq!(bench.epochs().await, [2, 3]);
    }
}

#[tokio::test]
async fn exactly_as_many_objects_as_may_go_are_no_stop() {
    let mut bench = Bench::sealed(1..=3).await;
    bench.rules.max_objects = 6;
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome, bench.epochs().await), (PruneOutcome::Succeeded, vec![3]));
}

#[tokio::test]
async fn max_objects_holds_across_batches() {
    let mut bench = Bench::new().await;
    bench.rules.plan.vnodes = 1;
    bench.rules.max_objects = 2401;
    bench.seal(1..=1301).await;
    let report = bench.prune().await.unwrap();
    let stop = PruneOutcome::Stopped { stop: Stop::MaxObjects };
    assert_eq!((report.outcome.clone(), account(&report)), (stop, ((1200, 2400), (100, 200))));
    assert_eq!(bench.epochs().await, (1201..=1301).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn the_deadline_stops_between_requests_and_the_next_run_finishes() {
    let mut bench = Bench::sealed(1..=8).await;
    bench.rules.deadline = Duration::from_secs(10);
    bench.faults.before(Operation::Delete, "*/vnode=*").delay(Duration::from_secs(2));
    let report = bench.prune().await.unwrap();
    assert_eq!(report.outcome, PruneOutcome::Stopped { stop: Stop::Deadline });
    let ((epochs, objects), (left, left_objects)) = account(&report);
    assert_eq!((epochs + left, objects + left_objects), (7, 21));
    assert_eq!(bench.journal.all_of(&["DELETE"]).len() as u64, objects, "each was answered, and counts");
    assert!((7..=15).contains(&objects), "the seals at once, and five partials one after another: {objects}");
    assert_eq!(bench.keys("epoch=").await.len() as u64, left_objects + OBJECTS);
    assert_eq!(bench.floors().await, [floor(8)]);

    bench.faults.clear();
    bench.rules.deadline = Duration::from_mins(30);
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome, bench.epochs().await), (PruneOutcome::Succeeded, vec![8]));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_while_the_root_is_listed_writes_nothing() {
    let mut bench = Bench::sealed(1..=3).await;
    bench.rules.deadline = Duration::from_secs(10);
    bench.faults.before(Operation::List, "").delay(Duration::from_mins(1));
    let started = Instant::now();
    let error = bench.prune().await.unwrap_err();
    assert!(matches!(error, PruneError::DeadlineExceeded { deadline } if deadline == bench.rules.deadline), "{error}");
    assert_eq!(started.elapsed(), bench.rules.deadline);
    bench.wrote_nothing();
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_with_the_last_answer_is_no_stop() {
    let mut bench = Bench::sealed(1..=2).await;
    bench.rules.deadline = Duration::from_secs(10);
    bench.faults.before(Operation::Delete, "epoch=1/vnode=1/partial.bin").once().delay(Duration::from_secs(12));
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::Succeeded, ((1, 3), (0, 0))));
}

#[tokio::test]
async fn any_deadline_and_any_bound_of_objects_is_taken() {
    let mut bench = Bench::sealed(1..=2).await;
    bench.rules.deadline = Duration::MAX;
    bench.rules.max_objects = u64::MAX;
    assert_eq!(bench.prune().await.unwrap().outcome, PruneOutcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_not_waited_for_and_not_counted() {
    let mut bench = Bench::sealed(1..=3).await;
    bench.rules.deadline = Duration::from_mins(1);
    bench.faults.before(Operation::Delete, "epoch=2/vnode=1/*").delay(Duration::from_hours(1));
    let started = Instant::now();
    let report = bench.prune().await.unwrap();
    assert_eq!(report.outcome, PruneOutcome::Stopped { stop: Stop::Deadline });
    assert!(started.elapsed() < Duration::from_mins(2), "{:?}", started.elapsed());
    assert!(bench.keys("epoch=2/").await.contains(&"epoch=2/vnode=1/partial.bin".to_owned()));
    assert_eq!((report.epochs, report.remainder.epochs, report.failed), (0, 2, 0), "{report:?}");
}
