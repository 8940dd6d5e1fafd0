//! `crd`: what `kubectl apply` needs before the operator runs.

use clap::Args;

use super::exit::{CliError, Exit};
use super::output;
use crate::api;

/// Prints the custom resource definition of `StateEpochPolicy`, as YAML
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  epochwarden crd | kubectl apply --server-side -f -")]
pub(super) struct Crd {}

impl Crd {
    #[allow(clippy::unused_self, reason = "a verb is run like every other")]
    pub(super) fn run(self) -> Result<Exit, CliError> {
        let yaml = api::crd_yaml().map_err(|error| CliError::Render { reason: error.to_string() })?;
        output::print(&yaml)?;
        Ok(Exit::Done)
    }
}
