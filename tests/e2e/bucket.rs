//! Buckets that misbehave: every fault is a condition in words, nothing is deleted that should stay, and it ends when the fault does.

mod answers;
mod disk;
mod listings;
mod neighbours;
mod prunes;
mod tls;
mod writes;

use anyhow::{Result, ensure};
use epochwarden_testkit::apiserver::Cluster;
use epochwarden_testkit::proxy::Proxy;
use epochwarden_testkit::s3server::S3Server;
use epochwarden_testkit::wait::until;
use serde_json::{Value, json};

use crate::support::bucket::Bucket;
use crate::support::policy::Policy;
use crate::support::{SOON, secret};

/// A bucket with sealed epochs, and a proxy between it and the operator.
struct Stage {
    cluster: &'static Cluster,
    bucket: Bucket,
    proxy: Proxy,
    namespace: String,
    name: String,
}

impl Stage {
    /// The bucket and the Secret are called `namespace-name` and `name`.
    async fn set(cluster: &'static Cluster, namespace: &str, name: &str, sealed: u64) -> Result<Self> {
        let bucket = Bucket::s3(&format!("{namespace}-{name}")).await?;
        bucket.seal(1..=sealed, 4).await?;
        secret(cluster, namespace, name, &bucket).await?;
        let proxy = Proxy::to(&S3Server::shared().await?.endpoint())?;
        Ok(Self { cluster, bucket, proxy, namespace: namespace.into(), name: name.into() })
    }

    /// The store as the operator sees it: through the proxy.
    fn store(&self) -> Value {
        let mut store = self.bucket.store(Some(&self.name));
        store["options"]["aws_endpoint"] = self.proxy.url().into();
        store
    }

    /// A policy that keeps the newest epoch alone, and publishes the fence of the Lease `leader`.
    fn spec(&self) -> Value {
        json!({
            "store": self.store(),
            "vnodes": 4,
            "retention": { "keepLast": 1 },
            "prune": { "minAge": "0s" },
            "fence": { "leaseRef": { "name": "leader" } },
        })
    }

    async fn apply(&self) -> Result<Policy<'static>> {
        Policy::apply(self.cluster, &self.namespace, &self.name, self.spec()).await
    }

    async fn epochs_are(&self, expected: &[u64]) -> Result<()> {
        let epochs = self.bucket.epochs().await?;
        ensure!(epochs == expected, "{}: the epochs are {epochs:?} and not {expected:?}", self.name);
        ensure!(self.bucket.sealed().await? == expected, "{}: a seal is missing", self.name);
        Ok(())
    }

    async fn fence_is(&self, version: u64) -> Result<()> {
        until(&format!("{}: the fence at {version}", self.name), SOON, async || {
            (self.bucket.fence().await.ok()? == version).then_some(())
        })
        .await
    }
}

/// How often the policy has run something.
fn runs(status: &Value) -> usize {
    status["history"].as_array().map_or(0, Vec::len)
}

/// Asks for a prune and waits for its end; gives its phase, and the reason and message of the condition.
async fn prune(policy: &Policy<'_>, request: &str) -> Result<(String, String, String)> {
    let before = runs(&policy.status().await?);
    policy.ask(request).await?;
    policy
        .wait_until(&format!("the end of {request}"), |status| {
            if runs(status) <= before.min(9) || status["lastRunRequest"] != request {
                return None;
            }
            let conditions = status["conditions"].as_array()?;
            let said = conditions.iter().find(|condition| condition["type"] == "PruneHealthy")?;
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let phase = text(&status["prune"]["phase"]);
            (phase != "Running").then(|| (phase, text(&said["reason"]), text(&said["message"])))
        })
        .await
}
