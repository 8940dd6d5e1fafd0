//! What must be there at any time, by what the pipeline was told and by the settings of retention alone: nothing here asks the operator.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use epochwarden_store::{ObjectStoreBackend, Root, RootSettings};
use epochwarden_testkit::s3server::S3Server;
use serde_json::Value;

use crate::tenant::{APP, BUCKET, VNODES};

/// The settings of retention, as the policy has them.
pub(crate) const KEEP_LAST: usize = 20;
pub(crate) const PINNED: u64 = 3;

/// The epochs that no prune may delete, of all that were ever sealed.
fn kept(ever: &BTreeSet<u64>) -> BTreeSet<u64> {
    ever.iter().rev().take(KEEP_LAST).chain(ever.get(&PINNED)).copied().collect()
}

/// The tenant's root as it lies in the server's folder.
pub(crate) struct Shelf {
    folder: PathBuf,
}

impl Shelf {
    pub(crate) fn of(server: &S3Server) -> Self {
        Self { folder: server.bucket_folder(BUCKET).join(APP) }
    }

    /// The epochs of which there is anything.
    pub(crate) fn epochs(&self) -> Result<BTreeSet<u64>> {
        let names = names(&self.folder)?;
        let mut epochs = BTreeSet::new();
        for epoch in names.iter().filter_map(|name| name.strip_prefix("epoch=")) {
            let epoch = epoch.parse()?;
            if self.is_sealed(epoch) || self.partials(epoch) > 0 {
                epochs.insert(epoch);
            }
        }
        Ok(epochs)
    }

    pub(crate) fn is_sealed(&self, epoch: u64) -> bool {
        self.folder.join(format!("epoch={epoch}/_COMMIT")).exists()
    }

    fn partials(&self, epoch: u64) -> usize {
        let partial = |vnode| self.folder.join(format!("epoch={epoch}/vnode={vnode}/partial.bin"));
        (0..VNODES).filter(|&vnode| partial(vnode).exists()).count()
    }

    fn is_whole(&self, epoch: u64) -> bool {
        self.partials(epoch) == VNODES as usize
    }

    fn sealed(&self) -> Result<BTreeSet<u64>> {
        Ok(self.epochs()?.into_iter().filter(|&epoch| self.is_sealed(epoch)).collect())
    }

    /// The highest record of a register.
    pub(crate) fn register(&self, kind: &str) -> Result<u64> {
        let records = names(&self.folder.join("_epochwarden").join(kind))?;
        Ok(records.iter().filter_map(|record| record.parse().ok()).max().unwrap_or(0))
    }
}

fn names(folder: &Path) -> Result<Vec<String>> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", folder.display())),
    }
}

/// What was ever sealed, and whether all of it that retention keeps is there.
pub(crate) struct Ledger {
    pub(crate) shelf: Shelf,
    ever: BTreeSet<u64>,
}

impl Ledger {
    pub(crate) fn of(shelf: Shelf) -> Self {
        Self { shelf, ever: BTreeSet::new() }
    }

    /// Epochs that were sealed at some time.
    pub(crate) fn ever(&self) -> &BTreeSet<u64> {
        &self.ever
    }

    /// Looks while others write: what pods were told before this look must be there, unless so many newer seals are that it may go.
    pub(crate) fn look(&mut self, told: &BTreeMap<u64, u64>) -> Result<()> {
        self.ever.extend(told.keys());
        let there = self.shelf.sealed()?;
        let missing: BTreeSet<u64> = self.ever.difference(&there).copied().collect();
        // The seals for which an epoch may have gone were there before it went: a second listing does not miss them.
        self.ever.extend(&there);
        self.ever.extend(self.shelf.sealed()?);
        let lost: Vec<u64> = kept(&self.ever).intersection(&missing).copied().collect();
        ensure!(lost.is_empty(), "epochs {lost:?} are lost, of {} that were sealed", self.ever.len());
        // A seal comes after the partials and goes before them.
        let torn = there.iter().find(|&&epoch| !self.shelf.is_whole(epoch) && self.shelf.is_sealed(epoch));
        ensure!(torn.is_none(), "epoch {torn:?} is sealed and not whole");
        Ok(())
    }

    /// Looks when nobody writes any more: each epoch that retention keeps is restored, and holds what its pod said that it sealed.
    pub(crate) async fn settle(&mut self, told: &BTreeMap<u64, u64>, server: &S3Server) -> Result<String> {
        self.look(told)?;
        let gone = told.keys().filter(|&&epoch| !self.shelf.is_sealed(epoch)).count();
        let url = format!("s3://{BUCKET}/{APP}");
        let root = Root::open(&url, server.options(), &RootSettings::default())?;
        let reader = ObjectStoreBackend::new(root.prefixed_store(), "reader", VNODES);
        // Those that retention keeps, and those that no prune has come to yet.
        let mut whole = kept(&self.ever);
        whole.extend(self.shelf.sealed()?);
        for &epoch in &whole {
            let events = restored(&reader, epoch).await.with_context(|| format!("epoch {epoch}"))?;
            let said = told.get(&epoch);
            ensure!(
                said.is_none_or(|&said| said == events),
                "epoch {epoch} has {events} events, and {said:?} was told"
            );
        }
        let newest = reader.restore(None).await?.context("nothing can be restored")?;
        ensure!(
            Some(&newest.epoch()) == self.ever.last(),
            "{} is the newest, not {:?}",
            newest.epoch(),
            self.ever.last()
        );
        Ok(format!(
            "{} commits were told and {} epochs sealed; retention let {gone} of the former go, and {} are there and whole",
            told.len(),
            self.ever.len(),
            whole.len()
        ))
    }
}

/// The events in the restored state of an epoch.
async fn restored(reader: &ObjectStoreBackend, epoch: u64) -> Result<u64> {
    let restore = reader.restore(Some(epoch)).await?.context("it is not sealed")?;
    let mut events = 0;
    for vnode in 0..VNODES {
        let state: Value = serde_json::from_slice(&restore.read_partial(vnode).await?)?;
        events += state["events"].as_u64().context("a state without events")?;
    }
    restore.finish().await?;
    Ok(events)
}
