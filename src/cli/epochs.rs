//! `epochs`: what is in a root.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use clap::Args;
use epochwarden_core::finding::LONGEST_MARKER;
use epochwarden_core::inventory::{EpochsSummary, Inventory, Seal};
use epochwarden_core::{Epoch, ShownEpoch, key};
use epochwarden_store::listing::list_inventory_with;
use epochwarden_store::{Clock, Operation, RequestCounts, Root, StoreError, SystemClock};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use object_store::ObjectStoreExt;
use serde::{Serialize, Serializer};

use super::exit::{CliError, Exit};
use super::human;
use super::output::{Format, OutputFlags, complain, print};
use super::store_flags::StoreFlags;
use super::table::{Align, Table};
use super::timeline;

/// How many seals are read at once.
const READS: usize = 16;

/// How wide a timeline is where the terminal's width is not known.
const WIDTH: usize = 100;

/// Lists the epochs: state, committer, objects, bytes, age
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  epochwarden epochs --store s3://state/orders
  epochwarden epochs --store s3://state/orders --timeline
  epochwarden epochs --store file:///var/lib/state -o json")]
pub(super) struct Epochs {
    #[command(flatten)]
    store: StoreFlags,
    #[command(flatten)]
    pub(super) output: OutputFlags,
    /// Draw the epochs as a strip: sealed, unsealed, gaps
    #[arg(long)]
    timeline: bool,
}

/// Who sealed an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Committer {
    /// Nobody.
    Unsealed,
    /// This instance.
    Named(String),
    /// The body of the seal is no name.
    Malformed,
    /// The seal was deleted after it was listed.
    Gone,
}

impl fmt::Display for Committer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsealed => "-",
            Self::Named(name) => name,
            Self::Malformed => "(malformed)",
            Self::Gone => "(gone)",
        })
    }
}

impl Serialize for Committer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Named(name) => serializer.serialize_some(name),
            Self::Unsealed | Self::Malformed | Self::Gone => serializer.serialize_none(),
        }
    }
}

/// What programs are shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    root: String,
    summary: EpochsSummary,
    epochs: Vec<Row>,
    /// Keys outside of the layout.
    foreign_keys: u64,
    requests: RequestCounts,
}

/// One epoch of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    epoch: ShownEpoch,
    state: &'static str,
    committer: Committer,
    objects: u64,
    bytes: u64,
    sealed_at: Option<Timestamp>,
    /// The last-modified of its newest object.
    modified_at: Timestamp,
}

impl Epochs {
    pub(super) async fn run(self) -> Result<Exit, CliError> {
        if self.timeline && self.output.format() != Format::Table {
            return Err(CliError::Usage(
                "--timeline is drawn, it has no other form: leave out -o, or --timeline".to_owned(),
            ));
        }
        let root = self.store.open()?.root;
        let drawing = self.output.progress().start("listing");
        let inventory = list_inventory_with(&root, None, |objects| drawing.objects(objects)).await?;
        if let Some(key) = inventory.newer_layout() {
            complain(&format!("warning: {} belongs to a newer layout than this version knows", human::harmless(key)));
        }
        if self.timeline {
            drop(drawing);
            let epochs: Vec<_> = inventory.epochs().map(|(epoch, entry)| (epoch, entry.is_sealed())).collect();
            let width = terminal_size::terminal_size().map_or(WIDTH, |(width, _)| usize::from(width.0));
            print(&timeline::draw(&epochs, root.numbering(), width))?;
            return Ok(Exit::Done);
        }
        let committers = committers(&root, &inventory).await?;
        drop(drawing);
        let now = SystemClock.now();
        let shown = show(&root, &inventory, committers, now);
        self.output.print(&shown, text(&shown, now))?;
        Ok(Exit::Done)
    }
}

fn show(root: &Root, inventory: &Inventory, mut committers: BTreeMap<Epoch, Committer>, now: Timestamp) -> Shown {
    let epochs = inventory
        .epochs()
        .map(|(epoch, entry)| Row {
            epoch: inventory.numbering().show(epoch),
            state: if entry.is_sealed() { "sealed" } else { "unsealed" },
            committer: committers.remove(&epoch).unwrap_or(Committer::Unsealed),
            objects: entry.objects(),
            bytes: entry.bytes(),
            sealed_at: entry.seal().map(|seal| seal.modified),
            modified_at: entry.newest(),
        })
        .collect();
    Shown {
        root: root.url().to_owned(),
        summary: inventory.summary(now),
        epochs,
        foreign_keys: inventory.foreign().count(),
        requests: root.requests(),
    }
}

fn text(shown: &Shown, now: Timestamp) -> String {
    let mut table = Table::new([
        ("EPOCH", Align::Right),
        ("STATE", Align::Left),
        ("COMMITTER", Align::Left),
        ("OBJECTS", Align::Right),
        ("BYTES", Align::Right),
        ("AGE", Align::Right),
    ]);
    for epoch in &shown.epochs {
        table.row([
            epoch.epoch.to_string(),
            epoch.state.to_owned(),
            epoch.committer.to_string(),
            human::count(epoch.objects),
            human::bytes(epoch.bytes),
            human::age(epoch.sealed_at.unwrap_or(epoch.modified_at), now),
        ]);
    }
    let EpochsSummary { sealed, unsealed, objects, bytes, .. } = &shown.summary;
    let objects = human::counted(*objects, "object", "objects");
    let mut text = format!(
        "{table}\n{} sealed, {} unsealed, {objects}, {}\n",
        human::count(*sealed),
        human::count(*unsealed),
        human::bytes(*bytes)
    );
    if shown.foreign_keys > 0 {
        let keys = human::counted(shown.foreign_keys, "key belongs", "keys belong");
        text.push_str(&keys);
        text.push_str(" to no epoch\n");
    }
    text
}

/// Who sealed each sealed epoch. Seals that have the same body, as far as the listing can tell, are read once.
async fn committers(root: &Root, inventory: &Inventory) -> Result<BTreeMap<Epoch, Committer>, StoreError> {
    let mut committers = BTreeMap::new();
    let mut alike: HashMap<(&str, u64), Vec<Epoch>> = HashMap::new();
    let mut to_read: Vec<(Epoch, Vec<Epoch>)> = Vec::new();
    for (epoch, seal) in inventory.seals() {
        if seal.size == 0 || seal.size > LONGEST_MARKER {
            committers.insert(epoch, Committer::Malformed);
        } else if let Some(digest) = digest(seal) {
            alike.entry((digest, seal.size)).or_default().push(epoch);
        } else {
            to_read.push((epoch, Vec::new()));
        }
    }
    // The newest of each, for it is the last that a prune would take away meanwhile.
    to_read.extend(alike.into_values().filter_map(|mut epochs| epochs.pop().map(|newest| (newest, epochs))));
    let mut read = stream::iter(to_read)
        .map(|(epoch, others)| async move { read_seal(root, epoch).await.map(|committer| (epoch, others, committer)) })
        .buffer_unordered(READS);
    while let Some((epoch, others, committer)) = read.try_next().await? {
        committers.extend(others.into_iter().map(|other| (other, committer.clone())));
        committers.insert(epoch, committer);
    }
    Ok(committers)
}

/// The digest of a seal's body, where its `ETag` can be one: other `ETag`s say nothing about the body.
fn digest(seal: &Seal) -> Option<&str> {
    let etag = seal.etag.as_deref()?.trim_matches('"');
    (etag.len() == 32 && etag.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(etag)
}

async fn read_seal(root: &Root, epoch: Epoch) -> Result<Committer, StoreError> {
    let key = key::commit(epoch);
    let failed = |error| root.error(Operation::Get, &key, error);
    let body = match root.store().get(&root.path(&key)?).await {
        Err(object_store::Error::NotFound { .. }) => return Ok(Committer::Gone),
        Err(error) => return Err(failed(error)),
        Ok(found) if found.meta.size > LONGEST_MARKER => return Ok(Committer::Malformed),
        Ok(found) => found.bytes().await.map_err(failed)?,
    };
    Ok(std::str::from_utf8(&body).map_or(Committer::Malformed, |name| Committer::Named(name.to_owned())))
}

#[cfg(test)]
mod tests;
