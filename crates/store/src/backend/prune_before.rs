//! Deleting old epochs on the pipeline's own word.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use epochwarden_core::Epoch;
use epochwarden_core::key::{self, Key};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt};

use super::ObjectStoreBackend;
use crate::crash;
use crate::error::StateBackendError;

/// Every so many calls all epochs are looked at, and not only those above the cursor.
const FULL_PASS_EVERY: u64 = 32;
/// How many epochs are deleted at once.
const EPOCHS_AT_ONCE: usize = 8;
/// How many keys of an epoch are remembered while it is listed; a larger one is listed again for its deletion.
const KEYS_REMEMBERED: usize = 1_000;

/// How far the calls have come.
#[derive(Debug, Default)]
pub(super) struct PruneProgress {
    calls: AtomicU64,
    cursor: AtomicU64,
}

impl PruneProgress {
    pub(super) fn cursor(&self) -> u64 {
        self.cursor.load(Ordering::Acquire)
    }

    /// Counts a call, and says from which epoch on it looks.
    fn begin(&self) -> Epoch {
        let call = self.calls.fetch_add(1, Ordering::AcqRel);
        if call.is_multiple_of(FULL_PASS_EVERY) { Epoch::ZERO } else { Epoch::new(self.cursor()) }
    }

    fn clean_below(&self, before: Epoch) {
        self.cursor.fetch_max(before.get(), Ordering::AcqRel);
    }
}

/// What could not be deleted: how much, and the first failure.
#[derive(Debug, Default)]
struct Failures(Mutex<(u64, Option<StateBackendError>)>);

impl Failures {
    fn add(&self, key: &str, error: Box<dyn std::error::Error + Send + Sync>) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.0 += 1;
        failures.1.get_or_insert_with(|| StateBackendError::Io { key: key.to_owned(), source: error });
    }

    fn into_result(self) -> Result<(), StateBackendError> {
        let (count, first) = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        match first {
            None => Ok(()),
            Some(error) => {
                tracing::warn!(count, %error, "pruning could not delete everything; the next call tries again");
                Err(error)
            }
        }
    }
}

impl ObjectStoreBackend {
    pub(super) async fn delete_below(&self, before: Epoch) -> Result<(), StateBackendError> {
        let start = self.pruned.begin();
        let epochs = self.listed_epochs().await?;
        crash::point("pipeline-prune-listed");
        // The order is the safety: a sealed epoch at or above `before` is seen before the floor rises, and the floor is durable before
        // the first delete.
        if let Some(latest) = self.newest_sealed_from(before, &epochs).await? {
            if latest < before {
                let (before, latest) = (self.guards.show(before), self.guards.show(latest));
                return Err(StateBackendError::LatestSealed { before, latest });
            }
            crash::point("pipeline-prune-before-floor");
            self.guards.raise_floor(before).await?;
            crash::point("pipeline-prune-floor-raised");
        }
        let failures = Failures::default();
        stream::iter(epochs.into_iter().filter(|epoch| (start..before).contains(epoch)))
            .for_each_concurrent(EPOCHS_AT_ONCE, |epoch| self.delete_epoch(epoch, &failures))
            .await;
        crash::point("pipeline-prune-epochs-deleted");
        failures.into_result()?;
        self.pruned.clean_below(before);
        Ok(())
    }

    /// Deletes an epoch: its seal first, confirmed, and then the rest, so that what is left at any point is not taken for a sealed epoch.
    async fn delete_epoch(&self, epoch: Epoch, failures: &Failures) {
        let folder = key::epoch_folder(epoch);
        let mut keys = Vec::new();
        let mut more = false;
        let mut listing = self.store.list(Some(&Path::from(folder.as_str())));
        loop {
            match listing.try_next().await {
                Ok(None) => break,
                Ok(Some(object)) => match Key::parse(object.location.as_ref()) {
                    // Deleting it by the name that it is listed under removes nothing: its epoch stays whole.
                    Key::FolderMarker { .. } => {
                        let reason = "a folder marker, which can only be deleted with the store's own tools";
                        return failures.add(object.location.as_ref(), reason.into());
                    }
                    Key::Commit { .. } => {}
                    _ if keys.len() < KEYS_REMEMBERED => keys.push(Ok(object.location)),
                    _ => more = true,
                },
                Err(error) => return failures.add(&folder, Box::new(error)),
            }
        }
        drop(listing);
        crash::point("pipeline-prune-epoch-listed");
        let seal = key::commit(epoch);
        match self.store.delete(&Path::from(seal.as_str())).await {
            Ok(()) | Err(Error::NotFound { .. }) => {}
            Err(error) => return failures.add(&seal, Box::new(error)),
        }
        crash::point("pipeline-prune-seal-deleted");
        if more {
            let listing = self.store.list(Some(&Path::from(folder.as_str())));
            self.delete_all(listing.map_ok(|object| object.location).boxed(), &folder, failures).await;
        } else {
            self.delete_all(stream::iter(keys).boxed(), &folder, failures).await;
        }
        crash::point("pipeline-prune-epoch-deleted");
    }

    async fn delete_all(&self, keys: BoxStream<'static, Result<Path, Error>>, folder: &str, failures: &Failures) {
        let mut deleted = self.store.delete_stream(keys);
        while let Some(outcome) = deleted.next().await {
            match outcome {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => failures.add(folder, Box::new(error)),
            }
        }
    }
}
