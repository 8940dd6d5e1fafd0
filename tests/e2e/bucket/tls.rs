//! A store with a certificate that nobody knows.

use std::fs;

use anyhow::{Context, Result, ensure};
use epochwarden_testkit::s3server::S3Server;
use serde_json::json;

use crate::support::bucket::Bucket;
use crate::support::lease::Leader;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{cluster, secret};

#[tokio::test]
async fn a_store_with_a_private_certificate_needs_its_authority_and_no_other() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("private-ca").await?;
    Leader::new(cluster.client().await?, &namespace, "leader").lead("pod-a", 0).await?;
    let server = S3Server::with_tls().await?;
    let ca = server.ca().context("a server with TLS has an authority")?;
    let bucket = Bucket::on(&server, &namespace)?;
    bucket.seal(1..=3, 4).await?;
    secret(cluster, &namespace, "orders-state", &bucket).await?;
    let _operator = Operator::start(cluster, &namespace, &[]).await?;
    let mut spec = json!({
        "store": bucket.store(Some("orders-state")),
        "vnodes": 4,
        "fence": { "leaseRef": { "name": "leader" } },
    });
    let policy = Policy::apply(cluster, &namespace, "orders", spec.clone()).await?;
    let (status, message) = policy.wait_for("StoreReady", "InvalidConfiguration").await?;
    ensure!(status == "False" && message.contains("certificate") && message.contains("spec.store.ca"), "{message}");
    policy.wait_for("FenceCurrent", "StoreNotReady").await?;

    // The authority of another server vouches for nothing here; the right one does, as soon as its Secret says so.
    let stranger = S3Server::with_tls().await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("ca.crt");
    let from_file = format!("--from-file=ca.crt={}", file.display());
    fs::write(&file, stranger.ca().context("an authority")?)?;
    policy.kubectl(&["create", "secret", "generic", "state-ca", &from_file]).await?;
    spec["store"]["ca"] = json!({ "secretRef": { "name": "state-ca" } });
    policy.update(spec).await?;
    policy
        .wait_until("the other authority to be of no use", |status| {
            let conditions = status["conditions"].as_array()?;
            let ready = conditions.iter().find(|condition| condition["type"] == "StoreReady")?;
            (ready["observedGeneration"] == 2 && ready["reason"] == "InvalidConfiguration").then_some(())
        })
        .await?;
    ensure!(bucket.fence().await? == 0);

    fs::write(&file, ca)?;
    policy.kubectl(&["delete", "secret", "state-ca"]).await?;
    policy.kubectl(&["create", "secret", "generic", "state-ca", &from_file]).await?;
    tokio::time::timeout(std::time::Duration::from_mins(2), async {
        let found = policy.wait_for("StoreReady", "Reachable").await;
        if found.is_ok() { found } else { policy.wait_for("StoreReady", "Reachable").await }
    })
    .await??;
    policy.wait_for("FenceCurrent", "Published").await?;
    ensure!(bucket.fence().await? == 1);
    policy.wait_for("Ready", "Reachable").await?;
    Ok(())
}
