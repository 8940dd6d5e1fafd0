//! Many at once: who wins, and how many.

use std::collections::BTreeSet;

use epochwarden_core::{Epoch, Version};
use epochwarden_store::{ErrorClass, Published, StateBackend, StateBackendError};
use futures::future::join_all;

use crate::bucket::{ALL, Bucket, VNODES, classic, leader, write};
use crate::owner::policy;

const RACERS: u64 = 32;

on_every_store! {
    async fn of_32_holders_that_publish_a_version_exactly_one_has_it(bucket: &Bucket) {
        let racers = (0..RACERS).map(|n| {
            let registers = bucket.registers();
            async move { registers.publish_fence(Version::new(5), &format!("pod-{n}"), None).await }
        });
        let outcomes = join_all(racers).await;
        let won: Vec<_> = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Published::Created))).collect();
        assert_eq!(won.len(), 1);
        for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert_eq!(error.class(), ErrorClass::FenceConflict, "{error}");
        }
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count() as u64, RACERS - 1);
    }

    async fn of_32_publishers_of_one_term_all_succeed_with_one_record(bucket: &Bucket) {
        let racers = (0..RACERS).map(|_| {
            let registers = bucket.registers();
            async move { registers.publish_fence(Version::new(5), "pod-1", None).await }
        });
        for outcome in join_all(racers).await {
            let published = outcome.unwrap();
            assert!(matches!(published, Published::Created | Published::AlreadyThere), "{published:?}");
        }
        assert_eq!(bucket.keys().await, ["_epochwarden/fence/00000000000000000005"]);
    }

    async fn of_32_publishers_of_different_versions_the_highest_stands(bucket: &Bucket) {
        let racers = (1..=RACERS).map(|n| {
            let registers = bucket.registers();
            async move { registers.publish_fence(Version::new(n * 1_000), &format!("pod-{n}"), None).await }
        });
        for outcome in join_all(racers).await {
            let published = outcome.unwrap();
            assert!(matches!(published, Published::Created | Published::Superseded { .. }), "{published:?}");
        }
        assert_eq!(bucket.registers().read().await.unwrap().fence, Version::new(RACERS * 1_000));
    }

    async fn of_32_publishers_of_floors_the_highest_stands(bucket: &Bucket) {
        join_all((1..=RACERS).map(|n| bucket.publish_floor(n))).await;
        assert_eq!(bucket.registers().read().await.unwrap().floor, Epoch::new(RACERS));
    }

    async fn of_32_policies_that_claim_a_root_exactly_one_owns_it(bucket: &Bucket) {
        let racers = (0..RACERS).map(|n| {
            let registers = bucket.registers();
            async move { registers.claim_owner(&policy(&format!("ns-{n}"), &format!("u{n}"))).await }
        });
        let outcomes = join_all(racers).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert_eq!(error.class(), ErrorClass::RootConflict, "{error}");
        }
    }

    async fn of_32_instances_that_seal_an_epoch_exactly_one_did(bucket: &Bucket) {
        write(&classic(bucket.store(), "writer"), 7).await;
        let racers = (0..RACERS).map(|n| {
            let backend = classic(bucket.store(), &format!("pod-{n}"));
            async move { backend.epoch_complete(7, &ALL).await }
        });
        let outcomes = join_all(racers).await;
        let winner = bucket.body("epoch=7/_COMMIT").await.unwrap();
        let mut sealed = 0;
        let mut losers = BTreeSet::new();
        for outcome in outcomes {
            match outcome {
                Ok(complete) => sealed += u64::from(complete),
                Err(StateBackendError::SplitBrainCommit { committer, self_id }) => {
                    assert_eq!(committer.as_bytes(), winner);
                    losers.insert(self_id);
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((sealed, losers.len() as u64), (1, RACERS - 1));
    }

    async fn workers_write_while_a_leader_waits_for_the_last_of_them(bucket: &Bucket) {
        bucket.publish_fence(5, "a").await;
        let backend = leader(bucket.store(), "a", 5);
        let writers = (0..VNODES).map(|vnode| {
            let worker = leader(bucket.store(), "w", 5);
            async move { worker.write_partial(vnode, 7, 5, bytes::Bytes::from_static(b"state")).await.unwrap() }
        });
        let (_, complete) = tokio::join!(join_all(writers), async {
            tokio::time::timeout(std::time::Duration::from_mins(1), async {
                while !backend.epoch_complete(7, &ALL).await.unwrap() {
                    tokio::task::yield_now().await;
                }
            })
            .await
        });
        complete.unwrap();
    }
}
