//! `fence publish`: raises the fence by hand.

use std::io::{self, IsTerminal};

use clap::Args;
use epochwarden_core::Version;
use epochwarden_core::lease::HIGHEST_JUMP;
use epochwarden_store::{Published, Registers};
use serde::Serialize;

use super::super::exit::{CliError, Exit};
use super::super::human::harmless;
use super::super::output::OutputFlags;
use super::super::store_flags::StoreFlags;
use super::super::{PUBLISHER, values};

/// Raises the fence to a version, for good: every leader of a lower version is refused from then on
///
/// Nothing but a person may raise a fence whose record was lost, or by more than 1,000,000. A fence is never lowered. Ends with 4 when
/// it stands higher already, or at this version for another holder.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  epochwarden fence publish --store s3://state/orders --version 8 --holder orders-1-x7f2
  epochwarden fence publish --policy orders.yaml --version 8 --holder orders-1-x7f2")]
pub(super) struct Publish {
    #[command(flatten)]
    store: StoreFlags,
    #[command(flatten)]
    pub(super) output: OutputFlags,

    /// The version, 1 to 2^53-1
    #[arg(long, value_name = "V", value_parser = values::version)]
    version: Version,

    /// Who leads in this version: the holder's identity, as its Lease names it
    #[arg(long, value_name = "ID", value_parser = values::holder)]
    holder: String,

    /// Do not ask, where the fence would rise by more than 1,000,000
    #[arg(long)]
    yes: bool,
}

/// What programs are shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    root: &'a str,
    version: Version,
    holder: &'a str,
    /// Whether this call wrote the record: `Created` or `AlreadyThere`.
    outcome: &'static str,
    /// Where the fence stood before.
    before: Version,
}

impl Publish {
    pub(super) async fn run(self) -> Result<Exit, CliError> {
        let root = self.store.open()?.root;
        let registers = Registers::new(root.clone(), PUBLISHER);
        let before = registers.read().await?.fence;
        if is_a_jump(before, self.version) && !self.yes {
            self.ask(before)?;
        }
        let outcome = match registers.publish_fence(self.version, &self.holder, None).await? {
            Published::Created => "Created",
            Published::AlreadyThere => "AlreadyThere",
            Published::Superseded { by } => return Err(CliError::Superseded { version: self.version, fence: by }),
        };
        let shown = Shown { root: root.url(), version: self.version, holder: &self.holder, outcome, before };
        self.output.print(&shown, text(&shown))?;
        Ok(Exit::Done)
    }

    fn ask(&self, before: Version) -> Result<(), CliError> {
        let version = self.version;
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            return Err(CliError::Usage(format!(
                "version {version} is more than {HIGHEST_JUMP} above the fence, which stands at {before} and can never be lowered: if \
                 that is no typing error, repeat with --yes"
            )));
        }
        let question = format!("Raise the fence from {before} to {version}? It can never be lowered. [y/N] ");
        super::super::ask::ask(&question, &mut io::stdin().lock(), &mut io::stderr().lock())
    }
}

/// Whether a typing error is likely enough to ask.
fn is_a_jump(before: Version, version: Version) -> bool {
    version.get().saturating_sub(before.get()) > HIGHEST_JUMP
}

fn text(shown: &Shown<'_>) -> String {
    let Shown { version, holder, outcome, before, .. } = shown;
    let holder = harmless(holder);
    match *outcome {
        "Created" => format!("the fence stands at {version} for {holder} (before: {before})\n"),
        _ => format!("the fence stood at {version} for {holder} already\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_step_of_more_than_a_million_is_a_jump_also_from_nothing() {
        for (before, version, jump) in [
            (0, 1, false),
            (0, 1_000_000, false),
            (0, 1_000_001, true),
            (7, 1_000_007, false),
            (7, 1_000_008, true),
            (9, 7, false),
        ] {
            assert_eq!(is_a_jump(Version::new(before), Version::new(version)), jump, "{before} {version}");
        }
    }

    #[test]
    fn people_read_where_the_fence_stands_since() {
        let shown = |outcome| Shown {
            root: "s3://state",
            version: Version::new(8),
            holder: "pod-1\u{7}",
            outcome,
            before: Version::new(7),
        };
        assert_eq!(text(&shown("Created")), "the fence stands at 8 for pod-1\\u{7} (before: 7)\n");
        assert_eq!(text(&shown("AlreadyThere")), "the fence stood at 8 for pod-1\\u{7} already\n");
    }
}
