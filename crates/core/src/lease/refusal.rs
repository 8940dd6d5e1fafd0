//! Why the fence does not move, in words and as the reason of a condition.

use std::time::Duration;

use thiserror::Error;

use super::{Declared, HIGHEST_JUMP, VERSION_ANNOTATION};
use crate::duration::format_duration;
use crate::epoch::Version;
use crate::numbering::VersionOutOfRange;
use crate::register::RegisterLost;

/// Why a Lease gives no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidVersion {
    /// `leaseTransitions` is below zero.
    #[error("spec.leaseTransitions is negative: the leader must count it up from 0")]
    NegativeTransitions,
    /// There is no annotation.
    #[error(
        "there is no annotation {VERSION_ANNOTATION}: the leader must set it to a decimal number from 1 to {}",
        Version::MAX
    )]
    NoAnnotation,
    /// The annotation is not a version.
    #[error(
        "the annotation {VERSION_ANNOTATION} is not a version: the leader must set it to a decimal number from 1 to {}, without sign, \
         spaces or leading zeros",
        Version::MAX
    )]
    MalformedAnnotation,
    /// No epoch could be numbered by it.
    #[error(
        "{0}; correct what gives it, or go on in another root where all of them are used up: a fence never goes down"
    )]
    OutOfRange(VersionOutOfRange),
}

/// Why the fence does not move. Its text says what is wrong, on which object, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FenceRefusal {
    /// The Lease does not exist.
    #[error("there is no Lease {lease}: start the pipeline's leader election, or correct spec.fence.leaseRef")]
    LeaseNotFound {
        /// Namespace and name.
        lease: String,
    },
    /// Nobody holds the Lease.
    #[error("the Lease {lease} has no holder: the fence moves when a leader acquires it")]
    NoHolder {
        /// Namespace and name.
        lease: String,
    },
    /// The holder stopped renewing the Lease.
    #[error(
        "the Lease {lease} was not renewed by {holder:?} for {}: the fence moves when a leader renews or acquires it; look at the \
         pipeline's leader",
        format_duration(*silent)
    )]
    LeaseExpired {
        /// Namespace and name.
        lease: String,
        /// Who held it last.
        holder: String,
        /// How long no renewal has arrived.
        silent: Duration,
    },
    /// The Lease gives a lower version than the fence has.
    #[error(
        "the Lease {lease} gives version {version}, but the fence stands at {fence}: a Lease that was deleted and created again starts \
         over, and a fence never goes down; {}; with versionFrom: Assigned a Lease may start over",
        raise(*from, *fence)
    )]
    LeaseRegressed {
        /// Namespace and name.
        lease: String,
        /// How it became a version.
        from: Declared,
        /// The version that it gives.
        version: Version,
        /// The version of the fence.
        fence: Version,
    },
    /// The fence of this version belongs to another term.
    #[error(
        "the Lease {lease} gives version {version} to {holder:?}, but the fence of that version {}: two leaders must not share a version; \
         {}",
        recorded(recorded_holder.as_deref(), holder),
        raise(*from, *version)
    )]
    FenceConflict {
        /// Namespace and name.
        lease: String,
        /// How it became a version.
        from: Declared,
        /// The version that both claim.
        version: Version,
        /// Who the fence record names; `None` where it cannot be read.
        recorded_holder: Option<String>,
        /// Who holds the Lease.
        holder: String,
    },
    /// The Lease gives no version.
    #[error("the Lease {lease} gives no version ({text:?}): {why}")]
    InvalidVersion {
        /// Namespace and name.
        lease: String,
        /// What it says instead of a version.
        text: String,
        /// What is wrong with that.
        why: InvalidVersion,
    },
    /// The Lease would raise the fence too far at once.
    #[error(
        "the Lease {lease} would raise the fence from {fence} to {version}, more than {HIGHEST_JUMP} at once: a fence cannot be lowered \
         again, so correct the Lease if this is a mistake"
    )]
    VersionJump {
        /// Namespace and name.
        lease: String,
        /// The version of the fence.
        fence: Version,
        /// The version that the Lease gives.
        version: Version,
    },
    /// The fence in the bucket reads lower than before.
    #[error(transparent)]
    RegisterLost(#[from] RegisterLost),
}

impl FenceRefusal {
    /// The reason of the condition `FenceCurrent`.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::LeaseNotFound { .. } => "LeaseNotFound",
            Self::NoHolder { .. } => "NoHolder",
            Self::LeaseExpired { .. } => "LeaseExpired",
            Self::LeaseRegressed { .. } => "LeaseRegressed",
            Self::FenceConflict { .. } => "FenceConflict",
            Self::InvalidVersion { .. } => "InvalidVersion",
            Self::VersionJump { .. } => "VersionJump",
            Self::RegisterLost(_) => "RegisterLost",
        }
    }
}

/// How a leader comes above a version.
fn raise(from: Declared, above: Version) -> String {
    match from {
        Declared::LeaseTransitions => {
            format!(
                "let a leader acquire the Lease with spec.leaseTransitions at {above} or above, under an identity of its own"
            )
        }
        Declared::Annotation => format!("let the leader set the annotation {VERSION_ANNOTATION} above {above}"),
    }
}

fn recorded(recorded: Option<&str>, holder: &str) -> String {
    match recorded {
        None => "has a record that cannot be read".to_owned(),
        Some(recorded) if recorded == holder => "was published for the same holder under another Lease".to_owned(),
        Some(recorded) => format!("belongs to {recorded:?}"),
    }
}
