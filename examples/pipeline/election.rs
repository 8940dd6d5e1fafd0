//! Leadership of the example pipeline, by a Lease.
//!
//! Deliberately small: take the Lease when it is free or has not been renewed for its duration, raise `leaseTransitions` with every
//! term, renew it while leading. Whoever was paused finds out late, as always with Leases; the fence in the bucket is for that.

use std::time::Duration;

use anyhow::Context;
use epochwarden_store::{Clock, SystemClock};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;

/// A candidate for the Lease.
pub(crate) struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    duration_seconds: u32,
    /// The last renewal that was seen, and when: only the time since then counts, never the clock of another machine.
    seen: Option<(LeaseSpec, Instant)>,
    /// The `leaseTransitions` of this process' term, while it leads.
    term: Option<i32>,
}

/// What a look at the Lease led to.
pub(crate) enum Role {
    /// This process leads a new term, with this version.
    Leader { version: u64 },
    /// Somebody else leads.
    Follower { leader: String },
}

impl Candidate {
    pub(crate) fn new(client: Client, namespace: &str, name: &str, identity: &str, duration_seconds: u32) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, name: name.into(), identity: identity.into(), duration_seconds, seen: None, term: None }
    }

    /// Begins a term when the Lease is free or was not renewed in time.
    pub(crate) async fn campaign(&mut self) -> anyhow::Result<Role> {
        self.term = None;
        let Some(lease) = self.api.get_opt(&self.name).await.context("reading the Lease")? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.claim(0)) };
            let created = self.api.create(&PostParams::default(), &lease).await;
            return match created {
                Ok(_) => self.begin(0),
                Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(follow(None)),
                Err(error) => Err(error).context("creating the Lease"),
            };
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        let held = holder.as_ref().is_some_and(|holder| *holder != self.identity);
        if held && !self.silent(&spec) {
            return Ok(follow(holder));
        }
        // Raised also where the Lease names this process already: a version is one term's, and that one is over.
        let transitions = spec.lease_transitions.unwrap_or_default() + 1;
        if self.replace(lease, transitions).await? { self.begin(transitions) } else { Ok(follow(holder)) }
    }

    /// Renews the Lease of the current term; `false` when the term is over.
    pub(crate) async fn renew(&mut self) -> anyhow::Result<bool> {
        let Some(term) = self.term else { return Ok(false) };
        let lease = self.api.get(&self.name).await.context("reading the Lease")?;
        let ours = lease.spec.as_ref().is_some_and(|spec| {
            spec.holder_identity.as_ref() == Some(&self.identity) && spec.lease_transitions == Some(term)
        });
        Ok(ours && self.replace(lease, term).await?)
    }

    /// Writes the Lease as this process', unless somebody else has written it since it was read: the resource version in its metadata
    /// makes this a compare-and-swap, which one of two candidates loses.
    async fn replace(&self, mut lease: Lease, transitions: i32) -> anyhow::Result<bool> {
        lease.spec = Some(self.claim(transitions));
        match self.api.replace(&self.name, &PostParams::default(), &lease).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
            Err(error) => Err(error).context("writing the Lease"),
        }
    }

    /// The version is leaseTransitions + 1, as the operator computes it: the first term has 1.
    fn begin(&mut self, transitions: i32) -> anyhow::Result<Role> {
        self.term = Some(transitions);
        Ok(Role::Leader { version: u64::try_from(transitions)? + 1 })
    }

    /// Whether the Lease has looked like this for as long as it lasts.
    fn silent(&mut self, spec: &LeaseSpec) -> bool {
        let now = Instant::now();
        let since = match &self.seen {
            Some((seen, since)) if seen == spec => *since,
            _ => self.seen.insert((spec.clone(), now)).1,
        };
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        now - since >= Duration::from_secs(seconds.unwrap_or(self.duration_seconds.into()))
    }

    fn claim(&self, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.duration_seconds).ok(),
            lease_transitions: Some(transitions),
            renew_time: Some(MicroTime(SystemClock.now())),
            ..LeaseSpec::default()
        }
    }
}

fn follow(leader: Option<String>) -> Role {
    Role::Follower { leader: leader.unwrap_or_else(|| "somebody else".to_owned()) }
}
