//! Finding epochs in the bucket.

use std::sync::{Mutex, MutexGuard, PoisonError};

use epochwarden_core::Epoch;
use epochwarden_core::key::{self, Key};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};

use super::{ObjectStoreBackend, io};
use crate::create::ATTEMPTS;
use crate::error::StateBackendError;
use crate::listing::list_epochs;

/// How many epochs are asked one by one whether they are sealed before everything is listed instead. The newest few are in flight.
const ASKED: usize = 16;

/// The highest epoch number, sealed or not, that this instance's listings of everything have shown.
#[derive(Debug, Default)]
pub(super) struct HighestListed(Mutex<Option<Epoch>>);

impl HighestListed {
    pub(super) fn get(&self) -> Option<Epoch> {
        *self.lock()
    }

    fn saw(&self, listed: Option<Epoch>) {
        let mut highest = self.lock();
        *highest = (*highest).max(listed);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Epoch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a listing of everything shows. Its size does not depend on what there is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Scan {
    /// The newest sealed epoch.
    pub(super) sealed: Option<Epoch>,
    /// The highest epoch of any key, sealed or not.
    pub(super) highest: Option<Epoch>,
}

/// Lists everything. One LIST, whose pages grow with the bucket.
async fn scan(store: &dyn ObjectStore) -> Result<Scan, StateBackendError> {
    let mut scan = Scan::default();
    let mut listing = store.list(None);
    while let Some(object) = listing.try_next().await.map_err(io("the listing of all keys"))? {
        match Key::parse(object.location.as_ref()) {
            Key::Commit { epoch } => {
                scan.sealed = scan.sealed.max(Some(epoch));
                scan.highest = scan.highest.max(Some(epoch));
            }
            Key::Partial { epoch, .. } | Key::Extra { epoch } | Key::FolderMarker { epoch } => {
                scan.highest = scan.highest.max(Some(epoch));
            }
            Key::Register { .. } | Key::Probe | Key::NewerLayout | Key::Foreign => {}
        }
    }
    Ok(scan)
}

/// Whether `epoch` is sealed. One HEAD.
pub(super) async fn is_sealed(store: &dyn ObjectStore, epoch: Epoch) -> Result<bool, StateBackendError> {
    let key = key::commit(epoch);
    match store.head(&Path::from(key.as_str())).await {
        Ok(_) => Ok(true),
        Err(Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(io(key)(error)),
    }
}

impl ObjectStoreBackend {
    /// Lists everything, and remembers the highest number. One LIST, whose pages grow with the bucket.
    pub(super) async fn scan(&self) -> Result<Scan, StateBackendError> {
        let scan = scan(self.store.as_ref()).await?;
        self.listed.saw(scan.highest);
        Ok(scan)
    }

    /// The newest sealed epoch.
    ///
    /// A listing is no snapshot: a seal can land behind its cursor while a prune deletes ahead of it. So where the registers are read,
    /// the floor is read after the listing, and an answer below it is listed again.
    pub(super) async fn newest_sealed(&self) -> Result<Option<Epoch>, StateBackendError> {
        let mut missed = Epoch::ZERO;
        for _ in 0..ATTEMPTS {
            let sealed = self.scan().await?.sealed;
            if !self.guards.reads_registers() {
                return Ok(sealed);
            }
            let floor = self.guards.sample().await?.checked()?.floor;
            if sealed.unwrap_or(Epoch::ZERO) >= floor {
                return Ok(sealed);
            }
            missed = floor;
        }
        Err(StateBackendError::RestoreIncomplete { epoch: self.guards.show(missed), vnode: None })
    }

    /// All epochs that have a key, sealed or not, ascending. One LIST with a delimiter.
    pub(super) async fn listed_epochs(&self) -> Result<Vec<Epoch>, StateBackendError> {
        let epochs = list_epochs(self.guards.root()).await;
        epochs.map_err(|error| StateBackendError::Io {
            key: "the listing of all epochs".to_owned(),
            source: error.into(),
        })
    }

    /// A sealed epoch of `epochs` at or above `bound` if there is one, else the newest sealed epoch of all. A HEAD or few; where the
    /// newest epochs are all unsealed, a listing of everything.
    pub(super) async fn newest_sealed_from(
        &self,
        bound: Epoch,
        epochs: &[Epoch],
    ) -> Result<Option<Epoch>, StateBackendError> {
        for epoch in epochs.iter().rev().take_while(|epoch| **epoch >= bound).take(ASKED) {
            if is_sealed(self.store.as_ref(), *epoch).await? {
                return Ok(Some(*epoch));
            }
        }
        Ok(self.scan().await?.sealed)
    }
}
