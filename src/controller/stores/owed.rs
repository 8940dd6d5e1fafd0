//! A prune that the store turned away in the middle, because its key was revoked: it is owed as soon as there are other credentials.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Stores;
use super::open::Identity;

/// Whether a prune is owed to other credentials than it had.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the last prune worked with.
    with: Option<Arc<Identity>>,
    denied: bool,
}

impl Owed {
    /// A prune begins with these clients.
    pub(super) fn begins(&self, stores: &Stores) {
        *self.state() = State { with: Some(Arc::clone(&stores.identity)), denied: false };
    }

    /// The store refused its credentials.
    pub(crate) fn denied(&self) {
        self.state().denied = true;
    }

    /// Whether a prune is owed now that these clients are at hand. It is from then on no more.
    pub(super) fn take_due(&self, stores: &Stores) -> bool {
        let mut state = self.state();
        let others = state.with.as_ref().is_none_or(|with| **with != *stores.identity);
        let due = state.denied && others;
        state.denied &= !due;
        due
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use epochwarden_store::Root;

    use super::*;

    fn clients(secrets: &str) -> Stores {
        let root = Root::from_store(Arc::new(object_store::memory::InMemory::new()));
        let identity = Arc::new(Identity::with_secrets(root.url(), secrets));
        Stores { identity, ..Stores::of(root) }
    }

    #[test]
    fn a_prune_whose_key_was_revoked_is_owed_once_and_only_to_another_key() {
        let (owed, old, new) = (Owed::default(), clients("key/1"), clients("key/2"));
        owed.begins(&old);
        assert!(!owed.take_due(&new), "nothing was refused");
        owed.denied();
        assert!(!owed.take_due(&old), "the same key would be refused again");
        assert!(!owed.take_due(&clients("key/1")), "and so it would by clients that were made anew");
        assert!(owed.take_due(&new));
        assert!(!owed.take_due(&new), "once is enough");
    }

    #[test]
    fn what_was_refused_before_a_prune_began_is_not_owed_to_it() {
        let (owed, old, new) = (Owed::default(), clients("key/1"), clients("key/2"));
        owed.begins(&old);
        owed.denied();
        owed.begins(&new);
        assert!(!owed.take_due(&old));
    }
}
