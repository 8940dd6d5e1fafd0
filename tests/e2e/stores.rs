//! Stores that cannot be used: each is a condition in words, deletes nothing, and leaves other policies alone.

use std::time::Duration;

use anyhow::{Result, ensure};
use epochwarden_testkit::apiserver::Cluster;
use serde_json::{Value, json};

use crate::support::bucket::Bucket;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{cluster, secret, secret_of};

fn spec(store: &Value) -> Value {
    json!({ "store": store, "vnodes": 4, "retention": { "keepLast": 1 }, "prune": { "minAge": "0s", "schedule": "* * * * *" } })
}

async fn desk(prefix: &str, flags: &[&str]) -> Result<(&'static Cluster, String, Operator)> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace(prefix).await?;
    let operator = Operator::start(cluster, &namespace, flags).await?;
    Ok((cluster, namespace, operator))
}

#[tokio::test]
async fn a_secret_that_is_missing_is_named_and_its_arrival_is_noticed() -> Result<()> {
    let (cluster, namespace, _operator) = desk("secret", &[]).await?;
    let bucket = Bucket::s3(&namespace).await?;
    bucket.seal(1..=3, 4).await?;
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket.store(Some("orders-state")))).await?;
    let (status, message) = policy.wait_for("StoreReady", "SecretNotFound").await?;
    ensure!(status == "False" && message.contains("orders-state"), "{message}");
    policy.wait_for("Ready", "SecretNotFound").await?;
    policy.wait_for("Reconciling", "SecretNotFound").await?;
    secret(cluster, &namespace, "orders-state", &bucket).await?;
    policy.wait_for("Ready", "Reachable").await?;
    let status = policy.status().await?;
    let types: Vec<&str> = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|condition| condition["type"].as_str())
        .collect();
    ensure!(!types.contains(&"Reconciling") && !types.contains(&"Stalled"), "{types:?}");
    Ok(())
}

#[tokio::test]
async fn a_wrong_key_is_access_denied_and_deletes_nothing() -> Result<()> {
    let (cluster, namespace, _operator) = desk("denied", &[]).await?;
    let bucket = Bucket::s3(&namespace).await?;
    bucket.seal(1..=3, 4).await?;
    secret_of(cluster, &namespace, "wrong", &[("aws_access_key_id", "nobody"), ("aws_secret_access_key", "hush-hush")])
        .await?;
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket.store(Some("wrong")))).await?;
    let (_, message) = policy.wait_for("StoreReady", "AccessDenied").await?;
    ensure!(!message.contains("hush-hush"), "a secret is in a message");
    policy.wait_for_event("StoreUnreachable").await?;
    ensure!(bucket.sealed().await? == [1, 2, 3]);
    Ok(())
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_named() -> Result<()> {
    let (cluster, namespace, _operator) = desk("nobucket", &[]).await?;
    let bucket = Bucket::s3(&namespace).await?;
    secret(cluster, &namespace, "orders-state", &bucket).await?;
    let mut store = bucket.store(Some("orders-state"));
    store["url"] = json!("s3://there-is-no-such-bucket/state");
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&store)).await?;
    let (_, message) = policy.wait_for("StoreReady", "BucketNotFound").await?;
    ensure!(message.contains("there-is-no-such-bucket"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_dead_endpoint_is_unreachable_and_other_policies_go_on() -> Result<()> {
    let bucket = Bucket::folder()?;
    bucket.seal(1..=3, 4).await?;
    let root = bucket.path()?.display().to_string();
    let (cluster, namespace, operator) = desk("dead", &["--allow-file-root", &root]).await?;
    // A port that was free a moment ago: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let other = Bucket::s3(&namespace).await?;
    secret(cluster, &namespace, "orders-state", &other).await?;
    let mut store = other.store(Some("orders-state"));
    store["options"]["aws_endpoint"] = json!(format!("http://127.0.0.1:{port}"));
    store["options"]["timeout"] = json!("2s");
    let dead = Policy::apply(cluster, &namespace, "dead", spec(&store)).await?;
    let alive = Policy::apply(cluster, &namespace, "alive", spec(&bucket.store(None))).await?;
    alive.wait_for("Ready", "Reachable").await?;
    alive.ask("audit").await?;
    alive.wait_for("AuditClean", "Clean").await?;
    let (status, _) = dead.wait_for("StoreReady", "Unreachable").await?;
    ensure!(status == "False");
    dead.wait_for("Reconciling", "Unreachable").await?;
    let (code, _) = operator.get("/livez").await?;
    ensure!(code == 200);
    Ok(())
}

#[tokio::test]
async fn folders_and_the_operators_own_credentials_need_a_flag() -> Result<()> {
    let (cluster, namespace, _operator) = desk("refused", &[]).await?;
    let bucket = Bucket::folder()?;
    bucket.seal(1..=3, 4).await?;
    let folder = Policy::apply(cluster, &namespace, "folder", spec(&bucket.store(None))).await?;
    let (_, message) = folder.wait_for("StoreReady", "InvalidConfiguration").await?;
    ensure!(message.contains("--allow-file-root"), "{message}");
    folder.wait_for("Stalled", "InvalidConfiguration").await?;

    let s3 = Bucket::s3(&namespace).await?;
    let ambient = Policy::apply(cluster, &namespace, "ambient", spec(&s3.store(None))).await?;
    ambient.wait_for("StoreReady", "CredentialsNotAllowed").await?;
    ambient.wait_for("Stalled", "CredentialsNotAllowed").await?;
    ensure!(bucket.sealed().await? == [1, 2, 3]);
    Ok(())
}

#[tokio::test]
async fn a_key_that_a_secret_may_not_have_is_named() -> Result<()> {
    let (cluster, namespace, _operator) = desk("badkey", &[]).await?;
    let bucket = Bucket::s3(&namespace).await?;
    secret_of(cluster, &namespace, "bad", &[("aws_endpoint", "http://169.254.169.254")]).await?;
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket.store(Some("bad")))).await?;
    let (_, message) = policy.wait_for("StoreReady", "InvalidConfiguration").await?;
    ensure!(message.contains("aws_endpoint"), "{message}");
    Ok(())
}

#[tokio::test]
async fn the_second_policy_on_a_root_conflicts_and_writes_nothing() -> Result<()> {
    let bucket = Bucket::folder()?;
    bucket.seal(1..=5, 4).await?;
    let root = bucket.path()?.display().to_string();
    let (cluster, namespace, _operator) = desk("conflict", &["--allow-file-root", &root]).await?;
    let first = Policy::apply(cluster, &namespace, "first", spec(&bucket.store(None))).await?;
    first.wait_for("Ready", "Reachable").await?;
    let mut greedy = spec(&bucket.store(None));
    greedy["retention"]["keepLast"] = json!(1);
    let second = Policy::apply(cluster, &namespace, "second", greedy).await?;
    let (_, message) = second.wait_for("StoreReady", "RootConflict").await?;
    ensure!(message.contains("first"), "{message}");
    second.wait_for("Stalled", "RootConflict").await?;
    second.wait_for_event("RootConflict").await?;
    // A recreated policy takes its root back.
    first.delete().await?;
    let again = Policy::apply(cluster, &namespace, "first", spec(&bucket.store(None))).await?;
    again.wait_for("Ready", "Reachable").await?;
    Ok(())
}

#[tokio::test]
async fn rotated_credentials_are_taken_without_a_restart() -> Result<()> {
    let (cluster, namespace, _operator) = desk("rotated", &[]).await?;
    let bucket = Bucket::s3(&namespace).await?;
    bucket.seal(1..=3, 4).await?;
    secret_of(cluster, &namespace, "orders-state", &[("aws_access_key_id", "old"), ("aws_secret_access_key", "old")])
        .await?;
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket.store(Some("orders-state")))).await?;
    policy.wait_for("StoreReady", "AccessDenied").await?;
    let deleted = cluster.kubectl(&["-n", &namespace, "delete", "secret", "orders-state"]).await?;
    ensure!(deleted.status.success(), "{}", deleted.stderr);
    secret(cluster, &namespace, "orders-state", &bucket).await?;
    tokio::time::timeout(Duration::from_secs(90), policy.wait_for("Ready", "Reachable")).await??;
    Ok(())
}

#[tokio::test]
async fn a_run_uses_the_credentials_of_now_and_not_those_that_were_read_a_minute_ago() -> Result<()> {
    let (cluster, namespace, _operator) = desk("revoked", &[]).await?;
    let bucket = Bucket::s3(&namespace).await?;
    bucket.seal(1..=3, 4).await?;
    secret(cluster, &namespace, "orders-state", &bucket).await?;
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket.store(Some("orders-state")))).await?;
    policy.wait_for("Ready", "Reachable").await?;
    let deleted = cluster.kubectl(&["-n", &namespace, "delete", "secret", "orders-state"]).await?;
    ensure!(deleted.status.success(), "{}", deleted.stderr);
    secret_of(cluster, &namespace, "orders-state", &[("aws_access_key_id", "new"), ("aws_secret_access_key", "new")])
        .await?;
    policy.ask("audit").await?;
    policy.wait_for("AuditClean", "Failed").await?;
    policy.wait_for("StoreReady", "AccessDenied").await?;
    Ok(())
}
