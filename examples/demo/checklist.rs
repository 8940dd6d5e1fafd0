//! What the demo promises to show, and what of it was seen.

/// One thing that is to be observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    FenceFollowsLeader,
    FenceRises,
    DeposedLeaderRefused,
    PruneBySchedule,
    DamageNamed,
}

impl Promise {
    pub(crate) const ALL: [Self; 5] = [
        Self::FenceFollowsLeader,
        Self::FenceRises,
        Self::DeposedLeaderRefused,
        Self::PruneBySchedule,
        Self::DamageNamed,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::FenceFollowsLeader => "the leader's version became durable in the bucket, under its name",
            Self::FenceRises => "the leader changed, and the fence rose",
            Self::DeposedLeaderRefused => "the old leader, which had not noticed, had its commit refused by the bucket",
            Self::PruneBySchedule => "the scheduled prune removed what retention does not keep, and kept the rest",
            Self::DamageNamed => "a partial was deleted behind everyone's back, and the audit named it",
        }
    }
}

/// The promises that were seen to be kept.
#[derive(Debug, Default)]
pub(crate) struct Checklist {
    observed: Vec<Promise>,
}

impl Checklist {
    pub(crate) fn observed(&mut self, promise: Promise) {
        self.observed.push(promise);
    }

    pub(crate) fn has(&self, promise: Promise) -> bool {
        self.observed.contains(&promise)
    }

    pub(crate) fn is_complete(&self) -> bool {
        Promise::ALL.into_iter().all(|promise| self.has(promise))
    }
}
