//! The store of one policy: its clients, its credentials, and whether it can be reached.
//!
//! One task per policy owns this. It opens the store when the policy or its Secret changes, tries again with growing waits while
//! something is wrong, and otherwise makes no request to the store at all: whoever meets an error asks it to look again.

use std::sync::Arc;
use std::time::Duration;

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
const CREDENTIALS_AGE: Duration = Duration::from_mins(1);

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

    /// Whether these clients were made with this state of the Secret.
    #[must_use]
    pub(crate) fn were_made_with(&self, secret: &str) -> bool {
        self.generation.secret.as_deref() == Some(secret)
    }

    /// Clients that need no opening.
    #[cfg(test)]
    pub(crate) fn of(root: Root) -> Self {
        let identity = Identity { url: root.url().to_owned(), options: Vec::new(), secret: None };
        Self { fence: root.clone(), runs: root, claimed: true, generation: Arc::new(identity) }
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
    /// Whether clients that were made before must not be used any more.
    pub(super) lasting: bool,
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
        // A store that does not answer may answer the fence path a moment later, which tries for itself.
        Self { reason, message: error.to_string(), lasting: reason != StoreReady::Unreachable }
    }
}

/// Runs until the policy's work ends.
pub(super) async fn run(context: Arc<Context>, handle: Arc<Handle>) {
    let mut policy = handle.policy.subscribe();
    let mut keeper = Keeper { context, handle: Arc::clone(&handle), checked: None, looked: false };
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));
    let mut look = Look::Store;
    loop {
        policy.mark_unchanged();
        let looked = tokio::select! {
            () = handle.cancel.cancelled() => return,
            // What is being looked at is not what is wanted any more.
            _ = policy.changed() => {
                look = Look::Store;
                continue;
            }
            looked = keeper.look(look) => looked,
        };
        let wait = if looked.is_ok() {
            backoff.reset();
            // A lost register may have been restored, which nothing else would show.
            look = if handle.observed.borrow().lost.is_some() { Look::Store } else { Look::Credentials };
            jitter(CREDENTIALS_AGE)
        } else {
            look = Look::Store;
            backoff.next()
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
    /// Whether anything was looked at before: the first look of all takes no turn.
    looked: bool,
}

impl Keeper {
    async fn look(&mut self, look: Look) -> Result<(), ()> {
        let policy = self.handle.current();
        let names_a_secret = policy.spec.store.credentials.is_some();
        if look == Look::Credentials && !names_a_secret {
            return Ok(());
        }
        if std::mem::replace(&mut self.looked, true) && names_a_secret {
            self.context.turn_to_read_a_secret().await;
        }
        match self.open(&policy, look).await {
            Ok(stores) => {
                self.checked = Some(stores.clone());
                let message = format!("{} can be used", policy.spec.store.url);
                self.observe(StoreReady::Reachable, message, Some(stores.runs.provider()));
                let news = self.handle.stores.send_if_modified(|held| {
                    let same =
                        held.as_ref().is_some_and(|held| held.is_same(&stores) && held.claimed == stores.claimed);
                    if !same {
                        *held = Some(stores);
                    }
                    !same
                });
                if news {
                    // What was due may have waited for this.
                    self.handle.wake(&self.context);
                }
                Ok(())
            }
            Err(problem) => {
                self.failed(problem);
                Err(())
            }
        }
    }

    fn failed(&mut self, problem: StoreProblem) {
        let StoreProblem { reason, message, lasting } = problem;
        let held = self.handle.stores.borrow().is_some();
        if held && reason == StoreReady::SecretNotFound && !lasting {
            let (namespace, policy) = (&self.handle.name.namespace, &self.handle.name.name);
            tracing::warn!(namespace, policy, "{message}; the credentials of before go on being used");
            return;
        }
        self.observe(reason, message, None);
        if lasting {
            self.checked = None;
        }
        // Who waits for the first result is told of this one, too.
        self.handle.stores.send_if_modified(|stores| {
            if lasting {
                *stores = None;
            }
            stores.is_none()
        });
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
        // The client of the fence path gives up soon, and this is about the same registers.
        let registers = Registers::new(stores.fence.clone(), self.context.publisher.clone());
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
            registers
                .claim_owner(&self.handle.owner_record(&self.context))
                .await
                .map_err(|error| StoreProblem::from(&error))?;
            stores.claimed = true;
        }
        Ok(stores)
    }

    fn remember(&self, change: impl FnOnce(&mut super::observed::Observed)) {
        self.handle.observed.send_modify(change);
    }

    fn observe(&self, reason: StoreReady, message: String, provider: Option<&'static str>) {
        let mut before = StoreReady::Pending;
        self.handle.observed.send_if_modified(|observed| {
            before = observed.store.reason;
            observed.opened = true;
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
                tracing::info!(namespace = self.handle.name.namespace, policy = self.handle.name.name, "{message}");
            }
            StoreReady::RootConflict => {
                self.context.notices.send(&self.handle.reference, Reason::RootConflict, message);
            }
            _ => self.context.notices.send(&self.handle.reference, Reason::StoreUnreachable, message),
        }
    }
}
