//! What a bucket should not hold: newer layouts, foreign keys, folder markers, keys that no client can name. On a real S3 server, through
//! the operator: each is held and named, and nothing else is touched.
//!
//! The server keeps objects as files, so that a client cannot make keys with an empty segment, `..` or a slash at their end there; these
//! are put into its listings on their way. A file whose name holds a control character can be made, and is listed under another name.

use anyhow::{Result, ensure};
use epochwarden_testkit::proxy::Proxy;
use epochwarden_testkit::s3server::S3Server;
use object_store::ObjectStoreExt;
use serde_json::{Value, json};

use crate::support::bucket::Bucket;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{cluster, secret};

/// A bucket with six sealed epochs, and a policy on it whose operator sees the server through a proxy.
struct Site {
    bucket: Bucket,
    proxy: Proxy,
    operator: Operator,
    policy: Policy<'static>,
}

fn spec(bucket: &Bucket, seal_check_every: &str) -> Value {
    json!({
        "store": bucket.store(Some("keys")),
        "vnodes": 2,
        "retention": { "keepLast": 2 },
        "prune": { "minAge": "0s" },
        "audit": { "sealCheckEvery": seal_check_every },
    })
}

impl Site {
    async fn new(prefix: &str) -> Result<Self> {
        let cluster = cluster().await?;
        let namespace = cluster.namespace(prefix).await?;
        let mut bucket = Bucket::s3(&namespace).await?;
        bucket.seal(1..=6, 2).await?;
        let proxy = Proxy::to(&S3Server::shared().await?.endpoint())?;
        for (name, value) in &mut bucket.options {
            if name == "aws_endpoint" {
                *value = proxy.url();
            }
        }
        secret(cluster, &namespace, "keys", &bucket).await?;
        let operator = Operator::start(cluster, &namespace, &[]).await?;
        let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket, "0s")).await?;
        policy.wait_for("Ready", "Reachable").await?;
        Ok(Self { bucket, proxy, operator, policy })
    }

    async fn put(&self, key: &str) -> Result<()> {
        self.bucket.root.store().put(&self.bucket.root.path(key)?, "theirs".into()).await?;
        Ok(())
    }

    async fn has(&self, key: &str) -> Result<bool> {
        Ok(self.bucket.root.store().head(&self.bucket.root.path(key)?).await.is_ok())
    }

    async fn remove(&self, key: &str) -> Result<()> {
        Ok(self.bucket.root.store().delete(&self.bucket.root.path(key)?).await?)
    }

    /// From now on every listing of the whole root shows this key, too; written as XML writes it.
    fn also_lists(&self, key: &str) {
        let row = format!(
            "<Contents><Key>state/{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"0\"</ETag>\
             <Size>0</Size><StorageClass>STANDARD</StorageClass></Contents></ListBucketResult>"
        );
        self.proxy.on("GET", "*list-type=2*").rewrite(move |answer| {
            let whole =
                answer.body.contains("<Prefix>state/</Prefix>") || answer.body.contains("<Prefix>state</Prefix>");
            if whole {
                let body = answer.body.replace("</ListBucketResult>", &row);
                answer.body(body)
            } else {
                answer
            }
        });
    }

    /// Asks for a run and waits until it has ended.
    async fn run(&self, request: &str) -> Result<Value> {
        let length = |status: &Value| status["history"].as_array().map_or(0, Vec::len);
        let before = length(&self.policy.status().await?);
        self.policy.ask(request).await?;
        self.policy.wait_until(request, |status| (length(status) > before).then(|| status.clone())).await
    }

    async fn is_whole(&self) -> Result<bool> {
        Ok(self.bucket.sealed().await? == [1, 2, 3, 4, 5, 6])
    }
}

#[tokio::test]
async fn an_audit_or_a_seal_check_alone_finds_a_newer_seal_and_it_clears_with_it() -> Result<()> {
    let site = Site::new("newer").await?;
    let key = "epoch=5/_SEAL";
    site.put(key).await?;
    site.run("audit@1").await?;
    let (status, message) = site.policy.wait_for("AuditClean", "Failed").await?;
    ensure!(status == "False" && message.contains(key), "{message}");
    site.policy.wait_for("StoreReady", "UnknownLayout").await?;
    site.remove(key).await?;
    site.policy.wait_for("StoreReady", "Reachable").await?;

    // Without any run.
    site.policy.update(spec(&site.bucket, "1s")).await?;
    site.policy.wait_until("a seal check", |status| (status["epochs"]["latestCommitted"] == "6").then_some(())).await?;
    site.put(key).await?;
    let (_, message) = site.policy.wait_for("StoreReady", "UnknownLayout").await?;
    ensure!(message.contains(key), "{message}");
    ensure!(site.is_whole().await? && site.has(key).await?, "nothing of the whole root is touched");
    site.remove(key).await?;
    site.policy.wait_for("StoreReady", "Reachable").await?;
    site.run("audit@2").await?;
    site.policy.wait_for("AuditClean", "Clean").await?;
    Ok(())
}

#[tokio::test]
async fn foreign_keys_are_counted_and_stay_whatever_is_pruned() -> Result<()> {
    let site = Site::new("foreign").await?;
    let foreign = ["readme.txt", "epoch=007/_COMMIT", "epoch=x/vnode=0/partial.bin", "state-v2", "epochs/1/_COMMIT"];
    for key in foreign {
        site.put(key).await?;
    }
    site.run("prune@1").await?;
    site.policy.wait_for("PruneHealthy", "Succeeded").await?;
    ensure!(site.bucket.sealed().await? == [5, 6]);
    for key in foreign {
        ensure!(site.has(key).await?, "{key} is gone");
    }
    let status = site.run("audit@1").await?;
    site.policy.wait_for("AuditClean", "Clean").await?;
    ensure!(status["audit"]["counts"]["ForeignKey"] == foreign.len(), "{:#}", status["audit"]);
    let detail = status["audit"]["findings"][0]["detail"].as_str().unwrap_or_default();
    ensure!(detail.contains("\"epoch=007/_COMMIT\""), "{detail}");
    Ok(())
}

#[tokio::test]
async fn a_key_that_no_client_can_name_holds_prune_and_audit_which_name_it() -> Result<()> {
    let site = Site::new("unnamed").await?;
    for (round, (key, shown)) in
        [("epoch=2/a//b", "a//b"), ("lost/../found", ".."), ("bell&#7;", "bell")].into_iter().enumerate()
    {
        site.also_lists(key);
        let before = site.proxy.requests("*", "*");
        site.run(&format!("prune@{round}")).await?;
        let (status, message) = site.policy.wait_for("PruneHealthy", "Held").await?;
        ensure!(status == "False" && message.contains(shown), "{key}: {message}");
        let (_, metrics) = site.operator.get("/metrics").await?;
        ensure!(metrics.contains("reason=\"UnaddressableKey\"} 1"), "{metrics}");
        site.run(&format!("audit@{round}")).await?;
        let (status, message) = site.policy.wait_for("AuditClean", "Failed").await?;
        ensure!(status == "False" && message.contains(shown), "{key}: {message}");
        ensure!(site.is_whole().await?, "nothing is deleted");
        let asked = site.proxy.requests("*", "*") - before;
        // The first of them comes with the probe of the store.
        ensure!(asked < if round == 0 { 120 } else { 20 }, "{asked} requests for two refusals");
        site.proxy.clear();
    }
    site.run("prune@last").await?;
    site.policy.wait_for("PruneHealthy", "Succeeded").await?;
    Ok(())
}

#[tokio::test]
async fn a_folder_marker_holds_its_epoch_with_its_seal_and_the_others_go_without_an_endless_loop() -> Result<()> {
    let site = Site::new("marker").await?;
    // It lists as `epoch=2`, and deleting that succeeds without removing anything.
    site.also_lists("epoch=2/");
    for round in 1..=3 {
        let before = site.proxy.requests("*", "*");
        let status = site.run(&format!("prune@{round}")).await?;
        ensure!(site.bucket.sealed().await? == [2, 5, 6], "the epoch with the marker keeps its seal");
        let asked = site.proxy.requests("*", "*") - before;
        // The first run comes with the probe of the store.
        ensure!(asked < if round == 1 { 120 } else { 20 }, "{asked} requests: {:#}", status["prune"]);
    }
    let status = site.run("audit@1").await?;
    let findings = status["audit"]["findings"].as_array().cloned().unwrap_or_default();
    let finding = findings.iter().find(|finding| finding["kind"] == "UnaddressableKey");
    let named = finding.is_some_and(|finding| {
        finding["epoch"] == "2" && finding["severity"] == "warning" && finding["detail"].to_string().contains("epoch=2")
    });
    ensure!(named, "{findings:#?}");
    site.policy.wait_for("AuditClean", "Warnings").await?;
    Ok(())
}

#[tokio::test]
async fn a_key_that_the_server_lists_under_another_name_stays_and_costs_no_endless_loop() -> Result<()> {
    let site = Site::new("renamed").await?;
    // XML has no such character, and so the server lists this with another in its place: deleting that succeeds, and removes nothing.
    let folder = S3Server::shared().await?.bucket_folder(&site.policy.namespace).join("state/epoch=2");
    let file = folder.join("bell\u{7}");
    std::fs::write(&file, "ours, by its folder")?;
    site.bucket.seal(7..=8, 2).await?;
    for round in 1..=3 {
        let before = site.proxy.requests("*", "*");
        let status = site.run(&format!("prune@{round}")).await?;
        let left: Vec<u64> = site.bucket.epochs().await?;
        ensure!(left == [2, 7, 8], "{left:?} {:#}", status["prune"]);
        ensure!(file.exists() && !folder.join("_COMMIT").exists());
        let asked = site.proxy.requests("*", "*") - before;
        ensure!(asked < if round == 1 { 120 } else { 20 }, "{asked} requests: {:#}", status["prune"]);
    }
    Ok(())
}
