//! Pruning on the pipeline's own word.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use epochwarden_core::{Epoch, Version};
use epochwarden_store::{StateBackend, StateBackendError};
use epochwarden_testkit::fault::Operation;

use crate::bucket::{Bucket, classic, fenced, leader, put, seal, write};

fn set<const N: usize>(epochs: [u64; N]) -> BTreeSet<u64> {
    BTreeSet::from(epochs)
}

on_every_store! {
    async fn everything_below_goes_and_everything_else_stays(bucket: &Bucket) {
        let backend = classic(bucket.store(), "a");
        for epoch in [0, 9, 10, 1_700_000_000_000, u64::MAX] {
            seal(&backend, epoch).await;
        }
        write(&backend, 11).await;
        bucket.put("epoch=9/manifest/deep.json", "{}").await;
        for key in ["epoch=09/x", "foreign", "_epochwarden/probe/1"] {
            bucket.put(key, "stays").await;
        }
        backend.prune_before(10).await.unwrap();
        let keys = bucket.keys().await;
        for key in ["epoch=09/x", "foreign", "_epochwarden/probe/1", "epoch=10/_COMMIT", "epoch=10/vnode=0/partial.bin"] {
            assert!(keys.iter().any(|listed| listed == key), "{key} of {keys:?}");
        }
        assert!(!keys.iter().any(|key| key.starts_with("epoch=0/") || key.starts_with("epoch=9/")), "{keys:?}");
        backend.prune_before(u64::MAX).await.unwrap();
        bucket.delete("epoch=09/x").await;
        assert_eq!(bucket.epochs().await, set([u64::MAX]));
        assert_eq!(backend.prune_cursor(), u64::MAX);
    }

    async fn the_cursor_rises_and_a_straggler_below_it_goes_with_every_32nd_call(bucket: &Bucket) {
        let backend = classic(bucket.store(), "a");
        seal(&backend, 5).await;
        seal(&backend, 100).await;
        assert_eq!(backend.prune_cursor(), 0);
        backend.prune_before(10).await.unwrap();
        assert_eq!(backend.prune_cursor(), 10);
        bucket.put("epoch=5/vnode=0/partial.bin", "late").await;
        bucket.put("epoch=10/vnode=0/partial.bin", "new").await;
        backend.prune_before(11).await.unwrap();
        assert_eq!((bucket.epochs().await, backend.prune_cursor()), (set([5, 100]), 11));
        backend.prune_before(7).await.unwrap();
        assert_eq!((bucket.epochs().await, backend.prune_cursor()), (set([5, 100]), 11), "it never falls");
        for call in 3..32 {
            backend.prune_before(11).await.unwrap();
            assert_eq!(bucket.epochs().await, set([5, 100]), "call {call}");
        }
        backend.prune_before(11).await.unwrap();
        assert_eq!(bucket.epochs().await, set([100]), "call 32 looks at everything");
    }

    async fn the_newest_sealed_epoch_is_never_deleted(bucket: &Bucket) {
        let backend = fenced(bucket, "a", 5).await;
        seal(&backend, 9).await;
        seal(&backend, 10).await;
        write(&backend, 1_700_000_000_000).await;
        for before in [11, 1_700_000_000_000, u64::MAX] {
            let error = backend.prune_before(before).await.unwrap_err();
            assert!(
                matches!(error, StateBackendError::LatestSealed { before: asked, latest } if (asked.get(), latest.get()) == (before, 10)),
                "{error}"
            );
        }
        assert_eq!(bucket.epochs().await, set([9, 10, 1_700_000_000_000]), "nothing was deleted");
        assert_eq!(backend.prune_cursor(), 0);
        assert_eq!(bucket.registers().read().await.unwrap().floor, Epoch::ZERO);
        backend.prune_before(10).await.unwrap();
        assert_eq!(bucket.epochs().await, set([10, 1_700_000_000_000]));
    }

    async fn many_unsealed_epochs_in_flight_do_not_hide_the_newest_seal(bucket: &Bucket) {
        let backend = classic(bucket.store(), "a");
        seal(&backend, 10).await;
        for epoch in 20..40 {
            bucket.put(&format!("epoch={epoch}/vnode=0/partial.bin"), "state").await;
        }
        let error = backend.prune_before(15).await.unwrap_err();
        assert!(matches!(error, StateBackendError::LatestSealed { before, latest } if (before.get(), latest.get()) == (15, 10)), "{error}");
        seal(&backend, 12).await;
        backend.prune_before(12).await.unwrap();
        assert!(!bucket.epochs().await.contains(&10));
    }

    async fn a_root_without_any_seal_deletes_as_asked_and_publishes_no_floor(bucket: &Bucket) {
        let backend = fenced(bucket, "a", 5).await;
        for epoch in [5, 6, 7] {
            write(&backend, epoch).await;
        }
        backend.prune_before(7).await.unwrap();
        assert_eq!((bucket.epochs().await, backend.prune_cursor()), (set([7]), 7));
        assert_eq!(bucket.registers().read().await.unwrap().floor, Epoch::ZERO);
    }

    async fn with_the_fence_on_the_floor_is_durable_before_the_first_delete(bucket: &Bucket) {
        let backend = fenced(bucket, "a", 5).await;
        seal(&backend, 9).await;
        seal(&backend, 10).await;
        let faults = bucket.faults();
        let root = bucket.root.clone();
        let stood = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stood);
        faults.before(Operation::Delete, "epoch=*").once().run(move || {
            let registers = epochwarden_store::Registers::new(root.clone(), "test");
            let seen = Arc::clone(&seen);
            async move {
                seen.store(registers.read().await.unwrap().floor == Epoch::new(10), Ordering::SeqCst);
            }
        });
        leader(Arc::new(faults.clone()), "a", 5).prune_before(10).await.unwrap();
        assert_eq!(faults.pending(), 0);
        assert!(stood.load(Ordering::SeqCst));
        let record = bucket.registers().floor_record(Epoch::new(10)).await.unwrap().unwrap().readable().unwrap();
        assert_eq!((record.publisher.as_str(), record.policy), ("a", None));
    }

    async fn without_the_floor_nothing_is_deleted(bucket: &Bucket) {
        let backend = fenced(bucket, "a", 5).await;
        seal(&backend, 9).await;
        seal(&backend, 10).await;
        let faults = bucket.faults();
        faults.before(Operation::Put, "_epochwarden/floor/*").times(4).fail();
        let pruner = leader(Arc::new(faults.clone()), "a", 5);
        assert!(matches!(pruner.prune_before(10).await.unwrap_err(), StateBackendError::Io { .. }));
        assert_eq!((bucket.epochs().await, pruner.prune_cursor()), (set([9, 10]), 0));
        pruner.prune_before(10).await.unwrap();
        assert_eq!(bucket.epochs().await, set([10]));
    }

    async fn with_the_fence_off_no_floor_is_published(bucket: &Bucket) {
        for backend in [classic(bucket.store(), "a"), leader(bucket.store(), "a", 0)] {
            for epoch in [9, 10] {
                seal(&backend, epoch).await;
            }
            backend.prune_before(10).await.unwrap();
            assert_eq!(bucket.epochs().await, set([10]));
            assert_eq!(bucket.registers().read().await.unwrap().floor, Epoch::ZERO);
        }
    }

    async fn a_lost_register_stops_a_prune(bucket: &Bucket) {
        let backend = fenced(bucket, "a", 5).await;
        seal(&backend, 9).await;
        seal(&backend, 10).await;
        bucket.delete("_epochwarden/fence/00000000000000000005").await;
        let error = backend.prune_before(10).await.unwrap_err();
        assert!(matches!(error, StateBackendError::RegisterLost { .. }), "{error}");
        assert_eq!(bucket.epochs().await, set([9, 10]));
    }

    async fn a_failed_delete_is_an_error_after_the_rest_was_tried_and_the_cursor_stays(bucket: &Bucket) {
        let faults = bucket.faults();
        let backend = classic(Arc::new(faults.clone()), "a");
        for epoch in [7, 8, 9, 10] {
            seal(&backend, epoch).await;
        }
        faults.before(Operation::Delete, "epoch=8/vnode=1/partial.bin").once().fail();
        let error = backend.prune_before(10).await.unwrap_err();
        assert!(matches!(&error, StateBackendError::Io { key, .. } if key == "epoch=8"), "{error}");
        assert_eq!(backend.prune_cursor(), 0);
        let left: Vec<String> = bucket.keys().await.into_iter().filter(|key| !key.starts_with("epoch=10/")).collect();
        assert_eq!(left, ["epoch=8/vnode=1/partial.bin"]);
        backend.prune_before(10).await.unwrap();
        assert_eq!((bucket.epochs().await, backend.prune_cursor()), (set([10]), 10));
    }

    async fn a_seal_goes_before_anything_else_of_its_epoch(bucket: &Bucket) {
        let faults = bucket.faults();
        let backend = classic(Arc::new(faults.clone()), "a");
        seal(&backend, 9).await;
        seal(&backend, 10).await;
        let store = bucket.store();
        faults.before(Operation::Delete, "epoch=9/vnode=*").run(move || {
            let store = Arc::clone(&store);
            async move {
                let seal = object_store::path::Path::from("epoch=9/_COMMIT");
                assert!(object_store::ObjectStoreExt::head(&store, &seal).await.is_err(), "the seal is still there");
            }
        });
        backend.prune_before(10).await.unwrap();
        assert_eq!(bucket.epochs().await, set([10]));
    }

    async fn an_epoch_whose_seal_does_not_go_stays_whole(bucket: &Bucket) {
        let faults = bucket.faults();
        let backend = classic(Arc::new(faults.clone()), "a");
        for epoch in [8, 9, 10] {
            seal(&backend, epoch).await;
        }
        faults.before(Operation::Delete, "epoch=8/_COMMIT").once().fail();
        let error = backend.prune_before(10).await.unwrap_err();
        assert!(matches!(&error, StateBackendError::Io { key, .. } if key == "epoch=8/_COMMIT"), "{error}");
        assert_eq!(bucket.epochs().await, set([8, 10]), "the others are tried");
        assert_eq!(bucket.keys().await.iter().filter(|key| key.starts_with("epoch=8/")).count(), 5);
    }

    async fn an_epoch_with_a_folder_marker_stays_whole_and_the_others_go(bucket: &Bucket) {
        let faults = bucket.faults();
        let backend = classic(Arc::new(faults.clone()), "a");
        for epoch in [8, 9, 10] {
            seal(&backend, epoch).await;
        }
        faults.list_also("epoch=8");
        let error = backend.prune_before(10).await.unwrap_err();
        assert!(matches!(&error, StateBackendError::Io { key, .. } if key == "epoch=8"), "{error}");
        assert_eq!((bucket.epochs().await, backend.prune_cursor()), (set([8, 10]), 0));
        assert_eq!(bucket.keys().await.iter().filter(|key| key.starts_with("epoch=8/")).count(), 5);
    }

    async fn a_large_epoch_is_deleted_too(bucket: &Bucket) {
        let store = bucket.store();
        let keys: Vec<String> = (0..1_100).map(|n| format!("epoch=9/extra/{n}")).collect();
        futures::future::join_all(keys.iter().map(|key| put(&store, key, ""))).await;
        let backend = classic(bucket.store(), "a");
        seal(&backend, 9).await;
        seal(&backend, 10).await;
        backend.prune_before(10).await.unwrap();
        assert_eq!(bucket.epochs().await, set([10]));
    }

    async fn nothing_below_the_floor_of_a_prune_can_be_sealed_again(bucket: &Bucket) {
        let backend = fenced(bucket, "a", 5).await;
        seal(&backend, 10).await;
        backend.prune_before(10).await.unwrap();
        write(&backend, 9).await;
        let error = backend.epoch_complete(9, &[0]).await.unwrap_err();
        assert!(matches!(error, StateBackendError::EpochPruned { epoch, floor } if (epoch.get(), floor.get()) == (9, 10)), "{error}");
        assert_eq!(bucket.registers().read().await.unwrap().fence, Version::new(5));
    }
}
