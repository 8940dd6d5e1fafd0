//! A crowd of policies, and what an operator is made of while they are there and when they are gone.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use epochwarden::api::StateEpochPolicy;
use epochwarden_testkit::apiserver::Cluster;
use epochwarden_testkit::wait::until;
use futures::{StreamExt, TryStreamExt, stream};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use super::SOON;
use super::bucket::Bucket;
use super::lease::Leader;
use super::operator::Operator;
use super::secret;

/// How many policies are created at the same time.
const AT_ONCE: usize = 16;

/// One policy in so many has its root on the S3 server.
const ON_S3: usize = 10;

/// The policy that is alone with the operator while its tasks are counted.
const LAST: &str = "the-last";

/// Many policies of one namespace, each on a root of its own, all with a fence from the same Lease.
pub(crate) struct Crowd {
    cluster: &'static Cluster,
    pub(crate) namespace: String,
    api: Api<StateEpochPolicy>,
    folder: TempDir,
    bucket: Bucket,
}

impl Crowd {
    pub(crate) async fn gather(cluster: &'static Cluster, prefix: &str) -> Result<Self> {
        let namespace = cluster.namespace(prefix).await?;
        let bucket = Bucket::s3(&namespace).await?;
        secret(cluster, &namespace, "state", &bucket).await?;
        let client = cluster.client().await?;
        Leader::new(client.clone(), &namespace, "leader").lead("pod-a", 0).await?;
        let api = Api::namespaced(client, &namespace);
        Ok(Self { cluster, namespace, api, folder: tempfile::tempdir()?, bucket })
    }

    /// The operator of this crowd.
    pub(crate) async fn operator(&self) -> Result<Operator> {
        let root = self.folder.path().display().to_string();
        let environment = [("RUST_LOG", "warn,epochwarden=debug")];
        Operator::start_with(self.cluster, &self.namespace, &["--allow-file-root", &root], &environment).await
    }

    fn policy(&self, name: &str, on_s3: bool) -> Result<StateEpochPolicy> {
        let store = if on_s3 {
            let mut store = self.bucket.store(Some("state"));
            store["url"] = json!(format!("{}/{name}", self.bucket.url));
            store
        } else {
            let folder = self.folder.path().join(name);
            std::fs::create_dir_all(&folder)?;
            json!({ "url": format!("file://{}", folder.display()) })
        };
        let policy = json!({
            "apiVersion": "epochwarden.io/v1alpha1",
            "kind": "StateEpochPolicy",
            "metadata": { "name": name, "namespace": self.namespace },
            "spec": {
                "store": store,
                "vnodes": 4,
                "fence": { "leaseRef": { "name": "leader" } },
                "retention": { "keepLast": 3 },
                "prune": { "schedule": "@daily" },
                "audit": { "schedule": "@daily" },
            },
        });
        Ok(serde_json::from_value(policy)?)
    }

    /// Creates so many at once, and gives the time until each is Ready with its fence published.
    pub(crate) async fn come(&self, count: usize, deadline: Duration) -> Result<Duration> {
        let began = Instant::now();
        stream::iter(0..count)
            .map(|number| async move {
                let policy = self.policy(&format!("p-{number}"), number % ON_S3 == 0)?;
                self.api.create(&PostParams::default(), &policy).await?;
                anyhow::Ok(())
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        let mut left = Vec::new();
        let ready = until("every policy to be Ready", deadline, async || {
            let all = self.api.list(&ListParams::default()).await.ok()?.items;
            left = all.iter().filter(|policy| !at_work(policy)).map(|policy| policy.metadata.name.clone()).collect();
            (all.len() == count && left.is_empty()).then_some(())
        });
        ready.await.with_context(|| format!("{} of {count} are not, among them {:?}", left.len(), left.first()))?;
        Ok(began.elapsed())
    }

    /// Deletes all of them, and gives the time until the operator shows nothing of them.
    pub(crate) async fn leave(&self, operator: &Operator, deadline: Duration) -> Result<Duration> {
        let began = Instant::now();
        // The server may close the connection that was idle for so long in the moment in which it is used again.
        let all = (DeleteParams::default(), ListParams::default());
        until("the policies to be deleted", deadline, async || self.api.delete_collection(&all.0, &all.1).await.ok())
            .await?;
        until("every policy to be gone", deadline, async || {
            let all = self.api.list(&ListParams::default()).await.ok()?.items;
            let (_, metrics) = operator.get("/metrics").await.ok()?;
            (all.is_empty() && !metrics.contains("policy=\"p-")).then_some(())
        })
        .await?;
        Ok(began.elapsed())
    }

    /// What the operator is made of when no policy is there. A last one comes and goes for it: as its work ends, the operator says how
    /// many tasks are alive, and this one is the only policy that any of them can belong to.
    pub(crate) async fn census(&self, operator: &Operator) -> Result<Census> {
        self.api.create(&PostParams::default(), &self.policy(LAST, false)?).await?;
        until("the last policy to be Ready", SOON, async || at_work(&self.api.get(LAST).await.ok()?).then_some(()))
            .await?;
        let uid = self.api.get(LAST).await?.metadata.uid.context("a policy without a uid")?;
        self.api.delete(LAST, &DeleteParams::default()).await?;
        let tasks = until("the operator's word on its tasks", SOON, async || {
            let log = operator.log();
            let line = log.lines().find(|line| line.contains("has ended") && line.contains(&uid))?;
            line.split_once("tasks=")?.1.split_whitespace().next()?.parse().ok()
        })
        .await?;
        Census::of(operator, Some(tasks)).await
    }
}

/// Whether a policy is Ready, and its fence stands.
fn at_work(policy: &StateEpochPolicy) -> bool {
    let status = serde_json::to_value(&policy.status).unwrap_or(Value::Null);
    let is_true = |type_: &str| {
        let conditions = status["conditions"].as_array();
        conditions.into_iter().flatten().any(|condition| condition["type"] == type_ && condition["status"] == "True")
    };
    is_true("Ready") && is_true("FenceCurrent")
}

/// What an operator is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Census {
    /// Where they were counted.
    pub(crate) tasks: Option<u64>,
    pub(crate) threads: u64,
    pub(crate) files: u64,
    pub(crate) sockets: u64,
    pub(crate) series: usize,
    /// Resident memory, in KiB.
    pub(crate) memory: u64,
}

impl Census {
    /// At this moment, whatever is there. Tasks are not known then.
    pub(crate) async fn of_now(operator: &Operator) -> Result<Self> {
        Self::of(operator, None).await
    }

    async fn of(operator: &Operator, tasks: Option<u64>) -> Result<Self> {
        let process = PathBuf::from(format!("/proc/{}", operator.process.id()));
        let status = std::fs::read_to_string(process.join("status"))?;
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
            anyhow::Ok(value.with_context(|| format!("no {name} in {status}"))?.parse()?)
        };
        let open: Vec<_> = std::fs::read_dir(process.join("fd"))?
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .collect();
        let sockets = open.iter().filter(|target| target.to_string_lossy().starts_with("socket:")).count();
        let (status, metrics) = operator.get("/metrics").await?;
        ensure!(status == 200, "{metrics}");
        Ok(Self {
            tasks,
            threads: field("Threads:")?,
            files: u64::try_from(open.len() - sockets)?,
            sockets: u64::try_from(sockets)?,
            series: metrics.lines().filter(|line| !line.starts_with('#')).count(),
            memory: field("VmRSS:")?,
        })
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tasks, threads, files, sockets, series, memory } = self;
        if let Some(tasks) = tasks {
            write!(f, "{tasks} tasks, ")?;
        }
        let memory = memory / 1024;
        write!(f, "{threads} threads, {files} files, {sockets} sockets, {series} series, {memory} MiB")
    }
}
