//! The audit of a root: whether every sealed epoch is whole, and was sealed by a leader. It only reads.
//!
//! The rules, and what each finding means, are [`epochwarden_core::finding`]'s; here is what has to be read for them, and in which order:
//! the listing, then the registers' records, then the seals that neither names, then once more whatever looks critical.

mod evidence;
mod look;

use std::time::Duration;

use epochwarden_core::finding::{Audit, AuditContext, Draft};
use epochwarden_core::inventory::EpochsSummary;
use epochwarden_core::plan::{Plan, Rules, Subject};
use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::crash;
use crate::error::{ErrorClass, StoreError};
use crate::listing::list_inventory_with;
use crate::observe::RequestCounts;
use crate::root::Root;

/// How many requests are under way at once.
const CONCURRENCY: usize = 16;

/// What an audit judges by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRules {
    /// The number of vnodes, and what a prune would keep: an unsealed epoch below the floor that it would not keep is a leak.
    pub plan: Rules,
    /// From the newest seal on, this long without another is too long.
    pub stalled_after: Duration,
    /// The longest time for the whole audit; `None`: as long as it takes.
    pub deadline: Option<Duration>,
}

/// How far an audit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditProgress {
    /// The root is being listed.
    Listing {
        /// Objects so far.
        objects: u64,
    },
    /// The seals of unknown committers are being fetched.
    Markers {
        /// Seals so far.
        read: u64,
    },
    /// Epochs that look critical are being listed again.
    SecondLook {
        /// Epochs so far.
        epochs: u64,
    },
}

/// Is told now and then how far an audit is. It must not block.
pub type OnProgress<'a> = &'a (dyn Fn(AuditProgress) + Send + Sync);

/// The result of an audit, in the form in which `-o json` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditReport {
    /// When it began, by the wall clock.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Verdict, coverage, counts, findings.
    #[serde(flatten)]
    pub audit: Audit,
    /// The epochs, as the listing showed them.
    pub epochs: EpochsSummary,
    /// The requests that it took.
    pub requests: RequestCounts,
}

/// Why an audit says nothing.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The root cannot be read, holds a key that cannot be addressed, or shows a newer layout ([`StoreError::NewerLayout`]).
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was told to stop.
    #[error("the audit was stopped before its end: run it again")]
    Cancelled,
    /// It took too long.
    #[error("the audit did not end within its deadline of {}: allow it more time", epochwarden_core::duration::format_duration(*deadline))]
    DeadlineExceeded {
        /// The deadline.
        deadline: Duration,
    },
}

impl AuditError {
    /// What a failure of the store means for whoever has to act on it; `None` when it is not the store's.
    #[must_use]
    pub fn class(&self) -> Option<ErrorClass> {
        match self {
            Self::Store(error) => Some(error.class()),
            Self::Cancelled | Self::DeadlineExceeded { .. } => None,
        }
    }
}

/// Audits a root.
///
/// Costs the LIST requests of one listing of the root, one LIST of the registers and a GET for each of their newest records (at most 256
/// fence, 16 floor and 16 owner records); a GET for each seal whose `ETag` and size match no known committer; and for each epoch that
/// looks critical a LIST and a HEAD, with one LIST of the registers for up to 16 of them. Where more than 32 look critical, and more than
/// the listing has pages of 1,000 objects, the root is listed two more times instead, with one LIST of the registers.
///
/// It writes nothing, so that dropping the future, cancelling it and its deadline all end it at once and without trace.
pub async fn run(
    root: &Root,
    rules: &AuditRules,
    clock: &dyn Clock,
    cancel: &CancellationToken,
    progress: OnProgress<'_>,
) -> Result<AuditReport, AuditError> {
    let audit = cancel.run_until_cancelled(audit(root, rules, clock, progress));
    let ended = match rules.deadline {
        Some(deadline) => {
            tokio::time::timeout(deadline, audit).await.map_err(|_| AuditError::DeadlineExceeded { deadline })?
        }
        None => audit.await,
    };
    Ok(ended.ok_or(AuditError::Cancelled)??)
}

async fn audit(
    root: &Root,
    rules: &AuditRules,
    clock: &dyn Clock,
    progress: OnProgress<'_>,
) -> Result<AuditReport, StoreError> {
    let (started_at, requests) = (clock.now(), root.requests());
    let vnodes = Some(rules.plan.vnodes);
    let listed = |objects| progress(AuditProgress::Listing { objects });
    let inventory = list_inventory_with(root, vnodes, listed).await?;
    crash::point("audit-listed");
    if let Some(key) = inventory.newer_layout() {
        return Err(StoreError::NewerLayout { key: key.to_owned() });
    }
    let now = clock.now();
    let subject = Subject { root: root.url().to_owned(), policy_uid: String::new() };
    let plan = Plan::new(&inventory, &rules.plan, &subject);
    // After the listing: a fence or floor that stood before a listed seal is then surely among the records.
    let evidence = evidence::read(root).await?;
    let mut draft = Draft::new(AuditContext {
        inventory: &inventory,
        plan: &plan,
        evidence: &evidence,
        now,
        stalled_after: rules.stalled_after,
    });
    look::read_markers(root, &inventory, &mut draft, progress).await?;
    let mut second = draft.second_look();
    crash::point("audit-before-second-look");
    look::look_again(root, &inventory, &mut second, progress).await?;
    crash::point("audit-done");
    Ok(AuditReport {
        started_at,
        finished_at: clock.now(),
        audit: second.finish(),
        epochs: inventory.summary(now),
        requests: root.requests() - requests,
    })
}

#[cfg(test)]
mod tests;
