//! The prune of a root: plan, publish the floor, delete. The command line and the operator run this same code.
//!
//! What is kept and why is [`epochwarden_core::plan`]'s to say; here is the order in which it is carried out, which is what makes it safe:
//!
//! 1. the registers are read, the plan has its approval, and the root is claimed, before anything else is written;
//! 2. the floor is durable before the first delete, so that no deleted epoch can be sealed and acknowledged afterwards;
//! 3. before each batch the registers and the caller's permission are asked again;
//! 4. the seals of a batch go first, each confirmed, and an epoch whose seal is not confirmed gone keeps everything else.
//!
//! A run that stops anywhere leaves nothing that the next run would not plan again.

mod approve;
mod batch;
mod delete;
mod execute;
mod pace;
mod prepare;
mod report;
mod until;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use epochwarden_core::approval::Gate;
use epochwarden_core::duration::format_duration;
use epochwarden_core::inventory::Inventory;
use epochwarden_core::plan::{Plan, Rules, Subject};
use epochwarden_core::register::{OwnerRecord, Reading};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use self::pace::Pace;
pub use self::report::{ApprovedState, DeleteFailure, MAX_ERRORS, PruneOutcome, PruneReport, Remainder, Stop};
use self::until::Until;
use crate::clock::Clock;
use crate::error::{ErrorClass, StoreError};
use crate::listing::list_inventory_with;
use crate::registers::Registers;
use crate::root::Root;

/// What a prune goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneRules {
    /// What is kept.
    pub plan: Rules,
    /// Plan only: nothing at all is written.
    pub dry_run: bool,
    /// The most objects that one run deletes. No epoch is left half deleted because of it: the run stops before the epoch that would go
    /// beyond. Only the first epoch of a run goes whatever its size, since it would never go otherwise.
    pub max_objects: u64,
    /// The most keys that one run deletes in a second, however many requests that takes. It goes slower while the store asks for that.
    /// `None`: no bound of its own.
    pub max_keys_per_second: Option<u64>,
    /// The longest that one run takes. No request is sent after it; answers to deletes that are under way are waited for a moment longer.
    pub deadline: Duration,
}

/// In whose name a prune runs.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The policy, which claims the root before its first write. `None`: nobody in particular.
    pub policy: Option<OwnerRecord>,
    /// Without a policy: prune a root that a policy owns.
    pub ignore_owner: bool,
    /// How the floor's record names its publisher.
    pub publisher: String,
    /// The highest values of the registers that are known from elsewhere: a lower reading is a loss.
    pub seen: Reading,
}

/// Who has approved what.
#[derive(Debug, Default)]
pub enum Approval {
    /// Whatever the plan says may be deleted.
    #[default]
    Automatic,
    /// Only a plan with this digest.
    Digest(String),
    /// What this plan of the same root, policy and rules deletes, as far as a fresh one still does.
    Plan(Box<Plan>),
    /// What this gate lets through: the plan, or one that was frozen and approved before, as far as a fresh one still deletes the same.
    Gate(Gate),
}

/// Asked before the root is claimed from a policy of the same name, before the floor and before each batch: whether the prune is still
/// wanted, and by the policy that has the name now.
#[async_trait]
pub trait Permission: Send + Sync {
    /// `Err` with the reason when it is not ([`Stop::NotPermitted`]), or when that cannot be found out ([`Stop::CannotAsk`]).
    async fn ask(&self) -> Result<(), Stop>;
}

/// A permission that is never withdrawn.
#[derive(Debug, Clone, Copy)]
pub struct Always;

#[async_trait]
impl Permission for Always {
    async fn ask(&self) -> Result<(), Stop> {
        Ok(())
    }
}

/// How far a prune is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PruneProgress {
    /// The root is being listed.
    Listing {
        /// Objects so far.
        objects: u64,
    },
    /// Objects are being deleted.
    Deleting {
        /// Objects so far.
        done: u64,
        /// Objects in all.
        total: u64,
        /// How many keys may be deleted in a second for now: what the rules say, or less after the store has asked for fewer requests.
        /// `None`: as many as can be.
        keys_per_second: Option<u64>,
    },
}

/// Is told how far a prune is, every thousand objects listed and every object deleted. It must not block.
pub type OnProgress<'a> = &'a (dyn Fn(PruneProgress) + Send + Sync);

/// Why a prune did not take place. Where nothing else is said, nothing was deleted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PruneError {
    /// The root cannot be read or written, or may not be: [`StoreError::class`] tells which.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The plan is not the one that was approved.
    #[error(
        "the plan that was approved has the digest {approved}, the one of now has {found}: look at the new plan and approve that"
    )]
    NotApproved {
        /// The digest that was approved.
        approved: String,
        /// The digest of the plan.
        found: String,
    },
    /// It was cancelled before it began to delete.
    #[error("the prune was stopped before it deleted anything: run it again")]
    Cancelled,
    /// Listing alone took longer than the deadline.
    #[error("the prune did not begin to delete within its deadline of {}: allow it more time", format_duration(*deadline))]
    DeadlineExceeded {
        /// The deadline.
        deadline: Duration,
    },
}

impl PruneError {
    /// What a failure of the store means for whoever has to act on it; `None` when it is not the store's.
    #[must_use]
    pub fn class(&self) -> Option<ErrorClass> {
        match self {
            Self::Store(error) => Some(error.class()),
            Self::NotApproved { .. } | Self::Cancelled | Self::DeadlineExceeded { .. } => None,
        }
    }

    /// Whether a safety rule refused it, as opposed to something having failed.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::NotApproved { .. } => true,
            Self::Store(error) => matches!(
                error.class(),
                ErrorClass::RootConflict
                    | ErrorClass::RegisterLost
                    | ErrorClass::UnknownLayout
                    | ErrorClass::UnaddressableKey
                    | ErrorClass::UnsafeStore
            ),
            Self::Cancelled | Self::DeadlineExceeded { .. } => false,
        }
    }
}

/// A plan over the root as it is now. Costs the LIST requests of one listing; writes nothing; dropping the future changes nothing.
pub async fn plan(root: &Root, rules: &Rules, subject: &Subject, progress: OnProgress<'_>) -> Result<Plan, StoreError> {
    Ok(Plan::new(&list(root, rules, progress).await?, rules, subject))
}

async fn list(root: &Root, rules: &Rules, progress: OnProgress<'_>) -> Result<Inventory, StoreError> {
    list_inventory_with(root, Some(rules.vnodes), |objects| progress(PruneProgress::Listing { objects })).await
}

/// What a run works with.
struct Run<'a> {
    root: &'a Root,
    rules: &'a PruneRules,
    identity: &'a Identity,
    permission: &'a dyn Permission,
    clock: &'a Arc<dyn Clock>,
    progress: OnProgress<'a>,
    registers: Registers,
    subject: Subject,
    until: Until,
    pace: Arc<Pace>,
}

/// Prunes a root: plans, and deletes what the plan does not keep.
///
/// Costs one LIST of the registers and one listing of the root; a GET of the owner's record where there is one, and a LIST and a PUT to
/// claim the root where it has to be claimed; a LIST of the registers and a PUT of the floor where it rises; and per batch (up to 1,000
/// epochs, and at a pace about as many keys as go in 10 s) a LIST of the registers and the deletes. An epoch with objects of the application
/// costs a LIST more. With the fence off, the root is listed again before a batch for which the last listing is older than `minAge`.
///
/// `cancel` and the deadline end it between two requests. Dropping the future leaves open which of the requests under way took place; the
/// next run plans again in either case.
#[allow(
    clippy::too_many_arguments,
    reason = "each is a part of its own, and a bundle of them would only be taken apart again"
)]
pub async fn run(
    root: &Root,
    rules: &PruneRules,
    identity: &Identity,
    approval: Approval,
    permission: &dyn Permission,
    clock: &Arc<dyn Clock>,
    cancel: &CancellationToken,
    progress: OnProgress<'_>,
) -> Result<PruneReport, PruneError> {
    let registers = Registers::new(root.clone(), identity.publisher.clone()).with_clock(Arc::clone(clock));
    registers.remember(&identity.seen);
    let policy_uid = identity.policy.as_ref().map(|policy| policy.uid.clone()).unwrap_or_default();
    let subject = Subject { root: root.url().to_owned(), policy_uid };
    let until = Until::new(cancel, rules.deadline);
    let pace = Arc::new(Pace::new(rules.max_keys_per_second, root));
    let run = Run { root, rules, identity, permission, clock, progress, registers, subject, until, pace };
    // Nothing is written in here but the claim and the floor, which hold for themselves: it can end anywhere.
    let prepared = match run.until.bound(run.prepare(approval)).await {
        Ok(prepared) => prepared?,
        Err(Stop::Cancelled) => return Err(PruneError::Cancelled),
        Err(_) => return Err(PruneError::DeadlineExceeded { deadline: rules.deadline }),
    };
    Ok(run.carry_out(prepared).await)
}

#[cfg(test)]
mod tests;
