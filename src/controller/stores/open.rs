//! From a policy and its Secrets to clients.

use std::sync::Arc;
use std::time::Duration;

use epochwarden_core::Numbering;
use epochwarden_store::{Root, RootSettings};

use super::keeper::{Keeper, Look};
use super::{StoreProblem, Stores};
use crate::api::StateEpochPolicy;
use crate::api::condition::StoreReady;
use crate::controller::credentials::{self, Secrets};

/// How long a folder may take to be looked at.
const FOLDER_PATIENCE: Duration = Duration::from_secs(5);

/// What clients are made from; the same identity makes the same clients.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    url: String,
    options: Vec<(String, String)>,
    /// Which state of which Secrets.
    secrets: String,
}

impl Identity {
    #[cfg(test)]
    pub(super) fn of_url(url: &str) -> Self {
        Self { url: url.to_owned(), options: Vec::new(), secrets: String::new() }
    }
}

impl Stores {
    /// Whether these clients were made with this state of the Secrets.
    #[must_use]
    pub(super) fn were_made_with(&self, secrets: &Secrets) -> bool {
        self.identity.secrets == secrets.identity
    }
}

/// How a root of one policy is opened. Has no `Debug`: it holds credentials.
pub(super) struct Opener {
    url: String,
    options: Vec<(String, String)>,
    settings: RootSettings,
    numbering: Numbering,
}

impl Opener {
    /// Clients with these settings changed. No request.
    pub(super) fn open(&self, change: impl FnOnce(RootSettings) -> RootSettings) -> Result<Root, StoreProblem> {
        Root::open(&self.url, self.options.clone(), &change(self.settings.clone()))
            .map(|root| root.numbered(self.numbering))
            .map_err(|error| StoreProblem::from(&error))
    }
}

impl Keeper {
    /// The store's clients, claimed and probed where the policy writes to it.
    pub(super) async fn open(&mut self, policy: &StateEpochPolicy, look: Look) -> Result<Stores, StoreProblem> {
        let store = &policy.spec.store;
        let secrets = credentials::read(&self.context.client, &self.handle.name.namespace, store).await?;
        let identity = Identity {
            url: store.url.clone(),
            options: store.options.clone().into_iter().collect(),
            secrets: secrets.identity.clone(),
        };
        self.check_file_root(&identity.url).await?;
        let opener = self.opener(&identity, secrets, policy.spec.numbering)?;
        let stores = match self.checked.clone().filter(|stores| *stores.identity == identity) {
            Some(stores) if look == Look::Secrets => return Ok(stores),
            Some(stores) => stores,
            None => self.make(identity, &opener)?,
        };
        self.check(policy, stores, &opener).await
    }

    /// Refuses a folder outside of the allowed ones. One on a server that is away may never answer, so no thread that others need asks it.
    async fn check_file_root(&self, url: &str) -> Result<(), StoreProblem> {
        if !url.starts_with("file:") {
            return Ok(());
        }
        let (folder, roots) = (url.to_owned(), self.context.settings.allow_file_roots.clone());
        let asked = tokio::task::spawn_blocking(move || credentials::check_file_root(&folder, &roots));
        match tokio::time::timeout(FOLDER_PATIENCE, asked).await {
            Ok(Ok(checked)) => checked,
            _ => Err(StoreProblem {
                reason: StoreReady::Unreachable,
                message: format!("{url}: the folder does not answer; look at what is mounted there"),
                lasting: false,
            }),
        }
    }

    fn opener(&self, identity: &Identity, secrets: Secrets, numbering: Numbering) -> Result<Opener, StoreProblem> {
        let settings = &self.context.settings;
        let ambient =
            secrets.options.is_none() && credentials::is_under(&identity.url, &settings.allow_ambient_credentials);
        if ambient {
            credentials::check_ambient(&identity.options, &settings.allow_endpoints)?;
        }
        let mut options = identity.options.clone();
        options.extend(secrets.options.unwrap_or_default());
        let settings = RootSettings {
            ambient_credentials: ambient,
            observer: self.context.metrics.observer(self.handle.name.clone()),
            addresses: self.context.address_rules(),
            ca: secrets.ca,
            ..RootSettings::default()
        };
        Ok(Opener { url: identity.url.clone(), options, settings, numbering })
    }

    fn make(&mut self, identity: Identity, opener: &Opener) -> Result<Stores, StoreProblem> {
        let runs = opener.open(|settings| settings)?;
        let fence = opener.open(RootSettings::for_fence)?;
        let made_for = (identity.url.clone(), identity.options.clone());
        // What was probed by an earlier life of the operator was this policy's store of this generation. Another endpoint is another store.
        if self.made_for.as_ref().is_some_and(|before| *before != made_for) {
            self.remember(|observed| observed.capabilities = None);
        }
        self.made_for = Some(made_for);
        Ok(Stores { fence, runs, owner: None, identity: Arc::new(identity) })
    }
}
