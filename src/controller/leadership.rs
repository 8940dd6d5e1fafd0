//! The election of the operator that works, where several were started: a Lease of their own, by the rules of
//! [`epochwarden_core::election`].
//!
//! A [`Candidate`] looks at the Lease until it may take it, and does nothing else. Who has taken it renews it beside the work, in its
//! [`Office`], and gives it back when the work has ended. Every write is on the condition that the Lease is still what was read, so of two
//! that write one is refused.

mod office;

use std::sync::Arc;
use std::time::Duration;

use epochwarden_core::election::{Decision, LASTS, LOOK_EVERY, Vacancy, decide, transitions};
use epochwarden_core::lease::LeaseObservation;
use epochwarden_store::Clock;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(super) use office::Office;

use super::answer::{NoAnswer, answer};
use super::backoff::Backoff;
use super::leases::{LeaseKey, LeaseSeen};
use super::monotonic::Monotonic;

/// The longest wait after a look that failed.
const LONGEST: Duration = Duration::from_secs(5);

/// An election, and one that stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Election {
    /// The namespace of the Lease: the operator's own.
    pub namespace: String,
    /// The name of the Lease.
    pub lease: String,
    /// What the Lease calls this process when it leads. New at every start, so that nobody takes an earlier process for this one.
    pub candidate: String,
}

/// One that stands for election.
pub(super) struct Candidate {
    me: String,
    key: LeaseKey,
    api: Api<Lease>,
    clock: Arc<dyn Clock>,
    monotonic: Monotonic,
    seen: LeaseSeen,
    /// The Lease as it was last read, from which the next one is made.
    stored: Option<Lease>,
}

impl Candidate {
    /// Has not looked yet. `client` should keep no connection: one that has fallen silent would cost the leadership.
    pub(super) fn new(election: &Election, client: Client, clock: Arc<dyn Clock>) -> Self {
        let Election { namespace, lease, candidate } = election.clone();
        Self {
            me: candidate,
            api: Api::namespaced(client, &namespace),
            key: LeaseKey { namespace, name: lease },
            clock,
            monotonic: Monotonic::start(),
            seen: LeaseSeen::default(),
            stored: None,
        }
    }

    /// Waits until it leads; `None` when `shutdown` came first. `looked` is told of each look that succeeded.
    pub(super) async fn stand(mut self, shutdown: &CancellationToken, looked: impl Fn()) -> Option<Leader> {
        let mut backoff = Backoff::new(LOOK_EVERY, LONGEST);
        let mut waits_for = None;
        loop {
            let wait = match shutdown.run_until_cancelled(self.look()).await? {
                Ok(()) => {
                    looked();
                    backoff.reset();
                    match decide(&self.me, self.observed(), None, self.monotonic.now()) {
                        Decision::Acquire(vacancy) => match self.acquire(vacancy).await {
                            Some(renewed) => return Some(Leader { candidate: self, renewed }),
                            None => LOOK_EVERY,
                        },
                        Decision::StandBy { holder, until } => {
                            if waits_for.as_ref() != Some(&holder) {
                                tracing::info!(lease = %self.key, holder, "standing by");
                                waits_for = Some(holder);
                            }
                            until.saturating_sub(self.monotonic.now()).min(LOOK_EVERY)
                        }
                        // Those are for who leads.
                        Decision::Lead { .. } | Decision::Renew | Decision::StepDown(_) => LOOK_EVERY,
                    }
                }
                Err(error) => {
                    tracing::warn!(lease = %self.key, %error, "the Lease of the leader election could not be read; trying again");
                    backoff.next()
                }
            };
            shutdown.run_until_cancelled(tokio::time::sleep_until(Instant::now() + wait)).await?;
        }
    }

    /// The instant at which the Lease was asked for, where it was got.
    async fn acquire(&mut self, vacancy: Vacancy) -> Option<Duration> {
        match self.claim().await {
            Ok(sent) => {
                tracing::info!(lease = %self.key, holder = self.me, ?vacancy, "leading");
                Some(sent)
            }
            Err(error) if error.code() == Some(409) => {
                tracing::debug!(lease = %self.key, "another one was faster");
                None
            }
            Err(error) => {
                tracing::warn!(lease = %self.key, %error, "the Lease of the leader election could not be taken; trying again");
                None
            }
        }
    }

    /// Reads the Lease. One GET.
    async fn look(&mut self) -> Result<(), NoAnswer> {
        let lease = answer(self.api.get_opt(&self.key.name)).await?;
        self.saw(lease);
        Ok(())
    }

    /// Writes itself into the Lease, provided that it still is as it was read, and gives the instant at which that was sent. One POST or PUT.
    async fn claim(&mut self) -> Result<Duration, NoAnswer> {
        let sent = self.monotonic.now();
        let claimed = claimed(self.stored.as_ref(), self.observed(), &self.key, &self.me, self.clock.now());
        self.write(claimed).await?;
        Ok(sent)
    }

    /// Gives the Lease back, if it is still this candidate's own. One GET and one PUT; twice where somebody else wrote in between.
    async fn release(&mut self) -> Result<(), NoAnswer> {
        loop {
            self.look().await?;
            let held = self.observed().is_some_and(|lease| lease.holder() == Some(&self.me));
            let Some(stored) = self.stored.as_ref().filter(|_| held) else { return Ok(()) };
            match self.write(released(stored, self.clock.now())).await {
                Err(error) if error.code() == Some(409) => {}
                done => return done,
            }
        }
    }

    async fn write(&mut self, lease: Lease) -> Result<(), NoAnswer> {
        let params = PostParams::default();
        let written = if self.stored.is_some() {
            answer(self.api.replace(&self.key.name, &params, &lease)).await?
        } else {
            answer(self.api.create(&params, &lease)).await?
        };
        self.saw(Some(written));
        Ok(())
    }

    fn saw(&mut self, lease: Option<Lease>) {
        self.seen.take(&self.key, lease.as_ref(), self.monotonic.now());
        self.stored = lease;
    }

    fn observed(&self) -> Option<&LeaseObservation> {
        self.seen.lease.as_ref()
    }
}

/// One that has been elected.
pub(super) struct Leader {
    candidate: Candidate,
    /// When the last renewal that was acknowledged was sent.
    renewed: Duration,
}

/// What the Lease becomes when `me` takes or renews it. What others keep in it stays, and so does the version on which the write depends.
fn claimed(
    stored: Option<&Lease>,
    observed: Option<&LeaseObservation>,
    key: &LeaseKey,
    me: &str,
    now: Timestamp,
) -> Lease {
    let mut lease = stored.cloned().unwrap_or_else(|| Lease {
        metadata: ObjectMeta {
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            ..ObjectMeta::default()
        },
        spec: None,
    });
    let held = observed.is_some_and(|lease| lease.holder() == Some(me));
    let before = lease.spec.take().unwrap_or_default();
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: i32::try_from(LASTS.as_secs()).ok(),
        lease_transitions: Some(transitions(me, observed)),
        acquire_time: before.acquire_time.filter(|_| held).or(Some(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        ..before
    });
    lease
}

/// What the Lease becomes when its holder gives it back.
fn released(stored: &Lease, now: Timestamp) -> Lease {
    let mut lease = stored.clone();
    let before = lease.spec.take().unwrap_or_default();
    lease.spec = Some(LeaseSpec { holder_identity: Some(String::new()), renew_time: Some(MicroTime(now)), ..before });
    lease
}

#[cfg(test)]
mod tests;
