//! Roots whose index has more than one page.

use std::sync::Arc;
use std::time::Duration;

use epochwarden_core::Epoch;
use epochwarden_core::finding::Verdict;
use epochwarden_core::plan::Rules;
use epochwarden_core::retention::Retention;
use epochwarden_store::audit::{self, AuditRules};
use epochwarden_store::prune::PruneOutcome;
use epochwarden_store::{StateBackend, SystemClock, list_epochs, list_index, probe};
use futures::{StreamExt, stream};
use object_store::ObjectStore;
use tokio_util::sync::CancellationToken;

use crate::bucket::{ALL, Bucket, VNODES, classic, put};

/// Two rows of each in a listing by the delimiter `/vnode=`, five without: more than a page of 1,000 either way.
const EPOCHS: u64 = 610;
/// Azurite takes minutes for so many, and a page of Azure's has 5,000 rows.
const EPOCHS_ON_AZURITE: u64 = 40;

async fn fill(store: &Arc<dyn ObjectStore>, epochs: u64) {
    let partials = (1..=epochs).flat_map(|epoch| ALL.iter().map(move |vnode| partial(epoch, *vnode)));
    let partials = stream::iter(partials);
    partials.for_each_concurrent(32, |key| async move { put(store, &key, "state").await }).await;
    // Afterwards: a partial that is younger than its seal is a finding.
    let seal = |epoch| format!("epoch={epoch}/_COMMIT");
    let seals = stream::iter((1..epochs).map(seal));
    seals.for_each_concurrent(32, |key| async move { put(store, &key, "a").await }).await;
    // Last, whichever of the others took longest: what is younger than the newest seal looks like numbering that began again.
    put(store, &seal(epochs), "a").await;
}

fn partial(epoch: u64, vnode: u32) -> String {
    format!("epoch={epoch}/vnode={vnode}/partial.bin")
}

/// The index, the newest seal, an audit and a prune are right before the probe and after it; after it no listing goes in circles.
async fn is_right_over_many_pages(bucket: &Bucket, epochs: u64) {
    fill(&bucket.store(), epochs).await;
    let all: Vec<u64> = (1..=epochs).collect();
    let report = probe::run(&bucket.root, probe::DEADLINE, &SystemClock, &CancellationToken::new()).await.unwrap();
    assert_eq!(report.capabilities.delimiter_index, bucket.flaw.is_none());
    let rows_of_an_epoch = if report.capabilities.delimiter_index { 2 } else { u64::from(VNODES) + 1 };
    let rows_of_a_page = if bucket.root.provider() == "az" { 5000 } else { 1000 };
    let known = bucket.root.clone().with_capabilities(report.capabilities);
    for root in [&bucket.root, &known] {
        let before = root.requests();
        let index = list_index(root).await.unwrap();
        let lists = (root.requests() - before).list;
        assert_eq!(index.epochs().map(Epoch::get).collect::<Vec<_>>(), all);
        assert_eq!((index.sealed(), index.newest_sealed().unwrap().0.get()), (all.len(), epochs));
        if root.capabilities().is_some() {
            assert_eq!(lists, (epochs * rows_of_an_epoch).div_ceil(rows_of_a_page), "each page once");
        }
        let listed = list_epochs(root).await.unwrap();
        assert_eq!(listed.into_iter().map(Epoch::get).collect::<Vec<_>>(), all);
    }
    let bucket = bucket.by(known);
    let latest = classic(bucket.store(), "a").latest_committed_epoch().await.unwrap();
    assert_eq!(latest, Some(epochs));
    let rules = AuditRules {
        plan: Rules { vnodes: VNODES, retention: Retention::default(), min_age: Duration::ZERO },
        stalled_after: Duration::from_hours(24 * 365 * 100),
        deadline: None,
    };
    let audited = audit::run(&bucket.root, &rules, &SystemClock, &CancellationToken::new(), &|_| ()).await.unwrap();
    assert_ne!(audited.audit.verdict, Verdict::Critical, "{audited:?}");
    let pruned = crate::prune::prune(&bucket, 5).await;
    assert_eq!((pruned.outcome, pruned.epochs), (PruneOutcome::Succeeded, epochs - 5));
    assert_eq!(bucket.epochs().await, (epochs - 4..=epochs).collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_of_many_pages_is_seen_whole_on_s3_in_memory() {
    is_right_over_many_pages(&Bucket::on_s3_in_memory(), EPOCHS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_of_many_pages_is_seen_whole_on_gcs_as_documented() {
    is_right_over_many_pages(&Bucket::on_gcs_as_documented(), EPOCHS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make conformance"]
async fn a_root_of_many_pages_is_seen_whole_and_its_endless_page_avoided_on_minio() {
    is_right_over_many_pages(&Bucket::on_minio().await, EPOCHS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make conformance"]
async fn a_root_is_seen_whole_by_folders_with_short_names_on_azurite() {
    is_right_over_many_pages(&Bucket::on_azurite().await, EPOCHS_ON_AZURITE).await;
}
