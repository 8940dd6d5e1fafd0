//! The operator as a process: probes, the end, and what a deleted policy leaves behind.

use std::time::Duration;

use anyhow::{Result, ensure};
use epochwarden_testkit::wait::until;
use serde_json::json;
use tokio::time::Instant;

use crate::support::bucket::Bucket;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{SOON, cluster, say};

/// A prune of 98 epochs that has begun to delete: so slowly that it is still under way when it is told to stop, also on a machine whose
/// processors others want.
struct Busy {
    policy: Policy<'static>,
    bucket: Bucket,
    operator: Operator,
    root: String,
}

async fn busy(prefix: &str) -> Result<Busy> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace(prefix).await?;
    let bucket = Bucket::folder()?;
    bucket.fill(100, 50)?;
    let root = bucket.path()?.display().to_string();
    let operator = Operator::start(cluster, &namespace, &["--allow-file-root", &root]).await?;
    let spec = json!({ "store": bucket.store(None), "vnodes": 50, "retention": { "keepLast": 2 }, "prune": { "minAge": "0s", "maxKeysPerSecond": 500 } });
    let policy = Policy::apply(cluster, &namespace, "orders", spec).await?;
    policy.wait_for("Ready", "Reachable").await?;
    policy.ask("prune").await?;
    policy
        .wait_until("the prune to delete", |status| (status["prune"]["progress"]["done"].as_u64()? > 0).then_some(()))
        .await?;
    Ok(Busy { policy, bucket, operator, root })
}

#[tokio::test]
async fn on_sigterm_a_prune_stops_between_requests_and_the_next_operator_finishes_it() -> Result<()> {
    let Busy { policy, bucket, operator, root } = busy("sigterm").await?;
    let told = Instant::now();
    let status = operator.terminate(Duration::from_secs(10)).await?;
    ensure!(status.success(), "{status}");
    say(&format!("the operator ended {:?} after SIGTERM, in the middle of a prune", told.elapsed()))?;
    let left = bucket.epochs().await?;
    ensure!(left.len() > 2 && left.ends_with(&[99, 100]), "{left:?}");
    let (_, message) = policy.wait_for("PruneHealthy", "Running").await?;
    ensure!(message.contains("the next one"), "{message}");

    let _next = Operator::start(cluster().await?, &policy.namespace, &["--allow-file-root", &root]).await?;
    until("the rest is pruned", SOON, async || (bucket.epochs().await.ok()? == [99, 100]).then_some(())).await?;
    policy.wait_for("PruneHealthy", "Succeeded").await?;
    Ok(())
}

#[tokio::test]
async fn a_deleted_policy_stops_its_prune_and_leaves_no_metric_and_the_bucket_alone() -> Result<()> {
    let Busy { policy, bucket, operator, .. } = busy("deleted").await?;
    policy.delete().await?;
    until("no metric of the policy", SOON, async || {
        let (_, metrics) = operator.get("/metrics").await.ok()?;
        (!metrics.contains("policy=\"orders\"")).then_some(())
    })
    .await?;
    ensure!(bucket.path()?.join("epoch=100/_COMMIT").exists());
    ensure!(
        bucket.path()?.join("epoch=98/vnode=49/partial.bin").exists(),
        "the prune went on after its policy was deleted"
    );
    Ok(())
}

#[tokio::test]
async fn probes_and_metrics_are_served() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("probes").await?;
    let operator = Operator::start(cluster, &namespace, &[]).await?;
    for (path, body) in [("/livez", "ok"), ("/readyz", "ok"), ("/metrics", "epochwarden_build_info{version=")] {
        let (status, text) = operator.get(path).await?;
        ensure!(status == 200 && text.contains(body), "{path}: {status} {text}");
    }
    let (status, _) = operator.get("/else").await?;
    ensure!(status == 404);
    ensure!(!operator.log().contains("panicked"));
    Ok(())
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_request_does_not_hold_the_operator() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("client").await?;
    let operator = Operator::start(cluster, &namespace, &[]).await?;
    let _open = operator.begin_request().await?;
    // An answer to somebody else: by then the server has taken the open connection.
    operator.get("/livez").await?;
    let status = operator.terminate(Duration::from_secs(10)).await?;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[tokio::test]
async fn policies_outside_of_the_selector_and_the_namespace_are_left_alone() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("selected").await?;
    let elsewhere = cluster.namespace("elsewhere").await?;
    let bucket = Bucket::folder()?;
    let root = bucket.path()?.display().to_string();
    let flags = ["--allow-file-root", root.as_str(), "--policy-selector", "team=orders"];
    let _operator = Operator::start(cluster, &namespace, &flags).await?;
    let spec = json!({ "store": bucket.store(None), "vnodes": 4 });
    let other = Policy::apply(cluster, &namespace, "other", spec.clone()).await?;
    let foreign = Policy::apply(cluster, &elsewhere, "foreign", spec.clone()).await?;
    foreign.kubectl(&["label", "sep", "foreign", "team=orders"]).await?;
    let ours = Policy::apply(cluster, &namespace, "ours", spec).await?;
    ours.kubectl(&["label", "sep", "ours", "team=orders"]).await?;
    // The others came first: when this one has been worked for, they would have been, too.
    ours.wait_for("Ready", "Reachable").await?;
    ensure!(other.status().await?.is_null(), "a policy outside of the selector has a status");
    ensure!(foreign.status().await?.is_null(), "a policy of another namespace has a status");
    Ok(())
}
