//! The behaviours that pipelines have always relied on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use epochwarden_store::{ObjectStoreBackend, StateBackend, StateBackendError};
use epochwarden_testkit::fault::Operation;
use object_store::prefix::PrefixStore;

use crate::bucket::{ALL, Bucket, VNODES, classic, put, seal, write};

on_every_store! {
    async fn what_is_written_is_read_back_and_what_is_not_there_is_none(bucket: &Bucket) {
        let backend = classic(bucket.store(), "a");
        for epoch in [0, 7, 1_700_000_000_000, u64::MAX] {
            assert_eq!(backend.read_partial(3, epoch).await.unwrap(), None);
            backend.write_partial(3, epoch, 0, Bytes::from_static(b"one")).await.unwrap();
            backend.write_partial(3, epoch, 0, Bytes::from_static(b"two")).await.unwrap();
            assert_eq!(backend.read_partial(3, epoch).await.unwrap().unwrap(), "two");
            assert_eq!(backend.read_partial(2, epoch).await.unwrap(), None);
        }
    }

    async fn the_objects_are_those_of_the_classic_layout_to_the_byte(bucket: &Bucket) {
        let backend = classic(bucket.store(), "pod-1");
        backend.write_partial(0, 5, 0, Bytes::from_static(&[0, 255])).await.unwrap();
        backend.write_partial(3, u64::MAX, 0, Bytes::new()).await.unwrap();
        assert!(backend.epoch_complete(5, &[0]).await.unwrap());
        assert_eq!(
            bucket.keys().await,
            ["epoch=18446744073709551615/vnode=3/partial.bin", "epoch=5/_COMMIT", "epoch=5/vnode=0/partial.bin"]
        );
        assert_eq!(bucket.body("epoch=5/_COMMIT").await.unwrap(), "pod-1");
        assert_eq!(bucket.body("epoch=5/vnode=0/partial.bin").await.unwrap(), [0, 255].as_slice());
    }

    async fn an_epoch_is_incomplete_until_every_vnode_is_there_and_complete_ever_after(bucket: &Bucket) {
        let backend = classic(bucket.store(), "a");
        for vnode in ALL {
            assert!(!backend.epoch_complete(7, &ALL).await.unwrap(), "before vnode {vnode}");
            assert!(!bucket.has("epoch=7/_COMMIT").await);
            backend.write_partial(vnode, 7, 0, Bytes::from_static(b"state")).await.unwrap();
        }
        for _ in 0..2 {
            assert!(backend.epoch_complete(7, &ALL).await.unwrap());
        }
        assert!(classic(bucket.store(), "a").epoch_complete(7, &ALL).await.unwrap(), "the same instance, asked anew");
    }

    async fn what_only_resembles_a_partial_completes_nothing(bucket: &Bucket) {
        let backend = classic(bucket.store(), "a");
        for key in ["epoch=7/vnode=00/partial.bin", "epoch=7/vnode=0/partial.bin.bak", "epoch=70/vnode=0/partial.bin"] {
            bucket.put(key, "state").await;
        }
        assert!(!backend.epoch_complete(7, &[0]).await.unwrap());
    }

    async fn a_second_instance_that_finds_the_seal_is_told_who_wrote_it(bucket: &Bucket) {
        let first = classic(bucket.store(), "a");
        write(&first, 7).await;
        assert!(first.epoch_complete(7, &ALL).await.unwrap());
        let error = classic(bucket.store(), "b").epoch_complete(7, &ALL).await.unwrap_err();
        assert!(
            matches!(&error, StateBackendError::SplitBrainCommit { committer, self_id } if committer == "a" && self_id == "b"),
            "{error}"
        );
    }

    async fn a_second_instance_that_loses_the_create_is_told_who_won(bucket: &Bucket) {
        let faults = bucket.faults();
        let store = bucket.store();
        faults.before(Operation::Put, "epoch=7/_COMMIT").once().run(move || {
            let store = Arc::clone(&store);
            async move { put(&store, "epoch=7/_COMMIT", "a").await }
        });
        let second = classic(Arc::new(faults.clone()), "b");
        write(&second, 7).await;
        let error = second.epoch_complete(7, &ALL).await.unwrap_err();
        assert!(
            matches!(&error, StateBackendError::SplitBrainCommit { committer, self_id } if committer == "a" && self_id == "b"),
            "{error}"
        );
        assert_eq!(faults.pending(), 0);
        assert_eq!(bucket.body("epoch=7/_COMMIT").await.unwrap(), "a");
    }

    async fn a_write_below_the_authoritative_version_is_stale(bucket: &Bucket) {
        let backend = classic(bucket.store(), "a");
        backend.set_authoritative_version(5);
        let error = backend.write_partial(0, 7, 4, Bytes::from_static(b"late")).await.unwrap_err();
        assert!(matches!(error, StateBackendError::StaleVersion { caller: 4, authoritative: 5 }), "{error}");
        assert_eq!(backend.read_partial(0, 7).await.unwrap(), None);
        for version in [5, 6] {
            backend.write_partial(0, 7, version, Bytes::from_static(b"state")).await.unwrap();
        }
    }

    async fn version_0_accepts_all(bucket: &Bucket) {
        let backend = classic(bucket.store(), "a");
        for version in [0, 1, u64::MAX] {
            backend.write_partial(0, 7, version, Bytes::from_static(b"state")).await.unwrap();
        }
    }

    async fn pipelines_below_prefixes_of_one_bucket_do_not_meet(bucket: &Bucket) {
        let below = |prefix: &str| classic(Arc::new(PrefixStore::new(bucket.store(), prefix)), prefix);
        let (orders, billing) = (below("orders"), below("billing"));
        for epoch in [7, 8] {
            seal(&orders, epoch).await;
        }
        seal(&billing, 3).await;
        orders.publish_fence(5, None).await.unwrap();
        orders.prune_before(8).await.unwrap();
        assert_eq!(orders.latest_committed_epoch().await.unwrap(), Some(8));
        assert_eq!(billing.latest_committed_epoch().await.unwrap(), Some(3));
        assert_eq!(billing.refresh_fence().await.unwrap(), 0);
        assert!(bucket.has("orders/_epochwarden/floor/00000000000000000008").await);
    }

    async fn a_vnode_at_or_above_the_capacity_is_an_io_error(bucket: &Bucket) {
        let backend = classic(bucket.store(), "a");
        for vnode in [VNODES, u32::MAX] {
            let errors = [
                backend.write_partial(vnode, 7, 0, Bytes::new()).await.unwrap_err(),
                backend.read_partial(vnode, 7).await.unwrap_err(),
                backend.epoch_complete(7, &[0, vnode]).await.unwrap_err(),
            ];
            for error in errors {
                assert!(matches!(error, StateBackendError::Io { .. }), "{error}");
            }
        }
        assert_eq!(bucket.keys().await, Vec::<String>::new());
    }
}

fn in_memory() -> ObjectStoreBackend {
    classic(Bucket::in_memory().store(), "a")
}

#[test]
fn the_authoritative_version_only_rises() {
    let backend = in_memory();
    assert_eq!(backend.authoritative_version(), 0);
    for (set, then) in [(5, 5), (3, 5), (0, 5), (6, 6), (6, 6)] {
        backend.set_authoritative_version(set);
        assert_eq!(backend.authoritative_version(), then, "after {set}");
    }
}

#[test]
fn the_authoritative_version_handle_shares_the_counter() {
    let backend = in_memory();
    let handle = backend.authoritative_version_handle();
    backend.set_authoritative_version(5);
    assert_eq!(handle.load(Ordering::SeqCst), 5);
    handle.fetch_max(9, Ordering::SeqCst);
    assert_eq!(backend.authoritative_version(), 9);
}

#[test]
fn the_vnode_capacity_is_what_was_given() {
    assert_eq!(in_memory().vnode_capacity(), VNODES);
}

#[tokio::test]
async fn it_is_object_safe_behind_an_arc() {
    let backend: Arc<dyn StateBackend> = Arc::new(in_memory());
    backend.write_partial(0, 7, 0, Bytes::from_static(b"state")).await.unwrap();
    assert!(Arc::clone(&backend).epoch_complete(7, &[0]).await.unwrap());
    assert_eq!(backend.latest_committed_epoch().await.unwrap(), Some(7));
}
