//! A store root: one location and its concrete clients.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use epochwarden_core::Numbering;
use object_store::ObjectStore;
use object_store::list::PaginatedListStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;

use crate::error::StoreError;
use crate::http::Connector;
use crate::observe::calls::Observed;
use crate::observe::{Observer, Operation, RequestCounts, Watch};

mod capabilities;
mod folder;
mod options;
mod providers;
mod settings;
mod url;

pub use capabilities::Capabilities;
pub use folder::ask as ask_folder;
pub use options::{OPTION_KEYS, SECRET_KEYS};
use providers::Clients;
pub use settings::RootSettings;

/// Which kind of store a root is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Provider {
    S3,
    Gcs,
    Azure,
    Local,
    /// A client that the caller made.
    Other,
}

impl Provider {
    #[cfg(test)]
    const ALL: [Self; 5] = [Self::S3, Self::Gcs, Self::Azure, Self::Local, Self::Other];

    fn of_scheme(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" => Some(Self::S3),
            "gs" => Some(Self::Gcs),
            "az" | "abfs" => Some(Self::Azure),
            "file" => Some(Self::Local),
            _ => None,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
            Self::Local => "file",
            Self::Other => "other",
        }
    }

    /// Whether an option is one of this store's.
    fn takes(self, key: &str) -> bool {
        let own = match self {
            Self::S3 => "aws_",
            Self::Gcs => "google_",
            Self::Azure => "azure_",
            Self::Local | Self::Other => return false,
        };
        key.starts_with(own) || matches!(key, "allow_http" | "timeout" | "connect_timeout")
    }

    const fn bulk_delete_limit(self) -> usize {
        match self {
            Self::S3 => 1000,
            Self::Azure => 256,
            Self::Gcs | Self::Local | Self::Other => 1,
        }
    }
}

/// One store root: a bucket and a prefix, or a folder, with the clients that reach it. Clones share everything.
#[derive(Clone)]
pub struct Root {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    provider: Provider,
    name: &'static str,
    url: String,
    prefix: Path,
    folder: Option<PathBuf>,
    clients: Clients,
    capabilities: Option<Capabilities>,
    numbering: Numbering,
    watch: Watch,
}

impl Root {
    /// Opens the root at `url` (`s3://`, `gs://`, `az://`, `abfs://` or `file:///`). Makes no request.
    ///
    /// The bucket comes from the URL alone. An option that the store does not have, or that is not in [`OPTION_KEYS`] or
    /// [`SECRET_KEYS`], is an error, as are missing credentials unless [`RootSettings::ambient_credentials`] is set. Redirects are not
    /// followed and no proxy of the environment is used. A folder must exist, and each of [`RootSettings::ca`] hold a certificate.
    pub fn open(
        url: &str,
        options: impl IntoIterator<Item = (String, String)>,
        settings: &RootSettings,
    ) -> Result<Self, StoreError> {
        let location = url::Location::parse(url)?;
        let options = options::Options::read(location.provider, options)?;
        let watch = Watch::new(Arc::clone(&settings.observer));
        let wiring = providers::Wiring {
            location: &location,
            options: &options,
            connector: Connector::new(
                settings.timeouts(&options)?,
                watch.clone(),
                options.secrets(),
                settings.reach()?,
            ),
            retry: settings.retry(),
            ambient: settings.ambient_credentials,
        };
        options.allow_http()?;
        let mut folder = None;
        let clients = match location.provider {
            Provider::S3 => providers::s3(&wiring)?,
            Provider::Gcs => providers::gcs(&wiring)?,
            Provider::Azure => providers::azure(&wiring)?,
            Provider::Local | Provider::Other => {
                let (store, path) = providers::local(&location)?;
                folder = Some(path);
                let store = Arc::new(Observed::new(store, watch.clone()));
                Clients { store, paginated: None, one_by_one: None }
            }
        };
        let prefix = if folder.is_some() { Path::default() } else { prefix(&location.path)? };
        let name = location.provider.as_str();
        let inner = Inner {
            provider: location.provider,
            name,
            url: location.text,
            prefix,
            folder,
            clients,
            capabilities: None,
            numbering: Numbering::Plain,
            watch,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A root at the top of a store that the caller made. Each call counts as one request.
    #[must_use]
    pub fn from_store(store: Arc<dyn ObjectStore>) -> Self {
        Self::from_store_with(store, Arc::new(()))
    }

    /// As [`Root::from_store`], with an observer.
    #[must_use]
    pub fn from_store_with(store: Arc<dyn ObjectStore>, observer: Arc<dyn Observer>) -> Self {
        let watch = Watch::new(observer);
        let store = Arc::new(Observed::new(store, watch.clone()));
        let inner = Inner {
            provider: Provider::Other,
            name: "other",
            url: "store:".to_owned(),
            prefix: Path::default(),
            folder: None,
            clients: Clients { store, paginated: None, one_by_one: None },
            capabilities: None,
            numbering: Numbering::Plain,
            watch,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The same root with a client that lists page by page. It must list the same store.
    #[must_use]
    pub fn with_paginated(self, paginated: Arc<dyn PaginatedListStore>) -> Self {
        let paginated = Arc::new(Observed::new(paginated, self.inner.watch.clone())) as Arc<dyn PaginatedListStore>;
        let clients = Clients { paginated: Some(paginated), ..self.inner.clients.clone() };
        Self { inner: Arc::new(Inner { clients, ..Inner::clone(&self.inner) }) }
    }

    /// The root below this one at `prefix`.
    pub fn with_prefix(self, prefix_below: &str) -> Result<Self, StoreError> {
        let joined = format!("{}/{prefix_below}", self.inner.prefix);
        let url = format!("{}/{prefix_below}", self.inner.url);
        Ok(Self { inner: Arc::new(Inner { prefix: prefix(&joined)?, url, ..Inner::clone(&self.inner) }) })
    }

    /// The same root, whose epochs are numbered so: listings, plans and reports of it show them as that writes them. Without it, plainly.
    #[must_use]
    pub fn numbered(self, numbering: Numbering) -> Self {
        Self { inner: Arc::new(Inner { numbering, ..Inner::clone(&self.inner) }) }
    }

    /// How the epochs of this root are numbered, and so how they are shown.
    #[must_use]
    pub fn numbering(&self) -> Numbering {
        self.inner.numbering
    }

    /// The client. Its paths are [`Root::path`]'s. Where the store is known to take no bulk deletes, it deletes keys one by one.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        match (&self.inner.capabilities, &self.inner.clients.one_by_one) {
            (Some(Capabilities { bulk_delete: false, .. }), Some(one_by_one)) => one_by_one,
            _ => &self.inner.clients.store,
        }
    }

    /// The client that lists page by page and by raw prefixes, where the store has one.
    #[must_use]
    pub fn paginated(&self) -> Option<&Arc<dyn PaginatedListStore>> {
        self.inner.clients.paginated.as_ref()
    }

    /// The path of a key of this root.
    pub fn path(&self, key: &str) -> Result<Path, StoreError> {
        let joined = if self.inner.prefix.is_root() { key.to_owned() } else { format!("{}/{key}", self.inner.prefix) };
        Path::parse(joined).map_err(|_| StoreError::UnaddressableKey { key: key.to_owned() })
    }

    /// The key of this root that a path stands for; `None` when it lies outside.
    #[must_use]
    pub fn relative<'a>(&self, path: &'a Path) -> Option<&'a str> {
        if self.inner.prefix.is_root() {
            return Some(path.as_ref());
        }
        path.as_ref().strip_prefix(self.inner.prefix.as_ref())?.strip_prefix('/')
    }

    /// The store with this root's keys at its top: what a state backend takes.
    #[must_use]
    pub fn prefixed_store(&self) -> Arc<dyn ObjectStore> {
        if self.inner.prefix.is_root() {
            return Arc::clone(self.store());
        }
        Arc::new(PrefixStore::new(Arc::clone(self.store()), self.inner.prefix.clone()))
    }

    /// Where the root lies below its bucket.
    pub(crate) fn prefix(&self) -> &Path {
        &self.inner.prefix
    }

    /// The raw text that begins every key below `key_start`, for a listing by pages.
    pub(crate) fn raw_prefix(&self, key_start: &str) -> String {
        if self.inner.prefix.is_root() { key_start.to_owned() } else { format!("{}/{key_start}", self.inner.prefix) }
    }

    /// The canonical URL, without anything secret.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// The part of the URL that names the bucket, without what is below it; of a folder all of it.
    #[must_use]
    pub fn bucket(&self) -> &str {
        let url = self.url();
        let Some((scheme, rest)) = url.split_once("://") else { return url };
        let name = rest.split('/').next().unwrap_or_default();
        if name.is_empty() { url } else { url.get(..scheme.len() + "://".len() + name.len()).unwrap_or(url) }
    }

    /// The kind of store: `s3`, `gs`, `az`, `file`; `other` for a client that the caller made.
    #[must_use]
    pub fn provider(&self) -> &'static str {
        self.inner.name
    }

    /// The folder that the clients work in, where the root is one: where the links of its URL led when it was opened. Links that change
    /// later change nothing about it.
    #[must_use]
    pub fn folder(&self) -> Option<&std::path::Path> {
        self.inner.folder.as_deref()
    }

    /// The observer that was given.
    #[must_use]
    pub fn observer(&self) -> &Arc<dyn Observer> {
        self.inner.watch.observer()
    }

    /// How many requests this root and its clones have made. What one run made is the difference of two readings, as long as nothing
    /// else uses the same root meanwhile.
    #[must_use]
    pub fn requests(&self) -> RequestCounts {
        self.inner.watch.counts()
    }

    /// How many of those requests the store answered by asking for fewer of them.
    #[must_use]
    pub fn throttled(&self) -> u64 {
        self.inner.watch.throttled()
    }

    /// How many keys one delete request takes at most.
    #[must_use]
    pub fn bulk_delete_limit(&self) -> usize {
        match self.inner.capabilities {
            Some(Capabilities { bulk_delete: false, .. }) => 1,
            _ => self.inner.provider.bulk_delete_limit(),
        }
    }

    /// The failure of a request for a key of this root, with the key and what to do.
    #[must_use]
    pub fn error(&self, operation: Operation, key: &str, source: object_store::Error) -> StoreError {
        StoreError::request(operation, self.location(key), source)
    }

    /// Root and key, as errors show them.
    #[must_use]
    pub fn location(&self, key: &str) -> String {
        format!("{}/{key}", self.inner.url)
    }

    /// Fails when the root is a folder that is gone: its listing would come out empty instead.
    pub(crate) async fn check_present(&self) -> Result<(), StoreError> {
        let Some(folder) = self.inner.folder.clone() else { return Ok(()) };
        let url = self.inner.url.clone();
        folder::ask(&self.inner.url, move || providers::check_folder(&folder, &url)).await?
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").field("url", &self.inner.url).finish_non_exhaustive()
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.url)
    }
}

fn prefix(text: &str) -> Result<Path, StoreError> {
    Path::parse(text).map_err(|error| StoreError::InvalidUrl {
        url: text.to_owned(),
        reason: format!("{error}; correct the prefix"),
    })
}

#[cfg(test)]
mod tests;
