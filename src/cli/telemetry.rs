//! Logs, on standard error.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use super::exit::CliError;

/// The form of a line of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Which lines are logged, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Logs {
    format: LogFormat,
    default: LevelFilter,
}

impl Logs {
    /// What a process that stays logs: also what it does.
    pub(super) const fn of_service(format: LogFormat) -> Self {
        Self { format, default: LevelFilter::INFO }
    }

    /// What a command that ends logs: what is odd. The rest is its output.
    pub(super) const fn of_command(format: LogFormat) -> Self {
        Self { format, default: LevelFilter::WARN }
    }

    /// From now on, logs. `RUST_LOG` overrides what is logged.
    pub(super) fn install(self) -> Result<(), CliError> {
        let filter = EnvFilter::builder().with_default_directive(self.default.into()).from_env();
        let filter = filter.map_err(|error| {
            CliError::Usage(format!("RUST_LOG cannot be understood: {error}; write it as info,epochwarden=debug"))
        })?;
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal());
        let installed = match self.format {
            LogFormat::Text => lines.try_init(),
            LogFormat::Json => lines.json().try_init(),
        };
        installed.map_err(|error| CliError::Runtime { source: io::Error::other(error) })
    }
}
