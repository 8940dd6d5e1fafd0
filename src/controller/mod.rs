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
//! Reconcile waits for nothing. The fence task shares nothing with the runs, so that a prune of hours does not delay a fence by a moment.
//! Whatever the tasks find out is a value in [`observed`]; the status is computed from it and applied whole by one task.

mod backoff;
mod context;
mod credentials;
mod fence;
mod leases;
mod monotonic;
mod notices;
mod observed;
mod reconcile;
mod registry;
mod runs;
mod schedules;
mod status;
mod status_task;
mod stores;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use epochwarden_store::{Clock, SystemClock};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::controller::Action;
use kube::runtime::{Controller, PredicateConfig, WatchStreamExt, reflector, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use context::Settings;

use crate::api::{ANNOTATION_PREFIX, StateEpochPolicy};
use crate::server::{self, Listed, Metrics, PolicyName, Readiness};
use context::Context;
use notices::Notices;
use reconcile::Reconciler;
use registry::Registry;

/// How many reconciliations may run at once. Each is short.
const CONCURRENCY: u16 = 8;

/// How long the tasks may take to end after the operator was told to stop.
const FAREWELL: Duration = Duration::from_secs(8);

/// How often the policies of the cluster are compared with those that are worked for, in case a deletion was missed.
const SWEEP: Duration = Duration::from_secs(60);

/// Runs the operator until `shutdown`, and ends every task before it returns.
///
/// # Errors
///
/// When the API server cannot be reached at the start, or has no such resource.
pub async fn run(
    client: Client,
    settings: Settings,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let cluster = Api::<Namespace>::all(client.clone())
        .get("kube-system")
        .await
        .context("reading the namespace kube-system, whose uid names this cluster")?
        .uid()
        .unwrap_or_default();
    let metrics = Metrics::new();
    // One watch for all namespaces, or one for each that was named: each knows its own policies, so each has a store of its own.
    let namespaces: Vec<Option<String>> = match settings.watch_namespaces.as_slice() {
        [] => vec![None],
        namespaces => namespaces.iter().cloned().map(Some).collect(),
    };
    let (readiness, listed) = Readiness::after(namespaces.len());
    let tasks = TaskTracker::new();
    // The server outlives the work, so that probes see the end.
    let served = CancellationToken::new();
    tasks.spawn(server::serve(listener, Arc::clone(&metrics), readiness, served.clone()));
    let (notices, publish) = Notices::start(client.clone(), Some(settings.instance.clone()), served.clone());
    tasks.spawn(publish);

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let context = Arc::new(Context::new(client, settings, clock, metrics, notices, cluster));
    tasks.spawn(Arc::clone(&context.leases).watch(
        context.client.clone(),
        context.settings.watch_namespaces.clone(),
        shutdown.clone(),
    ));
    let registry = Arc::new(Registry::default());
    let controls = namespaces
        .iter()
        .zip(&listed)
        .map(|(namespace, listed)| control(&context, &registry, namespace.as_deref(), listed, &shutdown));
    futures::future::join_all(controls).await;

    let handles = registry.all();
    let farewell = async {
        for handle in &handles {
            handle.cancel.cancel();
            handle.farewell.wait().await;
        }
    };
    if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
        tracing::warn!("some tasks did not end in time and are left; nothing is lost by that");
    }
    served.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// Watches the policies and reconciles them.
async fn control(
    context: &Arc<Context>,
    registry: &Arc<Registry>,
    namespace: Option<&str>,
    listed: &Listed,
    shutdown: &CancellationToken,
) {
    let config =
        watcher::Config { label_selector: context.settings.policy_selector.clone(), ..watcher::Config::default() };
    let api: Api<StateEpochPolicy> = match namespace {
        Some(namespace) => Api::namespaced(context.client.clone(), namespace),
        None => Api::all(context.client.clone()),
    };
    let (reader, writer) = reflector::store::<StateEpochPolicy>();
    let removed = Arc::clone(registry);
    let stream = reflector(writer, watcher(api, config).default_backoff())
        .inspect(move |event| match event {
            Ok(watcher::Event::Delete(policy)) => removed.remove(&policy.uid().unwrap_or_default()),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the watch of policies was interrupted and is being resumed"),
        })
        .applied_objects()
        .predicate_filter(what_wakes, PredicateConfig::default());
    let wakes = futures::stream::unfold(context.wake.subscribe(), |mut wakes| async move {
        loop {
            match wakes.recv().await {
                Ok(policy) => return Some((policy, wakes)),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    });
    let sweeper = sweep(registry, namespace, reader.clone(), listed, shutdown);
    let reconciler = Arc::new(Reconciler {
        context: Arc::clone(context),
        registry: Arc::clone(registry),
        shutdown: shutdown.clone(),
    });
    let controller = Controller::for_stream(stream, reader)
        .with_config(kube::runtime::controller::Config::default().concurrency(CONCURRENCY))
        .reconcile_on(wakes)
        .graceful_shutdown_on(shutdown.clone().cancelled_owned())
        .run(reconcile, on_error, reconciler)
        .for_each(|outcome| async move {
            if let Err(error) = outcome {
                tracing::debug!(%error, "a reconciliation did not take place");
            }
        });
    tokio::join!(controller, sweeper);
}

#[allow(clippy::unused_async, reason = "the controller takes a future")]
async fn reconcile(
    policy: Arc<StateEpochPolicy>,
    reconciler: Arc<Reconciler>,
) -> Result<Action, reconcile::ReconcileError> {
    let name = PolicyName { namespace: policy.namespace().unwrap_or_default(), name: policy.name_any() };
    let started = Instant::now();
    let outcome = reconciler.reconcile(&policy);
    let metrics = &reconciler.context.metrics;
    metrics.reconcile_duration_seconds.observe(started.elapsed().as_secs_f64());
    metrics.reconcile.of(&name, &[if outcome.is_ok() { "ok" } else { "failed" }]).inc();
    outcome
}

#[allow(clippy::needless_pass_by_value, reason = "the controller calls it so")]
fn on_error(policy: Arc<StateEpochPolicy>, error: &reconcile::ReconcileError, _: Arc<Reconciler>) -> Action {
    tracing::warn!(namespace = policy.namespace(), policy = policy.name_any(), %error, "reconciling failed");
    Action::requeue(backoff::jitter(Duration::from_secs(60)))
}

/// What wakes a policy: another generation, deletion or uid, another value of one of our annotations. A status write is none of these.
#[allow(clippy::unnecessary_wraps, reason = "a predicate may have nothing to say")]
fn what_wakes(policy: &StateEpochPolicy) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    policy.metadata.uid.hash(&mut hasher);
    policy.metadata.generation.hash(&mut hasher);
    policy.metadata.deletion_timestamp.is_some().hash(&mut hasher);
    for annotation in policy.annotations().iter().filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX)) {
        annotation.hash(&mut hasher);
    }
    Some(hasher.finish())
}

/// Says that the policies are listed once they are, and from then on lets go of those that are gone.
async fn sweep(
    registry: &Registry,
    namespace: Option<&str>,
    policies: reflector::Store<StateEpochPolicy>,
    listed: &Listed,
    shutdown: &CancellationToken,
) {
    tokio::select! {
        () = shutdown.cancelled() => return,
        ready = policies.wait_until_ready() => if ready.is_err() { return },
    }
    listed.set();
    let mut ticks = interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let known: HashSet<String> = policies.state().iter().filter_map(|policy| policy.uid()).collect();
        registry.retain(|handle| {
            namespace.is_some_and(|namespace| handle.name.namespace != namespace) || known.contains(&handle.uid)
        });
    }
}
