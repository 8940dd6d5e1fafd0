//! What is promised of a register, and the rules that it rests on.

/// A published value never falls, where people lose none.
pub const NEVER_FALLS: &str = "the highest record that ever stood still stands";
/// Who was told that a value is durable finds it so.
pub const DURABLE: &str = "the register stands at or above every value that was reported as published";
/// A version is nobody else's. Below the highest it leads nowhere, so whose it is there does not matter.
pub const ONE_HOLDER: &str = "no version that stands is reported as published for two terms";
/// The order of the terms is that of their versions.
pub const IN_ORDER: &str = "a higher version never names an older term than a lower one";

/// One rule left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// Trimming deletes the highest record too.
    TrimHighest,
    /// A register that reads lower than it was seen counts as what it reads.
    LostIsZero,
    /// Highest = v counts as done, whoever holds it.
    HighestIsDone,
    /// `AlreadyExists` counts as success.
    AlreadyExistsAsSuccess,
    /// `Assigned` reads the Lease before the listing, and not again after it.
    AssignedWithoutSecondGet,
}
