//! Without a fence the floor binds nobody, so an old listing is not trusted.

use std::sync::atomic::{AtomicBool, Ordering};

use epochwarden_testkit::fault::Operation;

use super::*;

const MIN_AGE: Duration = Duration::from_mins(1);

/// While the registers are read for the first time after the floor stands, `span` passes and the root changes.
fn meanwhile<F>(bench: &Bench, span: Duration, change: impl Fn(Journal) -> F + Send + Sync + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (journal, change) = (bench.journal.clone(), Arc::new(change));
    let done = Arc::new(AtomicBool::new(false));
    bench.faults.before(Operation::List, "_epochwarden").run(move || {
        let (journal, change, done) = (journal.clone(), Arc::clone(&change), Arc::clone(&done));
        async move {
            let floor_stands = !journal.all_of(&["PUT _epochwarden/floor/"]).is_empty();
            if floor_stands && !done.swap(true, Ordering::Relaxed) {
                tokio::time::sleep_until(Instant::now() + span).await;
                change(journal).await;
            }
        }
    });
}

async fn remove(journal: &Journal, epochs: impl IntoIterator<Item = u64>, vnodes: u32) {
    for epoch in epochs {
        journal.remove_unnoticed(&format!("epoch={epoch}/_COMMIT")).await;
        for vnode in 0..vnodes {
            journal.remove_unnoticed(&format!("epoch={epoch}/vnode={vnode}/partial.bin")).await;
        }
    }
}

/// Sealed epochs of which only the newest is younger than the minimum age, but for a second one that is settled.
async fn settled(bench: &mut Bench, epochs: RangeInclusive<u64>) {
    bench.rules.plan.min_age = MIN_AGE;
    bench.seal(epochs).await;
    bench.journal.advance(1000);
    bench.seal([1_000_001]).await;
    bench.journal.advance(1000);
    bench.seal([1_000_002]).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_fence_an_old_listing_is_made_again_and_what_may_not_go_any_more_stays() {
    for (fence, span, epoch_3_stays, listings) in [
        (false, MIN_AGE + Duration::from_secs(1), true, 2),
        // The listing is trusted as long as an epoch has to wait anyway.
        (false, MIN_AGE, false, 1),
        // Nothing below the floor can be acknowledged.
        (true, MIN_AGE + Duration::from_secs(1), false, 1),
    ] {
        let mut bench = if fence { Bench::new().await } else { Bench::without_fence() };
        settled(&mut bench, 1..=3).await;
        // The newest epochs are gone: by its own listing a prune would delete what is the newest now.
        meanwhile(&bench, span, |journal| async move {
            remove(&journal, [1_000_001, 1_000_002], VNODES).await;
        });
        let report = bench.prune().await.unwrap();
        assert_eq!(bench.journal.count("LIST "), listings, "fence {fence}, {span:?}");
        assert_eq!(bench.epochs().await.contains(&3), epoch_3_stays, "fence {fence}, {span:?}: {report:?}");
    }
}

#[tokio::test]
async fn without_a_fence_and_a_minimum_age_the_root_is_listed_again_before_every_batch() {
    let mut bench = Bench::without_fence();
    bench.rules.plan.vnodes = 1;
    bench.seal(1..=1301).await;
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::Succeeded, ((1300, 2600), (0, 0))));
    assert_eq!(bench.journal.count("LIST "), 3);
}

#[tokio::test(start_paused = true)]
async fn what_a_new_listing_keeps_is_kept_from_every_later_batch() {
    let mut bench = Bench::without_fence();
    bench.rules.plan.vnodes = 1;
    settled(&mut bench, 1..=1400).await;
    meanwhile(&bench, MIN_AGE * 2, |journal| async move {
        remove(&journal, (1301..=1400).chain([1_000_001, 1_000_002]), 1).await;
    });
    let report = bench.prune().await.unwrap();
    assert_eq!(bench.journal.count("LIST "), 2, "the second batch comes at once after the first");
    let left = bench.epochs().await;
    assert!(left.contains(&1300), "the newest sealed epoch that there is: {left:?} {report:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_not_approved_does_not_go_because_of_a_new_listing() {
    let mut bench = Bench::without_fence();
    bench.rules.plan.retention.pinned.insert(Epoch::new(1));
    settled(&mut bench, 1..=3).await;
    let approved = bench.plan().await;
    bench.rules.plan.retention.pinned.clear();
    bench.journal.forget();
    meanwhile(&bench, MIN_AGE * 2, |_| async {});
    bench.prune_by(Approval::Plan(Box::new(approved)), &Always).await.unwrap();
    assert_eq!(bench.journal.count("LIST "), 2);
    assert!(bench.epochs().await.contains(&1));
    assert!(!bench.epochs().await.contains(&2));
}

#[tokio::test(start_paused = true)]
async fn a_new_listing_that_holds_the_prune_stops_it() {
    let mut bench = Bench::without_fence();
    settled(&mut bench, 1..=3).await;
    meanwhile(&bench, MIN_AGE * 2, |journal| async move {
        journal.put_unnoticed("epoch=9/_SEAL", "newer").await;
    });
    let report = bench.prune().await.unwrap();
    let PruneOutcome::Stopped { stop: Stop::Held { hold, .. } } = &report.outcome else { panic!("{report:?}") };
    assert_eq!(*hold, "UnknownLayout");
    assert_eq!(report.epochs, 0);
    assert!(bench.journal.all_of(&["DELETE"]).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_root_that_cannot_be_listed_again_stops_the_prune() {
    let mut bench = Bench::without_fence();
    settled(&mut bench, 1..=3).await;
    let faults = bench.faults.clone();
    meanwhile(&bench, MIN_AGE * 2, move |_| {
        faults.before(Operation::List, "").fail();
        async {}
    });
    let report = bench.prune().await.unwrap();
    assert!(matches!(report.outcome, PruneOutcome::Stopped { stop: Stop::Store { .. } }), "{report:?}");
    assert_eq!((report.epochs, report.remainder.epochs > 0), (0, true));
    assert!(bench.journal.all_of(&["DELETE"]).is_empty());
}
