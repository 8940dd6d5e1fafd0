//! Why an epoch is kept or deleted, and why a plan waits: the one vocabulary of status, metrics, Events and command line.

use std::fmt;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::numbering::ShownEpoch;

/// Why an epoch is kept, in the order in which reasons are looked for: an epoch has the first one that holds. An unaddressable key comes
/// last, since it holds back an epoch that would be deleted otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeepReason {
    /// The retention has none of keepLast, keepWithin and keepEvery: the whole root is kept.
    KeepsEverything,
    /// No sealed epoch is complete: the whole root is kept.
    NoneComplete,
    /// The newest sealed epoch.
    Latest,
    /// The newest sealed epoch that has the partials of all vnodes.
    NewestComplete,
    /// A person wants it.
    Pinned,
    /// Among the newest sealed epochs.
    KeepLast,
    /// Sealed not long before the newest seal.
    KeepWithin,
    /// The newest seal of a window.
    KeepEvery,
    /// It has a young object, or nothing above it has been sealed for long: someone may be restoring it.
    TooYoung,
    /// A kept epoch may be made of changes to it.
    IncrementalBase,
    /// It may be in flight.
    Unsealed,
    /// It holds a key that cannot be deleted by its name.
    UnaddressableKey,
}

impl KeepReason {
    /// The reason's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KeepsEverything => "KeepsEverything",
            Self::NoneComplete => "NoneComplete",
            Self::Latest => "Latest",
            Self::NewestComplete => "NewestComplete",
            Self::Pinned => "Pinned",
            Self::KeepLast => "KeepLast",
            Self::KeepWithin => "KeepWithin",
            Self::KeepEvery => "KeepEvery",
            Self::TooYoung => "TooYoung",
            Self::IncrementalBase => "IncrementalBase",
            Self::Unsealed => "Unsealed",
            Self::UnaddressableKey => "UnaddressableKey",
        }
    }
}

/// Why an epoch is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeleteReason {
    /// Sealed, and no rule keeps it.
    Expired,
    /// Never sealed, and nothing will seal it any more.
    Abandoned,
}

impl DeleteReason {
    /// The reason's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "Expired",
            Self::Abandoned => "Abandoned",
        }
    }
}

/// What becomes of an epoch, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "action", content = "reason", rename_all = "camelCase")]
pub enum Decision {
    /// It stays.
    Keep(KeepReason),
    /// It goes.
    Delete(DeleteReason),
}

impl Decision {
    /// The reason's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keep(reason) => reason.as_str(),
            Self::Delete(reason) => reason.as_str(),
        }
    }

    /// Whether the epoch goes.
    #[must_use]
    pub const fn is_delete(self) -> bool {
        matches!(self, Self::Delete(_))
    }
}

/// Why nothing of a plan may be executed for now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all_fields = "camelCase")]
pub enum Hold {
    /// The root holds the marks of a layout that is newer than this program.
    UnknownLayout {
        /// The first such key.
        key: String,
    },
    /// An epoch that would be deleted was written to after the newest seal: the numbering may have restarted below it.
    EpochRegression {
        /// The epoch with the newest such object.
        epoch: ShownEpoch,
        /// When that was written, by the store's clock.
        modified: Timestamp,
        /// The newest sealed epoch.
        newest_sealed: ShownEpoch,
        /// When it was sealed, by the store's clock.
        sealed_at: Timestamp,
    },
}

impl Hold {
    /// The reason's word.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::UnknownLayout { .. } => "UnknownLayout",
            Self::EpochRegression { .. } => "EpochRegression",
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownLayout { key } => write!(
                f,
                "{key} belongs to a layout newer than this program: nothing of this root is touched; upgrade Epochwarden, or point the \
                 policy at another root"
            ),
            Self::EpochRegression { epoch, modified, newest_sealed, sealed_at } => write!(
                f,
                "epoch {epoch} would be deleted, but was written to at {modified}, after the newest sealed epoch {newest_sealed} was \
                 sealed at {sealed_at}: the numbering may have restarted; a straggler clears with the next seal, otherwise move the \
                 epochs of the old numbering away or let the pipeline go on above {newest_sealed}"
            ),
        }
    }
}

macro_rules! word {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    )*};
}

word!(KeepReason, DeleteReason, Decision);

impl Serialize for KeepReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Serialize for DeleteReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
