//! From a leader's Lease to the version of the fence.
//!
//! A Lease says who leads; [`decide`] turns it into a version and says what that means for the fence in the bucket: publish, nothing to
//! do, or a refusal with its reason. Whatever is refused moves nothing: a fence cannot be lowered, so the doubtful case waits for a better
//! reading or for a person.
//!
//! Instants are durations since an origin of the caller's monotonic clock. Wall clocks, the Lease's own `renewTime` among them, are
//! never compared.

mod holder;
mod refusal;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::epoch::Version;
use crate::numbering::Numbering;
use crate::register::{FenceRecord, FenceStep, RegisterLost, fence_step};

pub use holder::BarePodName;
pub use refusal::{FenceRefusal, InvalidVersion};

/// The annotation of a Lease that declares the version of its holder, in [`VersionFrom::Annotation`].
pub const VERSION_ANNOTATION: &str = "epochwarden.io/assignment-version";

/// The furthest that one step may raise a fence which stands already.
pub const HIGHEST_JUMP: u64 = 1_000_000;

/// How long a Lease is taken to last that does not say so itself, where something has to come to an end: the patience with an old annotation
/// beside a new holder, the wait of a candidate.
pub(crate) const ASSUMED_DURATION: Duration = Duration::from_secs(15);

/// How a Lease becomes a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum VersionFrom {
    /// `spec.leaseTransitions` + 1, so that the first holder has 1 and never 0.
    #[default]
    LeaseTransitions,
    /// The annotation [`VERSION_ANNOTATION`], which the leader sets.
    Annotation,
    /// The highest fence + 1 for each new term: a Lease uid, a holder and a `leaseTransitions`. The leader waits until the fence names it.
    Assigned,
}

/// The ways in which a Lease gives its version by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declared {
    /// As [`VersionFrom::LeaseTransitions`].
    LeaseTransitions,
    /// As [`VersionFrom::Annotation`].
    Annotation,
}

/// Which Lease a version came from, as a fence record keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseIdentity {
    /// The namespace of the Lease.
    pub namespace: String,
    /// The name of the Lease.
    pub name: String,
    /// The uid of the Lease: another one was deleted and created again.
    pub uid: String,
    /// Its `spec.leaseTransitions`; 0 where it has none.
    pub transitions: i32,
}

/// What is kept of a Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseObservation {
    /// The namespace of the Lease.
    pub namespace: String,
    /// The name of the Lease.
    pub name: String,
    /// The uid of the Lease.
    pub uid: String,
    /// `spec.holderIdentity`; a released Lease has none, or an empty one.
    pub holder: Option<String>,
    /// `spec.leaseTransitions`.
    pub transitions: Option<i32>,
    /// `spec.leaseDurationSeconds`.
    pub duration: Option<Duration>,
    /// The annotation [`VERSION_ANNOTATION`].
    pub annotation: Option<String>,
    /// When the latest renewal arrived here (a change of `spec.renewTime`, or the first sight of the Lease), not when it was made.
    pub renewed: Duration,
    /// When this holder was first seen on this Lease.
    pub holder_since: Duration,
}

impl LeaseObservation {
    fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Who holds the Lease; an empty name is nobody.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        self.holder.as_deref().filter(|holder| !holder.is_empty())
    }
}

/// The Lease that a policy names, as it was last seen.
#[derive(Debug, Clone, Copy)]
pub enum LeaseSeen<'a> {
    /// It is there.
    Found(&'a LeaseObservation),
    /// There is none of this name.
    Missing {
        /// The namespace that was asked.
        namespace: &'a str,
        /// The name that the policy gives.
        name: &'a str,
    },
}

/// Whether a Lease is still being renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// The Lease names no duration: it promises no renewals, and never expires.
    Never,
    /// It expires at this instant, unless a renewal arrives before.
    At(Duration),
    /// No renewal arrived for its duration.
    Expired {
        /// How long none has arrived.
        silent: Duration,
    },
}

/// Whether a Lease is still being renewed at the monotonic instant `now`: it expires when no renewal *arrived* for its duration.
#[must_use]
pub fn expiry(lease: &LeaseObservation, now: Duration) -> Expiry {
    let silent = now.saturating_sub(lease.renewed);
    match lease.duration {
        None => Expiry::Never,
        Some(duration) if silent >= duration => Expiry::Expired { silent },
        Some(duration) => Expiry::At(lease.renewed.saturating_add(duration)),
    }
}

/// One term of leadership: what a fence record would say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The version of the term, 1..=2^53-1.
    pub version: Version,
    /// Who leads.
    pub holder: String,
    /// The Lease that says so.
    pub lease: LeaseIdentity,
}

impl Term {
    /// The term of `version` that a Lease names, a Lease without `leaseTransitions` counting as one that never changed hands.
    fn of(lease: &LeaseObservation, holder: &str, version: Version) -> Self {
        Self {
            version,
            holder: holder.to_owned(),
            lease: LeaseIdentity {
                namespace: lease.namespace.clone(),
                name: lease.name.clone(),
                uid: lease.uid.clone(),
                transitions: lease.transitions.unwrap_or(0),
            },
        }
    }

    /// Whether `record` was published for this very term: the same Lease, holder and `leaseTransitions`. One that names no Lease is no
    /// term's.
    fn has(&self, record: &FenceRecord) -> bool {
        record.names(&self.holder)
            && record.lease.as_ref().is_some_and(|recorded| {
                recorded.uid == self.lease.uid && recorded.transitions == self.lease.transitions
            })
    }
}

/// The version that a Lease gives by itself.
fn declared(lease: &LeaseObservation, from: Declared, numbering: Numbering) -> Result<Version, FenceRefusal> {
    let version = match from {
        Declared::LeaseTransitions => from_transitions(lease.transitions.unwrap_or(0)),
        Declared::Annotation => from_annotation(lease.annotation.as_deref()),
    };
    version.and_then(|version| possible(version, numbering)).map_err(|(text, why)| FenceRefusal::InvalidVersion {
        lease: lease.key(),
        text,
        why,
    })
}

fn possible(version: Version, numbering: Numbering) -> Result<Version, (String, InvalidVersion)> {
    match numbering.check_version(version) {
        Ok(()) => Ok(version),
        Err(out_of_range) => Err((version.to_string(), InvalidVersion::OutOfRange(out_of_range))),
    }
}

fn from_transitions(transitions: i32) -> Result<Version, (String, InvalidVersion)> {
    u64::try_from(transitions)
        .map(|transitions| Version::new(transitions + 1))
        .map_err(|_| (transitions.to_string(), InvalidVersion::NegativeTransitions))
}

fn from_annotation(text: Option<&str>) -> Result<Version, (String, InvalidVersion)> {
    let text = text.ok_or_else(|| (String::new(), InvalidVersion::NoAnnotation))?;
    text.parse::<Version>()
        .ok()
        .filter(|version| version.is_valid())
        .ok_or_else(|| (text.to_owned(), InvalidVersion::MalformedAnnotation))
}

/// The record of the highest fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordSeen {
    /// It was not read: only its name is known.
    Unread,
    /// It was read, and its body does not parse.
    Unreadable,
    /// What it says.
    Read(FenceRecord),
}

/// The fence in the bucket, as it was last read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FenceSeen {
    /// The highest version that stands; [`Version::OFF`] when there is none.
    pub highest: Version,
    /// The record of that version.
    pub record: RecordSeen,
    /// Set where the reading was lower than what was seen before.
    pub lost: Option<RegisterLost>,
}

/// What a Lease means for the fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FenceDecision {
    /// Make this term durable.
    Publish(Term),
    /// The fence stands for this very term: nothing to do.
    Current(Term),
    /// A record of this version stands and was not read: read it, and decide again.
    ReadRecord(Term),
    /// The annotation still says the version of another holder, as it does for a moment at fail-over: decide again then.
    AwaitingAnnotation {
        /// The term that the Lease names for now.
        term: Term,
        /// The monotonic instant from which on it is a conflict.
        until: Duration,
    },
    /// The fence must not move.
    Refused(FenceRefusal),
}

impl FenceDecision {
    /// The reason of the condition `FenceCurrent`, for as long as nothing else is known.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Current(_) => "Published",
            Self::Publish(_) | Self::ReadRecord(_) | Self::AwaitingAnnotation { .. } => "Pending",
            Self::Refused(refusal) => refusal.reason(),
        }
    }
}

/// Decides what a Lease means for the fence at the monotonic instant `now`.
///
/// Read the Lease again right before acting on [`FenceDecision::Publish`]: an observation may be old. Decide again when the Lease or the
/// fence changes, at the instant that [`expiry`] gives, and at the one that [`FenceDecision::AwaitingAnnotation`] gives.
///
/// With [`VersionFrom::Assigned`] the order of the readings counts as well: the fence is listed first, then the Lease is read, and then
/// exactly the version of [`FenceDecision::Publish`] is created. A record that is there already means that the listing is out of date:
/// begin again with it. So whoever creates the next version has read a Lease that is newer than every term below it.
#[must_use]
pub fn decide(
    lease: LeaseSeen<'_>,
    from: VersionFrom,
    numbering: Numbering,
    fence: &FenceSeen,
    now: Duration,
) -> FenceDecision {
    consider(lease, from, numbering, fence, now).unwrap_or_else(FenceDecision::Refused)
}

fn consider(
    lease: LeaseSeen<'_>,
    from: VersionFrom,
    numbering: Numbering,
    fence: &FenceSeen,
    now: Duration,
) -> Result<FenceDecision, FenceRefusal> {
    // A lost register comes first: no Lease is a reason to write below what once stood.
    if let Some(lost) = fence.lost {
        return Err(lost.into());
    }
    let lease = match lease {
        LeaseSeen::Found(lease) => lease,
        LeaseSeen::Missing { namespace, name } => {
            return Err(FenceRefusal::LeaseNotFound { lease: format!("{namespace}/{name}") });
        }
    };
    let holder = lease.holder().ok_or_else(|| FenceRefusal::NoHolder { lease: lease.key() })?;
    if let Expiry::Expired { silent } = expiry(lease, now) {
        return Err(FenceRefusal::LeaseExpired { lease: lease.key(), holder: holder.to_owned(), silent });
    }
    let from = match from {
        VersionFrom::Assigned => return assign(lease, holder, numbering, fence),
        VersionFrom::LeaseTransitions => Declared::LeaseTransitions,
        VersionFrom::Annotation => Declared::Annotation,
    };
    let version = declared(lease, from, numbering)?;
    let term = Term::of(lease, holder, version);
    match fence_step(version, fence.highest) {
        FenceStep::Superseded { by } => {
            Err(FenceRefusal::LeaseRegressed { lease: lease.key(), from, version, fence: by })
        }
        FenceStep::Create if !fence.highest.is_off() && version.get() - fence.highest.get() > HIGHEST_JUMP => {
            Err(FenceRefusal::VersionJump { lease: lease.key(), fence: fence.highest, version })
        }
        FenceStep::Create => Ok(FenceDecision::Publish(term)),
        FenceStep::Compare => compare(lease, from, &fence.record, term, now),
    }
}

/// A term has the version of its record; a new one gets the next version, whatever stands.
///
/// A record that cannot be read may be of this term: then it gets a second version, and the first leads nowhere, because no leader finds
/// its own name in it.
fn assign(
    lease: &LeaseObservation,
    holder: &str,
    numbering: Numbering,
    fence: &FenceSeen,
) -> Result<FenceDecision, FenceRefusal> {
    let standing = Term::of(lease, holder, fence.highest);
    match &fence.record {
        _ if fence.highest.is_off() => {}
        RecordSeen::Unread => return Ok(FenceDecision::ReadRecord(standing)),
        RecordSeen::Read(record) if standing.has(record) => return Ok(FenceDecision::Current(standing)),
        RecordSeen::Read(_) | RecordSeen::Unreadable => {}
    }
    // Above the highest number there is none, and that is out of every range, too.
    let next = Version::new(fence.highest.get().saturating_add(1));
    match possible(next, numbering) {
        Ok(version) => Ok(FenceDecision::Publish(Term { version, ..standing })),
        Err((text, why)) => Err(FenceRefusal::InvalidVersion { lease: lease.key(), text, why }),
    }
}

/// The fence stands at the version of this term: is it this term's?
fn compare(
    lease: &LeaseObservation,
    from: Declared,
    record: &RecordSeen,
    term: Term,
    now: Duration,
) -> Result<FenceDecision, FenceRefusal> {
    let recorded_holder = match record {
        RecordSeen::Unread => return Ok(FenceDecision::ReadRecord(term)),
        RecordSeen::Read(record) if record.is_of(&term.holder, Some(&term.lease)) => {
            return Ok(FenceDecision::Current(term));
        }
        RecordSeen::Read(record) => Some(record.holder.clone()),
        RecordSeen::Unreadable => None,
    };
    let until = lease.holder_since.saturating_add(lease.duration.unwrap_or(ASSUMED_DURATION));
    if from == Declared::Annotation && now < until {
        return Ok(FenceDecision::AwaitingAnnotation { term, until });
    }
    let version = term.version;
    Err(FenceRefusal::FenceConflict { lease: lease.key(), from, version, recorded_holder, holder: term.holder })
}
