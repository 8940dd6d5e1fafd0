//! How a verb ends: the errors of the command line, and the one place that turns an end into an exit code.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use epochwarden_core::Version;
use epochwarden_store::audit::AuditError;
use epochwarden_store::probe::ProbeError;
use epochwarden_store::prune::PruneError;
use epochwarden_store::{ErrorClass, StoreError};
use thiserror::Error;

/// What the shell is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// It is done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// It was asked for in a way that makes no sense.
    Usage = 2,
    /// There is a critical finding, or what was asked for is not there.
    Findings = 3,
    /// A safety rule forbids it.
    Refused = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a verb did not do what it was asked for: what, why, and what to do.
#[derive(Debug, Error)]
pub(super) enum CliError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Prune(#[from] PruneError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error("{0}")]
    Usage(String),
    #[error("cannot read {}: {source}; name the manifest of a policy", file.display())]
    Manifest { file: PathBuf, source: io::Error },
    #[error("{}: {reason}", file.display())]
    Policy { file: PathBuf, reason: String },
    #[error("nothing was deleted, because the plan is held: {message}")]
    Held { message: String },
    #[error(
        "nothing was deleted: this root is owned by {owner}, which prunes it by its own rules; change the policy's retention \
         instead, or, if it is gone for good, repeat with --ignore-owner"
    )]
    Owned { owner: String },
    #[error(
        "nothing was deleted, because the policy of this file would wait for approval: {message}; read the plan with `epochwarden \
         plan`, then repeat with --plan-digest and the digest that it shows"
    )]
    NotApproved { message: String },
    #[error("nothing was written: the fence stands at {fence} already, above {version}; a fence only rises")]
    Superseded { version: Version, fence: Version },
    #[error("nothing was done: the question was not answered with yes")]
    Declined,
    #[error("cannot write the output: {source}")]
    Output { source: io::Error },
    #[error("cannot put the output into words: {reason}; this is a mistake of the program, please report it")]
    Render { reason: String },
    #[error("cannot start: {source}")]
    Runtime { source: io::Error },
    #[error("cannot serve /livez, /readyz and /metrics on {address}: {source}; choose another address with --http")]
    Bind { address: std::net::SocketAddr, source: io::Error },
    #[error(
        "no way to the API server: {reason}; run in a pod with a service account, or point KUBECONFIG at a file that names a cluster"
    )]
    Cluster { reason: String },
    #[error("the operator stopped: {reason}")]
    Operator { reason: String },
}

impl CliError {
    /// What the shell is told. The texts have no part in it.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Store(error) => of_class(error.class()),
            Self::Prune(error) => of_prune(error),
            Self::Audit(error) => of_audit(error),
            Self::Probe(error) => error.class().map_or(Exit::Failed, of_class),
            Self::Usage(_) | Self::Manifest { .. } | Self::Policy { .. } => Exit::Usage,
            Self::Held { .. } | Self::Owned { .. } | Self::NotApproved { .. } | Self::Superseded { .. } => {
                Exit::Refused
            }
            Self::Declined
            | Self::Output { .. }
            | Self::Render { .. }
            | Self::Runtime { .. }
            | Self::Bind { .. }
            | Self::Cluster { .. }
            | Self::Operator { .. } => Exit::Failed,
        }
    }
}

/// What a failure of the store means to the shell.
pub(super) fn of_class(class: ErrorClass) -> Exit {
    match class {
        ErrorClass::InvalidConfiguration | ErrorClass::CredentialsNotAllowed => Exit::Usage,
        ErrorClass::RootConflict
        | ErrorClass::FenceConflict
        | ErrorClass::RegisterLost
        | ErrorClass::UnknownLayout
        | ErrorClass::UnaddressableKey
        | ErrorClass::UnsafeStore => Exit::Refused,
        _ => Exit::Failed,
    }
}

fn of_prune(error: &PruneError) -> Exit {
    match error {
        PruneError::Store(error) => of_class(error.class()),
        PruneError::NotApproved { .. } => Exit::Refused,
        _ => Exit::Failed,
    }
}

fn of_audit(error: &AuditError) -> Exit {
    match error {
        AuditError::Store(error) => of_class(error.class()),
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use epochwarden_core::Numbering;
    use epochwarden_core::register::{RegisterKind, RegisterLost};

    use super::*;

    fn no_version() -> StoreError {
        StoreError::InvalidVersion(Numbering::Plain.check_version(Version::OFF).unwrap_err())
    }

    fn lost() -> StoreError {
        StoreError::RegisterLost(RegisterLost { register: RegisterKind::Fence, seen: 2, found: 1 })
    }

    #[test]
    fn every_class_of_failure_has_a_code() {
        for (class, exit) in [
            (ErrorClass::NotFound, Exit::Failed),
            (ErrorClass::BucketNotFound, Exit::Failed),
            (ErrorClass::AccessDenied, Exit::Failed),
            (ErrorClass::Unreachable, Exit::Failed),
            (ErrorClass::InvalidConfiguration, Exit::Usage),
            (ErrorClass::CredentialsNotAllowed, Exit::Usage),
            (ErrorClass::Conflict, Exit::Failed),
            (ErrorClass::OutcomeUnknown, Exit::Failed),
            (ErrorClass::RootConflict, Exit::Refused),
            (ErrorClass::FenceConflict, Exit::Refused),
            (ErrorClass::RegisterLost, Exit::Refused),
            (ErrorClass::UnknownLayout, Exit::Refused),
            (ErrorClass::UnaddressableKey, Exit::Refused),
            (ErrorClass::UnsafeStore, Exit::Refused),
            (ErrorClass::Other, Exit::Failed),
        ] {
            assert_eq!(of_class(class), exit, "{class:?}");
        }
    }

    #[test]
    fn an_error_has_the_code_of_its_kind_wherever_it_comes_from() {
        let failed = || io::Error::other("x");
        for (error, code) in [
            (CliError::Store(lost()), 4),
            (CliError::Prune(PruneError::Store(lost())), 4),
            (CliError::Audit(AuditError::Store(lost())), 4),
            (CliError::Prune(PruneError::Store(no_version())), 2),
            (CliError::Prune(PruneError::NotApproved { approved: "a".into(), found: "b".into() }), 4),
            (CliError::Prune(PruneError::Cancelled), 1),
            (CliError::Audit(AuditError::Cancelled), 1),
            (CliError::Probe(ProbeError::Store(no_version())), 2),
            (CliError::Probe(ProbeError::Cancelled), 1),
            (CliError::Usage("x".into()), 2),
            (CliError::Manifest { file: "x".into(), source: failed() }, 2),
            (CliError::Policy { file: "x".into(), reason: "x".into() }, 2),
            (CliError::Held { message: "x".into() }, 4),
            (CliError::NotApproved { message: "x".into() }, 4),
            (CliError::Superseded { version: Version::new(1), fence: Version::new(2) }, 4),
            (CliError::Owned { owner: "x".into() }, 4),
            (CliError::Declined, 1),
            (CliError::Output { source: failed() }, 1),
            (CliError::Runtime { source: failed() }, 1),
            (CliError::Cluster { reason: "x".into() }, 1),
            (CliError::Operator { reason: "x".into() }, 1),
        ] {
            assert_eq!(error.exit() as i32, code, "{error}");
        }
    }
}
