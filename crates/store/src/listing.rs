//! Listings: a whole root, one epoch, the epochs' numbers, the registers.
//!
//! Keys pass by and are folded; none but the records' are held. Each function is cancel safe: it only reads. Its cost is one LIST request
//! for each page (1,000 keys on S3). A listing is no snapshot.

use std::collections::{BTreeMap, BTreeSet};

use epochwarden_core::epoch::Epoch;
use epochwarden_core::inventory::{Inventory, InventoryBuilder};
use epochwarden_core::key::{self, Key, REGISTERS};
use epochwarden_core::register::{Reading, RegisterKind};
use futures::{Stream, StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::ObjectMeta;

use crate::error::StoreError;
use crate::observe::Operation;
use crate::root::Root;

mod index;
mod layout;
mod pages;

pub use index::list_index;
pub use layout::check_layout;
pub(crate) use pages::Pages;
use pages::Repeats;

/// How many of a register's newest records [`list_registers`] keeps. Publishers trim to far fewer.
pub const RECORDS_LISTED: usize = 4096;

/// Lists a whole root once: its epochs, the registers on the way, and what belongs to neither.
///
/// `vnodes` is the number of vnodes of the pipeline; without it no epoch is complete.
pub async fn list_inventory(root: &Root, vnodes: Option<u32>) -> Result<Inventory, StoreError> {
    list_inventory_with(root, vnodes, |_| ()).await
}

/// As [`list_inventory`]; tells `progress` now and then how many objects have passed by.
pub async fn list_inventory_with(
    root: &Root,
    vnodes: Option<u32>,
    progress: impl FnMut(u64) + Send,
) -> Result<Inventory, StoreError> {
    fold(root, None, vnodes, progress).await
}

/// Lists one epoch, by its number: an inventory of at most this epoch.
pub async fn list_epoch(root: &Root, epoch: Epoch, vnodes: Option<u32>) -> Result<Inventory, StoreError> {
    fold(root, Some(&key::epoch_folder(epoch)), vnodes, |_| ()).await
}

/// The numbers of all epochs of a root, ascending, found by folder: one page for 1,000 epochs, however many objects they hold. Where the
/// store is known not to list by folder, or shows it now, every key is listed instead.
pub async fn list_epochs(root: &Root) -> Result<Vec<Epoch>, StoreError> {
    root.check_present().await?;
    if root.capabilities().is_none_or(|capabilities| capabilities.delimiter_index) {
        match epochs_by_folder(root).await {
            Err(StoreError::ListingLoops { .. }) => {}
            found => return Ok(found?.into_iter().collect()),
        }
    }
    Ok(epochs_by_key(root).await?.into_iter().collect())
}

/// One record of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Which register.
    pub kind: RegisterKind,
    /// Its value: the number in its name.
    pub number: u64,
}

impl Record {
    /// Its key.
    #[must_use]
    pub fn key(self) -> String {
        key::register(self.kind, self.number)
    }
}

/// What is listed below `_epochwarden/`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegisterListing {
    reading: Reading,
    records: BTreeMap<RegisterKind, BTreeSet<u64>>,
}

impl RegisterListing {
    /// The value of each register: its highest record.
    #[must_use]
    pub const fn reading(&self) -> Reading {
        self.reading
    }

    /// The records of one register, ascending: its newest [`RECORDS_LISTED`].
    #[must_use]
    pub fn records(&self, kind: RegisterKind) -> impl DoubleEndedIterator<Item = Record> {
        let numbers = self.records.get(&kind).into_iter().flatten();
        numbers.map(move |number| Record { kind, number: *number })
    }

    fn observe(&mut self, kind: RegisterKind, number: u64) {
        self.reading.observe(kind, number);
        let numbers = self.records.entry(kind).or_default();
        numbers.insert(number);
        if numbers.len() > RECORDS_LISTED {
            numbers.pop_first();
        }
    }
}

/// Lists the registers: one request, as long as their publishers trim them.
pub async fn list_registers(root: &Root) -> Result<RegisterListing, StoreError> {
    root.check_present().await?;
    match fold_registers(root, objects(root, Some(REGISTERS))).await {
        Err(StoreError::ListingLoops { .. }) if root.paginated().is_some() => {
            fold_registers(root, plain(root, Some(REGISTERS))).await
        }
        result => result,
    }
}

async fn fold_registers(
    root: &Root,
    objects: impl Stream<Item = Result<ObjectMeta, StoreError>> + Send,
) -> Result<RegisterListing, StoreError> {
    let mut listing = RegisterListing::default();
    let mut objects = std::pin::pin!(objects);
    while let Some(object) = objects.try_next().await? {
        if let Some(Key::Register { kind, number }) = root.relative(&object.location).map(Key::parse) {
            listing.observe(kind, number);
        }
    }
    Ok(listing)
}

/// The objects below a folder of the root, or all of them. Keys outside of the root do not appear.
///
/// Ends with [`StoreError::ListingLoops`] when the store repeats itself: then neither is the listing whole, nor would it ever end.
pub fn objects(
    root: &Root,
    folder: Option<&str>,
) -> impl Stream<Item = Result<ObjectMeta, StoreError>> + Send + 'static {
    let start = folder.map_or_else(String::new, |folder| format!("{folder}/"));
    match Pages::new(root, &start, None) {
        Some(pages) => {
            let objects = |page: pages::Page| futures::stream::iter(page.objects.into_iter().map(Ok));
            pages.stream().map_ok(objects).try_flatten().boxed()
        }
        None => plain(root, folder).boxed(),
    }
}

/// The same, by the client's own listing.
fn plain(root: &Root, folder: Option<&str>) -> impl Stream<Item = Result<ObjectMeta, StoreError>> + Send + 'static {
    let prefix = match folder {
        Some(folder) => root.path(folder).map(Some),
        None => Ok(Some(root.prefix().clone()).filter(|prefix| !prefix.is_root())),
    };
    let shown = folder.unwrap_or_default().to_owned();
    let root = root.clone();
    let prefix = match prefix {
        Ok(prefix) => prefix,
        Err(error) => return futures::stream::iter([Err(error)]).boxed(),
    };
    let mut repeats = Repeats::default();
    root.store()
        .list(prefix.as_ref())
        .map(move |object| {
            let object = object.map_err(|error| root.error(Operation::List, &shown, error))?;
            if repeats.observe(object.location.as_ref()) {
                return Err(StoreError::ListingLoops { location: root.location(&shown) });
            }
            Ok(root.relative(&object.location).is_some().then_some(object))
        })
        .try_filter_map(|object| std::future::ready(Ok(object)))
        .boxed()
}

async fn fold(
    root: &Root,
    folder: Option<&str>,
    vnodes: Option<u32>,
    mut progress: impl FnMut(u64) + Send,
) -> Result<Inventory, StoreError> {
    root.check_present().await?;
    match fold_stream(root, objects(root, folder), vnodes, &mut progress).await {
        // Begun anew: what was observed before the repetition is no part of a whole listing.
        Err(StoreError::ListingLoops { .. }) if root.paginated().is_some() => {
            tracing::warn!(root = %root, "the listing repeats a page, listing without pages of its own");
            fold_stream(root, plain(root, folder), vnodes, &mut progress).await
        }
        result => result,
    }
}

async fn fold_stream(
    root: &Root,
    objects: impl Stream<Item = Result<ObjectMeta, StoreError>> + Send,
    vnodes: Option<u32>,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Inventory, StoreError> {
    let builder = vnodes.map_or_else(InventoryBuilder::without_vnodes, InventoryBuilder::new);
    let mut builder = builder.numbered(root.numbering());
    let mut objects = std::pin::pin!(objects);
    let mut count = 0_u64;
    while let Some(object) = objects.try_next().await? {
        let Some(key) = root.relative(&object.location) else { continue };
        builder.observe(key, object.size, modified(&object), object.e_tag.as_deref());
        count += 1;
        if count.is_multiple_of(1000) {
            progress(count);
        }
    }
    progress(count);
    Ok(builder.finish())
}

/// An object's last-modified by the store's clock. What lies outside of the years that can be said counts as the nearest that can.
pub(crate) fn modified(object: &ObjectMeta) -> Timestamp {
    let time = object.last_modified;
    let nanoseconds = i32::try_from(time.timestamp_subsec_nanos()).unwrap_or_default();
    let nearest = if time.timestamp() < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::new(time.timestamp(), nanoseconds).unwrap_or(nearest)
}

/// The epoch of a key or of a folder of epochs.
fn epoch_of(key: &str) -> Option<Epoch> {
    key.split('/').next()?.strip_prefix("epoch=")?.parse().ok()
}

async fn epochs_by_folder(root: &Root) -> Result<BTreeSet<Epoch>, StoreError> {
    let mut epochs = BTreeSet::new();
    let mut take = |path: &object_store::path::Path| epochs.extend(root.relative(path).and_then(epoch_of));
    if let Some(pages) = Pages::new(root, "epoch=", Some("/")) {
        let mut pages = std::pin::pin!(pages.stream());
        while let Some(page) = pages.try_next().await? {
            page.folders.iter().for_each(&mut take);
            page.objects.iter().for_each(|object| take(&object.location));
        }
        return Ok(epochs);
    }
    let prefix = Some(root.prefix()).filter(|prefix| !prefix.is_root());
    let listed =
        root.store().list_with_delimiter(prefix).await.map_err(|error| root.error(Operation::List, "", error))?;
    listed.common_prefixes.iter().for_each(&mut take);
    listed.objects.iter().for_each(|object| take(&object.location));
    Ok(epochs)
}

/// The slow way, for a store that cannot page through folders: every key.
async fn epochs_by_key(root: &Root) -> Result<BTreeSet<Epoch>, StoreError> {
    let mut epochs = BTreeSet::new();
    let mut objects = std::pin::pin!(plain(root, None));
    while let Some(object) = objects.try_next().await? {
        epochs.extend(root.relative(&object.location).and_then(epoch_of));
    }
    Ok(epochs)
}

#[cfg(test)]
mod tests;
