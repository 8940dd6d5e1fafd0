//! `probe`: whether a store keeps what the product relies on.

use std::fmt;
use std::time::Duration;

use clap::Args;
use epochwarden_store::probe::{self, ProbeReport};
use epochwarden_store::{Capabilities, RootSettings, SystemClock};
use serde::Serialize;

use super::exit::{CliError, Exit};
use super::human::harmless;
use super::output::OutputFlags;
use super::signals;
use super::store_flags::StoreFlags;
use super::values;

/// How often a request is tried again: a store that refuses what is being tried should not be asked for minutes.
const RETRIES: usize = 2;

/// Tries on a store what the product relies on, with keys of its own that it removes again
///
/// 16 racing creates of one key, a LIST right after a write, a delete of many keys, a delimiter of several characters; and whether
/// deleting frees anything. Ends with 4 when the store is unsafe: then a policy on it is refused.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  epochwarden probe --store s3://state/orders
  epochwarden probe --policy orders.yaml -o json")]
pub(super) struct Probe {
    #[command(flatten)]
    store: StoreFlags,
    #[command(flatten)]
    pub(super) output: OutputFlags,

    /// Give up after D
    #[arg(long, value_name = "D", default_value = "1m", value_parser = values::some_duration)]
    deadline: Duration,
}

/// What programs are shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    root: &'a str,
    #[serde(flatten)]
    report: &'a ProbeReport,
}

impl Probe {
    pub(super) async fn run(self) -> Result<Exit, CliError> {
        let settings = RootSettings { max_retries: Some(RETRIES), ..RootSettings::default() };
        let root = self.store.open_with(settings)?.root;
        let stop = signals::stop()?;
        let drawing = self.output.progress().start("probing");
        let report = probe::run(&root, self.deadline, &SystemClock, &stop).await;
        drop(drawing);
        let report = report?;
        self.output.print(&Shown { root: root.url(), report: &report }, Text(&report))?;
        Ok(if report.unsafe_because().is_some() { Exit::Refused } else { Exit::Done })
    }
}

/// A report for people.
struct Text<'a>(&'a ProbeReport);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Capabilities { conditional_create, consistent_list, bulk_delete, delimiter_index, versioned, object_lock } =
            self.0.capabilities;
        for (is_so, capability, meaning) in [
            (conditional_create, "conditionalCreate", "of several creates of one key, exactly one succeeds"),
            (consistent_list, "consistentList", "what was written is in the next listing"),
            (bulk_delete, "bulkDelete", "one request deletes many keys"),
            (delimiter_index, "delimiterIndex", "a listing can be cut at a delimiter of several characters"),
            (versioned, "versioned", "what is deleted stays as an older version"),
            (object_lock, "objectLock", "objects are locked for a time"),
        ] {
            writeln!(f, "{:<4} {capability:<18} {meaning}", if is_so { "yes" } else { "no" })?;
        }
        for problem in &self.0.problems {
            writeln!(f, "\n{}", harmless(&problem.to_string()))?;
        }
        match self.0.unsafe_because() {
            Some(_) => writeln!(f, "\nunsafe: do not use this store"),
            None => writeln!(f, "\nsafe"),
        }
    }
}
