//! One batch of epochs: their seals, each confirmed, and then everything else of them.

use std::collections::{BTreeSet, HashMap, HashSet};

use epochwarden_core::Epoch;
use epochwarden_core::key::{Key, epoch_folder};
use epochwarden_core::plan::Deletion;
use futures::{StreamExt, TryStreamExt, stream};

use super::report::{MAX_ERRORS, PruneReport, Remainder};
use super::{PruneProgress, Run};
use crate::error::StoreError;
use crate::listing::objects;

/// How many keys of an epoch that has to be listed are deleted at once.
const LISTED_AT_ONCE: usize = 1000;

/// How many epochs are looked at again at once.
const LOOKS: usize = 8;

/// Why an epoch is left alone when a seal appears in it.
const SEALED_AGAIN: &str = "the epoch was sealed again while it was pruned: what is left of it stays; find out who writes to it";

/// Why a key that was deleted is not gone.
const STILL_LISTED: &str = "it is still listed, though its delete succeeded or it was not there before: a folder marker, a versioned \
                            object or a late write; remove it with the store's own tools, or let the next run try";

/// What is known of the epochs of a batch while it goes.
#[derive(Default)]
struct Tally {
    /// Objects of each epoch that are confirmed gone.
    gone: HashMap<Epoch, u64>,
    /// Keys of each epoch that could not be deleted.
    failed: HashMap<Epoch, u64>,
    /// Epochs that were listed to be deleted, to the end of the listing.
    listed: HashSet<Epoch>,
    /// Epochs that are not gone, whatever was confirmed.
    left: HashSet<Epoch>,
}

/// What another look at an epoch shows.
struct Look {
    count: u64,
    first: Vec<String>,
}

impl Run<'_> {
    /// Deletes the epochs of one batch, as far as it comes. `total` is for the progress.
    pub(super) async fn delete_batch(&self, batch: &[Deletion], report: &mut PruneReport, total: u64) {
        let mut tally = Tally::default();
        self.delete_keys(batch.iter().filter_map(Deletion::seal_key), &mut tally, report, total).await;
        // An epoch whose seal may still be there must stay whole: somebody could restore it. So far nothing but seals is gone.
        let open = |deletion: &&Deletion| !deletion.sealed() || tally.gone.contains_key(&deletion.epoch());
        let open: Vec<&Deletion> = batch.iter().filter(open).collect();

        let known = open.iter().filter(|deletion| !deletion.must_list()).flat_map(|deletion| deletion.keys());
        self.delete_keys(known, &mut tally, report, total).await;
        for deletion in open.iter().filter(|deletion| deletion.must_list()) {
            self.delete_listed(deletion.epoch(), &mut tally, report, total).await;
        }
        self.look_again(&open, &mut tally, report).await;

        for deletion in batch {
            let gone = tally.gone.get(&deletion.epoch()).copied().unwrap_or_default();
            if tally.is_whole(deletion) {
                report.epochs += 1;
                report.bytes += deletion.bytes();
            } else {
                report.remainder.add(Remainder { epochs: 1, objects: deletion.objects().saturating_sub(gone) });
            }
        }
    }

    async fn delete_keys(
        &self,
        keys: impl Iterator<Item = String> + Send,
        tally: &mut Tally,
        report: &mut PruneReport,
        total: u64,
    ) {
        let mut fates = self.delete(keys);
        let mut overdue = std::pin::pin!(self.until.overdue());
        loop {
            let fate = tokio::select! {
                biased;
                fate = fates.next() => fate,
                () = &mut overdue => None,
            };
            let Some((key, result)) = fate else { return };
            let epoch = epoch_of(&key);
            match result {
                Ok(()) => {
                    report.objects += 1;
                    if let Some(epoch) = epoch {
                        *tally.gone.entry(epoch).or_default() += 1;
                    }
                    (self.progress)(PruneProgress::Deleting { done: report.objects, total });
                }
                Err(error) => {
                    report.fail(&key, error);
                    if let Some(epoch) = epoch {
                        *tally.failed.entry(epoch).or_default() += 1;
                    }
                }
            }
        }
    }

    /// An epoch with more keys of the application than the plan remembers.
    async fn delete_listed(&self, epoch: Epoch, tally: &mut Tally, report: &mut PruneReport, total: u64) {
        let folder = epoch_folder(epoch);
        let mut listing = std::pin::pin!(objects(self.root, Some(&folder)).try_chunks(LISTED_AT_ONCE));
        loop {
            let Ok(chunk) = self.until.bound(listing.next()).await else { return };
            let objects = match chunk {
                None => {
                    tally.listed.insert(epoch);
                    return;
                }
                Some(Ok(objects)) => objects,
                Some(Err(error)) => return report.fail(&folder, error.1),
            };
            let keys: Vec<String> =
                objects.iter().filter_map(|object| self.root.relative(&object.location).map(str::to_owned)).collect();
            if let Some(seal) = keys.iter().find(|key| matches!(Key::parse(key), Key::Commit { .. })) {
                return report.fail(seal, SEALED_AGAIN);
            }
            self.delete_keys(keys.into_iter(), tally, report, total).await;
        }
    }

    /// Whether epochs with keys of the application are really gone. Some keys are listed by a name that deletes nothing (the marker of a
    /// folder inside the epoch): they are told, and not tried for ever.
    async fn look_again(&self, open: &[&Deletion], tally: &mut Tally, report: &mut PruneReport) {
        let unusual =
            |deletion: &&&Deletion| deletion.has_extras() && (!deletion.must_list() || tally.listed.contains(&deletion.epoch()));
        let epochs: BTreeSet<Epoch> = open.iter().filter(unusual).map(|deletion| deletion.epoch()).collect();
        let mut looks = stream::iter(epochs)
            .map(|epoch| async move { (epoch, self.until.bound(self.look(epoch)).await) })
            .buffer_unordered(LOOKS);
        while let Some((epoch, look)) = looks.next().await {
            match look {
                Ok(Ok(Look { count: 0, .. })) => continue,
                Ok(Ok(look)) => {
                    // What could not be deleted has been told.
                    let failed = tally.failed.get(&epoch).copied().unwrap_or_default();
                    let ineffective = look.count.saturating_sub(failed);
                    report.still_there(ineffective, &look.first, STILL_LISTED);
                    let gone = tally.gone.entry(epoch).or_default();
                    *gone = gone.saturating_sub(ineffective);
                }
                Ok(Err(error)) => report.fail(&epoch_folder(epoch), error),
                Err(_) => {}
            }
            tally.left.insert(epoch);
        }
    }

    async fn look(&self, epoch: Epoch) -> Result<Look, StoreError> {
        let mut look = Look { count: 0, first: Vec::new() };
        let mut listing = std::pin::pin!(objects(self.root, Some(&epoch_folder(epoch))));
        while let Some(object) = listing.try_next().await? {
            look.count += 1;
            if look.first.len() < MAX_ERRORS {
                look.first.extend(self.root.relative(&object.location).map(str::to_owned));
            }
        }
        Ok(look)
    }
}

impl Tally {
    /// Whether nothing of an epoch is left.
    fn is_whole(&self, deletion: &Deletion) -> bool {
        let epoch = deletion.epoch();
        let all = if deletion.must_list() {
            self.listed.contains(&epoch)
        } else {
            self.gone.get(&epoch).copied().unwrap_or_default() >= deletion.objects()
        };
        all && !self.left.contains(&epoch) && !self.failed.contains_key(&epoch)
    }
}

fn epoch_of(key: &str) -> Option<Epoch> {
    match Key::parse(key) {
        Key::Partial { epoch, .. } | Key::Commit { epoch } | Key::Extra { epoch } | Key::FolderMarker { epoch } => Some(epoch),
        Key::Register { .. } | Key::Probe | Key::NewerLayout | Key::Foreign => None,
    }
}
