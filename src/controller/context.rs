//! What all tasks of the operator share.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use epochwarden_store::{AddressRules, AllowedHost, Clock};
use kube::Client;
use tokio::sync::{Mutex, Semaphore, broadcast};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::answer::Lane;
use super::clients::Clients;
use super::leadership::Election;
use super::leases::Leases;
use super::monotonic::Monotonic;
use super::notices::Notices;
use super::seal_check::CHECKS;
use super::surroundings::Surroundings;
use crate::api::status::RunKind;
use crate::server::{Metrics, PolicyName};

/// How often Secrets are read again, in all: a bound on what the operator asks of the API server, whatever the number of policies.
const SECRET_READS_PER_SECOND: u32 = 100;

/// How many Secrets are read at the same time.
const SECRETS: usize = 8;

/// How many statuses are written at the same time.
const STATUSES: usize = 16;

/// How many stores may be probed at once. Who is probed has just answered, so that none waits for a dead one. Each probe races creates, so
/// many at once would only keep the fences of others waiting for this process.
const PROBES: usize = 16;

/// How many policies may wait to be looked at out of turn.
const WAKES: usize = 1024;

/// What the cluster's operator decides, by flags.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The namespaces whose policies are worked for; empty for all.
    pub watch_namespaces: Vec<String>,
    /// The label selector of the policies that are worked for.
    pub policy_selector: Option<String>,
    /// The URL prefixes for which the operator's own credentials may be used.
    pub allow_ambient_credentials: Vec<String>,
    /// The folders below which `file://` roots may lie.
    pub allow_file_roots: Vec<PathBuf>,
    /// The hosts that stores may be at, whatever their addresses are.
    pub allow_endpoints: Vec<AllowedHost>,
    /// Where this process runs, and so where stores may not be.
    pub surroundings: Surroundings,
    /// How many prunes may run at once, and how many audits.
    pub max_concurrent_runs: usize,
    /// After how much silence a Lease is fetched.
    pub lease_poll: Duration,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub http: SocketAddr,
    /// The name of this process, for records and Events.
    pub instance: String,
    /// The election that decides which of several operators works; `None` where this one works whatever others do.
    pub election: Option<Election>,
}

/// What all tasks of the operator share.
pub(crate) struct Context {
    /// The API server.
    pub(crate) client: Client,
    /// The flags.
    pub(crate) settings: Settings,
    /// The wall clock.
    pub(crate) clock: Arc<dyn Clock>,
    /// Monotonic time.
    pub(crate) monotonic: Monotonic,
    /// The Leases that policies name.
    pub(crate) leases: Arc<Leases>,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// Events.
    pub(crate) notices: Notices,
    /// How records name this process as their publisher.
    pub(crate) publisher: String,
    /// The uid of the kube-system namespace: which cluster this is.
    pub(crate) cluster: String,
    /// One permit per prune. Audits have theirs: a prune may take as long as its deadline, since it keeps to a pace, and so may an audit
    /// of a store that is slow to list.
    pub(crate) prunes: Semaphore,
    /// One permit per audit.
    pub(crate) audits: Semaphore,
    /// One permit per seal check.
    pub(crate) seal_checks: Semaphore,
    /// One permit per probe of a store.
    pub(crate) probes: Semaphore,
    /// Asks for a look at one policy, soon. One that is lost to a full channel comes with the next regular look.
    pub(crate) wake: broadcast::Sender<PolicyName>,
    /// The way of the Secrets that are read.
    pub(crate) secret_lane: Lane,
    /// The way of the statuses that are written.
    pub(crate) status_lane: Lane,
    secret_reads: Mutex<Interval>,
    addresses: AddressRules,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("settings", &self.settings)
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// What all tasks share, from its parts.
    pub(crate) fn new(
        clients: Clients,
        settings: Settings,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        notices: Notices,
        cluster: String,
    ) -> Self {
        let monotonic = Monotonic::start();
        let mut reads = interval(Duration::from_secs(1) / SECRET_READS_PER_SECOND);
        reads.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            client: clients.usual.clone(),
            leases: Arc::new(Leases::new(monotonic, clients)),
            clock,
            monotonic,
            metrics,
            notices,
            publisher: format!("epochwarden/{}", settings.instance),
            cluster,
            prunes: Semaphore::new(settings.max_concurrent_runs),
            audits: Semaphore::new(settings.max_concurrent_runs),
            seal_checks: Semaphore::new(CHECKS),
            probes: Semaphore::new(PROBES),
            wake: broadcast::Sender::new(WAKES),
            secret_lane: Lane::new(SECRETS),
            status_lane: Lane::new(STATUSES),
            secret_reads: Mutex::new(reads),
            addresses: settings.surroundings.rules(&settings.allow_endpoints),
            settings,
        }
    }

    /// The permits of a kind of run.
    pub(crate) fn permits(&self, kind: RunKind) -> &Semaphore {
        match kind {
            RunKind::Prune => &self.prunes,
            RunKind::Audit => &self.audits,
        }
    }

    /// Asks for a look at one policy, soon.
    pub(crate) fn wake(&self, policy: PolicyName) {
        // Nobody listens only while the operator starts or stops, and a start looks at every policy.
        let _ = self.wake.send(policy);
    }

    /// Which addresses the stores of policies may have.
    pub(crate) fn address_rules(&self) -> AddressRules {
        self.addresses.clone()
    }

    /// Waits for this caller's turn to read a Secret again.
    pub(crate) async fn turn_to_read_a_secret(&self) {
        self.secret_reads.lock().await.tick().await;
    }

    /// One that reaches no API server: for what can be decided without.
    #[cfg(test)]
    pub(crate) fn alone() -> Arc<Self> {
        Self::alone_at(Arc::new(epochwarden_store::SystemClock))
    }

    /// The same, with a clock of the test's own.
    #[cfg(test)]
    pub(crate) fn alone_at(clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::assembled(clock, "http://127.0.0.1:1", |_| ())
    }

    /// One that asks this API server, with these settings changed.
    #[cfg(test)]
    pub(crate) fn alone_facing(api_server: &str, change: impl FnOnce(&mut Settings)) -> Arc<Self> {
        Self::assembled(Arc::new(epochwarden_store::SystemClock), api_server, change)
    }

    /// One with a clock of the test's own and these settings changed.
    #[cfg(test)]
    pub(crate) fn alone_as(clock: Arc<dyn Clock>, change: impl FnOnce(&mut Settings)) -> Arc<Self> {
        Self::assembled(clock, "http://127.0.0.1:1", change)
    }

    #[cfg(test)]
    fn assembled(clock: Arc<dyn Clock>, api_server: &str, change: impl FnOnce(&mut Settings)) -> Arc<Self> {
        let client = Client::try_from(kube::Config::new(api_server.parse().unwrap())).unwrap();
        let mut settings = Settings {
            watch_namespaces: Vec::new(),
            policy_selector: None,
            allow_ambient_credentials: Vec::new(),
            allow_file_roots: Vec::new(),
            allow_endpoints: Vec::new(),
            surroundings: Surroundings::default(),
            max_concurrent_runs: 1,
            lease_poll: Duration::from_secs(10),
            http: ([127, 0, 0, 1], 0).into(),
            instance: "test".into(),
            election: None,
        };
        change(&mut settings);
        let (notices, _) = Notices::start(client.clone(), None, tokio_util::sync::CancellationToken::new());
        Arc::new(Self::new(Clients::all_in_one(&client), settings, clock, Metrics::new(), notices, "cluster".into()))
    }
}
