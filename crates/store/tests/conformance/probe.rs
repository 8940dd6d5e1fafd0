//! What a probe finds on stores that do what they should.

use std::collections::BTreeSet;

use epochwarden_store::probe::{self, ProbeReport, ProblemKind};
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

/// What the probe found, each said aloud: a store that cannot do something is none that was not asked.
fn kinds(report: &ProbeReport) -> Vec<ProblemKind> {
    for problem in &report.problems {
        println!("this store: {problem}");
    }
    report.problems.iter().map(|problem| problem.kind).collect()
}

on_every_store! {
    async fn a_good_store_has_no_problem_and_is_left_as_it_was(bucket: &Bucket) {
        bucket.publish_fence(7, "a").await;
        bucket.publish_floor(3).await;
        for key in ["epoch=3/vnode=0/partial.bin", "epoch=3/_COMMIT", "notes"] {
            bucket.put(key, "x").await;
        }
        let before = bucket.keys().await;
        let (has_pages, deletes_many) = (bucket.root.paginated().is_some(), bucket.root.bulk_delete_limit() > 1);
        let delimiter_index = bucket.flaw != Some(ProblemKind::NoDelimiter);
        for _ in 0..2 {
            let report = probe(bucket).await;
            assert_eq!(kinds(&report), Vec::from_iter(bucket.flaw));
            assert_eq!(report.unsafe_because(), None);
            assert_eq!(report.capabilities, Capabilities { bulk_delete: deletes_many, delimiter_index, ..GOOD });
            let delete = if deletes_many { 1 } else { 11 };
            let list = match (has_pages, delimiter_index && bucket.root.provider() != "az") {
                (true, true) => 13,
                (true, false) => {
                    println!("not counted here: LISTs, of a store whose pages are short, or have no end");
                    report.requests.list
                }
                (false, _) => 5,
            };
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
        for report in [one, two] {
            assert_eq!(kinds(&report), Vec::from_iter(bucket.flaw), "{:?}", report.problems);
        }
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
        // The client of Azure knows no request for one key: it asks for all by one whatever is known of the store.
        let delete = if root.provider() == "az" { 1 } else { 3 };
        if delete == 1 {
            println!("not done here: deleting keys one by one");
        }
        assert_eq!(root.requests() - before, RequestCounts { delete, ..RequestCounts::default() });
        assert_eq!(bucket.keys().await, [""; 0]);
    }
}
