//! `fence`: where it stands and whom it names, and raising it by hand.

mod publish;

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use epochwarden_core::Version;
use epochwarden_core::lease::LeaseIdentity;
use epochwarden_core::register::RegisterKind;
use epochwarden_store::registers::Record;
use epochwarden_store::{Clock, Registers, SystemClock, list_registers};
use jiff::Timestamp;
use serde::Serialize;

use super::exit::{CliError, Exit};
use super::human::{age, harmless};
use super::output::{OutputFlags, complain};
use super::store_flags::StoreFlags;
use super::telemetry::Logs;

/// Looks at the fence of a root, or raises it
#[derive(Debug, Args)]
pub(super) struct Fence {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Show(Show),
    Publish(publish::Publish),
}

/// Shows where the fence stands and whom it names
///
/// Ends with 3 when no fence was published: then commits of version 0 are not fenced.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  epochwarden fence show --store s3://state/orders")]
struct Show {
    #[command(flatten)]
    store: StoreFlags,
    #[command(flatten)]
    output: OutputFlags,
}

/// What programs are shown. What only the record's body tells is null where the body cannot be read.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    root: String,
    version: Version,
    holder: Option<String>,
    lease: Option<LeaseIdentity>,
    publisher: Option<String>,
    published_at: Option<Timestamp>,
    /// How many records of the fence there are.
    records: usize,
    /// Why the body cannot be read.
    unreadable: Option<String>,
}

impl Fence {
    pub(super) const fn logs(&self) -> Logs {
        match &self.action {
            Action::Show(show) => show.output.logs(),
            Action::Publish(publish) => publish.output.logs(),
        }
    }

    pub(super) async fn run(self) -> Result<Exit, CliError> {
        match self.action {
            Action::Show(show) => show.run().await,
            Action::Publish(publish) => publish.run().await,
        }
    }
}

impl Show {
    async fn run(self) -> Result<Exit, CliError> {
        let root = self.store.open()?.root;
        let listing = list_registers(&root).await?;
        let version = listing.reading().fence;
        if version.is_off() {
            complain(&format!("no fence is published in {root}"));
            return Ok(Exit::Findings);
        }
        let record = Registers::new(root.clone(), "").fence_record(version).await?;
        let records = listing.records(RegisterKind::Fence).count();
        let shown = Shown::new(root.url(), version, record, records);
        self.output.print(&shown, text(&shown, SystemClock.now()))?;
        Ok(Exit::Done)
    }
}

impl Shown {
    fn new(
        root: &str,
        version: Version,
        record: Option<Record<epochwarden_core::register::FenceRecord>>,
        records: usize,
    ) -> Self {
        let (record, unreadable) = match record {
            Some(Record::Readable(record)) => (Some(record), None),
            Some(Record::Unreadable { reason }) => (None, Some(reason)),
            // Trimmed since it was listed: its number counts all the same.
            None => (None, Some("the record is gone since it was listed".to_owned())),
        };
        let mut shown = Self {
            root: root.to_owned(),
            version,
            holder: None,
            lease: None,
            publisher: None,
            published_at: None,
            records,
            unreadable,
        };
        if let Some(record) = record {
            shown.holder = Some(record.holder);
            shown.lease = record.lease;
            shown.publisher = Some(record.publisher);
            shown.published_at = Some(record.published_at);
        }
        shown
    }
}

fn text(shown: &Shown, now: Timestamp) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<11} {}", harmless(value));
    };
    line("version", &shown.version.to_string());
    if let Some(reason) = &shown.unreadable {
        line("unreadable", reason);
    }
    if let Some(holder) = &shown.holder {
        line("holder", holder);
    }
    if let Some(LeaseIdentity { namespace, name, uid, transitions }) = &shown.lease {
        line("lease", &format!("{namespace}/{name} (uid {uid}, transitions {transitions})"));
    }
    if let Some(at) = shown.published_at {
        line("published", &format!("{at} ({} ago)", age(at, now)));
    }
    if let Some(publisher) = &shown.publisher {
        line("publisher", publisher);
    }
    line("records", &shown.records.to_string());
    text
}

#[cfg(test)]
mod tests {
    use epochwarden_core::register::FenceRecord;

    use super::*;

    fn readable() -> Record<FenceRecord> {
        Record::Readable(FenceRecord {
            version: Version::new(7),
            holder: "pod-1-ab".to_owned(),
            lease: Some(LeaseIdentity {
                namespace: "streaming".to_owned(),
                name: "orders-leader".to_owned(),
                uid: "u1".to_owned(),
                transitions: 6,
            }),
            publisher: "epochwarden/op".to_owned(),
            published_at: Timestamp::from_second(1000).unwrap(),
        })
    }

    #[test]
    fn people_read_version_holder_lease_time_and_count() {
        let shown = Shown::new("s3://state", Version::new(7), Some(readable()), 3);
        let expected = "\
version     7
holder      pod-1-ab
lease       streaming/orders-leader (uid u1, transitions 6)
published   1970-01-01T00:16:40Z (5m ago)
publisher   epochwarden/op
records     3
";
        assert_eq!(text(&shown, Timestamp::from_second(1300).unwrap()), expected);
    }

    #[test]
    fn a_fence_whose_body_cannot_be_read_still_stands() {
        let record = Record::Unreadable { reason: "expected value".to_owned() };
        let shown = Shown::new("s3://state", Version::new(7), Some(record), 1);
        let json = serde_json::to_value(&shown).unwrap();
        assert_eq!(json["version"], 7);
        assert_eq!(json["unreadable"], "expected value");
        assert!(json["holder"].is_null() && json["publishedAt"].is_null());
        assert!(text(&shown, Timestamp::UNIX_EPOCH).contains("unreadable  expected value"));
    }
}
