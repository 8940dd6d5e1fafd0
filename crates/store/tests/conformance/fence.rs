//! The fence that writes compare with, and waiting for it. Time is paused here, so only in memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use epochwarden_store::{ObjectStoreBackend, StateBackend, StateBackendError};
use epochwarden_testkit::counter::{Calls, CountingStore};
use epochwarden_testkit::fault::{FaultStore, Operation};
use futures::future::join_all;
use tokio::time::Instant;

use crate::bucket::{Bucket, VNODES, classic, leader};

struct Setup {
    bucket: Bucket,
    faults: FaultStore,
    calls: CountingStore,
}

impl Setup {
    fn new() -> Self {
        let bucket = Bucket::in_memory();
        let faults = bucket.faults();
        let calls = CountingStore::new(Arc::new(faults.clone()));
        Self { bucket, faults, calls }
    }

    fn worker(&self) -> ObjectStoreBackend {
        ObjectStoreBackend::builder(Arc::new(self.calls.clone())).instance_id("w").vnode_capacity(VNODES).build()
    }

    fn worker_refreshing_every(&self, age: Duration) -> ObjectStoreBackend {
        let builder = ObjectStoreBackend::builder(Arc::new(self.calls.clone()));
        builder.instance_id("w").vnode_capacity(VNODES).fence_refresh(age).build()
    }
}

async fn write(backend: &ObjectStoreBackend, version: u64) -> Result<(), StateBackendError> {
    backend.write_partial(0, 7, version, Bytes::from_static(b"state")).await
}

#[tokio::test(start_paused = true)]
async fn a_write_reads_the_fence_again_once_what_it_knows_is_ten_seconds_old() {
    let setup = Setup::new();
    let worker = setup.worker();
    let reads = async || {
        write(&worker, 9).await.unwrap();
        setup.calls.take()
    };
    assert_eq!(reads().await, Calls { list: 1, put: 1, ..Calls::default() }, "nothing is known");
    assert_eq!(reads().await, Calls { put: 1, ..Calls::default() });
    tokio::time::advance(Duration::from_millis(9_999)).await;
    assert_eq!(reads().await, Calls { put: 1, ..Calls::default() });
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(reads().await, Calls { list: 1, put: 1, ..Calls::default() });
}

#[tokio::test(start_paused = true)]
async fn a_stale_writer_is_refused_once_the_fence_was_read_again() {
    let setup = Setup::new();
    setup.bucket.publish_fence(5, "a").await;
    let worker = setup.worker_refreshing_every(Duration::from_secs(3));
    write(&worker, 5).await.unwrap();
    setup.bucket.publish_fence(6, "b").await;
    write(&worker, 5).await.unwrap();
    tokio::time::advance(Duration::from_secs(3)).await;
    setup.calls.reset();
    for lists in [1, 0] {
        let error = write(&worker, 5).await.unwrap_err();
        assert!(matches!(error, StateBackendError::StaleVersion { caller: 5, authoritative: 6 }), "{error}");
        assert_eq!(
            setup.calls.take(),
            Calls { list: lists, ..Calls::default() },
            "what is known to be stale asks nobody"
        );
    }
    write(&worker, 6).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn however_many_writers_wait_one_of_them_reads_the_fence() {
    let setup = Setup::new();
    let worker = setup.worker();
    setup.faults.before(Operation::List, "_epochwarden").delay(Duration::from_secs(1));
    for outcome in join_all((0..32).map(|_| write(&worker, 1))).await {
        outcome.unwrap();
    }
    assert_eq!(setup.calls.take(), Calls { list: 1, put: 32, ..Calls::default() });
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_is_not_asked_by_each_waiting_writer_in_turn() {
    let setup = Setup::new();
    let worker = setup.worker();
    setup.faults.before(Operation::List, "_epochwarden").delay(Duration::from_secs(30));
    setup.faults.before(Operation::List, "_epochwarden").once().fail();
    for outcome in join_all((0..32).map(|_| write(&worker, 1))).await {
        let error = outcome.unwrap_err();
        assert!(matches!(error, StateBackendError::Io { .. }), "{error}");
    }
    assert_eq!(setup.calls.take(), Calls { list: 1, ..Calls::default() });
    write(&worker, 1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_commit_refreshes_what_writes_know() {
    let setup = Setup::new();
    setup.bucket.publish_fence(5, "a").await;
    let backend = leader(Arc::new(setup.calls.clone()), "a", 5);
    assert!(backend.epoch_complete(7, &[]).await.unwrap());
    setup.calls.reset();
    write(&backend, 5).await.unwrap();
    assert_eq!(setup.calls.take(), Calls { put: 1, ..Calls::default() });
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_as_soon_as_the_fence_stands_there() {
    let setup = Setup::new();
    let backend = leader(Arc::new(setup.calls.clone()), "a", 5);
    let begun = Instant::now();
    let (waited, ()) = tokio::join!(backend.await_fence(5, Duration::from_mins(1)), async {
        tokio::time::timeout(Duration::from_secs(20), std::future::pending::<()>()).await.unwrap_err();
        setup.bucket.publish_fence(5, "a").await;
    });
    waited.unwrap();
    let took = begun.elapsed();
    assert!((20..=21).contains(&took.as_secs()), "{took:?}");
    let lists = setup.calls.take().list;
    assert!((15..=35).contains(&lists), "{lists} listings in 20 s");
}

#[tokio::test(start_paused = true)]
async fn waiting_gives_up_at_its_deadline_and_says_where_the_fence_stands() {
    let setup = Setup::new();
    setup.bucket.publish_fence(3, "a").await;
    let begun = Instant::now();
    let error = setup.worker().await_fence(5, Duration::from_secs(7)).await.unwrap_err();
    assert!(matches!(error, StateBackendError::FenceNotReached { version: 5, fence: 3 }), "{error}");
    assert_eq!(begun.elapsed(), Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_version_that_was_passed_is_stale_and_for_one_of_another_a_conflict() {
    let setup = Setup::new();
    setup.bucket.publish_fence(6, "b").await;
    let wait = Duration::from_secs(1);
    let error = setup.worker().await_fence(5, wait).await.unwrap_err();
    assert!(matches!(error, StateBackendError::StaleVersion { caller: 5, authoritative: 6 }), "{error}");
    setup.worker().await_fence(6, wait).await.unwrap();
    let error = leader(setup.bucket.store(), "a", 6).await_fence(6, wait).await.unwrap_err();
    assert!(matches!(error, StateBackendError::FenceConflict { version: 6, .. }), "{error}");
}

#[tokio::test]
async fn publishing_is_refused_where_a_higher_version_or_another_holder_stands() {
    let bucket = Bucket::in_memory();
    let backend = classic(bucket.store(), "a");
    backend.publish_fence(5, None).await.unwrap();
    backend.publish_fence(5, None).await.unwrap();
    let error = classic(bucket.store(), "b").publish_fence(5, None).await.unwrap_err();
    assert!(
        matches!(&error, StateBackendError::FenceConflict { version: 5, holder: Some(holder) } if holder == "a"),
        "{error}"
    );
    let error = classic(bucket.store(), "b").publish_fence(4, None).await.unwrap_err();
    assert!(matches!(error, StateBackendError::StaleVersion { caller: 4, authoritative: 5 }), "{error}");
    for version in [0, 1 << 53] {
        let error = backend.publish_fence(version, None).await.unwrap_err();
        assert!(matches!(error, StateBackendError::Io { .. }), "{error}");
    }
}
