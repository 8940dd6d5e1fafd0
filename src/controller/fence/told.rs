//! How the fence is told of: in the status, in Events, metrics and words.

use std::time::Duration;

use epochwarden_core::Version;
use epochwarden_core::duration::format_duration;
use epochwarden_core::lease::{BarePodName, FenceRefusal, RecordSeen, Term};
use epochwarden_core::register::FenceRecord;

use super::{FenceTask, UNANSWERED};
use crate::api::condition::{FenceCurrent, Reason as _};
use crate::api::status::FenceStatus;
use crate::controller::notices::Reason;
use crate::controller::observed::Said;
use crate::server::PolicyName;

impl FenceTask {
    /// The record is durable, and this process wrote it.
    pub(super) fn created(&self, term: &Term, event: Option<Duration>, at: jiff::Timestamp) {
        let lag = event.map(|event| self.context.monotonic.now().saturating_sub(event));
        if let Some(lag) = lag {
            self.context.metrics.fence_lag_seconds.observe(lag.as_secs_f64());
            self.context.metrics.fence_last_lag_seconds.of(&self.handle.name, &[]).set(lag.as_secs_f64());
        }
        self.handle.observed.send_modify(|observed| {
            observed.published = Some(fence_status(term, Some(at), lag));
            observed.seen.fence = observed.seen.fence.max(term.version);
        });
        let note = match lag {
            Some(lag) => format!(
                "the fence is at version {} for {:?}, {} ms after its Lease changed",
                term.version,
                term.holder,
                lag.as_millis()
            ),
            None => format!("the fence is at version {} for {:?}", term.version, term.holder),
        };
        let published = FenceCurrent::Published.as_str();
        self.context.notices.send_for(&self.handle.reference, Reason::FencePublished, published, note);
        if let Some(bare) = BarePodName::of(&term.holder) {
            let PolicyName { namespace, name } = &self.handle.name;
            tracing::warn!(namespace, policy = name, reason = published, holder = term.holder, "{bare}");
        }
    }

    /// The fence stands for this very term, whoever published it.
    pub(super) fn current(&self, term: &Term) {
        self.show_version(term.version);
        self.handle.observed.send_if_modified(|observed| {
            observed.seen.fence = observed.seen.fence.max(term.version);
            let published = observed.published.as_ref();
            // Somebody else published it, or an earlier life of this operator did: when is in the record alone.
            if published.is_none_or(|published| {
                published.version != term.version || published.holder.as_ref() != Some(&term.holder)
            }) {
                observed.published = Some(fence_status(term, self.recorded_at(), None));
            }
            let message = match BarePodName::of(&term.holder) {
                None => format!("the fence is at version {} for {:?}", term.version, term.holder),
                Some(bare) => format!("the fence is at version {} for {:?}; {bare}", term.version, term.holder),
            };
            observed.fence.replace(Said::new(FenceCurrent::Published, message))
        });
    }

    pub(super) fn show_version(&self, version: Version) {
        #[allow(clippy::cast_precision_loss, reason = "versions end at 2^53-1, where they are still exact")]
        self.context.metrics.fence_version.of(&self.handle.name, &[]).set(version.get() as f64);
    }

    fn recorded_at(&self) -> Option<jiff::Timestamp> {
        match &self.known.as_ref()?.fence.record {
            RecordSeen::Read(record) => Some(record.published_at),
            RecordSeen::Unread | RecordSeen::Unreadable => None,
        }
    }
}

/// How long a Lease has been silent is another number at every look, and every look would write a status for it: its own duration says
/// as much.
pub(super) fn worded_once(refusal: FenceRefusal, duration: Option<Duration>) -> FenceRefusal {
    match refusal {
        FenceRefusal::LeaseExpired { lease, holder, silent } => {
            FenceRefusal::LeaseExpired { lease, holder, silent: duration.unwrap_or(silent) }
        }
        other => other,
    }
}

pub(super) fn fence_status(term: &Term, at: Option<jiff::Timestamp>, lag: Option<Duration>) -> FenceStatus {
    FenceStatus {
        version: term.version,
        holder: Some(term.holder.clone()),
        lease_transitions: Some(term.lease.transitions),
        lease_uid: Some(term.lease.uid.clone()),
        published_at: at,
        lag_milliseconds: lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX).into()),
    }
}

pub(super) fn status_of(record: FenceRecord) -> FenceStatus {
    FenceStatus {
        version: record.version,
        holder: Some(record.holder),
        lease_transitions: record.lease.as_ref().map(|lease| lease.transitions),
        lease_uid: record.lease.map(|lease| lease.uid),
        published_at: Some(record.published_at),
        lag_milliseconds: None,
    }
}

/// Of a record that says nothing.
pub(super) fn status_of_nobody(version: Version) -> FenceStatus {
    FenceStatus {
        version,
        holder: None,
        lease_transitions: None,
        lease_uid: None,
        published_at: None,
        lag_milliseconds: None,
    }
}

/// What is not true yet, to begin a message with.
pub(super) fn term_not_durable(term: &Term) -> String {
    format!(
        "version {} is wanted for {:?} and is not durable yet, so that whoever led before is not stopped: ",
        term.version, term.holder
    )
}

/// The store does not answer.
pub(super) fn unanswered(doing: &str) -> String {
    format!(
        "{doing}: the store has not answered for {}; it is tried again: check the endpoint and the network",
        format_duration(UNANSWERED)
    )
}
