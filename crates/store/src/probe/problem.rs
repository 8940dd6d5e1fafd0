//! What a probe finds fault with.

use std::fmt;

use serde::Serialize;

/// A fault of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
pub enum ProblemKind {
    /// More than one of racing creates succeeded.
    OverwritesOnCreate,
    /// The store has no create-only writes.
    RefusesCreate,
    /// The create that succeeded is not what is read back.
    ReadsAnotherBack,
    /// A listing does not show what was just done.
    StaleList,
    /// A listing repeats itself without end.
    EndlessList,
    /// A listing of several pages lacks keys, or shows some twice.
    IncompleteList,
    /// No write is accepted, because of a lock or a retention of the bucket.
    RefusesWrites,
    /// A listing with a delimiter is wrong or has no end.
    NoDelimiter,
    /// Many keys cannot be deleted by one request.
    NoBulkDelete,
    /// The bucket keeps versions.
    Versioned,
    /// The bucket keeps objects under a lock or a retention.
    ObjectLock,
    /// The credentials do not suffice to delete.
    DeletesRefused,
    /// Keys of the probe are still there.
    LeftBehind,
}

impl ProblemKind {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::OverwritesOnCreate,
        Self::RefusesCreate,
        Self::ReadsAnotherBack,
        Self::StaleList,
        Self::EndlessList,
        Self::IncompleteList,
        Self::RefusesWrites,
        Self::NoDelimiter,
        Self::NoBulkDelete,
        Self::Versioned,
        Self::ObjectLock,
        Self::DeletesRefused,
        Self::LeftBehind,
    ];

    /// Whether nothing on such a store is safe. Otherwise it costs something, or a part does not work.
    #[must_use]
    pub const fn is_unsafe(self) -> bool {
        match self {
            Self::OverwritesOnCreate
            | Self::RefusesCreate
            | Self::ReadsAnotherBack
            | Self::StaleList
            | Self::EndlessList
            | Self::IncompleteList
            | Self::RefusesWrites => true,
            Self::NoDelimiter
            | Self::NoBulkDelete
            | Self::Versioned
            | Self::ObjectLock
            | Self::DeletesRefused
            | Self::LeftBehind => false,
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::OverwritesOnCreate | Self::RefusesCreate | Self::ReadsAnotherBack => {
                "use a store with conditional writes (If-None-Match), or a newer version of this one"
            }
            Self::StaleList => "use a store whose listing is strongly consistent, and no cache in front of it",
            Self::EndlessList | Self::IncompleteList => {
                "use a store that lists in pages as S3 does, or a newer version of this one"
            }
            Self::RefusesWrites => "use a bucket without a default retention",
            Self::NoDelimiter => {
                "nothing has to be done: every key is listed instead, which takes more LIST requests on a large root"
            }
            Self::NoBulkDelete => "nothing has to be done: keys are deleted one by one, which takes a request for each",
            Self::Versioned => {
                "let a lifecycle rule on the prefix of the epochs (epoch=), never on _epochwarden/, expire versions that are not current, \
                 or use a bucket without versions"
            }
            Self::ObjectLock => {
                "use a bucket without a lock, or expect prune to free nothing until the retention is over"
            }
            Self::DeletesRefused => "allow the credentials to delete below this root, or expect prune to fail",
            Self::LeftBehind => "delete what lies below _epochwarden/probe/ with the store's own tools",
        }
    }
}

/// One fault of the store that was probed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// What is wrong.
    pub kind: ProblemKind,
    /// Whether nothing on this store is safe because of it.
    #[serde(rename = "unsafe")]
    pub is_unsafe: bool,
    /// What was seen, and what it means.
    pub message: String,
    /// What to do.
    pub advice: &'static str,
}

impl Problem {
    pub(super) fn new(kind: ProblemKind, message: String) -> Self {
        Self { kind, is_unsafe: kind.is_unsafe(), message, advice: kind.advice() }
    }
}

impl fmt::Display for Problem {
    /// What was seen, what it means, and what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.message, self.advice)
    }
}
