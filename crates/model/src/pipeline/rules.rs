//! What is promised, and the rules that it rests on.

/// What the protocol promises; the columns of its table, and what they rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// A restored epoch descends from every acknowledged one.
    Lineage,
    /// Whatever is acknowledged is whole at that moment, and as long as a prune touches it or did, a sealed epoch above it stays.
    Kept,
    /// As [`Promise::Kept`], and the sealed epoch that stays above descends from it.
    KeptInLine,
    /// No restored epoch has partials of two leaders.
    Unmixed,
    /// Whoever is told that an epoch is durable has sealed it.
    OwnSeal,
}

impl Promise {
    /// The columns of the protocol's table.
    pub const TABLE: [Self; 3] = [Self::Lineage, Self::Kept, Self::Unmixed];

    pub(crate) const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// The promise as a sentence, which is also the name of its property.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Lineage => "a restored epoch descends from every acknowledged one",
            Self::Kept => "nothing acknowledged is pruned away from under its leader",
            Self::KeptInLine => {
                "what prune takes of an acknowledged epoch lives on in a newer sealed one that descends from it"
            }
            Self::Unmixed => "no restored epoch mixes two leaders' partials",
            Self::OwnSeal => "an acknowledged epoch has the seal of its leader",
        }
    }
}

/// That a sealed epoch has all its partials, unless its seal landed below a floor that stood already.
pub const SEALED_IS_WHOLE: &str = "a sealed epoch is whole, unless it was sealed below the floor";

/// One rule of the protocol, left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// A commit does not read the guard before it seals.
    NoFirstGuard,
    /// A commit does not read the guard after it sealed.
    NoSecondGuard,
    /// A commit does not compare its epoch with the floor.
    CommitIgnoresFloor,
    /// A restore does not read the guard after it read.
    RestoreWithoutSecondRead,
    /// A restore that finds nothing compares with the floor that it read before its listing.
    EmptyWithoutSecondRead,
    /// A restore goes on although the floor has passed its epoch.
    RestoreIgnoresFloor,
    /// `AlreadyExists` counts as success when a partial is written.
    PartialAlreadyExistsAsSuccess,
    /// `AlreadyExists` counts as success when an epoch is sealed.
    SealAlreadyExistsAsSuccess,
    /// The floor is published after the deletes.
    FloorAfterDeletes,
    /// The partials of an epoch go before its seal.
    PartialsBeforeSeal,
    /// A plan that deletes the newest sealed epoch too, where nobody was told that it is durable.
    PrunesUnacknowledgedLatest,
    /// `epoch_complete` as soon as the partials are there, whoever wrote them: the first of the three rules.
    CommitOnPresence,
    /// Numbers continue from the restored epoch: the second of the three rules.
    NumbersFromRestored,
    /// A `PartialConflict` does not burn its epoch: the third of the three rules.
    ConflictDoesNotBurn,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::NoFirstGuard,
        Self::NoSecondGuard,
        Self::CommitIgnoresFloor,
        Self::RestoreWithoutSecondRead,
        Self::EmptyWithoutSecondRead,
        Self::RestoreIgnoresFloor,
        Self::PartialAlreadyExistsAsSuccess,
        Self::SealAlreadyExistsAsSuccess,
        Self::FloorAfterDeletes,
        Self::PartialsBeforeSeal,
        Self::PrunesUnacknowledgedLatest,
        Self::CommitOnPresence,
        Self::NumbersFromRestored,
        Self::ConflictDoesNotBurn,
    ];
}

/// A row of the protocol's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// No guards: what pipelines did before.
    Classic,
    /// The guards, and nothing that keeps the numbers or the objects of two leaders apart.
    Plain,
    /// The guards, exclusive partials and the three rules.
    Exclusive,
    /// The guards, and numbers that belong to versions.
    Versioned,
}
