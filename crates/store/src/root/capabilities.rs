//! What a store was seen to do, and how a root takes it into account.

use std::sync::Arc;

use serde::Serialize;

use super::{Inner, Root};

/// What a probe saw a store do. What could not be shown counts as not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_excessive_bools, reason = "six independent answers, under the names that users see")]
pub struct Capabilities {
    /// Of racing creates of one key exactly one wins, and its body is what is read back. Nothing is safe without it.
    pub conditional_create: bool,
    /// A listing shows every write, overwrite and deletion before it, and ends. Nothing is safe without it.
    pub consistent_list: bool,
    /// One request deletes many keys. Where it does not, keys are deleted one by one. Google's, folders and memory take one key each.
    pub bulk_delete: bool,
    /// A listing by raw prefix and a delimiter of several characters is right over several pages. Where it is not, every key is listed.
    pub delimiter_index: bool,
    /// The bucket keeps old versions, so that a deletion frees nothing. Google's do not say.
    pub versioned: bool,
    /// The bucket says that it keeps objects under a lock, or refused a write or a deletion because of one. Not every store says so.
    pub object_lock: bool,
}

#[cfg(test)]
impl Capabilities {
    /// Of a store that does everything, and keeps nothing longer than it is told.
    pub(crate) const GOOD: Self = Self {
        conditional_create: true,
        consistent_list: true,
        bulk_delete: true,
        delimiter_index: true,
        versioned: false,
        object_lock: false,
    };
}

impl Root {
    /// The same root, used as these capabilities allow. It shares clients and counts with the one it was made from.
    #[must_use]
    pub fn with_capabilities(self, capabilities: Capabilities) -> Self {
        Self { inner: Arc::new(Inner { capabilities: Some(capabilities), ..Inner::clone(&self.inner) }) }
    }

    /// What is known of the store; `None` when nobody probed it, which is taken as everything that its provider usually has.
    #[must_use]
    pub fn capabilities(&self) -> Option<Capabilities> {
        self.inner.capabilities
    }

    /// The same root as if nobody had probed it.
    pub(crate) fn unprobed(&self) -> Self {
        Self { inner: Arc::new(Inner { capabilities: None, ..Inner::clone(&self.inner) }) }
    }

    /// The same root, deleting keys one by one where its clients can.
    pub(crate) fn one_by_one(&self) -> Self {
        let clients = &self.inner.clients;
        let store = Arc::clone(clients.one_by_one.as_ref().unwrap_or(&clients.store));
        let clients = super::Clients { store, ..clients.clone() };
        Self { inner: Arc::new(Inner { clients, ..Inner::clone(&self.inner) }) }
    }

    /// This root as a store that takes bulk deletes, with `one_by_one` for those that it refuses.
    #[cfg(test)]
    pub(crate) fn posing_as_s3(self, one_by_one: Option<Arc<dyn object_store::ObjectStore>>) -> Self {
        let clients = super::Clients { one_by_one, ..self.inner.clients.clone() };
        let inner = Inner { provider: super::Provider::S3, name: "s3", clients, ..Inner::clone(&self.inner) };
        Self { inner: Arc::new(inner) }
    }
}
