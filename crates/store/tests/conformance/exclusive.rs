//! Partials that are written once.

use std::sync::Arc;

use bytes::Bytes;
use epochwarden_store::{ObjectStoreBackend, StateBackend, StateBackendError};
use epochwarden_testkit::counter::{Calls, CountingStore};
use epochwarden_testkit::fault::Operation;
use futures::future::join_all;
use object_store::ObjectStore;

use crate::bucket::{ALL, Bucket, VNODES, put};

const NOTHING: Calls = Calls { list: 0, get: 0, head: 0, put: 0, delete: 0 };
const PARTIAL: &str = "epoch=7/vnode=2/partial.bin";

/// A worker of version 0, so that nothing but the writes is asked for.
fn exclusive(store: Arc<dyn ObjectStore>, exclusive: bool) -> ObjectStoreBackend {
    ObjectStoreBackend::builder(store).instance_id("a").vnode_capacity(VNODES).exclusive_partials(exclusive).build()
}

async fn write(backend: &ObjectStoreBackend, state: &'static [u8]) -> Result<(), StateBackendError> {
    backend.write_partial(2, 7, 0, Bytes::from_static(state)).await
}

fn is_conflict(error: &StateBackendError) -> bool {
    matches!(error, StateBackendError::PartialConflict { epoch, vnode: 2 } if epoch.get() == 7)
}

on_every_store! {
    async fn a_partial_is_written_once_and_a_retry_with_the_same_bytes_is_success(bucket: &Bucket) {
        let backend = exclusive(bucket.store(), true);
        for _ in 0..2 {
            write(&backend, b"state").await.unwrap();
        }
        for other in [&b"statf"[..], b"stat", b"state2", b""] {
            let error = write(&backend, other).await.unwrap_err();
            assert!(is_conflict(&error), "{other:?}: {error}");
        }
        assert_eq!(bucket.body(PARTIAL).await.unwrap(), "state");
        // Another vnode, and another epoch, are free.
        backend.write_partial(3, 7, 0, Bytes::from_static(b"x")).await.unwrap();
        backend.write_partial(2, 8, 0, Bytes::from_static(b"x")).await.unwrap();
    }

    async fn an_empty_state_is_a_state(bucket: &Bucket) {
        let backend = exclusive(bucket.store(), true);
        for _ in 0..2 {
            write(&backend, b"").await.unwrap();
        }
        assert!(is_conflict(&write(&backend, b"x").await.unwrap_err()));
    }

    async fn a_large_state_is_compared_to_its_last_byte(bucket: &Bucket) {
        let backend = exclusive(bucket.store(), true);
        let state = Bytes::from(vec![7_u8; 3 << 20]);
        let mut other = state.to_vec();
        *other.last_mut().unwrap() = 8;
        for _ in 0..2 {
            backend.write_partial(2, 7, 0, state.clone()).await.unwrap();
        }
        assert!(is_conflict(&backend.write_partial(2, 7, 0, other.into()).await.unwrap_err()));
    }

    async fn without_it_the_last_writer_wins(bucket: &Bucket) {
        let backend = exclusive(bucket.store(), false);
        write(&backend, b"first").await.unwrap();
        write(&backend, b"second").await.unwrap();
        assert_eq!(bucket.body(PARTIAL).await.unwrap(), "second");
    }

    async fn a_write_costs_one_put_and_a_meeting_one_get_more(bucket: &Bucket) {
        let calls = bucket.counting();
        let backend = exclusive(Arc::new(calls.clone()), true);
        write(&backend, b"state").await.unwrap();
        assert_eq!(calls.take(), Calls { list: 1, put: 1, ..NOTHING }, "the first write looks whether there is a fence");
        write(&backend, b"state").await.unwrap();
        assert_eq!(calls.take(), Calls { put: 1, get: 1, ..NOTHING });
        write(&backend, b"other").await.unwrap_err();
        assert_eq!(calls.take(), Calls { put: 1, get: 1, ..NOTHING });
    }

    async fn a_lost_answer_is_settled_by_reading_back(bucket: &Bucket) {
        let faults = bucket.faults();
        faults.after(Operation::Put, PARTIAL).once().fail();
        let backend = exclusive(Arc::new(faults.clone()), true);
        write(&backend, b"state").await.unwrap();
        assert_eq!(faults.pending(), 0);
        assert_eq!(bucket.body(PARTIAL).await.unwrap(), "state");
    }

    async fn a_lost_answer_to_a_create_that_another_won_is_a_conflict(bucket: &Bucket) {
        let faults = bucket.faults();
        let store = bucket.store();
        faults.before(Operation::Put, PARTIAL).once().run(move || {
            let store = Arc::clone(&store);
            async move { put(&store, PARTIAL, "theirs").await }
        });
        faults.before(Operation::Put, PARTIAL).once().fail();
        let error = write(&exclusive(Arc::new(faults.clone()), true), b"ours!!").await.unwrap_err();
        assert!(is_conflict(&error), "{error}");
        assert_eq!(faults.pending(), 0);
        assert_eq!(bucket.body(PARTIAL).await.unwrap(), "theirs");
    }

    async fn a_write_that_never_arrived_and_a_conflict_in_flight_are_tried_again(bucket: &Bucket) {
        let faults = bucket.faults();
        faults.before(Operation::Put, PARTIAL).once().fail();
        faults.before(Operation::Put, PARTIAL).skip(1).once().already_exists();
        faults.before(Operation::Get, PARTIAL).skip(1).once().fail();
        write(&exclusive(Arc::new(faults.clone()), true), b"state").await.unwrap();
        assert_eq!(faults.pending(), 0);
        assert_eq!(bucket.body(PARTIAL).await.unwrap(), "state");
    }

    async fn a_write_that_is_never_settled_ends_as_an_error_after_few_tries(bucket: &Bucket) {
        let faults = bucket.faults();
        faults.before(Operation::Put, PARTIAL).already_exists();
        let calls = CountingStore::new(Arc::new(faults));
        let error = write(&exclusive(Arc::new(calls.clone()), true), b"state").await.unwrap_err();
        assert!(matches!(&error, StateBackendError::Io { key, .. } if key == PARTIAL), "{error}");
        assert_eq!(calls.take(), Calls { list: 1, put: 4, get: 4, ..NOTHING });
    }

    async fn of_many_terms_that_write_one_epoch_exactly_one_does(bucket: &Bucket) {
        let racers = (0..16_u8).map(|n| {
            let backend = exclusive(bucket.store(), true);
            async move { backend.write_partial(2, 7, 0, Bytes::from(vec![n; 64])).await }
        });
        let outcomes = join_all(racers).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert!(is_conflict(error), "{error}");
        }
    }

    async fn a_paused_leader_cannot_mix_its_states_into_an_epoch_of_its_successor(bucket: &Bucket) {
        bucket.publish_fence(5, "a").await;
        let lead = |instance: &str, version| {
            ObjectStoreBackend::builder(bucket.store())
                .instance_id(instance)
                .vnode_capacity(VNODES)
                .leading(version)
                .exclusive_partials(true)
                .build()
        };
        let (deposed, successor) = (lead("a", 5), lead("b", 6));
        // It has heard of version 5 alone, and this does not change before it asks again.
        deposed.write_partial(0, 7, 5, Bytes::from_static(b"a")).await.unwrap();
        bucket.publish_fence(6, "b").await;
        for vnode in ALL {
            successor.write_partial(vnode, 8, 6, Bytes::from_static(b"b")).await.unwrap();
        }
        for vnode in ALL {
            let error = deposed.write_partial(vnode, 8, 5, Bytes::from_static(b"a")).await.unwrap_err();
            assert!(matches!(error, StateBackendError::PartialConflict { epoch, vnode: told } if (epoch.get(), told) == (8, vnode)), "{error}");
        }
        assert!(successor.epoch_complete(8, &ALL).await.unwrap());
        assert_eq!(successor.read_partial(2, 8).await.unwrap().unwrap(), "b");
    }
}
