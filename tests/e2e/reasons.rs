//! The reasons of conditions that no other topic reaches, and how the conditions read to kubectl.

use std::net::TcpListener;

use anyhow::{Result, ensure};
use epochwarden_testkit::wait::until;
use serde_json::{Value, json};

use crate::support::bucket::Bucket;
use crate::support::lease::Leader;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{SOON, cluster, secret_of};

/// A policy on a folder, with more of a spec.
fn on_folder(bucket: &Bucket, more: &Value) -> Value {
    let mut spec = json!({ "store": bucket.store(None), "vnodes": 4 });
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    spec
}

/// The condition of a type in a status.
fn condition<'a>(status: &'a Value, type_: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|condition| condition["type"] == type_)
}

fn reason<'a>(status: &'a Value, type_: &str) -> &'a str {
    condition(status, type_).and_then(|condition| condition["reason"].as_str()).unwrap_or_default()
}

#[tokio::test]
async fn a_store_that_does_not_answer_yet_is_pending() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("silent").await?;
    // It takes connections, into its backlog, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    secret_of(
        cluster,
        &namespace,
        "keys",
        &[("aws_access_key_id", "id"), ("aws_secret_access_key", "not-a-real-secret")],
    )
    .await?;
    let _operator = Operator::start(cluster, &namespace, &[]).await?;
    let endpoint = format!("http://{}", silent.local_addr()?);
    let spec = json!({
        "store": {
            "url": "s3://state",
            "options": { "aws_region": "us-east-1", "aws_endpoint": endpoint, "aws_allow_http": "true" },
            "credentials": { "secretRef": { "name": "keys" } },
        },
        "vnodes": 4,
        "fence": { "leaseRef": { "name": "leader" } },
    });
    let policy = Policy::apply(cluster, &namespace, "orders", spec).await?;
    policy
        .wait_until("every condition to be pending", |status| {
            let pending = ["Ready", "StoreReady", "FenceCurrent", "Reconciling"];
            pending.iter().all(|type_| reason(status, type_) == "Pending").then_some(())
        })
        .await?;
    policy.wait_for("StoreReady", "Unreachable").await?;
    Ok(())
}

#[tokio::test]
async fn a_policy_that_asks_for_nothing_says_so() -> Result<()> {
    let bucket = Bucket::folder()?;
    let (namespace, _operator) = Operator::on(&bucket, "nothing").await?;
    let policy = Policy::apply(cluster().await?, &namespace, "orders", on_folder(&bucket, &json!({}))).await?;
    policy.wait_for("Ready", "Reachable").await?;
    for (type_, reason) in
        [("FenceCurrent", "NotConfigured"), ("PruneHealthy", "NotScheduled"), ("AuditClean", "NotScheduled")]
    {
        let (status, _) = policy.wait_for(type_, reason).await?;
        ensure!(status == "Unknown", "{type_}: {status}");
    }
    ensure!(bucket.path()?.read_dir()?.next().is_none(), "a policy that asks for nothing writes nothing");
    Ok(())
}

#[tokio::test]
async fn a_fence_without_a_store_says_that_the_store_is_not_ready() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("storeless").await?;
    Leader::new(cluster.client().await?, &namespace, "leader").lead("pod-a", 0).await?;
    let _operator = Operator::start(cluster, &namespace, &[]).await?;
    let spec = json!({ "store": { "url": "s3://state" }, "vnodes": 4, "fence": { "leaseRef": { "name": "leader" } } });
    let policy = Policy::apply(cluster, &namespace, "orders", spec).await?;
    policy.wait_for("StoreReady", "CredentialsNotAllowed").await?;
    let (status, message) = policy.wait_for("FenceCurrent", "StoreNotReady").await?;
    ensure!(status == "False" && message.contains("StoreReady"), "{message}");
    Ok(())
}

#[tokio::test]
async fn what_is_suspended_says_so() -> Result<()> {
    let bucket = Bucket::folder()?;
    let (namespace, _operator) = Operator::on(&bucket, "suspended").await?;
    let runs = |suspended: bool| {
        json!({
            "prune": { "schedule": "@daily", "suspend": suspended },
            "audit": { "schedule": "@daily", "suspend": suspended },
        })
    };
    let policy = Policy::apply(cluster().await?, &namespace, "orders", on_folder(&bucket, &runs(true))).await?;
    for (type_, field) in [("PruneHealthy", "spec.prune.suspend"), ("AuditClean", "spec.audit.suspend")] {
        let (status, message) = policy.wait_for(type_, "Suspended").await?;
        ensure!(status == "Unknown" && message.contains(field), "{message}");
    }
    let mut whole = on_folder(&bucket, &runs(false));
    whole["suspend"] = true.into();
    policy.update(whole).await?;
    for type_ in ["PruneHealthy", "AuditClean"] {
        let found = until("the whole policy to be suspended", SOON, async || {
            let (_, message) = policy.wait_for(type_, "Suspended").await.ok()?;
            message.contains("(spec.suspend)").then_some(())
        });
        found.await?;
    }
    policy.update(on_folder(&bucket, &runs(false))).await?;
    for type_ in ["PruneHealthy", "AuditClean"] {
        policy.wait_for(type_, "Pending").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_scheduled_run_that_has_not_come_yet_is_pending() -> Result<()> {
    let bucket = Bucket::folder()?;
    let (namespace, _operator) = Operator::on(&bucket, "scheduled").await?;
    let runs = json!({ "prune": { "schedule": "@yearly" }, "audit": { "schedule": "@yearly" } });
    let policy = Policy::apply(cluster().await?, &namespace, "orders", on_folder(&bucket, &runs)).await?;
    for (type_, run) in [("PruneHealthy", "prune"), ("AuditClean", "audit")] {
        let (status, _) = policy.wait_for(type_, "Pending").await?;
        ensure!(status == "Unknown");
        policy.wait_until("the next slot", |status| status[run]["nextRunAt"].as_str().map(drop)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_schedule_that_means_nothing_is_named_and_concerns_nothing_else() -> Result<()> {
    let bucket = Bucket::folder()?;
    bucket.seal(1..=2, 4).await?;
    let (namespace, _operator) = Operator::on(&bucket, "schedule").await?;
    let runs = json!({
        "prune": { "schedule": "61 * * * *" },
        "audit": { "schedule": "@daily", "timeZone": "Middle/Earth" },
    });
    let policy = Policy::apply(cluster().await?, &namespace, "orders", on_folder(&bucket, &runs)).await?;
    for (type_, words) in [("PruneHealthy", "61"), ("AuditClean", "Middle/Earth")] {
        let (status, message) = policy.wait_for(type_, "InvalidSchedule").await?;
        ensure!(status == "False" && message.contains(words), "{message}");
    }
    policy.wait_for("Ready", "Reachable").await?;
    Ok(())
}

/// How `kubectl wait`, `kubectl get` and what reads kstatus see a policy whose pipeline is in trouble, but whose store is not.
#[tokio::test]
async fn a_policy_without_a_leader_is_ready_to_kubectl_and_kstatus() -> Result<()> {
    let bucket = Bucket::folder()?;
    bucket.seal(1..=3, 4).await?;
    bucket.lose_partial(2, 1).await?;
    let (namespace, _operator) = Operator::on(&bucket, "reads").await?;
    let cluster = cluster().await?;
    let leader = Leader::new(cluster.client().await?, &namespace, "leader");
    leader.lead("pod-a", 0).await?;
    let more = json!({ "fence": { "leaseRef": { "name": "leader" } } });
    let policy = Policy::apply(cluster, &namespace, "orders", on_folder(&bucket, &more)).await?;
    policy.kubectl(&["wait", "--for=condition=Ready", "sep/orders", "--timeout=60s"]).await?;
    policy.wait_for("FenceCurrent", "Published").await?;

    leader.release(0).await?;
    policy.wait_for("FenceCurrent", "NoHolder").await?;
    policy.ask("audit@1").await?;
    policy.wait_for("AuditClean", "Findings").await?;

    // Neither a missing leader nor a damaged epoch is the policy's own trouble.
    policy.kubectl(&["wait", "--for=condition=Ready", "sep/orders", "--timeout=60s"]).await?;
    let status = policy.status().await?;
    for absent in ["Stalled", "Reconciling"] {
        ensure!(condition(&status, absent).is_none(), "{absent} is there: {:#}", status["conditions"]);
    }
    for condition in status["conditions"].as_array().into_iter().flatten() {
        ensure!(condition["observedGeneration"] == 1, "{condition:#}");
    }
    ensure!(status["observedGeneration"] == 1);

    let table = policy.kubectl(&["get", "sep", "orders"]).await?;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let [header, row] = rows.as_slice() else { anyhow::bail!("{table}") };
    ensure!(header.join(" ") == "NAME STORE FENCE LEADER LATEST SEALED AUDIT READY AGE", "{table}");
    ensure!(
        row.get(..8).map(|row| row.join(" ")) == Some("orders Reachable 1 pod-a 3 3 Critical True".into()),
        "{table}"
    );
    Ok(())
}
