//! When a Lease has expired: by the operator's own clock, whatever time its holder writes into it.

use std::time::Duration;

use anyhow::{Result, ensure};
use epochwarden_testkit::wait::until;
use jiff::SignedDuration;
use tokio::time::{Instant, interval};

use super::{Stage, spec};
use crate::support::bucket::Bucket;
use crate::support::lease::Leader;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{SOON, cluster, secret};

/// How long the Leases last.
const LASTS: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_holder_whose_clock_is_wrong_by_an_hour_has_the_lease_for_as_long_as_it_renews_it() -> Result<()> {
    let mut stage = Stage::set("clocks", "LeaseTransitions").await?;
    stage.leader.seconds = i32::try_from(LASTS.as_secs())?;
    for hours in [-1, 1] {
        stage.leader.clock_off = SignedDuration::from_hours(hours);
        stage.leader.lead("pod-a", 0).await?;
        stage.policy.wait_for("FenceCurrent", "Published").await?;
        let (began, mut renewals) = (Instant::now(), interval(LASTS / 6));
        while began.elapsed() < 2 * LASTS {
            renewals.tick().await;
            stage.leader.lead("pod-a", 0).await?;
            let status = stage.policy.status().await?;
            let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
            let fence = conditions.iter().find(|condition| condition["type"] == "FenceCurrent");
            ensure!(
                fence.is_some_and(|fence| fence["reason"] == "Published"),
                "{hours} h, {:?}: {fence:?}",
                began.elapsed()
            );
        }
        // Nor does a time in the future keep it.
        stage.policy.wait_for("FenceCurrent", "LeaseExpired").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_lease_that_expires_before_the_store_is_ready_moves_nothing_until_it_is_renewed() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("too-late").await?;
    let bucket = Bucket::s3(&namespace).await?;
    let mut leader = Leader::new(cluster.client().await?, &namespace, "orders-leader");
    leader.seconds = i32::try_from(LASTS.as_secs())?;
    let _operator = Operator::start(cluster, &namespace, &["--lease-poll", "2s"]).await?;
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket, "LeaseTransitions", Some("state"))).await?;
    policy.wait_for("StoreReady", "SecretNotFound").await?;
    leader.lead("pod-a", 4).await?;
    policy.wait_for("FenceCurrent", "StoreNotReady").await?;
    let led = Instant::now();
    until("the Lease to expire", SOON, async || (led.elapsed() > 2 * LASTS).then_some(())).await?;

    secret(cluster, &namespace, "state", &bucket).await?;
    policy.wait_for("StoreReady", "Reachable").await?;
    let (_, message) = policy.wait_for("FenceCurrent", "LeaseExpired").await?;
    ensure!(message.contains("pod-a"), "{message}");
    ensure!(bucket.fence().await? == 0, "an expired Lease has moved the fence");
    leader.lead("pod-a", 4).await?;
    until("the fence of who has renewed", SOON, async || (bucket.fence().await.ok()? == 5).then_some(())).await
}
