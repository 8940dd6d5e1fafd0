//! The registers of a root: what the bucket remembers about who leads, what may no longer be sealed, and who owns it.

mod assign;
mod owner;
mod publish;
mod records;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use epochwarden_core::key;
use epochwarden_core::register::{Reading, RegisterKind, records_to_trim};
use object_store::ObjectStoreExt;

pub use self::assign::{AssignError, Assigned};
pub use self::owner::{Claimed, Conflict, Owned};
pub use self::publish::Published;
pub use self::records::Record;
use crate::clock::{Clock, SystemClock};
use crate::crash;
use crate::error::StoreError;
use crate::listing::list_registers;
use crate::root::Root;

/// Fence, floor and owner of one root, and the highest values of them that this process has seen.
///
/// A value that is read below one that was seen before its request was sent means that records were deleted or the bucket was
/// replaced: every method that lists refuses with [`StoreError::RegisterLost`] then.
///
/// All futures may be dropped at any point: a publication that was under way may then have happened or not, and publishing again
/// settles it.
pub struct Registers {
    root: Root,
    publisher: String,
    clock: Arc<dyn Clock>,
    memory: Mutex<Memory>,
}

/// What earlier requests have shown.
#[derive(Default)]
struct Memory {
    seen: Reading,
    /// Whether the last listing to have said so shows what was seen: a publication may go by that.
    listed: bool,
    /// How often a listing has shown a lost register, or one was forgotten: one that was sent before that vouches for nothing.
    doubts: u64,
    superfluous: BTreeMap<RegisterKind, Vec<u64>>,
}

/// One listing of the registers, and what had been seen before it was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) seen: Reading,
    pub(crate) reading: Reading,
}

impl Memory {
    /// What was listed is not to be gone by.
    fn doubt(&mut self) {
        self.listed = false;
        self.doubts += 1;
    }
}

impl Sample {
    /// The reading, unless a register has fallen.
    pub(crate) fn checked(self) -> Result<Reading, StoreError> {
        self.reading.check(&self.seen)?;
        Ok(self.reading)
    }
}

impl Registers {
    /// The registers of `root`. `publisher` is written into every record, for people.
    pub fn new(root: Root, publisher: impl Into<String>) -> Self {
        Self { root, publisher: publisher.into(), clock: Arc::new(SystemClock), memory: Mutex::default() }
    }

    /// Dates the records by another clock than the machine's.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The highest values seen so far.
    #[must_use]
    pub fn seen(&self) -> Reading {
        self.memory().seen
    }

    /// Counts values as seen that an earlier process recorded elsewhere: a reading below them is a lost register.
    pub fn remember(&self, reading: &Reading) {
        let mut memory = self.memory();
        memory.seen = memory.seen.max(*reading);
    }

    /// Forgets what was seen of one register, so that a lost one starts anew. A person's word, or a recreated policy, is needed for it.
    pub fn forget(&self, kind: RegisterKind) {
        let mut memory = self.memory();
        let mut kept = Reading::default();
        for other in RegisterKind::ALL.into_iter().filter(|other| *other != kind) {
            kept.observe(other, memory.seen.value(other));
        }
        memory.seen = kept;
        memory.doubt();
    }

    /// The values now. One LIST for all three.
    pub async fn read(&self) -> Result<Reading, StoreError> {
        self.sample().await?.checked()
    }

    /// As [`Registers::read`], leaving it to the caller to compare with what was seen before.
    pub(crate) async fn sample(&self) -> Result<Sample, StoreError> {
        // Before the request: an answer may be older than one that another task gets meanwhile.
        let (seen, doubts) = {
            let memory = self.memory();
            (memory.seen, memory.doubts)
        };
        let listing = list_registers(&self.root).await?;
        let reading = listing.reading();
        let superfluous = |kind| {
            let numbers = listing.records(kind).map(|record| record.number).collect();
            (kind, records_to_trim(kind, numbers))
        };
        let mut memory = self.memory();
        memory.seen = memory.seen.max(reading);
        if reading.check(&seen).is_err() {
            memory.doubt();
        } else if memory.doubts == doubts {
            memory.listed = true;
        }
        memory.superfluous = RegisterKind::ALL.into_iter().map(superfluous).collect();
        Ok(Sample { seen, reading })
    }

    /// Deletes the records of a register that the last listing showed to be more than its publishers keep, never the highest, and
    /// returns how many went. Best-effort: what cannot be deleted stays for the next time. No LIST, one DELETE for each.
    pub async fn trim(&self, kind: RegisterKind) -> usize {
        let superfluous = self.memory().superfluous.remove(&kind).unwrap_or_default();
        let mut trimmed = 0;
        for number in superfluous {
            let key = key::register(kind, number);
            let Ok(path) = self.root.path(&key) else { continue };
            match self.root.store().delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => trimmed += 1,
                Err(error) => {
                    tracing::warn!(%key, error = %crate::error::cause::plain(&error), "an old record could not be trimmed");
                    break;
                }
            }
        }
        if kind == RegisterKind::Fence {
            crash::point("fence-trimmed");
        }
        trimmed
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one record that is known to be there.
    fn saw(&self, kind: RegisterKind, number: u64) {
        self.memory().seen.observe(kind, number);
    }
}

impl fmt::Debug for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registers")
            .field("root", &self.root.url())
            .field("publisher", &self.publisher)
            .field("seen", &self.seen())
            .finish_non_exhaustive()
    }
}
