//! The store of one policy: its clients, its credentials, and whether it can be reached.
//!
//! One task per policy owns this. It opens the store when the policy or its Secret changes, tries again with growing waits while
//! something is wrong, and otherwise makes no request to the store at all: whoever meets an error asks it to look again.

use std::sync::Arc;
use std::time::Duration;

use epochwarden_core::register::OwnerRecord;
use epochwarden_store::{ErrorClass, Registers, Root, RootSettings, StoreError};

use super::backoff::{Backoff, jitter};
use super::context::Context;
use super::credentials::{self, Credentials};
use super::notices::Reason;
use super::observed::Said;
use super::registry::Handle;
use crate::api::StateEpochPolicy;
use crate::api::condition::StoreReady;

/// How often credentials are read again while all is well.
const CREDENTIALS_AGE: Duration = Duration::from_secs(60);

/// The clients of a policy's store.
#[derive(Debug, Clone)]
pub(crate) struct Stores {
    /// The client of the fence path, which it shares with nobody.
    pub(crate) fence: Root,
    /// The client of prunes and audits.
    pub(crate) runs: Root,
    /// Whether this policy has claimed the root, as it must before its first other write.
    pub(crate) claimed: bool,
    generation: Arc<Identity>,
}

impl Stores {
    /// Whether both are the same clients.
    #[must_use]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.generation, &other.generation)
    }
}

/// What clients are made from; the same identity makes the same clients.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    url: String,
    options: Vec<(String, String)>,
    secret: Option<String>,
}

/// Why a store cannot be used.
#[derive(Debug)]
pub(super) struct StoreProblem {
    pub(super) reason: StoreReady,
    pub(super) message: String,
}

impl From<&StoreError> for StoreProblem {
    fn from(error: &StoreError) -> Self {
        let reason = match error.class() {
            ErrorClass::BucketNotFound => StoreReady::BucketNotFound,
            ErrorClass::AccessDenied => StoreReady::AccessDenied,
            ErrorClass::InvalidConfiguration => StoreReady::InvalidConfiguration,
            ErrorClass::CredentialsNotAllowed => StoreReady::CredentialsNotAllowed,
            ErrorClass::RootConflict => StoreReady::RootConflict,
            ErrorClass::UnknownLayout => StoreReady::UnknownLayout,
            _ => StoreReady::Unreachable,
        };
        Self { reason, message: error.to_string() }
    }
}

/// Runs until the policy's work ends.
pub(super) async fn run(context: Arc<Context>, handle: Arc<Handle>) {
    let mut policy = handle.policy.subscribe();
    let mut keeper = Keeper { context, handle: Arc::clone(&handle), checked: None };
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    let mut look = Look::Store;
    loop {
        policy.mark_unchanged();
        let looked = tokio::select! {
            () = handle.cancel.cancelled() => return,
            looked = keeper.look(look) => looked,
        };
        let wait = match looked {
            Ok(()) => {
                backoff.reset();
                // A lost register may have been restored, which nothing else would show.
                look = if handle.observed.borrow().lost.is_some() { Look::Store } else { Look::Credentials };
                jitter(CREDENTIALS_AGE)
            }
            Err(()) => {
                look = Look::Store;
                backoff.next()
            }
        };
        tokio::select! {
            () = handle.cancel.cancelled() => return,
            _ = policy.changed() => look = Look::Store,
            () = handle.look_again.notified() => look = Look::Store,
            () = tokio::time::sleep_until(tokio::time::Instant::now() + wait) => {}
        }
    }
}

/// What to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Only whether the Secret has changed.
    Credentials,
    /// The store itself, too.
    Store,
}

struct Keeper {
    context: Arc<Context>,
    handle: Arc<Handle>,
    /// The clients that have reached the store.
    checked: Option<Stores>,
}

impl Keeper {
    async fn look(&mut self, look: Look) -> Result<(), ()> {
        let policy = self.handle.current();
        if look == Look::Credentials {
            if policy.spec.store.credentials.is_none() {
                return Ok(());
            }
            self.context.turn_to_read_a_secret().await;
        }
        match self.open(&policy, look).await {
            Ok(stores) => {
                self.checked = Some(stores.clone());
                let same = self
                    .handle
                    .stores
                    .borrow()
                    .as_ref()
                    .is_some_and(|held| held.is_same(&stores) && held.claimed == stores.claimed);
                if !same {
                    self.handle.stores.send_replace(Some(stores.clone()));
                }
                self.observe(
                    StoreReady::Reachable,
                    format!("{} can be used", policy.spec.store.url),
                    Some(stores.runs.provider()),
                );
                Ok(())
            }
            Err(problem) => {
                self.give_up_stores(problem.reason);
                self.observe(problem.reason, problem.message, None);
                Err(())
            }
        }
    }

    /// A store that does not answer may answer the fence path a moment later, which has a client of its own and tries for itself. What
    /// must not be used at all is taken away.
    fn give_up_stores(&mut self, reason: StoreReady) {
        if reason != StoreReady::Unreachable {
            self.checked = None;
            self.handle.stores.send_if_modified(|stores| stores.take().is_some());
        }
    }

    async fn open(&self, policy: &StateEpochPolicy, look: Look) -> Result<Stores, StoreProblem> {
        let store = &policy.spec.store;
        let credentials = match &store.credentials {
            Some(credentials) => Some(
                credentials::read(&self.context.client, &self.handle.name.namespace, &credentials.secret_ref.name)
                    .await?,
            ),
            None => None,
        };
        let identity = Identity {
            url: store.url.clone(),
            options: store.options.clone().into_iter().collect(),
            secret: credentials.as_ref().map(|credentials| credentials.identity.clone()),
        };
        let held = self.checked.clone().filter(|stores| *stores.generation == identity);
        let stores = match held {
            Some(stores) if look == Look::Credentials => return Ok(stores),
            Some(stores) => stores,
            None => self.make(identity, credentials)?,
        };
        self.check(policy, stores).await
    }

    fn make(&self, identity: Identity, credentials: Option<Credentials>) -> Result<Stores, StoreProblem> {
        let settings = &self.context.settings;
        if identity.url.starts_with("file:") {
            credentials::check_file_root(&identity.url, &settings.allow_file_roots)?;
        }
        let mut options = identity.options.clone();
        let ambient =
            credentials.is_none() && credentials::is_under(&identity.url, &settings.allow_ambient_credentials);
        options.extend(credentials.map(|credentials| credentials.options).unwrap_or_default());
        let open = |root: RootSettings| {
            let root = RootSettings { ambient_credentials: ambient, ..root };
            Root::open(&identity.url, options.clone(), &root).map_err(|error| StoreProblem::from(&error))
        };
        let observer = self.context.metrics.observer(self.handle.name.clone());
        let runs = open(RootSettings { observer: Arc::clone(&observer), ..RootSettings::default() })?;
        let fence = open(RootSettings { observer, ..RootSettings::default() }.for_fence())?;
        Ok(Stores { fence, runs, claimed: false, generation: Arc::new(identity) })
    }

    /// Reads the registers, and claims the root before anything else is written to it.
    async fn check(&self, policy: &StateEpochPolicy, mut stores: Stores) -> Result<Stores, StoreProblem> {
        let registers = Registers::new(stores.runs.clone(), self.context.publisher.clone());
        registers.remember(&self.handle.observed.borrow().seen);
        match registers.read().await {
            Ok(reading) => self.remember(|observed| {
                observed.seen = observed.seen.max(reading);
                observed.lost = None;
            }),
            // The store is there, only not as it was: reading goes on, writing does not.
            Err(StoreError::RegisterLost(lost)) => {
                self.remember(|observed| observed.lost = Some(lost));
                stores.claimed = false;
                return Ok(stores);
            }
            Err(error) => return Err(StoreProblem::from(&error)),
        }
        if policy.writes() {
            registers.claim_owner(&self.claim()).await.map_err(|error| StoreProblem::from(&error))?;
            stores.claimed = true;
        }
        Ok(stores)
    }

    fn claim(&self) -> OwnerRecord {
        OwnerRecord {
            cluster: self.context.cluster.clone(),
            namespace: self.handle.name.namespace.clone(),
            name: self.handle.name.name.clone(),
            uid: self.handle.uid.clone(),
            take_over: None,
        }
    }

    fn remember(&self, change: impl FnOnce(&mut super::observed::Observed)) {
        self.handle.observed.send_modify(change);
    }

    fn observe(&self, reason: StoreReady, message: String, provider: Option<&'static str>) {
        let mut before = StoreReady::Pending;
        self.handle.observed.send_if_modified(|observed| {
            before = observed.store.reason;
            if let Some(provider) = provider {
                observed.provider = Some(provider.to_owned());
            }
            observed.store.replace(Said::new(reason, message.clone()))
        });
        if before == reason {
            return;
        }
        match reason {
            StoreReady::Reachable => {
                self.handle.wake(&self.context);
                tracing::info!(namespace = self.handle.name.namespace, policy = self.handle.name.name, "{message}");
            }
            StoreReady::RootConflict => {
                self.context.notices.send(&self.handle.reference, Reason::RootConflict, message)
            }
            _ => self.context.notices.send(&self.handle.reference, Reason::StoreUnreachable, message),
        }
    }
}
