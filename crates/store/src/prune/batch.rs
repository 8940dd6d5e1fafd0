//! One batch of epochs: their seals, each confirmed, and then everything else of them.

use std::collections::{HashMap, HashSet};

use epochwarden_core::Epoch;
use epochwarden_core::key::{Key, commit, epoch_folder};
use epochwarden_core::plan::Deletion;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use super::report::{MAX_ERRORS, PruneReport, Remainder, Stop};
use super::{PruneProgress, Run};
use crate::crash;
use crate::error::StoreError;
use crate::listing::objects;

/// How many keys of an epoch that has to be listed are deleted at once.
const LISTED_AT_ONCE: usize = 1000;

/// How many epochs are looked at again at once.
const LOOKS: usize = 8;

/// Why an epoch is left alone when a seal appears in it.
const SEALED_AGAIN: &str =
    "the epoch was sealed again while it was pruned: what is left of it stays; find out who writes to it";

/// Why a key that was deleted is not gone.
const STILL_LISTED: &str = "it is still listed, though its delete succeeded: the marker of a folder, or it was written again; where the \
                            next run tells the same, remove it with the store's own tools";

/// What is known of the epochs of a batch while it goes.
#[derive(Default)]
struct Tally {
    /// Epochs whose seals are confirmed gone: of these, the rest may go.
    open: HashSet<Epoch>,
    /// Epochs that the plan saw without a seal: one that is removed is none of their objects.
    unsealed: HashSet<Epoch>,
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
    /// Keys that are listed.
    left: u64,
    /// Those of them whose deletes succeeded.
    deleted: u64,
    /// The first of these.
    first: Vec<String>,
}

impl Run<'_> {
    /// Deletes the epochs of one batch, as far as it comes. `total` is for the progress.
    pub(super) async fn delete_batch(&self, batch: &[Deletion], report: &mut PruneReport, total: u64) {
        let unsealed = batch.iter().filter(|deletion| !deletion.sealed()).map(Deletion::epoch).collect();
        let mut tally = Tally { unsealed, ..Tally::default() };
        // Of every epoch, for one that was abandoned may have been sealed after all between the listing and the floor.
        self.delete_keys(batch.iter().map(|deletion| commit(deletion.epoch())), &mut tally, report, total).await;
        crash::point("prune-seals-deleted");
        // An epoch whose seal may still be there must stay whole: somebody could restore it.
        let open: Vec<&Deletion> = batch.iter().filter(|deletion| tally.open.contains(&deletion.epoch())).collect();

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
            let seal = epoch.filter(|_| matches!(Key::parse(&key), Key::Commit { .. }));
            match result {
                Ok(()) => {
                    tally.open.extend(seal);
                    if seal.is_some_and(|epoch| tally.unsealed.contains(&epoch)) {
                        continue;
                    }
                    report.objects += 1;
                    if let Some(epoch) = epoch {
                        *tally.gone.entry(epoch).or_default() += 1;
                    }
                    let keys_per_second = self.pace.keys_per_second();
                    (self.progress)(PruneProgress::Deleting { done: report.objects, total, keys_per_second });
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
            // Of either layout; what belongs to a newer one is never deleted.
            let sealed = |key: &&String| matches!(Key::parse(key), Key::Commit { .. } | Key::NewerLayout);
            if let Some(seal) = keys.iter().find(sealed) {
                return report.fail(seal, SEALED_AGAIN);
            }
            self.delete_keys(keys.into_iter(), tally, report, total).await;
        }
    }

    /// Whether epochs with keys of the application are really gone. Some keys are listed by a name that deletes nothing (the marker of a
    /// folder inside the epoch): they are told, and not tried for ever. A key that was written meanwhile is left to the next run.
    async fn look_again<'l>(&'l self, open: &[&'l Deletion], tally: &mut Tally, report: &mut PruneReport) {
        // Where something failed, or was not done any more, the epoch is left in any case.
        let doubtful = |deletion: &&&Deletion| deletion.has_extras() && tally.is_whole(deletion);
        let look = |deletion: &&'l Deletion| self.look_bounded(deletion).boxed();
        let looks: Vec<_> = open.iter().filter(doubtful).map(look).collect();
        let mut looks = stream::iter(looks).buffer_unordered(LOOKS);
        while let Some((epoch, look)) = looks.next().await {
            match look {
                Ok(Ok(Look { left: 0, .. })) => continue,
                Ok(Ok(look)) => {
                    report.still_there(look.deleted, &look.first, STILL_LISTED);
                    let gone = tally.gone.entry(epoch).or_default();
                    *gone = gone.saturating_sub(look.deleted);
                }
                Ok(Err(error)) => report.fail(&epoch_folder(epoch), error),
                Err(_) => {}
            }
            tally.left.insert(epoch);
        }
    }

    async fn look_bounded(&self, deletion: &Deletion) -> (Epoch, Result<Result<Look, StoreError>, Stop>) {
        (deletion.epoch(), self.until.bound(self.look(deletion)).await)
    }

    async fn look(&self, deletion: &Deletion) -> Result<Look, StoreError> {
        let mut look = Look { left: 0, deleted: 0, first: Vec::new() };
        let mut listing = std::pin::pin!(objects(self.root, Some(&epoch_folder(deletion.epoch()))));
        while let Some(object) = listing.try_next().await? {
            let Some(key) = self.root.relative(&object.location) else { continue };
            look.left += 1;
            if deletion.must_list() || deletion.keys().any(|deleted| deleted == key) {
                look.deleted += 1;
                if look.first.len() < MAX_ERRORS {
                    look.first.push(key.to_owned());
                }
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
        Key::Partial { epoch, .. } | Key::Commit { epoch } | Key::Extra { epoch } | Key::FolderMarker { epoch } => {
            Some(epoch)
        }
        Key::Register { .. } | Key::Probe | Key::NewerLayout | Key::Foreign => None,
    }
}
