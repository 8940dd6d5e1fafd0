//! Tries what everything else relies on, with keys of its own, before a root is trusted.
//!
//! A store that lets two creates of one key succeed, or whose listing hides what was written, makes every guarantee void without ever
//! failing. No documentation settles which store does what behind which gateway, so it is tried:
//!
//! 1. sixteen creates of one key at once: one wins, and its body is what is read back;
//! 2. a listing shows the key at once, and an overwritten one as it is now;
//! 3. a listing in small pages is whole and ends, and with the delimiter `/vnode=` shows each folder once;
//! 4. many keys, one of which was never there, are deleted by one request, and the next listing shows none of them.
//!
//! The keys lie below `_epochwarden/probe/`, where nothing else ever looks, each under a UUID of its own. They are removed however the
//! probe ends; what a process leaves there that dies meanwhile is removed by the first probe an hour later, by the store's clock.

mod delete;
mod keys;
mod lists;
mod problem;
mod race;

use std::fmt;
use std::time::Duration;

use epochwarden_core::duration::format_duration;
use jiff::Timestamp;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, PutPayload, PutResult};
use serde::Serialize;
use thiserror::Error as ThisError;
use tokio_util::sync::CancellationToken;

use self::keys::Keys;
pub use self::problem::{Problem, ProblemKind};
use crate::clock::Clock;
use crate::error::{ErrorClass, StoreError, cause};
use crate::observe::{Operation, RequestCounts};
use crate::root::{Capabilities, Root};

/// Time enough for a probe of a store that answers at all.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// How long the keys of a probe that failed, was cancelled or took too long are being removed.
const CLEAN_UP: Duration = Duration::from_secs(10);

/// The result of a probe, in the form in which `-o json` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeReport {
    /// When it began, by the wall clock.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// What the store does.
    pub capabilities: Capabilities,
    /// What it does not do, or not as it should.
    pub problems: Vec<Problem>,
    /// The requests that it took.
    pub requests: RequestCounts,
}

impl ProbeReport {
    /// Why nothing on this store is safe, and what to do; `None` when it may be trusted.
    #[must_use]
    pub fn unsafe_because(&self) -> Option<String> {
        let reasons: Vec<String> =
            self.problems.iter().filter(|problem| problem.is_unsafe).map(Problem::to_string).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// Whether keys of the probe are still there, because the store keeps them: every further probe leaves some more.
    #[must_use]
    pub fn leaves_keys(&self) -> bool {
        self.problems.iter().any(|problem| problem.kind == ProblemKind::LeftBehind)
    }
}

/// Why a probe says nothing about the store.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum ProbeError {
    /// The root cannot be reached, read or written: [`StoreError::class`] tells why.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was told to stop.
    #[error("the probe was stopped before its end: run it again")]
    Cancelled,
    /// It took too long.
    #[error(
        "the store did not answer all requests of a probe within {}: check the endpoint and the network, or allow it more time",
        format_duration(*deadline)
    )]
    DeadlineExceeded {
        /// The deadline.
        deadline: Duration,
    },
}

impl ProbeError {
    /// What it means for whoever has to act on it; `None` when it is not the store's doing.
    #[must_use]
    pub fn class(&self) -> Option<ErrorClass> {
        match self {
            Self::Store(error) => Some(error.class()),
            Self::DeadlineExceeded { .. } => Some(ErrorClass::Unreachable),
            Self::Cancelled => None,
        }
    }
}

/// Probes the store of a root. What is known of its capabilities already is left aside.
///
/// An error says nothing about the store's safety. A store that answers wrongly is no error: the report says so.
///
/// On a store that does everything right it costs 26 PUTs, 1 GET, one DELETE for all its keys (11 where a request deletes one key only)
/// and 13 LISTs of a few keys (5 where a client has no pages). A store with problems costs a few more, and leftovers of an earlier probe
/// one DELETE. A client that tries again when a store answers 501 does so here: open the root with few retries.
///
/// `deadline` bounds all of it but the removal of the probe's own keys when it ends early, which is given 10 s. Dropping the future ends
/// it at once and leaves its keys to a later probe; prefer `cancel`. A write that was under way when it ended may still leave a key.
pub async fn run(
    root: &Root,
    deadline: Duration,
    clock: &dyn Clock,
    cancel: &CancellationToken,
) -> Result<ProbeReport, ProbeError> {
    let (started_at, requests) = (clock.now(), root.requests());
    let mut trial = Trial::new(root.unprobed());
    let ended = tokio::time::timeout(deadline, cancel.run_until_cancelled(trial.all())).await;
    if trial.remains && tokio::time::timeout(CLEAN_UP, trial.clean_up()).await.is_err() {
        tracing::warn!(root = %root, "the keys of a probe could not be removed in time, a later one will do it");
    }
    ended.map_err(|_| ProbeError::DeadlineExceeded { deadline })?.ok_or(ProbeError::Cancelled)??;
    Ok(ProbeReport {
        started_at,
        finished_at: clock.now(),
        capabilities: trial.capabilities,
        problems: trial.problems,
        requests: root.requests() - requests,
    })
}

/// One probe under way.
struct Trial {
    root: Root,
    keys: Keys,
    capabilities: Capabilities,
    problems: Vec<Problem>,
    /// Whether keys of this probe may be there.
    remains: bool,
    /// Keys of earlier probes that died.
    leftovers: Vec<Path>,
}

/// Why a trial ends before its end.
enum Stop {
    /// Nothing can be said.
    Failed(StoreError),
    /// What was found makes the rest pointless.
    Settled,
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl Trial {
    fn new(root: Root) -> Self {
        Self {
            root,
            keys: Keys::new(),
            capabilities: Capabilities {
                conditional_create: false,
                consistent_list: false,
                bulk_delete: false,
                delimiter_index: false,
                versioned: false,
                object_lock: false,
            },
            problems: Vec::new(),
            remains: false,
            leftovers: Vec::new(),
        }
    }

    async fn all(&mut self) -> Result<(), StoreError> {
        match self.steps().await {
            Ok(()) | Err(Stop::Settled) => Ok(()),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    async fn steps(&mut self) -> Result<(), Stop> {
        self.root.check_present().await?;
        // Before the first write: a wrong URL or credential shows here and nothing is left behind.
        self.listed().await?;
        self.race().await?;
        self.visibility().await?;
        self.pages().await?;
        self.deletion().await?;
        self.sweep().await;
        Ok(())
    }

    /// Reports a problem, each kind once: the first sight of it tells most.
    fn problem(&mut self, kind: ProblemKind, message: impl fmt::Display) {
        if self.problems.iter().all(|problem| problem.kind != kind) {
            self.problems.push(Problem::new(kind, message.to_string()));
        }
    }

    fn path(&self, key: &str) -> Result<Path, StoreError> {
        self.root.path(key)
    }

    /// Writes a key, whatever stands there. One PUT.
    async fn put(&mut self, key: &str, body: &'static str) -> Result<(), Stop> {
        self.write(key, body).await?.map_err(|error| self.refused_write(key, error))
    }

    /// Writes a key that is there. Where a lock keeps it as it is, which hurts nobody but prune, that is said. One PUT.
    async fn overwrites(&mut self, key: &str, body: &'static str) -> Result<bool, Stop> {
        match self.write(key, body).await? {
            Ok(()) => Ok(true),
            Err(error) if cause::locked(&error) => {
                self.capabilities.object_lock = true;
                self.problem(
                    ProblemKind::ObjectLock,
                    format_args!(
                        "the bucket takes new keys and keeps them under a lock ({}), so that what is pruned is still stored and paid for \
                         until that ends",
                        cause::plain(&error)
                    ),
                );
                Ok(false)
            }
            Err(error) => Err(self.refused_write(key, error)),
        }
    }

    async fn write(&mut self, key: &str, body: &'static str) -> Result<Result<(), Error>, StoreError> {
        let path = self.path(key)?;
        self.remains = true;
        let written = self.root.store().put(&path, PutPayload::from_static(body.as_bytes())).await;
        Ok(written.map(|answer| self.saw_version(&answer)))
    }

    /// A write that the store refuses whatever its condition, and though nothing stands there.
    fn refused_write(&mut self, key: &str, error: Error) -> Stop {
        if !cause::locked(&error) {
            return self.root.error(Operation::Put, key, error).into();
        }
        self.capabilities.object_lock = true;
        // What could not be written could not be listed: whoever goes by the capabilities alone does not trust the store either.
        self.capabilities.consistent_list = false;
        self.problem(ProblemKind::RefusesWrites, format_args!("the store refuses writes: {}", cause::plain(&error)));
        Stop::Settled
    }

    /// Takes the answer to a write for what it says about versions.
    fn saw_version(&mut self, answer: &PutResult) {
        // Google's numbers are generations, which every object has. S3 says "null" where versions were kept once and no longer are.
        let kept = answer.version.as_deref().is_some_and(|version| version != "null") && self.root.provider() != "gs";
        if kept && !self.capabilities.versioned {
            self.capabilities.versioned = true;
            self.problem(
                ProblemKind::Versioned,
                "the bucket keeps versions: a deletion only adds a marker, so that what is pruned is still stored and paid for",
            );
        }
    }
}

#[cfg(test)]
mod tests;
