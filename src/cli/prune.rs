//! `prune`: plans, asks, executes.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use epochwarden_core::approval::Gate;
use epochwarden_core::plan::Rules;
use epochwarden_core::register::Reading;
use epochwarden_store::prune::{
    self, Always, Approval, Identity, PruneError, PruneOutcome, PruneProgress, PruneReport, PruneRules, Stop,
};
use epochwarden_store::registers::Record;
use epochwarden_store::{Clock, Registers, Root, StoreError, SystemClock};
use serde::Serialize;

use super::PUBLISHER;
use super::ask::ask;
use super::exit::{CliError, Exit, of_class};
use super::human::{self, counted, harmless};
use super::output::{Format, OutputFlags, complain};
use super::plan::{self, sum};
use super::retention_flags::RetentionFlags;
use super::signals;
use super::store_flags::StoreFlags;
use super::values;
use crate::api::{StateEpochPolicy, spec, validate};

/// Plans, asks, and deletes what the plan says: the floor first, then the seals, then the rest
///
/// A root that a policy owns is refused. Ends with 4 when a safety rule forbids it, or forbids to go on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  epochwarden prune --store s3://state/orders --vnodes 256 --keep-last 10
  epochwarden prune --store s3://state/orders --vnodes 256 --keep-within 24h --yes -o json
  epochwarden prune --policy orders.yaml")]
pub(super) struct Prune {
    #[command(flatten)]
    store: StoreFlags,
    #[command(flatten)]
    retention: RetentionFlags,
    #[command(flatten)]
    pub(super) output: OutputFlags,
    #[command(flatten)]
    execution: ExecutionFlags,
}

/// How it is executed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Execution")]
struct ExecutionFlags {
    /// Do not ask
    #[arg(long)]
    yes: bool,

    /// Do not ask, and execute only the plan that has this digest, as `plan` shows it
    #[arg(long, value_name = "D", value_parser = values::digest)]
    plan_digest: Option<String>,

    /// Prune also where a policy owns the root
    #[arg(long)]
    ignore_owner: bool,

    /// Delete at most N objects, but always at least one epoch, and each to its end; the rest is the next run's [default: the
    /// policy's, or 1000000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    max_objects: Option<u64>,

    /// Delete at most N keys per second: the pipeline shares the bucket [default: the policy's, or 2000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    max_keys_per_second: Option<u64>,

    /// Stop after D; the rest is the next run's [default: the policy's, or 30m]
    #[arg(long, value_name = "D", value_parser = values::some_duration)]
    deadline: Option<Duration>,
}

/// Where neither a flag nor a policy says otherwise: as in a policy that does not say.
const MAX_OBJECTS: u64 = 1_000_000;
const MAX_KEYS_PER_SECOND: u64 = 2_000;
const DEADLINE: Duration = Duration::from_mins(30);

/// What bounds a run, and what its policy wants to be asked.
#[derive(Debug)]
struct Limits {
    max_objects: u64,
    max_keys_per_second: u64,
    deadline: Duration,
    gate: Option<Gate>,
}

/// What programs are shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    root: &'a str,
    #[serde(flatten)]
    report: &'a PruneReport,
}

impl Prune {
    pub(super) async fn run(self) -> Result<Exit, CliError> {
        let source = self.store.open()?;
        let limits = self.limits(source.policy.as_ref())?;
        let plan = self.retention.rules(source.policy.as_ref(), source.root.numbering())?;
        let root = source.root;
        let approval = self.approval(&root, &plan, limits.gate).await?;
        let rules = PruneRules {
            plan,
            dry_run: false,
            max_objects: limits.max_objects,
            max_keys_per_second: Some(limits.max_keys_per_second),
            deadline: limits.deadline,
        };
        let identity = Identity {
            policy: None,
            ignore_owner: self.execution.ignore_owner,
            publisher: PUBLISHER.to_owned(),
            seen: Reading::default(),
        };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let stop = signals::stop()?;
        let drawing = self.output.progress().start("listing");
        let draw = |progress| match progress {
            PruneProgress::Listing { objects } => drawing.objects(objects),
            PruneProgress::Deleting { done, total, .. } => drawing.fill("deleting", done, total),
        };
        let run = prune::run(&root, &rules, &identity, approval, &Always, &clock, &stop, &draw).await;
        drop(drawing);
        let mut report = run.map_err(explain)?;
        // With those that were made for the question.
        report.requests = root.requests();
        let refused = match &report.outcome {
            PruneOutcome::Held { message, .. } => Some(CliError::Held { message: message.clone() }),
            PruneOutcome::AwaitingApproval { message, .. } => Some(CliError::NotApproved { message: message.clone() }),
            _ => None,
        };
        if refused.is_none() || self.output.format() != Format::Table {
            self.output.print(&Shown { root: root.url(), report: &report }, Text(&report))?;
        }
        refused.map_or_else(|| Ok(exit(&report.outcome)), Err)
    }

    /// What the flags say, else the policy, else what a policy has by default.
    fn limits(&self, policy: Option<&StateEpochPolicy>) -> Result<Limits, CliError> {
        let flags = &self.execution;
        let Some(policy) = policy else {
            return Ok(Limits {
                max_objects: flags.max_objects.unwrap_or(MAX_OBJECTS),
                max_keys_per_second: flags.max_keys_per_second.unwrap_or(MAX_KEYS_PER_SECOND),
                deadline: flags.deadline.unwrap_or(DEADLINE),
                gate: None,
            });
        };
        let settings = validate::prune_settings(&policy.spec).map_err(|error| CliError::Usage(error.to_string()))?;
        Ok(Limits {
            max_objects: flags.max_objects.unwrap_or(settings.max_objects),
            max_keys_per_second: flags.max_keys_per_second.unwrap_or(settings.max_keys_per_second),
            deadline: flags.deadline.unwrap_or(settings.deadline),
            gate: Some(Gate {
                manual: settings.approval == spec::Approval::Manual,
                hold_above: Some(settings.hold_above),
                frozen: None,
                approved: false,
            }),
        })
    }

    /// What may be executed: a plan that has the digest, any plan, or the one to which a person says yes.
    ///
    /// `gate` is what the policy of the file asks for: a yes that was given before the plan was seen does not open it.
    async fn approval(&self, root: &Root, rules: &Rules, gate: Option<Gate>) -> Result<Approval, CliError> {
        if let Some(digest) = &self.execution.plan_digest {
            return Ok(Approval::Digest(digest.clone()));
        }
        if self.execution.yes {
            return Ok(gate.map_or(Approval::Automatic, Approval::Gate));
        }
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            return Err(CliError::Usage(
                "nobody can be asked here, so nothing was deleted: read the plan with `epochwarden plan`, then repeat with --yes, or \
                 with --plan-digest and the digest that it shows"
                    .to_owned(),
            ));
        }
        if !self.execution.ignore_owner {
            refuse_owned(root).await?;
        }
        let plan = plan::compute(root, rules, self.output.progress()).await?;
        if let Some(hold) = plan.hold() {
            return Err(CliError::Held { message: hold.to_string() });
        }
        if !plan.is_empty() {
            complain(&plan::Text(&plan).to_string());
            let question = format!("Delete {}? This cannot be undone. [y/N] ", sum(&plan.delete_totals()));
            ask(&question, &mut io::stdin().lock(), &mut io::stderr().lock())?;
        }
        Ok(Approval::Plan(Box::new(plan)))
    }
}

/// Fails where a policy owns the root, before anybody is asked.
async fn refuse_owned(root: &Root) -> Result<(), CliError> {
    let owner = match Registers::new(root.clone(), PUBLISHER).owner().await? {
        None => return Ok(()),
        Some((_, Record::Readable(owner))) => format!("policy {}/{} (uid {})", owner.namespace, owner.name, owner.uid),
        Some((number, Record::Unreadable { reason })) => {
            format!("a policy whose record {number} cannot be read ({reason})")
        }
    };
    Err(CliError::Owned { owner })
}

/// The words of the command line for what a policy would be told otherwise.
fn explain(error: PruneError) -> CliError {
    match error {
        PruneError::Store(StoreError::RootConflict { owner }) => CliError::Owned { owner },
        other => CliError::Prune(other),
    }
}

/// What the shell is told about a prune that came to its end, whichever. Its own bounds are an end that was asked for.
fn exit(outcome: &PruneOutcome) -> Exit {
    match outcome {
        PruneOutcome::Succeeded | PruneOutcome::DryRun | PruneOutcome::KeepsEverything => Exit::Done,
        PruneOutcome::PartlyFailed => Exit::Failed,
        PruneOutcome::Held { .. } | PruneOutcome::AwaitingApproval { .. } => Exit::Refused,
        PruneOutcome::Stopped { stop } => match stop {
            Stop::MaxObjects | Stop::Deadline => Exit::Done,
            Stop::Cancelled | Stop::CannotAsk { .. } => Exit::Failed,
            Stop::OwnerChanged | Stop::NotPermitted { .. } | Stop::Held { .. } => Exit::Refused,
            Stop::Store { class, .. } => of_class(*class),
        },
    }
}

/// A report for people.
struct Text<'a>(&'a PruneReport);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PruneReport { outcome, epochs, objects, bytes, failed, errors, remainder, floor, .. } = self.0;
        if *outcome == PruneOutcome::KeepsEverything {
            return writeln!(f, "everything is kept: none of --keep-last, --keep-within and --keep-every was given");
        }
        let epochs = counted(*epochs, "epoch", "epochs");
        let objects = counted(*objects, "object", "objects");
        writeln!(f, "deleted {epochs}, {objects}, {}", human::bytes(*bytes))?;
        if let Some(floor) = floor {
            writeln!(f, "floor {floor}: no epoch below it can be sealed any more")?;
        }
        if *failed > 0 {
            writeln!(
                f,
                "{} not be deleted, and will be planned again:",
                counted(*failed, "object could", "objects could")
            )?;
            for failure in errors {
                writeln!(f, "  {}: {}", harmless(&failure.key), harmless(&failure.error))?;
            }
            if errors.len() as u64 != *failed {
                writeln!(f, "  …")?;
            }
        }
        if let PruneOutcome::Stopped { stop } = outcome {
            writeln!(f, "stopped before the end: {}", harmless(&stop.to_string()))?;
        }
        if remainder.epochs > 0 {
            let left = counted(remainder.epochs, "epoch", "epochs");
            writeln!(f, "left for the next run: {left}, {}", counted(remainder.objects, "object", "objects"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
