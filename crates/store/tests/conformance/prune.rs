//! A prune by plan, and the pipeline that meets it.

use std::sync::Arc;
use std::time::Duration;

use epochwarden_core::ShownEpoch;
use epochwarden_core::plan::Rules;
use epochwarden_core::register::Reading;
use epochwarden_core::retention::Retention;
use epochwarden_store::prune::{Always, Approval, Identity, PruneOutcome, PruneReport, PruneRules, run};
use epochwarden_store::{Clock, StateBackend, StateBackendError, SystemClock};
use tokio_util::sync::CancellationToken;

use crate::bucket::{ALL, Bucket, VNODES, classic, fenced, seal, write};
use crate::owner::policy;

pub(crate) async fn prune(bucket: &Bucket, keep_last: u32) -> PruneReport {
    let rules = PruneRules {
        plan: Rules {
            vnodes: VNODES,
            retention: Retention { keep_last: Some(keep_last), ..Retention::default() },
            min_age: Duration::ZERO,
        },
        dry_run: false,
        max_objects: 1_000_000,
        max_keys_per_second: None,
        deadline: Duration::from_mins(5),
    };
    let owner = policy("streaming", "u1");
    let identity =
        Identity { policy: Some(owner), ignore_owner: false, publisher: "test".into(), seen: Reading::default() };
    let (clock, cancel): (Arc<dyn Clock>, _) = (Arc::new(SystemClock), CancellationToken::new());
    run(&bucket.root, &rules, &identity, Approval::Automatic, &Always, &clock, &cancel, &|_| ()).await.unwrap()
}

on_every_store! {
    async fn a_prune_deletes_what_retention_does_not_keep_and_nothing_else(bucket: &Bucket) {
        let backend = classic(bucket.store(), "a");
        for number in 0..70 {
            bucket.put(&format!("epoch=9/app/{number}"), "x").await;
        }
        bucket.put("epoch=8/app", "x").await;
        bucket.put("epoch=08/app", "x").await;
        for epoch in 1..=20 {
            if epoch == 5 { write(&backend, epoch).await } else { seal(&backend, epoch).await }
        }
        let report = prune(bucket, 3).await;
        assert_eq!(report.outcome, PruneOutcome::Succeeded, "{report:?}");
        assert_eq!((report.epochs, report.objects, report.failed), (17, 17 * 5 - 1 + 71, 0));
        let kept = (18..=20_u64).flat_map(|epoch| {
            ALL.iter().map(move |vnode| format!("epoch={epoch}/vnode={vnode}/partial.bin")).chain([format!("epoch={epoch}/_COMMIT")])
        });
        let others = ["_epochwarden/floor/00000000000000000018", "_epochwarden/owner/00000000000000000001", "epoch=08/app"];
        let mut expected: Vec<String> = kept.chain(others.map(str::to_owned)).collect();
        expected.sort();
        assert_eq!(bucket.keys().await, expected);
        // The seals, with that of the unsealed epoch; what is known of the rest; the epoch that had to be listed.
        let requests = if bucket.root.bulk_delete_limit() > 1 { 3 } else { report.objects + 1 };
        assert_eq!(report.requests.delete, requests);

        let again = prune(bucket, 3).await;
        assert_eq!((again.outcome, again.objects, again.requests.delete), (PruneOutcome::Succeeded, 0, 0));
    }

    async fn a_pruned_epoch_cannot_be_sealed_any_more(bucket: &Bucket) {
        let leader = fenced(bucket, "pod-1", 4).await;
        seal(&leader, 2).await;
        write(&leader, 3).await;
        seal(&leader, 4).await;
        write(&leader, 5).await;
        assert_eq!(prune(bucket, 1).await.floor.map(ShownEpoch::get), Some(4));
        write(&leader, 3).await;
        let refused = leader.epoch_complete(3, &ALL).await;
        assert!(matches!(refused, Err(StateBackendError::EpochPruned { epoch, floor }) if (epoch.get(), floor.get()) == (3, 4)), "{refused:?}");
        assert!(leader.epoch_complete(5, &ALL).await.unwrap());
        assert_eq!(leader.latest_committed_epoch().await.unwrap(), Some(5));
    }
}
