//! What a prune did, in the form in which `-o json` shows it.

use std::fmt;

use epochwarden_core::ShownEpoch;
use epochwarden_core::inventory::EpochsSummary;
use epochwarden_core::plan::{Deletion, Plan, PlanSummary};
use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::error::{ErrorClass, StoreError};
use crate::observe::RequestCounts;

/// How many failed deletes are told in full.
pub const MAX_ERRORS: usize = 10;

/// What a prune did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneReport {
    /// When it began, by the wall clock.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: PruneOutcome,
    /// The plan that it made.
    pub plan: PlanSummary,
    /// The epochs, as the plan's listing showed them: before anything was deleted.
    pub found: EpochsSummary,
    /// The floor as it stands since: above everything that it deletes, or higher. `None` when nothing was to be deleted.
    pub floor: Option<ShownEpoch>,
    /// Epochs that are gone, to their last object.
    pub epochs: u64,
    /// Objects that are gone, each confirmed. One that somebody else deleted first counts too.
    pub objects: u64,
    /// The bytes of the epochs that are gone.
    pub bytes: u64,
    /// Objects that could not be deleted. They are planned again by the next run.
    pub failed: u64,
    /// The first of them, up to [`MAX_ERRORS`].
    pub errors: Vec<DeleteFailure>,
    /// What the run would have deleted and is not known to be gone: not begun, stopped in the middle, or failed.
    pub remainder: Remainder,
    /// The requests that it took.
    pub requests: RequestCounts,
    /// Whether the frozen plan that came with [`super::Approval::Gate`] goes on: it waits, or was approved and has a rest, or nobody came
    /// to look at it. Where it does not, `plan` is the one to remember; it is frozen when the outcome is
    /// [`PruneOutcome::AwaitingApproval`].
    #[serde(skip)]
    pub frozen_stands: bool,
    /// What became of a frozen plan that was approved; `None` where none was carried out.
    #[serde(skip)]
    pub approved: Option<ApprovedState>,
}

/// How far an approved plan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApprovedState {
    /// The run stopped before its end, or some of it could not be deleted: the next one goes on with it.
    Rest,
    /// All of it is gone; or the run could delete none of what is left, and other epochs are to go by now. Then it is planned again together
    /// with those: one key that cannot be deleted holds up no later plan.
    Finished,
}

/// How a prune ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all_fields = "camelCase")]
pub enum PruneOutcome {
    /// All that the plan deletes is gone; perhaps that was nothing.
    Succeeded,
    /// It was only asked to plan.
    DryRun,
    /// The retention keeps everything.
    KeepsEverything,
    /// Nothing was deleted, because something is not as it should be.
    Held {
        /// The reason, in one word.
        reason: &'static str,
        /// What is wrong, and what to do.
        message: String,
    },
    /// Nothing was deleted, because a plan waits for approval.
    AwaitingApproval {
        /// Why, in one word: `AwaitingApproval` or `MassDeletion`.
        reason: &'static str,
        /// Which plan, why, and what became of the one before.
        message: String,
    },
    /// Some objects could not be deleted.
    PartlyFailed,
    /// It stopped before its end.
    Stopped {
        /// Why.
        stop: Stop,
    },
}

/// Why a prune stopped before its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all_fields = "camelCase")]
pub enum Stop {
    /// It was told to: suspended, deleted, or the process ends.
    Cancelled,
    /// Its time was over.
    Deadline,
    /// It had deleted as many objects as one run may.
    MaxObjects,
    /// Another policy has taken the root over.
    OwnerChanged,
    /// It is not wanted any more.
    NotPermitted {
        /// Why.
        message: String,
    },
    /// Whether it is still wanted cannot be found out.
    CannotAsk {
        /// What failed.
        message: String,
    },
    /// The root was listed again, and something is not as it should be.
    Held {
        /// Which hold, in one word.
        hold: &'static str,
        /// What is wrong, and what to do.
        message: String,
    },
    /// The registers could not be read again, or read lower than before; or the root could not be listed again.
    Store {
        /// What the failure means.
        #[serde(serialize_with = "as_word")]
        class: ErrorClass,
        /// What happened.
        message: String,
    },
}

impl Stop {
    /// Whether nobody decided it, and it may pass without anybody: what is left should be begun again when it has. A limit is not meant:
    /// somebody has set it.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::CannotAsk { .. } => true,
            Self::Store { class, .. } => {
                matches!(class, ErrorClass::Unreachable | ErrorClass::Conflict | ErrorClass::OutcomeUnknown)
            }
            Self::Cancelled
            | Self::Deadline
            | Self::MaxObjects
            | Self::OwnerChanged
            | Self::NotPermitted { .. }
            | Self::Held { .. } => false,
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("it was told to stop"),
            Self::Deadline => f.write_str("its deadline was reached"),
            Self::MaxObjects => f.write_str("it deleted as many objects as one run may (maxObjects)"),
            Self::OwnerChanged => f.write_str("another policy has taken the root over"),
            Self::NotPermitted { message }
            | Self::CannotAsk { message }
            | Self::Held { message, .. }
            | Self::Store { message, .. } => f.write_str(message),
        }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store { class: error.class(), message: error.to_string() }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape that the serialiser asks for")]
fn as_word<S: Serializer>(class: &ErrorClass, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(class.as_str())
}

/// An object that could not be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteFailure {
    /// Its key below the root.
    pub key: String,
    /// Why.
    pub error: String,
}

/// What was left for the next run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Remainder {
    /// Epochs.
    pub epochs: u64,
    /// Their objects.
    pub objects: u64,
}

impl Remainder {
    pub(super) fn add(&mut self, more: Self) {
        self.epochs += more.epochs;
        self.objects = self.objects.saturating_add(more.objects);
    }

    pub(super) fn of(deletions: &[Deletion]) -> Self {
        deletions.iter().fold(Self::default(), |mut sum, deletion| {
            sum.add(Self { epochs: 1, objects: deletion.objects() });
            sum
        })
    }
}

impl PruneReport {
    /// A report at its beginning. `requests` are those that were made before, until [`PruneReport::end`].
    pub(super) fn new(started_at: Timestamp, requests: RequestCounts, plan: &Plan, found: EpochsSummary) -> Self {
        Self {
            started_at,
            finished_at: started_at,
            outcome: PruneOutcome::Succeeded,
            plan: plan.summary(),
            found,
            floor: None,
            epochs: 0,
            objects: 0,
            bytes: 0,
            failed: 0,
            errors: Vec::new(),
            remainder: Remainder::default(),
            requests,
            frozen_stands: false,
            approved: None,
        }
    }

    /// The report at its end. `more`: the fresh plan deletes more than an approval covered.
    pub(super) fn end(mut self, finished_at: Timestamp, requests: RequestCounts, more: bool) -> Self {
        self.finished_at = finished_at;
        self.requests = requests - self.requests;
        if self.outcome == PruneOutcome::Succeeded && self.failed > 0 {
            self.outcome = PruneOutcome::PartlyFailed;
        }
        let over = match self.outcome {
            PruneOutcome::Succeeded => true,
            PruneOutcome::PartlyFailed => more && self.objects == 0,
            _ => false,
        };
        if self.approved.is_some() && over {
            self.approved = Some(ApprovedState::Finished);
            self.frozen_stands = false;
        }
        self
    }

    /// Counts an object that could not be deleted.
    pub(super) fn fail(&mut self, key: &str, error: impl fmt::Display) {
        self.failed += 1;
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(DeleteFailure { key: key.to_owned(), error: error.to_string() });
        }
    }

    /// Takes back what was counted as gone and is listed all the same.
    pub(super) fn still_there(&mut self, count: u64, examples: &[String], error: &str) {
        self.objects = self.objects.saturating_sub(count);
        for (_, key) in (0..count).zip(examples) {
            self.fail(key, error);
        }
        self.failed += count.saturating_sub(examples.len() as u64);
    }
}
