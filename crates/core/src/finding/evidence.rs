//! What the registers' records testify: who held the fence since when, and when the floor rose.

use jiff::Timestamp;

use crate::epoch::{Epoch, Version};
use crate::register::RegisterKind;

/// One fence record, as far as its body was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FenceEvidence {
    /// The version: the record's name.
    pub version: Version,
    /// When the store took it.
    pub modified: Timestamp,
    /// The holder in its body; `None` when that does not parse.
    pub holder: Option<String>,
}

/// When the floor rose, by the store's times.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Floors(Vec<(Epoch, Timestamp)>);

impl Floors {
    /// Notes one floor record: its name, and when the store took it.
    pub fn observe(&mut self, floor: Epoch, modified: Timestamp) {
        self.0.push((floor, modified));
    }

    /// Whether a floor above `epoch` was durable before `at`: a seal of then is never acknowledged. In the very second of a seal the
    /// order is unknown, and it counts as acknowledged.
    #[must_use]
    pub fn stood_above(&self, epoch: Epoch, at: Timestamp) -> bool {
        self.0.iter().any(|&(floor, modified)| floor > epoch && modified < at)
    }
}

/// The records of the registers, in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The fence records. Older ones may be missing; between two of these none may.
    pub fence: Vec<FenceEvidence>,
    /// The floor records.
    pub floors: Floors,
    /// Records whose bodies do not parse.
    pub unreadable: Vec<(RegisterKind, u64)>,
    /// How many records were looked at.
    pub records: u64,
}

impl Evidence {
    /// The holders that are named.
    pub(super) fn holders(&self) -> impl Iterator<Item = &str> {
        self.fence.iter().filter_map(|record| record.holder.as_deref())
    }

    /// The first record of a version above `version` that was durable before `at`, and when. In the very second of a seal the order is
    /// unknown, and it counts as sealed in time.
    pub(super) fn passed_before(&self, version: Version, at: Timestamp) -> Option<(Version, Timestamp)> {
        let passed = self.fence.iter().filter(|record| record.version > version && record.modified < at);
        passed.map(|record| (record.modified, record.version)).min().map(|(since, by)| (by, since))
    }

    /// Whether these records tell all who may have sealed at `at`. Before the first of them nobody was recorded, and a record that cannot
    /// be read may name anyone.
    pub(super) fn covers(&self, at: Timestamp) -> bool {
        let mut before = self.fence.iter().filter(|record| record.modified < at).peekable();
        before.peek().is_some() && before.all(|record| record.holder.is_some())
    }
}
