//! What an audit finds: whether every sealed epoch is whole, and was sealed by a leader.
//!
//! An audit is pure: the caller reads, and hands in what it read. [`Draft`] folds the listing, the plan and the registers' records, and
//! names the seals whose bodies it cannot do without. [`SecondLook`] then asks for every epoch that looks critical to be listed once
//! more, because a prune or a commit may have been under way during the first listing. [`Audit`] is the result.
//!
//! Ages between objects are differences of the store's times. The wall clock is an argument, and only says for how long nothing was
//! sealed: it raises findings and decides nothing else.

mod collect;
mod committer;
mod draft;
mod evidence;
mod problem;
mod second_look;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::epoch::Vnode;
use crate::inventory::Sealing;
use crate::numbering::{Numbering, ShownEpoch};

pub use committer::{LONGEST_MARKER, committer_of};
pub use draft::{AuditContext, Draft};
pub use evidence::{Evidence, FenceEvidence, Floors};
pub use second_look::SecondLook;

/// At most this many findings are listed; the rest is counted.
pub const MAX_FINDINGS: usize = 20;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Someone has to act: state may be lost, or is not what it says it is.
    Critical,
    /// Someone should look: nothing is lost, and something is not as it should be.
    Warning,
    /// Worth knowing.
    Info,
}

impl Severity {
    /// Its name, as reports and metrics show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// A sealed epoch lacks the partial of a vnode.
    SealedIncomplete,
    /// A partial was written after its epoch was sealed.
    LateWrite,
    /// The body of a seal names no committer.
    MalformedMarker,
    /// Lower epochs are written or sealed after a higher one was sealed.
    EpochRegression,
    /// The committer of a seal is not among the recorded holders of the fence.
    UnknownCommitter,
    /// An epoch of a version was sealed after the fence had passed that version.
    ContestedSeal,
    /// A partial's vnode is not below the number of vnodes.
    VnodeOutOfRange,
    /// Epochs are written, and none was sealed for a while.
    StalledSealing,
    /// An unsealed epoch below the floor that no rule keeps.
    Leak,
    /// An epoch holds a key that cannot be deleted by its name.
    UnaddressableKey,
    /// The body of a register's record does not parse.
    UnreadableRegister,
    /// Keys outside the layout.
    ForeignKey,
}

impl FindingKind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::SealedIncomplete,
        Self::LateWrite,
        Self::MalformedMarker,
        Self::EpochRegression,
        Self::UnknownCommitter,
        Self::ContestedSeal,
        Self::VnodeOutOfRange,
        Self::StalledSealing,
        Self::Leak,
        Self::UnaddressableKey,
        Self::UnreadableRegister,
        Self::ForeignKey,
    ];

    /// Its name, as reports, conditions and metrics show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SealedIncomplete => "SealedIncomplete",
            Self::LateWrite => "LateWrite",
            Self::MalformedMarker => "MalformedMarker",
            Self::EpochRegression => "EpochRegression",
            Self::UnknownCommitter => "UnknownCommitter",
            Self::ContestedSeal => "ContestedSeal",
            Self::VnodeOutOfRange => "VnodeOutOfRange",
            Self::StalledSealing => "StalledSealing",
            Self::Leak => "Leak",
            Self::UnaddressableKey => "UnaddressableKey",
            Self::UnreadableRegister => "UnreadableRegister",
            Self::ForeignKey => "ForeignKey",
        }
    }
}

/// The audit in one word: the worst severity found. An info is no blemish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Nothing worse than an info.
    Clean,
    /// Nothing worse than a warning.
    Warning,
    /// At least one critical finding that a second look confirmed.
    Critical,
}

impl Verdict {
    /// Its name, as reports and conditions show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clean => "Clean",
            Self::Warning => "Warning",
            Self::Critical => "Critical",
        }
    }
}

/// Displays and serialises as its name, so that no reader meets a second vocabulary.
macro_rules! named {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    )*};
}
named!(Severity, FindingKind, Verdict);

/// One thing that an audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What is wrong.
    pub kind: FindingKind,
    /// How bad it is.
    pub severity: Severity,
    /// The epoch it is about, unless it is about the whole root.
    pub epoch: Option<ShownEpoch>,
    /// The first vnode it is about, where it is about vnodes.
    pub vnode: Option<Vnode>,
    /// What, on which objects, and what to do.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.severity, self.kind)?;
        if let Some(epoch) = self.epoch {
            write!(f, " epoch {epoch}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// Whether a pipeline writes epochs and has sealed none for `stalled_after`: the finding of an audit, told from an index alone. The wall
/// clock `now` is compared with the store's time of the newest seal.
#[must_use]
pub fn stalled_sealing(
    sealing: &Sealing,
    numbering: Numbering,
    now: Timestamp,
    stalled_after: Duration,
) -> Option<Finding> {
    draft::stalled_sealing(sealing, now, stalled_after).map(|problem| problem.into_finding(numbering))
}

/// What an audit looked at. Its text is the sentence that a status shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Coverage {
    /// Epochs listed.
    pub epochs: u64,
    /// Of these, sealed.
    pub sealed: u64,
    /// Objects listed below these epochs.
    pub objects: u64,
    /// Seals whose bodies were fetched; the others were known by `ETag` and size, or malformed by their size alone.
    pub markers_read: u64,
    /// Records of the registers that were looked at.
    pub records_read: u64,
    /// Epochs that were listed a second time.
    pub looked_again: u64,
    /// Epochs that looked critical and were not listed a second time, because the list of findings was full. They are not in the counts.
    pub unconfirmed: u64,
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epochs, objects, markers_read, unconfirmed, .. } = *self;
        let markers = Count(markers_read, "marker", "markers");
        write!(f, "{}, {}, {markers} read", Count(epochs, "epoch", "epochs"), Count(objects, "object", "objects"))?;
        if unconfirmed > 0 {
            write!(f, "; {} looked critical", Count(unconfirmed, "more epoch", "more epochs"))?;
        }
        Ok(())
    }
}

/// What an audit says in the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// The audit in one word.
    pub verdict: Verdict,
    /// What was looked at.
    pub coverage: Coverage,
    /// How many findings there are of each kind that occurred, also those beyond [`MAX_FINDINGS`]. Of [`FindingKind::ForeignKey`] the
    /// keys are counted, and of [`FindingKind::EpochRegression`] the epochs.
    pub counts: BTreeMap<FindingKind, u64>,
    /// Up to [`MAX_FINDINGS`]: critical ones first, then those of the whole root, then the highest epoch first.
    pub findings: Vec<Finding>,
    /// Whether there is more than `findings` shows.
    pub truncated: bool,
    /// The committer of the newest sealed epoch, where its marker names one.
    pub latest_committer: Option<String>,
}

/// A number with its noun.
struct Count(u64, &'static str, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number, one, many) = *self;
        let digits = number.to_string();
        if digits.len() <= 4 {
            f.write_str(&digits)?;
        } else {
            for (position, digit) in digits.chars().enumerate() {
                if position > 0 && (digits.len() - position).is_multiple_of(3) {
                    f.write_str(",")?;
                }
                write!(f, "{digit}")?;
            }
        }
        write!(f, " {}", if number == 1 { one } else { many })
    }
}
