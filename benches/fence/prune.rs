//! A prune of a million objects, beside which leaders change.

use std::slice;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use epochwarden_testkit::memory::MemoryServer;
use epochwarden_testkit::wait::until;
use serde_json::json;

use crate::figures::Since;
use crate::stage::{Contender, Stage, nice};
use crate::support::operator::Operator;
use crate::support::policy::Policy;

/// Together a million partials. No more epochs: more of them would wait for approval.
const EPOCHS: usize = 1_000;
const VNODES: usize = 1_000;

/// The fewest changes beside the prune that say something of a p99.
const FEWEST: usize = 200;

/// How long anything may take that is not measured.
const DEADLINE: Duration = Duration::from_mins(5);

/// What a change of a Lease takes until its PUT has reached the store, without a prune and beside one.
pub(crate) struct Measured {
    pub(crate) alone: Since,
    pub(crate) beside: Since,
    /// How many objects were deleted while changes were measured, and in which time.
    pub(crate) deleted: usize,
    pub(crate) took: Duration,
}

pub(crate) async fn measure(changes: usize) -> Result<Measured> {
    // Two servers, so that what is measured is the operator and not how a store answers two at once.
    let (full, server) = (nice_server()?, MemoryServer::s3()?);
    let stage = Stage::in_memory("bench-prune", &server).await?;
    full.create_bucket(&stage.namespace)?;
    fill(&full, &stage.namespace)?;
    let operator = stage.operator().await?;
    let lone = stage.policy("lone").await?;
    let mut alone = Vec::new();
    for _ in 0..changes {
        alone.push(one(&stage, &operator, &lone).await?);
    }

    let mut spec = json!({
        "store": stage.bucket.store(Some("state")),
        "vnodes": VNODES,
        "retention": { "keepLast": 1 },
        "prune": { "minAge": "0s", "maxKeysPerSecond": 1_000_000, "maxObjects": 1_000_000_000 },
    });
    spec["store"]["url"] = format!("{}/many", stage.bucket.url).into();
    spec["store"]["options"]["aws_endpoint"] = full.url().into();
    let policy = Policy::apply(stage.cluster, &stage.namespace, "many", spec).await?;
    policy.wait_for("StoreReady", "Reachable").await?;
    policy.ask("prune@1").await?;
    policy.wait_for("PruneHealthy", "Running").await?;

    // For as long as the prune has something left to delete.
    let (before, began) = (full.objects(&stage.namespace), Instant::now());
    let mut beside = Vec::new();
    let (deleted, took) = loop {
        let change = one(&stage, &operator, &lone).await?;
        let left = full.objects(&stage.namespace);
        // The epoch that is kept, some registers, and a margin: the change that meets the end does not count.
        if left < 3 * VNODES {
            break (before.saturating_sub(left), began.elapsed());
        }
        ensure!(began.elapsed() < DEADLINE, "the prune has left {left} objects");
        beside.push(change);
    };
    ensure!(beside.len() >= FEWEST, "only {} changes were made while the prune ran", beside.len());
    until("the end of the prune", DEADLINE, async || {
        let status = policy.status().await.ok()?;
        (status["prune"]["phase"] == "Succeeded").then_some(())
    })
    .await
    .with_context(|| operator.log())?;
    Ok(Measured { alone: Since::of(alone), beside: Since::of(beside), deleted, took })
}

/// A server that gives way to everything else: a store takes no time of the operator's machine.
fn nice_server() -> Result<MemoryServer> {
    let started = std::thread::spawn(|| {
        nice()?;
        MemoryServer::s3()
    });
    started.join().map_err(|_| anyhow!("the store could not be started"))?
}

/// One change: how long it took to the store since it was accepted, and since its event was received.
///
/// What the store had of the operator's own time is taken off; the way of the answer back to the operator is not, so this is the most
/// that it can have been.
async fn one(stage: &Stage, operator: &Operator, contender: &Contender) -> Result<(Duration, Duration)> {
    let before = stage.lags(operator).await?;
    let change = stage.change(contender).await?;
    let lags = stage.lags_after(operator, slice::from_ref(contender), &before).await?;
    let lag = lags.first().context("one leader has one lag")?;
    let store = change.durable.saturating_sub(change.sent);
    Ok((change.sent, lag.saturating_sub(store)))
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
