//! One endpoint that swallows everything, among fifty policies.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use epochwarden_testkit::wait::until;
use futures::future::try_join_all;
use jiff::{Timestamp, ToSpan};
use serde_json::json;
use tokio::time::Instant;

use super::Stage;
use crate::support::bucket::Bucket;
use crate::support::lease::{Leader, now};
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{SOON, cluster, say};

/// How many policies have a store that answers.
const ALIVE: usize = 49;

/// How often the endpoint dies; each time, and before each time, every leader changes twice.
const DEATHS: i32 = 2;

/// How long the policies' runs of one slot may take to begin: they are spread, and a few run at a time.
const BEGUN: Duration = Duration::from_secs(20);

struct Alive {
    folder: PathBuf,
    leader: Leader,
    policy: Policy<'static>,
}

impl Alive {
    /// From the change of the Lease to the durable fence.
    async fn lag(&self, transitions: i32) -> Result<Duration> {
        let changed = Instant::now();
        self.leader.lead(&format!("pod-{transitions}"), transitions).await?;
        let record = self.folder.join(format!("_epochwarden/fence/{:020}", transitions + 1));
        until("the record of the fence", SOON, async || record.exists().then_some(())).await?;
        Ok(changed.elapsed())
    }
}

/// Every leader changes twice, one after another, as they do in different pipelines.
async fn lags(alive: &[Alive], next: &mut i32) -> Result<Vec<Duration>> {
    let mut lags = Vec::new();
    for _ in 0..2 {
        for one in alive {
            lags.push(one.lag(*next).await?);
        }
        *next += 1;
    }
    Ok(lags)
}

fn quantiles(mut lags: Vec<Duration>) -> (Duration, Duration) {
    lags.sort_unstable();
    (lags[lags.len() / 2], lags[lags.len() * 99 / 100])
}

#[tokio::test]
async fn a_dead_endpoint_among_fifty_policies_delays_no_fence_and_no_run_of_the_others() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("fifty").await?;
    let folder = tempfile::tempdir()?;
    let root = folder.path().to_str().context("a folder's name")?;
    let dead = Stage::set(cluster, &namespace, "dead", 3).await?;
    let operator = Operator::start(cluster, &namespace, &["--allow-file-root", root]).await?;
    let all = try_join_all((0..ALIVE).map(async |number| {
        let name = format!("alive-{number}");
        let folder = folder.path().join(&name);
        std::fs::create_dir(&folder)?;
        let bucket = Bucket::at_folder(&folder)?;
        let leader = Leader::new(cluster.client().await?, &namespace, &name);
        leader.lead("pod-0", 0).await?;
        let spec = json!({
            "store": bucket.store(None),
            "vnodes": 4,
            "fence": { "leaseRef": { "name": name } },
            "audit": { "schedule": "* * * * *", "sealCheckEvery": "0s" },
        });
        let policy = Policy::apply(cluster, &namespace, &name, spec).await?;
        anyhow::Ok(Alive { folder, leader, policy })
    }));
    let leader = Leader::new(cluster.client().await?, &namespace, "leader");
    leader.lead("pod-0", 0).await?;
    let mut spec = dead.spec();
    for run in ["prune", "audit"] {
        spec[run]["schedule"] = "* * * * *".into();
    }
    let policy = Policy::apply(cluster, &namespace, "dead", spec).await?;
    let all = all.await?;
    policy.wait_for("FenceCurrent", "Published").await?;
    for one in &all {
        one.policy.wait_for("FenceCurrent", "Published").await?;
    }
    // In turns, so that whatever else the machine does falls on both.
    let (mut before, mut beside, mut next) = (Vec::new(), Vec::new(), 1);
    for death in 1..=DEATHS {
        before.extend(lags(&all, &mut next).await?);
        // It dies in the middle of its work: connections stand, and nothing comes.
        dead.proxy.silence();
        leader.lead(&format!("pod-{death}"), death).await?;
        policy.wait_for("FenceCurrent", "PublishFailed").await?;
        beside.extend(lags(&all, &mut next).await?);
        if death < DEATHS {
            dead.proxy.resume();
            policy.wait_for("FenceCurrent", "Published").await?;
        }
    }
    let died = now();
    let changes = beside.len();
    let ((median, p99), (median_then, p99_then)) = (quantiles(before), quantiles(beside));
    say(&format!(
        "from the change of the Lease to the durable fence, {changes} times among 50 policies: median {median:?}, p99 {p99:?}; \
         with a dead endpoint among them: median {median_then:?}, p99 {p99_then:?}"
    ))?;
    ensure!(p99_then < Duration::from_secs(1).max(3 * p99), "p99 {p99_then:?}");

    // The first slot that came wholly after the death.
    let minute = died.as_second() - died.as_second().rem_euclid(60);
    let slot = Timestamp::from_second(minute)? + 1.minute();
    let mut latest = Duration::ZERO;
    for one in &all {
        let started: Timestamp = until("an audit of the slot", 3 * SOON, async || {
            let status = one.policy.status().await.ok()?;
            let history = status["history"].as_array()?;
            let started = history.iter().filter_map(|run| run["startedAt"].as_str()?.parse::<Timestamp>().ok());
            started.filter(|started| *started >= slot).min()
        })
        .await
        .context(one.policy.name.clone())?;
        latest = latest.max(started.duration_since(slot).unsigned_abs());
    }
    say(&format!("of 49 audits due in the same second beside a dead endpoint the last began after {latest:?}"))?;
    ensure!(latest < BEGUN, "{latest:?}");
    let (code, _) = operator.get("/livez").await?;
    ensure!(code == 200);
    dead.epochs_are(&[3]).await.or(dead.epochs_are(&[1, 2, 3]).await)?;

    dead.proxy.resume();
    policy.wait_for("FenceCurrent", "Published").await?;
    dead.fence_is(u64::try_from(DEATHS)? + 1).await?;
    Ok(())
}
