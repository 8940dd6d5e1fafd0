//! The findings as data: which rule failed, and on what. Their words are made from nothing else.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::committer::{LONGEST_MARKER, Malformed};
use super::{Finding, FindingKind, Severity};
use crate::duration::format_duration;
use crate::epoch::{Epoch, Version, Vnode};
use crate::key;
use crate::numbering::Numbering;
use crate::register::RegisterKind;

/// So much of a text from the bucket is quoted.
const QUOTED: usize = 120;

/// One failed rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    SealedIncomplete { epoch: Epoch, sealed: Timestamp, vnodes: u32, missing: u32, first: Vec<Vnode> },
    LateWrite { epoch: Epoch, vnode: Vnode, written: Timestamp, sealed: Timestamp },
    MalformedMarker { epoch: Epoch, why: Malformed },
    EpochRegression { regression: Regression, stalled: bool },
    UnknownCommitter { epoch: Epoch, committer: String },
    ContestedSeal { epoch: Epoch, version: Version, sealed: Timestamp, by: Version, since: Timestamp },
    VnodeOutOfRange { epoch: Epoch, count: u64, first: Vnode, vnodes: u32 },
    StalledSealing { first: Epoch, unsealed: u64, newest: Option<Epoch>, since: Timestamp, stalled_after: Duration },
    Leak { epoch: Epoch, floor: Epoch, objects: u64, bytes: u64 },
    UnaddressableKey { epoch: Epoch, key: String },
    UnreadableRegister { register: RegisterKind, number: u64 },
    ForeignKey { count: u64, examples: Vec<String> },
}

/// Numbering that restarted: something lower than the newest sealed epoch came later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Regression {
    /// The lower epoch.
    pub(super) epoch: Epoch,
    /// When its seal, or where it is not about a seal its newest object, was written.
    pub(super) at: Timestamp,
    /// How many lower epochs were sealed late. 0: this one was written to, and prune would have deleted it.
    pub(super) sealed_late: u64,
    /// The newest sealed epoch.
    pub(super) newest: Epoch,
    /// When that was sealed.
    pub(super) newest_sealed: Timestamp,
    /// Whether prune holds because of it.
    pub(super) holds_prune: bool,
}

/// Where a finding stands in the list: what is worse first, then what concerns the whole root, then what a restore would want.
pub(super) type Rank = (Severity, bool, std::cmp::Reverse<Option<Epoch>>, FindingKind, Option<(RegisterKind, u64)>);

impl Problem {
    pub(super) const fn kind(&self) -> FindingKind {
        match self {
            Self::SealedIncomplete { .. } => FindingKind::SealedIncomplete,
            Self::LateWrite { .. } => FindingKind::LateWrite,
            Self::MalformedMarker { .. } => FindingKind::MalformedMarker,
            Self::EpochRegression { .. } => FindingKind::EpochRegression,
            Self::UnknownCommitter { .. } => FindingKind::UnknownCommitter,
            Self::ContestedSeal { .. } => FindingKind::ContestedSeal,
            Self::VnodeOutOfRange { .. } => FindingKind::VnodeOutOfRange,
            Self::StalledSealing { .. } => FindingKind::StalledSealing,
            Self::Leak { .. } => FindingKind::Leak,
            Self::UnaddressableKey { .. } => FindingKind::UnaddressableKey,
            Self::UnreadableRegister { .. } => FindingKind::UnreadableRegister,
            Self::ForeignKey { .. } => FindingKind::ForeignKey,
        }
    }

    pub(super) const fn severity(&self) -> Severity {
        match self {
            Self::SealedIncomplete { .. }
            | Self::LateWrite { .. }
            | Self::MalformedMarker { .. }
            | Self::EpochRegression { stalled: true, .. } => Severity::Critical,
            Self::EpochRegression { stalled: false, .. }
            | Self::UnknownCommitter { .. }
            | Self::ContestedSeal { .. }
            | Self::VnodeOutOfRange { .. }
            | Self::StalledSealing { .. }
            | Self::Leak { .. }
            | Self::UnaddressableKey { .. }
            | Self::UnreadableRegister { .. } => Severity::Warning,
            Self::ForeignKey { .. } => Severity::Info,
        }
    }

    /// How many there are of it: one, but where one finding stands for all.
    pub(super) fn count(&self) -> u64 {
        match self {
            Self::ForeignKey { count, .. } => *count,
            Self::EpochRegression { regression, .. } => regression.sealed_late.max(1),
            _ => 1,
        }
    }

    pub(super) const fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::SealedIncomplete { epoch, .. }
            | Self::LateWrite { epoch, .. }
            | Self::MalformedMarker { epoch, .. }
            | Self::EpochRegression { regression: Regression { epoch, .. }, .. }
            | Self::UnknownCommitter { epoch, .. }
            | Self::ContestedSeal { epoch, .. }
            | Self::VnodeOutOfRange { epoch, .. }
            | Self::StalledSealing { first: epoch, .. }
            | Self::Leak { epoch, .. }
            | Self::UnaddressableKey { epoch, .. } => Some(*epoch),
            Self::UnreadableRegister { .. } | Self::ForeignKey { .. } => None,
        }
    }

    fn vnode(&self) -> Option<Vnode> {
        match self {
            Self::SealedIncomplete { first, .. } => first.first().copied(),
            Self::LateWrite { vnode, .. } | Self::VnodeOutOfRange { first: vnode, .. } => Some(*vnode),
            _ => None,
        }
    }

    pub(super) fn rank(&self) -> Rank {
        let of_one_epoch = !matches!(
            self,
            Self::EpochRegression { .. }
                | Self::StalledSealing { .. }
                | Self::UnreadableRegister { .. }
                | Self::ForeignKey { .. }
        );
        let record = match self {
            Self::UnreadableRegister { register, number } => Some((*register, *number)),
            _ => None,
        };
        (self.severity(), of_one_epoch, std::cmp::Reverse(self.epoch()), self.kind(), record)
    }

    /// The finding in which it is told, with epochs as `numbering` writes them.
    pub(super) fn into_finding(self, numbering: Numbering) -> Finding {
        Finding {
            kind: self.kind(),
            severity: self.severity(),
            epoch: self.epoch().map(|epoch| numbering.show(epoch)),
            vnode: self.vnode(),
            detail: Words { problem: &self, numbering }.to_string(),
        }
    }
}

/// A problem, with epochs as a numbering writes them.
struct Words<'a> {
    problem: &'a Problem,
    numbering: Numbering,
}

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |epoch: &Epoch| self.numbering.show(*epoch);
        match self.problem {
            Problem::SealedIncomplete { epoch, sealed, vnodes, missing, first } => {
                write!(f, "sealed at {sealed}, but {missing} of {vnodes} vnodes have no partial.bin: ")?;
                list(f, first.iter(), u64::from(*missing))?;
                write!(
                    f,
                    "; epoch {} cannot be restored: restore another one, find out who deleted these objects, and if the pipeline \
                     never had {vnodes} vnodes, correct that number",
                    show(epoch)
                )
            }
            Problem::LateWrite { epoch, vnode, written, sealed } => write!(
                f,
                "vnode {vnode}'s partial.bin was written at {written}, after the seal at {sealed}: epoch {} may mix two states; \
                 restore another one, and find the worker that wrote without the fence",
                show(epoch)
            ),
            Problem::MalformedMarker { epoch, why } => {
                write!(f, "the body of {} ", key::commit(*epoch))?;
                match why {
                    Malformed::Empty => f.write_str("is empty")?,
                    Malformed::TooLong { size } => write!(f, "has {size} bytes, more than {LONGEST_MARKER}")?,
                    Malformed::NotUtf8 => f.write_str("is not UTF-8")?,
                }
                f.write_str(": no leader writes that; find out who sealed it, and restore another epoch until then")
            }
            Problem::EpochRegression { regression, .. } => regression.words(f, self.numbering),
            Problem::UnknownCommitter { epoch, committer } => write!(
                f,
                "epoch {} was sealed by {}, which no fence record names: a process that never led, or one whose instance id is not \
                 the name in its Lease; look where it runs",
                show(epoch),
                Quoted(committer)
            ),
            Problem::ContestedSeal { epoch, version, sealed, by, since } => write!(
                f,
                "epoch {} of version {version} was sealed at {sealed}, after the fence had stood at {by} since {since}: it was not \
                 acknowledged, and nothing is lost; its leader was paused or cut off, so look where it ran",
                show(epoch)
            ),
            Problem::VnodeOutOfRange { count, first, vnodes, .. } => write!(
                f,
                "{count} partial.bin of vnodes from {first} on, where {vnodes} vnodes end below {vnodes}: a restore would leave them out; \
                 correct the number of vnodes, or the writer"
            ),
            Problem::StalledSealing { unsealed, newest, since, stalled_after, .. } => {
                match newest {
                    Some(newest) => write!(f, "no epoch was sealed since {} at {since}", show(newest))?,
                    None => write!(f, "no epoch was ever sealed, and the first of them was last written at {since}")?,
                }
                let (noun, are) = if *unsealed == 1 { ("epoch", "is") } else { ("epochs", "are") };
                write!(
                    f,
                    ", more than {} ago, while {unsealed} newer {noun} {are} written: see whether the leader commits, and \
                     whether the fence refuses it",
                    format_duration(*stalled_after)
                )
            }
            Problem::Leak { epoch, floor, objects, bytes } => write!(
                f,
                "epoch {} is unsealed below the floor {}, and no rule keeps its {objects} objects of {bytes} bytes: the next prune \
                 removes them",
                show(epoch),
                show(floor)
            ),
            Problem::UnaddressableKey { epoch, key } => write!(
                f,
                "epoch {} holds {}, which cannot be deleted by that name (a folder marker?): prune holds this epoch; remove the \
                 object with the store's own tools",
                show(epoch),
                Quoted(key)
            ),
            Problem::UnreadableRegister { register, number } => write!(
                f,
                "{} is no {register} record: its number counts, what it says is lost; find out who wrote it, and leave it where it is",
                key::register(*register, *number)
            ),
            Problem::ForeignKey { count, examples } => {
                let (noun, is) = if *count == 1 { ("key", "is") } else { ("keys", "are") };
                write!(f, "{count} {noun} outside the layout {is} left alone: ")?;
                list(f, examples.iter().map(|key| Quoted(key)), *count)?;
                f.write_str("; move what belongs elsewhere out of this root")
            }
        }
    }
}

impl Regression {
    fn words(&self, f: &mut fmt::Formatter<'_>, numbering: Numbering) -> fmt::Result {
        let Self { at, sealed_late, newest_sealed, holds_prune, .. } = self;
        let (epoch, newest) = (numbering.show(self.epoch), numbering.show(self.newest));
        match sealed_late {
            0 => write!(f, "epoch {epoch} was written to at {at}")?,
            1 => write!(f, "epoch {epoch} was sealed at {at}")?,
            more => write!(f, "{more} lower epochs, the last of them {epoch} at {at}, were sealed")?,
        }
        write!(f, " after the newest sealed epoch {newest} was sealed at {newest_sealed}")?;
        if *holds_prune {
            f.write_str(", and prune holds")?;
        }
        write!(
            f,
            ": a late straggler clears with the next seal; if the numbering restarted, epoch {newest} is not the latest state: let the \
             pipeline continue above it, or use a new root"
        )
    }
}

/// Writes the first of `count` things.
fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, first: impl Iterator<Item = T>, count: u64) -> fmt::Result {
    let mut shown = 0;
    for item in first {
        if shown > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{item}")?;
        shown += 1;
    }
    if count > shown {
        f.write_str(", …")?;
    }
    Ok(())
}

/// A text from the bucket: in quotes, on one line, and not longer than a reader can bear.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(QUOTED) {
            Some((end, _)) => write!(f, "{:?}…", self.0.get(..end).unwrap_or_default()),
            None => write!(f, "{:?}", self.0),
        }
    }
}
