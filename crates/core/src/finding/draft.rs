//! The first look: what the listing, the plan and the registers' records say, and which seals have to be fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::collect::Collected;
use super::committer::{Committers, Malformed, Print};
use super::evidence::{Evidence, Floors};
use super::problem::{Problem, Regression};
use super::second_look::SecondLook;
use crate::epoch::Epoch;
use crate::inventory::{EpochEntry, Inventory, Sealing};
use crate::numbering::Numbering;
use crate::plan::{Decision, DeleteReason, Hold, Plan};

/// A partial may be this much newer than its seal: stores do not date to the instant.
const LATE: SignedDuration = SignedDuration::from_secs(2);

/// So many of a finding's vnodes are named.
const NAMED_VNODES: usize = 5;

/// What an audit is made from.
#[derive(Debug)]
pub struct AuditContext<'a> {
    /// The listing, made with the number of vnodes; without that no epoch is known to be incomplete.
    pub inventory: &'a Inventory,
    /// The plan made of the same listing: what no rule keeps, and whether prune holds.
    pub plan: &'a Plan,
    /// The registers' records, read after the listing.
    pub evidence: &'a Evidence,
    /// The wall clock.
    pub now: Timestamp,
    /// From the newest seal on, this long without another is too long.
    pub stalled_after: Duration,
}

/// The audit after its first look, while seals are being fetched.
///
/// Ask for [`Draft::markers_to_read`], fetch these and hand them to [`Draft::marker`], until none is asked for; then go on with
/// [`Draft::second_look`].
#[derive(Debug)]
pub struct Draft<'a> {
    pub(super) context: AuditContext<'a>,
    pub(super) collected: Collected,
    pub(super) suspects: BTreeSet<Epoch>,
    pub(super) not_utf8: BTreeSet<Epoch>,
    pub(super) regression: Option<Regression>,
    pub(super) markers_read: u64,
    pub(super) latest_committer: Option<String>,
    committers: Committers,
    unread: BTreeMap<Epoch, Option<Print>>,
}

impl<'a> Draft<'a> {
    /// Takes the first look.
    #[must_use]
    pub fn new(context: AuditContext<'a>) -> Self {
        let mut draft = Self {
            collected: Collected::default(),
            suspects: BTreeSet::new(),
            not_utf8: BTreeSet::new(),
            regression: None,
            markers_read: 0,
            latest_committer: None,
            committers: Committers::new(context.evidence.holders()),
            unread: BTreeMap::new(),
            context,
        };
        for (epoch, entry) in draft.context.inventory.epochs() {
            draft.look_at(epoch, entry);
        }
        draft.settle_known();
        draft.look_at_root();
        draft
    }

    fn look_at(&mut self, epoch: Epoch, entry: &EpochEntry) {
        let vnodes = self.context.inventory.vnodes();
        let floors = &self.context.evidence.floors;
        if incomplete(epoch, entry, vnodes, floors).or_else(|| late_write(epoch, entry)).is_some() {
            self.suspects.insert(epoch);
        }
        if let Some(seal) = entry.seal() {
            if Malformed::by_size(seal.size).is_some() {
                self.suspects.insert(epoch);
            } else {
                self.unread.insert(epoch, Print::listed(seal));
            }
        }
        if let (Some(out), Some(vnodes)) = (entry.out_of_range(), vnodes) {
            self.collected.add(Problem::VnodeOutOfRange { epoch, count: out.count, first: out.first, vnodes });
        }
        if let Some(contested) = contested(epoch, entry, self.context.inventory.numbering(), self.context.evidence) {
            self.collected.add(contested);
        }
        if let Some(key) = entry.unaddressable() {
            self.collected.add(Problem::UnaddressableKey { epoch, key: key.to_owned() });
        }
    }

    fn look_at_root(&mut self) {
        let AuditContext { inventory, plan, evidence, .. } = self.context;
        let AuditContext { now, stalled_after, .. } = self.context;
        if let Some(stalled) = stalled_sealing(&inventory.sealing(), now, stalled_after) {
            self.collected.add(stalled);
        }
        for leak in leaks(inventory, plan) {
            self.collected.add(leak);
        }
        for &(register, number) in &evidence.unreadable {
            self.collected.add(Problem::UnreadableRegister { register, number });
        }
        let foreign = inventory.foreign();
        if foreign.count() > 0 {
            let examples = foreign.examples().map(str::to_owned).collect();
            self.collected.add(Problem::ForeignKey { count: foreign.count(), examples });
        }
        if let Some(regression) = regression(inventory, plan) {
            if is_stalled(regression.newest_sealed, now, stalled_after) {
                self.suspects.insert(regression.epoch);
                self.regression = Some(regression);
            } else {
                self.collected.add(Problem::EpochRegression { regression, stalled: false });
            }
        }
    }

    /// The next epochs whose seals have to be fetched, at most `limit`, the highest first. None when every committer is known.
    ///
    /// Of seals that the listing shows to be alike only one is asked for at a time: once it is read, the others may be known.
    #[must_use]
    pub fn markers_to_read(&self, limit: usize) -> Vec<Epoch> {
        let mut asked = BTreeSet::new();
        let alike = self.unread.iter().rev().filter(|(_, print)| print.is_none_or(|print| asked.insert(print)));
        alike.map(|(epoch, _)| *epoch).take(limit).collect()
    }

    /// Takes the body of an epoch's seal; `None` when it is gone, or another one than was listed. The next audit sees what came of it.
    pub fn marker(&mut self, epoch: Epoch, body: Option<&[u8]>) {
        if self.unread.remove(&epoch).is_none() {
            return;
        }
        let Some(body) = body else { return };
        self.markers_read += 1;
        if let Ok(committer) = std::str::from_utf8(body) {
            self.committers.remember(committer);
            self.sealed_by(epoch, committer);
            self.settle_known();
        } else {
            self.not_utf8.insert(epoch);
            self.suspects.insert(epoch);
        }
    }

    /// Goes on to the second look. Seals that were never handed in stay unjudged.
    #[must_use]
    pub fn second_look(self) -> SecondLook<'a> {
        SecondLook::new(self)
    }

    /// Strikes the seals whose committers are known by now.
    fn settle_known(&mut self) {
        let Self { unread, committers, .. } = self;
        let settled: Vec<_> = unread
            .extract_if(.., |_, print| print.is_some_and(|print| committers.by_print(&print).is_some()))
            .collect();
        for (epoch, print) in settled {
            if let Some(committer) = print.and_then(|print| self.committers.by_print(&print)).map(str::to_owned) {
                self.sealed_by(epoch, &committer);
            }
        }
    }

    fn sealed_by(&mut self, epoch: Epoch, committer: &str) {
        let AuditContext { inventory, evidence, .. } = self.context;
        if inventory.newest_sealed() == Some(epoch) {
            self.latest_committer = Some(committer.to_owned());
        }
        let sealed = inventory.get(epoch).and_then(EpochEntry::seal).map(|seal| seal.modified);
        if !self.committers.is_holder(committer) && sealed.is_some_and(|sealed| evidence.covers(sealed)) {
            self.collected.add(Problem::UnknownCommitter { epoch, committer: committer.to_owned() });
        }
    }
}

/// Whether `since` was at least `stalledAfter` ago. A wall clock behind the store's never says so.
fn is_stalled(since: Timestamp, now: Timestamp, stalled_after: Duration) -> bool {
    Duration::try_from(now.duration_since(since)).is_ok_and(|idle| idle >= stalled_after)
}

/// A sealed epoch without all its partials. One that was sealed after a floor above it was never acknowledged, and nobody restores it.
pub(super) fn incomplete(epoch: Epoch, entry: &EpochEntry, vnodes: Option<u32>, floors: &Floors) -> Option<Problem> {
    let (sealed, vnodes) = (entry.seal()?.modified, vnodes?);
    let missing = entry.missing_count();
    let excused = || floors.stood_above(epoch, sealed);
    (missing > 0 && !excused()).then(|| Problem::SealedIncomplete {
        epoch,
        sealed,
        vnodes,
        missing,
        first: entry.missing(NAMED_VNODES),
    })
}

/// A partial that came after the seal.
pub(super) fn late_write(epoch: Epoch, entry: &EpochEntry) -> Option<Problem> {
    let sealed = entry.seal()?.modified;
    let (written, vnode) = entry.newest_partial()?;
    (written.duration_since(sealed) > LATE).then_some(Problem::LateWrite { epoch, vnode, written, sealed })
}

/// An epoch of a version that was sealed after the fence had passed that version: its leader was told so by its second look at the fence,
/// and acknowledged nothing.
fn contested(epoch: Epoch, entry: &EpochEntry, numbering: Numbering, evidence: &Evidence) -> Option<Problem> {
    let (sealed, version) = (entry.seal()?.modified, numbering.parts(epoch)?.version);
    let (by, since) = evidence.passed_before(version, sealed)?;
    Some(Problem::ContestedSeal { epoch, version, sealed, by, since })
}

/// Numbering that restarted: lower epochs sealed after the newest sealed one, else what makes prune hold.
fn regression(inventory: &Inventory, plan: &Plan) -> Option<Regression> {
    let newest = inventory.newest_sealed()?;
    let newest_sealed = inventory.get(newest)?.seal()?.modified;
    let held = match plan.hold() {
        Some(Hold::EpochRegression { epoch, modified, .. }) => Some((*modified, epoch.epoch())),
        _ => None,
    };
    let sealed_late = || {
        let lower = inventory.seals().filter(|(epoch, _)| *epoch < newest);
        lower.map(|(epoch, seal)| (seal.modified, epoch)).filter(|(at, _)| *at > newest_sealed)
    };
    let (at, epoch) = sealed_late().max().or(held)?;
    let count = sealed_late().fold(0, |count, _| count + 1);
    Some(Regression { epoch, at, sealed_late: count, newest, newest_sealed, holds_prune: held.is_some() })
}

/// Epochs above the newest sealed one, and none sealed for too long.
pub(super) fn stalled_sealing(sealing: &Sealing, now: Timestamp, stalled_after: Duration) -> Option<Problem> {
    let first = sealing.first_above?;
    let since = match sealing.newest {
        Some((_, sealed)) => sealed,
        None => sealing.begun?,
    };
    // The threshold, and not how long it is by now: the same state is told in the same words.
    is_stalled(since, now, stalled_after).then(|| {
        let newest = sealing.newest.map(|(epoch, _)| epoch);
        Problem::StalledSealing { first, unsealed: sealing.above, newest, since, stalled_after }
    })
}

/// Unsealed epochs below the floor that no rule keeps.
fn leaks<'a>(inventory: &'a Inventory, plan: &'a Plan) -> impl Iterator<Item = Problem> + 'a {
    let floor = inventory.reading().floor;
    let abandoned = plan.decisions().filter(|planned| planned.decision == Decision::Delete(DeleteReason::Abandoned));
    abandoned.filter(move |planned| planned.epoch.epoch() < floor).map(move |planned| Problem::Leak {
        epoch: planned.epoch.epoch(),
        floor,
        objects: planned.objects,
        bytes: planned.bytes,
    })
}
