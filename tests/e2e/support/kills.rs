//! Operators that are killed at random moments, and whether anything comes of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use epochwarden_testkit::apiserver::Cluster;

use super::operator::Operator;
use super::scene::{Scene, stands_still};
use super::{SOON, say};

/// The environment's variable that repeats a run: the random moments are then the same ones, as far as the machine allows.
const SEED: &str = "EPOCHWARDEN_SEED";

/// The longest time for which an operator is left alone.
const LONGEST: u64 = 4_000;

/// Where the scene plays.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage {
    Folder,
    S3,
}

impl Stage {
    async fn scene(self, cluster: &'static Cluster, prefix: &str) -> Result<Scene> {
        match self {
            Self::Folder => Scene::on_folder(cluster, prefix).await,
            Self::S3 => Scene::on_s3(cluster, prefix).await,
        }
    }
}

/// Where the random moments come from. Said, so that they can be had again.
pub(crate) fn seeded() -> Result<fastrand::Rng> {
    let seed = match std::env::var(SEED) {
        Ok(seed) => seed.parse().with_context(|| format!("{SEED}={seed} is not a number"))?,
        Err(_) => fastrand::u64(..),
    };
    say(&format!("the random moments are those of {SEED}={seed}"))?;
    Ok(fastrand::Rng::with_seed(seed))
}

/// Kills the operator so often, each time while a new leader is fenced, a prune and an audit are under way, and checks after each
/// restart that all of it comes to its end and nothing is lost.
pub(crate) async fn survives(cluster: &'static Cluster, stage: Stage, kills: u32) -> Result<()> {
    let mut random = seeded()?;
    let mut scene = stage.scene(cluster, "kills").await?;
    let mut operator = scene.operator().await?;
    scene.act().await?;
    scene.settled().await?;
    let witness = scene.watch();
    for kill in 1..=kills {
        let (alive, again) = (Duration::from_millis(random.u64(..LONGEST)), scene.operator_later());
        let killed = tokio::time::Instant::now() + alive;
        let replaced = async move {
            tokio::time::sleep_until(killed).await;
            ensure!(!operator.log().contains("panicked"), "{}", operator.log());
            operator.process.kill()?;
            again.await
        };
        let (acted, replacement) = tokio::join!(scene.act(), replaced);
        operator = replacement?;
        let settled = match acted {
            Ok(()) => scene.settled().await,
            Err(error) => Err(error),
        };
        settled
            .with_context(|| format!("after kill {kill}, {alive:?} after its restart; its log:\n{}", operator.log()))?;
    }
    let looks = witness.asked().await?;
    let log = operator.log();
    let curtain = scene.finish().await.with_context(|| format!("the log of the last operator:\n{log}"))?;
    say(&format!("{stage:?}: {kills} kills, {curtain}, the status was true at {looks} looks"))?;
    Ok(())
}

/// Two operators work for the same policy, through so many rounds: what one may not do, two may not do either.
pub(crate) async fn two_at_once(cluster: &'static Cluster, stage: Stage, rounds: u32) -> Result<()> {
    const QUIET: Duration = Duration::from_secs(5);
    let mut scene = stage.scene(cluster, "two").await?;
    let operators: (Operator, Operator) = (scene.operator().await?, scene.operator().await?);
    let witness = scene.watch();
    let logs = || format!("the logs:\n{}\nand the other's:\n{}", operators.0.log(), operators.1.log());
    for _ in 0..rounds {
        scene.act().await.with_context(logs)?;
        scene.settled().await.with_context(logs)?;
    }
    let looks = witness.asked().await.with_context(logs)?;
    let policy = std::sync::Arc::clone(&scene.policy);
    let version = scene.pipeline.version();
    let curtain = scene.finish().await.with_context(logs)?;
    let still = tokio::time::Instant::now();
    stands_still(&policy, QUIET).await.with_context(logs)?;
    // At the most one of each kind by each operator for each time that there was something to tell: a fence, a prune's begin and end.
    let (events, bound) = (policy.events().await?, 2 * (version + 2 * u64::from(rounds + 1) + 2));
    ensure!(u64::try_from(events.len())? <= bound, "{} Events, not {bound} at the most: {events:?}", events.len());
    ensure!(!logs().contains("panicked"), "{}", logs());
    say(&format!(
        "{stage:?}: two operators, {curtain}, {} Events, the status was true at {looks} looks and stood still {:?} after the end",
        events.len(),
        still.elapsed().saturating_sub(QUIET),
    ))?;
    ensure!(still.elapsed() < SOON);
    Ok(())
}
