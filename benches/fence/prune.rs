//! A prune of a million objects, beside which leaders change.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use epochwarden_testkit::memory::MemoryServer;
use epochwarden_testkit::wait::until;
use serde_json::json;

use crate::figures::Figures;
use crate::stage::{Contender, Stage};
use crate::support::policy::Policy;

/// Together a million partials. No more epochs: more of them would wait for approval.
const EPOCHS: usize = 1_000;
const VNODES: usize = 1_000;

/// The fewest changes beside the prune that say something of a p99.
const FEWEST: usize = 200;

/// How long anything may take that is not measured.
const DEADLINE: Duration = Duration::from_mins(5);

/// The time from a change of a Lease to the PUT of its record, without a prune and beside one.
pub(crate) struct Measured {
    pub(crate) alone: Figures,
    pub(crate) beside: Figures,
    /// How many objects were deleted while changes were measured, and in which time.
    pub(crate) deleted: usize,
    pub(crate) took: Duration,
}

pub(crate) async fn measure(changes: usize) -> Result<Measured> {
    let server = MemoryServer::s3()?;
    let stage = Stage::in_memory("bench-prune", &server).await?;
    fill(&server, &stage.namespace)?;
    let operator = stage.operator().await?;
    let lone = stage.policy("lone").await?;
    let mut alone = Vec::new();
    for _ in 0..changes {
        alone.push(stage.change(&lone).await?.sent);
    }

    let mut spec = json!({
        "store": stage.bucket.store(Some("state")),
        "vnodes": VNODES,
        "retention": { "keepLast": 1 },
        "prune": { "minAge": "0s", "maxKeysPerSecond": 1_000_000, "maxObjects": 1_000_000_000 },
    });
    spec["store"]["url"] = format!("{}/many", stage.bucket.url).into();
    let policy = Policy::apply(stage.cluster, &stage.namespace, "many", spec).await?;
    policy.wait_for("StoreReady", "Reachable").await?;
    policy.ask("prune@1").await?;
    policy.wait_for("PruneHealthy", "Running").await?;
    let measured = beside(&stage, &server, &lone).await?;
    until("the end of the prune", DEADLINE, async || {
        let status = policy.status().await.ok()?;
        (status["prune"]["phase"] == "Succeeded").then_some(())
    })
    .await
    .with_context(|| operator.log())?;
    ensure!(measured.0.len() >= FEWEST, "only {} changes were made while the prune ran", measured.0.len());
    let (beside, deleted, took) = measured;
    Ok(Measured { alone: Figures::of(alone), beside: Figures::of(beside), deleted, took })
}

/// Changes the leader for as long as the prune has something left to delete.
async fn beside(stage: &Stage, server: &MemoryServer, lone: &Contender) -> Result<(Vec<Duration>, usize, Duration)> {
    let (before, began) = (server.objects(&stage.namespace), Instant::now());
    let mut measured = Vec::new();
    loop {
        let sent = stage.change(lone).await?.sent;
        let left = server.objects(&stage.namespace);
        // The epoch that is kept, some registers, and a margin: the change that meets the end does not count.
        if left < 3 * VNODES {
            return Ok((measured, before.saturating_sub(left), began.elapsed()));
        }
        ensure!(began.elapsed() < DEADLINE, "the prune has left {left} objects");
        measured.push(sent);
    }
}

/// Puts the epochs there, each with its seal last.
fn fill(server: &MemoryServer, bucket: &str) -> Result<()> {
    for epoch in 1..=EPOCHS {
        for vnode in 0..VNODES {
            let key = format!("state/many/epoch={epoch}/vnode={vnode}/partial.bin");
            server.put(bucket, &key, Bytes::from_static(b"state"))?;
        }
        server.put(bucket, &format!("state/many/epoch={epoch}/_COMMIT"), Bytes::from_static(b"pipeline-1"))?;
    }
    Ok(())
}
