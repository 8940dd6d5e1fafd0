//! From a policy and its Secrets to clients.

use std::path::PathBuf;
use std::sync::Arc;

use epochwarden_core::Numbering;
use epochwarden_store::{Root, RootSettings, ask_folder};

use super::keeper::{Keeper, Look};
use super::{StoreProblem, Stores};
use crate::api::StateEpochPolicy;
use crate::api::condition::StoreReady;
use crate::controller::credentials::{self, Secrets};

/// What clients are made from; the same identity makes the same clients.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    url: String,
    options: Vec<(String, String)>,
    /// Where the links of a folder's URL lead.
    folder: Option<PathBuf>,
    /// Which state of which Secrets.
    secrets: String,
}

/// Which store it is, whoever asks: what a probe finds out is about this.
pub(super) type Place = (String, Vec<(String, String)>, Option<PathBuf>);

impl Identity {
    fn place(&self) -> Place {
        (self.url.clone(), self.options.clone(), self.folder.clone())
    }

    #[cfg(test)]
    pub(super) fn of_url(url: &str) -> Self {
        Self::with_secrets(url, "")
    }

    #[cfg(test)]
    pub(super) fn with_secrets(url: &str, secrets: &str) -> Self {
        Self { url: url.to_owned(), options: Vec::new(), folder: None, secrets: secrets.to_owned() }
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
    /// The folder that was found allowed.
    folder: Option<PathBuf>,
    settings: RootSettings,
    numbering: Numbering,
}

impl Opener {
    /// Clients with these settings changed. No request.
    pub(super) fn open(&self, change: impl FnOnce(RootSettings) -> RootSettings) -> Result<Root, StoreProblem> {
        let root = Root::open(&self.url, self.options.clone(), &change(self.settings.clone()))
            .map(|root| root.numbered(self.numbering))
            .map_err(|error| StoreProblem::from(&error))?;
        // The links may have been changed since they were followed. What counts is where the clients are, and they stay there.
        if root.folder() == self.folder.as_deref() {
            return Ok(root);
        }
        let message = format!(
            "{}: the links that lead to the folder were changed while it was being opened; looking again",
            self.url
        );
        Err(StoreProblem { reason: StoreReady::Unreachable, message, lasting: false })
    }
}

impl Keeper {
    /// The store's clients, claimed and probed where the policy writes to it.
    pub(super) async fn open(&mut self, policy: &StateEpochPolicy, look: Look) -> Result<Stores, StoreProblem> {
        let store = &policy.spec.store;
        let secrets = credentials::read(&self.context, &self.handle.name.namespace, store).await?;
        let identity = Identity {
            url: store.url.clone(),
            options: store.options.clone().into_iter().collect(),
            folder: self.check_file_root(&store.url).await?,
            secrets: secrets.identity.clone(),
        };
        let opener = self.opener(&identity, secrets, policy.spec.numbering)?;
        let stores = match self.checked.clone().filter(|stores| *stores.identity == identity) {
            Some(stores) if look == Look::Secrets => return Ok(stores),
            Some(stores) => stores,
            None => self.make(identity, &opener)?,
        };
        self.check(policy, stores, &opener).await
    }

    /// Where the folder is that the URL leads to, if it is one's. Refuses one outside of the allowed ones.
    async fn check_file_root(&self, url: &str) -> Result<Option<PathBuf>, StoreProblem> {
        if !url.starts_with("file:") {
            return Ok(None);
        }
        let (folder, roots) = (url.to_owned(), self.context.settings.allow_file_roots.clone());
        let checked = ask_folder(url, move || credentials::check_file_root(&folder, &roots)).await;
        checked.map_err(|error| StoreProblem::from(&error))?.map(Some)
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
        Ok(Opener { url: identity.url.clone(), options, folder: identity.folder.clone(), settings, numbering })
    }

    fn make(&mut self, identity: Identity, opener: &Opener) -> Result<Stores, StoreProblem> {
        let runs = opener.open(|settings| settings)?;
        let fence = opener.open(RootSettings::for_fence)?;
        let made_for = identity.place();
        // What was probed by an earlier life of the operator was this policy's store of this generation. Another endpoint is another store.
        if self.made_for.as_ref().is_some_and(|before| *before != made_for) {
            self.remember(|observed| observed.capabilities = None);
        }
        self.made_for = Some(made_for);
        Ok(Stores { fence, runs, owner: None, identity: Arc::new(identity) })
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_is_changed_between_the_check_and_the_opening_is_not_followed() {
        let here = tempfile::tempdir().unwrap();
        let top = here.path().canonicalize().unwrap();
        for name in ["allowed", "allowed/orders", "other"] {
            std::fs::create_dir(top.join(name)).unwrap();
        }
        let link = top.join("allowed/link");
        std::os::unix::fs::symlink(top.join("allowed/orders"), &link).unwrap();
        let url = format!("file://{}", link.display());
        let checked = credentials::check_file_root(&url, &[top.join("allowed")]).unwrap();
        let opener = Opener {
            url,
            options: Vec::new(),
            folder: Some(checked.clone()),
            settings: RootSettings::default(),
            numbering: Numbering::Plain,
        };
        assert_eq!(opener.open(|settings| settings).unwrap().folder(), Some(checked.as_path()));
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(top.join("other"), &link).unwrap();
        let problem = opener.open(|settings| settings).unwrap_err();
        assert_eq!((problem.reason, problem.lasting), (StoreReady::Unreachable, false), "{}", problem.message);
    }
}
