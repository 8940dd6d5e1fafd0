//! The clients as a run gets them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::Stores;
use crate::api::condition::StoreReady;
use crate::controller::context::Context;
use crate::controller::credentials;
use crate::controller::observed::Observed;
use crate::controller::registry::Handle;

/// How long a run waits for the store to be opened with another Secret.
const REOPENED: Duration = Duration::from_secs(30);

/// How long a run waits for the store to be claimed and probed.
const CLAIMED: Duration = Duration::from_secs(90);

/// Why a run has no clients.
#[derive(Debug)]
pub(crate) struct NotReady {
    /// What is wrong with the store, where that is known.
    pub(crate) reason: Option<StoreReady>,
    /// The same in words.
    pub(crate) message: String,
}

impl NotReady {
    fn now(observed: &Observed) -> Self {
        let said = &observed.store;
        let reason = Some(said.reason).filter(|reason| *reason != StoreReady::Reachable);
        let message = match reason {
            Some(reason) => {
                let reason = crate::api::condition::Reason::as_str(reason);
                format!("the store is not ready ({reason}): {}", said.message)
            }
            None => "the store is not ready: see the condition StoreReady".to_owned(),
        };
        Self { reason, message }
    }
}

/// The clients of a run, with the Secrets of now: a run may take hours, and a key may have been rotated since it was last read.
pub(crate) async fn current(context: &Context, handle: &Handle) -> Result<Stores, NotReady> {
    let mut held = handle.stores.subscribe();
    let not_ready = || NotReady::now(&handle.observed.borrow());
    let stores = held.borrow_and_update().clone().ok_or_else(not_ready)?;
    let policy = handle.current();
    match credentials::read(context, &handle.name.namespace, &policy.spec.store).await {
        Ok(secrets) if stores.were_made_with(&secrets) => Ok(stores),
        // An API server that does not answer for a moment says nothing about the credentials that are held.
        Err(problem) if !problem.lasting => Ok(stores),
        _ => {
            handle.look_again.notify_one();
            if tokio::time::timeout(REOPENED, held.changed()).await.is_err() {
                let message =
                    "the Secret has changed, and the store was not opened again in time; see the condition StoreReady";
                return Err(NotReady { reason: None, message: message.to_owned() });
            }
            held.borrow().clone().ok_or_else(not_ready)
        }
    }
}

/// A run that writes to the root, until this is dropped.
#[derive(Debug)]
pub(crate) struct Writing(Arc<AtomicUsize>);

impl Writing {
    fn begin(handle: &Handle) -> Self {
        handle.writers.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&handle.writers))
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The clients of a prune that deletes: of a root that is claimed, in a store that was probed. Where the policy by itself writes nothing
/// (it has no schedule: somebody has asked for this run), this asks for both and waits; the store task goes on watching over such a root
/// until the run lets go of its [`Writing`]. A lost register is left to the run to find.
pub(crate) async fn for_writing(handle: &Handle, stores: Stores) -> Result<(Stores, Writing), NotReady> {
    let writing = Writing::begin(handle);
    let stores = if stores.owner.is_some() { stores } else { claimed(handle, stores).await? };
    handle.owed.begins(&stores);
    Ok((stores, writing))
}

async fn claimed(handle: &Handle, stores: Stores) -> Result<Stores, NotReady> {
    let lost = |observed: &Observed| observed.lost.is_some();
    let mut held = handle.stores.subscribe();
    let mut observed = handle.observed.subscribe();
    if lost(&observed.borrow()) {
        return Ok(stores);
    }
    handle.write_requested.notify_one();
    let settled = async {
        tokio::select! {
            held = held.wait_for(|held| held.as_ref().is_none_or(|stores| stores.owner.is_some())) => {
                held.ok().and_then(|held| held.clone())
            }
            _ = observed.wait_for(|observed| lost(observed) || observed.store.reason != StoreReady::Reachable) => None,
        }
    };
    match tokio::time::timeout(CLAIMED, settled).await {
        Ok(Some(claimed)) => Ok(claimed),
        Ok(None) if lost(&handle.observed.borrow()) => Ok(stores),
        Ok(None) => Err(NotReady::now(&handle.observed.borrow())),
        Err(_) => {
            let message = "the root was not claimed and probed in time; see the condition StoreReady".to_owned();
            Err(NotReady { reason: None, message })
        }
    }
}
