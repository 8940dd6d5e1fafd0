//! The operator: observes the cluster, asks the rules, and acts on the buckets.
//!
//! ```text
//! policies ── watch ──> reconcile: what is due? ──> runs (prune, audit), supervised
//!                          │                             │ values
//!                          └─ starts, per policy:        v
//!   Leases ── watch ──> fence task ── values ──> observed ──> status task ──> status
//!   Secrets ─ get ───> store task ── values ──────^
//! ```
//!
//! Of several operators one does all that, and the others stand by: [`leadership`].
//!
//! Reconcile waits for nothing. The fence task shares nothing with the runs, so that a prune of hours does not delay a fence by a moment.
//! Whatever the tasks find out is a value in [`observed`]; the status is computed from it and applied whole by one task.

mod answer;
mod backoff;
mod clients;
mod context;
mod credentials;
mod fence;
mod leadership;
mod leases;
mod monotonic;
mod notices;
mod observed;
mod policies;
mod reconcile;
mod registry;
mod runs;
mod schedules;
mod seal_check;
mod status;
mod status_task;
mod stores;
mod supervise;
mod surroundings;

#[cfg(test)]
mod workbench;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use epochwarden_core::election;
use epochwarden_store::{Clock, SystemClock};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use clients::Clients;
pub use context::Settings;
pub use leadership::Election;
pub use supervise::log_panics;
pub use surroundings::Surroundings;

use crate::server::{self, Listed, Metrics, Readiness};
use context::Context;
use leadership::{Candidate, Office};
use notices::Notices;
use policies::{Policies, Stored, name_of};
use reconcile::{ReconcileError, Reconciler};
use registry::Registry;
use runs::threads::RunThreads;
use supervise::Vital;

/// How many reconciliations may run at once. Each is short.
const CONCURRENCY: u16 = 8;

/// How long the tasks may take to end after the operator was told to stop.
const FAREWELL: Duration = Duration::from_secs(8);

/// How long what serves the others may take to end after them: Events that are being sent, answers over HTTP.
const LAST_FAREWELL: Duration = Duration::from_secs(1);

/// Runs the operator until `shutdown`, and ends every task before it returns. With an election it stands by until it leads.
///
/// # Errors
///
/// When the API server cannot be reached at the start, or has no such resource, which one that stands by waits for; and when it led and leads
/// no more: then `shutdown` is cancelled, the work has ended, and the process should be started again.
pub async fn run(
    clients: Clients,
    settings: Settings,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let metrics = Metrics::new();
    // Before there is an election to win: a system without threads to give gets no leader that cannot work.
    let threads = RunThreads::start().context("starting the threads of prunes and audits")?;
    // One watch for all namespaces, or one for each that was named: each knows its own policies, so each has a store of its own.
    let namespaces: Vec<Option<String>> = match settings.watch_namespaces.as_slice() {
        [] => vec![None],
        namespaces => namespaces.iter().cloned().map(Some).collect(),
    };
    let (readiness, listed) = Readiness::after(namespaces.len());
    let tasks = TaskTracker::new();
    // The server outlives the work, so that probes see the end.
    let served = CancellationToken::new();
    let vital = Vital::new(tasks.clone(), shutdown.clone());
    let serve = server::serve(listener, Arc::clone(&metrics), readiness.clone(), served.clone());
    vital.spawn("serving probes and metrics", async {
        if let Err(error) = serve.await {
            tracing::error!(%error, "probes and metrics are not served any more");
        }
    });
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut deposed = None;
    if let Some(leading) = lead(&clients, &settings, &clock, &metrics, &readiness, &vital, &shutdown).await {
        let client = clients.usual.clone();
        let cluster = match name_of_the_cluster(&client).await {
            Ok(cluster) => cluster,
            Err(error) => {
                // No work has begun, so another one may try at once.
                if let Some(office) = leading {
                    office.resign().await;
                }
                return Err(error);
            }
        };
        let (notices, publish) = Notices::start(client, Some(settings.instance.clone()), served.clone());
        vital.spawn("recording Events", publish);
        let context = Arc::new(Context::new(clients, settings, clock, metrics, notices, cluster, threads.handle()));
        let watch = Arc::clone(&context.leases).watch(context.settings.watch_namespaces.clone(), shutdown.clone());
        vital.spawn("watching Leases", watch);
        let ended = tokio::select! {
            () = work(&context, &namespaces, &listed, &shutdown) => true,
            () = overdue(leading.as_ref(), &shutdown) => false,
        };
        if !ended {
            tracing::warn!("some tasks did not end in time and are left; nothing is lost by that");
        }
        deposed = leading.as_ref().and_then(Office::deposed);
        // What is still under way must not meet the next leader's work, as far as that can be helped.
        if let Some(office) = leading.filter(|_| ended) {
            office.resign().await;
        }
        if let Some(why) = deposed.as_ref().filter(|_| !ended) {
            anyhow::bail!("{why}");
        }
    }
    served.cancel();
    tasks.close();
    if tokio::time::timeout(LAST_FAREWELL, tasks.wait()).await.is_err() {
        tracing::debug!("an Event or an answer was still under way");
    }
    match (vital.fallen(), deposed) {
        (Some(what), _) => anyhow::bail!("{what} ended by a fault of the operator itself, which the log above shows"),
        (None, Some(why)) => anyhow::bail!("{why}"),
        (None, None) => Ok(()),
    }
}

/// What tells this cluster from others.
async fn name_of_the_cluster(client: &Client) -> anyhow::Result<String> {
    let system = Api::<Namespace>::all(client.clone()).get("kube-system").await;
    let system = system.context("reading the namespace kube-system, whose uid names this cluster")?;
    Ok(system.uid().unwrap_or_default())
}

/// Waits until the work is this operator's to do: at once, or with an election when it is won, and then with what was won. `None` when it
/// was told to stop before that.
async fn lead(
    clients: &Clients,
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    metrics: &Arc<Metrics>,
    readiness: &Readiness,
    vital: &Vital,
    shutdown: &CancellationToken,
) -> Option<Option<Office>> {
    let office = match &settings.election {
        None => None,
        Some(election) => {
            let candidate = Candidate::new(election, clients.afresh.clone(), Arc::clone(clock));
            let leader = candidate.stand(shutdown, || readiness.stands_by(true)).await?;
            readiness.stands_by(false);
            let metrics = Arc::clone(metrics);
            Some(Office::take(leader, vital, shutdown, move || _ = metrics.leader.set(0.0)))
        }
    };
    metrics.leader.set(1.0);
    Some(office)
}

/// Works for all policies until `shutdown`, and returns when the last task of the last policy has ended.
async fn work(context: &Arc<Context>, namespaces: &[Option<String>], listed: &[Listed], shutdown: &CancellationToken) {
    let registry = Arc::new(Registry::default());
    let controls = namespaces
        .iter()
        .zip(listed)
        .map(|(namespace, listed)| control(context, &registry, namespace.as_deref(), listed, shutdown));
    futures::future::join_all(controls).await;
    for handle in &registry.all() {
        handle.cancel.cancel();
        handle.farewell.wait().await;
    }
}

/// Returns when the work should have ended: some time after `shutdown`, and sooner after the leadership was lost.
async fn overdue(office: Option<&Office>, shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    let deposed = async {
        match office {
            Some(office) => office.lost().await,
            None => std::future::pending().await,
        }
        sleep_until(Instant::now() + election::FAREWELL).await;
    };
    tokio::select! {
        () = sleep_until(Instant::now() + FAREWELL) => {}
        () = deposed => {}
    }
}

/// Watches the policies and reconciles them.
async fn control(
    context: &Arc<Context>,
    registry: &Arc<Registry>,
    namespace: Option<&str>,
    listed: &Listed,
    shutdown: &CancellationToken,
) {
    let policies = Policies::new(context, registry, namespace);
    let (reader, stream) = policies.watch();
    let reconciler = Arc::new(Reconciler {
        context: Arc::clone(context),
        registry: Arc::clone(registry),
        shutdown: shutdown.clone(),
    });
    let controller = Controller::for_stream(stream, reader.clone())
        .with_config(kube::runtime::controller::Config::default().concurrency(CONCURRENCY))
        // Otherwise what wakes policies would pause for up to half a minute after errors of the watch, which waits by itself.
        .trigger_backoff(backoff::of_a_watch())
        .reconcile_on(policies.wakes())
        .graceful_shutdown_on(shutdown.clone().cancelled_owned())
        .run(reconcile, on_error, reconciler)
        .for_each(|outcome| async move {
            if let Err(error) = outcome {
                tracing::debug!(%error, "a reconciliation did not take place");
            }
        });
    tokio::join!(controller, policies.sweep(reader, listed, shutdown));
}

#[allow(clippy::unused_async, reason = "the controller takes a future")]
async fn reconcile(policy: Arc<Stored>, reconciler: Arc<Reconciler>) -> Result<Action, ReconcileError> {
    let name = name_of(&policy);
    let started = Instant::now();
    let outcome = reconciler.reconcile(&policy);
    let metrics = &reconciler.context.metrics;
    metrics.reconcile_duration_seconds.observe(started.elapsed().as_secs_f64());
    // The series of one that is being deleted may be gone already.
    if policy.meta().deletion_timestamp.is_none() {
        metrics.reconcile.of(&name, &[if outcome.is_ok() { "ok" } else { "failed" }]).inc();
    }
    outcome
}

#[allow(clippy::needless_pass_by_value, reason = "the controller calls it so")]
fn on_error(policy: Arc<Stored>, error: &ReconcileError, _: Arc<Reconciler>) -> Action {
    let (namespace, name) = (policy.namespace(), policy.name_any());
    tracing::warn!(namespace, policy = name, reason = "Invalid", %error, "reconciling failed");
    Action::requeue(backoff::jitter(Duration::from_mins(1)))
}
