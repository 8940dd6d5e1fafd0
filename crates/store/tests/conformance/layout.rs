//! The marks of a layout that is newer than this one.

use epochwarden_store::{ErrorClass, check_layout};

use crate::bucket::Bucket;

on_every_store! {
    async fn a_newer_layout_at_the_top_of_a_root_is_refused_and_what_only_resembles_it_is_not(bucket: &Bucket) {
        for key in ["state-verbose.txt", "state-version", "epoch=5/state-v2/x", "other/state-v2/x", "state/v2/x"] {
            bucket.put(key, "x").await;
        }
        check_layout(&bucket.root).await.unwrap();
        let before = bucket.root.requests();
        check_layout(&bucket.root).await.unwrap();
        assert_eq!(bucket.root.requests().total() - before.total(), 1);
        bucket.put("state-v2/manifest", "x").await;
        let error = check_layout(&bucket.root).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::UnknownLayout, "{error}");
        assert!(error.to_string().contains("state-v2/"), "{error}");
        // Each root has a top of its own.
        check_layout(&bucket.root.clone().with_prefix("other").unwrap()).await.unwrap_err();
        check_layout(&bucket.root.clone().with_prefix("epoch=6").unwrap()).await.unwrap();
    }
}
