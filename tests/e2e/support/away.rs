//! A cluster whose API server goes away, comes back, and has lost nothing.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use epochwarden_testkit::apiserver::Cluster;
use epochwarden_testkit::wait::until;
use serde_json::json;
use tokio::time::Instant;

use super::bucket::Bucket;
use super::lease::Leader;
use super::operator::Operator;
use super::policy::Policy;
use super::{SOON, install, say};

/// More than two batches of a prune.
const EPOCHS: u64 = 2_600;

/// What a prune deletes without asking the API server again.
const BATCH: usize = 1_000;

/// An API server of the caller's own, with the resource installed.
pub(crate) async fn own_cluster() -> Result<Cluster> {
    let cluster = Cluster::start().await?;
    install(&cluster).await?;
    Ok(cluster)
}

/// The API server goes away in the middle of a prune. What may be deleted is not known any more, so the prune ends with its batch; an
/// audit that was asked for just before takes place all the same; and when the API server is back, all of it is told and caught up with,
/// the rest of the prune included.
pub(crate) async fn catches_up_after(away: Duration) -> Result<()> {
    let cluster = own_cluster().await?;
    let namespace = cluster.namespace("away").await?;
    let bucket = Bucket::folder()?;
    bucket.fill(EPOCHS, 1)?;
    let root = bucket.path()?.display().to_string();
    let leader = Leader::new(cluster.client().await?, &namespace, "orders-leader");
    leader.lead("pod-a", 0).await?;
    let operator = Operator::start(&cluster, &namespace, &["--allow-file-root", &root]).await?;
    let spec = json!({
        "store": bucket.store(None),
        "vnodes": 1,
        "fence": { "leaseRef": { "name": "orders-leader" } },
        "retention": { "keepLast": 2 },
        "prune": { "minAge": "0s", "maxKeysPerSecond": 300, "holdAbove": { "epochs": 1_000_000 } },
    });
    let policy = Policy::apply(&cluster, &namespace, "orders", spec).await?;
    policy.wait_for("FenceCurrent", "Published").await?;
    policy.ask("prune@1").await?;
    let deleting = |status: &serde_json::Value| (status["prune"]["progress"]["done"].as_u64()? > 0).then_some(());
    policy.wait_until("the prune to delete", deleting).await?;
    policy.ask("audit@2").await?;

    let began = Instant::now();
    cluster.stop_apiserver()?;
    let log = || format!("the log of the operator:\n{}", operator.log());
    let after_a_batch = usize::try_from(EPOCHS)? - BATCH;
    until("the end of the batch", SOON, async || (bucket.epochs().await.ok()?.len() <= after_a_batch).then_some(()))
        .await
        .with_context(log)?;
    while began.elapsed() < away {
        let left = bucket.epochs().await?.len();
        ensure!(left == after_a_batch, "without a word from the API server {left} epochs are left\n{}", log());
        until("a moment to pass", SOON, async || Some(())).await?;
    }
    ensure!(bucket.epochs().await?.len() == after_a_batch, "the prune went on without a word from the API server");
    let (livez, _) = operator.get("/livez").await?;
    ensure!(livez == 200, "without its API server the operator is not well itself");
    cluster.start_apiserver().await?;
    let absent = began.elapsed();

    let back = Instant::now();
    leader.lead("pod-b", 1).await?;
    until("the fence to catch up", SOON, async || (bucket.fence().await.ok()? == 2).then_some(()))
        .await
        .with_context(log)?;
    let fenced = back.elapsed();
    // There is no schedule, and nobody asks again.
    let told = policy.wait_until("the rest to be pruned, and what went on meanwhile to be told", |status| {
        let told = status["lastRunRequest"] == "audit@2"
            && status["audit"]["phase"] == "Succeeded"
            && status["fence"]["version"] == 2
            && status["prune"]["phase"] == "Succeeded";
        told.then(|| status.clone())
    });
    let status = told.await.with_context(log)?;
    let caught_up = back.elapsed();
    let prunes: Vec<_> =
        status["history"].as_array().into_iter().flatten().filter(|run| run["kind"] == "Prune").cloned().collect();
    let [rest, stopped] = prunes.as_slice() else { bail!("these are not two prunes: {prunes:#?}") };
    let message = stopped["message"].as_str().unwrap_or_default();
    ensure!(stopped["result"] == "Stopped" && rest["result"] == "Succeeded", "{prunes:#?}");
    for words in [&format!("deleted {BATCH} epochs with {} objects", 2 * BATCH), "API server", "by itself"] {
        ensure!(message.contains(words), "{words} is not in {message}");
    }
    let prune = &status["prune"];
    ensure!(prune["epochs"] == EPOCHS - 2 - u64::try_from(BATCH)?, "all that was left went in one run: {prune:#}");
    ensure!(bucket.epochs().await? == [EPOCHS - 1, EPOCHS]);
    ensure!(!operator.log().contains("panicked"), "{}", operator.log());
    say(&format!(
        "the API server was away for {absent:?}; the next leader was fenced {fenced:?} after it was back, the rest pruned after {caught_up:?}"
    ))?;
    Ok(())
}
