//! What a probe finds on stores that do what they should.

use std::collections::BTreeSet;

use epochwarden_store::probe::{self, ProbeReport};
use epochwarden_store::{Capabilities, RequestCounts, SystemClock, list_epochs};
use futures::{StreamExt, stream};
use object_store::path::Path;
use tokio_util::sync::CancellationToken;

use crate::bucket::Bucket;

/// What every good store does, whatever its requests take.
const GOOD: Capabilities = Capabilities {
    conditional_create: true,
    consistent_list: true,
    bulk_delete: false,
    delimiter_index: true,
    versioned: false,
    object_lock: false,
};

async fn probe(bucket: &Bucket) -> ProbeReport {
    probe::run(&bucket.root, probe::DEADLINE, &SystemClock, &CancellationToken::new()).await.unwrap()
}

on_every_store! {
    async fn a_good_store_has_no_problem_and_is_left_as_it_was(bucket: &Bucket) {
        bucket.publish_fence(7, "a").await;
        bucket.publish_floor(3).await;
        for key in ["epoch=3/vnode=0/partial.bin", "epoch=3/_COMMIT", "notes"] {
            bucket.put(key, "x").await;
        }
        let before = bucket.keys().await;
        let is_s3 = bucket.root.provider() == "s3";
        for _ in 0..2 {
            let report = probe(bucket).await;
            assert_eq!(report.problems, []);
            assert_eq!(report.unsafe_because(), None);
            assert_eq!(report.capabilities, Capabilities { bulk_delete: is_s3, ..GOOD });
            let (list, delete) = if is_s3 { (13, 1) } else { (5, 11) };
            assert_eq!(report.requests, RequestCounts { list, get: 1, head: 0, put: 26, delete });
            assert!(report.started_at <= report.finished_at);
            assert_eq!(bucket.keys().await, before);
        }
    }

    async fn probes_at_once_neither_disturb_each_other_nor_a_pipeline(bucket: &Bucket) {
        let backend = crate::bucket::fenced(bucket, "a", 1).await;
        let pipeline = async {
            for epoch in 1..=5 {
                crate::bucket::seal(&backend, epoch).await;
            }
        };
        let (one, two, ()) = tokio::join!(probe(bucket), probe(bucket), pipeline);
        assert_eq!((one.problems, two.problems), (vec![], vec![]));
        assert_eq!(bucket.epochs().await, BTreeSet::from([1, 2, 3, 4, 5]));
        let others = bucket.keys().await.into_iter().filter(|key| key.contains("/probe/"));
        assert_eq!(others.collect::<Vec<_>>(), [""; 0]);
    }

    async fn a_root_is_used_as_its_capabilities_allow(bucket: &Bucket) {
        let limited = Capabilities { bulk_delete: false, delimiter_index: false, ..GOOD };
        let root = bucket.root.clone().with_capabilities(limited);
        assert_eq!(root.capabilities(), Some(limited));
        let keys = ["epoch=1/_COMMIT", "epoch=2/vnode=0/partial.bin", "epoch=2/vnode=1/partial.bin"];
        for key in keys {
            bucket.put(key, "x").await;
        }
        let epochs = list_epochs(&root).await.unwrap();
        assert_eq!(epochs.iter().map(|epoch| epoch.get()).collect::<Vec<_>>(), [1, 2]);
        let before = root.requests();
        let paths: Vec<_> = keys.iter().map(|key| Ok(Path::from(*key))).collect();
        let results: Vec<_> = root.store().delete_stream(stream::iter(paths).boxed()).collect().await;
        assert!(results.len() == 3 && results.iter().all(Result::is_ok), "{results:?}");
        assert_eq!(root.requests() - before, RequestCounts { delete: 3, ..RequestCounts::default() });
        assert_eq!(bucket.keys().await, [""; 0]);
    }
}
