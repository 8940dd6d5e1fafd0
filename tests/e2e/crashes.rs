//! The operator and the command line die: at every point that has a name, at random moments, and beside another one that goes on.

use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use epochwarden_store::crash::{POINTS, VARIABLE};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tokio::process::Command;
use tokio::time::Instant;
use uuid::Uuid;

use crate::support::bucket::Bucket;
use crate::support::kills::{Stage, survives, two_at_once};
use crate::support::lease::Leader;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{SOON, cluster, say};

/// How many points are tried at the same time.
const AT_ONCE: usize = 4;

const SIGABRT: i32 = 6;

/// An operator dies at this point, and the next one does all that was to be done.
async fn dies_at(point: &'static str) -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("crash").await?;
    let bucket = Bucket::folder()?;
    bucket.seal(1..=8, 2).await?;
    let root = bucket.path()?.display().to_string();
    let flags = ["--allow-file-root", root.as_str()];
    let leader = Leader::new(cluster.client().await?, &namespace, "orders-leader");
    leader.lead("pod-a", 0).await?;
    let spec = json!({
        "store": bucket.store(None),
        "vnodes": 2,
        "fence": { "leaseRef": { "name": "orders-leader" } },
        "retention": { "keepLast": 3, "pinned": [{ "epoch": "2" }] },
        "prune": { "minAge": "0s" },
        "audit": { "sealCheckEvery": "0s" },
    });
    let run = ["prune", "audit"].into_iter().find(|kind| point.starts_with(kind));

    let mut dying = Operator::start_with(cluster, &namespace, &flags, &[(VARIABLE, point)]).await?;
    let policy = Policy::apply(cluster, &namespace, "orders", spec).await?;
    // What is neither a prune's nor an audit's is passed on the way to the first fence.
    if let Some(kind) = run {
        policy.wait_for("FenceCurrent", "Published").await?;
        policy.ask(&format!("{kind}@1")).await?;
    }
    let status = dying.process.wait_exit(SOON).await.context("it never came to the point")?;
    ensure!(status.signal() == Some(SIGABRT), "it ended with {status}:\n{}", dying.log());

    let next = Operator::start(cluster, &namespace, &flags).await?;
    let log = || format!("the log of the next operator:\n{}", next.log());
    policy.wait_for("FenceCurrent", "Published").await.with_context(log)?;
    ensure!(bucket.fence().await? == 1);
    // The run under which it died is owed without being asked for again.
    let asked = [run, Some("prune"), Some("audit")];
    for (ask, kind) in (1..).zip(asked).filter_map(|(ask, kind)| Some((ask, kind?))) {
        let request = format!("{kind}@{ask}");
        if ask > 1 {
            policy.ask(&request).await?;
        }
        let what = format!("{request} to succeed");
        let ended = policy.wait_until(&what, |status| {
            let run = &status[kind];
            let over = status["lastRunRequest"] == request.as_str() && run["phase"] == "Succeeded";
            (over && run["progress"].is_null()).then_some(())
        });
        ended.await.with_context(log)?;
    }
    for (type_, reason) in
        [("Ready", "Reachable"), ("PruneHealthy", "Succeeded"), ("AuditClean", "Clean"), ("FenceCurrent", "Published")]
    {
        policy.wait_for(type_, reason).await.with_context(log)?;
    }
    ensure!(bucket.sealed().await? == [2, 6, 7, 8]);
    ensure!(bucket.epochs().await? == [2, 6, 7, 8], "rests of pruned epochs are left");
    let registers = epochwarden_store::list_registers(&bucket.root).await?.reading();
    ensure!(registers.floor.get() == 6, "the floor is {}", registers.floor);
    let status = policy.status().await?;
    // The last prune found nothing left to do, and knows the floor all the same.
    ensure!(status["prune"]["floor"] == "6", "the floor is 6: {:#}", status["prune"]);
    ensure!(status["fence"]["version"] == 1 && status["fence"]["holder"] == "pod-a", "{:#}", status["fence"]);
    ensure!(!next.log().contains("panicked"), "{}", next.log());
    Ok(())
}

#[tokio::test]
async fn wherever_the_operator_dies_the_next_one_comes_to_the_same_end() -> Result<()> {
    let began = Instant::now();
    let died = stream::iter(POINTS)
        .map(|point| async move { dies_at(point).await.with_context(|| format!("dying at {point}")) });
    died.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    say(&format!(
        "the operator died at each of {} points, and was followed by one that finished, in {:?}",
        POINTS.len(),
        began.elapsed()
    ))?;
    Ok(())
}

/// What each kind of point is passed in.
const VERBS: [(&str, &str); 3] = [
    ("fence", "fence publish --version 5 --holder pod-a"),
    ("prune", "prune --vnodes 2 --keep-last 2 --min-age 0s --yes"),
    ("audit", "audit --vnodes 2"),
];

/// Runs a verb on a root; with a point, until it dies there.
async fn command(bucket: &Bucket, verb: &str, point: Option<&str>) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_epochwarden"));
    command.args(verb.split_whitespace()).args(["--store", &bucket.url]).kill_on_drop(true);
    for (key, value) in &bucket.options {
        command.args(["--store-option", &format!("{key}={value}")]);
    }
    if let Some(point) = point {
        command.env(VARIABLE, point);
    }
    Ok(tokio::time::timeout(SOON, command.output()).await.context("it has not ended")??)
}

/// A command dies at this point, and saying it again does all that was to be done.
async fn is_said_again(point: &str, verb: &str, bucket: &Bucket) -> Result<()> {
    bucket.seal(1..=5, 2).await?;
    let died = command(bucket, verb, Some(point)).await?;
    ensure!(died.status.signal() == Some(SIGABRT), "it ended with {died:?}");
    // The same once more, and then the others: none is in the way of another.
    for verb in [verb].into_iter().chain(VERBS.map(|(_, verb)| verb)) {
        let ended = command(bucket, verb, None).await?;
        ensure!(ended.status.success(), "{verb}: {ended:?}");
    }
    ensure!(bucket.sealed().await? == [4, 5] && bucket.epochs().await? == [4, 5], "{:?}", bucket.epochs().await?);
    let registers = epochwarden_store::list_registers(&bucket.root).await?.reading();
    ensure!((registers.fence.get(), registers.floor.get()) == (5, 4), "{registers:?}");
    let other = command(bucket, "fence publish --version 5 --holder pod-b", None).await?;
    ensure!(!other.status.success(), "the fence names nobody: {other:?}");
    Ok(())
}

#[tokio::test]
async fn wherever_a_command_dies_saying_it_again_comes_to_the_same_end() -> Result<()> {
    // Only a policy owns a root, and a hand that raises the fence once leaves nothing to trim.
    let points = POINTS.iter().filter(|point| !["owner-created", "fence-trimmed"].contains(point));
    let died = points.flat_map(|point| [(point, false), (point, true)]).map(async |(point, s3)| {
        let (_, verb) = VERBS.iter().find(|(kind, _)| point.starts_with(kind)).context("no verb passes it")?;
        let bucket = if s3 { Bucket::s3(&Uuid::new_v4().to_string()).await } else { Bucket::folder() }?;
        is_said_again(point, verb, &bucket).await.with_context(|| format!("dying at {point} in {}", bucket.url))
    });
    stream::iter(died).buffer_unordered(AT_ONCE).try_collect::<()>().await
}

#[tokio::test]
async fn an_operator_that_is_killed_at_random_moments_loses_nothing() -> Result<()> {
    survives(cluster().await?, Stage::Folder, 2).await
}

#[tokio::test]
async fn two_operators_at_once_do_no_harm_and_come_to_rest() -> Result<()> {
    two_at_once(cluster().await?, Stage::S3, 1).await
}
