//! How fast a run deletes, measured in a store whose clock is the test's.

use std::sync::Mutex;

use epochwarden_testkit::fault::Operation;
use futures::StreamExt;
use object_store::Error;

use super::*;
use crate::http::answers::{Server, error_body, page};
use crate::root::RootSettings;

/// Whole seconds from the first delete, and how many keys went in each.
#[derive(Clone, Default)]
struct Meter(Arc<Mutex<Vec<Instant>>>);

impl Meter {
    fn on(bench: &Bench) -> Self {
        let meter = Self::default();
        let times = Arc::clone(&meter.0);
        bench.faults.before(Operation::Delete, "*").run(move || {
            times.lock().unwrap().push(Instant::now());
            std::future::ready(())
        });
        meter
    }

    fn seconds(&self) -> Vec<usize> {
        let times = self.0.lock().unwrap();
        let mut seconds = Vec::new();
        for time in times.iter() {
            let second = usize::try_from(time.duration_since(times[0]).as_secs()).unwrap();
            seconds.resize(seconds.len().max(second + 1), 0);
            seconds[second] += 1;
        }
        seconds
    }
}

#[tokio::test(start_paused = true)]
async fn no_second_has_more_keys_than_may_go_and_none_has_fewer_as_long_as_there_are_any() {
    let mut bench = Bench::sealed(1..=101).await;
    bench.rules.max_keys_per_second = Some(50);
    let meter = Meter::on(&bench);
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome, report.objects), (PruneOutcome::Succeeded, 300));
    assert_eq!(meter.seconds(), [50; 6]);
}

#[tokio::test(start_paused = true)]
async fn the_pace_holds_from_batch_to_batch() {
    let mut bench = Bench::new().await;
    bench.rules.plan.vnodes = 1;
    bench.rules.max_keys_per_second = Some(500);
    bench.seal(1..=1251).await;
    let meter = Meter::on(&bench);
    assert_eq!(bench.prune().await.unwrap().objects, 2500);
    assert_eq!(meter.seconds(), [500; 5]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_run_asks_as_often_as_a_fast_one_and_stops_within_seconds_of_a_no() {
    let mut bench = Bench::sealed(1..=101).await;
    bench.rules.max_keys_per_second = Some(3);
    let begun = Instant::now();
    let until = begun + Duration::from_secs(20);
    let permission = Asking(move || -> BoxFuture<'static, Result<(), Stop>> {
        let wanted = Instant::now() < until;
        let no = || Stop::NotPermitted { message: "the policy has changed".into() };
        Box::pin(async move { wanted.then_some(()).ok_or_else(no) })
    });
    let report = bench.prune_by(Approval::Automatic, &permission).await.unwrap();
    assert!(
        matches!(report.outcome, PruneOutcome::Stopped { stop: Stop::NotPermitted { .. } }),
        "{:?}",
        report.outcome
    );
    assert!(begun.elapsed() <= Duration::from_secs(32), "{:?}", begun.elapsed());
    assert_eq!(report.epochs, report.objects / 3, "what was begun is whole");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_while_a_key_waits_for_its_turn_is_kept() {
    let mut bench = Bench::sealed(1..=101).await;
    bench.rules.max_keys_per_second = Some(1);
    bench.rules.deadline = Duration::from_millis(10_500);
    let meter = Meter::on(&bench);
    let started = Instant::now();
    let report = bench.prune().await.unwrap();
    assert_eq!(report.outcome, PruneOutcome::Stopped { stop: Stop::Deadline });
    assert_eq!((started.elapsed(), meter.seconds()), (bench.rules.deadline, vec![1; 11]));
    // A batch of ten seconds is three epochs of three objects; of the second, two seals are gone.
    assert_eq!((report.objects, report.epochs, report.remainder.epochs, report.failed), (11, 3, 97, 0));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_does_not_wait_for_its_turn() {
    let mut bench = Bench::sealed(1..=101).await;
    bench.rules.max_keys_per_second = Some(1);
    let cancel = bench.cancel.clone();
    bench.faults.after(Operation::Delete, "*").skip(2).once().run(move || {
        cancel.cancel();
        std::future::ready(())
    });
    let started = Instant::now();
    let report = bench.prune().await.unwrap();
    assert_eq!(report.outcome, PruneOutcome::Stopped { stop: Stop::Cancelled });
    assert_eq!(started.elapsed(), Duration::from_secs(2), "the third key, and no other");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_says_slow_down_is_asked_for_less() {
    let mut bench = Bench::sealed(1..=101).await;
    bench.rules.max_keys_per_second = Some(20);
    let meter = Meter::on(&bench);
    bench.faults.before(Operation::Delete, "*/_COMMIT").skip(20).once().fail_with(|key| Error::Generic {
        store: "S3",
        source: format!(
            "DeleteObjects request failed for key {key}: Please reduce your request rate. (code: SlowDown)"
        )
        .into(),
    });
    let told = Mutex::new(Vec::new());
    let note = |progress| {
        if let PruneProgress::Deleting { keys_per_second, .. } = progress {
            told.lock().unwrap().push(keys_per_second.unwrap());
        }
    };
    let report = bench.prune_telling(Approval::Automatic, &Always, &note).await.unwrap();
    let mut told = told.into_inner().unwrap();
    told.dedup();
    // The answers of the first second came with the one that asked for less.
    assert_eq!(told[..3], [10, 12, 14], "half of it, and after each ten seconds a tenth more");
    // The epoch of that key keeps the other two of its three.
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::PartlyFailed, ((99, 297), (1, 3))));
    let seconds = meter.seconds();
    assert_eq!(seconds[0], 20);
    assert!(seconds[2..=10].iter().all(|keys| *keys == 10), "half of it: {seconds:?}");
    assert!(seconds[13..=20].iter().all(|keys| *keys == 12), "and after ten seconds a tenth more: {seconds:?}");
}

#[test]
fn a_failure_that_asks_for_fewer_requests_is_told_from_others() {
    let said = |text: &str| crate::error::cause::throttled(&Error::Generic { store: "S3", source: text.into() });
    for text in [
        "Server returned non-2xx status code: 429 Too Many Requests: ",
        "Server returned non-2xx status code: 503 Service Unavailable: <Error><Code>SlowDown</Code></Error>",
        "Server returned error response: <Error><Code>SlowDown</Code></Error>",
        "DeleteObjects request failed for key epoch=1/_COMMIT: no (code: SlowDown)",
        "Bulk delete request failed for key epoch=1/_COMMIT: no (code: 503)",
    ] {
        assert!(said(text), "{text}");
    }
    for text in [
        "Server returned non-2xx status code: 500 Internal Server Error: <Error><Code>InternalError</Code></Error>",
        "Server returned non-2xx status code: 403 Forbidden: <Error><Message>no (code: SlowDown)</Message></Error>",
        "DeleteObjects request failed for key epoch=1/SlowDown: (code: SlowDown) (code: AccessDenied)",
        "SlowDown",
    ] {
        assert!(!said(text), "{text}");
    }
}

#[tokio::test]
async fn an_answer_of_too_many_requests_is_counted_whoever_asked() {
    let server = Server::start(|line, number| {
        let answer = if number == 0 { (503, error_body("SlowDown", "no")) } else { (200, page(&[], None)) };
        assert!(line.starts_with("GET "), "{line}");
        Some((answer.0, "", answer.1))
    })
    .await;
    let root = server.s3(&RootSettings::default());
    assert_eq!(root.throttled(), 0);
    crate::list_registers(&root).await.unwrap();
    assert_eq!((root.throttled(), root.requests().list), (1, 2));
}

#[tokio::test]
async fn bulk_requests_have_no_more_keys_than_go_in_a_second() {
    let server =
        Server::start(|_, _| Some((200, "", "<DeleteResult><Deleted><Key>x</Key></Deleted></DeleteResult>".into())))
            .await;
    let root = server.s3(&RootSettings::default());
    let mut bench = Bench::without_fence();
    bench.rules.max_keys_per_second = Some(100);
    bench.rules.deadline = Duration::from_millis(1500);
    let parts = groups::Parts::of(bench);
    let started = Instant::now();
    let gone = parts.run(&root).delete(groups::partials(1000)).count().await;
    assert_eq!((gone, server.requests().len()), (200, 2), "at once, after a second, and then the deadline had passed");
    assert!(started.elapsed() < Duration::from_secs(3));
}
