//! A bucket in memory that a pipeline has written to, and prunes of it.

use std::collections::BTreeSet;
use std::sync::Mutex;

use epochwarden_core::Epoch;
use epochwarden_core::key::{self, REGISTERS};
use epochwarden_core::register::RegisterKind;
use epochwarden_core::retention::Retention;
use epochwarden_testkit::fault::{FaultStore, Operation};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use super::*;
use crate::clock::SystemClock;

mod deleting;
mod locally;
mod order;
mod refusals;
mod stopping;
mod whole_requests;

const VNODES: u32 = 2;

/// A store with epochs, and the settings of a prune that keeps the newest of them.
struct Bucket {
    faults: FaultStore,
    rules: PruneRules,
    identity: Identity,
    approval: Approval,
    cancel: CancellationToken,
}

impl Bucket {
    /// Sealed epochs of [`VNODES`] vnodes; each has three objects.
    async fn with(sealed: impl IntoIterator<Item = u64>) -> Self {
        let bucket = Self {
            faults: FaultStore::new(Arc::new(InMemory::new())),
            rules: rules(1),
            identity: anybody(),
            approval: Approval::Automatic,
            cancel: CancellationToken::new(),
        };
        for epoch in sealed {
            bucket.seal(epoch).await;
        }
        bucket
    }

    fn memory(&self) -> &Arc<dyn ObjectStore> {
        self.faults.inner()
    }

    async fn put(&self, key: &str) {
        put(self.memory(), key).await;
    }

    async fn put_owner(&self, number: u64, owner: &OwnerRecord) {
        let body = serde_json::to_vec(owner).unwrap();
        self.memory().put(&Path::from(key::register(RegisterKind::Owner, number)), body.into()).await.unwrap();
    }

    /// Switches the fence on: then the floor binds the pipeline, and one listing is enough.
    async fn fence(&self) {
        self.put(&key::register(RegisterKind::Fence, 1)).await;
    }

    async fn write(&self, epoch: u64) {
        for vnode in 0..VNODES {
            self.put(&format!("epoch={epoch}/vnode={vnode}/partial.bin")).await;
        }
    }

    async fn seal(&self, epoch: u64) {
        self.write(epoch).await;
        self.put(&format!("epoch={epoch}/_COMMIT")).await;
    }

    fn root(&self) -> Root {
        Root::from_store(Arc::new(self.faults.clone()))
    }

    async fn keys(&self) -> BTreeSet<String> {
        keys(self.memory()).await
    }

    /// The epochs of which anything is left.
    async fn epochs(&self) -> BTreeSet<u64> {
        let keys = self.keys().await;
        let number = |key: &String| key.strip_prefix("epoch=")?.split('/').next()?.parse().ok();
        keys.iter().filter_map(number).collect()
    }

    async fn registers(&self) -> BTreeSet<String> {
        self.keys().await.into_iter().filter(|key| key.starts_with(REGISTERS)).collect()
    }

    async fn prune(&mut self) -> Result<PruneReport, PruneError> {
        self.prune_asking(&Always).await
    }

    async fn prune_asking(&mut self, permission: &dyn Permission) -> Result<PruneReport, PruneError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let approval = std::mem::take(&mut self.approval);
        let (rules, identity) = (&self.rules, &self.identity);
        run(&self.root(), rules, identity, approval, permission, &clock, &self.cancel, &|_| ()).await
    }

    async fn plan(&self) -> Plan {
        let subject = Subject { root: self.root().url().to_owned(), policy_uid: String::new() };
        plan(&self.root(), &self.rules.plan, &subject, &|_| ()).await.unwrap()
    }
}

async fn put(store: &Arc<dyn ObjectStore>, key: &str) {
    store.put(&Path::from(key), PutPayload::from_static(b"{}")).await.unwrap();
}

async fn keys(store: &Arc<dyn ObjectStore>) -> BTreeSet<String> {
    store.list(None).map_ok(|object| object.location.to_string()).try_collect().await.unwrap()
}

/// The objects of an epoch as [`Bucket::seal`] makes it.
fn whole(epoch: u64) -> BTreeSet<String> {
    let names = ["vnode=0/partial.bin", "vnode=1/partial.bin", "_COMMIT"];
    names.iter().map(|name| format!("epoch={epoch}/{name}")).collect()
}

fn rules(keep_last: u32) -> PruneRules {
    PruneRules {
        plan: Rules {
            vnodes: VNODES,
            retention: Retention { keep_last: Some(keep_last), ..Retention::default() },
            min_age: Duration::ZERO,
        },
        dry_run: false,
        max_objects: 1_000_000,
        deadline: Duration::from_mins(30),
    }
}

fn anybody() -> Identity {
    Identity { policy: None, ignore_owner: false, publisher: "test".into(), seen: Reading::default() }
}

fn policy(namespace: &str, uid: &str) -> OwnerRecord {
    OwnerRecord {
        cluster: "c1".into(),
        namespace: namespace.into(),
        name: "orders".into(),
        uid: uid.into(),
        take_over: None,
    }
}

/// What a [`Run`] needs that only deletes.
struct Parts {
    rules: PruneRules,
    identity: Identity,
    clock: Arc<dyn Clock>,
    cancel: CancellationToken,
}

impl Default for Parts {
    fn default() -> Self {
        Self { rules: rules(1), identity: anybody(), clock: Arc::new(SystemClock), cancel: CancellationToken::new() }
    }
}

impl Parts {
    fn run<'a>(&'a self, root: &'a Root) -> Run<'a> {
        Run {
            root,
            rules: &self.rules,
            identity: &self.identity,
            permission: &Always,
            clock: &self.clock,
            progress: &|_| (),
            registers: Registers::new(root.clone(), "test"),
            subject: Subject { root: String::new(), policy_uid: String::new() },
            until: Until::new(&self.cancel, self.rules.deadline),
        }
    }
}

/// Says yes so many times.
struct Yes(Mutex<usize>);

#[async_trait]
impl Permission for Yes {
    async fn ask(&self) -> Result<(), Stop> {
        let mut left = self.0.lock().unwrap();
        *left = left.checked_sub(1).ok_or_else(|| Stop::NotPermitted { message: "suspended".into() })?;
        Ok(())
    }
}
