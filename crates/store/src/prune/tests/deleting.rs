use super::*;

#[tokio::test]
async fn what_is_not_kept_goes_and_nothing_else() {
    let mut bucket = Bucket::with([1, 3, 7, 18_000_000_000_000_000_000]).await;
    bucket.rules = rules(2);
    let others =
        ["epoch=007/vnode=0/partial.bin", "notes.txt", "epochs/1", "_epochwarden/probe/4b9c", "_epochwarden/x"];
    for key in others {
        bucket.put(key).await;
    }
    bucket.fence().await;
    let fence = key::register(RegisterKind::Fence, 1);
    let report = bucket.prune().await.unwrap();
    assert_eq!(report.outcome, PruneOutcome::Succeeded);
    assert_eq!((report.epochs, report.objects, report.bytes, report.failed), (2, 6, 12, 0));
    let mut expected: BTreeSet<String> = [7, 18_000_000_000_000_000_000].into_iter().flat_map(whole).collect();
    expected.extend(others.map(str::to_owned));
    expected.extend([fence, key::register(RegisterKind::Floor, 4)]);
    assert_eq!(bucket.keys().await, expected);
}

#[tokio::test]
async fn running_again_deletes_nothing_and_writes_nothing() {
    let mut bucket = Bucket::with(1..=5).await;
    bucket.identity.policy = Some(policy("streaming", "u1"));
    bucket.prune().await.unwrap();
    let before = bucket.keys().await;
    let report = bucket.prune().await.unwrap();
    assert_eq!((report.outcome, report.epochs, report.floor), (PruneOutcome::Succeeded, 0, None));
    assert_eq!((report.requests.put, report.requests.delete), (0, 0));
    assert_eq!(bucket.keys().await, before);
}

#[tokio::test(start_paused = true)]
async fn a_small_prune_takes_few_requests() {
    // Without a minimum age a listing binds nobody while the fence is off: it is made again, and the registers read after it.
    for (fence, lists) in [(true, 4), (false, 6)] {
        let mut bucket = Bucket::with(1..=3).await;
        if fence {
            bucket.fence().await;
        }
        bucket.identity.policy = Some(policy("streaming", "u1"));
        bucket.put_owner(1, &policy("streaming", "u1")).await;
        let requests = bucket.prune().await.unwrap().requests;
        // The registers before and the root; the registers again before the floor and before the batch. The owner. The floor.
        assert_eq!((requests.list, requests.get, requests.put, requests.delete, requests.head), (lists, 1, 1, 6, 0));
    }
}

#[tokio::test]
async fn a_failed_delete_is_not_counted_and_the_next_run_finishes() {
    let mut bucket = Bucket::with(1..=4).await;
    bucket.faults.before(Operation::Delete, "epoch=2/vnode=*").fail();
    let report = bucket.prune().await.unwrap();
    assert_eq!(report.outcome, PruneOutcome::PartlyFailed);
    assert_eq!((report.epochs, report.objects, report.failed), (2, 7, 2));
    assert_eq!(report.remainder, Remainder { epochs: 1, objects: 2 });
    let told: BTreeSet<&str> = report.errors.iter().map(|failure| failure.key.as_str()).collect();
    assert_eq!(told, ["epoch=2/vnode=0/partial.bin", "epoch=2/vnode=1/partial.bin"].into());
    assert_eq!(bucket.epochs().await, [2, 4].into());

    bucket.faults.clear();
    let report = bucket.prune().await.unwrap();
    assert_eq!((report.outcome, report.epochs, report.objects), (PruneOutcome::Succeeded, 1, 2));
    assert_eq!(bucket.epochs().await, [4].into());
}

#[tokio::test]
async fn of_many_failures_the_first_are_told_and_all_are_counted() {
    let mut bucket = Bucket::with(1..=31).await;
    bucket.faults.before(Operation::Delete, "*").fail();
    let report = bucket.prune().await.unwrap();
    assert_eq!(
        (report.failed, report.errors.len(), report.objects),
        (30, MAX_ERRORS, 0),
        "nothing but seals was tried"
    );
}

#[tokio::test]
async fn a_key_that_is_gone_already_is_as_good_as_deleted() {
    let mut bucket = Bucket::with(1..=3).await;
    bucket
        .faults
        .before(Operation::Delete, "epoch=1/*")
        .fail_with(|key| object_store::Error::NotFound { path: key.to_owned(), source: "gone".into() });
    let report = bucket.prune().await.unwrap();
    assert_eq!((report.outcome, report.epochs, report.failed), (PruneOutcome::Succeeded, 2, 0));
}

#[tokio::test]
async fn abandoned_epochs_go_and_those_in_flight_stay() {
    let mut bucket = Bucket::with([]).await;
    bucket.write(1).await;
    bucket.seal(2).await;
    bucket.write(3).await;
    bucket.seal(4).await;
    bucket.write(5).await;
    let report = bucket.prune().await.unwrap();
    assert_eq!((report.epochs, report.objects), (3, 7));
    assert_eq!(bucket.epochs().await, [4, 5].into());
}

#[tokio::test]
async fn everything_below_an_epoch_goes_with_it_however_much_it_is() {
    for extras in [1_u64, 64, 65, 2500] {
        let mut bucket = Bucket::with([]).await;
        for number in 0..extras {
            bucket.put(&format!("epoch=1/app/{number}")).await;
        }
        // A vnode that the pipeline should not have, and one epoch without anything unusual.
        bucket.put("epoch=1/vnode=9/partial.bin").await;
        for epoch in 1..=3 {
            bucket.seal(epoch).await;
        }
        let report = bucket.prune().await.unwrap();
        assert_eq!(report.outcome, PruneOutcome::Succeeded, "{extras}: {report:?}");
        assert_eq!((report.epochs, report.objects), (2, 6 + 1 + extras), "{extras}");
        assert_eq!(bucket.epochs().await, [3].into(), "{extras}");
    }
}

#[tokio::test]
async fn an_epoch_with_a_folder_marker_stays_whole_and_others_go() {
    let mut bucket = Bucket::with(1..=3).await;
    bucket.faults.list_also("epoch=1");
    let report = bucket.prune().await.unwrap();
    assert_eq!((report.outcome, report.epochs), (PruneOutcome::Succeeded, 1));
    let left = bucket.keys().await.into_iter().filter(|key| key.starts_with("epoch=")).collect::<BTreeSet<_>>();
    assert_eq!(left, [1, 3].into_iter().flat_map(whole).collect());
}

/// Such as the marker of a folder inside the epoch: the delete succeeds, and removes nothing.
#[tokio::test]
async fn a_key_that_no_delete_removes_is_a_failure_and_not_tried_for_ever() {
    let mut bucket = Bucket::with(1..=3).await;
    bucket.faults.list_also("epoch=1/app");
    let report = bucket.prune().await.unwrap();
    assert_eq!(report.outcome, PruneOutcome::PartlyFailed);
    assert_eq!((report.epochs, report.objects, report.failed), (1, 6, 1), "{report:?}");
    assert_eq!(report.errors[0].key, "epoch=1/app");
    assert_eq!(report.remainder, Remainder { epochs: 1, objects: 1 });
}

#[tokio::test]
async fn an_epoch_that_is_sealed_again_meanwhile_is_left_alone() {
    let mut bucket = Bucket::with(1..=3).await;
    for number in 0..65 {
        bucket.put(&format!("epoch=1/zzz/{number}")).await;
    }
    bucket.seal(4).await;
    let memory = Arc::clone(bucket.memory());
    bucket.faults.before(Operation::List, "epoch=1").once().run(move || {
        let memory = Arc::clone(&memory);
        async move { put(&memory, "epoch=1/_COMMIT").await }
    });
    let report = bucket.prune().await.unwrap();
    assert_eq!((report.outcome, report.epochs, report.failed), (PruneOutcome::PartlyFailed, 2, 1));
    assert_eq!(report.errors[0].key, "epoch=1/_COMMIT");
    assert_eq!(bucket.keys().await.iter().filter(|key| key.starts_with("epoch=1/")).count(), 65 + 3);
}

#[tokio::test]
async fn progress_ends_where_the_plan_does() {
    let bucket = Bucket::with(1..=21).await;
    let told = Mutex::new(Vec::new());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let on_progress = |progress| told.lock().unwrap().push(progress);
    let (root, cancel) = (bucket.root(), CancellationToken::new());
    run(&root, &bucket.rules, &bucket.identity, Approval::Automatic, &Always, &clock, &cancel, &on_progress)
        .await
        .unwrap();
    let told = told.into_inner().unwrap();
    assert_eq!(told[0], PruneProgress::Listing { objects: 63 });
    let deleting: Vec<_> = (1..=60).map(|done| PruneProgress::Deleting { done, total: 60 }).collect();
    assert_eq!(told[1..], deleting);
}

/// 100,000 objects, of which no more than a few groups of keys exist at any time.
#[tokio::test]
async fn keys_are_made_as_they_are_deleted() {
    let bucket = Bucket::with([]).await;
    let root = bucket.root();
    let parts = Parts::default();
    let run = parts.run(&root);
    let made = std::sync::atomic::AtomicU64::new(0);
    let made = &made;
    let keys = (0..100_000_u64).map(|vnode| {
        made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        format!("epoch=1/vnode={vnode}/partial.bin")
    });
    let mut fates = run.delete(keys);
    let (mut gone, mut most) = (0, 0);
    while let Some((_, result)) = futures::StreamExt::next(&mut fates).await {
        result.unwrap();
        gone += 1;
        most = most.max(made.load(std::sync::atomic::Ordering::Relaxed) - gone);
    }
    assert_eq!(gone, 100_000);
    assert!(most <= 1000, "{most} keys at once");
}

#[tokio::test]
async fn the_report_has_a_stable_form() {
    let mut bucket = Bucket::with(1..=4).await;
    bucket.rules.max_objects = 4;
    bucket.faults.before(Operation::Delete, "epoch=1/vnode=0/*").fail();
    let json = serde_json::to_value(bucket.prune().await.unwrap()).unwrap();
    let fields: BTreeSet<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "startedAt",
        "finishedAt",
        "outcome",
        "stop",
        "plan",
        "found",
        "floor",
        "epochs",
        "objects",
        "bytes",
        "failed",
        "errors",
        "remainder",
        "requests",
    ];
    assert_eq!(fields, expected.into());
    assert_eq!((&json["outcome"], &json["stop"]["reason"]), (&"Stopped".into(), &"MaxObjects".into()));
    assert_eq!((&json["floor"], &json["failed"]), (&"4".into(), &1.into()));
    assert_eq!(json["errors"][0]["key"], "epoch=1/vnode=0/partial.bin");
    assert_eq!(json["plan"]["delete"], serde_json::json!([{ "from": "1", "to": "3", "reason": "Expired" }]));
    let lost = Stop::Store { class: ErrorClass::RegisterLost, message: "x".into() };
    assert_eq!(
        serde_json::to_value(lost).unwrap(),
        serde_json::json!({ "reason": "Store", "class": "RegisterLost", "message": "x" })
    );
}
