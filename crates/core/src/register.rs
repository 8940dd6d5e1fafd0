//! Fence, floor and owner: max registers made of create-only objects whose names are numbers.
//!
//! The value of a register is the highest name in its folder. It only rises, whoever writes and in whatever order, so it needs nothing
//! but put-if-absent and a strongly consistent listing.

mod owner;

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::owner::{Claim, OwnerRecord, Ownership, Refusal, Word};
use crate::epoch::{Epoch, Version};
use crate::lease::LeaseIdentity;

/// Which register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RegisterKind {
    /// The highest assignment version that was made durable.
    Fence,
    /// No epoch below this one may be sealed any more.
    Floor,
    /// Which policy writes to this root.
    Owner,
}

impl RegisterKind {
    /// All registers.
    pub const ALL: [Self; 3] = [Self::Fence, Self::Floor, Self::Owner];

    /// The name of its folder.
    #[must_use]
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Fence => "fence",
            Self::Floor => "floor",
            Self::Owner => "owner",
        }
    }

    /// How many of the newest records stay when its publisher trims.
    #[must_use]
    pub const fn records_kept(self) -> usize {
        match self {
            Self::Fence => 256,
            Self::Floor | Self::Owner => 16,
        }
    }
}

impl fmt::Display for RegisterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.folder())
    }
}

/// The body of a fence record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FenceRecord {
    /// The version, as in the record's name.
    pub version: Version,
    /// The identity of the leader.
    pub holder: String,
    /// The Lease that the version came from, where one is known.
    pub lease: Option<LeaseIdentity>,
    /// Who wrote this record.
    pub publisher: String,
    /// When, by the publisher's clock: evidence for people, compared with nothing.
    pub published_at: Timestamp,
}

/// The body of a floor record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FloorRecord {
    /// No epoch below this one may be sealed; as in the record's name.
    pub before: Epoch,
    /// The uid of the policy, where one pruned.
    pub policy: Option<String>,
    /// The digest of the plan, where there was one.
    pub plan_digest: Option<String>,
    /// Who wrote this record.
    pub publisher: String,
    /// When, by the publisher's clock: evidence for people, compared with nothing.
    pub published_at: Timestamp,
}

/// The values of the three registers, as one listing showed them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// The fence; [`Version::OFF`] when there is no record.
    pub fence: Version,
    /// The floor; [`Epoch::ZERO`] when there is no record.
    pub floor: Epoch,
    /// The number of the highest owner record; 0 when there is none.
    pub owner: u64,
}

impl Reading {
    /// Counts one record.
    pub fn observe(&mut self, kind: RegisterKind, number: u64) {
        match kind {
            RegisterKind::Fence => self.fence = self.fence.max(Version::new(number)),
            RegisterKind::Floor => self.floor = self.floor.max(Epoch::new(number)),
            RegisterKind::Owner => self.owner = self.owner.max(number),
        }
    }

    /// The value of one register.
    #[must_use]
    pub const fn value(&self, kind: RegisterKind) -> u64 {
        match kind {
            RegisterKind::Fence => self.fence.get(),
            RegisterKind::Floor => self.floor.get(),
            RegisterKind::Owner => self.owner,
        }
    }

    /// The highest of both, register by register: what was seen when both were read.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            fence: self.fence.max(other.fence),
            floor: self.floor.max(other.floor),
            owner: self.owner.max(other.owner),
        }
    }

    /// Refuses a reading below what was `seen` before its request was sent: a register never falls, so a record was lost.
    pub fn check(&self, seen: &Self) -> Result<(), RegisterLost> {
        for register in RegisterKind::ALL {
            let (seen, found) = (seen.value(register), self.value(register));
            if found < seen {
                return Err(RegisterLost { register, seen, found });
            }
        }
        Ok(())
    }
}

/// A register reads lower than a value that was seen before: its records were deleted, or the bucket was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the {register} register reads {found}, but {seen} was seen before: records below {REGISTERS}/{register}/ were deleted or the \
     bucket was replaced; restore them, or find out who removed them, before anything is written",
    REGISTERS = crate::key::REGISTERS
)]
pub struct RegisterLost {
    /// Which register.
    pub register: RegisterKind,
    /// The value that was seen before.
    pub seen: u64,
    /// What the listing shows now.
    pub found: u64,
}

/// What publishing a fence needs next, once the highest record is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceStep {
    /// A higher version stands: nothing is written.
    Superseded {
        /// The version that stands.
        by: Version,
    },
    /// A record of this version stands: read it and ask [`FenceRecord::is_of`].
    Compare,
    /// Create the record.
    Create,
}

/// What publishing the fence `version` needs when the highest record is `highest`.
#[must_use]
pub fn fence_step(version: Version, highest: Version) -> FenceStep {
    match highest.cmp(&version) {
        std::cmp::Ordering::Greater => FenceStep::Superseded { by: highest },
        std::cmp::Ordering::Equal => FenceStep::Compare,
        std::cmp::Ordering::Less => FenceStep::Create,
    }
}

impl FenceRecord {
    /// Whether this record names `holder` as the leader of its version.
    #[must_use]
    pub fn names(&self, holder: &str) -> bool {
        self.holder == holder
    }

    /// Whether this record names the same term: the same holder, and the same Lease uid where both name one.
    /// Publisher and time are not compared: two operators may publish the same term.
    #[must_use]
    pub fn is_of(&self, holder: &str, lease: Option<&LeaseIdentity>) -> bool {
        self.names(holder)
            && match (&self.lease, lease) {
                (Some(recorded), Some(claimed)) => recorded.uid == claimed.uid,
                _ => true,
            }
    }
}

/// Which records of a register its publisher may delete: all but the newest [`RegisterKind::records_kept`], never the highest.
#[must_use]
pub fn records_to_trim(kind: RegisterKind, mut numbers: Vec<u64>) -> Vec<u64> {
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers.dedup();
    numbers.split_off(kind.records_kept().min(numbers.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(uid: &str) -> LeaseIdentity {
        LeaseIdentity { namespace: "streaming".into(), name: "leader".into(), uid: uid.into(), transitions: 3 }
    }

    fn record(lease: Option<LeaseIdentity>) -> FenceRecord {
        FenceRecord {
            version: Version::new(4),
            holder: "a".into(),
            lease,
            publisher: "operator".into(),
            published_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_reading_is_the_highest_record_of_each_register() {
        let mut reading = Reading::default();
        for number in [3, 9, 1] {
            reading.observe(RegisterKind::Fence, number);
        }
        reading.observe(RegisterKind::Floor, 12);
        assert_eq!(reading, Reading { fence: Version::new(9), floor: Epoch::new(12), owner: 0 });
    }

    #[test]
    fn a_reading_below_what_was_seen_is_a_lost_register() {
        let seen = Reading { fence: Version::new(5), floor: Epoch::new(7), owner: 1 };
        assert_eq!(seen.check(&seen), Ok(()));
        assert_eq!(Reading { fence: Version::new(6), ..seen }.check(&seen), Ok(()));
        for (found, register, number) in [
            (Reading { fence: Version::OFF, ..seen }, RegisterKind::Fence, 5),
            (Reading { floor: Epoch::new(6), ..seen }, RegisterKind::Floor, 7),
            (Reading { owner: 0, ..seen }, RegisterKind::Owner, 1),
        ] {
            let lost = found.check(&seen).unwrap_err();
            assert_eq!((lost.register, lost.seen), (register, number));
        }
    }

    #[test]
    fn a_version_that_stands_is_compared_and_a_higher_one_supersedes() {
        let version = Version::new(4);
        assert_eq!(fence_step(version, Version::OFF), FenceStep::Create);
        assert_eq!(fence_step(version, Version::new(3)), FenceStep::Create);
        assert_eq!(fence_step(version, version), FenceStep::Compare);
        assert_eq!(fence_step(version, Version::new(5)), FenceStep::Superseded { by: Version::new(5) });
    }

    #[test]
    fn the_same_term_has_the_same_holder_and_the_same_lease_where_both_name_one() {
        let (ours, other) = (identity("u1"), identity("u2"));
        for (recorded, holder, claimed, same) in [
            (None, "a", None, true),
            (Some(ours.clone()), "a", None, true),
            (None, "a", Some(&ours), true),
            (Some(ours.clone()), "a", Some(&ours), true),
            (Some(ours.clone()), "a", Some(&other), false),
            (Some(ours.clone()), "b", Some(&ours), false),
            (None, "b", None, false),
        ] {
            assert_eq!(record(recorded.clone()).is_of(holder, claimed), same, "{recorded:?} {holder} {claimed:?}");
        }
    }

    #[test]
    fn trimming_keeps_the_newest_and_so_the_highest() {
        let numbers: Vec<u64> = (1..=20).rev().collect();
        assert_eq!(records_to_trim(RegisterKind::Floor, numbers.clone()), vec![4, 3, 2, 1]);
        assert_eq!(records_to_trim(RegisterKind::Fence, numbers), Vec::<u64>::new());
        assert_eq!(records_to_trim(RegisterKind::Owner, vec![u64::MAX]), Vec::<u64>::new());
    }

    #[test]
    fn bodies_are_camel_case_json() {
        let json = serde_json::to_value(record(Some(identity("u1")))).unwrap();
        assert_eq!(json["version"], 4);
        assert_eq!(json["publishedAt"], "1970-01-01T00:00:00Z");
        assert_eq!(json["lease"]["uid"], "u1");
        let null = serde_json::to_value(record(None)).unwrap();
        assert!(null["lease"].is_null() && null.as_object().unwrap().contains_key("lease"));
    }
}
