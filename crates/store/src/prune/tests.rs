//! The prune against stores in memory, on disk and on the wire: in which order it writes, what it leaves alone, and what it says of it.

mod approval;
mod failures;
mod fence_off;
mod gate;
mod groups;
mod journal;
mod limits;
mod order;
mod ownership;
mod pace;
mod races;
mod report;
mod stops;
mod wire;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use epochwarden_core::retention::Retention;
use epochwarden_core::{Epoch, ShownEpoch};
use epochwarden_testkit::fault::FaultStore;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::time::Instant;

use self::journal::Journal;
use super::*;

const VNODES: u32 = 2;
/// Of a sealed epoch: its partials and its seal.
const OBJECTS: u64 = 3;
const FENCE: &str = "_epochwarden/fence/00000000000000000001";

#[derive(Debug)]
struct LongAgo;

impl Clock for LongAgo {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
}

/// A root in memory, all of whose requests are written down and can be made to fail.
struct Bench {
    faults: FaultStore,
    journal: Journal,
    rules: PruneRules,
    identity: Identity,
    cancel: CancellationToken,
}

impl Bench {
    /// Without epochs. The fence stands, and the newest epoch is kept.
    async fn new() -> Self {
        let bench = Self::without_fence();
        bench.put(FENCE).await;
        bench
    }

    fn without_fence() -> Self {
        let journal = Journal::default();
        Self {
            faults: FaultStore::new(Arc::new(journal.clone())),
            journal,
            rules: PruneRules {
                plan: Rules { vnodes: VNODES, retention: keep_last(1), min_age: Duration::ZERO },
                dry_run: false,
                max_objects: 1_000_000,
                max_keys_per_second: None,
                deadline: Duration::from_mins(30),
            },
            identity: Identity {
                policy: None,
                ignore_owner: false,
                publisher: "test".into(),
                seen: Reading::default(),
            },
            cancel: CancellationToken::new(),
        }
    }

    /// With these epochs sealed, in their order.
    async fn sealed(epochs: RangeInclusive<u64>) -> Self {
        let bench = Self::new().await;
        bench.seal(epochs).await;
        bench
    }

    fn root(&self) -> Root {
        Root::from_store(Arc::new(self.faults.clone()))
    }

    /// Below the hooks and the journal, a second later than the one before.
    async fn put(&self, key: &str) {
        self.journal.put_unnoticed(key, "state").await;
    }

    async fn seal(&self, epochs: impl IntoIterator<Item = u64>) {
        for epoch in epochs {
            for vnode in 0..self.rules.plan.vnodes {
                self.put(&format!("epoch={epoch}/vnode={vnode}/partial.bin")).await;
            }
            self.put(&format!("epoch={epoch}/_COMMIT")).await;
        }
    }

    async fn prune(&self) -> Result<PruneReport, PruneError> {
        self.prune_by(Approval::Automatic, &Always).await
    }

    async fn prune_by(&self, approval: Approval, permission: &dyn Permission) -> Result<PruneReport, PruneError> {
        self.prune_telling(approval, permission, &|_| ()).await
    }

    async fn prune_telling(
        &self,
        approval: Approval,
        permission: &dyn Permission,
        progress: OnProgress<'_>,
    ) -> Result<PruneReport, PruneError> {
        let clock: Arc<dyn Clock> = Arc::new(LongAgo);
        run(&self.root(), &self.rules, &self.identity, approval, permission, &clock, &self.cancel, progress).await
    }

    async fn plan(&self) -> Plan {
        let subject = Subject { root: "store:".into(), policy_uid: String::new() };
        plan(&self.root(), &self.rules.plan, &subject, &|_| ()).await.unwrap()
    }

    /// All keys that begin with `prefix`, as they are in the store.
    async fn keys(&self, prefix: &str) -> Vec<String> {
        let mut keys: Vec<String> =
            self.journal.inner().list(None).map_ok(|object| object.location.to_string()).try_collect().await.unwrap();
        keys.retain(|key| key.starts_with(prefix));
        keys.sort();
        keys
    }

    /// The epochs of which anything is left.
    async fn epochs(&self) -> Vec<u64> {
        let number = |key: &String| key.strip_prefix("epoch=")?.split('/').next()?.parse().ok();
        self.keys("epoch=").await.iter().filter_map(number).collect::<BTreeSet<u64>>().into_iter().collect()
    }

    async fn floors(&self) -> Vec<String> {
        self.keys("_epochwarden/floor/").await
    }

    /// Fails unless nothing was written since the journal was begun.
    fn wrote_nothing(&self) {
        let written = self.journal.all_of(&["PUT", "DELETE"]);
        assert!(written.is_empty(), "{written:?}");
    }
}

fn keep_last(count: u32) -> Retention {
    Retention { keep_last: Some(count), ..Retention::default() }
}

fn floor(epoch: u64) -> String {
    format!("_epochwarden/floor/{epoch:020}")
}

/// Epochs and objects: those that are gone, and those that are left, failed and held ones included.
fn account(report: &PruneReport) -> ((u64, u64), (u64, u64)) {
    ((report.epochs, report.objects), (report.remainder.epochs, report.remainder.objects))
}

/// A permission that does something of the test's.
struct Asking<F>(F);

#[async_trait]
impl<F> Permission for Asking<F>
where
    F: Fn() -> BoxFuture<'static, Result<(), Stop>> + Send + Sync,
{
    async fn ask(&self) -> Result<(), Stop> {
        (self.0)().await
    }
}

/// Permits until `key` is gone.
fn until_gone(journal: &Journal, key: &str) -> impl Permission {
    let (journal, key) = (journal.clone(), Path::from(key));
    Asking(move || -> BoxFuture<'static, Result<(), Stop>> {
        let (journal, key) = (journal.clone(), key.clone());
        Box::pin(async move {
            match journal.inner().head(&key).await {
                Ok(_) => Ok(()),
                Err(_) => Err(Stop::NotPermitted { message: "suspended".into() }),
            }
        })
    })
}
