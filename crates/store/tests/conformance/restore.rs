//! Restoring while others commit and prune.

use std::sync::Arc;

use bytes::Bytes;
use epochwarden_store::{ObjectStoreBackend, StateBackend, StateBackendError};
use epochwarden_testkit::fault::Operation;
use object_store::ObjectStoreExt;

use crate::bucket::{ALL, Bucket, VNODES, classic, fenced, leader, put, raise_floor, seal, write};

/// What the documentation tells a pipeline to do.
async fn restore(backend: &ObjectStoreBackend) -> Result<Option<(u64, Vec<Bytes>)>, StateBackendError> {
    let mut tries = 0;
    loop {
        match attempt(backend).await {
            Err(StateBackendError::RestoreIncomplete { .. }) if tries < 5 => tries += 1,
            outcome => return outcome,
        }
    }
}

async fn attempt(backend: &ObjectStoreBackend) -> Result<Option<(u64, Vec<Bytes>)>, StateBackendError> {
    let Some(restore) = backend.restore(None).await? else {
        return Ok(None);
    };
    let mut states = Vec::new();
    for vnode in ALL {
        states.push(restore.read_partial(vnode).await?);
    }
    let epoch = restore.epoch();
    restore.finish().await?;
    Ok(Some((epoch, states)))
}

fn states(epoch: u64) -> Vec<Bytes> {
    ALL.iter().map(|vnode| Bytes::from(format!("{epoch}/{vnode}"))).collect()
}

on_every_store! {
    async fn the_newest_sealed_epoch_is_restored_whole(bucket: &Bucket) {
        let fenced = fenced(bucket, "a", 5).await;
        for backend in [&fenced, &classic(bucket.store(), "b"), &leader(bucket.store(), "worker", 5)] {
            let empty = bucket.epochs().await.is_empty();
            if empty {
                assert_eq!(restore(backend).await.unwrap(), None);
                for epoch in [9, 10] {
                    seal(backend, epoch).await;
                }
                write(backend, 1_700_000_000_000).await;
            }
            assert_eq!(restore(backend).await.unwrap(), Some((10, states(10))));
            let restore = backend.restore(None).await.unwrap().unwrap();
            assert_eq!((restore.epoch(), restore.highest_listed()), (10, 1_700_000_000_000));
            if empty {
                bucket.publish_fence(5, "a").await;
            }
        }
    }

    async fn a_term_that_finds_nothing_sealed_begins_above_what_it_was_shown(bucket: &Bucket) {
        bucket.publish_fence(5, "a").await;
        for backend in [leader(bucket.store(), "a", 5), classic(bucket.store(), "b")] {
            let number = bucket.epochs().await.last().copied().unwrap_or_default() + 40;
            assert_eq!(backend.first_epoch(None), Some(0), "it has not looked");
            // What a leader before left behind, whose seal may be on its way.
            write(&classic(bucket.store(), "late"), number).await;
            assert!(backend.restore(None).await.unwrap().is_none());
            assert_eq!(backend.first_epoch(None), Some(number + 1));
            assert_eq!(backend.first_epoch(Some(number - 1)), Some(number + 1));
            assert_eq!(backend.first_epoch(Some(number + 9)), Some(number + 10));
            bucket.put(&format!("epoch={}/notes.txt", number + 3), "of the application").await;
            assert_eq!(backend.latest_committed_epoch().await.unwrap(), None);
            assert_eq!(backend.first_epoch(None), Some(number + 4));
        }
    }

    async fn no_listing_of_a_restore_is_forgotten(bucket: &Bucket) {
        let backend = fenced(bucket, "a", 5).await;
        seal(&backend, 7).await;
        write(&backend, 9).await;
        backend.restore(Some(7)).await.unwrap().unwrap();
        assert_eq!(backend.first_epoch(None), Some(10));
        // Of a restore that listed once more, the first listing counts too.
        let faults = bucket.faults();
        let store = bucket.store();
        bucket.publish_floor(8).await;
        faults.after(Operation::List, "").once().run(move || {
            let store = Arc::clone(&store);
            async move {
                put(&store, "epoch=9/_COMMIT", "a").await;
                store.delete(&"epoch=12/notes.txt".into()).await.unwrap();
            }
        });
        bucket.put("epoch=12/notes.txt", "of the application").await;
        let reader = leader(Arc::new(faults.clone()), "a", 5);
        assert_eq!(reader.restore(None).await.unwrap().unwrap().epoch(), 9);
        assert_eq!(faults.pending(), 0);
        assert_eq!(reader.first_epoch(None), Some(13));
    }

    async fn the_fence_must_stand_at_the_version_before(bucket: &Bucket) {
        seal(&classic(bucket.store(), "a"), 10).await;
        bucket.publish_fence(5, "a").await;
        let error = leader(bucket.store(), "a", 4).restore(None).await.unwrap_err();
        assert!(matches!(error, StateBackendError::StaleVersion { caller: 4, authoritative: 5 }), "{error}");
        let error = leader(bucket.store(), "a", 6).restore(None).await.unwrap_err();
        assert!(matches!(error, StateBackendError::FenceNotReached { version: 6, fence: 5 }), "{error}");
    }

    async fn the_fence_must_stand_at_the_version_after(bucket: &Bucket) {
        let backend = fenced(bucket, "a", 5).await;
        seal(&backend, 9).await;
        seal(&backend, 10).await;
        for target in [None, Some(9)] {
            let version = 6 + u64::from(target.is_some());
            let reader = leader(bucket.store(), "a", version - 1);
            let restore = reader.restore(target).await.unwrap().unwrap();
            for vnode in ALL {
                restore.read_partial(vnode).await.unwrap();
            }
            bucket.publish_fence(version, "a").await;
            let error = restore.finish().await.unwrap_err();
            assert!(matches!(error, StateBackendError::StaleVersion { .. }), "{error}");
        }
    }

    async fn a_restore_that_outlasts_its_term_is_not_finished_in_the_next(bucket: &Bucket) {
        let backend = ObjectStoreBackend::builder(bucket.store()).instance_id("a").vnode_capacity(VNODES).build();
        seal(&backend, 10).await;
        bucket.publish_fence(5, "a").await;
        backend.set_authoritative_version(5);
        let restore = backend.restore(None).await.unwrap().unwrap();
        seal(&fenced(bucket, "b", 6).await, 11).await;
        bucket.publish_fence(7, "a").await;
        backend.set_authoritative_version(7);
        let error = restore.finish().await.unwrap_err();
        assert!(matches!(error, StateBackendError::StaleVersion { caller: 5, authoritative: 7 }), "{error}");
    }

    async fn a_prune_that_slips_in_makes_the_restore_start_over_with_the_newer_epoch(bucket: &Bucket) {
        let writer = Arc::new(fenced(bucket, "a", 5).await);
        seal(&writer, 10).await;
        let faults = bucket.faults();
        let slipped = Arc::clone(&writer);
        faults.before(Operation::Get, "epoch=10/vnode=2/partial.bin").once().run(move || {
            let writer = Arc::clone(&slipped);
            async move {
                seal(&writer, 11).await;
                writer.prune_before(11).await.unwrap();
            }
        });
        let reader = leader(Arc::new(faults.clone()), "a", 5);
        assert_eq!(restore(&reader).await.unwrap(), Some((11, states(11))));
        assert_eq!(faults.pending(), 0);
    }

    async fn a_prune_behind_the_last_read_is_seen_at_the_end(bucket: &Bucket) {
        let backend = fenced(bucket, "a", 5).await;
        seal(&backend, 10).await;
        let restore = backend.restore(None).await.unwrap().unwrap();
        for vnode in ALL {
            restore.read_partial(vnode).await.unwrap();
        }
        seal(&backend, 11).await;
        backend.prune_before(11).await.unwrap();
        let error = restore.finish().await.unwrap_err();
        assert!(matches!(error, StateBackendError::RestoreIncomplete { epoch, vnode: None } if epoch.get() == 10), "{error}");
    }

    async fn a_missing_partial_is_an_error_and_stays_one_at_the_end(bucket: &Bucket) {
        for backend in [fenced(bucket, "a", 5).await, classic(bucket.store(), "a")] {
            seal(&backend, 10).await;
            bucket.delete("epoch=10/vnode=3/partial.bin").await;
            let begun = backend.restore(None).await.unwrap().unwrap();
            begun.read_partial(2).await.unwrap();
            let error = begun.read_partial(3).await.unwrap_err();
            assert!(matches!(error, StateBackendError::RestoreIncomplete { epoch, vnode: Some(3) } if epoch.get() == 10), "{error}");
            let error = begun.finish().await.unwrap_err();
            assert!(matches!(error, StateBackendError::RestoreIncomplete { epoch, vnode: Some(3) } if epoch.get() == 10), "{error}");
            let error = restore(&backend).await.unwrap_err();
            assert!(matches!(error, StateBackendError::RestoreIncomplete { .. }), "bounded: {error}");
        }
    }

    async fn a_missing_base_is_an_error_too(bucket: &Bucket) {
        let backend = fenced(bucket, "a", 5).await;
        seal(&backend, 9).await;
        seal(&backend, 10).await;
        let restore = backend.restore(None).await.unwrap().unwrap();
        assert_eq!(restore.read_base(1, 9).await.unwrap(), "9/1");
        let error = restore.read_base(1, 8).await.unwrap_err();
        assert!(matches!(error, StateBackendError::RestoreIncomplete { epoch, vnode: Some(1) } if epoch.get() == 8), "{error}");
        restore.finish().await.unwrap_err();
    }

    async fn a_listing_that_misses_what_the_floor_says_was_sealed_is_made_again(bucket: &Bucket) {
        for (fence, older) in [(5, None), (6, Some(4))] {
            let writer = fenced(bucket, "a", fence).await;
            if let Some(epoch) = older {
                bucket.delete("epoch=10/_COMMIT").await;
                put(&bucket.store(), &format!("epoch={epoch}/_COMMIT"), "a").await;
            }
            write(&writer, 10).await;
            bucket.publish_floor(9).await;
            let faults = bucket.faults();
            let store = bucket.store();
            // A seal that lands behind the cursor of the first listing.
            faults.after(Operation::List, "").once().run(move || {
                let store = Arc::clone(&store);
                async move { put(&store, "epoch=10/_COMMIT", "a").await }
            });
            let reader = leader(Arc::new(faults.clone()), "a", fence);
            assert_eq!(restore(&reader).await.unwrap(), Some((10, states(10))));
            assert_eq!(faults.pending(), 0);
        }
    }

    async fn an_empty_listing_beside_which_a_floor_rose_is_made_again(bucket: &Bucket) {
        let backend = Arc::new(fenced(bucket, "a", 5).await);
        // The epoch before was pruned ahead of the cursor of the first listing, and this one sealed behind it.
        let faults = bucket.faults();
        let store = bucket.store();
        faults.before(Operation::List, "").once().run(move || {
            let store = Arc::clone(&store);
            async move { raise_floor(&store, 10).await }
        });
        faults.after(Operation::List, "").once().run(move || {
            let backend = Arc::clone(&backend);
            async move { seal(&backend, 10).await }
        });
        let reader = leader(Arc::new(faults.clone()), "a", 5);
        assert_eq!(restore(&reader).await.unwrap(), Some((10, states(10))));
        assert_eq!(faults.pending(), 0);
    }

    async fn a_listing_that_stays_below_the_floor_is_an_error_and_never_an_empty_or_an_old_state(bucket: &Bucket) {
        let backend = fenced(bucket, "a", 5).await;
        bucket.publish_floor(9).await;
        let error = backend.restore(None).await.unwrap_err();
        assert!(matches!(error, StateBackendError::RestoreIncomplete { epoch, vnode: None } if epoch.get() == 9), "{error}");
        put(&bucket.store(), "epoch=4/_COMMIT", "a").await;
        let error = backend.restore(None).await.unwrap_err();
        assert!(matches!(error, StateBackendError::RestoreIncomplete { epoch, vnode: None } if epoch.get() == 4), "{error}");
    }

    async fn an_older_epoch_is_restored_by_its_number_whatever_the_floor(bucket: &Bucket) {
        let backend = fenced(bucket, "a", 5).await;
        for epoch in [8, 9, 10] {
            seal(&backend, epoch).await;
        }
        write(&backend, 11).await;
        bucket.publish_floor(10).await;
        let restore = backend.restore(Some(8)).await.unwrap().unwrap();
        assert_eq!((restore.epoch(), restore.highest_listed()), (8, 11));
        assert_eq!(restore.read_partial(2).await.unwrap(), "8/2");
        raise_floor(&bucket.store(), 11).await;
        restore.finish().await.unwrap();
        for unsealed in [7, 11, u64::MAX] {
            assert!(backend.restore(Some(unsealed)).await.unwrap().is_none());
        }
    }

    async fn an_older_epoch_whose_seal_goes_or_changes_meanwhile_is_not_restored(bucket: &Bucket) {
        let backend = fenced(bucket, "a", 5).await;
        seal(&backend, 8).await;
        seal(&backend, 10).await;
        for replaced in [true, false] {
            let restore = backend.restore(Some(8)).await.unwrap().unwrap();
            for vnode in ALL {
                restore.read_partial(vnode).await.unwrap();
            }
            bucket.delete("epoch=8/_COMMIT").await;
            if replaced {
                bucket.put("epoch=8/_COMMIT", "another").await;
            }
            let error = restore.finish().await.unwrap_err();
            assert!(matches!(error, StateBackendError::RestoreIncomplete { epoch, vnode: None } if epoch.get() == 8), "{error}");
        }
    }

    async fn a_lost_register_stops_a_restore(bucket: &Bucket) {
        let backend = fenced(bucket, "a", 5).await;
        seal(&backend, 10).await;
        let restore = backend.restore(None).await.unwrap().unwrap();
        bucket.delete("_epochwarden/fence/00000000000000000005").await;
        let error = restore.finish().await.unwrap_err();
        assert!(matches!(error, StateBackendError::RegisterLost { seen: 5, found: 0, .. }), "{error}");
        assert!(matches!(backend.restore(None).await.unwrap_err(), StateBackendError::RegisterLost { .. }));
    }

    async fn a_vnode_at_the_capacity_is_refused(bucket: &Bucket) {
        let backend = fenced(bucket, "a", 5).await;
        seal(&backend, 10).await;
        let restore = backend.restore(None).await.unwrap().unwrap();
        assert!(matches!(restore.read_partial(VNODES).await.unwrap_err(), StateBackendError::Io { .. }));
        restore.finish().await.unwrap();
    }
}
