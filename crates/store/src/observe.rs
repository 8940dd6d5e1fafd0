//! What the store is asked, told to whoever counts it.

use std::fmt;
use std::ops::Sub;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

pub(crate) mod calls;

/// What a request does, as stores charge for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// One page of a listing.
    List,
    /// Reads an object.
    Get,
    /// Reads what is known about an object.
    Head,
    /// Writes an object.
    Put,
    /// Deletes one object, or one batch of them.
    Delete,
}

impl Operation {
    /// All operations.
    pub const ALL: [Self; 5] = [Self::List, Self::Get, Self::Head, Self::Put, Self::Delete];

    /// Its name: a metric's label, and the verb in an error.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Get => "get",
            Self::Head => "head",
            Self::Put => "put",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How one attempt of a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// It was answered with success.
    Ok,
    /// The object or the bucket is not there.
    NotFound,
    /// A condition did not hold, or another writer was at it.
    Conflict,
    /// The credentials were refused.
    Denied,
    /// The store asks for fewer requests.
    Throttled,
    /// The store refuses the request for another reason.
    Rejected,
    /// The store failed.
    ServerError,
    /// There was no answer in time.
    Timeout,
    /// There was no answer.
    Disconnected,
    /// Nobody waited for the answer any more.
    Cancelled,
}

impl Outcome {
    /// Its name: a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Denied => "denied",
            Self::Throttled => "throttled",
            Self::Rejected => "rejected",
            Self::ServerError => "server_error",
            Self::Timeout => "timeout",
            Self::Disconnected => "disconnected",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Is told of every attempt of every request to a store.
///
/// On a cloud store that is every HTTP attempt (each page, each retry) with the time until its answer began; requests that fetch
/// credentials are left out. On a local folder and in memory it is every call. It is called in the request's path: it must not block.
pub trait Observer: Send + Sync + 'static {
    /// One attempt ended.
    fn request(&self, operation: Operation, outcome: Outcome, elapsed: Duration);
}

/// Tells nobody.
impl Observer for () {
    fn request(&self, _: Operation, _: Outcome, _: Duration) {}
}

/// How many requests were made. Serialises as `{list, get, head, put, delete}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RequestCounts {
    /// Pages of listings.
    pub list: u64,
    /// Objects read.
    pub get: u64,
    /// Objects asked about.
    pub head: u64,
    /// Objects written.
    pub put: u64,
    /// Deletions, a batch counting once.
    pub delete: u64,
}

impl RequestCounts {
    /// All requests together.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.list + self.get + self.head + self.put + self.delete
    }
}

impl Sub for RequestCounts {
    type Output = Self;

    /// What was added since an `earlier` reading.
    fn sub(self, earlier: Self) -> Self {
        Self {
            list: self.list.saturating_sub(earlier.list),
            get: self.get.saturating_sub(earlier.get),
            head: self.head.saturating_sub(earlier.head),
            put: self.put.saturating_sub(earlier.put),
            delete: self.delete.saturating_sub(earlier.delete),
        }
    }
}

/// Counts requests.
#[derive(Debug, Default)]
pub struct RequestCounter {
    list: AtomicU64,
    get: AtomicU64,
    head: AtomicU64,
    put: AtomicU64,
    delete: AtomicU64,
    throttled: AtomicU64,
}

impl RequestCounter {
    /// The counts so far.
    #[must_use]
    pub fn snapshot(&self) -> RequestCounts {
        let read = |operation| self.of(operation).load(Ordering::Relaxed);
        RequestCounts {
            list: read(Operation::List),
            get: read(Operation::Get),
            head: read(Operation::Head),
            put: read(Operation::Put),
            delete: read(Operation::Delete),
        }
    }

    /// How many of all requests so far the store answered by asking for fewer of them.
    #[must_use]
    pub fn throttled(&self) -> u64 {
        self.throttled.load(Ordering::Relaxed)
    }

    const fn of(&self, operation: Operation) -> &AtomicU64 {
        match operation {
            Operation::List => &self.list,
            Operation::Get => &self.get,
            Operation::Head => &self.head,
            Operation::Put => &self.put,
            Operation::Delete => &self.delete,
        }
    }
}

impl Observer for RequestCounter {
    fn request(&self, operation: Operation, outcome: Outcome, _: Duration) {
        self.of(operation).fetch_add(1, Ordering::Relaxed);
        if outcome == Outcome::Throttled {
            self.throttled.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A root's own counter, and the observer that its opener gave.
#[derive(Clone)]
pub(crate) struct Watch {
    counter: Arc<RequestCounter>,
    observer: Arc<dyn Observer>,
}

impl Watch {
    pub(crate) fn new(observer: Arc<dyn Observer>) -> Self {
        Self { counter: Arc::default(), observer }
    }

    pub(crate) fn counts(&self) -> RequestCounts {
        self.counter.snapshot()
    }

    pub(crate) fn throttled(&self) -> u64 {
        self.counter.throttled()
    }

    pub(crate) fn observer(&self) -> &Arc<dyn Observer> {
        &self.observer
    }

    /// Starts one attempt. It is reported when the value is finished, or dropped without that: then nobody waited any more.
    pub(crate) fn start(&self, operation: Operation) -> Attempt {
        Attempt { watch: self.clone(), operation, started: tokio::time::Instant::now(), outcome: Outcome::Cancelled }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("counter", &self.counter).finish_non_exhaustive()
    }
}

/// One attempt under way.
#[derive(Debug)]
pub(crate) struct Attempt {
    watch: Watch,
    operation: Operation,
    started: tokio::time::Instant,
    outcome: Outcome,
}

impl Attempt {
    pub(crate) fn finish(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        self.watch.counter.request(self.operation, self.outcome, elapsed);
        self.watch.observer.request(self.operation, self.outcome, elapsed);
    }
}
