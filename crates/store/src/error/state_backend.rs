//! What a pipeline's state backend can refuse.

use epochwarden_core::numbering::{EpochOutOfRange, ShownEpoch};
use epochwarden_core::register::RegisterKind;
use epochwarden_core::{Epoch, Version};
use thiserror::Error;

/// Why a state backend did not do what a pipeline asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StateBackendError {
    /// The store could not be used.
    #[error("state store, {key}: {source}")]
    Io {
        /// The object, or what else was asked for.
        key: String,
        /// The failure.
        source: Box<dyn std::error::Error + Send + Sync + 'static>,
    },
    /// A record could not be put into words.
    #[error("a record of the state store could not be serialised")]
    Serialization,
    /// A newer leader has taken over: this instance must stop writing and restore before it leads again.
    #[error(
        "version {caller} is stale: the authoritative version is {authoritative}; stop, another leader has taken over"
    )]
    StaleVersion {
        /// The version of the caller.
        caller: u64,
        /// The version that stands.
        authoritative: u64,
    },
    /// Another instance sealed this epoch.
    #[error("the epoch was sealed by {committer:?}, not by {self_id:?}: two instances believe to lead; stop this one")]
    SplitBrainCommit {
        /// Who sealed it.
        committer: String,
        /// This instance.
        self_id: String,
    },
    /// The caller's version is not durable yet.
    #[error(
        "the fence stands at {fence}, below the version {version}: publish the fence first, or wait until it is published"
    )]
    FenceNotReached {
        /// The version of the caller.
        version: u64,
        /// The version that stands.
        fence: u64,
    },
    /// The epoch lies below the floor.
    #[error("epoch {epoch} lies below the floor {floor}: it was given up for pruning; commit a higher epoch")]
    EpochPruned {
        /// The epoch.
        epoch: ShownEpoch,
        /// The floor.
        floor: ShownEpoch,
    },
    /// This epoch's state of this vnode was written before, with other bytes.
    #[error(
        "epoch {epoch} has another state of vnode {vnode} already, which is not overwritten: give this epoch up, and go on with a higher \
         number"
    )]
    PartialConflict {
        /// The epoch.
        epoch: ShownEpoch,
        /// The vnode.
        vnode: u32,
    },
    /// The epoch is not one that a leader of this version may write or seal.
    #[error("{}", out_of_range(*epoch, *version))]
    EpochOutOfRange {
        /// The epoch.
        epoch: u64,
        /// The version of the caller.
        version: u64,
    },
    /// A register reads lower than it was seen.
    #[error(
        "the {register} register reads {found}, but {seen} was seen before: its records were deleted or the bucket was replaced"
    )]
    RegisterLost {
        /// Which register.
        register: RegisterKind,
        /// The value that was seen.
        seen: u64,
        /// The value that was read.
        found: u64,
    },
    /// The caller's version belongs to another holder.
    #[error(
        "version {version} of the fence belongs to {}, not to this instance: stop, and lead only with a version of your own",
        holder.as_deref().unwrap_or("a holder whose record cannot be read")
    )]
    FenceConflict {
        /// The version.
        version: u64,
        /// Its holder, where the record can be read.
        holder: Option<String>,
    },
    /// What was to be restored kept changing, or is not whole.
    #[error(
        "epoch {epoch} could not be restored whole{}: start with an older epoch, or try again",
        vnode.map(|vnode| format!(", vnode {vnode} is missing")).unwrap_or_default()
    )]
    RestoreIncomplete {
        /// The epoch.
        epoch: ShownEpoch,
        /// The vnode that is missing; `None` when the epoch as a whole was not to be had.
        vnode: Option<u32>,
    },
    /// What was to be pruned includes the newest sealed epoch.
    #[error("pruning before {before} would delete the newest sealed epoch {latest}: ask for at most {latest}")]
    LatestSealed {
        /// The bound that was asked for.
        before: ShownEpoch,
        /// The newest sealed epoch.
        latest: ShownEpoch,
    },
}

/// The words of the rule itself.
fn out_of_range(epoch: u64, version: u64) -> EpochOutOfRange {
    EpochOutOfRange { epoch: Epoch::new(epoch), version: Version::new(version) }
}
