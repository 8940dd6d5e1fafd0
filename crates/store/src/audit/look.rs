//! The requests that the rules ask for: seals to fetch, and epochs to look at again.

use std::collections::BTreeSet;

use epochwarden_core::Epoch;
use epochwarden_core::finding::{Draft, SecondLook};
use epochwarden_core::inventory::{EpochEntry, Inventory};
use epochwarden_core::key;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;

use super::{AuditProgress, CONCURRENCY, OnProgress, evidence};
use crate::create::{self, Body};
use crate::error::StoreError;
use crate::listing::{list_epoch, list_only, list_seals_only};
use crate::observe::Operation;
use crate::root::Root;

/// Fetches the seals that the draft asks for, until it asks for none.
pub(super) async fn read_markers(
    root: &Root,
    inventory: &Inventory,
    draft: &mut Draft<'_>,
    progress: OnProgress<'_>,
) -> Result<(), StoreError> {
    let mut read = 0;
    loop {
        let asked = draft.markers_to_read(CONCURRENCY * 4);
        if asked.is_empty() {
            return Ok(());
        }
        let mut markers = stream::iter(asked)
            .map(|epoch| async move { marker(root, epoch).await.map(|body| (epoch, body)) })
            .buffer_unordered(CONCURRENCY);
        while let Some((epoch, body)) = markers.try_next().await? {
            let listed = inventory.get(epoch).and_then(EpochEntry::seal).map(|seal| seal.size);
            let same = |body: &&[u8]| listed == Some(body.len() as u64);
            let body = match &body {
                Some(Body::Bytes(body)) => Some(body.as_ref()).filter(same),
                Some(Body::TooLong(_)) | None => None,
            };
            draft.marker(epoch, body);
            read += 1;
            progress(AuditProgress::Markers { read });
        }
    }
}

async fn marker(root: &Root, epoch: Epoch) -> Result<Option<Body>, StoreError> {
    let key = key::commit(epoch);
    create::read(root.store(), &root.path(&key)?).await.map_err(|error| root.error(Operation::Get, &key, error))
}

/// So many epochs are always listed one by one.
const ONE_BY_ONE: usize = 32;

/// The objects of one page of a listing, as most stores give it.
const PAGE: u64 = 1000;

/// Lists again what looks critical: one by one where they are few, or where that takes no more
/// requests than to list the whole root twice; otherwise all at once.
pub(super) async fn look_again(
    root: &Root,
    inventory: &Inventory,
    second: &mut SecondLook<'_>,
    progress: OnProgress<'_>,
) -> Result<(), StoreError> {
    let pages = usize::try_from(inventory.totals().objects / PAGE).unwrap_or(usize::MAX);
    if second.left() > pages.max(ONE_BY_ONE) {
        look_at_all(root, inventory.vnodes(), second, progress).await
    } else {
        look_one_by_one(root, inventory.vnodes(), second, progress).await
    }
}

async fn look_one_by_one(
    root: &Root,
    vnodes: Option<u32>,
    second: &mut SecondLook<'_>,
    progress: OnProgress<'_>,
) -> Result<(), StoreError> {
    let mut epochs = 0;
    loop {
        let asked = second.to_confirm(CONCURRENCY);
        if asked.is_empty() {
            return Ok(());
        }
        let looks: Vec<_> = stream::iter(asked)
            .map(|epoch| async move { look(root, epoch, vnodes).await.map(|listed| (epoch, listed)) })
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        // After the epochs: the floor that stood before a seal that was just seen is then surely among these.
        let floors = evidence::read_floors(root).await?;
        for (epoch, listed) in looks {
            second.confirm(epoch, listed.as_ref().and_then(|listed| listed.get(epoch)), &floors);
            epochs += 1;
            progress(AuditProgress::SecondLook { epochs });
        }
    }
}

/// Lists the root twice, since what one pass finds missing a prune may have taken under it: a prune removes the seal first, so that
/// where the second pass still finds the seal of the first, it took nothing.
async fn look_at_all(
    root: &Root,
    vnodes: Option<u32>,
    second: &mut SecondLook<'_>,
    progress: OnProgress<'_>,
) -> Result<(), StoreError> {
    let asked: BTreeSet<Epoch> = second.to_confirm(usize::MAX).into_iter().collect();
    let listed = |objects| progress(AuditProgress::Listing { objects });
    let entries = list_only(root, &asked, vnodes, listed).await?;
    let standing = list_seals_only(root, &asked, listed).await?;
    // After the epochs, as one by one.
    let floors = evidence::read_floors(root).await?;
    for (epoch, epochs) in asked.into_iter().rev().zip(1..) {
        let seal = entries.get(epoch).and_then(EpochEntry::seal);
        let stands = standing.get(epoch).and_then(EpochEntry::seal) == seal;
        second.confirm(epoch, entries.get(epoch).filter(|_| stands), &floors);
        progress(AuditProgress::SecondLook { epochs });
    }
    Ok(())
}

/// An epoch as it is now; `None` when its seal went while it was listed. A prune removes the seal first, so that as long as the seal
/// stands, no prune has taken what is missing.
async fn look(root: &Root, epoch: Epoch, vnodes: Option<u32>) -> Result<Option<Inventory>, StoreError> {
    let listed = list_epoch(root, epoch, vnodes).await?;
    if listed.get(epoch).is_none_or(|entry| !entry.is_sealed()) {
        return Ok(Some(listed));
    }
    let key = key::commit(epoch);
    match root.store().head(&root.path(&key)?).await {
        Ok(_) => Ok(Some(listed)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(root.error(Operation::Head, &key, error)),
    }
}
