//! A prune of a million objects, beside which leaders change.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use epochwarden_testkit::memory::MemoryServer;
use epochwarden_testkit::wait::until;
use serde_json::json;

use crate::figures::Figures;
use crate::stage::{Contender, Stage};
use crate::support::operator::Operator;
use crate::support::policy::Policy;

/// Together a million partials. No more epochs: more of them would wait for approval.
const EPOCHS: usize = 1_000;
const VNODES: usize = 1_000;

/// The fewest changes beside the prune that say something of a p99.
const FEWEST: usize = 200;

/// How long anything may take that is not measured.
const DEADLINE: Duration = Duration::from_mins(5);

/// What a change of a Lease takes without a prune and beside one.
pub(crate) struct Measured {
    pub(crate) alone: Taken,
    pub(crate) beside: Taken,
    /// How many objects were deleted while changes were measured, and in which time.
    pub(crate) deleted: usize,
    pub(crate) took: Duration,
}

/// The same changes, measured from two beginnings to the arrival of the PUT at the store.
pub(crate) struct Taken {
    /// From the change accepted by the API server.
    pub(crate) since_accepted: Figures,
    /// From the event received by the operator.
    pub(crate) since_received: Figures,
}

pub(crate) async fn measure(changes: usize) -> Result<Measured> {
    // Two servers, so that what is measured is the operator and not how a store answers two at once.
    let (full, server) = (MemoryServer::s3()?, MemoryServer::s3()?);
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
    Ok(Measured { alone: Taken::of(alone), beside: Taken::of(beside), deleted, took })
}

/// One change: how long it took since it was accepted, and since its event was received.
///
/// The operator itself counts from the event until it knows the record durable. What the store had of that is taken off; the way of the
/// answer back to the operator is not, so this is the most it can have been.
async fn one(stage: &Stage, operator: &Operator, contender: &Contender) -> Result<(Duration, Duration)> {
    let before = Lags::of(operator).await?;
    let change = stage.change(contender).await?;
    let after = until("the operator to count the change", DEADLINE, async || {
        let now = Lags::of(operator).await.ok()?;
        (now.count > before.count).then_some(now)
    })
    .await?;
    ensure!(after.count == before.count + 1, "one change was counted {} times", after.count - before.count);
    let lag = after.sum.saturating_sub(before.sum);
    Ok((change.sent, lag.saturating_sub(change.durable.saturating_sub(change.sent))))
}

impl Taken {
    fn of(changes: Vec<(Duration, Duration)>) -> Self {
        let (accepted, received) = changes.into_iter().unzip();
        Self { since_accepted: Figures::of(accepted), since_received: Figures::of(received) }
    }
}

/// The operator's histogram of fence lags.
struct Lags {
    count: u64,
    sum: Duration,
}

impl Lags {
    async fn of(operator: &Operator) -> Result<Self> {
        let (_, scrape) = operator.get("/metrics").await?;
        let value = |name: &str| {
            let line = scrape.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim).with_context(|| format!("no {name} in the metrics"))
        };
        Ok(Self {
            count: value("epochwarden_fence_lag_seconds_count ")?.parse()?,
            sum: Duration::from_secs_f64(value("epochwarden_fence_lag_seconds_sum ")?.parse()?),
        })
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
