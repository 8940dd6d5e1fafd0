//! What stands between a pipeline and the bucket: the version it acts as, and the registers it asks.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use epochwarden_core::guard::{Committer, Guard, Standing, guard};
use epochwarden_core::key;
use epochwarden_core::lease::LeaseIdentity;
use epochwarden_core::numbering::{EpochOutOfRange, ShownEpoch};
use epochwarden_core::register::{FenceRecord, FloorRecord, Reading, RegisterKind, RegisterLost};
use epochwarden_core::{Epoch, InstanceId, Version};
use tokio::time::Instant;

use super::fence_cache::FenceCache;
use crate::create::{ATTEMPTS, wait};
use crate::error::{StateBackendError, StoreError};
use crate::registers::{Published, Record, Registers, Sample};
use crate::root::Root;

/// How soon after the first look at something that is waited for the next one follows, and how rarely they come at last.
const POLL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// The version that an instance acts as, and what it knows of the registers.
pub(super) struct Guards {
    registers: Registers,
    holder: String,
    leading: Option<Version>,
    /// What was set, by call or through the handle. The fence that was read is in `registers`: it refuses writes, and never commits.
    set: Arc<AtomicU64>,
    awake: AtomicBool,
    cache: FenceCache,
    /// The record of the version that was last asked for.
    standing: Mutex<Option<(Version, Record<FenceRecord>)>>,
}

/// A guard read that refused nothing.
#[derive(Debug, Clone, Copy)]
pub(super) enum Passed {
    /// The fence is off, or the registers are not read. The reading is empty where they were not.
    Off(Reading),
    /// The version stands.
    Holds(Reading),
}

impl Passed {
    pub(super) fn reading(self) -> Reading {
        match self {
            Self::Off(reading) | Self::Holds(reading) => reading,
        }
    }
}

/// Whether the record of the fence has to name this instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum As {
    /// It would commit.
    Leader,
    /// It reads what others wrote.
    Reader,
}

impl Guards {
    pub(super) fn new(
        registers: Registers,
        holder: String,
        leading: Option<Version>,
        awake: bool,
        fence_refresh: Duration,
    ) -> Self {
        Self {
            registers,
            holder,
            leading,
            set: Arc::default(),
            awake: AtomicBool::new(awake),
            cache: FenceCache::new(fence_refresh),
            standing: Mutex::default(),
        }
    }

    pub(super) fn handle(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.set)
    }

    pub(super) fn raise(&self, version: Version) {
        self.set.fetch_max(version.get(), Ordering::AcqRel);
    }

    fn highest_set(&self) -> Version {
        Version::new(self.set.load(Ordering::Acquire))
    }

    /// The version that this instance commits as.
    pub(super) fn version(&self) -> Version {
        self.leading.unwrap_or_else(|| self.highest_set())
    }

    /// Refuses an epoch that is not `version`'s to write or to seal. No request.
    pub(super) fn check_epoch(&self, epoch: Epoch, version: Version) -> Result<(), StateBackendError> {
        self.root().numbering().check_epoch(epoch, version).map_err(Into::into)
    }

    /// The epoch as people see it, here and wherever the root's numbering is known.
    pub(super) fn show(&self, epoch: Epoch) -> ShownEpoch {
        self.root().numbering().show(epoch)
    }

    pub(super) fn first_epoch(&self, highest: Option<Epoch>) -> Option<Epoch> {
        self.root().numbering().first_epoch(self.version(), highest)
    }

    /// The version below which writes are refused.
    pub(super) fn authoritative(&self) -> Version {
        self.highest_set().max(self.registers.seen().fence)
    }

    /// The registers are read from now on.
    pub(super) fn wake(&self) {
        self.awake.store(true, Ordering::Release);
    }

    /// Whether the registers are read at all.
    pub(super) fn reads_registers(&self) -> bool {
        self.awake.load(Ordering::Acquire) || !self.highest_set().is_off()
    }

    pub(super) fn root(&self) -> &Root {
        self.registers.root()
    }

    /// One listing of the registers, which also counts for the writes.
    pub(super) async fn sample(&self) -> Result<Sample, StateBackendError> {
        let sent = Instant::now();
        let sample = self.registers.sample().await?;
        self.cache.was_read(sent);
        Ok(sample)
    }

    /// Refuses a write under a version below the authoritative one, as far as this instance has heard.
    pub(super) async fn check_assignment(&self, caller: Version) -> Result<(), StateBackendError> {
        let check = || match self.authoritative() {
            authoritative if caller < authoritative => Err(stale(caller, authoritative)),
            _ => Ok(()),
        };
        check()?;
        if self.reads_registers() {
            self.cache.keep_fresh(async { self.sample().await?.checked().map(drop).map_err(Into::into) }).await?;
            check()?;
        }
        Ok(())
    }

    /// A guard read for `epoch`, or with `None` for the fence alone, by an instance that acts as `version`.
    ///
    /// Two guard reads that belong together are given the same version, whatever is set meanwhile: another leader's term may lie
    /// between two of this instance's own.
    pub(super) async fn check(
        &self,
        version: Version,
        epoch: Option<Epoch>,
        role: As,
    ) -> Result<Passed, StateBackendError> {
        if !self.reads_registers() {
            return Ok(Passed::Off(Reading::default()));
        }
        let mut sample = self.sample().await?;
        for _ in 0..ATTEMPTS {
            let standing = self.standing(version);
            let standing = match &standing {
                None => Standing::Unread,
                Some(Record::Unreadable { .. }) => Standing::Unreadable,
                Some(Record::Readable(record)) => Standing::Record(record),
            };
            let committer = Committer { version, holder: &self.holder, seen: sample.seen };
            match guard(&committer, epoch, &sample.reading, standing) {
                Guard::Off => return Ok(Passed::Off(sample.reading)),
                Guard::Holds => return Ok(Passed::Holds(sample.reading)),
                Guard::ReadRecord | Guard::FenceConflict { .. } if role == As::Reader => {
                    return Ok(Passed::Holds(sample.reading));
                }
                Guard::ReadRecord => {
                    if !self.read_standing(version).await? {
                        // Listed, and gone when it was read: what a new listing shows then decides.
                        sample = self.sample().await?;
                    }
                }
                Guard::StaleVersion { caller, authoritative } => return Err(stale(caller, authoritative)),
                Guard::FenceNotReached { version, fence } => return Err(not_reached(version, fence)),
                Guard::RegisterLost(lost) => return Err(StoreError::from(lost).into()),
                Guard::FenceConflict { version, holder } => {
                    let holder = holder.as_ref().map(InstanceId::as_str).map(str::to_owned);
                    return Err(StateBackendError::FenceConflict { version: version.get(), holder });
                }
                Guard::EpochPruned { epoch, floor } => {
                    return Err(StateBackendError::EpochPruned { epoch: self.show(epoch), floor: self.show(floor) });
                }
            }
        }
        Err(self.registers.unknown(RegisterKind::Fence, version.get(), None).into())
    }

    fn standing(&self, version: Version) -> Option<Record<FenceRecord>> {
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        standing.as_ref().filter(|(of, _)| *of == version).map(|(_, record)| record.clone())
    }

    /// Reads the record of `version`, once: records are never overwritten. Whether it was there.
    async fn read_standing(&self, version: Version) -> Result<bool, StateBackendError> {
        let Some(record) = self.registers.fence_record(version).await? else {
            return Ok(false);
        };
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = Some((version, record));
        Ok(true)
    }

    pub(super) async fn publish_fence(
        &self,
        version: Version,
        lease: Option<&LeaseIdentity>,
    ) -> Result<(), StateBackendError> {
        self.wake();
        let published = self.registers.publish_fence(version, &self.holder, lease).await?;
        self.registers.trim(RegisterKind::Fence).await;
        match published {
            Published::Created | Published::AlreadyThere => Ok(()),
            Published::Superseded { by } => Err(stale(version, by)),
        }
    }

    /// Raises the floor to `before` where the fence is on.
    pub(super) async fn raise_floor(&self, before: Epoch) -> Result<(), StateBackendError> {
        if !self.reads_registers() {
            return Ok(());
        }
        let reading = self.sample().await?.checked()?;
        if reading.fence.is_off() {
            return Ok(());
        }
        let floor = FloorRecord {
            before,
            policy: None,
            plan_digest: None,
            publisher: String::new(),
            published_at: jiff::Timestamp::UNIX_EPOCH,
        };
        self.registers.raise_floor(&reading, floor).await?;
        self.registers.trim(RegisterKind::Floor).await;
        Ok(())
    }

    pub(super) async fn await_fence(&self, version: Version, timeout: Duration) -> Result<(), StateBackendError> {
        self.wake();
        let mut polls = Polls::until(timeout);
        loop {
            let reading = self.sample().await?.checked()?;
            match reading.fence.cmp(&version) {
                std::cmp::Ordering::Greater => return Err(stale(version, reading.fence)),
                std::cmp::Ordering::Equal if self.version() == version => {
                    return self.check(version, None, As::Leader).await.map(drop);
                }
                std::cmp::Ordering::Equal => return Ok(()),
                std::cmp::Ordering::Less => {}
            }
            if !polls.next().await {
                return Err(not_reached(version, reading.fence));
            }
        }
    }

    pub(super) async fn await_leadership(&self, timeout: Duration) -> Result<Version, StateBackendError> {
        self.wake();
        let mut polls = Polls::until(timeout);
        loop {
            let fence = self.sample().await?.checked()?.fence;
            if let Some(leading) = self.leading
                && fence > leading
            {
                return Err(stale(leading, fence));
            }
            if !fence.is_off() && self.is_named_at(fence).await? {
                return Ok(fence);
            }
            if !polls.next().await {
                // The version that it would lead with is still to be given, and lies above what stands.
                return Err(not_reached(Version::new(fence.get().saturating_add(1)), fence));
            }
        }
    }

    /// Whether the record of `version` names this instance. One GET per version, whatever it says.
    async fn is_named_at(&self, version: Version) -> Result<bool, StateBackendError> {
        if self.standing(version).is_none() {
            self.read_standing(version).await?;
        }
        let record = self.standing(version).and_then(Record::readable);
        Ok(record.is_some_and(|record| record.names(&self.holder)))
    }
}

/// The looks at a register that something is waited for in: often at first, and then more and more rarely.
struct Polls {
    deadline: Instant,
    pause: Duration,
}

impl Polls {
    fn until(timeout: Duration) -> Self {
        Self { deadline: Instant::now() + timeout, pause: POLL.0 }
    }

    /// Waits until the next look is due; `false` where the time is over.
    async fn next(&mut self) -> bool {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        wait(self.pause.min(left)).await;
        self.pause = (self.pause * 2).min(POLL.1);
        true
    }
}

impl fmt::Debug for Guards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guards")
            .field("version", &self.version())
            .field("holder", &self.holder)
            .field("numbering", &self.root().numbering())
            .field("authoritative", &self.authoritative())
            .field("reads_registers", &self.reads_registers())
            .finish_non_exhaustive()
    }
}

fn stale(caller: Version, authoritative: Version) -> StateBackendError {
    StateBackendError::StaleVersion { caller: caller.get(), authoritative: authoritative.get() }
}

fn not_reached(version: Version, fence: Version) -> StateBackendError {
    StateBackendError::FenceNotReached { version: version.get(), fence: fence.get() }
}

impl From<EpochOutOfRange> for StateBackendError {
    fn from(EpochOutOfRange { epoch, version }: EpochOutOfRange) -> Self {
        Self::EpochOutOfRange { epoch: epoch.get(), version: version.get() }
    }
}

impl From<StoreError> for StateBackendError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::RegisterLost(RegisterLost { register, seen, found }) => {
                Self::RegisterLost { register, seen, found }
            }
            StoreError::FenceConflict { version, holder } => Self::FenceConflict { version, holder },
            error => Self::Io { key: key::REGISTERS.to_owned(), source: Box::new(error) },
        }
    }
}
