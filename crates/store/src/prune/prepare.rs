//! Everything before the first delete: whose root it is, the plan, its approval, the claim and the floor.

use epochwarden_core::Epoch;
use epochwarden_core::approval::Gate;
use epochwarden_core::plan::{Deletion, Plan};
use epochwarden_core::register::{FloorRecord, Ownership, Reading, RegisterKind, Word};
use jiff::Timestamp;
use tokio::time::Instant;

use super::report::{PruneOutcome, PruneReport, Remainder, Stop};
use super::{Approval, PruneError, Run, list};
use crate::crash;
use crate::error::StoreError;
use crate::registers::{Claimed, Record};

/// A plan whose floor is durable.
pub(super) struct Prepared {
    pub(super) report: PruneReport,
    /// Oldest first; empty where nothing is to be deleted.
    pub(super) deletions: Vec<Deletion>,
    /// The number of the owner record, which must stay the highest.
    pub(super) owner: u64,
    /// When the listing was begun.
    pub(super) listed: Instant,
    /// Whether the plan deletes more than what an approval covers.
    pub(super) more: bool,
}

/// What the owner record says to a run.
enum Claim {
    /// This record is the one to go by: the policy's own, or whichever an unclaimed run found.
    Stands(u64),
    /// The policy has to write one before anything else.
    Needed,
}

impl Run<'_> {
    pub(super) async fn prepare(&self, approval: Approval) -> Result<Prepared, PruneError> {
        let (started_at, requests) = (self.clock.now(), self.root.requests());
        let claim = self.check_owner().await?;
        let listed = Instant::now();
        let inventory = list(self.root, &self.rules.plan, self.progress).await?;
        let plan = Plan::new(&inventory, &self.rules.plan, &self.subject);
        crash::point("prune-listed");
        let mut report = PruneReport::new(started_at, requests, &plan, inventory.summary(self.clock.now()));
        let frozen = matches!(&approval, Approval::Gate(Gate { frozen: Some(_), .. }));

        let approved = if let Some(hold) = plan.hold() {
            report.outcome = PruneOutcome::Held { reason: hold.as_str(), message: hold.to_string() };
            report.frozen_stands = frozen;
            None
        } else if self.rules.dry_run {
            report.outcome = PruneOutcome::DryRun;
            report.frozen_stands = frozen;
            None
        } else {
            if self.rules.plan.retention.keeps_everything() {
                report.outcome = PruneOutcome::KeepsEverything;
            }
            self.approved(approval, &plan, &inventory, &mut report)?
        };
        drop(inventory);
        let mut deletions = match report.outcome {
            // A held plan gives no deletions, and was told apart already.
            PruneOutcome::Succeeded => plan.into_deletions().unwrap_or_default(),
            _ => Vec::new(),
        };
        let planned = deletions.len();
        if let Some(approved) = &approved {
            deletions.retain(|deletion| approved.epochs.contains(&deletion.epoch()));
        }
        let more = deletions.len() < planned;
        let Some(highest) = deletions.last().map(Deletion::epoch) else {
            return Ok(Prepared { report, deletions, owner: 0, listed, more });
        };
        let owner = match self.claim(claim).await? {
            Ok(owner) => owner,
            Err(stop) => return Ok(stopped(report, &deletions, stop, listed, more)),
        };
        crash::point("prune-claimed");
        // The listing took its time: no floor for a root that is another's by now, or for a prune that is not wanted any more.
        let reading = self.registers.read().await?;
        let stop = if let Some(stop) = self.until.stop() {
            Some(stop)
        } else if reading.owner == owner {
            self.permission.ask().await.err()
        } else {
            Some(Stop::OwnerChanged)
        };
        if let Some(stop) = stop {
            return Ok(stopped(report, &deletions, stop, listed, more));
        }
        crash::point("prune-before-floor");
        // A deleted epoch lies below the newest sealed one, so there is a number above it.
        let before = highest.next().unwrap_or(highest);
        let digest = approved.as_ref().map_or(&report.plan.digest, |approved| &approved.digest);
        let floor = self.publish_floor(&reading, before, digest).await?;
        report.floor = Some(self.registers.root().numbering().show(floor));
        crash::point("prune-floor-published");
        Ok(Prepared { report, deletions, owner, listed, more })
    }

    /// Refuses the root of another policy before anything is even listed, and a lost register. Claiming comes later, with the first write.
    async fn check_owner(&self) -> Result<Claim, StoreError> {
        let policy = match (&self.identity.policy, self.identity.ignore_owner) {
            (None, true) => return Ok(Claim::Stands(self.registers.read().await?.owner)),
            (policy, _) => policy.as_ref(),
        };
        let (number, owner) = match self.registers.owner().await? {
            None if policy.is_some() => return Ok(Claim::Needed),
            None => return Ok(Claim::Stands(0)),
            Some((number, Record::Readable(owner))) => (number, owner),
            Some((number, Record::Unreadable { reason })) => {
                let owner = format!("a policy whose record {number} cannot be read ({reason})");
                return Err(StoreError::RootConflict { owner });
            }
        };
        match policy.map(|policy| owner.meets(policy)) {
            Some(Ownership::Ours) => Ok(Claim::Stands(number)),
            Some(Ownership::Predecessor) => Ok(Claim::Needed),
            Some(Ownership::Another) | None => {
                let owner = format!(
                    "policy {}/{} (uid {}) of cluster {}",
                    owner.namespace, owner.name, owner.uid, owner.cluster
                );
                Err(StoreError::RootConflict { owner })
            }
        }
    }

    /// The number of the owner record to go by, which is written where it is needed. A namesake's is followed only with the caller's
    /// permission: no record says which of the two policies was created again, and whoever asks finds out whether there is still this one.
    async fn claim(&self, claim: Claim) -> Result<Result<u64, Stop>, StoreError> {
        let policy = match (claim, &self.identity.policy) {
            (Claim::Needed, Some(policy)) => policy,
            (Claim::Needed, None) => return Ok(Ok(0)),
            (Claim::Stands(number), _) => return Ok(Ok(number)),
        };
        let reading = self.registers.read().await?;
        let may_succeed = || self.permission.ask();
        match self.registers.claim_owner_asking(&reading, policy, Word::default(), may_succeed).await? {
            Ok(Claimed::Owned { owned, .. }) => {
                self.registers.trim(RegisterKind::Owner).await;
                Ok(Ok(owned.number))
            }
            Ok(Claimed::Refused(conflict)) => Err(conflict.into()),
            Err(stop) => Ok(Err(stop)),
        }
    }

    /// Makes the floor durable, and returns where it stands: at `before` or above.
    async fn publish_floor(&self, reading: &Reading, before: Epoch, digest: &str) -> Result<Epoch, StoreError> {
        let floor = FloorRecord {
            before,
            policy: self.identity.policy.as_ref().map(|policy| policy.uid.clone()),
            plan_digest: Some(digest.to_owned()),
            publisher: String::new(),
            published_at: Timestamp::UNIX_EPOCH,
        };
        self.registers.raise_floor(reading, floor).await?;
        self.registers.trim(RegisterKind::Floor).await;
        Ok(self.registers.seen().floor.max(before))
    }
}

/// A run that ended before its floor: everything that it would have deleted is left.
fn stopped(mut report: PruneReport, deletions: &[Deletion], stop: Stop, listed: Instant, more: bool) -> Prepared {
    report.outcome = PruneOutcome::Stopped { stop };
    report.remainder = Remainder::of(deletions);
    Prepared { report, deletions: Vec::new(), owner: 0, listed, more }
}
