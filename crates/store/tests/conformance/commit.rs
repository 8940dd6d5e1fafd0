//! The guarded commit.

use std::sync::Arc;

use epochwarden_core::register::RegisterKind;
use epochwarden_store::{ObjectStoreBackend, StateBackend, StateBackendError};
use epochwarden_testkit::fault::Operation;

use crate::bucket::{ALL, Bucket, VNODES, classic, fenced, leader, put, raise_floor, seal, write};

const SEAL: &str = "epoch=1700000000007/_COMMIT";
const EPOCH: u64 = 1_700_000_000_007;

on_every_store! {
    async fn the_leader_of_the_version_that_stands_commits(bucket: &Bucket) {
        let backend = fenced(bucket, "a", 5).await;
        write(&backend, EPOCH).await;
        for _ in 0..2 {
            assert!(backend.epoch_complete(EPOCH, &ALL).await.unwrap());
        }
        assert_eq!(bucket.body(SEAL).await.unwrap(), "a");
    }

    async fn an_incomplete_epoch_is_not_sealed_under_the_fence_either(bucket: &Bucket) {
        let backend = fenced(bucket, "a", 5).await;
        assert!(!backend.epoch_complete(EPOCH, &ALL).await.unwrap());
        assert!(!bucket.has(SEAL).await);
    }

    async fn a_deposed_leader_is_refused_before_it_seals(bucket: &Bucket) {
        let backend = fenced(bucket, "a", 5).await;
        write(&backend, EPOCH).await;
        bucket.publish_fence(6, "b").await;
        let error = backend.epoch_complete(EPOCH, &ALL).await.unwrap_err();
        assert!(matches!(error, StateBackendError::StaleVersion { caller: 5, authoritative: 6 }), "{error}");
        assert!(!bucket.has(SEAL).await);
    }

    async fn a_leader_whose_version_is_not_durable_is_refused(bucket: &Bucket) {
        for (standing, version) in [(0, 5), (4, 5)] {
            if standing > 0 {
                bucket.publish_fence(standing, "b").await;
            }
            let backend = leader(bucket.store(), "a", version);
            write(&backend, EPOCH).await;
            let error = backend.epoch_complete(EPOCH, &ALL).await.unwrap_err();
            assert!(matches!(error, StateBackendError::FenceNotReached { version: 5, fence } if fence == standing), "{error}");
            assert!(!bucket.has(SEAL).await);
        }
    }

    async fn version_0_under_a_fence_is_stale(bucket: &Bucket) {
        bucket.publish_fence(1, "b").await;
        let unversioned = ObjectStoreBackend::builder(bucket.store()).instance_id("a").vnode_capacity(VNODES).build();
        for backend in [unversioned, leader(bucket.store(), "a", 0)] {
            let error = backend.epoch_complete(EPOCH, &[]).await.unwrap_err();
            assert!(matches!(error, StateBackendError::StaleVersion { caller: 0, authoritative: 1 }), "{error}");
        }
        assert!(!bucket.has(SEAL).await);
    }

    async fn a_version_that_names_another_holder_is_a_conflict(bucket: &Bucket) {
        bucket.publish_fence(5, "b").await;
        let backend = leader(bucket.store(), "a", 5);
        write(&backend, EPOCH).await;
        for _ in 0..2 {
            let error = backend.epoch_complete(EPOCH, &ALL).await.unwrap_err();
            assert!(
                matches!(&error, StateBackendError::FenceConflict { version: 5, holder: Some(holder) } if holder == "b"),
                "{error}"
            );
        }
        assert!(!bucket.has(SEAL).await);
    }

    async fn a_record_that_cannot_be_read_names_nobody(bucket: &Bucket) {
        bucket.put("_epochwarden/fence/00000000000000000005", "not a record").await;
        let error = leader(bucket.store(), "a", 5).epoch_complete(EPOCH, &[]).await.unwrap_err();
        assert!(matches!(error, StateBackendError::FenceConflict { version: 5, holder: None }), "{error}");
    }

    async fn the_holder_may_have_another_name_than_the_instance(bucket: &Bucket) {
        bucket.publish_fence(5, "pod-1").await;
        let backend = ObjectStoreBackend::builder(bucket.store())
            .instance_id("pod-1-x7")
            .holder("pod-1")
            .vnode_capacity(VNODES)
            .leading(5)
            .build();
        seal(&backend, EPOCH).await;
        assert_eq!(bucket.body(SEAL).await.unwrap(), "pod-1-x7");
    }

    async fn an_epoch_below_the_floor_cannot_be_sealed_and_the_floor_itself_can(bucket: &Bucket) {
        let backend = fenced(bucket, "a", 5).await;
        write(&backend, EPOCH).await;
        write(&backend, EPOCH + 1).await;
        bucket.publish_floor(EPOCH + 1).await;
        let error = backend.epoch_complete(EPOCH, &ALL).await.unwrap_err();
        assert!(
            matches!(error, StateBackendError::EpochPruned { epoch, floor } if (epoch.get(), floor.get()) == (EPOCH, EPOCH + 1)),
            "{error}"
        );
        assert!(!bucket.has(SEAL).await);
        assert!(backend.epoch_complete(EPOCH + 1, &ALL).await.unwrap());
    }

    async fn a_fence_that_rises_between_the_seal_and_the_second_read_refuses_the_commit(bucket: &Bucket) {
        bucket.publish_fence(5, "a").await;
        let faults = bucket.faults();
        let root = bucket.root.clone();
        faults.after(Operation::Put, SEAL).once().run(move || {
            let registers = epochwarden_store::Registers::new(root.clone(), "operator");
            async move {
                registers.publish_fence(epochwarden_core::Version::new(6), "b", None).await.unwrap();
            }
        });
        let backend = leader(Arc::new(faults.clone()), "a", 5);
        write(&backend, EPOCH).await;
        for _ in 0..2 {
            let error = backend.epoch_complete(EPOCH, &ALL).await.unwrap_err();
            assert!(matches!(error, StateBackendError::StaleVersion { caller: 5, authoritative: 6 }), "{error}");
        }
        assert_eq!(faults.pending(), 0);
        assert!(bucket.has(SEAL).await, "the seal was written, and still nothing was acknowledged");
    }

    async fn a_floor_that_rises_between_the_seal_and_the_second_read_refuses_the_commit(bucket: &Bucket) {
        bucket.publish_fence(5, "a").await;
        let faults = bucket.faults();
        let store = bucket.store();
        faults.after(Operation::Put, SEAL).once().run(move || {
            let store = Arc::clone(&store);
            async move { raise_floor(&store, EPOCH + 9).await }
        });
        let backend = leader(Arc::new(faults.clone()), "a", 5);
        write(&backend, EPOCH).await;
        let error = backend.epoch_complete(EPOCH, &ALL).await.unwrap_err();
        assert!(matches!(error, StateBackendError::EpochPruned { epoch, .. } if epoch.get() == EPOCH), "{error}");
        assert_eq!(faults.pending(), 0);
        assert!(bucket.has(SEAL).await);
    }

    async fn a_retry_that_finds_its_own_seal_still_passes_the_guard(bucket: &Bucket) {
        let backend = fenced(bucket, "a", 5).await;
        seal(&backend, EPOCH).await;
        let faults = bucket.faults();
        let store = bucket.store();
        faults.after(Operation::Get, SEAL).once().run(move || {
            let store = Arc::clone(&store);
            async move { raise_floor(&store, EPOCH + 9).await }
        });
        let error = leader(Arc::new(faults.clone()), "a", 5).epoch_complete(EPOCH, &ALL).await.unwrap_err();
        assert!(matches!(error, StateBackendError::EpochPruned { .. }), "{error}");
        assert_eq!(faults.pending(), 0);
    }

    async fn a_lost_answer_to_the_create_is_settled_by_reading_back(bucket: &Bucket) {
        bucket.publish_fence(5, "a").await;
        let faults = bucket.faults();
        faults.after(Operation::Put, SEAL).once().fail();
        let backend = leader(Arc::new(faults.clone()), "a", 5);
        write(&backend, EPOCH).await;
        assert!(backend.epoch_complete(EPOCH, &ALL).await.unwrap());
        assert_eq!(faults.pending(), 0);
        assert_eq!(bucket.body(SEAL).await.unwrap(), "a");
    }

    async fn a_create_that_never_arrived_is_sent_again(bucket: &Bucket) {
        bucket.publish_fence(5, "a").await;
        let faults = bucket.faults();
        faults.before(Operation::Put, SEAL).once().fail();
        faults.before(Operation::Put, SEAL).skip(1).once().already_exists();
        let backend = leader(Arc::new(faults.clone()), "a", 5);
        write(&backend, EPOCH).await;
        assert!(backend.epoch_complete(EPOCH, &ALL).await.unwrap(), "no answer, then a conflict without a marker, then written");
        assert_eq!(faults.pending(), 0);
    }

    async fn a_lost_answer_does_not_hide_that_another_won(bucket: &Bucket) {
        bucket.publish_fence(5, "a").await;
        let faults = bucket.faults();
        let store = bucket.store();
        faults.before(Operation::Put, SEAL).once().run(move || {
            let store = Arc::clone(&store);
            async move { put(&store, SEAL, "b").await }
        });
        faults.before(Operation::Put, SEAL).once().fail();
        let backend = leader(Arc::new(faults.clone()), "a", 5);
        write(&backend, EPOCH).await;
        let error = backend.epoch_complete(EPOCH, &ALL).await.unwrap_err();
        assert!(
            matches!(&error, StateBackendError::SplitBrainCommit { committer, self_id } if committer == "b" && self_id == "a"),
            "{error}"
        );
    }

    async fn a_create_that_is_never_settled_ends_as_an_error_after_few_tries(bucket: &Bucket) {
        let faults = bucket.faults();
        faults.before(Operation::Put, SEAL).already_exists();
        let calls = epochwarden_testkit::counter::CountingStore::new(Arc::new(faults));
        let backend = classic(Arc::new(calls.clone()), "a");
        write(&backend, EPOCH).await;
        calls.reset();
        let error = backend.epoch_complete(EPOCH, &ALL).await.unwrap_err();
        assert!(matches!(&error, StateBackendError::Io { key, .. } if key == SEAL), "{error}");
        assert_eq!(calls.take().put, 4);
    }

    async fn a_fence_that_was_seen_and_is_gone_is_lost_and_not_off(bucket: &Bucket) {
        let backend = fenced(bucket, "a", 5).await;
        seal(&backend, EPOCH).await;
        write(&backend, EPOCH + 1).await;
        bucket.delete("_epochwarden/fence/00000000000000000005").await;
        for _ in 0..2 {
            let error = backend.epoch_complete(EPOCH + 1, &ALL).await.unwrap_err();
            assert!(
                matches!(error, StateBackendError::RegisterLost { register: RegisterKind::Fence, seen: 5, found: 0 }),
                "{error}"
            );
        }
        assert!(!bucket.has("epoch=1700000000008/_COMMIT").await);
    }

    async fn a_floor_that_was_seen_and_is_gone_is_lost(bucket: &Bucket) {
        bucket.publish_floor(7).await;
        let backend = fenced(bucket, "a", 5).await;
        seal(&backend, EPOCH).await;
        bucket.delete("_epochwarden/floor/00000000000000000007").await;
        let error = backend.epoch_complete(EPOCH, &ALL).await.unwrap_err();
        assert!(
            matches!(error, StateBackendError::RegisterLost { register: RegisterKind::Floor, seen: 7, found: 0 }),
            "{error}"
        );
    }

    async fn what_a_guard_read_finds_never_becomes_the_version_that_commits(bucket: &Bucket) {
        bucket.publish_fence(5, "a").await;
        let backend = ObjectStoreBackend::builder(bucket.store()).instance_id("a").vnode_capacity(VNODES).build();
        backend.set_authoritative_version(4);
        assert_eq!(backend.refresh_fence().await.unwrap(), 5);
        assert_eq!(backend.authoritative_version(), 5, "writes are refused below what was read");
        for _ in 0..2 {
            let error = backend.epoch_complete(EPOCH, &[]).await.unwrap_err();
            assert!(matches!(error, StateBackendError::StaleVersion { caller: 4, authoritative: 5 }), "{error}");
        }
        backend.set_authoritative_version(5);
        seal(&backend, EPOCH).await;
    }

    async fn a_leader_commits_as_the_version_it_was_given_whatever_it_hears_later(bucket: &Bucket) {
        let backend = fenced(bucket, "a", 5).await;
        bucket.publish_fence(6, "a").await;
        backend.set_authoritative_version(6);
        let error = backend.epoch_complete(EPOCH, &[]).await.unwrap_err();
        assert!(matches!(error, StateBackendError::StaleVersion { caller: 5, authoritative: 6 }), "{error}");
    }

    async fn a_commit_that_outlasts_its_term_is_not_taken_for_one_of_the_next(bucket: &Bucket) {
        bucket.publish_fence(5, "a").await;
        let faults = bucket.faults();
        let backend = Arc::new(
            ObjectStoreBackend::builder(Arc::new(faults.clone())).instance_id("a").vnode_capacity(VNODES).build(),
        );
        backend.set_authoritative_version(5);
        write(&backend, EPOCH).await;
        let (root, same) = (bucket.root.clone(), Arc::clone(&backend));
        faults.after(Operation::Put, SEAL).once().run(move || {
            let registers = epochwarden_store::Registers::new(root.clone(), "operator");
            let backend = Arc::clone(&same);
            async move {
                // Another leader comes and goes, and this instance leads again.
                for (version, holder) in [(6, "b"), (7, "a")] {
                    registers.publish_fence(epochwarden_core::Version::new(version), holder, None).await.unwrap();
                }
                backend.set_authoritative_version(7);
            }
        });
        let error = backend.epoch_complete(EPOCH, &ALL).await.unwrap_err();
        assert!(matches!(error, StateBackendError::StaleVersion { caller: 5, authoritative: 7 }), "{error}");
        assert_eq!(faults.pending(), 0);
    }
}
