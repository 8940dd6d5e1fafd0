//! Writes of the fence whose answers are refusals, conflicts, or never come.

use anyhow::{Context, Result, ensure};
use epochwarden_testkit::proxy::{Answer, Proxy};
use futures::future::try_join_all;

use super::Stage;
use crate::support::cluster;
use crate::support::lease::Leader;
use crate::support::operator::Operator;

const FENCES: &str = "*/state/_epochwarden/fence/*";

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
    ("hangs", |proxy| drop(proxy.on("PUT", FENCES).hang()), "no answer in time"),
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
