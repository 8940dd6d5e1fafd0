//! The index of a root: its epochs and their seals, without listing their objects.

use epochwarden_core::epoch::Epoch;
use epochwarden_core::inventory::{EpochEntry, EpochIndex};
use epochwarden_core::key;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;

use super::pages::Pages;
use super::{epochs_by_folder, list_epoch, list_inventory, modified};
use crate::error::StoreError;
use crate::observe::Operation;
use crate::root::Root;

/// How many seals are asked for at once, where they have to be asked for one by one.
const CONCURRENCY: usize = 16;

/// Cuts a listing of epochs right before their vnodes: what is left is the seals, and one row for all partials of an epoch.
const DELIMITER: &str = "/vnode=";

/// Lists the epochs of a root and their seals.
///
/// Costs one LIST request for each 500 epochs, however many objects they hold (two rows of each). In a folder it is one LIST and a HEAD
/// for each epoch; where the store is known not to cut listings there, or shows it now, the whole root is listed. Where nothing was ever
/// sealed, the lowest epoch is listed too: when it was written is when the wait began.
///
/// Cancel safe: it only reads. Fails with [`StoreError::NewerLayout`] where an epoch shows one; a mark at the top of the root is not seen.
pub async fn list_index(root: &Root) -> Result<EpochIndex, StoreError> {
    root.check_present().await?;
    let cuts = root.capabilities().is_none_or(|capabilities| capabilities.delimiter_index);
    let cut = if cuts { by_delimiter(root).await } else { Ok(None) };
    let mut index = match cut {
        Ok(Some(index)) => index,
        Ok(None) | Err(StoreError::ListingLoops { .. }) => EpochIndex::from(&list_inventory(root, None).await?),
        Err(error) => return Err(error),
    };
    if let Some(key) = index.newer_layout() {
        return Err(StoreError::NewerLayout { key: key.to_owned() });
    }
    if let Some(first) = index.never_sealed() {
        let listed = list_epoch(root, first, None).await?;
        if let Some(written) = listed.get(first).map(EpochEntry::newest) {
            index.begun_at(written);
        }
    }
    Ok(index)
}

/// `None` where the store does not cut the listing where it should.
async fn by_delimiter(root: &Root) -> Result<Option<EpochIndex>, StoreError> {
    let Some(pages) = Pages::new(root, "epoch=", Some(DELIMITER)) else {
        return by_folder(root).await.map(Some);
    };
    let shows_seals = root.capabilities().is_some_and(|capabilities| capabilities.delimiter_index);
    let mut index = EpochIndex::default();
    let mut pages = std::pin::pin!(pages.stream());
    while let Some(page) = pages.try_next().await? {
        for folder in page.folders.iter().filter_map(|folder| root.relative(folder)) {
            // Cut at the epoch itself, it hides the seal: every epoch would seem unsealed. Unless a probe has seen that the store only
            // shortens the folder's name.
            if !folder.contains('/') && !shows_seals {
                return Ok(None);
            }
            index.observe_folder(folder);
        }
        for object in &page.objects {
            if let Some(key) = root.relative(&object.location) {
                index.observe(key, object.size, modified(object), object.e_tag.as_deref());
            }
        }
    }
    Ok(Some(index))
}

/// For clients without pages of their own: folders on a disk, and tests.
async fn by_folder(root: &Root) -> Result<EpochIndex, StoreError> {
    let mut index = EpochIndex::default();
    let epochs = epochs_by_folder(root).await?;
    for epoch in &epochs {
        index.observe_folder(&key::epoch_folder(*epoch));
    }
    let mut seals = stream::iter(epochs).map(|epoch| seal(root, epoch)).buffer_unordered(CONCURRENCY);
    while let Some(seal) = seals.try_next().await? {
        if let Some((key, object)) = seal {
            index.observe(&key, object.size, modified(&object), object.e_tag.as_deref());
        }
    }
    Ok(index)
}

async fn seal(root: &Root, epoch: Epoch) -> Result<Option<(String, object_store::ObjectMeta)>, StoreError> {
    let key = key::commit(epoch);
    match root.store().head(&root.path(&key)?).await {
        Ok(object) => Ok(Some((key, object))),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(root.error(Operation::Head, &key, error)),
    }
}
