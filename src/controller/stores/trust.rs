//! Whether a store can be trusted: it is probed before anything is written that relies on it.

use std::sync::Arc;
use std::time::Duration;

use epochwarden_store::probe::{self, ProbeError, ProbeReport};
use epochwarden_store::{Capabilities, RootSettings};
use kube::ResourceExt;
use tokio_util::sync::CancellationToken;

use super::keeper::Keeper;
use super::open::{Identity, Opener};
use super::{StoreProblem, Stores};
use crate::api::RUN_ANNOTATION;
use crate::api::condition::StoreReady;
use crate::api::status::CapabilitiesStatus;

/// The word of [`RUN_ANNOTATION`] that asks for a probe.
const WORD: &str = "probe";

/// How long a store is not probed again that is unsafe and keeps the keys of every probe, unless something of it changes or a probe is
/// asked for.
const CONDEMNED_FOR: Duration = Duration::from_hours(24);

/// What a probe has found that left its keys behind: to find it again would leave more.
#[derive(Debug)]
pub(super) struct Condemned {
    /// Of which store, with which credentials.
    identity: Arc<Identity>,
    message: String,
    until: Duration,
}

impl Keeper {
    /// The clients with what is known of their store; a probe first, where nothing is known or somebody has asked for one.
    pub(super) async fn trusted(&mut self, stores: Stores, opener: &Opener) -> Result<Stores, StoreProblem> {
        let known = {
            let observed = self.handle.observed.borrow();
            observed.capabilities.filter(|_| observed.store.reason != StoreReady::UnsafeStore)
        };
        if let Some((known, _)) = known.filter(|(known, _)| is_safe(*known) && !self.asked.probe) {
            return Ok(stores.with_capabilities(capabilities(known)));
        }
        let now = self.context.monotonic.now();
        let condemned = self.condemned.as_ref().filter(|found| found.identity == stores.identity && now < found.until);
        if let Some(found) = condemned.filter(|_| !self.asked.probe) {
            return Err(is_unsafe(found.message.clone()));
        }
        self.probing = true;
        let report = self.probe(opener).await?;
        self.probing = false;
        self.found(&report);
        let message = report.unsafe_because();
        self.condemned = message.clone().filter(|_| report.leaves_keys()).map(|message| Condemned {
            identity: Arc::clone(&stores.identity),
            message,
            until: now + CONDEMNED_FOR,
        });
        match message {
            Some(message) => Err(is_unsafe(message)),
            None => Ok(stores.with_capabilities(report.capabilities)),
        }
    }

    /// Tries the store. Should this be dropped, the probe still cleans up behind itself, as a task of the policy.
    async fn probe(&self, opener: &Opener) -> Result<ProbeReport, StoreProblem> {
        let ended = |message: String| StoreProblem { reason: StoreReady::Unreachable, message, lasting: false };
        // Retries would only spend its time: what a store answers to odd requests is what it is asked for.
        let root = opener.open(|settings| RootSettings { max_retries: Some(2), ..settings })?;
        let Ok(_turn) = self.context.probes.acquire().await else {
            return Err(ended("the operator ends".into()));
        };
        let cancel = CancellationToken::new();
        let _on_drop = cancel.clone().drop_guard();
        let clock = Arc::clone(&self.context.clock);
        let probe = async move { probe::run(&root, probe::DEADLINE, clock.as_ref(), &cancel).await };
        match self.handle.tasks.spawn(probe).await {
            Ok(Ok(report)) => Ok(report),
            Ok(Err(ProbeError::Store(error))) => Err(StoreProblem::from(&error)),
            Ok(Err(error)) => Err(ended(format!("the store could not be probed: {error}"))),
            Err(_) => Err(ended("the probe did not end as it should; trying again".into())),
        }
    }

    /// Takes what a probe found, and answers whoever has asked for it: in one value, so that whoever asked is owed it until it is there.
    fn found(&mut self, report: &ProbeReport) {
        let (namespace, policy) = (&self.handle.name.namespace, &self.handle.name.name);
        for problem in &report.problems {
            tracing::warn!(namespace, policy, reason = "Probed", "the probe found: {problem}");
        }
        let requests = report.requests.total();
        tracing::info!(namespace, policy, reason = "Probed", requests, "the store was probed");
        let current = self.handle.current();
        let asked = std::mem::take(&mut self.asked.probe);
        let request = current.annotations().get(RUN_ANNOTATION).filter(|text| {
            let word = text.split_once('@').map_or(text.as_str(), |(word, _)| word);
            asked && word == WORD
        });
        let found = status(report.capabilities);
        self.remember(|observed| {
            let at = observed.capabilities.filter(|(before, _)| *before == found && !asked).map(|(_, at)| at);
            observed.capabilities = Some((found, at.unwrap_or(report.finished_at)));
            if let Some(request) = request {
                observed.last_run_request = Some(request.clone());
            }
        });
    }
}

fn is_unsafe(message: String) -> StoreProblem {
    StoreProblem { reason: StoreReady::UnsafeStore, message, lasting: true }
}

/// Without one of these nothing that the product promises holds.
fn is_safe(capabilities: CapabilitiesStatus) -> bool {
    capabilities.conditional_create && capabilities.consistent_list
}

fn status(capabilities: Capabilities) -> CapabilitiesStatus {
    let Capabilities { conditional_create, consistent_list, bulk_delete, delimiter_index, versioned, object_lock } =
        capabilities;
    CapabilitiesStatus { conditional_create, consistent_list, bulk_delete, delimiter_index, versioned, object_lock }
}

fn capabilities(status: CapabilitiesStatus) -> Capabilities {
    let CapabilitiesStatus {
        conditional_create,
        consistent_list,
        bulk_delete,
        delimiter_index,
        versioned,
        object_lock,
    } = status;
    Capabilities { conditional_create, consistent_list, bulk_delete, delimiter_index, versioned, object_lock }
}
