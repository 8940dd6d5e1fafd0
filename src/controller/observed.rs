//! What the tasks of one policy have found out: the one input of its status.

mod audits;
mod backlog;
mod plan;

use epochwarden_core::register::{Reading, RegisterLost};
use epochwarden_core::schedule::{LastRun, Remembered};
use jiff::Timestamp;

use super::schedules::{Schedules, Slot};
use crate::api::StateEpochPolicy;
use crate::api::condition::{AuditClean, FenceCurrent, PruneHealthy, Reason, StoreReady};
use crate::api::status::{
    AuditStatus, CapabilitiesStatus, EpochsStatus, FenceStatus, MAX_HISTORY, PastRun, Phase, PlanStatus,
    ProgressStatus, PruneStatus, RunKind,
};

pub(crate) use audits::{in_words, told_by_audit};
pub(crate) use backlog::Backlog;
pub(crate) use plan::frozen;

/// A reason and the message that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said<R> {
    /// The reason.
    pub(crate) reason: R,
    /// What is so, on which object, and what to do.
    pub(crate) message: String,
}

impl<R: PartialEq> Said<R> {
    /// A reason with its message.
    pub(crate) fn new(reason: R, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// Takes the place of what was said; `true` when it is something else.
    pub(crate) fn replace(&mut self, next: Self) -> bool {
        let changed = *self != next;
        *self = next;
        changed
    }
}

/// What the tasks of one policy have found out.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    /// Whether this is the first life of the policy: no status was ever written.
    pub(crate) first_seen: bool,
    /// Of the store task.
    pub(crate) store: Said<StoreReady>,
    /// Whether the store task of this process has come to a result: until then, `store` is what an earlier one said.
    pub(crate) opened: bool,
    /// Which kind of store it is, once it was opened.
    pub(crate) provider: Option<String>,
    /// What the last probe found that the store can do, and when.
    pub(crate) capabilities: Option<(CapabilitiesStatus, Timestamp)>,
    /// Of the fence task.
    pub(crate) fence: Said<FenceCurrent>,
    /// The fence as it stands.
    pub(crate) published: Option<FenceStatus>,
    /// How the last prune ended.
    pub(crate) pruned: Option<Said<PruneHealthy>>,
    /// The last prune, or the one that runs.
    pub(crate) prune: PruneStatus,
    /// How the last audit ended.
    pub(crate) audited: Option<Said<AuditClean>>,
    /// The last audit, or the one that runs.
    pub(crate) audit: AuditStatus,
    /// Set while the pipeline writes epochs and seals none, as the last audit or seal check has found.
    pub(crate) stalled: Option<String>,
    /// What the last prunes have left behind.
    pub(crate) backlog: Backlog,
    /// The last plan.
    pub(crate) plan: Option<PlanStatus>,
    /// The generation for which that plan waits for approval, or was approved and has a rest. `None`: it is over, and only shown.
    pub(crate) open_for: Option<i64>,
    /// The epochs, as of the last listing.
    pub(crate) epochs: Option<EpochsStatus>,
    /// Past runs, the newest first.
    pub(crate) history: Vec<PastRun>,
    /// The run request that was honoured last.
    pub(crate) last_run_request: Option<String>,
    /// The word by which the root was taken over last.
    pub(crate) last_take_over: Option<String>,
    /// The highest values of the registers that were ever seen for this policy.
    pub(crate) seen: Reading,
    /// Set while a register reads lower than that.
    pub(crate) lost: Option<RegisterLost>,
}

impl Observed {
    /// What an earlier life of the operator knew, as the status tells it. A condition of an earlier generation says nothing of this one.
    #[must_use]
    pub(crate) fn of(policy: &StateEpochPolicy) -> Self {
        let first_seen = policy.status.is_none();
        let status = policy.status.clone().unwrap_or_default();
        let (audited, stalled) = (audits::last(&status), audits::stalled(&status));
        let mut seen = Reading::default();
        if let Some(fence) = &status.fence {
            seen.fence = fence.version;
        }
        if let Some(floor) = status.prune.as_ref().and_then(|prune| prune.floor) {
            seen.floor = floor.epoch();
        }
        let mut current = status.conditions.clone();
        current.retain(|condition| condition.observed_generation == policy.metadata.generation);
        let store = status.store.unwrap_or_default();
        // The policy may name another endpoint since.
        let probed = store
            .capabilities
            .zip(store.probed_at)
            .filter(|_| status.observed_generation == policy.metadata.generation);
        let prune = status.prune.unwrap_or_default();
        let open_for = match &status.plan {
            Some(plan) if plan::is_open(plan, &prune) => status.observed_generation,
            _ => None,
        };
        let pruned = said(
            &status.conditions,
            &[PruneHealthy::Pending, PruneHealthy::NotScheduled, PruneHealthy::Suspended, PruneHealthy::Running],
        );
        let pruned = pruned.map(plan::as_said);
        Self {
            first_seen,
            store: said(&current, &[]).unwrap_or_else(|| Said::new(StoreReady::Pending, "the store is being opened")),
            opened: false,
            provider: store.provider,
            capabilities: probed,
            fence: said(&current, &[]).unwrap_or_else(|| Said::new(FenceCurrent::Pending, "the Lease is being read")),
            published: status.fence,
            backlog: Backlog::of(pruned.as_ref().is_some_and(|said| said.reason == PruneHealthy::FallingBehind)),
            pruned,
            prune,
            audited,
            stalled,
            audit: status.audit.unwrap_or_default(),
            plan: status.plan,
            open_for,
            epochs: status.epochs,
            history: status.history,
            last_run_request: status.last_run_request,
            last_take_over: status.last_take_over,
            seen,
            lost: None,
        }
    }

    /// What the schedules remember, by the status.
    #[must_use]
    pub(crate) fn schedules(&self) -> Schedules {
        let slot = |phase: Option<Phase>, started, promised| {
            let last = match (phase, started) {
                (_, None) => LastRun::None,
                (Some(Phase::Running | Phase::Pending), Some(started)) => LastRun::Unfinished { started },
                (_, Some(started)) => LastRun::Finished { started },
            };
            Slot { remembered: Remembered { promised, last }, ..Slot::default() }
        };
        Schedules {
            prune: slot(self.prune.phase, self.prune.started_at, self.prune.next_run_at),
            audit: slot(self.audit.phase, self.audit.started_at, self.audit.next_run_at),
            running: None,
        }
    }

    /// A run begins, or waits for its turn to: from here on it is owed, whatever becomes of this process. `true` when that is news.
    pub(crate) fn begins(&mut self, kind: RunKind, phase: Phase, now: Timestamp) -> bool {
        let known = match kind {
            RunKind::Prune => {
                let message =
                    if phase == Phase::Pending { "it waits for its turn" } else { "the root is being listed" };
                // A plan that was carried out says nothing of this run; left in the status, it would pass for one that is open.
                if self.open_for.is_none() {
                    self.plan = None;
                }
                let prune = &mut self.prune;
                (prune.started_at, prune.finished_at, prune.progress) = (Some(now), None, None);
                prune.message = Some(message.into());
                &mut prune.phase
            }
            RunKind::Audit => {
                (self.audit.started_at, self.audit.finished_at) = (Some(now), None);
                &mut self.audit.phase
            }
        };
        known.replace(phase) != Some(phase)
    }

    /// Adds a run that ended, and lets go of the oldest.
    pub(crate) fn ended(&mut self, run: PastRun) {
        self.history.insert(0, run);
        self.history.truncate(MAX_HISTORY);
    }

    /// Takes how far the prune has come.
    pub(crate) fn progressed(&mut self, done: u64, total: u64) {
        self.prune.progress = Some(ProgressStatus { done: done.into(), total: total.into() });
    }
}

/// The last outcome, from the condition that an earlier life wrote; what says nothing of an outcome is left out.
fn said<R: Reason + PartialEq>(
    conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
    not_an_outcome: &[R],
) -> Option<Said<R>> {
    let condition = conditions.iter().find(|condition| condition.type_ == R::TYPE)?;
    let reason = R::ALL.iter().copied().find(|reason| reason.as_str() == condition.reason)?;
    (!not_an_outcome.contains(&reason)).then(|| Said::new(reason, condition.message.clone()))
}
