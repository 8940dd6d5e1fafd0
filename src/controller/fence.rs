//! The fence path of one policy: from a change of the leader's Lease to a durable record in the bucket, and nothing slow in between.
//!
//! One task per policy owns the fence. It uses a store client of its own and waits for nobody: not for runs, not for the status.

mod again;
mod assign;
mod subscription;
mod told;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use epochwarden_core::Version;
use epochwarden_core::lease::{self, FenceDecision, FenceRefusal, FenceSeen, RecordSeen, Term, VersionFrom};
use epochwarden_core::register::RegisterKind;
use epochwarden_store::registers::Record;
use epochwarden_store::{Published, Registers, StoreError};
use tokio::sync::Notify;
use tokio::time::Instant;

use again::{Again, Stopped, contested, opening};
use subscription::{Subscription, changed};
use told::{status_of, status_of_nobody};

use super::answer::NoAnswer;
use super::backoff::Backoff;
use super::context::Context;
use super::leases::{LeaseKey, LeaseSeen};
use super::registry::Handle;
use super::stores::Stores;
use crate::api::StateEpochPolicy;
use crate::api::condition::FenceCurrent;

/// How long the task sleeps when only a change can give it something to do.
const IDLE: Duration = Duration::from_hours(1);

/// How long the store may leave a request unanswered before `FenceCurrent` says so. As long as one request may take: what comes after it
/// is another try, and a fence that nobody has heard of stops nobody.
const UNANSWERED: Duration = Duration::from_secs(2);

/// How often one look may go from decision to action and back, before it waits: each round follows a reading that changed.
const ROUNDS: usize = 6;

/// What is tried, in the words of the status.
const READING: &str = "reading the registers";
const READING_RECORD: &str = "reading the fence record";
const PUBLISHING: &str = "publishing the fence";

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
            () = task.doubt.notified() => task.known = None,
            () = tokio::time::sleep_until(Instant::now() + wait) => {}
        }
    }
}

/// What one client knows of the fence.
struct Known {
    stores: Stores,
    registers: Arc<Registers>,
    fence: FenceSeen,
}

struct FenceTask {
    context: Arc<Context>,
    handle: Arc<Handle>,
    lease: Option<Subscription>,
    known: Option<Known>,
    /// Says that the fence is not what is known of it.
    doubt: Arc<Notify>,
    /// Whether anything was found out since the task began.
    decided: bool,
    backoff: Backoff,
    /// When the store task is next asked to look at a store that refuses this one.
    look_again_due: Duration,
    refusals: Backoff,
}

impl FenceTask {
    fn new(context: Arc<Context>, handle: Arc<Handle>) -> Self {
        Self {
            context,
            handle,
            lease: None,
            known: None,
            doubt: Arc::default(),
            decided: false,
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(10)),
            look_again_due: Duration::ZERO,
            refusals: Backoff::new(Duration::from_secs(10), Duration::from_mins(10)),
        }
    }

    /// Looks at policy, Lease and fence, does what is to be done, and says how long nothing will be due.
    async fn look(&mut self) -> Duration {
        let policy = self.handle.current();
        let Some(subscription) = self.subscribe(&policy) else {
            return self.stopped(Stopped {
                reason: FenceCurrent::NotConfigured,
                message: "the policy names no Lease: the operator publishes no fence".into(),
                again: Again::WhenChanged,
            });
        };
        if policy.spec.suspend {
            let message =
                "the policy is suspended: the fence does not move, so a deposed leader is not stopped".to_owned();
            return self.stopped(Stopped { reason: FenceCurrent::Suspended, message, again: Again::WhenChanged });
        }
        match self.advance(&policy, &subscription).await {
            Ok(term) => {
                self.backoff.reset();
                self.refusals.reset();
                self.look_again_due = Duration::ZERO;
                self.decided = true;
                self.current(&term);
                self.wait(Again::InTime)
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
            let seen = self.context.leases.subscribe(key.clone());
            self.lease = Some(Subscription { key: key.clone(), since: self.context.monotonic.now(), seen });
        }
        Some(key)
    }

    fn seen(&mut self) -> LeaseSeen {
        self.lease.as_mut().map(Subscription::take).unwrap_or_default()
    }

    /// From what was last read to a fence that is durable, or to the reason why it is not.
    async fn advance(&mut self, policy: &StateEpochPolicy, key: &LeaseKey) -> Result<Term, Stopped> {
        let (from, numbering) = (policy.version_from(), policy.spec.numbering);
        // The store task has seen it and claims nothing then: say what is wrong, not that the store is not ready. It goes on looking, and
        // hands out clients that have claimed the root when the register is back.
        let lost = self.handle.observed.borrow().lost;
        if let Some(lost) = lost {
            self.known = None;
            return Err(Stopped { again: Again::WhenChanged, ..self.refused(lost.into()) });
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
            match lease::decide(seen.found(key), from, numbering, &fence, self.context.monotonic.now()) {
                FenceDecision::Current(term) => return Ok(term),
                // An event may be old, and what is published cannot be taken back: the API server has the last word.
                // Where versions are assigned, the fence is listed before.
                FenceDecision::Publish(_) if from == VersionFrom::Assigned => self.assign(key, numbering).await?,
                FenceDecision::Publish(_) if !fetched => {
                    self.fetch(key).await?;
                    fetched = true;
                }
                FenceDecision::Publish(term) => self.publish(&term, self.event(&seen)).await?,
                FenceDecision::ReadRecord(term) => self.read_record(&term).await?,
                FenceDecision::AwaitingAnnotation { term, until } => {
                    self.decided = true;
                    let again = until.saturating_sub(self.context.monotonic.now());
                    return Err(Stopped {
                        reason: FenceCurrent::Pending,
                        message: format!(
                            "{:?} holds the Lease and its annotation still gives version {} of another holder: waiting for the new one",
                            term.holder, term.version
                        ),
                        again: Again::Within(again),
                    });
                }
                FenceDecision::Refused(refusal) => {
                    // A person may mean it, and raise the fence by hand: the next look reads where it stands.
                    if matches!(refusal, FenceRefusal::VersionJump { .. }) {
                        self.known = None;
                    }
                    return Err(self.refused(refusal));
                }
            }
        }
        Err(self.failed("the Lease and the fence keep changing; looking again shortly"))
    }

    async fn fetch(&mut self, key: &LeaseKey) -> Result<(), Stopped> {
        let fetched = self.context.leases.fetch(key).await;
        fetched.map_err(|error| self.unanswered(key, &error))
    }

    fn unanswered(&mut self, key: &LeaseKey, error: &NoAnswer) -> Stopped {
        Stopped {
            reason: FenceCurrent::Pending,
            message: format!("the Lease {}/{} could not be read: {error}; trying again", key.namespace, key.name),
            again: Again::After(self.backoff.next()),
        }
    }

    fn peek(&self) -> LeaseSeen {
        self.lease.as_ref().map(Subscription::peek).unwrap_or_default()
    }

    /// When the change arrived that a publication answers.
    fn event(&self, seen: &LeaseSeen) -> Option<Duration> {
        let since = self.lease.as_ref().map(|lease| lease.since)?;
        seen.changed.map(|changed| changed.max(since))
    }

    /// What is known of the fence in this store, read once per client.
    async fn known(&mut self) -> Result<&mut Known, Stopped> {
        let stores = self.handle.stores.borrow().clone().filter(|stores| stores.owner.is_some());
        let Some(stores) = stores else {
            self.known = None;
            return Err(if self.handle.observed.borrow().opened {
                let message = "the store is not ready: see the condition StoreReady".into();
                Stopped { reason: FenceCurrent::StoreNotReady, message, again: Again::WhenChanged }
            } else {
                opening()
            });
        };
        if !self.handle.owns() {
            self.known = None;
            return Err(contested());
        }
        if self.known.as_ref().is_none_or(|known| !known.stores.is_same(&stores)) {
            let registers = Arc::new(Registers::new(stores.fence.clone(), self.context.publisher.clone()));
            registers.remember(&self.handle.observed.borrow().seen);
            let fence = match self.patiently(READING, registers.read()).await {
                Ok(reading) if !self.handle.saw(&reading) => return Err(contested()),
                Ok(reading) => self.stands(&registers, reading.fence).await?,
                // From here on the store task watches over it.
                Err(StoreError::RegisterLost(lost)) => {
                    self.handle.look_again.notify_one();
                    return Err(Stopped { again: Again::After(self.backoff.next()), ..self.refused(lost.into()) });
                }
                Err(error) => return Err(self.store_failed(READING, &error)),
            };
            self.known = Some(Known { stores, registers, fence });
        }
        self.known.as_mut().ok_or_else(opening)
    }

    /// The fence as a listing shows it. What is higher than the status says was raised by somebody else, and is said there.
    async fn stands(&mut self, registers: &Registers, highest: Version) -> Result<FenceSeen, Stopped> {
        let known =
            self.handle.observed.borrow().published.as_ref().map_or(Version::OFF, |published| published.version);
        if highest <= known {
            return Ok(stands_at(highest));
        }
        let (record, status) = match self.patiently(READING_RECORD, registers.fence_record(highest)).await {
            Ok(Some(Record::Readable(record))) => (RecordSeen::Read(record.clone()), status_of(record)),
            Ok(Some(Record::Unreadable { .. })) => (RecordSeen::Unreadable, status_of_nobody(highest)),
            Ok(None) => (RecordSeen::Unread, status_of_nobody(highest)),
            Err(error) => return Err(self.store_failed(READING_RECORD, &error)),
        };
        self.show_version(highest);
        self.handle.observed.send_modify(|observed| {
            observed.seen.fence = observed.seen.fence.max(highest);
            observed.published = Some(status);
        });
        Ok(FenceSeen { highest, record, lost: None })
    }

    async fn read_record(&mut self, term: &Term) -> Result<(), Stopped> {
        let registers = Arc::clone(&self.known().await?.registers);
        let record = match self.patiently(READING_RECORD, registers.fence_record(term.version)).await {
            Ok(Some(record)) => RecordSeen::from(record),
            // The highest record of all cannot go away, so the listing that named it is not to be trusted any more.
            Ok(None) => {
                self.known = None;
                return Err(
                    self.failed(&format!("the fence record of version {} was listed and is not there", term.version))
                );
            }
            Err(error) => return Err(self.store_failed(READING_RECORD, &error)),
        };
        if let Some(known) = &mut self.known {
            known.fence.record = record;
        }
        Ok(())
    }

    async fn publish(&mut self, term: &Term, event: Option<Duration>) -> Result<(), Stopped> {
        let registers = Arc::clone(&self.known().await?.registers);
        let published = registers.publish_fence(term.version, &term.holder, Some(&term.lease));
        let published = self.patiently(PUBLISHING, published).await;
        let at = self.context.clock.now();
        let result = match &published {
            Ok(Published::Created) => "created",
            Ok(Published::AlreadyThere) => "already_there",
            Ok(Published::Superseded { .. }) => "superseded",
            Err(StoreError::FenceConflict { .. }) => "conflict",
            Err(_) => "failed",
        };
        self.count(result);
        // What stands now is decided on in the next round, which reads the record where it has to be compared.
        let highest = match published {
            Ok(Published::Created) => {
                self.created(term, event, at);
                self.trim_later(term.version);
                term.version
            }
            Ok(Published::AlreadyThere) | Err(StoreError::FenceConflict { .. }) => term.version,
            Ok(Published::Superseded { by }) => by,
            Err(error) => return Err(self.store_failed(PUBLISHING, &error)),
        };
        if let Some(known) = &mut self.known {
            known.fence = stands_at(highest);
        }
        Ok(())
    }

    fn count(&self, result: &'static str) {
        self.context.metrics.fence_publish.of(&self.handle.name, &[result]).inc();
    }

    /// Old records go when the fence stands at `version`, and nobody waits for it. The listing that this takes also shows what the
    /// publication had no need to ask for: a fence that somebody else has raised further, and another owner of the root.
    ///
    /// So a policy whose root was taken over may publish once more, at the most, before anything else has shown it: its next term finds
    /// the fence stopped. That record lowers nothing; where it stands above what the new owner's Lease gives, the new owner says
    /// `LeaseRegressed`, as for any fence that was raised from elsewhere.
    fn trim_later(&self, version: Version) {
        if let Some(known) = &self.known {
            let registers = Registers::new(known.stores.fence.clone(), self.context.publisher.clone());
            let (handle, doubt) = (Arc::clone(&self.handle), Arc::clone(&self.doubt));
            let cancel = self.handle.cancel.clone();
            self.handle.tasks.spawn(async move {
                let trim = async {
                    // Its own reading: what is superfluous is what a listing shows.
                    if let Ok(reading) = registers.read().await {
                        let owns = handle.saw(&reading);
                        if reading.fence != version || !owns {
                            doubt.notify_one();
                        }
                        if !owns {
                            return;
                        }
                        registers.trim(RegisterKind::Fence).await;
                    }
                };
                cancel.run_until_cancelled(trim).await;
            });
        }
    }

    fn wait(&self, again: Again) -> Duration {
        let Some(lease) = &self.lease else { return IDLE };
        again.wait(&lease.peek(), self.context.settings.lease_poll, self.context.monotonic.now())
    }
}

fn stands_at(highest: Version) -> FenceSeen {
    FenceSeen { highest, record: RecordSeen::Unread, lost: None }
}

#[cfg(test)]
mod tests;
