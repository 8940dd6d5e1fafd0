//! Why a look at the fence ended, and when the next one is.

use std::time::Duration;

use epochwarden_core::lease::{self, Expiry};

use super::IDLE;
use crate::api::condition::FenceCurrent;
use crate::controller::leases::LeaseSeen;

/// Why a look ended without the fence being current.
pub(super) struct Stopped {
    pub(super) reason: FenceCurrent,
    pub(super) message: String,
    pub(super) again: Again,
}

/// When to look again, where nothing changes before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// When time alone makes a difference: the Lease may have expired, or the watch was silent for too long.
    InTime,
    /// Then too, and at the latest after this long.
    Within(Duration),
    /// After this long and no sooner, however silent the watch: something failed.
    After(Duration),
    /// Never: only a change makes a difference.
    WhenChanged,
}

impl Again {
    /// How long to wait at `now`, where a Lease that was silent for `poll` is fetched.
    pub(super) fn wait(self, seen: &LeaseSeen, poll: Duration, now: Duration) -> Duration {
        let in_time = || {
            let poll = seen.heard.map_or(Duration::ZERO, |heard| heard + poll);
            let until = match seen.lease.as_ref().map(|lease| lease::expiry(lease, now)) {
                Some(Expiry::At(instant)) => poll.min(instant),
                _ => poll,
            };
            // Never in a hot loop, whatever the times say.
            until.saturating_sub(now).max(Duration::from_millis(50))
        };
        match self {
            Self::InTime => in_time(),
            Self::Within(wait) => wait.min(in_time()),
            Self::After(wait) => wait,
            Self::WhenChanged => IDLE,
        }
    }
}

/// The store task has come to no result yet.
pub(super) fn opening() -> Stopped {
    Stopped { reason: FenceCurrent::Pending, message: "the store is being opened".into(), again: Again::WhenChanged }
}

/// A later owner record was seen than this policy's own. The store task looks at whose the root is, and hands out clients again when it is
/// this policy's.
pub(super) fn contested() -> Stopped {
    let message = "another owner record has appeared: nothing is published until it is known whose the root is".into();
    Stopped { reason: FenceCurrent::StoreNotReady, message, again: Again::WhenChanged }
}
