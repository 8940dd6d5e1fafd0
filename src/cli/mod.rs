//! The command line: one file per verb, over the same functions as the controller.
//!
//! A verb reads its flags into the values of the rules, calls what `epochwarden_store` offers, and shows the result. What it shows to
//! programs is described by one struct in the verb's file; what its end means to the shell is [`exit::Exit`], and nothing else decides
//! that.

mod ask;
mod audit;
mod controller;
mod crd;
mod epochs;
mod exit;
mod fence;
mod human;
mod latest;
mod output;
mod plan;
mod probe;
mod progress;
mod prune;
mod retention_flags;
mod signals;
mod store_flags;
mod table;
mod telemetry;
mod timeline;
mod values;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::{CliError, Exit};

/// How records name this program as their publisher.
const PUBLISHER: &str = "epochwarden-cli";

/// Guards the state epochs that stream processors keep in an object store: fences, prunes, audits.
#[derive(Debug, Parser)]
#[command(name = "epochwarden", version, max_term_width = 110, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage: a flag, the URL or an option of the store
  3  findings (audit), or nothing there (latest, fence show)
  4  refused by a safety rule: a held plan, another digest, a root of another owner, a lost register, a higher fence,
     an unsafe store";

/// What can be asked for. Each variant's text is its help.
#[derive(Debug, Subcommand)]
enum Command {
    Controller(controller::Controller),
    Epochs(epochs::Epochs),
    Latest(latest::Latest),
    Plan(plan::PlanVerb),
    Prune(prune::Prune),
    Audit(audit::AuditVerb),
    Fence(fence::Fence),
    Probe(probe::Probe),
    Crd(crd::Crd),
}

impl Command {
    const fn logs(&self) -> telemetry::Logs {
        match self {
            Self::Controller(verb) => telemetry::Logs::of_service(verb.log_format),
            Self::Epochs(verb) => verb.output.logs(),
            Self::Latest(verb) => verb.output.logs(),
            Self::Plan(verb) => verb.output.logs(),
            Self::Prune(verb) => verb.output.logs(),
            Self::Audit(verb) => verb.output.logs(),
            Self::Fence(verb) => verb.logs(),
            Self::Probe(verb) => verb.output.logs(),
            Self::Crd(_) => telemetry::Logs::of_command(telemetry::LogFormat::Text),
        }
    }

    async fn run(self) -> Result<Exit, CliError> {
        match self {
            Self::Controller(verb) => verb.run().await,
            Self::Epochs(verb) => verb.run().await,
            Self::Latest(verb) => verb.run().await,
            Self::Plan(verb) => verb.run().await,
            Self::Prune(verb) => verb.run().await,
            Self::Audit(verb) => verb.run().await,
            Self::Fence(verb) => verb.run().await,
            Self::Probe(verb) => verb.run().await,
            Self::Crd(verb) => verb.run(),
        }
    }
}

/// Reads the command line, does what it asks for, and says how it went.
///
/// A wrong command line ends the process with 2, and a request for help with 0, before anything else is done.
#[must_use]
pub fn main() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(exit) => exit.into(),
        Err(error) => {
            output::complain(&format!("error: {error}"));
            error.exit().into()
        }
    }
}

fn execute(command: Command) -> Result<Exit, CliError> {
    command.logs().install()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|source| CliError::Runtime { source })?;
    let done = runtime.block_on(command.run());
    // A request that nobody waits for any more must not hold the process.
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command)
    }

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_help_with_an_example_that_it_accepts() {
        for verb in
            ["controller", "epochs", "latest", "plan", "prune", "audit", "fence show", "fence publish", "probe", "crd"]
        {
            let help = parse(&format!("epochwarden {verb} --help")).unwrap_err();
            assert_eq!(help.exit_code(), 0, "{verb}");
            let help = help.to_string();
            let examples: Vec<_> = help
                .lines()
                .map(str::trim)
                .filter(|line| line.starts_with(&format!("epochwarden {verb}")))
                .filter(|line| !line.contains('<') && !line.contains('['))
                .collect();
            assert!(!examples.is_empty(), "{verb}: {help}");
            for example in examples {
                let command = example.split(" | ").next().unwrap_or_default();
                assert!(parse(command).is_ok(), "{verb}: {example}");
            }
        }
    }

    #[test]
    fn what_does_not_work_yet_is_not_accepted() {
        let line = "epochwarden plan --store file:///tmp --vnodes 4 --numbering Plain";
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }

    #[test]
    fn wrong_values_are_wrong_usage() {
        let plan = "epochwarden plan --store file:///tmp --vnodes";
        assert!(parse(&format!("{plan} 4 --keep-last 1 --keep-every 1h:7d --pin 5 --min-age 0s")).is_ok());
        for flags in [
            "0",
            "1048577",
            "4 --keep-last 0",
            "4 --keep-within 0s",
            "4 --keep-within 10",
            "4 --keep-every 1h",
            "4 --keep-every 0s:7d",
            "4 --min-age soon",
            "4 --incremental-depth -1",
            "4 --store-option aws_region",
            "4 -o xml",
        ] {
            assert_eq!(parse(&format!("{plan} {flags}")).unwrap_err().exit_code(), 2, "{flags}");
        }
        for flags in [
            "--max-concurrent-runs 0",
            "--lease-poll 0s",
            "--http 8080",
            "--allow-file-root relative/path",
            "--allow-endpoint minio:9000",
            "--allow-endpoint http://minio",
            "--allow-ambient-credentials bucket",
            "--leader-elect epochwarden",
            "--leader-elect=",
            "--leader-elect=Orders",
            "--policy-selector",
        ] {
            assert_eq!(parse(&format!("epochwarden controller {flags}")).unwrap_err().exit_code(), 2, "{flags}");
        }
    }
}
