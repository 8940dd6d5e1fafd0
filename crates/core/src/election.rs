//! Which of several operators works: an election by a Lease of their own.
//!
//! It is for tidiness, never for safety: two operators that both take themselves for the leader do the same work twice and no harm. So
//! the rules only have to keep that rare. A leader counts from the moment at which it *sent* the last renewal that was acknowledged, and
//! a candidate from the moment at which it *saw* one: the leader always comes to its deadline first, whatever the clocks of both say.
//!
//! Instants are durations since an origin of the caller's monotonic clock, as in [`lease`](crate::lease).

#[cfg(test)]
mod tests;

use std::time::Duration;

use thiserror::Error;

use crate::duration::format_duration;
use crate::lease::{ASSUMED_DURATION, Expiry, LeaseObservation, expiry};

/// How long the Lease lasts after a renewal: `spec.leaseDurationSeconds`.
pub const LASTS: Duration = Duration::from_secs(15);

/// How long after a renewal was sent the next one is due.
pub const RENEW_AFTER: Duration = Duration::from_secs(2);

/// How long after the last acknowledged renewal was sent a leader steps down.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// How long the work of a leader that stepped down may go on. It is over before anybody else may take the Lease.
pub const FAREWELL: Duration = Duration::from_secs(4);

/// How often a candidate that waits looks at the Lease.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why the Lease may be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vacancy {
    /// There is none yet.
    Missing,
    /// It has no holder: the last one gave it back.
    Released,
    /// Its holder did not renew it in time.
    Expired {
        /// Who held it.
        holder: String,
        /// For how long no renewal arrived.
        silent: Duration,
    },
    /// It names this candidate, which does not know when: the answer to what it wrote was lost.
    Unconfirmed,
}

/// Why a leader leads no more.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Deposed {
    /// The Lease names somebody else, or nobody, or is gone.
    #[error("{}", match holder { Some(holder) => format!("it is held by {holder:?} by now"), None => "it was released or deleted".into() })]
    Replaced {
        /// Whom it names.
        holder: Option<String>,
    },
    /// No renewal was acknowledged in time.
    #[error("no renewal was acknowledged for {}", format_duration(*silent))]
    NotRenewed {
        /// The time since the last acknowledged one was sent.
        silent: Duration,
    },
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Try to take the Lease: it must still be as it was observed.
    Acquire(Vacancy),
    /// Wait: somebody else leads.
    StandBy {
        /// Who leads.
        holder: String,
        /// The instant at which the Lease expires, unless a renewal arrives before.
        until: Duration,
    },
    /// Go on leading.
    Lead {
        /// The instant at which the next renewal is due.
        until: Duration,
    },
    /// Go on leading, and renew now.
    Renew,
    /// End the work, within [`FAREWELL`].
    StepDown(Deposed),
}

/// Decides for the candidate `me` at the monotonic instant `now`. `lease` is the Lease as it was last observed, `None` where there is none.
/// `renewed` is the instant at which the last acknowledged renewal was *sent* (or the acquisition, which is the first one), `None` for who
/// does not lead.
///
/// Observe the Lease again right before acting on [`Decision::Acquire`], and decide again at the instants that the other decisions give.
#[must_use]
pub fn decide(me: &str, lease: Option<&LeaseObservation>, renewed: Option<Duration>, now: Duration) -> Decision {
    let holder = lease.and_then(LeaseObservation::holder);
    let Some(renewed) = renewed else { return stand(me, lease, now) };
    if holder != Some(me) {
        return Decision::StepDown(Deposed::Replaced { holder: holder.map(str::to_owned) });
    }
    match now.saturating_sub(renewed) {
        silent if silent >= DEADLINE => Decision::StepDown(Deposed::NotRenewed { silent }),
        silent if silent >= RENEW_AFTER => Decision::Renew,
        _ => Decision::Lead { until: renewed.saturating_add(RENEW_AFTER) },
    }
}

fn stand(me: &str, lease: Option<&LeaseObservation>, now: Duration) -> Decision {
    let Some(lease) = lease else { return Decision::Acquire(Vacancy::Missing) };
    let Some(holder) = lease.holder() else { return Decision::Acquire(Vacancy::Released) };
    if holder == me {
        return Decision::Acquire(Vacancy::Unconfirmed);
    }
    let holder = holder.to_owned();
    // A holder that promises no renewals would keep everybody waiting for ever.
    let bounded = LeaseObservation { duration: lease.duration.or(Some(ASSUMED_DURATION)), ..lease.clone() };
    match expiry(&bounded, now) {
        Expiry::Expired { silent } => Decision::Acquire(Vacancy::Expired { holder, silent }),
        Expiry::At(until) => Decision::StandBy { holder, until },
        Expiry::Never => Decision::StandBy { holder, until: Duration::MAX },
    }
}

/// `spec.leaseTransitions` of a Lease that `me` takes or renews: one more than before where it changes hands, 0 for a new one.
#[must_use]
pub fn transitions(me: &str, lease: Option<&LeaseObservation>) -> i32 {
    lease.map_or(0, |lease| {
        let before = lease.transitions.unwrap_or(0);
        if lease.holder() == Some(me) { before } else { before.saturating_add(1) }
    })
}
