//! The newest sealed epoch.

use std::sync::Arc;

use epochwarden_store::{StateBackend, StateBackendError};
use epochwarden_testkit::fault::Operation;

use crate::bucket::{Bucket, classic, leader, put, seal, write};

on_every_store! {
    async fn there_is_none_on_an_empty_store(bucket: &Bucket) {
        assert_eq!(classic(bucket.store(), "a").latest_committed_epoch().await.unwrap(), None);
    }

    async fn it_ignores_unsealed_epochs_and_compares_numbers(bucket: &Bucket) {
        let backend = classic(bucket.store(), "a");
        write(&backend, 99).await;
        assert_eq!(backend.latest_committed_epoch().await.unwrap(), None);
        for (epoch, latest) in [(9, 9), (10, 10), (2, 10), (1_700_000_000_000, 1_700_000_000_000), (u64::MAX, u64::MAX)] {
            seal(&backend, epoch).await;
            assert_eq!(backend.latest_committed_epoch().await.unwrap(), Some(latest));
        }
    }

    async fn what_only_resembles_a_seal_is_none(bucket: &Bucket) {
        for key in ["epoch=007/_COMMIT", "epoch=8/x/_COMMIT", "epoch=9/_COMMITTED", "other/epoch=10/_COMMIT"] {
            bucket.put(key, "a").await;
        }
        assert_eq!(classic(bucket.store(), "a").latest_committed_epoch().await.unwrap(), None);
    }

    async fn an_answer_below_the_floor_is_listed_again(bucket: &Bucket) {
        for oldest in [None, Some(5)] {
            if let Some(epoch) = oldest {
                seal(&classic(bucket.store(), "a"), epoch).await;
                bucket.delete("epoch=10/_COMMIT").await;
            }
            bucket.publish_floor(9).await;
            let faults = bucket.faults();
            let store = bucket.store();
            faults.after(Operation::List, "").once().run(move || {
                let store = Arc::clone(&store);
                async move { put(&store, "epoch=10/_COMMIT", "a").await }
            });
            let backend = leader(Arc::new(faults.clone()), "a", 0);
            assert_eq!(backend.latest_committed_epoch().await.unwrap(), Some(10));
            assert_eq!(faults.pending(), 0);
        }
    }

    async fn an_answer_that_stays_below_the_floor_is_an_error_and_never_an_old_epoch(bucket: &Bucket) {
        let backend = leader(bucket.store(), "a", 0);
        seal(&backend, 5).await;
        bucket.publish_floor(9).await;
        let error = backend.latest_committed_epoch().await.unwrap_err();
        assert!(matches!(error, StateBackendError::RestoreIncomplete { epoch, vnode: None } if epoch.get() == 9), "{error}");
    }
}
