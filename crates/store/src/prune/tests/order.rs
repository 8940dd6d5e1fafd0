//! What is written and deleted, and in which order.

use epochwarden_testkit::fault::Operation;

use super::*;
use crate::root::RootSettings;

#[tokio::test]
async fn the_floor_is_durable_before_the_first_delete_and_stands_above_the_highest_deleted_epoch() {
    let bench = Bench::sealed(1..=5).await;
    let report = bench.prune().await.unwrap();
    assert_eq!(report.outcome, PruneOutcome::Succeeded);
    assert_eq!(account(&report), ((4, 4 * OBJECTS), (0, 0)));
    assert_eq!(report.bytes, 4 * OBJECTS * 5);
    assert_eq!((report.failed, report.floor.map(ShownEpoch::get)), (0, Some(5)));
    assert_eq!(bench.epochs().await, [5]);
    let written = bench.journal.all_of(&["PUT", "DELETE"]);
    assert_eq!(written[0], format!("PUT {}", floor(5)), "{written:?}");
    assert_eq!(bench.journal.all_of(&["DELETE"]).len(), 12);
}

#[tokio::test(start_paused = true)]
async fn a_floor_that_is_not_known_to_stand_deletes_nothing() {
    let refused = |key: &str| object_store::Error::PermissionDenied { path: key.to_owned(), source: "no".into() };
    for (fault, class) in [("refused", ErrorClass::AccessDenied), ("unanswered", ErrorClass::OutcomeUnknown)] {
        let bench = Bench::sealed(1..=3).await;
        let hook = bench.faults.before(Operation::Put, "_epochwarden/floor/*");
        if fault == "refused" {
            hook.fail_with(refused);
        } else {
            hook.fail();
        }
        let error = bench.prune().await.unwrap_err();
        assert_eq!(error.class(), Some(class), "{error}");
        bench.wrote_nothing();
        assert_eq!(bench.epochs().await, [1, 2, 3]);
    }
}

#[tokio::test]
async fn a_floor_whose_answer_is_lost_is_read_back_and_the_prune_goes_on() {
    let bench = Bench::sealed(1..=3).await;
    bench.faults.after(Operation::Put, "_epochwarden/floor/*").once().fail();
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome, bench.faults.pending()), (PruneOutcome::Succeeded, 0));
    assert_eq!(bench.epochs().await, [3]);
}

#[tokio::test]
async fn a_floor_that_stands_higher_stays_and_is_the_one_reported() {
    let bench = Bench::sealed(1..=3).await;
    bench.put(&floor(40)).await;
    let report = bench.prune().await.unwrap();
    assert_eq!(
        report.floor.map(ShownEpoch::get),
        Some(40),
        "the floor never falls, and neither does what is said of it"
    );
    assert_eq!(bench.floors().await, [floor(40)]);
    assert_eq!(bench.epochs().await, [3]);
}

#[tokio::test]
async fn old_floors_are_trimmed_and_the_new_one_stays() {
    let bench = Bench::new().await;
    for number in 1..=20 {
        bench.put(&floor(number)).await;
    }
    bench.seal(101..=103).await;
    bench.prune().await.unwrap();
    let floors = bench.floors().await;
    assert!(floors.len() <= 17, "{floors:?}");
    assert_eq!(floors.last(), Some(&floor(103)));
}

#[tokio::test(start_paused = true)]
async fn every_seal_of_a_batch_is_gone_before_the_first_partial_goes() {
    let bench = Bench::sealed(1..=6).await;
    bench.put("epoch=1/manifest").await;
    bench.seal([7]).await;
    // The others would be long done.
    bench.faults.before(Operation::Delete, "epoch=4/_COMMIT").once().delay(Duration::from_mins(1));
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome, bench.faults.pending()), (PruneOutcome::Succeeded, 0));
    let deleted = bench.journal.all_of(&["DELETE"]);
    let seals = deleted.iter().take_while(|event| event.ends_with("/_COMMIT")).count();
    assert_eq!(seals, 6, "{deleted:?}");
    assert_eq!(deleted.len(), 6 * 3 + 1);
}

#[tokio::test]
async fn batches_go_oldest_first_and_each_to_its_end() {
    let mut bench = Bench::new().await;
    bench.rules.plan.vnodes = 1;
    bench.seal(1..=2002).await;
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::Succeeded, ((2001, 4002), (0, 0))));
    let epochs = |keys: &[String]| -> BTreeSet<u64> {
        let number = |event: &String| event.strip_prefix("DELETE epoch=")?.split('/').next()?.parse().ok();
        keys.iter().map(|event| number(event).unwrap()).collect()
    };
    let deleted = bench.journal.all_of(&["DELETE"]);
    assert_eq!(epochs(&deleted[..2000]), (1..=1000).collect());
    assert_eq!(epochs(&deleted[2000..4000]), (1001..=2000).collect());
    assert_eq!(epochs(&deleted[4000..]), [2001].into());
    assert_eq!(bench.epochs().await, [2002]);
}

#[tokio::test]
async fn epochs_that_were_never_sealed_go_below_the_kept_ones_and_stay_above() {
    let bench = Bench::new().await;
    bench.put("epoch=1/vnode=0/partial.bin").await;
    bench.put("epoch=2/vnode=1/partial.bin").await;
    bench.seal([3]).await;
    bench.put("epoch=4/vnode=0/partial.bin").await;
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::Succeeded, ((2, 2), (0, 0))));
    assert_eq!(bench.epochs().await, [3, 4]);
}

#[tokio::test]
async fn an_abandoned_epoch_that_is_sealed_before_the_floor_loses_its_seal_before_its_partials() {
    let bench = Bench::new().await;
    bench.put("epoch=1/vnode=0/partial.bin").await;
    bench.put("epoch=1/vnode=1/partial.bin").await;
    bench.seal([2]).await;
    let journal = bench.journal.clone();
    bench.faults.before(Operation::Put, "_epochwarden/floor/*").once().run(move || {
        let journal = journal.clone();
        async move { journal.put_unnoticed("epoch=1/_COMMIT", "late").await }
    });
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::Succeeded, ((1, 2), (0, 0))));
    assert_eq!(bench.epochs().await, [2]);
    let seal = bench.journal.position("DELETE epoch=1/_COMMIT");
    assert!(seal < bench.journal.position("DELETE epoch=1/vnode=0/partial.bin"));
}

#[tokio::test]
async fn everything_below_an_epoch_goes_with_it() {
    let bench = Bench::new().await;
    for key in ["manifest.json", "sub/a/b", "vnode=0/base.bin", "vnode=00/partial.bin", "vnode=77/partial.bin"] {
        bench.put(&format!("epoch=1/{key}")).await;
    }
    // More than a plan remembers.
    for number in 0..2100 {
        bench.put(&format!("epoch=2/notes/{number}")).await;
    }
    bench.seal(1..=3).await;
    let report = bench.prune().await.unwrap();
    assert_eq!(report.outcome, PruneOutcome::Succeeded, "{:?}", report.errors);
    assert_eq!(account(&report), ((2, 5 + 2100 + 2 * OBJECTS), (0, 0)));
    assert_eq!(report.bytes, report.objects * 5);
    assert_eq!(bench.keys("epoch=").await.len(), 3);
    assert_eq!(bench.journal.count("LIST epoch=3"), 0, "what is kept is not looked at");
}

#[tokio::test]
async fn neither_foreign_keys_nor_anything_below_epochwarden_is_touched() {
    let bench = Bench::sealed(1..=3).await;
    let foreign = [
        "epoch=001/_COMMIT",
        "epoch=001/vnode=0/partial.bin",
        "epoch=18446744073709551616/vnode=0/partial.bin",
        "readme.txt",
        "data/epoch=1/vnode=0/partial.bin",
        "_epochwarden/owner-notes",
        "_epochwarden/probe/5e1a",
        "_epochwarden/fence/1",
    ];
    for key in foreign {
        bench.put(key).await;
    }
    bench.prune().await.unwrap();
    let left = bench.keys("").await;
    for key in foreign.into_iter().chain([FENCE]) {
        assert!(left.iter().any(|left| left == key), "{key} is gone");
    }
    assert_eq!(left.len(), foreign.len() + 1 + 1 + 3, "the fence, the floor, epoch 3: {left:?}");
}

#[tokio::test]
async fn an_epoch_with_a_folder_marker_is_held_and_the_others_go() {
    for marker in ["epoch=2", "epoch=2/vnode=1"] {
        let bench = Bench::sealed(1..=4).await;
        bench.faults.list_also(marker);
        let report = bench.prune().await.unwrap();
        assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::Succeeded, ((2, 6), (0, 0))), "{marker}");
        assert_eq!(bench.epochs().await, [2, 4]);
        assert_eq!(bench.keys("epoch=2/").await.len(), 3, "its seal included");
    }
}

#[tokio::test]
async fn a_key_that_is_listed_again_after_its_delete_succeeded_is_told_once_and_not_counted() {
    let bench = Bench::sealed(1..=3).await;
    // The marker of a folder inside the epoch: no object is there to be deleted.
    bench.faults.list_also("epoch=1/sub");
    for run in 0..2 {
        bench.journal.forget();
        let report = bench.prune().await.unwrap();
        assert_eq!(report.outcome, PruneOutcome::PartlyFailed);
        assert_eq!((report.failed, report.errors.len()), (1, 1), "{:?}", report.errors);
        assert_eq!(report.errors[0].key, "epoch=1/sub");
        let (done, left) = account(&report);
        assert_eq!(left, (1, 1), "the epoch is not gone");
        assert_eq!(done, if run == 0 { (1, 6) } else { (0, 0) });
        assert_eq!(bench.journal.count("DELETE epoch=1/sub"), 1, "tried once");
    }
}

#[tokio::test]
async fn a_key_that_was_written_meanwhile_leaves_its_epoch_for_the_next_run() {
    let bench = Bench::new().await;
    bench.put("epoch=1/manifest").await;
    bench.seal(1..=2).await;
    let journal = bench.journal.clone();
    bench.faults.after(Operation::Delete, "epoch=1/manifest").once().run(move || {
        let journal = journal.clone();
        async move { journal.put_unnoticed("epoch=1/straggler", "late").await }
    });
    let report = bench.prune().await.unwrap();
    assert_eq!((report.epochs, report.remainder.epochs, report.failed), (0, 1, 0), "{:?}", report.errors);
    assert_eq!(bench.keys("epoch=1/").await, ["epoch=1/straggler"]);
}

#[tokio::test]
async fn a_newer_seal_that_appears_in_an_epoch_is_never_deleted() {
    let bench = Bench::new().await;
    for number in 0..100 {
        bench.put(&format!("epoch=1/notes/{number}")).await;
    }
    bench.seal(1..=2).await;
    let journal = bench.journal.clone();
    bench.faults.after(Operation::Delete, "epoch=1/_COMMIT").once().run(move || {
        let journal = journal.clone();
        async move { journal.put_unnoticed("epoch=1/_SEAL", "newer").await }
    });
    let report = bench.prune().await.unwrap();
    assert_eq!(bench.faults.pending(), 0);
    assert!(bench.keys("epoch=1/").await.contains(&"epoch=1/_SEAL".to_owned()));
    assert_eq!((report.outcome, report.epochs), (PruneOutcome::PartlyFailed, 0));
}

#[tokio::test]
async fn running_again_deletes_nothing_and_writes_nothing() {
    let bench = Bench::sealed(1..=5).await;
    bench.prune().await.unwrap();
    bench.journal.forget();
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::Succeeded, ((0, 0), (0, 0))));
    assert_eq!(report.floor, None);
    bench.wrote_nothing();
}

#[tokio::test]
async fn a_run_reports_exactly_the_requests_that_it_made() {
    let bench = Bench::sealed(1..=4).await;
    let report = bench.prune().await.unwrap();
    let count = |operation: &str| bench.journal.all_of(&[operation]).len() as u64;
    let crate::RequestCounts { list, get, head, put, delete } = report.requests;
    assert_eq!((list, get + head, put, delete), (count("LIST"), count("GET"), count("PUT"), count("DELETE")));
    assert_eq!((put, delete, get), (1, 9, 0), "the floor, and each object");
    assert_eq!(bench.journal.count("LIST "), 1, "one listing of the root");
    assert_eq!(list, 4, "and the registers: at first, before the floor, before the batch");
}

#[tokio::test]
async fn progress_rises_by_objects_to_the_whole() {
    let mut bench = Bench::sealed(1..=4).await;
    let seen = std::sync::Mutex::new(Vec::new());
    let note = |progress| seen.lock().unwrap().push(progress);
    bench.rules.max_keys_per_second = Some(1_000);
    bench.prune_telling(Approval::Automatic, &Always, &note).await.unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(seen.contains(&PruneProgress::Listing { objects: 13 }), "{seen:?}");
    let keys_per_second = Some(1_000);
    let deleting: Vec<_> = (1..=9).map(|done| PruneProgress::Deleting { done, total: 9, keys_per_second }).collect();
    assert_eq!(seen[seen.len() - 9..], deleting);
}

#[tokio::test]
async fn a_folder_is_pruned_and_keeps_no_empty_folders() {
    let folder = tempfile::tempdir().unwrap();
    let write = |key: &str| {
        let path = folder.path().join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "state").unwrap();
    };
    for epoch in 1..=3 {
        for key in ["vnode=0/partial.bin", "vnode=1/partial.bin", "notes/a/b", "_COMMIT"] {
            write(&format!("epoch={epoch}/{key}"));
        }
    }
    write(FENCE);
    let root = Root::open(&format!("file://{}", folder.path().display()), [], &RootSettings::default()).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(LongAgo);
    // A key that is gone before its turn comes: the store says that it is not there.
    let missing = folder.path().join("epoch=1/vnode=0/partial.bin");
    let permission = Asking(move || -> BoxFuture<'static, Result<(), Stop>> {
        if std::fs::remove_file(&missing).is_ok() {
            std::fs::remove_dir(missing.parent().unwrap()).unwrap();
        }
        Box::pin(async { Ok(()) })
    });
    let Bench { rules, identity, cancel, .. } = Bench::without_fence();
    let report =
        run(&root, &rules, &identity, Approval::Automatic, &permission, &clock, &cancel, &|_| ()).await.unwrap();
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::Succeeded, ((2, 8), (0, 0))), "{report:?}");
    let mut left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["_epochwarden", "epoch=3"]);
    assert_eq!(std::fs::read_dir(folder.path().join("epoch=3")).unwrap().count(), 4);
}

#[tokio::test]
async fn a_hundred_thousand_objects_go() {
    let mut bench = Bench::new().await;
    bench.rules.plan.vnodes = 99;
    bench.seal(1..=1001).await;
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::Succeeded, ((1000, 100_000), (0, 0))));
    assert_eq!(bench.epochs().await, [1001]);
}
