//! What each call asks of the store.

use std::sync::Arc;

use bytes::Bytes;
use epochwarden_store::{StateBackend, StateBackendError};
use epochwarden_testkit::counter::Calls;

use crate::bucket::{ALL, Bucket, classic, fenced, leader, seal, write};

const NOTHING: Calls = Calls { list: 0, get: 0, head: 0, put: 0, delete: 0 };

on_every_store! {
    async fn the_classic_backend_makes_exactly_the_classic_requests(bucket: &Bucket) {
        let calls = bucket.counting();
        let backend = classic(Arc::new(calls.clone()), "a");
        assert_eq!(calls.take(), NOTHING, "new");

        backend.write_partial(0, 7, 0, Bytes::from_static(b"state")).await.unwrap();
        assert_eq!(calls.take(), Calls { put: 1, ..NOTHING }, "write");
        backend.read_partial(0, 7).await.unwrap();
        backend.read_partial(1, 7).await.unwrap();
        assert_eq!(calls.take(), Calls { get: 2, ..NOTHING }, "read");

        assert!(!backend.epoch_complete(7, &ALL).await.unwrap());
        assert_eq!(calls.take(), Calls { head: 1, list: 1, ..NOTHING }, "an incomplete epoch");
        assert!(backend.epoch_complete(7, &[0]).await.unwrap());
        assert_eq!(calls.take(), Calls { head: 1, list: 1, put: 1, ..NOTHING }, "a complete epoch");
        assert!(backend.epoch_complete(7, &[0]).await.unwrap());
        assert_eq!(calls.take(), Calls { head: 1, get: 1, ..NOTHING }, "a sealed epoch");

        assert_eq!(backend.latest_committed_epoch().await.unwrap(), Some(7));
        assert_eq!(calls.take(), Calls { list: 1, ..NOTHING }, "the latest epoch");
    }

    async fn the_classic_backend_does_not_notice_a_fence_before_it_is_told_of_one(bucket: &Bucket) {
        bucket.publish_fence(5, "b").await;
        let calls = bucket.counting();
        let backend = classic(Arc::new(calls.clone()), "a");
        backend.set_authoritative_version(0);
        seal(&backend, 7).await;
        assert_eq!(calls.take(), Calls { put: 5, head: 1, list: 1, ..NOTHING });

        backend.set_authoritative_version(4);
        let error = backend.epoch_complete(8, &ALL).await.unwrap_err();
        assert!(matches!(error, StateBackendError::StaleVersion { caller: 4, authoritative: 5 }), "{error}");
        assert_eq!(calls.take(), Calls { list: 1, ..NOTHING });

        let other = classic(bucket.store(), "c");
        assert_eq!(other.refresh_fence().await.unwrap(), 5);
        let error = other.epoch_complete(8, &ALL).await.unwrap_err();
        assert!(matches!(error, StateBackendError::StaleVersion { caller: 0, authoritative: 5 }), "{error}");
    }

    async fn a_guarded_commit_costs_two_small_listings_more_and_one_read_per_version(bucket: &Bucket) {
        let calls = bucket.counting();
        bucket.publish_fence(5, "a").await;
        let backend = leader(Arc::new(calls.clone()), "a", 5);
        write(&backend, 7).await;
        write(&backend, 8).await;
        calls.reset();
        assert!(backend.epoch_complete(7, &ALL).await.unwrap());
        assert_eq!(calls.take(), Calls { head: 1, list: 3, put: 1, get: 1, ..NOTHING }, "the first of a version");
        assert!(backend.epoch_complete(8, &ALL).await.unwrap());
        assert_eq!(calls.take(), Calls { head: 1, list: 3, put: 1, ..NOTHING }, "the next");
        assert!(!backend.epoch_complete(9, &ALL).await.unwrap());
        assert_eq!(calls.take(), Calls { head: 1, list: 2, ..NOTHING }, "an incomplete one");
    }

    async fn with_the_fence_off_a_built_backend_looks_for_a_fence_before_each_seal_and_not_after_it(bucket: &Bucket) {
        let calls = bucket.counting();
        let backend = leader(Arc::new(calls.clone()), "a", 0);
        write(&backend, 7).await;
        assert_eq!(calls.take(), Calls { put: 4, list: 1, ..NOTHING }, "the first write looks whether there is a fence");
        assert!(backend.epoch_complete(7, &ALL).await.unwrap());
        assert_eq!(calls.take(), Calls { head: 1, list: 2, put: 1, ..NOTHING });
    }

    async fn publishing_above_what_was_listed_needs_no_listing(bucket: &Bucket) {
        let calls = bucket.counting();
        fenced(bucket, "a", 5).await;
        let backend = leader(Arc::new(calls.clone()), "a", 6);
        backend.publish_fence(6, None).await.unwrap();
        assert_eq!(calls.take(), Calls { list: 1, put: 1, ..NOTHING }, "nothing was listed before");
        backend.publish_fence(7, None).await.unwrap();
        assert_eq!(calls.take(), Calls { put: 1, ..NOTHING });
        backend.publish_fence(7, None).await.unwrap();
        assert_eq!(calls.take(), Calls { list: 1, get: 1, ..NOTHING }, "it stands: read and compared");
    }
}
