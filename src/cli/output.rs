//! How results are shown: to people as tables, to programs as JSON or YAML.

use std::fmt;
use std::io::{self, Write};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::exit::CliError;
use super::progress::Progress;
use super::telemetry::{LogFormat, Logs};

/// In which form a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs; the schema is stable.
    Json,
    /// The same as YAML.
    Yaml,
}

/// The flags about what is shown.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct OutputFlags {
    /// The form of the result
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,

    /// Draw no progress; nothing is drawn either where standard error is not a terminal
    #[arg(long)]
    no_progress: bool,

    /// The form of warnings, on standard error; `RUST_LOG` says which are shown
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

impl OutputFlags {
    pub(super) const fn format(&self) -> Format {
        self.output
    }

    pub(super) const fn logs(&self) -> Logs {
        Logs::of_command(self.log_format)
    }

    pub(super) fn progress(&self) -> Progress {
        Progress::new(!self.no_progress)
    }

    /// Prints a result: `table` for people, `value` for programs.
    pub(super) fn print(&self, value: &impl Serialize, table: impl fmt::Display) -> Result<(), CliError> {
        print(&self.render(value, table)?)
    }

    fn render(&self, value: &impl Serialize, table: impl fmt::Display) -> Result<String, CliError> {
        match self.output {
            Format::Table => Ok(table.to_string()),
            Format::Json => serde_json::to_string_pretty(value)
                .map(|text| text + "\n")
                .map_err(|error| CliError::Render { reason: error.to_string() }),
            Format::Yaml => {
                serde_saphyr::to_string(value).map_err(|error| CliError::Render { reason: error.to_string() })
            }
        }
    }
}

/// Prints a text to standard output, as it is. That nobody reads it (a closed pipe) is no failure.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(source) => Err(CliError::Output { source }),
        Ok(()) => Ok(()),
    }
}

/// Says something on standard error. Where that is not possible, nobody is there to be told.
pub(super) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Value {
        some_number: u64,
        nothing: Option<u64>,
    }

    #[test]
    fn the_same_value_is_a_table_json_or_yaml() {
        for (output, expected) in [
            (Format::Table, "the table\n"),
            (Format::Json, "{\n  \"someNumber\": 7,\n  \"nothing\": null\n}\n"),
            (Format::Yaml, "someNumber: 7\nnothing: null\n"),
        ] {
            let flags = OutputFlags { output, no_progress: true, log_format: LogFormat::Text };
            let value = Value { some_number: 7, nothing: None };
            assert_eq!(flags.render(&value, "the table\n").unwrap(), expected);
        }
    }
}
