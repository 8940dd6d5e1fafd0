//! Many policies, whose leaders renew their Leases.

use std::collections::HashSet;
use std::pin::pin;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use epochwarden::api::StateEpochPolicy;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use crate::figures::Figures;
use crate::stage::{Contender, Stage, nice, turns};
use crate::support::lease::now;

/// How many are created at the same time.
const AT_ONCE: usize = 16;

/// Until when all must be at work.
const DEADLINE: Duration = Duration::from_mins(4);

pub(crate) struct Crowd {
    pub(crate) leaders: Vec<Contender>,
    leases: Api<Lease>,
}

/// Creates so many policies, each with a Lease and a root of its own, and waits until every policy is Ready.
pub(crate) async fn gather(stage: &Stage, count: usize) -> Result<Crowd> {
    let client = stage.cluster.client().await?;
    let policies: Api<StateEpochPolicy> = Api::namespaced(client.clone(), &stage.namespace);
    let leaders: Vec<Contender> = stream::iter(0..count)
        .map(|number| {
            let policies = &policies;
            async move {
                let name = format!("p-{number}");
                let contender = stage.contender(&name).await?;
                let policy = json!({
                    "apiVersion": "epochwarden.io/v1alpha1",
                    "kind": "StateEpochPolicy",
                    "metadata": { "name": name, "namespace": stage.namespace },
                    "spec": stage.spec(&name),
                });
                policies.create(&PostParams::default(), &serde_json::from_value(policy)?).await?;
                anyhow::Ok(contender)
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    all_ready(&policies, count).await?;
    Ok(Crowd { leaders, leases: Api::namespaced(client, &stage.namespace) })
}

/// Waits by a watch: listing so many policies again and again would keep the API server busier than the operator does.
async fn all_ready(policies: &Api<StateEpochPolicy>, count: usize) -> Result<()> {
    let mut ready = HashSet::new();
    let mut changes = pin!(watcher(policies.clone(), watcher::Config::default()).applied_objects());
    let waited = timeout(DEADLINE, async {
        while ready.len() < count {
            let policy = changes.try_next().await?.context("the watch has ended")?;
            if is_ready(&policy) {
                ready.insert(policy.name_any());
            }
        }
        anyhow::Ok(())
    });
    if let Ok(ended) = waited.await {
        return ended;
    }
    let all = policies.list(&ListParams::default()).await?.items;
    let late = all.iter().filter(|policy| !ready.contains(&policy.name_any()));
    let told: Vec<_> = late.take(3).map(|policy| serde_json::to_string(&policy.status)).collect();
    bail!("after {DEADLINE:?} only {} of {} are Ready; of the others: {told:?}", ready.len(), all.len())
}

fn is_ready(policy: &StateEpochPolicy) -> bool {
    let status = serde_json::to_value(&policy.status).unwrap_or(Value::Null);
    let conditions = status["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// The renewals of a crowd, until it is ended.
pub(crate) struct Renewing {
    stop: CancellationToken,
    began: Instant,
    thread: JoinHandle<Result<u32>>,
}

impl Crowd {
    /// What one GET of a Lease takes the API server. The operator asks it so before it publishes.
    pub(crate) async fn get(&self, count: usize) -> Result<Figures> {
        let mut turns = turns();
        let mut measured = Vec::new();
        for leader in self.leaders.iter().cycle().take(count) {
            turns.tick().await;
            let began = Instant::now();
            self.leases.get(&leader.name).await?;
            measured.push(began.elapsed());
        }
        Ok(Figures::of(measured))
    }

    /// Every leader renews once in `period`; their turns are spread over it.
    ///
    /// A thread of its own does that, which gives way to what is measured: leaders have machines of their own elsewhere.
    pub(crate) fn renew(&self, stage: &Stage, period: Duration) -> Result<Renewing> {
        let names: Vec<String> = self.leaders.iter().map(|leader| leader.name.clone()).collect();
        let (cluster, namespace, stop) = (stage.cluster, stage.namespace.clone(), CancellationToken::new());
        let stopped = stop.clone();
        let renew = move || {
            nice()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let leases = Api::namespaced(cluster.client().await?, &namespace);
                renew_in_turns(&leases, names, period, &stopped).await
            })
        };
        let thread = std::thread::Builder::new().name("leaders".into()).spawn(renew)?;
        Ok(Renewing { stop, began: Instant::now(), thread })
    }
}

async fn renew_in_turns(
    leases: &Api<Lease>,
    names: Vec<String>,
    period: Duration,
    stop: &CancellationToken,
) -> Result<u32> {
    let mut tasks = JoinSet::new();
    let count = u32::try_from(names.len())?;
    for (number, name) in (0..count).zip(names) {
        let (leases, stop, turn) = (leases.clone(), stop.clone(), period * number / count);
        tasks.spawn(async move {
            let mut renewed = 0;
            let mut turns = interval_at(tokio::time::Instant::now() + turn, period);
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return anyhow::Ok(renewed),
                    _ = turns.tick() => {}
                }
                let renewal = json!({ "spec": { "renewTime": now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string() } });
                leases.patch(&name, &PatchParams::default(), &Patch::Merge(&renewal)).await?;
                renewed += 1;
            }
        });
    }
    let mut renewed = 0;
    while let Some(ended) = tasks.join_next().await {
        renewed += ended.context("a renewal")??;
    }
    Ok(renewed)
}

impl Renewing {
    /// Ends them, and returns how many there were in a second. A renewal that failed is an error: the load was not what it should have
    /// been.
    pub(crate) async fn end(self) -> Result<f64> {
        self.stop.cancel();
        let took = self.began.elapsed();
        let ended = tokio::task::spawn_blocking(|| self.thread.join()).await?;
        let renewed = ended.map_err(|_| anyhow!("the leaders have panicked"))??;
        Ok(f64::from(renewed) / took.as_secs_f64())
    }
}
