//! What is known of the Leases that policies name: one watch for all of them, and a fetch where the watch was silent.
//!
//! Every Lease of a cluster passes through the watch, and a leader renews its own every few seconds, so nothing is kept but the facts of
//! those that a policy subscribed to. A renewal changes the instant of arrival and wakes nobody, unless the Lease had expired; a changed
//! term does.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use epochwarden_core::lease::{self, Expiry, LeaseObservation, VERSION_ANNOTATION, expiry};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::answer::{Lane, NoAnswer, answer_of_either};
use super::backoff::of_a_watch;
use super::clients::Clients;
use super::monotonic::Monotonic;

/// How many Leases are fetched at once, for the fences of all policies.
const FETCHES: usize = 32;

/// Where a Lease is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct LeaseKey {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
}

impl fmt::Display for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What a subscriber sees of one Lease.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeaseSeen {
    /// The Lease; `None` when there is none, or none was heard of yet.
    pub(crate) lease: Option<LeaseObservation>,
    /// When something was last heard of it, by watch or fetch; `None` before the first time.
    pub(crate) heard: Option<Duration>,
    /// When the change that was last made known arrived.
    pub(crate) changed: Option<Duration>,
    renewal: Option<String>,
    /// The resourceVersion that was last taken; it stays when the Lease goes.
    version: Option<u64>,
}

/// The Leases that policies name.
pub(crate) struct Leases {
    monotonic: Monotonic,
    clients: Clients,
    seen: Mutex<HashMap<LeaseKey, watch::Sender<LeaseSeen>>>,
    restart: Notify,
    lane: Lane,
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leases").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl Leases {
    /// Knows nothing yet.
    #[must_use]
    pub(crate) fn new(monotonic: Monotonic, clients: Clients) -> Self {
        Self { monotonic, clients, seen: Mutex::default(), restart: Notify::new(), lane: Lane::new(FETCHES) }
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<LeaseKey, watch::Sender<LeaseSeen>>> {
        // Nothing is done under this lock that could leave the map half changed.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows one Lease. Forgets the ones that nobody follows any more.
    pub(crate) fn subscribe(&self, key: LeaseKey) -> watch::Receiver<LeaseSeen> {
        let mut seen = self.seen();
        seen.retain(|_, sender| sender.receiver_count() > 0);
        seen.entry(key).or_insert_with(|| watch::channel(LeaseSeen::default()).0).subscribe()
    }

    /// Takes what the watch or a fetch shows of a Lease. Says whether it was news.
    pub(crate) fn observe(&self, key: &LeaseKey, lease: Option<&Lease>) -> bool {
        let seen = self.seen();
        let Some(sender) = seen.get(key) else { return false };
        let now = self.monotonic.now();
        sender.send_if_modified(|seen| seen.take(key, lease, now))
    }

    /// Takes what a request of the instant `asked` shows, unless the watch has shown something newer since. Says whether it was news.
    fn observe_answer(&self, key: &LeaseKey, lease: Option<&Lease>, asked: Duration) -> bool {
        let seen = self.seen();
        let Some(sender) = seen.get(key) else { return false };
        let now = self.monotonic.now();
        sender.send_if_modified(|seen| !seen.is_ahead_of(lease, asked) && seen.take(key, lease, now))
    }

    /// Reads a Lease from the API server and takes what it shows.
    ///
    /// When it is news although the watch was silent for longer than a fetch takes, the watch is restarted: it may be half-open. What
    /// made it so has often silenced the connections in the pool as well, so a second request follows over a new one.
    pub(crate) async fn fetch(&self, key: &LeaseKey) -> Result<(), NoAnswer> {
        let get = |client: &Client| {
            let api = Api::<Lease>::namespaced(client.clone(), &key.namespace);
            async move { api.get_opt(&key.name).await }
        };
        let turn = self.lane.turn().await;
        // What was heard while the turn was waited for is older than the answer.
        let asked = self.monotonic.now();
        let lease = answer_of_either(get(&self.clients.usual), get(&self.clients.afresh)).await?;
        drop(turn);
        let silent_since = self.seen().get(key).and_then(|sender| sender.borrow().heard);
        if self.observe_answer(key, lease.as_ref(), asked)
            && silent_since.is_some_and(|heard| asked.saturating_sub(heard) > WATCH_GRACE)
        {
            tracing::info!(
                namespace = key.namespace,
                lease = key.name,
                reason = "WatchSilent",
                "a Lease changed and the watch was silent: restarting the watch"
            );
            self.restart.notify_one();
        }
        Ok(())
    }

    /// Runs the watch until `shutdown`, in all namespaces or in the given ones.
    pub(crate) async fn watch(self: Arc<Self>, namespaces: Vec<String>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.restart.notified() => {}
                () = self.watch_once(&namespaces) => {}
            }
        }
    }

    async fn watch_once(&self, namespaces: &[String]) {
        // Kubelets renew one Lease a node there, and no leader of a pipeline lives among them.
        let config = watcher::Config::default().fields("metadata.namespace!=kube-node-lease");
        let client = &self.clients.watching;
        let apis: Vec<Api<Lease>> = if namespaces.is_empty() {
            vec![Api::all(client.clone())]
        } else {
            namespaces.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect()
        };
        let streams = apis.into_iter().map(|api| {
            use kube::runtime::WatchStreamExt;
            watcher(api, config.clone()).backoff(of_a_watch()).boxed()
        });
        let mut events = futures::stream::select_all(streams);
        loop {
            match events.try_next().await {
                Ok(Some(watcher::Event::Apply(lease) | watcher::Event::InitApply(lease))) => {
                    if let Some(key) = key_of(&lease) {
                        self.observe(&key, Some(&lease));
                    }
                }
                Ok(Some(watcher::Event::Delete(lease))) => {
                    if let Some(key) = key_of(&lease) {
                        self.observe(&key, None);
                    }
                }
                Ok(Some(watcher::Event::Init | watcher::Event::InitDone)) => {}
                Ok(None) => return,
                // The stream goes on by itself, after its own back-off.
                Err(error) => tracing::warn!(%error, "the watch of Leases was interrupted and is being resumed"),
            }
        }
    }
}

/// A fetch that finds news this long after the last event did not merely win a race against the watch. It is shorter than any poll
/// interval that is of use, since a fetch counts as hearing of the Lease.
const WATCH_GRACE: Duration = Duration::from_secs(1);

fn key_of(lease: &Lease) -> Option<LeaseKey> {
    Some(LeaseKey { namespace: lease.namespace()?, name: lease.name_any() })
}

/// The resourceVersion, which grows with every write to the cluster.
fn version_of(lease: &Lease) -> Option<u64> {
    lease.resource_version()?.parse().ok()
}

impl LeaseSeen {
    /// What was seen of the Lease at `key`, as the rules want to know it.
    pub(super) fn found<'a>(&'a self, key: &'a LeaseKey) -> lease::LeaseSeen<'a> {
        let LeaseKey { namespace, name } = key;
        self.lease.as_ref().map_or(lease::LeaseSeen::Missing { namespace, name }, lease::LeaseSeen::Found)
    }

    /// Whether the watch has overtaken the answer to a request of the instant `asked`. Versions are compared only then: after a restore
    /// of the cluster they start over from lower ones, and what is read then must count all the same.
    fn is_ahead_of(&self, answer: Option<&Lease>, asked: Duration) -> bool {
        if self.heard.is_none_or(|heard| heard <= asked) {
            return false;
        }
        let Some(answer) = answer else { return self.lease.is_some() };
        match (version_of(answer), self.version) {
            (Some(answered), Some(seen)) => answered < seen || (answered == seen && self.lease.is_none()),
            _ => false,
        }
    }

    /// Takes in what was seen; `true` when a subscriber has to know.
    pub(super) fn take(&mut self, key: &LeaseKey, lease: Option<&Lease>, now: Duration) -> bool {
        let first = self.heard.replace(now).is_none();
        let Some(lease) = lease else {
            let gone = self.lease.take().is_some();
            self.renewal = None;
            return self.changed_at(first || gone, now);
        };
        self.version = version_of(lease).or(self.version);
        let spec = lease.spec.clone().unwrap_or_default();
        let renewal = spec.renew_time.map(|time| time.0.to_string());
        let mut next = LeaseObservation {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: lease.uid().unwrap_or_default(),
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            transitions: spec.lease_transitions,
            duration: spec
                .lease_duration_seconds
                .and_then(|seconds| u64::try_from(seconds).ok())
                .map(Duration::from_secs),
            annotation: lease.annotations().get(VERSION_ANNOTATION).cloned(),
            renewed: now,
            holder_since: now,
        };
        let news = match &self.lease {
            None => true,
            Some(known) => {
                if known.uid == next.uid && known.holder == next.holder {
                    next.holder_since = known.holder_since;
                }
                let changed = LeaseObservation { renewed: known.renewed, ..next.clone() } != *known;
                let renewed = changed || renewal != self.renewal;
                // The same renewal seen again, by a fetch or a resumed watch, proves nothing about the leader.
                if !renewed {
                    next.renewed = known.renewed;
                }
                // A leader that was taken for gone and is back is news as well.
                changed || (renewed && matches!(expiry(known, now), Expiry::Expired { .. }))
            }
        };
        self.lease = Some(next);
        self.renewal = renewal;
        self.changed_at(news, now)
    }

    fn changed_at(&mut self, news: bool, now: Duration) -> bool {
        if news {
            self.changed = Some(now);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;

    fn key() -> LeaseKey {
        LeaseKey { namespace: "streaming".into(), name: "leader".into() }
    }

    fn lease(holder: &str, transitions: i32, renewed: i64) -> Lease {
        let mut lease = Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.into()),
                lease_transitions: Some(transitions),
                lease_duration_seconds: Some(15),
                renew_time: jiff::Timestamp::from_second(renewed).ok().map(MicroTime),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        };
        lease.metadata.uid = Some("u1".into());
        lease
    }

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn a_renewal_moves_the_arrival_and_wakes_nobody() {
        let mut seen = LeaseSeen::default();
        assert!(seen.take(&key(), Some(&lease("a", 0, 100)), seconds(1)));
        assert!(!seen.take(&key(), Some(&lease("a", 0, 102)), seconds(3)));
        assert_eq!(seen.lease.as_ref().unwrap().renewed, seconds(3));
        assert_eq!(seen.changed, Some(seconds(1)));
    }

    #[test]
    fn the_same_renewal_seen_again_is_no_renewal() {
        let mut seen = LeaseSeen::default();
        seen.take(&key(), Some(&lease("a", 0, 100)), seconds(1));
        assert!(!seen.take(&key(), Some(&lease("a", 0, 100)), seconds(9)));
        assert_eq!(seen.lease.as_ref().unwrap().renewed, seconds(1));
        assert_eq!(seen.heard, Some(seconds(9)));
    }

    #[test]
    fn a_new_holder_is_news_and_starts_its_own_time() {
        let mut seen = LeaseSeen::default();
        seen.take(&key(), Some(&lease("a", 0, 100)), seconds(1));
        assert!(seen.take(&key(), Some(&lease("b", 1, 110)), seconds(11)));
        assert_eq!(seen.lease.as_ref().unwrap().holder_since, seconds(11));
        assert!(seen.take(&key(), Some(&lease("b", 2, 111)), seconds(12)), "transitions alone are a new term too");
        assert_eq!(seen.lease.as_ref().unwrap().holder_since, seconds(11));
    }

    #[test]
    fn a_renewal_after_the_lease_expired_is_news() {
        let mut seen = LeaseSeen::default();
        seen.take(&key(), Some(&lease("a", 0, 100)), seconds(1));
        assert!(!seen.take(&key(), Some(&lease("a", 0, 114)), seconds(15)), "just in time");
        assert!(!seen.take(&key(), Some(&lease("a", 0, 114)), seconds(40)), "the same renewal again");
        assert!(seen.take(&key(), Some(&lease("a", 0, 140)), seconds(41)));
        assert_eq!(seen.changed, Some(seconds(41)));
    }

    #[test]
    fn an_answer_that_the_watch_has_overtaken_puts_nothing_old_back() {
        let versioned = |holder, transitions, version: &str| {
            let mut lease = lease(holder, transitions, 100);
            lease.metadata.resource_version = Some(version.into());
            lease
        };
        let (old, new) = (versioned("a", 0, "10"), versioned("b", 1, "11"));
        let mut seen = LeaseSeen::default();
        seen.take(&key(), Some(&new), seconds(5));
        assert!(seen.is_ahead_of(Some(&old), seconds(4)), "asked before the watch showed the newer one");
        assert!(seen.is_ahead_of(None, seconds(4)), "it was created in the meantime");
        assert!(!seen.is_ahead_of(Some(&new), seconds(4)));
        assert!(!seen.is_ahead_of(Some(&versioned("c", 2, "12")), seconds(4)));
        assert!(!seen.is_ahead_of(Some(&old), seconds(6)), "versions that start over belong to a restored cluster");
        assert!(!seen.is_ahead_of(None, seconds(6)));
        seen.take(&key(), None, seconds(7));
        assert!(seen.is_ahead_of(Some(&new), seconds(6)), "it was deleted in the meantime");
        assert!(!seen.is_ahead_of(Some(&versioned("c", 0, "13")), seconds(6)), "and created again");
    }

    #[test]
    fn a_lease_that_is_not_there_is_news_once() {
        let mut seen = LeaseSeen::default();
        assert!(seen.take(&key(), None, seconds(1)), "the first look counts, whatever it shows");
        assert!(!seen.take(&key(), None, seconds(2)));
        seen.take(&key(), Some(&lease("a", 0, 100)), seconds(3));
        assert!(seen.take(&key(), None, seconds(4)));
        assert!(seen.lease.is_none());
    }

    #[tokio::test]
    async fn a_lease_is_forgotten_with_its_last_subscriber() {
        let nowhere = Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let leases = Leases::new(Monotonic::start(), Clients::all_in_one(&nowhere));
        let first = leases.subscribe(key());
        let second = leases.subscribe(LeaseKey { name: "other".into(), ..key() });
        assert_eq!(leases.seen().len(), 2);
        drop(first);
        let third = leases.subscribe(LeaseKey { name: "other".into(), ..key() });
        assert_eq!(leases.seen().len(), 1);
        drop((second, third));
    }
}
