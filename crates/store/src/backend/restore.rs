//! Restoring the state of an epoch while others commit and prune.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use epochwarden_core::key;
use epochwarden_core::{Epoch, Version, Vnode};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};

use super::guards::{As, Guards};
use super::partial;
use super::{ObjectStoreBackend, check_vnode, io};
use crate::crash;
use crate::create::ATTEMPTS;
use crate::error::StateBackendError;

/// What tells one seal from another that was written in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SealIdentity {
    etag: Option<String>,
    modified: DateTime<Utc>,
}

/// Which epoch was asked for.
#[derive(Debug)]
enum Target {
    /// The newest sealed one: a floor above it says that a newer one was sealed.
    Newest,
    /// One by its number, below or above the floor: its seal must not change meanwhile.
    Numbered(SealIdentity),
}

/// One restore under way: read every partial through it, then [`Restore::finish`]. The state may be used only after that is `Ok`.
///
/// [`StateBackendError::RestoreIncomplete`] from any of its methods means that the bucket moved on meanwhile, or that the epoch is not
/// whole. Whoever restores the newest epoch drops what was read and starts over with [`ObjectStoreBackend::restore`], a bounded number
/// of times; it never goes on without state.
///
/// ```
/// # use epochwarden_store::{ObjectStoreBackend, StateBackendError};
/// # use bytes::Bytes;
/// async fn restore(backend: &ObjectStoreBackend, vnodes: u32) -> Result<Option<(u64, Vec<Bytes>)>, StateBackendError> {
///     let mut tries = 0;
///     loop {
///         match attempt(backend, vnodes).await {
///             Err(StateBackendError::RestoreIncomplete { .. }) if tries < 5 => tries += 1,
///             outcome => return outcome,
///         }
///     }
/// }
///
/// async fn attempt(backend: &ObjectStoreBackend, vnodes: u32) -> Result<Option<(u64, Vec<Bytes>)>, StateBackendError> {
///     let Some(restore) = backend.restore(None).await? else {
///         return Ok(None); // Nothing was ever sealed here: start empty, at `backend.first_epoch(None)`.
///     };
///     let mut states = Vec::new();
///     for vnode in 0..vnodes {
///         states.push(restore.read_partial(vnode).await?);
///     }
///     let epoch = restore.epoch();
///     restore.finish().await?;
///     Ok(Some((epoch, states)))
/// }
/// ```
pub struct Restore {
    store: Arc<dyn ObjectStore>,
    guards: Arc<Guards>,
    /// What it was begun as: a term of another leader may lie before the next version of this instance.
    version: Version,
    vnode_capacity: u32,
    epoch: Epoch,
    highest_listed: Epoch,
    target: Target,
    missing: Mutex<Option<(Epoch, Vnode)>>,
}

impl ObjectStoreBackend {
    /// Begins to restore: the newest sealed epoch with `None`, or the given one. `Ok(None)` when nothing is sealed, or the given epoch
    /// is not: what there is unsealed counts all the same, and [`ObjectStoreBackend::first_epoch`] knows it.
    ///
    /// Where the registers are read, the fence must stand at this instance's version:
    /// [`StateBackendError::StaleVersion`] or [`StateBackendError::FenceNotReached`] otherwise. A listing that misses what the floor
    /// says was sealed is made again; [`StateBackendError::RestoreIncomplete`] when it stays so. One LIST of everything, and where the
    /// registers are read, one of a handful of keys, or two where nothing is sealed; a HEAD for a given epoch. Dropping the future
    /// changes nothing.
    pub async fn restore(&self, epoch: Option<u64>) -> Result<Option<Restore>, StateBackendError> {
        match epoch {
            None => self.restore_newest().await,
            Some(epoch) => self.restore_numbered(Epoch::new(epoch)).await,
        }
    }

    async fn restore_newest(&self) -> Result<Option<Restore>, StateBackendError> {
        let version = self.guards.version();
        let mut missed = Epoch::ZERO;
        for _ in 0..ATTEMPTS {
            let floor = self.guards.check(version, None, As::Reader).await?.reading().floor;
            crash::point("restore-guarded");
            let scan = self.scan().await?;
            crash::point("restore-listed");
            match scan.sealed {
                Some(epoch) if epoch >= floor => {
                    return Ok(Some(self.begin(version, epoch, scan.highest, Target::Newest)));
                }
                None if floor == Epoch::ZERO => {
                    // What was there may have been pruned ahead of the listing, and its successor sealed behind it. Then a floor stands.
                    missed = self.guards.check(version, None, As::Reader).await?.reading().floor;
                    if missed == Epoch::ZERO {
                        return Ok(None);
                    }
                }
                sealed => missed = sealed.unwrap_or(floor),
            }
        }
        Err(StateBackendError::RestoreIncomplete { epoch: self.guards.show(missed), vnode: None })
    }

    async fn restore_numbered(&self, epoch: Epoch) -> Result<Option<Restore>, StateBackendError> {
        let version = self.guards.version();
        self.guards.check(version, None, As::Reader).await?;
        crash::point("restore-guarded");
        // By the same request as at the end: a listing dates an object more finely on some stores.
        let Some(seal) = seal_identity(self.store.as_ref(), epoch).await? else {
            return Ok(None);
        };
        crash::point("restore-seal-seen");
        let scan = self.scan().await?;
        crash::point("restore-listed");
        Ok(Some(self.begin(version, epoch, scan.highest, Target::Numbered(seal))))
    }

    fn begin(&self, version: Version, epoch: Epoch, highest: Option<Epoch>, target: Target) -> Restore {
        Restore {
            store: Arc::clone(&self.store),
            guards: Arc::clone(&self.guards),
            version,
            vnode_capacity: self.vnode_capacity,
            epoch,
            highest_listed: highest.unwrap_or(epoch).max(epoch),
            target,
            missing: Mutex::new(None),
        }
    }
}

impl Restore {
    /// The epoch that is restored.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    /// The highest epoch number of the listing, sealed or not. Numbers above it are free.
    #[must_use]
    pub fn highest_listed(&self) -> u64 {
        self.highest_listed.get()
    }

    /// The state of `vnode`. One that is not there is [`StateBackendError::RestoreIncomplete`], and then [`Restore::finish`] is too.
    /// One GET.
    pub async fn read_partial(&self, vnode: u32) -> Result<Bytes, StateBackendError> {
        self.read(vnode, self.epoch).await
    }

    /// The state of `vnode` at `epoch`, an older one that the restored state builds on. As [`Restore::read_partial`] otherwise.
    pub async fn read_base(&self, vnode: u32, epoch: u64) -> Result<Bytes, StateBackendError> {
        self.read(vnode, Epoch::new(epoch)).await
    }

    async fn read(&self, vnode: u32, epoch: Epoch) -> Result<Bytes, StateBackendError> {
        let vnode = check_vnode(vnode, self.vnode_capacity)?;
        if let Some(state) = partial::get(self.store.as_ref(), vnode, epoch).await? {
            crash::point("restore-partial-read");
            return Ok(state);
        }
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((epoch, vnode));
        Err(self.incomplete(epoch, Some(vnode)))
    }

    /// The second look, after which the state may be used: the version still stands, nothing was missing, and no newer epoch was sealed
    /// and pruned up to (or, for an epoch by its number, its seal is still the same one). One LIST of a handful of keys where the
    /// registers are read; a HEAD for an epoch by its number.
    pub async fn finish(self) -> Result<(), StateBackendError> {
        crash::point("restore-before-second-guard");
        let reading = self.guards.check(self.version, None, As::Reader).await?.reading();
        crash::point("restore-guarded-again");
        let missing = *self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((epoch, vnode)) = missing {
            return Err(self.incomplete(epoch, Some(vnode)));
        }
        let unchanged = match &self.target {
            Target::Newest => reading.floor <= self.epoch,
            Target::Numbered(seal) => {
                seal_identity(self.store.as_ref(), self.epoch).await?.is_some_and(|now| now == *seal)
            }
        };
        if unchanged { Ok(()) } else { Err(self.incomplete(self.epoch, None)) }
    }

    fn incomplete(&self, epoch: Epoch, vnode: Option<Vnode>) -> StateBackendError {
        StateBackendError::RestoreIncomplete { epoch: self.guards.show(epoch), vnode: vnode.map(Vnode::get) }
    }
}

impl fmt::Debug for Restore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restore")
            .field("epoch", &self.epoch)
            .field("highest_listed", &self.highest_listed)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// The seal of `epoch`; `None` when it is not sealed. One HEAD.
async fn seal_identity(store: &dyn ObjectStore, epoch: Epoch) -> Result<Option<SealIdentity>, StateBackendError> {
    let key = key::commit(epoch);
    match store.head(&Path::from(key.as_str())).await {
        Ok(object) => Ok(Some(SealIdentity { etag: object.e_tag, modified: object.last_modified })),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(io(key)(error)),
    }
}
