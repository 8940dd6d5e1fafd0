//! What the actors of a run share: its seed, its time, its bucket, and the oracle that watches.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use epochwarden_core::Numbering;
use epochwarden_core::register::Reading;
use epochwarden_store::Clock;
use fastrand::Rng;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::bucket::Bucket;
use crate::lease::Lease;
use crate::oracle::Oracle;
use crate::setup::{Mode, Scenario, Setup};
use crate::trace::Trace;

/// The second at which every run begins.
const BEGINS: i64 = 1_767_225_600;

/// One run. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct World {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    scenario: Scenario,
    setup: Setup,
    state: Mutex<State>,
    stop: Notify,
}

/// All that changes.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) rng: Rng,
    pub(crate) bucket: Bucket,
    pub(crate) oracle: Oracle,
    pub(crate) lease: Option<Lease>,
    pub(crate) trace: Trace,
    /// What the policy's status remembers of the registers, across the lives of operators.
    pub(crate) status: Reading,
    /// What people have pinned.
    pub(crate) pins: [u64; 2],
    /// No more faults.
    pub(crate) calm: bool,
    pub(crate) counts: Counts,
    pub(crate) now: u64,
}

/// How often things happened that a run is made for.
pub(crate) type Counts = BTreeMap<&'static str, u64>;

impl State {
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(crate) fn note(&mut self, who: &str, what: &str, key: &str) {
        self.trace.note(self.now, who, what, key);
    }

    /// Whether something happens that does in so many of 1,000 cases. Nothing bad happens in the calm.
    pub(crate) fn mishap(&mut self, of_thousand: u32) -> bool {
        !self.calm && self.rng.u32(..1000) < of_thousand
    }

    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.rng.u32(..100) < percent
    }

    /// Milliseconds, the short ones as likely as the long ones.
    pub(crate) fn spread(&mut self, least: u64, most: u64) -> u64 {
        let doublings = u64::from((most / least.max(1)).max(1).ilog2());
        let low = least << self.rng.u64(0..=doublings);
        self.rng.u64(low..=(low * 2).min(most).max(low))
    }
}

impl World {
    pub(crate) fn new(seed: u64, scenario: Scenario, worded: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let setup = Setup::draw(&mut rng, scenario);
        let state = State {
            rng,
            bucket: Bucket::default(),
            oracle: Oracle::new(scenario, &setup),
            lease: None,
            trace: Trace::new(worded),
            status: Reading::default(),
            pins: [u64::MAX; 2],
            calm: false,
            counts: Counts::new(),
            now: 0,
        };
        let shared = Shared { began: Instant::now(), scenario, setup, state: Mutex::new(state), stop: Notify::new() };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn scenario(&self) -> Scenario {
        self.shared.scenario
    }

    pub(crate) fn numbering(&self) -> Numbering {
        if self.shared.scenario.mode == Mode::Versioned { Numbering::Versioned } else { Numbering::Plain }
    }

    pub(crate) fn setup(&self) -> &Setup {
        &self.shared.setup
    }

    /// Looks at everything or changes it, at one instant. Where the oracle objects to what it sees, the run ends.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.shared.state.lock().unwrap();
        state.now = u64::try_from(self.shared.began.elapsed().as_millis()).unwrap();
        let result = act(&mut state);
        if state.oracle.violation().is_some() {
            self.shared.stop.notify_one();
        }
        result
    }

    pub(crate) fn note(&self, who: &str, what: &str, key: &str) {
        self.with(|state| state.note(who, what, key));
    }

    pub(crate) fn count(&self, what: &'static str) {
        self.with(|state| state.count(what));
    }

    pub(crate) fn draw(&self, least: u64, most: u64) -> u64 {
        self.with(|state| state.rng.u64(least..=most))
    }

    pub(crate) fn chance(&self, percent: u32) -> bool {
        self.with(|state| state.chance(percent))
    }

    /// Until the oracle objects.
    pub(crate) async fn stopped(&self) {
        self.shared.stop.notified().await;
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.shared.began.elapsed()
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clone())
    }

    /// The state, when the run is over.
    pub(crate) fn into_state(self) -> State {
        let setup = self.shared.setup.clone();
        // What panicked may have held it.
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let oracle = Oracle::new(self.shared.scenario, &setup);
        State {
            rng: Rng::with_seed(0),
            bucket: std::mem::take(&mut state.bucket),
            oracle: std::mem::replace(&mut state.oracle, oracle),
            lease: state.lease.take(),
            trace: std::mem::replace(&mut state.trace, Trace::new(false)),
            status: state.status,
            pins: state.pins,
            calm: state.calm,
            counts: std::mem::take(&mut state.counts),
            now: state.now,
        }
    }
}

/// The store's clock at a millisecond of the run.
pub(crate) fn store_time(now: u64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(BEGINS * 1000 + i64::try_from(now).unwrap()).unwrap()
}

impl Clock for World {
    fn now(&self) -> Timestamp {
        Timestamp::new(BEGINS, 0).unwrap() + self.elapsed()
    }
}

/// Waits in simulated time.
#[allow(clippy::disallowed_methods, reason = "the time of a run is simulated: this is how it passes")]
pub(crate) async fn sleep(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}
