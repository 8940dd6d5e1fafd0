//! What a guard read says about a commit: whether the version that would seal an epoch still stands.

use crate::epoch::{Epoch, InstanceId, Version};
use crate::register::{FenceRecord, Reading, RegisterLost};

/// The body of a fence record, as far as the caller has read it.
#[derive(Debug, Clone, Copy)]
pub enum Standing<'a> {
    /// Not read yet.
    Unread,
    /// It is there, and no fence record can be made of it.
    Unreadable,
    /// Read.
    Record(&'a FenceRecord),
}

/// Who would commit, and as the leader of which version.
#[derive(Debug, Clone, Copy)]
pub struct Committer<'a> {
    /// The version that it leads with; [`Version::OFF`] when it uses no fence.
    pub version: Version,
    /// The name by which fence records know it.
    pub holder: &'a str,
    /// The highest values that this instance has seen before the request of the reading was sent.
    pub seen: Reading,
}

/// What a guard read says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// The fence is off, for this caller and in the bucket: the classic behaviour, without guards.
    Off,
    /// The version stands, and names this caller.
    Holds,
    /// The fence stands at the caller's version, and its record has to be read before anything else is decided.
    ReadRecord,
    /// A higher version stands: another leader has taken over.
    StaleVersion {
        /// The caller's version.
        caller: Version,
        /// The version that stands.
        authoritative: Version,
    },
    /// The caller's version is not durable yet.
    FenceNotReached {
        /// The caller's version.
        version: Version,
        /// The version that stands.
        fence: Version,
    },
    /// A register reads lower than it was seen.
    RegisterLost(RegisterLost),
    /// The caller's version belongs to another holder.
    FenceConflict {
        /// The version.
        version: Version,
        /// The holder in its record; `None` when the record cannot be read.
        holder: Option<InstanceId>,
    },
    /// The epoch lies below the floor.
    EpochPruned {
        /// The epoch.
        epoch: Epoch,
        /// The floor.
        floor: Epoch,
    },
}

/// Decides a guard read for a commit of `epoch`, or with `None` for the fence alone (a restore compares the floor by its own rules).
///
/// `standing` is the record of the caller's version; it matters only while the fence stands exactly there.
#[must_use]
pub fn guard(committer: &Committer<'_>, epoch: Option<Epoch>, reading: &Reading, standing: Standing<'_>) -> Guard {
    let Committer { version, holder, seen } = *committer;
    // A reading that fell says nothing about who leads, whichever way it fell, so this is asked first.
    if let Err(lost) = reading.check(&seen) {
        return Guard::RegisterLost(lost);
    }
    if reading.fence > version {
        return Guard::StaleVersion { caller: version, authoritative: reading.fence };
    }
    if version.is_off() {
        return Guard::Off;
    }
    if reading.fence < version {
        return Guard::FenceNotReached { version, fence: reading.fence };
    }
    match standing {
        Standing::Unread => return Guard::ReadRecord,
        Standing::Unreadable => return Guard::FenceConflict { version, holder: None },
        Standing::Record(record) if !record.names(holder) => {
            return Guard::FenceConflict { version, holder: Some(InstanceId::new(record.holder.clone())) };
        }
        Standing::Record(_) => {}
    }
    match epoch {
        Some(epoch) if epoch < reading.floor => Guard::EpochPruned { epoch, floor: reading.floor },
        _ => Guard::Holds,
    }
}

/// Whose seal it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealOwner {
    /// This instance wrote it.
    Ours,
    /// Another instance did. The text is its body, as far as it is text.
    Another(InstanceId),
}

/// Compares the body of a `_COMMIT` with the instance that would have written it.
#[must_use]
pub fn seal_owner(body: &[u8], instance: &InstanceId) -> SealOwner {
    if body == instance.as_str().as_bytes() {
        SealOwner::Ours
    } else {
        SealOwner::Another(InstanceId::new(String::from_utf8_lossy(body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::RegisterKind;

    fn record(holder: &str) -> FenceRecord {
        FenceRecord {
            version: Version::new(4),
            holder: holder.into(),
            lease: None,
            publisher: "operator".into(),
            published_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn reading(fence: u64, floor: u64) -> Reading {
        Reading { fence: Version::new(fence), floor: Epoch::new(floor), owner: 0 }
    }

    fn ask(version: u64, seen: Reading, read: Reading, standing: Standing<'_>) -> Guard {
        let committer = Committer { version: Version::new(version), holder: "a", seen };
        guard(&committer, Some(Epoch::new(10)), &read, standing)
    }

    #[test]
    fn a_commit_meets_the_fence() {
        let (ours, other) = (record("a"), record("b"));
        let version = Version::new(4);
        let none = Reading::default();
        let conflict = |holder: Option<&str>| Guard::FenceConflict { version, holder: holder.map(InstanceId::new) };
        let cases = [
            (4, none, reading(4, 0), Standing::Record(&ours), Guard::Holds),
            (4, none, reading(4, 0), Standing::Unread, Guard::ReadRecord),
            (4, none, reading(4, 0), Standing::Record(&other), conflict(Some("b"))),
            (4, none, reading(4, 0), Standing::Unreadable, conflict(None)),
            (
                4,
                none,
                reading(5, 0),
                Standing::Unread,
                Guard::StaleVersion { caller: version, authoritative: Version::new(5) },
            ),
            (4, none, reading(3, 0), Standing::Unread, Guard::FenceNotReached { version, fence: Version::new(3) }),
            (4, none, reading(0, 0), Standing::Unread, Guard::FenceNotReached { version, fence: Version::OFF }),
            (0, none, reading(0, 0), Standing::Unread, Guard::Off),
            (0, none, reading(0, 99), Standing::Unread, Guard::Off),
            (
                0,
                none,
                reading(1, 0),
                Standing::Unread,
                Guard::StaleVersion { caller: Version::OFF, authoritative: Version::new(1) },
            ),
        ];
        for (caller, seen, read, standing, expected) in cases {
            assert_eq!(ask(caller, seen, read, standing), expected, "v{caller} {read:?} {standing:?}");
        }
    }

    #[test]
    fn a_fence_that_was_seen_and_is_gone_is_lost_not_off() {
        for version in [0, 4] {
            let verdict = ask(version, reading(4, 0), reading(0, 0), Standing::Unread);
            assert!(
                matches!(verdict, Guard::RegisterLost(lost) if lost.register == RegisterKind::Fence),
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn a_floor_that_was_seen_and_is_gone_is_lost() {
        let ours = record("a");
        let verdict = ask(4, reading(4, 5), reading(4, 0), Standing::Record(&ours));
        assert!(matches!(verdict, Guard::RegisterLost(lost) if lost.register == RegisterKind::Floor), "{verdict:?}");
    }

    #[test]
    fn an_epoch_below_the_floor_cannot_be_sealed_and_the_floor_itself_can() {
        let ours = record("a");
        let none = Reading::default();
        assert_eq!(ask(4, none, reading(4, 10), Standing::Record(&ours)), Guard::Holds);
        assert_eq!(
            ask(4, none, reading(4, 11), Standing::Record(&ours)),
            Guard::EpochPruned { epoch: Epoch::new(10), floor: Epoch::new(11) }
        );
    }

    #[test]
    fn a_seal_is_ours_only_to_the_byte() {
        let us = InstanceId::new("pod-1");
        assert_eq!(seal_owner(b"pod-1", &us), SealOwner::Ours);
        for (body, committer) in [(&b"pod-10"[..], "pod-10"), (b"pod-1\n", "pod-1\n"), (b"", ""), (b"\xff", "\u{fffd}")]
        {
            assert_eq!(seal_owner(body, &us), SealOwner::Another(InstanceId::new(committer)));
        }
    }
}
