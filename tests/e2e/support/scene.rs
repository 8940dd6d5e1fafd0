//! A policy at work while a pipeline seals, and what must be true of it whatever happens to the operators.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use epochwarden_testkit::apiserver::Cluster;
use epochwarden_testkit::wait::until;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::SOON;
use super::bucket::Bucket;
use super::lease::Leader;
use super::operator::Operator;
use super::pipeline::Pipeline;
use super::policy::Policy;
use super::secret;

const VNODES: u32 = 2;

/// What retention keeps beside the pinned epoch.
const KEEP_LAST: usize = 5;

const PINNED: u64 = 3;

/// So slow that there is time to die in the middle of a prune.
const KEYS_PER_SECOND: u32 = 150;

/// A policy, its root and its pipeline.
pub(crate) struct Scene {
    pub(crate) policy: Arc<Policy<'static>>,
    pub(crate) bucket: Arc<Bucket>,
    pub(crate) pipeline: Pipeline,
    cluster: &'static Cluster,
    flags: Vec<String>,
    asked: String,
    asks: u32,
}

/// What a pipeline and its operators leave behind when all is done.
pub(crate) struct Curtain {
    acknowledged: usize,
    version: u64,
    floor: u64,
}

impl fmt::Display for Curtain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, version, floor } = self;
        write!(f, "{acknowledged} epochs were acknowledged, the fence is {version}, the floor {floor}")
    }
}

impl Scene {
    /// On a folder.
    pub(crate) async fn on_folder(cluster: &'static Cluster, prefix: &str) -> Result<Self> {
        let namespace = cluster.namespace(prefix).await?;
        let bucket = Bucket::folder()?;
        let flags = vec!["--allow-file-root".into(), bucket.path()?.display().to_string()];
        Self::begin(cluster, &namespace, bucket, None, flags).await
    }

    /// On a bucket of the S3 server.
    pub(crate) async fn on_s3(cluster: &'static Cluster, prefix: &str) -> Result<Self> {
        let namespace = cluster.namespace(prefix).await?;
        let bucket = Bucket::s3(&namespace).await?;
        secret(cluster, &namespace, "orders-state", &bucket).await?;
        Self::begin(cluster, &namespace, bucket, Some("orders-state"), Vec::new()).await
    }

    async fn begin(
        cluster: &'static Cluster,
        namespace: &str,
        bucket: Bucket,
        secret: Option<&str>,
        flags: Vec<String>,
    ) -> Result<Self> {
        let leader = Leader::new(cluster.client().await?, namespace, "orders-leader");
        let pipeline = Pipeline::start(leader, &bucket.root, VNODES).await?;
        let spec = json!({
            "store": bucket.store(secret),
            "vnodes": VNODES,
            "fence": { "leaseRef": { "name": "orders-leader" } },
            "retention": { "keepLast": KEEP_LAST, "pinned": [{ "epoch": PINNED.to_string() }] },
            "prune": { "minAge": "0s", "maxKeysPerSecond": KEYS_PER_SECOND },
            "audit": { "sealCheckEvery": "1s" },
        });
        let policy = Arc::new(Policy::apply(cluster, namespace, "orders", spec).await?);
        Ok(Self { policy, bucket: Arc::new(bucket), pipeline, cluster, flags, asked: String::new(), asks: 0 })
    }

    /// Starts an operator for it.
    pub(crate) async fn operator(&self) -> Result<Operator> {
        let flags: Vec<_> = self.flags.iter().map(String::as_str).collect();
        Operator::start(self.cluster, &self.policy.namespace, &flags).await
    }

    /// Starts one of several operators for it, of which one works.
    pub(crate) async fn replica(&self) -> Result<Operator> {
        let flags: Vec<_> = self.flags.iter().map(String::as_str).collect();
        Operator::replica(self.cluster, &self.policy.namespace, &flags, "epochwarden", &[]).await
    }

    /// The start of an operator, as something that goes on beside what the scene does itself.
    pub(crate) fn operator_later(&self) -> impl Future<Output = Result<Operator>> + use<> {
        let (cluster, namespace, flags) = (self.cluster, self.policy.namespace.clone(), self.flags.clone());
        async move {
            let flags: Vec<_> = flags.iter().map(String::as_str).collect();
            Operator::start(cluster, &namespace, &flags).await
        }
    }

    /// Asks for a run of this kind that was not asked for before.
    pub(crate) async fn ask(&mut self, kind: &str) -> Result<()> {
        self.asks += 1;
        self.asked = format!("{kind}@{}", self.asks);
        self.policy.ask(&self.asked).await
    }

    /// Waits until an operator has taken up what was asked for last.
    pub(crate) async fn taken_up(&self) -> Result<()> {
        let asked = &self.asked;
        let taken = |status: &Value| (status["lastRunRequest"] == asked.as_str()).then_some(());
        self.policy.wait_until(&format!("{asked} to be taken up"), taken).await
    }

    /// Another leader, a prune and an audit: whichever operator is there to take them up, and whenever.
    pub(crate) async fn act(&mut self) -> Result<()> {
        self.pipeline.fail_over().await?;
        for kind in ["prune", "audit"] {
            self.ask(kind).await?;
            self.taken_up().await?;
        }
        Ok(())
    }

    /// Waits until everything has come to its end: the fence stands at the Lease's version, and the last runs succeeded.
    pub(crate) async fn settled(&mut self) -> Result<()> {
        let (version, asked) = (self.pipeline.version(), &self.asked);
        self.policy
            .wait_until("the scene to settle", |status| {
                let reason = |type_: &str| {
                    let conditions = status["conditions"].as_array()?;
                    conditions.iter().find(|condition| condition["type"] == type_)?["reason"].as_str()
                };
                let settled = status["lastRunRequest"] == asked.as_str()
                    && status["fence"]["version"] == version
                    && status["fence"]["holder"] == format!("pod-{}", version - 1)
                    && reason("Ready") == Some("Reachable")
                    && reason("FenceCurrent") == Some("Published")
                    && reason("PruneHealthy") == Some("Succeeded")
                    && matches!(reason("AuditClean"), Some("Clean" | "Warnings"))
                    && status["prune"]["phase"] == "Succeeded"
                    && status["audit"]["phase"] == "Succeeded"
                    && status["prune"]["failed"] == 0
                    && status["prune"]["progress"].is_null();
                settled.then_some(())
            })
            .await?;
        let fence = self.bucket.fence().await?;
        ensure!(fence == version, "the fence in the bucket stands at {fence}, the Lease gives {version}");
        self.pipeline.check().await?;
        self.nothing_is_lost().await
    }

    /// Every epoch that the pipeline was told is durable is there, but for those that a floor allows to go.
    pub(crate) async fn nothing_is_lost(&self) -> Result<()> {
        let acknowledged = self.pipeline.acknowledged();
        let inventory = epochwarden_store::list_inventory(&self.bucket.root, None).await?;
        let sealed: BTreeSet<u64> =
            inventory.epochs().filter(|(_, entry)| entry.is_sealed()).map(|(epoch, _)| epoch.get()).collect();
        // Read after the listing: what was not listed had gone below a floor that stood then.
        let floor = self.floor().await?;
        let lost: Vec<_> = acknowledged.iter().filter(|epoch| **epoch >= floor && !sealed.contains(epoch)).collect();
        ensure!(lost.is_empty(), "the epochs {lost:?} were acknowledged and are gone, above the floor {floor}");
        ensure!(
            !acknowledged.contains(&PINNED) || sealed.contains(&PINNED),
            "the pinned epoch {PINNED} was acknowledged and is gone"
        );
        let above = sealed.range(floor..).count();
        ensure!(floor == 0 || above >= KEEP_LAST, "{above} sealed epochs are left at and above the floor {floor}");
        Ok(())
    }

    pub(crate) async fn floor(&self) -> Result<u64> {
        Ok(epochwarden_store::list_registers(&self.bucket.root).await?.reading().floor.get())
    }

    /// Watches the status from now on: whatever it says has to be true of the bucket at that moment.
    pub(crate) fn watch(&self) -> Witness {
        let stop = CancellationToken::new();
        let (policy, bucket, stopped) = (Arc::clone(&self.policy), Arc::clone(&self.bucket), stop.clone());
        let task = tokio::spawn(async move {
            let mut looks = 0;
            let mut pace = tokio::time::interval(std::time::Duration::from_millis(100));
            while !stopped.is_cancelled() {
                pace.tick().await;
                // One that cannot be read says nothing untrue.
                let Ok(status) = policy.status().await else { continue };
                truthful(&status, &bucket).await.with_context(|| format!("the status said {status:#}"))?;
                looks += 1;
            }
            Ok(looks)
        });
        Witness { stop, task }
    }

    /// Stops the pipeline and makes a last prune and audit, after which exactly what retention keeps is there, and the status says
    /// exactly what went.
    pub(crate) async fn finish(mut self) -> Result<Curtain> {
        let acknowledged = self.pipeline.acknowledged();
        self.settled().await?;
        let (floor, version) = (self.floor().await?, self.pipeline.version());
        let Self { policy, bucket, pipeline, mut asks, .. } = self;
        let all = pipeline.stop().await?;
        ensure!(all.is_superset(&acknowledged));

        let before = Count::of(&bucket).await?;
        let mut expected: BTreeSet<u64> = before.sealed.iter().rev().take(KEEP_LAST).copied().collect();
        expected.extend(before.sealed.get(&PINNED));
        ensure!(
            all.last() <= before.sealed.last() && all.range(floor..).all(|epoch| before.sealed.contains(epoch)),
            "acknowledged epochs are gone: {:?} of {:?}",
            before.sealed,
            all.range(floor..)
        );
        asks += 1;
        policy.ask(&format!("prune@{asks}")).await?;
        let status = ended(&policy, "prune", asks).await?;
        let after = Count::of(&bucket).await?;
        ensure!(after.sealed == expected, "after the last prune {:?} are there, not {expected:?}", after.sealed);
        let gone = (before.epochs - after.epochs, before.objects - after.objects);
        let said = (&status["prune"]["epochs"], &status["prune"]["objects"]);
        ensure!(*said.0 == gone.0 && *said.1 == gone.1, "{gone:?} went, the status says {:#}", status["prune"]);
        let floor = epochwarden_store::list_registers(&bucket.root).await?.reading().floor.get();
        let said = status["prune"]["floor"].as_str().map(str::parse).transpose()?;
        ensure!(said == Some(floor), "the floor is {floor}: {:#}", status["prune"]);
        let latest = before.sealed.last().map(ToString::to_string);
        ensure!(status["epochs"]["latestCommitted"].as_str() == latest.as_deref(), "{:#}", status["epochs"]);

        asks += 1;
        policy.ask(&format!("audit@{asks}")).await?;
        let status = ended(&policy, "audit", asks).await?;
        ensure!(status["audit"]["verdict"] != "Critical", "{:#}", status["audit"]);
        Ok(Curtain { acknowledged: all.len(), version, floor })
    }
}

/// Waits for the end of a run that was asked for, which has to be a success.
async fn ended(policy: &Policy<'_>, kind: &str, ask: u32) -> Result<Value> {
    let asked = format!("{kind}@{ask}");
    policy
        .wait_until(&format!("the end of {asked}"), |status| {
            let over = status["lastRunRequest"] == asked.as_str() && status[kind]["phase"] == "Succeeded";
            over.then(|| status.clone())
        })
        .await
}

/// What is in a root, registers aside.
struct Count {
    sealed: BTreeSet<u64>,
    epochs: usize,
    objects: u64,
}

impl Count {
    async fn of(bucket: &Bucket) -> Result<Self> {
        let inventory = epochwarden_store::list_inventory(&bucket.root, None).await?;
        let sealed = inventory.epochs().filter(|(_, entry)| entry.is_sealed()).map(|(epoch, _)| epoch.get()).collect();
        let objects = inventory.epochs().map(|(_, entry)| entry.objects()).sum();
        Ok(Self { sealed, epochs: inventory.epochs().count(), objects })
    }
}

/// Whether a status says nothing that the bucket does not bear out. The bucket is read after it: both registers only rise.
async fn truthful(status: &Value, bucket: &Bucket) -> Result<()> {
    let registers = epochwarden_store::list_registers(&bucket.root).await?.reading();
    if let Some(fence) = status["fence"]["version"].as_u64() {
        ensure!(fence <= registers.fence.get(), "the fence stands at {}", registers.fence);
    }
    if let Some(floor) = status["prune"]["floor"].as_str() {
        ensure!(floor.parse::<u64>()? <= registers.floor.get(), "the floor is {}", registers.floor);
    }
    let prune = &status["prune"];
    if let (Some(done), Some(total)) = (prune["progress"]["done"].as_u64(), prune["progress"]["total"].as_u64()) {
        ensure!(done <= total, "more was done than there is to do");
        ensure!(prune["phase"] == "Running", "there is progress of what does not run");
    }
    Ok(())
}

/// Watches the status until it is asked what it saw.
#[must_use = "it has to be asked what it saw"]
pub(crate) struct Witness {
    stop: CancellationToken,
    task: JoinHandle<Result<u32>>,
}

impl Witness {
    /// How many looks it took. An error for the first that showed something untrue.
    pub(crate) async fn asked(self) -> Result<u32> {
        self.stop.cancel();
        let looks = self.task.await??;
        if looks == 0 {
            bail!("the status was never looked at");
        }
        Ok(looks)
    }
}

/// Waits until nothing is written to the policy any more: its resource version stands still for as long as `quiet`.
pub(crate) async fn stands_still(policy: &Policy<'_>, quiet: std::time::Duration) -> Result<()> {
    let version =
        async || policy.kubectl(&["get", "sep", &policy.name, "-o", "jsonpath={.metadata.resourceVersion}"]).await;
    let mut last = version().await?;
    let mut since = tokio::time::Instant::now();
    until("the resource version to stand still", SOON + quiet, async || {
        let now = version().await.ok()?;
        if now != last {
            last = now;
            since = tokio::time::Instant::now();
        }
        (since.elapsed() >= quiet).then_some(())
    })
    .await
}
