use tokio::time::Instant;

use super::*;

/// More than one batch, and how many of it.
const FIRST_BATCH: u64 = 1000;
const EPOCHS: u64 = 1010;

fn stopped(report: &PruneReport) -> &Stop {
    match &report.outcome {
        PruneOutcome::Stopped { stop } => stop,
        other => panic!("{other:?}"),
    }
}

/// Something happens while the first batch goes: the second must not.
async fn only_the_first_batch_goes(bucket: &mut Bucket, permission: &dyn Permission) -> Stop {
    let report = bucket.prune_asking(permission).await.unwrap();
    assert_eq!(report.epochs, FIRST_BATCH);
    let left = EPOCHS - 1 - FIRST_BATCH;
    assert_eq!(report.remainder, Remainder { epochs: left, objects: 3 * left });
    let expected: BTreeSet<String> = (FIRST_BATCH + 1..=EPOCHS).flat_map(whole).collect();
    assert_eq!(
        bucket.keys().await.into_iter().filter(|key| key.starts_with("epoch=")).collect::<BTreeSet<_>>(),
        expected
    );
    stopped(&report).clone()
}

#[tokio::test]
async fn another_owner_between_batches_stops_the_run() {
    for identity in [anybody(), Identity { policy: Some(policy("streaming", "u1")), ..anybody() }] {
        let mut bucket = Bucket::with(1..=EPOCHS).await;
        bucket.identity = identity;
        let memory = Arc::clone(bucket.memory());
        bucket.faults.before(Operation::Delete, "*").once().run(move || {
            let memory = Arc::clone(&memory);
            async move { put(&memory, &key::register(RegisterKind::Owner, 7)).await }
        });
        assert_eq!(only_the_first_batch_goes(&mut bucket, &Always).await, Stop::OwnerChanged);
    }
}

#[tokio::test]
async fn a_register_that_is_lost_between_batches_stops_the_run() {
    let mut bucket = Bucket::with(1..=EPOCHS).await;
    let memory = Arc::clone(bucket.memory());
    bucket.faults.before(Operation::Delete, "*").once().run(move || {
        let memory = Arc::clone(&memory);
        async move { memory.delete(&Path::from(key::register(RegisterKind::Floor, EPOCHS))).await.unwrap() }
    });
    let stop = only_the_first_batch_goes(&mut bucket, &Always).await;
    assert!(matches!(stop, Stop::Store { class: ErrorClass::RegisterLost, .. }), "{stop:?}");
}

#[tokio::test]
async fn a_permission_that_is_withdrawn_between_batches_stops_the_run() {
    let mut bucket = Bucket::with(1..=EPOCHS).await;
    let stop = only_the_first_batch_goes(&mut bucket, &Yes(Mutex::new(2))).await;
    assert_eq!(stop, Stop::NotPermitted { message: "suspended".into() });
}

#[tokio::test]
async fn without_permission_nothing_is_deleted() {
    let mut bucket = Bucket::with(1..=3).await;
    let report = bucket.prune_asking(&Yes(Mutex::new(0))).await.unwrap();
    assert!(matches!(stopped(&report), Stop::NotPermitted { .. }));
    assert_eq!(report.remainder, Remainder { epochs: 2, objects: 6 });
    assert_eq!(bucket.epochs().await, [1, 2, 3].into());
}

#[tokio::test]
async fn cancelling_stops_between_two_requests_and_leaves_the_rest() {
    let mut bucket = Bucket::with(1..=401).await;
    let cancel = bucket.cancel.clone();
    bucket.faults.after(Operation::Delete, "epoch=*/vnode=*").skip(9).once().run(move || {
        cancel.cancel();
        std::future::ready(())
    });
    let before = bucket.keys().await.len() as u64;
    let report = bucket.prune().await.unwrap();
    assert_eq!(stopped(&report), &Stop::Cancelled);
    // All seals, and of the partials those of the ten requests before.
    assert_eq!((report.objects, report.failed), (400 + 10, 0));
    assert_eq!(bucket.keys().await.len() as u64, before - report.objects + 1, "and the floor");
    assert_eq!(report.remainder.objects, 3 * 400 - report.objects);

    bucket.cancel = CancellationToken::new();
    let report = bucket.prune().await.unwrap();
    assert_eq!((report.outcome, report.remainder), (PruneOutcome::Succeeded, Remainder::default()));
    assert_eq!(bucket.epochs().await, [401].into());
}

#[tokio::test]
async fn seals_that_were_not_begun_keep_their_epochs_whole() {
    let mut bucket = Bucket::with(1..=401).await;
    let cancel = bucket.cancel.clone();
    bucket.faults.after(Operation::Delete, "epoch=*/_COMMIT").skip(2).once().run(move || {
        cancel.cancel();
        std::future::ready(())
    });
    let report = bucket.prune().await.unwrap();
    assert_eq!((report.objects, report.epochs), (3, 0));
    assert_eq!(bucket.keys().await.iter().filter(|key| key.contains("/vnode=")).count(), 2 * 401);
}

#[tokio::test]
async fn a_run_that_is_cancelled_before_it_deletes_is_an_error_of_its_own() {
    let mut bucket = Bucket::with(1..=3).await;
    bucket.cancel.cancel();
    assert!(matches!(bucket.prune().await, Err(PruneError::Cancelled)));
    assert_eq!(bucket.keys().await, (1..=3).flat_map(whole).collect());
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_at_its_deadline() {
    let mut bucket = Bucket::with(1..=101).await;
    bucket.rules.deadline = Duration::from_secs(130);
    bucket.faults.before(Operation::Delete, "*").delay(Duration::from_secs(1));
    let started = Instant::now();
    let report = bucket.prune().await.unwrap();
    assert_eq!(stopped(&report), &Stop::Deadline);
    assert!(started.elapsed() <= Duration::from_secs(136), "{:?}", started.elapsed());
    assert!((100..300).contains(&report.objects), "{report:?}");
    assert_eq!(report.remainder.objects, 300 - report.objects);
    assert!(bucket.epochs().await.contains(&101));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_not_waited_for_and_not_counted() {
    let mut bucket = Bucket::with(1..=3).await;
    bucket.rules.deadline = Duration::from_mins(1);
    bucket.faults.before(Operation::Delete, "epoch=2/vnode=1/*").delay(Duration::from_hours(1));
    let started = Instant::now();
    let report = bucket.prune().await.unwrap();
    assert_eq!(stopped(&report), &Stop::Deadline);
    assert_eq!(started.elapsed().as_secs(), 65);
    assert!(bucket.epochs().await.contains(&2));
    assert!(report.epochs < 2 && report.remainder.epochs >= 1, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_before_the_first_delete_is_an_error_of_its_own() {
    let mut bucket = Bucket::with(1..=3).await;
    bucket.faults.before(Operation::List, "").delay(Duration::from_hours(1));
    assert!(matches!(bucket.prune().await, Err(PruneError::DeadlineExceeded { .. })));
    assert_eq!(bucket.epochs().await, [1, 2, 3].into());
}

#[tokio::test]
async fn max_objects_ends_a_run_between_two_epochs_and_never_stops_progress() {
    for (max_objects, epochs) in [(1, 1), (3, 1), (5, 1), (6, 2), (8, 2), (11, 3), (12, 4), (1000, 4)] {
        let mut bucket = Bucket::with(1..=5).await;
        bucket.rules.max_objects = max_objects;
        let report = bucket.prune().await.unwrap();
        assert_eq!((report.epochs, report.objects), (epochs, 3 * epochs), "{max_objects}");
        if epochs < 4 {
            assert_eq!(stopped(&report), &Stop::MaxObjects);
            assert_eq!(report.remainder, Remainder { epochs: 4 - epochs, objects: 3 * (4 - epochs) });
        } else {
            assert_eq!(report.outcome, PruneOutcome::Succeeded);
        }
        let left: BTreeSet<String> = (epochs + 1..=5).flat_map(whole).collect();
        assert_eq!(
            bucket.keys().await.into_iter().filter(|key| key.starts_with("epoch=")).collect::<BTreeSet<_>>(),
            left
        );
    }
}

/// The seal of the newest epoch goes, by whatever hand, while the listing is still being made.
fn the_newest_seal_goes_after_the_listing(bucket: &Bucket, took: Duration) {
    let memory = Arc::clone(bucket.memory());
    bucket.faults.after(Operation::List, "").once().run(move || {
        let memory = Arc::clone(&memory);
        async move { memory.delete(&Path::from("epoch=4/_COMMIT")).await.unwrap() }
    });
    bucket.faults.after(Operation::List, "").once().delay(took);
}

#[tokio::test(start_paused = true)]
async fn with_the_fence_off_an_old_listing_is_made_again_and_what_it_keeps_stays() {
    for (fence, took, left) in [(false, 2, [2, 3, 4].as_slice()), (true, 2, &[3, 4]), (false, 0, &[3, 4])] {
        let mut bucket = Bucket::with(1..=4).await;
        bucket.rules = rules(2);
        if fence {
            bucket.fence().await;
        }
        the_newest_seal_goes_after_the_listing(&bucket, Duration::from_secs(took));
        let report = bucket.prune().await.unwrap();
        assert_eq!(report.outcome, PruneOutcome::Succeeded);
        assert_eq!(report.remainder, Remainder::default());
        assert_eq!(bucket.epochs().await, left.iter().copied().collect(), "fence {fence}, {took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn with_the_fence_off_a_hold_in_the_second_listing_stops_the_run() {
    let mut bucket = Bucket::with(1..=4).await;
    let memory = Arc::clone(bucket.memory());
    bucket.faults.after(Operation::List, "").once().run(move || {
        let memory = Arc::clone(&memory);
        async move { put(&memory, "epoch=1/vnode=0/partial.bin").await }
    });
    bucket.faults.after(Operation::List, "").once().delay(Duration::from_secs(2));
    let report = bucket.prune().await.unwrap();
    assert!(matches!(stopped(&report), Stop::Held { hold: "EpochRegression", .. }), "{report:?}");
    assert_eq!(bucket.epochs().await, [1, 2, 3, 4].into());
}
