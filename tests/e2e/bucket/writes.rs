//! Writes of the fence whose answers are refusals, conflicts, or never come.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use epochwarden_testkit::proxy::{Answer, Proxy};
use epochwarden_testkit::wait::until;
use futures::future::try_join_all;

use tokio::time::Instant;

use super::Stage;
use crate::support::lease::Leader;
use crate::support::operator::Operator;
use crate::support::{SOON, cluster, say};

const FENCES: &str = "*/state/_epochwarden/fence/*";
const PROBES: &str = "*/state/_epochwarden/probe/*";
const OWNERS: &str = "*/state/_epochwarden/owner/*";

type Fault = fn(&Proxy);

/// Faults of one write each, after which the fence must stand all the same.
const ONCE: &[(&str, Fault)] = &[
    // Two creates of one key at the same moment, says S3, and not which of them was made.
    ("conflict", |proxy| drop(proxy.on("PUT", FENCES).once().answer(Answer::s3(409, "ConditionalRequestConflict")))),
    // A gateway repeats the request by itself, and meets its own write.
    ("itself", |proxy| drop(proxy.on("PUT", FENCES).once().rewrite(|_| Answer::s3(412, "PreconditionFailed")))),
    ("slow", |proxy| {
        drop(proxy.on("PUT", FENCES).once().answer(Answer::s3(503, "SlowDown").header("retry-after", "1")));
    }),
    ("unasked", |proxy| drop(proxy.on("PUT", FENCES).once().close_before())),
    ("unanswered", |proxy| drop(proxy.on("PUT", FENCES).once().close_after())),
    ("silent", |proxy| drop(proxy.on("PUT", FENCES).once().hang())),
    ("broken", |proxy| drop(proxy.on("PUT", FENCES).once().rewrite(|_| Answer::s3(500, "InternalError")))),
];

/// Faults that last, and what `FenceCurrent` says meanwhile.
const LASTING: &[(&str, Fault, &str)] = &[
    (
        "forbidden",
        |proxy| drop(proxy.on("PUT", FENCES).answer(Answer::s3(403, "AccessDenied"))),
        "HTTP 403 AccessDenied",
    ),
    ("full", |proxy| drop(proxy.on("PUT", FENCES).answer(Answer::s3(507, "InsufficientStorage"))), "HTTP 507"),
    ("conflicts", |proxy| drop(proxy.on("PUT", FENCES).answer(Answer::s3(409, "OperationAborted"))), "HTTP 409"),
    ("refused", |proxy| drop(proxy.on("PUT", FENCES).answer(Answer::s3(412, "PreconditionFailed"))), "HTTP 412"),
    ("hangs", |proxy| drop(proxy.on("PUT", FENCES).hang()), "answer"),
];

#[tokio::test]
async fn a_fence_stands_after_one_lost_or_refused_answer_and_is_written_once() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("lost").await?;
    let leader = Leader::new(cluster.client().await?, &namespace, "leader");
    leader.lead("pod-a", 0).await?;
    let _operator = Operator::start(cluster, &namespace, &[]).await?;
    let plays = ONCE.iter().map(async |(name, fault)| {
        let stage = Stage::set(cluster, &namespace, name, 1).await?;
        let policy = stage.apply().await?;
        policy.wait_for("FenceCurrent", "Published").await?;
        stage.fence_is(1).await?;
        fault(&stage.proxy);
        anyhow::Ok((stage, policy))
    });
    let stages = try_join_all(plays).await?;
    leader.lead("pod-b", 1).await?;
    for (stage, policy) in &stages {
        stage.fence_is(2).await.context(stage.name.clone())?;
        policy
            .wait_until("the holder", |status| (status["fence"]["holder"] == "pod-b").then_some(()))
            .await
            .context(stage.name.clone())?;
        policy.wait_for("FenceCurrent", "Published").await?;
        policy.wait_for("Ready", "Reachable").await?;
        stage.epochs_are(&[1]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_store_that_swallows_a_new_fence_is_told_of_within_seconds_and_not_when_all_tries_are_over() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("swallowed").await?;
    let leader = Leader::new(cluster.client().await?, &namespace, "leader");
    leader.lead("pod-a", 0).await?;
    let _operator = Operator::start(cluster, &namespace, &[]).await?;
    let stage = Stage::set(cluster, &namespace, "orders", 1).await?;
    let policy = stage.apply().await?;
    policy.wait_for("FenceCurrent", "Published").await?;
    stage.fence_is(1).await?;
    stage.proxy.silence();
    let changed = Instant::now();
    leader.lead("pod-b", 1).await?;
    let (status, message) = policy.wait_for("FenceCurrent", "PublishFailed").await?;
    let told = changed.elapsed();
    say(&format!("from the change of the Lease to PublishFailed: {told:?}"))?;
    ensure!(told < Duration::from_secs(4), "it took {told:?}: {message}");
    ensure!(status == "False", "{status}");
    for words in ["version 2", "\"pod-b\"", "publishing the fence", "has not answered for 2s", "check the endpoint"] {
        ensure!(message.contains(words), "{words} is missing: {message}");
    }
    // It is tried on meanwhile: the same publication ends well, with no other look at the store.
    stage.proxy.resume();
    stage.fence_is(2).await?;
    policy.wait_for("FenceCurrent", "Published").await?;
    Ok(())
}

/// A store that lets every create of a probe succeed, and keeps whatever is written.
fn overwriting_and_locked(proxy: &Proxy) {
    let won = |answer: Answer| {
        if answer.status == 412 { Answer::new(200).header("etag", "\"won\"") } else { answer }
    };
    drop(proxy.on("PUT", PROBES).rewrite(won));
    for method in ["POST", "DELETE"] {
        drop(proxy.on(method, "*").answer(Answer::s3(403, "ObjectLocked")));
    }
}

#[tokio::test]
async fn an_unsafe_store_that_keeps_what_probes_write_is_not_probed_again_until_somebody_asks() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("locked").await?;
    Leader::new(cluster.client().await?, &namespace, "leader").lead("pod-a", 0).await?;
    let _operator = Operator::start(cluster, &namespace, &[]).await?;
    let stage = Stage::set(cluster, &namespace, "orders", 1).await?;
    overwriting_and_locked(&stage.proxy);
    let policy = stage.apply().await?;
    let (_, message) = policy.wait_for("StoreReady", "UnsafeStore").await?;
    ensure!(message.contains("were all answered with success"), "{message}");
    let (writes, looks) = (|| stage.proxy.requests("PUT", PROBES), || stage.proxy.requests("GET", OWNERS));
    let (of_a_probe, looked) = (writes(), looks());
    ensure!(of_a_probe >= 16, "{of_a_probe}");

    let mut changed = stage.spec();
    changed["retention"] = serde_json::json!({ "keepLast": 2 });
    policy.update(changed).await?;
    until("a look at the store", SOON, async || (looks() > looked).then_some(())).await?;
    let probed = until("another probe", Duration::from_secs(3), async || (writes() > of_a_probe).then_some(())).await;
    ensure!(probed.is_err(), "a probe of what is known leaves more keys");
    policy.wait_for("StoreReady", "UnsafeStore").await?;

    policy.ask("probe@1").await?;
    policy.wait_until("the answer", |status| (status["lastRunRequest"] == "probe@1").then_some(())).await?;
    ensure!(writes() == 2 * of_a_probe, "{} writes and not twice {of_a_probe}", writes());
    Ok(())
}

#[tokio::test]
async fn a_fence_that_cannot_be_written_is_publish_failed_until_it_can() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("unwritten").await?;
    let leader = Leader::new(cluster.client().await?, &namespace, "leader");
    leader.lead("pod-a", 0).await?;
    let _operator = Operator::start(cluster, &namespace, &[]).await?;
    let plays = LASTING.iter().map(async |(name, fault, words)| {
        let stage = Stage::set(cluster, &namespace, name, 1).await?;
        let policy = stage.apply().await?;
        policy.wait_for("FenceCurrent", "Published").await?;
        stage.fence_is(1).await?;
        fault(&stage.proxy);
        anyhow::Ok((stage, policy, *words))
    });
    let stages = try_join_all(plays).await?;
    leader.lead("pod-b", 1).await?;
    for (stage, policy, words) in &stages {
        let (status, message) = policy.wait_for("FenceCurrent", "PublishFailed").await.context(stage.name.clone())?;
        ensure!(status == "False" && message.contains(words), "{}: {message}", stage.name);
        ensure!(stage.bucket.fence().await? == 1, "{}: the fence moved", stage.name);
        // What may be read is read: an audit goes on.
        policy.ask("audit").await?;
        policy.wait_for("AuditClean", "Clean").await.context(stage.name.clone())?;
        stage.proxy.clear();
        stage.fence_is(2).await?;
        policy.wait_for("FenceCurrent", "Published").await?;
    }
    Ok(())
}
