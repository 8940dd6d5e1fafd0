//! The store of one policy: its clients, its credentials, whose it is, and whether it can be trusted.
//!
//! One task per policy owns this. It opens the store when the policy or one of its Secrets changes, claims the root and probes the store
//! before anything else is written to it, and tries again with growing waits while something is wrong. Otherwise it looks at the
//! registers now and then, and whenever somebody who met an error or a later owner's record asks for it.

mod check;
mod handout;
mod keeper;
mod open;
mod owed;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use epochwarden_store::{Capabilities, ErrorClass, Root, StoreError};
use tokio::time::Instant;

pub(crate) use handout::{NotReady, Writing, current, for_writing};
pub(crate) use owed::Owed;

use super::context::Context;
use super::registry::Handle;
use crate::api::condition::StoreReady;
use keeper::{Keeper, Look};
use open::Identity;

/// How often the Secrets are read again while all is well.
const SECRETS_AGE: Duration = Duration::from_mins(1);

/// How often the registers of a root that is written to are read while nobody asks for it, and its top for the marks of a newer layout:
/// two LISTs. What they would show is mostly that another policy has taken the root over, which whoever writes notices by itself, too, and
/// the seal check between audits as well.
const REGISTERS_AGE: Duration = Duration::from_mins(15);

/// The clients of a policy's store.
#[derive(Debug, Clone)]
pub(crate) struct Stores {
    /// The client of the fence path, which it shares with nobody.
    pub(crate) fence: Root,
    /// The client of prunes and audits.
    pub(crate) runs: Root,
    /// The number of this policy's owner record, once it has claimed the root and the store was found fit to be written to.
    pub(crate) owner: Option<u64>,
    identity: Arc<Identity>,
}

impl Stores {
    /// Whether both are the same clients.
    #[must_use]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.identity, &other.identity)
    }

    /// Whether nothing has become of them either.
    fn is_unchanged(&self, other: &Self) -> bool {
        self.is_same(other) && self.owner == other.owner && self.runs.capabilities() == other.runs.capabilities()
    }

    fn with_capabilities(self, capabilities: Capabilities) -> Self {
        let Self { fence, runs, owner, identity } = self;
        let (fence, runs) = (fence.with_capabilities(capabilities), runs.with_capabilities(capabilities));
        Self { fence, runs, owner, identity }
    }

    /// Clients that need no opening, of a root that was claimed.
    #[cfg(test)]
    pub(crate) fn of(root: Root) -> Self {
        let identity = Arc::new(Identity::of_url(root.url()));
        Self { fence: root.clone(), runs: root, owner: Some(1), identity }
    }
}

/// Why a store cannot be used.
#[derive(Debug)]
pub(crate) struct StoreProblem {
    pub(crate) reason: StoreReady,
    pub(crate) message: String,
    /// Whether clients that were made before must not be used any more.
    pub(crate) lasting: bool,
}

impl From<&StoreError> for StoreProblem {
    fn from(error: &StoreError) -> Self {
        let reason = match error.class() {
            ErrorClass::BucketNotFound => StoreReady::BucketNotFound,
            ErrorClass::AccessDenied => StoreReady::AccessDenied,
            ErrorClass::InvalidConfiguration => StoreReady::InvalidConfiguration,
            ErrorClass::CredentialsNotAllowed => StoreReady::CredentialsNotAllowed,
            ErrorClass::UnsafeStore => StoreReady::UnsafeStore,
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
    let mut keeper = Keeper::new(context, Arc::clone(&handle));
    let mut look = Look::Store;
    loop {
        policy.mark_unchanged();
        let wait = tokio::select! {
            () = handle.cancel.cancelled() => return,
            // What is being looked at is not what is wanted any more.
            _ = policy.changed() => {
                look = Look::Store;
                continue;
            }
            wait = keeper.look(look) => wait,
        };
        look = Look::Store;
        tokio::select! {
            () = handle.cancel.cancelled() => return,
            _ = policy.changed() => {}
            () = handle.look_again.notified() => {}
            () = handle.probe_requested.notified() => keeper.wants_probe(),
            () = handle.write_requested.notified() => {}
            () = tokio::time::sleep_until(Instant::now() + wait) => look = keeper.due(),
        }
    }
}

#[cfg(test)]
mod tests;
