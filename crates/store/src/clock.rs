//! The wall clock, given at construction.

use std::fmt::Debug;

use jiff::Timestamp;

/// Tells the wall clock's time. It dates records for people and measures `stalledAfter`; it never decides a deletion.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that asks the wall clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
