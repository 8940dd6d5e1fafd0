//! The fence path of one policy: from a change of the leader's Lease to a durable record in the bucket, and nothing slow in between.
//!
//! One task per policy owns the fence. It uses a store client of its own and waits for nobody: not for runs, not for the status.

use std::sync::Arc;
use std::time::Duration;

use epochwarden_core::Version;
use epochwarden_core::lease::{self, Expiry, FenceDecision, FenceRefusal, FenceSeen, RecordSeen, Term};
use epochwarden_core::register::RegisterKind;
use epochwarden_store::registers::Record;
use epochwarden_store::{ErrorClass, Published, Registers, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::context::Context;
use super::leases::{LeaseKey, LeaseSeen};
use super::notices::Reason;
use super::observed::Said;
use super::registry::Handle;
use super::stores::Stores;
use crate::api::StateEpochPolicy;
use crate::api::condition::{FenceCurrent, Reason as _};
use crate::api::status::FenceStatus;

/// How long the task sleeps when only a change can give it something to do.
const IDLE: Duration = Duration::from_secs(3600);

/// How often one look may go from decision to action and back, before it waits: each round follows a reading that changed.
const ROUNDS: usize = 6;

/// Runs the fence path until the policy's work ends.
pub(super) async fn run(context: Arc<Context>, handle: Arc<Handle>) {
    let mut policy = handle.policy.subscribe();
    let mut stores = handle.stores.subscribe();
    let mut task = FenceTask::new(context, Arc::clone(&handle));
    loop {
        policy.mark_unchanged();
        stores.mark_unchanged();
        let wait = tokio::select! {
            () = handle.cancel.cancelled() => return,
            wait = task.look() => wait,
        };
        tokio::select! {
            () = handle.cancel.cancelled() => return,
            _ = policy.changed() => {}
            _ = stores.changed() => {}
            () = changed(&mut task.lease) => {}
            () = tokio::time::sleep_until(Instant::now() + wait) => {}
        }
    }
}

async fn changed(lease: &mut Option<Subscription>) {
    let Some(lease) = lease else {
        return std::future::pending().await;
    };
    // The sender lives as long as its subscriber.
    if lease.seen.changed().await.is_err() {
        std::future::pending().await
    }
}

struct Subscription {
    key: LeaseKey,
    seen: watch::Receiver<LeaseSeen>,
}

/// What one client knows of the fence.
struct Known {
    stores: Stores,
    registers: Registers,
    fence: FenceSeen,
}

struct FenceTask {
    context: Arc<Context>,
    handle: Arc<Handle>,
    lease: Option<Subscription>,
    known: Option<Known>,
    backoff: Backoff,
}

/// Why a look ended without the fence being current.
struct Stopped {
    reason: FenceCurrent,
    message: String,
    /// When to look again, where no change is waited for.
    again: Option<Duration>,
}

impl FenceTask {
    fn new(context: Arc<Context>, handle: Arc<Handle>) -> Self {
        Self {
            context,
            handle,
            lease: None,
            known: None,
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(10)),
        }
    }

    /// Looks at policy, Lease and fence, does what is to be done, and says how long nothing will be due.
    async fn look(&mut self) -> Duration {
        let policy = self.handle.current();
        let Some(subscription) = self.subscribe(&policy) else {
            return self.stopped(Stopped {
                reason: FenceCurrent::NotConfigured,
                message: "the policy names no Lease: the operator publishes no fence".into(),
                again: None,
            });
        };
        if policy.spec.suspend {
            let message =
                "the policy is suspended: the fence does not move, so a deposed leader is not stopped".to_owned();
            return self.stopped(Stopped { reason: FenceCurrent::Suspended, message, again: None });
        }
        match self.advance(&policy, &subscription).await {
            Ok(term) => {
                self.backoff.reset();
                self.current(&term);
                self.next_look()
            }
            Err(stopped) => self.stopped(stopped),
        }
    }

    /// Follows the Lease that the policy names now.
    fn subscribe(&mut self, policy: &StateEpochPolicy) -> Option<LeaseKey> {
        let Some(fence) = &policy.spec.fence else {
            self.lease = None;
            return None;
        };
        let key = LeaseKey { namespace: self.handle.name.namespace.clone(), name: fence.lease_ref.name.clone() };
        if self.lease.as_ref().is_none_or(|lease| lease.key != key) {
            self.lease = Some(Subscription { seen: self.context.leases.subscribe(key.clone()), key: key.clone() });
        }
        Some(key)
    }

    fn seen(&mut self) -> LeaseSeen {
        self.lease.as_mut().map(|lease| lease.seen.borrow_and_update().clone()).unwrap_or_default()
    }

    /// From what was last read to a fence that is durable, or to the reason why it is not.
    async fn advance(&mut self, policy: &StateEpochPolicy, key: &LeaseKey) -> Result<Term, Stopped> {
        let from = policy.version_from();
        // The store task has seen it and claims nothing then: say what is wrong, not that the store is not ready.
        let lost = self.handle.observed.borrow().lost;
        if let Some(lost) = lost {
            return Err(self.refused(&lost.into()));
        }
        let heard = self.seen().heard;
        if heard
            .is_none_or(|heard| self.context.monotonic.now().saturating_sub(heard) >= self.context.settings.lease_poll)
        {
            self.fetch(key).await?;
        }
        let mut fetched = false;
        for _ in 0..ROUNDS {
            let seen = self.seen();
            let fence = self.known().await?.fence.clone();
            let lease = seen.lease.as_ref().map_or(
                lease::LeaseSeen::Missing { namespace: &key.namespace, name: &key.name },
                lease::LeaseSeen::Found,
            );
            match lease::decide(lease, from, &fence, self.context.monotonic.now()) {
                FenceDecision::Current(term) => return Ok(term),
                // An event may be old, and what is published cannot be taken back: the API server has the last word.
                FenceDecision::Publish(_) if !fetched => {
                    self.fetch(key).await?;
                    fetched = true;
                }
                FenceDecision::Publish(term) => self.publish(&term, seen.changed).await?,
                FenceDecision::ReadRecord(term) => self.read_record(&term).await?,
                FenceDecision::AwaitingAnnotation { term, until } => {
                    let again = until.saturating_sub(self.context.monotonic.now());
                    return Err(Stopped {
                        reason: FenceCurrent::Pending,
                        message: format!(
                            "{:?} holds the Lease and its annotation still gives version {} of another holder: waiting for the new one",
                            term.holder, term.version
                        ),
                        again: Some(again),
                    });
                }
                FenceDecision::Refused(refusal) => return Err(self.refused(&refusal)),
            }
        }
        Err(self.failed("the Lease and the fence keep changing; looking again shortly".into()))
    }

    async fn fetch(&mut self, key: &LeaseKey) -> Result<(), Stopped> {
        let fetched = self.context.leases.fetch(&self.context.client, key).await;
        fetched.map_err(|error| Stopped {
            reason: FenceCurrent::Pending,
            message: format!("the Lease {}/{} could not be read: {error}; trying again", key.namespace, key.name),
            again: Some(self.backoff.next()),
        })
    }

    /// What is known of the fence in this store, read once per client.
    async fn known(&mut self) -> Result<&mut Known, Stopped> {
        let stores = self.handle.stores.borrow().clone().filter(|stores| stores.claimed);
        let Some(stores) = stores else {
            self.known = None;
            return Err(Stopped {
                reason: FenceCurrent::StoreNotReady,
                message: "the store is not ready: see the condition StoreReady".into(),
                again: None,
            });
        };
        if self.known.as_ref().is_none_or(|known| !known.stores.is_same(&stores)) {
            let registers = Registers::new(stores.fence.clone(), self.context.publisher.clone());
            registers.remember(&self.handle.observed.borrow().seen);
            let fence = match registers.read().await {
                Ok(reading) => FenceSeen { highest: reading.fence, record: RecordSeen::Unread, lost: None },
                Err(StoreError::RegisterLost(lost)) => {
                    FenceSeen { highest: Version::OFF, record: RecordSeen::Unread, lost: Some(lost) }
                }
                Err(error) => return Err(self.store_failed("reading the registers", &error)),
            };
            self.known = Some(Known { stores, registers, fence });
        }
        let stopped =
            || Stopped { reason: FenceCurrent::Pending, message: "the store is being opened".into(), again: None };
        self.known.as_mut().ok_or_else(stopped)
    }

    async fn read_record(&mut self, term: &Term) -> Result<(), Stopped> {
        let known = self.known().await?;
        match known.registers.fence_record(term.version).await {
            Ok(Some(Record::Readable(record))) => known.fence.record = RecordSeen::Read(record),
            Ok(Some(Record::Unreadable { .. })) => known.fence.record = RecordSeen::Unreadable,
            // The highest record of all cannot go away, so the listing that named it is not to be trusted any more.
            Ok(None) => {
                self.known = None;
                return Err(
                    self.failed(format!("the fence record of version {} was listed and is not there", term.version))
                );
            }
            Err(error) => return Err(self.store_failed("reading the fence record", &error)),
        }
        Ok(())
    }

    async fn publish(&mut self, term: &Term, event: Option<Duration>) -> Result<(), Stopped> {
        let known = self.known().await?;
        let published = known.registers.publish_fence(term.version, &term.holder, Some(&term.lease)).await;
        let at = self.context.clock.now();
        let result = match &published {
            Ok(Published::Created) => "created",
            Ok(Published::AlreadyThere) => "already_there",
            Ok(Published::Superseded { .. }) => "superseded",
            Err(StoreError::FenceConflict { .. }) => "conflict",
            Err(_) => "failed",
        };
        self.context.metrics.fence_publish.of(&self.handle.name, &[result]).inc();
        let known = self.known().await?;
        // What stands now is decided on in the next round, which reads the record where it has to be compared.
        match published {
            Ok(Published::Created) => {
                known.fence = FenceSeen { highest: term.version, record: RecordSeen::Unread, lost: None };
                self.created(term, event, at);
                self.trim_later();
            }
            Ok(Published::AlreadyThere) | Err(StoreError::FenceConflict { .. }) => {
                known.fence = FenceSeen { highest: term.version, record: RecordSeen::Unread, lost: None };
            }
            Ok(Published::Superseded { by }) => {
                known.fence = FenceSeen { highest: by, record: RecordSeen::Unread, lost: None };
            }
            Err(error) => return Err(self.store_failed("publishing the fence", &error)),
        }
        Ok(())
    }

    /// The record is durable, and this process wrote it.
    fn created(&self, term: &Term, event: Option<Duration>, at: jiff::Timestamp) {
        let lag = event.map(|event| self.context.monotonic.now().saturating_sub(event));
        if let Some(lag) = lag {
            self.context.metrics.fence_lag_seconds.observe(lag.as_secs_f64());
            self.context.metrics.fence_last_lag_seconds.of(&self.handle.name, &[]).set(lag.as_secs_f64());
        }
        self.handle.observed.send_modify(|observed| {
            observed.published = Some(fence_status(term, Some(at), lag));
            observed.seen.fence = observed.seen.fence.max(term.version);
        });
        let note = match lag {
            Some(lag) => format!(
                "the fence is at version {} for {:?}, {} ms after its Lease changed",
                term.version,
                term.holder,
                lag.as_millis()
            ),
            None => format!("the fence is at version {} for {:?}", term.version, term.holder),
        };
        self.context.notices.send(&self.handle.reference, Reason::FencePublished, note);
    }

    /// Old records go when the fence stands, and nobody waits for it.
    fn trim_later(&self) {
        if let Some(known) = &self.known {
            let registers = Registers::new(known.stores.fence.clone(), self.context.publisher.clone());
            let cancel = self.handle.cancel.clone();
            self.handle.tasks.spawn(async move {
                let trim = async {
                    // Its own reading: what is superfluous is what a listing shows.
                    if registers.read().await.is_ok() {
                        registers.trim(RegisterKind::Fence).await;
                    }
                };
                cancel.run_until_cancelled(trim).await;
            });
        }
    }

    fn current(&self, term: &Term) {
        #[allow(clippy::cast_precision_loss, reason = "versions end at 2^53-1, where they are still exact")]
        self.context.metrics.fence_version.of(&self.handle.name, &[]).set(term.version.get() as f64);
        self.handle.observed.send_if_modified(|observed| {
            observed.seen.fence = observed.seen.fence.max(term.version);
            let published = observed.published.as_ref();
            // Somebody else published it, or an earlier life of this operator did: when is in the record alone.
            if published.is_none_or(|published| {
                published.version != term.version || published.holder.as_ref() != Some(&term.holder)
            }) {
                observed.published = Some(fence_status(term, self.recorded_at(), None));
            }
            let message = format!("the fence is at version {} for {:?}", term.version, term.holder);
            observed.fence.replace(Said::new(FenceCurrent::Published, message))
        });
    }

    fn recorded_at(&self) -> Option<jiff::Timestamp> {
        match &self.known.as_ref()?.fence.record {
            RecordSeen::Read(record) => Some(record.published_at),
            RecordSeen::Unread | RecordSeen::Unreadable => None,
        }
    }

    fn refused(&self, refusal: &FenceRefusal) -> Stopped {
        let reason = FenceCurrent::from(refusal);
        // A Lease that is gone or silent is looked at again by events and polls; so is every other refusal, for it hangs on the Lease.
        Stopped { reason, message: refusal.to_string(), again: None }
    }

    fn store_failed(&mut self, doing: &str, error: &StoreError) -> Stopped {
        // What was known may be wrong after a failure: read it again.
        self.known = None;
        if matches!(error.class(), ErrorClass::AccessDenied | ErrorClass::BucketNotFound) {
            self.handle.look_again.notify_one();
        }
        self.failed(format!("{doing}: {error}"))
    }

    fn failed(&mut self, message: String) -> Stopped {
        Stopped { reason: FenceCurrent::PublishFailed, message, again: Some(self.backoff.next()) }
    }

    fn stopped(&mut self, stopped: Stopped) -> Duration {
        let Stopped { reason, message, again } = stopped;
        let mut transition = false;
        self.handle.observed.send_if_modified(|observed| {
            transition = observed.fence.reason != reason;
            observed.fence.replace(Said::new(reason, message.clone()))
        });
        if transition {
            if let Some(notice) = Reason::of_fence(reason) {
                self.context.notices.send(&self.handle.reference, notice, message);
            } else {
                let (namespace, policy) = (&self.handle.name.namespace, &self.handle.name.name);
                tracing::info!(namespace, policy, reason = reason.as_str(), "{message}");
            }
        }
        let next = self.next_look();
        again.map_or(next, |again| again.min(next))
    }

    /// How long until the Lease may have expired or the watch has been silent for too long.
    fn next_look(&mut self) -> Duration {
        if self.lease.is_none() {
            return IDLE;
        }
        let now = self.context.monotonic.now();
        let seen = self.seen();
        let poll = seen.heard.map_or(Duration::ZERO, |heard| heard + self.context.settings.lease_poll);
        let expiry = seen.lease.as_ref().map(|lease| lease::expiry(lease, now));
        let until = match expiry {
            Some(Expiry::At(instant)) => poll.min(instant),
            _ => poll,
        };
        // Never in a hot loop, whatever the times say.
        until.saturating_sub(now).max(Duration::from_millis(50))
    }
}

fn fence_status(term: &Term, at: Option<jiff::Timestamp>, lag: Option<Duration>) -> FenceStatus {
    FenceStatus {
        version: term.version,
        holder: Some(term.holder.clone()),
        lease_transitions: Some(term.lease.transitions),
        lease_uid: Some(term.lease.uid.clone()),
        published_at: at,
        lag_milliseconds: lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX).into()),
    }
}
