//! How fast keys are deleted: the pipeline shares the bucket.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::root::Root;

/// A store that asks for fewer requests is believed at most this often: the answers to requests that were under way together say it once.
const BELIEVE_EVERY: Duration = Duration::from_secs(1);

/// After this long without being asked for less, a tenth of the whole pace comes back.
const EASE_EVERY: Duration = Duration::from_secs(10);

/// Into how many parts the pace can be cut at most: a run goes on, however busy the store is.
const SLOWEST: u64 = 64;

/// Hands out when keys may be deleted. Nothing is saved up: a run that stood still goes on no faster than before.
pub(super) struct Pace {
    /// Keys per second, at most. `None`: it never makes anybody wait.
    most: Option<u64>,
    /// How often the store has asked for fewer requests, as far as it is counted elsewhere.
    asked: Box<dyn Fn() -> u64 + Send + Sync>,
    state: Mutex<State>,
}

struct State {
    /// Keys per second, for now.
    rate: u64,
    /// When the next key may go.
    free: Instant,
    asked: u64,
    slowed: Option<Instant>,
    /// When the rate was changed for the last time.
    changed: Instant,
}

impl Pace {
    /// For the deletes of one run. `most` is in keys per second.
    pub(super) fn new(most: Option<u64>, root: &Root) -> Self {
        let root = root.clone();
        Self::asking(most, move || root.throttled())
    }

    fn asking(most: Option<u64>, asked: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let most = most.map(|most| most.max(1));
        let now = Instant::now();
        let state = State { rate: most.unwrap_or_default(), free: now, asked: asked(), slowed: None, changed: now };
        Self { most, asked: Box::new(asked), state: Mutex::new(state) }
    }

    /// How many keys to delete with one request, of at most `limit`. At least one; no more than go in a second, and as many requests in
    /// each.
    pub(super) fn group(&self, limit: usize) -> usize {
        if self.most.is_none() {
            return limit;
        }
        let rate = self.current().rate;
        let requests = rate.div_ceil(limit.max(1) as u64).max(1);
        usize::try_from(rate / requests).unwrap_or(limit).clamp(1, limit.max(1))
    }

    /// How many keys go in a second as things are. `None`: nobody has to wait.
    pub(super) fn keys_per_second(&self) -> Option<u64> {
        self.most?;
        Some(self.current().rate)
    }

    /// How many keys go in `span` as things are. `None`: nobody has to wait.
    pub(super) fn keys_in(&self, span: Duration) -> Option<u64> {
        Some(self.keys_per_second()?.saturating_mul(span.as_secs()))
    }

    /// Waits until `keys` more may be deleted. They count as deleted even where the future is dropped.
    pub(super) async fn take(&self, keys: usize) {
        if self.most.is_none() {
            return;
        }
        let start = {
            let mut state = self.current();
            let start = state.free.max(Instant::now());
            let nanoseconds = keys as u128 * 1_000_000_000 / u128::from(state.rate.max(1));
            let span = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
            state.free = start.checked_add(span).unwrap_or(start);
            start
        };
        sleep_until(start).await;
    }

    /// The store has asked for fewer requests.
    pub(super) fn slow_down(&self) {
        if let Some(most) = self.most {
            self.state().slow_down(most, Instant::now());
        }
    }

    /// The state, with what the store asked for since, and what time has given back.
    fn current(&self) -> MutexGuard<'_, State> {
        let asked = (self.asked)();
        let mut state = self.state();
        let Some(most) = self.most else { return state };
        let now = Instant::now();
        if asked > state.asked {
            state.asked = asked;
            state.slow_down(most, now);
        }
        while state.rate < most && now.duration_since(state.changed) >= EASE_EVERY {
            state.rate = state.rate.saturating_add((most / 10).max(1)).min(most);
            state.changed += EASE_EVERY;
        }
        state
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn slow_down(&mut self, most: u64, now: Instant) {
        if self.slowed.is_some_and(|slowed| now.duration_since(slowed) < BELIEVE_EVERY) {
            return;
        }
        self.rate = (self.rate / 2).max(most / SLOWEST).max(1);
        (self.slowed, self.changed) = (Some(now), now);
        tracing::debug!(rate = self.rate, most, "the store asks for fewer requests: keys are deleted more slowly");
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pace").field("most", &self.most).field("rate", &self.state().rate).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Deletes groups for a while, and tells at which milliseconds how many keys went.
    async fn delete_for(pace: &Pace, limit: usize, span: Duration) -> Vec<(u128, usize)> {
        let begun = Instant::now();
        let mut gone = Vec::new();
        loop {
            let keys = pace.group(limit);
            pace.take(keys).await;
            if begun.elapsed() >= span {
                return gone;
            }
            gone.push((begun.elapsed().as_millis(), keys));
        }
    }

    fn keys(gone: &[(u128, usize)]) -> usize {
        gone.iter().map(|(_, keys)| keys).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_counted_not_requests_and_no_second_has_more_than_may_go() {
        // Keys per second, and per request; what goes in ten seconds, and in one request.
        for (most, limit, in_ten, in_one) in [
            (1, 1000, 10, 1),
            (100, 1000, 1000, 100),
            (1000, 1000, 10_000, 1000),
            (1500, 1000, 15_000, 750),
            (2000, 1000, 20_000, 1000),
            (5, 1, 50, 1),
            (300, 100, 3000, 100),
        ] {
            let pace = Pace::asking(Some(most), || 0);
            let gone = delete_for(&pace, limit, Duration::from_secs(10)).await;
            assert_eq!((keys(&gone), pace.group(limit)), (in_ten, in_one), "{most} by {limit}");
            for second in 0..10 {
                let in_second: Vec<_> = gone.iter().copied().filter(|(at, _)| at / 1000 == second).collect();
                assert!(keys(&in_second) as u64 <= most, "{most} by {limit}: {in_second:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_stood_still_saves_nothing_up() {
        let pace = Pace::asking(Some(10), || 0);
        tokio::time::advance(Duration::from_hours(1)).await;
        assert_eq!(keys(&delete_for(&pace, 1, Duration::from_secs(5)).await), 50);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_bound_nobody_waits() {
        let (pace, begun) = (Pace::asking(None, || 0), Instant::now());
        for _ in 0..1000 {
            pace.slow_down();
            pace.take(usize::MAX).await;
        }
        assert_eq!((begun.elapsed(), pace.group(1000)), (Duration::ZERO, 1000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_asks_for_less_gets_half_and_what_it_lost_comes_back_slowly() {
        let pace = Pace::asking(Some(1000), || 0);
        pace.slow_down();
        // The same trouble, told by other requests that were under way.
        pace.slow_down();
        assert_eq!(keys(&delete_for(&pace, 1, Duration::from_secs(9)).await), 4500);
        // A tenth of the whole each ten seconds: at 10, 20, 30, 40 and 50 s.
        tokio::time::advance(Duration::from_secs(1)).await;
        let rates: Vec<usize> = [600, 700, 800, 900, 1000, 1000].to_vec();
        for expected in rates {
            let gone = keys(&delete_for(&pace, 1, Duration::from_secs(9)).await);
            assert!(gone.abs_diff(expected * 9) <= expected / 100, "{gone} at {expected} a second");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_goes_on_asking_is_given_way_to_but_not_for_ever() {
        for (most, slowest) in [(2000, 31), (64, 1), (10, 1), (1, 1)] {
            let pace = Pace::asking(Some(most), || 0);
            let mut rates = vec![pace.state().rate];
            for _ in 0..20 {
                pace.slow_down();
                rates.push(pace.state().rate);
                tokio::time::advance(BELIEVE_EVERY).await;
            }
            assert!(rates.windows(2).all(|rates| rates[1] >= rates[0] / 2 && rates[1] <= rates[0]), "{rates:?}");
            assert_eq!(rates.last(), Some(&slowest), "{rates:?}");
            // One key does not take longer than a second by this.
            let begun = Instant::now();
            pace.take(1).await;
            pace.take(1).await;
            assert!(begun.elapsed() <= Duration::from_secs(1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_requests_of_others_were_told_counts_too() {
        let asked = Arc::new(AtomicU64::new(7));
        let told = Arc::clone(&asked);
        let pace = Pace::asking(Some(100), move || told.load(Ordering::Relaxed));
        assert_eq!(pace.group(1000), 100, "what was told before this run does not");
        asked.fetch_add(3, Ordering::Relaxed);
        assert_eq!(pace.group(1000), 50);
        tokio::time::advance(BELIEVE_EVERY).await;
        assert_eq!(pace.group(1000), 50, "it was told once");
    }
}
