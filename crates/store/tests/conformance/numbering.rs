//! Epochs that a version may use, and refusals that ask nobody.

use std::sync::Arc;

use bytes::Bytes;
use epochwarden_store::{Numbering, ObjectStoreBackend, StateBackend, StateBackendError};
use epochwarden_testkit::counter::{Calls, CountingStore};

use crate::bucket::{ALL, Bucket, VNODES};

const NOTHING: Calls = Calls { list: 0, get: 0, head: 0, put: 0, delete: 0 };
/// `v5/0`, the first epoch of version 5, and the first one above its range.
const V5: u64 = 5_497_558_138_880;
const V6: u64 = 6_597_069_766_656;

fn versioned(calls: &CountingStore, instance: &str, version: u64) -> ObjectStoreBackend {
    ObjectStoreBackend::builder(Arc::new(calls.clone()))
        .instance_id(instance)
        .vnode_capacity(VNODES)
        .leading(version)
        .numbering(Numbering::Versioned)
        .build()
}

async fn write(backend: &ObjectStoreBackend, epoch: u64, version: u64) -> Result<(), StateBackendError> {
    for vnode in ALL {
        backend.write_partial(vnode, epoch, version, Bytes::from_static(b"state")).await?;
    }
    Ok(())
}

on_every_store! {
    async fn a_leader_writes_and_seals_in_the_whole_of_its_range(bucket: &Bucket) {
        bucket.publish_fence(5, "a").await;
        let backend = versioned(&bucket.counting(), "a", 5);
        for epoch in [V5, V5 + 12, V6 - 1] {
            write(&backend, epoch, 5).await.unwrap();
            assert!(backend.epoch_complete(epoch, &ALL).await.unwrap());
        }
        assert!(bucket.has("epoch=5497558138892/_COMMIT").await, "v5/12");
        assert_eq!(backend.latest_committed_epoch().await.unwrap(), Some(V6 - 1));
    }

    async fn an_epoch_of_another_version_is_refused_without_a_request(bucket: &Bucket) {
        bucket.publish_fence(5, "a").await;
        let calls = bucket.counting();
        let backend = versioned(&calls, "a", 5);
        for epoch in [0, 12, V5 - 1, V6, u64::MAX] {
            let written = backend.write_partial(0, epoch, 5, Bytes::new()).await;
            for outcome in [written, backend.epoch_complete(epoch, &[]).await.map(drop)] {
                let error = outcome.unwrap_err();
                assert!(
                    matches!(error, StateBackendError::EpochOutOfRange { epoch: told, version: 5 } if told == epoch),
                    "{error}"
                );
            }
        }
        assert_eq!(calls.take(), NOTHING);
    }

    async fn a_write_counts_by_the_version_of_its_assignment_and_a_commit_by_the_leaders(bucket: &Bucket) {
        bucket.publish_fence(5, "a").await;
        let backend = versioned(&bucket.counting(), "a", 5);
        let error = write(&backend, V5, 6).await.unwrap_err();
        assert!(matches!(error, StateBackendError::EpochOutOfRange { epoch: V5, version: 6 }), "{error}");
        // A worker that was told of the next term already writes for that one; nobody seals it here.
        write(&backend, V6, 6).await.unwrap();
        let error = backend.epoch_complete(V6, &ALL).await.unwrap_err();
        assert!(matches!(error, StateBackendError::EpochOutOfRange { epoch: V6, version: 5 }), "{error}");
    }

    async fn without_a_version_there_is_no_epoch_to_write(bucket: &Bucket) {
        let calls = bucket.counting();
        for version in [0, 1 << 23, 1 << 53, u64::MAX] {
            let backend = versioned(&calls, "a", version);
            for epoch in [0, 12, V5, u64::MAX] {
                let written = backend.write_partial(0, epoch, version, Bytes::new()).await;
                for outcome in [written, backend.epoch_complete(epoch, &[]).await.map(drop)] {
                    let error = outcome.unwrap_err();
                    assert!(matches!(error, StateBackendError::EpochOutOfRange { .. }), "{error}");
                }
            }
        }
        assert_eq!(calls.take(), NOTHING);
    }

    async fn a_version_without_epochs_is_not_published(bucket: &Bucket) {
        let calls = bucket.counting();
        let backend = versioned(&calls, "a", 5);
        for version in [0, 1 << 23] {
            let error = backend.publish_fence(version, None).await.unwrap_err();
            assert!(error.to_string().contains("versions are 1..=8388607"), "{error}");
        }
        assert_eq!(calls.take(), NOTHING);
        backend.publish_fence((1 << 23) - 1, None).await.unwrap();
    }

    async fn a_deposed_leader_touches_nothing_that_its_successor_restores(bucket: &Bucket) {
        bucket.publish_fence(5, "a").await;
        let deposed = versioned(&bucket.counting(), "a", 5);
        write(&deposed, V5, 5).await.unwrap();
        assert!(deposed.epoch_complete(V5, &ALL).await.unwrap());
        bucket.publish_fence(6, "b").await;
        let successor = versioned(&bucket.counting(), "b", 6);
        let restore = successor.restore(None).await.unwrap().unwrap();
        assert_eq!(restore.epoch(), V5);
        let first = successor.first_epoch(Some(restore.highest_listed()));
        restore.finish().await.unwrap();
        assert_eq!(first, Some(V6));
        assert_eq!(deposed.first_epoch(Some(V6)), None, "a higher version has written already");
        write(&successor, V6, 6).await.unwrap();
        // The paused leader goes on where it was: its writes land, and not where anybody reads.
        write(&deposed, V5 + 1, 5).await.unwrap();
        assert!(deposed.epoch_complete(V5 + 1, &ALL).await.is_err());
        assert!(matches!(write(&deposed, V6, 5).await.unwrap_err(), StateBackendError::EpochOutOfRange { .. }));
        assert!(successor.epoch_complete(V6, &ALL).await.unwrap());
    }

    async fn errors_show_epochs_as_people_write_them(bucket: &Bucket) {
        bucket.publish_fence(5, "a").await;
        let backend = ObjectStoreBackend::builder(bucket.store())
            .instance_id("a")
            .vnode_capacity(VNODES)
            .leading(5)
            .numbering(Numbering::Versioned)
            .exclusive_partials(true)
            .build();
        for epoch in [V5 + 1, V5 + 2, V5 + 3] {
            write(&backend, epoch, 5).await.unwrap();
            assert!(backend.epoch_complete(epoch, &ALL).await.unwrap());
        }
        let conflict = backend.write_partial(0, V5 + 3, 5, Bytes::from_static(b"other")).await.unwrap_err();
        assert!(conflict.to_string().starts_with("epoch v5/3 "), "{conflict}");
        let newest = backend.prune_before(V5 + 9).await.unwrap_err();
        assert!(newest.to_string().contains("before v5/9 ") && newest.to_string().contains("epoch v5/3"), "{newest}");
        backend.prune_before(V5 + 3).await.unwrap();
        let pruned = backend.epoch_complete(V5 + 1, &ALL).await.unwrap_err();
        assert!(pruned.to_string().starts_with("epoch v5/1 lies below the floor v5/3"), "{pruned}");
        bucket.delete("epoch=5497558138883/vnode=0/partial.bin").await;
        let missing = backend.restore(None).await.unwrap().unwrap().read_partial(0).await.unwrap_err();
        assert!(missing.to_string().starts_with("epoch v5/3 "), "{missing}");
    }

    async fn epochs_from_before_the_versions_are_restored(bucket: &Bucket) {
        crate::bucket::seal(&crate::bucket::classic(bucket.store(), "old"), 4711).await;
        bucket.publish_fence(5, "a").await;
        let backend = versioned(&bucket.counting(), "a", 5);
        let restore = backend.restore(None).await.unwrap().unwrap();
        assert_eq!((restore.epoch(), restore.highest_listed()), (4711, 4711));
        restore.finish().await.unwrap();
        write(&backend, V5, 5).await.unwrap();
        assert!(backend.epoch_complete(V5, &ALL).await.unwrap());
        backend.prune_before(V5).await.unwrap();
        assert_eq!(bucket.epochs().await, [V5].into());
    }
}
