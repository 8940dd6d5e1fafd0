//! Events on policies: what happened, once per transition, for `kubectl describe` and `kubectl events`.
//!
//! An Event is a courtesy: state belongs in the status. So nobody waits for one: they go through a bounded queue, and when the API server
//! does not take them fast enough the newest are dropped, which the log says.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::answer::answer;
use crate::api::condition::FenceCurrent;

/// How many Events may wait for the API server.
const QUEUE: usize = 256;

/// How many Events are remembered at most: one that comes again is counted then, and not recorded anew.
const REMEMBERED: usize = 128;

/// How long they are remembered when no other comes, which is as long as the recorder counts them together.
const MEMORY: Duration = Duration::from_mins(6);

/// Why an Event is sent: its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the reason of the same name in the documentation of the resource")]
pub(crate) enum Reason {
    FencePublished,
    LeaseRegressed,
    FenceConflict,
    VersionJump,
    RegisterLost,
    PrunePlanned,
    PruneStarted,
    PruneCompleted,
    PruneHeld,
    PruneFailed,
    AuditFinding,
    AuditClean,
    StoreUnreachable,
    RootConflict,
    Suspended,
}

impl Reason {
    /// The reason in words.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::FencePublished => "FencePublished",
            Self::LeaseRegressed => "LeaseRegressed",
            Self::FenceConflict => "FenceConflict",
            Self::VersionJump => "VersionJump",
            Self::RegisterLost => "RegisterLost",
            Self::PrunePlanned => "PrunePlanned",
            Self::PruneStarted => "PruneStarted",
            Self::PruneCompleted => "PruneCompleted",
            Self::PruneHeld => "PruneHeld",
            Self::PruneFailed => "PruneFailed",
            Self::AuditFinding => "AuditFinding",
            Self::AuditClean => "AuditClean",
            Self::StoreUnreachable => "StoreUnreachable",
            Self::RootConflict => "RootConflict",
            Self::Suspended => "Suspended",
        }
    }

    /// The reason for a state of the fence that a person should hear of.
    #[must_use]
    pub(crate) const fn of_fence(state: FenceCurrent) -> Option<Self> {
        match state {
            FenceCurrent::LeaseRegressed => Some(Self::LeaseRegressed),
            FenceCurrent::FenceConflict => Some(Self::FenceConflict),
            FenceCurrent::VersionJump => Some(Self::VersionJump),
            FenceCurrent::RegisterLost => Some(Self::RegisterLost),
            FenceCurrent::Suspended => Some(Self::Suspended),
            FenceCurrent::Published
            | FenceCurrent::NotConfigured
            | FenceCurrent::Pending
            | FenceCurrent::StoreNotReady
            | FenceCurrent::LeaseNotFound
            | FenceCurrent::NoHolder
            | FenceCurrent::LeaseExpired
            | FenceCurrent::InvalidVersion
            | FenceCurrent::PublishFailed => None,
        }
    }

    /// What the operator was doing: the Event's action.
    const fn action(self) -> &'static str {
        match self {
            Self::FencePublished
            | Self::LeaseRegressed
            | Self::FenceConflict
            | Self::VersionJump
            | Self::RegisterLost => "Fence",
            Self::PrunePlanned | Self::PruneStarted | Self::PruneCompleted | Self::PruneHeld | Self::PruneFailed => {
                "Prune"
            }
            Self::AuditFinding | Self::AuditClean => "Audit",
            Self::StoreUnreachable | Self::RootConflict => "Open",
            Self::Suspended => "Suspend",
        }
    }

    const fn type_(self) -> EventType {
        match self {
            Self::FencePublished
            | Self::PrunePlanned
            | Self::PruneStarted
            | Self::PruneCompleted
            | Self::AuditClean => EventType::Normal,
            _ => EventType::Warning,
        }
    }
}

struct Notice {
    reference: ObjectReference,
    reason: Reason,
    note: String,
}

/// Takes Events without making anybody wait.
#[derive(Debug, Clone)]
pub(crate) struct Notices {
    queue: mpsc::Sender<Notice>,
}

impl std::fmt::Debug for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notice").field("reason", &self.reason).field("note", &self.note).finish_non_exhaustive()
    }
}

/// The API server's bound on an Event's note.
const NOTE: usize = 1024;

impl Notices {
    /// The queue, and the task that empties it until `shutdown`.
    pub(crate) fn start(
        client: Client,
        instance: Option<String>,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()>) {
        let (queue, mut notices) = mpsc::channel::<Notice>(QUEUE);
        // A recorder lets go of what is old only when it records, and of nothing before: so it is a new one now and then.
        let reporter = Reporter { controller: "epochwarden".into(), instance };
        let new = move || Recorder::new(client.clone(), reporter.clone());
        let publish = async move {
            let (mut recorder, mut count) = (new(), 0);
            loop {
                let notice = tokio::select! {
                    () = shutdown.cancelled() => return,
                    notice = timeout(MEMORY, notices.recv()) => notice,
                };
                if notice.is_err() || count == REMEMBERED {
                    (recorder, count) = (new(), 0);
                }
                let Ok(notice) = notice else { continue };
                let Some(Notice { reference, reason, note }) = notice else { return };
                let event = Event {
                    type_: reason.type_(),
                    reason: reason.as_str().into(),
                    note: Some(note),
                    action: reason.action().into(),
                    secondary: None,
                };
                count += 1;
                if let Err(error) = answer(recorder.publish(&event, &reference)).await {
                    tracing::warn!(%error, reason = reason.as_str(), "an Event could not be recorded; its message is in the log above");
                }
            }
        };
        (Self { queue }, publish)
    }

    /// Records an Event on the object, and the same line in the log.
    pub(crate) fn send(&self, reference: &ObjectReference, reason: Reason, note: impl Into<String>) {
        self.send_for(reference, reason, reason.as_str(), note);
    }

    /// The same for what a condition says as well: `of_condition` is its reason, which is the finer one, and that of the line.
    pub(crate) fn send_for(
        &self,
        reference: &ObjectReference,
        reason: Reason,
        of_condition: &'static str,
        note: impl Into<String>,
    ) {
        let mut note: String = note.into();
        let (namespace, policy) = (reference.namespace.as_deref(), reference.name.as_deref());
        match reason.type_() {
            EventType::Normal => tracing::info!(namespace, policy, reason = of_condition, "{note}"),
            EventType::Warning => tracing::warn!(namespace, policy, reason = of_condition, "{note}"),
        }
        if note.len() > NOTE {
            note.truncate(note.floor_char_boundary(NOTE - 3));
            note.push_str("...");
        }
        if self.queue.try_send(Notice { reference: reference.clone(), reason, note }).is_err() {
            tracing::warn!(
                namespace,
                policy,
                reason = reason.as_str(),
                "too many Events wait for the API server: this one is only in the log"
            );
        }
    }
}
