//! What a person does to a fence that does not move, and what making a Lease or a policy anew does to it.

use std::process::Command;

use anyhow::{Result, ensure};
use epochwarden_core::Version;
use epochwarden_store::Registers;

use super::{Stage, spec};
use crate::support::cluster;
use crate::support::policy::Policy;

/// `epochwarden fence publish`, as the documentation tells people.
fn publish(stage: &Stage, version: u64, holder: &str) -> Result<()> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_epochwarden"));
    command.args(["fence", "publish", "--yes", "--store", &stage.bucket.url, "--holder", holder]);
    let done = command.arg("--version").arg(version.to_string()).output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// A stage whose fence stands at 3, and is gone.
async fn lost(prefix: &str) -> Result<Stage> {
    let stage = Stage::set(prefix, "LeaseTransitions").await?;
    stage.leader.lead("pod-a", 2).await?;
    stage.policy.wait_for("FenceCurrent", "Published").await?;
    stage
        .policy
        .wait_until("the fence in the status", |status| (status["fence"]["version"] == 3).then_some(()))
        .await?;
    std::fs::remove_dir_all(stage.bucket.path()?.join("_epochwarden/fence"))?;
    stage.policy.ask("audit@lost").await?;
    stage.policy.wait_for("FenceCurrent", "RegisterLost").await?;
    Ok(stage)
}

#[tokio::test]
async fn a_lost_fence_that_a_person_publishes_again_is_followed_from_there() -> Result<()> {
    let stage = lost("published-again").await?;
    publish(&stage, 3, "pod-a")?;
    stage.policy.ask("audit@found").await?;
    stage.policy.wait_for("FenceCurrent", "Published").await?;
    stage.leader.lead("pod-b", 3).await?;
    stage.fence_is(4).await
}

#[tokio::test]
async fn a_policy_that_is_made_anew_has_forgotten_a_lost_fence() -> Result<()> {
    let stage = lost("made-anew").await?;
    stage.policy.delete().await?;
    let anew = Policy::apply(
        cluster().await?,
        &stage.policy.namespace,
        "orders",
        spec(&stage.bucket, "LeaseTransitions", None),
    )
    .await?;
    anew.wait_for("FenceCurrent", "Published").await?;
    stage.fence_is(3).await
}

#[tokio::test]
async fn a_jump_that_a_person_publishes_is_followed_from_there() -> Result<()> {
    let stage = Stage::set("jumped", "LeaseTransitions").await?;
    stage.leader.lead("pod-a", 0).await?;
    stage.fence_is(1).await?;
    stage.leader.lead("pod-b", 2_000_000).await?;
    stage.policy.wait_for("FenceCurrent", "VersionJump").await?;
    publish(&stage, 2_000_001, "pod-b")?;
    stage.policy.ask("audit@jumped").await?;
    stage.policy.wait_for("FenceCurrent", "Published").await?;
    stage.leader.lead("pod-c", 2_000_001).await?;
    stage.fence_is(2_000_002).await
}

#[tokio::test]
async fn a_lease_that_is_made_anew_for_the_same_holder_and_version_conflicts_and_writes_nothing() -> Result<()> {
    let stage = Stage::set("same-again", "LeaseTransitions").await?;
    stage.leader.lead("pod-a", 1).await?;
    stage.fence_is(2).await?;
    stage.policy.wait_for("FenceCurrent", "Published").await?;
    let registers = Registers::new(stage.bucket.root.clone(), "test");
    let before = format!("{:?}", registers.fence_record(Version::new(2)).await?);

    stage.leader.delete().await?;
    stage.policy.wait_for("FenceCurrent", "LeaseNotFound").await?;
    stage.leader.lead("pod-a", 1).await?;
    let (status, message) = stage.policy.wait_for("FenceCurrent", "FenceConflict").await?;
    ensure!(status == "False" && message.contains("pod-a"), "{message}");
    ensure!(format!("{:?}", registers.fence_record(Version::new(2)).await?) == before, "the record was written over");
    ensure!(registers.fence_records().await?.len() == 1);
    // The next term is above it.
    stage.leader.lead("pod-b", 2).await?;
    stage.fence_is(3).await
}
