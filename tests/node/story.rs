//! All that happens to a release in its life, while pods seal epochs.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use epochwarden_store::{Clock as _, SystemClock};
use epochwarden_testkit::node::isolated;
use epochwarden_testkit::{s3server::S3Server, wait::until};
use serde_json::Value;

use crate::kept::PINNED;
use crate::release;
use crate::scene::{Scene, condition};
use crate::tenant::{APP, secret};

const SOON: Duration = Duration::from_mins(2);
const NEXT: &str = "localhost/epochwarden:next";

#[test]
fn from_install_to_uninstall_no_commit_that_retention_keeps_is_lost() -> Result<()> {
    isolated("story::from_install_to_uninstall_no_commit_that_retention_keeps_is_lost", async || {
        let (scene, mut server) = Scene::open().await?;
        let told = tokio::select! {
            told = story(&scene, &mut server) => told,
            lost = scene.watch() => lost,
        };
        if let Err(error) = told {
            return Err(error.context(scene.evidence().await));
        }
        let account = scene.settle(&server).await?;
        println!("{account}");
        Ok(())
    })
}

async fn story(scene: &Scene, server: &mut S3Server) -> Result<()> {
    let mut clock = Clock::start();
    release::install(&scene.node).await?;
    scene.pair().await?;
    scene.move_in(server).await?;
    until("the pipeline leads", SOON, async || scene.term().await.ok()).await?;
    scene.fence_stands().await?;
    clock.tell("installed, and the first epochs are sealed");

    scene.fence_moves().await?;
    clock.tell("the fence has moved with the Lease");

    scheduled_runs_succeed(scene).await?;
    clock.tell("pruned and audited on schedule");

    another_operator_finishes_a_prune(scene).await?;
    clock.tell("a prune was finished by another operator than the one that began it");

    keys_are_rotated(scene, server).await?;
    clock.tell("the keys are others");

    replaced(scene, NEXT, async || release::upgrade(&scene.node, "image.tag=next,maxConcurrentRuns=2").await).await?;
    clock.tell("upgraded");
    replaced(scene, release::REFERENCE, async || release::roll_back(&scene.node).await).await?;
    clock.tell("rolled back");

    scheduled_runs_succeed(scene).await?;
    clock.tell("pruned and audited once more");

    nothing_goes_with_the_release(scene).await?;
    clock.tell("uninstalled");
    Ok(())
}

/// Waits for a prune that deletes and for an audit that finds nothing, both begun from now on, and asked for by nobody.
async fn scheduled_runs_succeed(scene: &Scene) -> Result<()> {
    let now = SystemClock.now();
    let ran = |status: &Value| {
        let started = |run: &str| status[run]["startedAt"].as_str()?.parse::<jiff::Timestamp>().ok();
        let is_new = |run: &str| started(run).is_some_and(|started| started > now);
        let pruned = is_new("prune") && status["prune"]["phase"] == "Succeeded";
        let deleted = status["prune"]["epochs"].as_u64().is_some_and(|epochs| epochs > 0);
        let audited = is_new("audit") && status["audit"]["verdict"] == "Clean";
        let healthy = condition(status, "PruneHealthy").0 == "True" && condition(status, "AuditClean").0 == "True";
        (pruned && deleted && audited && healthy).then(|| status.clone())
    };
    let status = scene.until_status("a prune and an audit on schedule", ran).await?;
    println!("the prune on schedule: {}", status["prune"]);
    ensure!(status["lastRunRequest"].is_null(), "somebody asked for a run: {}", status["lastRunRequest"]);
    Ok(())
}

/// The leader is killed when it has deleted some of what it planned, and waits for the store with the rest.
async fn another_operator_finishes_a_prune(scene: &Scene) -> Result<()> {
    let (leader, waiting) = scene.pair().await?;
    let floor = scene.with(|_, ledger| ledger.shelf.register("floor"))?;
    let began = async || {
        let (floor, planned) = planned_above(scene, floor).ok()?;
        let left = left_of(scene, &planned).ok()?;
        (!left.is_empty() && left.len() < planned.len()).then_some((floor, planned))
    };
    let (_, planned) = until("a prune has deleted something", SOON, began).await?;
    let held = scene.proxy.on("POST", "/state*delete*").hang();
    let hangs = async || {
        let status = scene.status().await.ok()?;
        let running = status["prune"]["phase"] == "Running" && !status["prune"]["progress"].is_null();
        (running && held.count() > 0).then_some(status["prune"].clone())
    };
    let running = until("the prune waits for the store", SOON, hangs).await?;
    scene.node.kill_pod(&leader).await?;
    let left = left_of(scene, &planned)?;
    ensure!(
        !left.is_empty() && left.len() < planned.len(),
        "not in the middle: {} of {} epochs are left",
        left.len(),
        planned.len()
    );
    println!("{leader} is killed with {} of {} epochs left: {running}", left.len(), planned.len());
    scene.proxy.clear();
    let kill = ["--namespace", release::NAMESPACE, "delete", "pod", &leader, "--grace-period=0", "--force"];
    scene.node.told(&kill, "").await?;

    let other = async || release::leader(&scene.node).await.filter(|holder| *holder != leader);
    let successor = until("another operator leads", SOON, other).await?;
    ensure!(successor == waiting, "{successor} leads, and {waiting} had waited for it");
    let finished = |status: &Value| {
        let again = status["prune"]["startedAt"] != running["startedAt"];
        (again && status["prune"]["phase"] == "Succeeded").then_some(())
    };
    scene.until_status("the prune succeeds", finished).await?;
    let left = left_of(scene, &planned)?;
    ensure!(left.is_empty(), "{left:?} are left of {planned:?}");
    let counted = scene.counts(&waiting, "epochwarden_prune_runs_total{", r#"result="Succeeded""#).await?;
    ensure!(counted, "{waiting} does not count the prune as its own");
    let two = async || scene.operators().await.ok().filter(|operators| operators.len() == 2);
    until("there are two operators again", SOON, two).await.map(drop)
}

/// The floor, where it is above the one of before, and the epochs that were sealed between them, of which retention keeps none.
fn planned_above(scene: &Scene, before: u64) -> Result<(u64, BTreeSet<u64>)> {
    scene.with(|_, ledger| {
        let floor = ledger.shelf.register("floor")?;
        ensure!(floor > before, "no prune has begun");
        Ok((floor, ledger.ever().range(before..floor).copied().filter(|&epoch| epoch != PINNED).collect()))
    })
}

/// Of these epochs, those of which anything is left.
fn left_of(scene: &Scene, epochs: &BTreeSet<u64>) -> Result<BTreeSet<u64>> {
    scene.with(|_, ledger| Ok(ledger.shelf.epochs()?.intersection(epochs).copied().collect()))
}

/// From one moment to the next the store knows other keys only. The pipeline's pods take keys from their environment and have to be
/// rolled; the operators go on as they are.
async fn keys_are_rotated(scene: &Scene, server: &mut S3Server) -> Result<()> {
    let (leader, operators) = (scene.pair().await?.0, scene.operators().await?);
    server.change_keys().await?;
    let refused = |status: &Value| (condition(status, "StoreReady") == ("False", "AccessDenied")).then_some(());
    scene.until_status("the old keys are refused", refused).await?;
    scene.node.told(&["apply", "-f", "-"], &secret(server).to_string()).await?;
    scene.tenant(&["rollout", "restart", "deployment", APP]).await?;
    let ready = |status: &Value| (condition(status, "Ready").0 == "True").then_some(());
    scene.until_status("the policy is Ready with the new keys", ready).await?;
    scene.fence_stands().await?;
    ensure!(scene.operators().await? == operators, "operators were started anew: {:?}", scene.operators().await?);
    let still = release::leader(&scene.node).await;
    ensure!(still.as_ref() == Some(&leader), "{still:?} leads, not {leader}");
    Ok(())
}

/// Helm replaces the operators by those of another image, and epochs are sealed all the while.
async fn replaced(scene: &Scene, image: &str, act: impl AsyncFn() -> Result<()>) -> Result<()> {
    scene.node.tag(release::REFERENCE, NEXT)?;
    let (before, commits) = (scene.operators().await?, scene.commits()?);
    act().await?;
    let sealed = scene.commits()? - commits;
    ensure!(sealed > 0, "nothing was sealed meanwhile");
    println!("{sealed} epochs were sealed while the operators came to be {image}");
    let operators = scene.operators().await?;
    let others = operators.iter().all(|operator| operator.image == image && !before.contains(operator));
    ensure!(others && operators.len() == 2, "{operators:?} instead of {before:?}");
    scene.fence_moves().await
}

/// The policy, its resource and the bucket outlive the operators; epochs are sealed without them, and a policy can be deleted.
async fn nothing_goes_with_the_release(scene: &Scene) -> Result<()> {
    release::uninstall(&scene.node).await?;
    scene.node.told(&["get", "crd", "stateepochpolicies.epochwarden.io"], "").await.context("the resource has gone")?;
    scene.status().await.context("the policy has gone")?;
    scene.more_commits().await?;
    scene.tenant(&["delete", "stateepochpolicy", APP, "--timeout=60s"]).await?;
    scene.more_commits().await?;
    scene.tenant(&["scale", "deployment", APP, "--replicas=0"]).await?;
    let none = async || scene.tenant(&["get", "pods", "-o", "name"]).await.ok().filter(String::is_empty);
    until("no pod of the pipeline is left", SOON, none).await.map(drop)
}

/// Tells how long each part took.
struct Clock(Instant);

impl Clock {
    #[allow(clippy::disallowed_methods, reason = "what is told is real time")]
    fn start() -> Self {
        Self(Instant::now())
    }

    fn tell(&mut self, what: &str) {
        println!("{:>4} s: {what}", self.0.elapsed().as_secs());
    }
}
