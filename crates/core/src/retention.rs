//! What a policy wants kept: the rules that choose among sealed epochs.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::epoch::Epoch;

/// The newest seal of each window of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeepEvery {
    /// The length of a window; windows are aligned to the Unix epoch. Without a length, every instant is a window of its own.
    pub every: Duration,
    /// How far back from the newest seal.
    pub for_: Duration,
}

/// What is kept. Every span is counted back from the newest seal, never from a clock: a pipeline that stands still loses nothing.
///
/// There is no default retention: the empty one keeps everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// This many of the newest sealed epochs.
    pub keep_last: Option<u32>,
    /// Every epoch sealed within this span.
    pub keep_within: Option<Duration>,
    /// The newest seal of each window. Their order and repetitions mean nothing.
    pub keep_every: Vec<KeepEvery>,
    /// These epochs, sealed or not.
    pub pinned: BTreeSet<Epoch>,
    /// This many sealed epochs below each kept one, and everything between.
    pub incremental_depth: u32,
}

/// The sealed epochs that each rule chose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) last: BTreeSet<Epoch>,
    pub(crate) within: BTreeSet<Epoch>,
    pub(crate) every: BTreeSet<Epoch>,
}

impl Retention {
    /// Whether no rule says what may go, so that everything stays. Pins add to what is kept and say nothing about the rest.
    #[must_use]
    pub fn keeps_everything(&self) -> bool {
        self.keep_last.is_none() && self.keep_within.is_none() && self.keep_every.is_empty()
    }

    /// Lets each rule choose among the sealed epochs, which come with the time of their seal, the highest number first.
    pub(crate) fn choose(&self, newest_first: &[(Epoch, Timestamp)]) -> Chosen {
        let Some((_, newest)) = newest_first.first().copied() else {
            return Chosen::default();
        };
        let within = |span: Duration| {
            newest_first
                .iter()
                .copied()
                .filter(move |(_, sealed)| nanoseconds(*sealed, newest) <= span_nanoseconds(span))
        };
        let mut chosen = Chosen::default();
        if let Some(count) = self.keep_last {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            chosen.last.extend(newest_first.iter().take(count).map(|(epoch, _)| *epoch));
        }
        if let Some(span) = self.keep_within {
            chosen.within.extend(within(span).map(|(epoch, _)| epoch));
        }
        for rule in &self.keep_every {
            let length = span_nanoseconds(rule.every).max(1);
            let mut windows = BTreeSet::new();
            for (epoch, sealed) in within(rule.for_) {
                if windows.insert(sealed.as_nanosecond().div_euclid(length)) {
                    chosen.every.insert(epoch);
                }
            }
        }
        chosen
    }
}

/// The nanoseconds from `earlier` to `later`; negative when they come the other way round.
pub(crate) fn nanoseconds(earlier: Timestamp, later: Timestamp) -> i128 {
    later.as_nanosecond() - earlier.as_nanosecond()
}

/// A span in nanoseconds, comparable with [`nanoseconds`].
pub(crate) fn span_nanoseconds(span: Duration) -> i128 {
    i128::try_from(span.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Seals given as (epoch, second), the highest epoch first.
    fn choose(retention: &Retention, seals: &[(u64, i64)]) -> Chosen {
        let seals: Vec<_> = seals
            .iter()
            .map(|(epoch, second)| (Epoch::new(*epoch), Timestamp::from_second(*second).unwrap()))
            .collect();
        retention.choose(&seals)
    }

    fn epochs(epochs: impl IntoIterator<Item = u64>) -> BTreeSet<Epoch> {
        epochs.into_iter().map(Epoch::new).collect()
    }

    #[test]
    fn only_last_within_and_every_say_that_something_may_go() {
        let pins = Retention { pinned: epochs([5]), incremental_depth: 3, ..Retention::default() };
        assert!(Retention::default().keeps_everything() && pins.keeps_everything());
        let every = KeepEvery { every: seconds(1), for_: seconds(1) };
        for retention in [
            Retention { keep_last: Some(0), ..Retention::default() },
            Retention { keep_within: Some(seconds(0)), ..Retention::default() },
            Retention { keep_every: vec![every], ..Retention::default() },
        ] {
            assert!(!retention.keeps_everything(), "{retention:?}");
        }
    }

    #[test]
    fn keep_last_counts_sealed_epochs_from_the_highest_number() {
        let seals = [(u64::MAX, 1), (70, 9), (5, 5)];
        for (count, kept) in [
            (0, epochs([])),
            (1, epochs([u64::MAX])),
            (2, epochs([u64::MAX, 70])),
            (u32::MAX, epochs([u64::MAX, 70, 5])),
        ] {
            let retention = Retention { keep_last: Some(count), ..Retention::default() };
            assert_eq!(choose(&retention, &seals).last, kept, "{count}");
        }
    }

    #[test]
    fn keep_within_counts_back_from_the_seal_of_the_highest_number_its_edge_included() {
        for (what, seals, kept) in [
            ("the edge is inside", [(9, 100), (8, 90), (7, 89)], epochs([9, 8])),
            ("a seal later than the newest one is inside", [(9, 100), (8, 200), (7, 80)], epochs([9, 8])),
            ("a time before 1970 is a time", [(9, 5), (8, -5), (7, -6)], epochs([9, 8])),
        ] {
            let retention = Retention { keep_within: Some(seconds(10)), ..Retention::default() };
            assert_eq!(choose(&retention, &seals).within, kept, "{what}");
        }
    }

    #[test]
    fn keep_every_takes_the_highest_number_of_each_window() {
        let rule = |every, span| KeepEvery { every: seconds(every), for_: seconds(span) };
        for (what, rules, seals, kept) in [
            (
                "windows begin at multiples",
                vec![rule(10, 100)],
                vec![(4, 31), (3, 29), (2, 20), (1, 19)],
                epochs([4, 3, 1]),
            ),
            ("only within the span", vec![rule(10, 11)], vec![(4, 31), (3, 29), (2, 20), (1, 19)], epochs([4, 3])),
            ("its edge included", vec![rule(10, 12)], vec![(4, 31), (3, 29), (2, 20), (1, 19)], epochs([4, 3, 1])),
            ("windows reach below zero", vec![rule(10, 100)], vec![(4, 9), (3, 0), (2, -1), (1, -10)], epochs([4, 2])),
            ("rules add up", vec![rule(10, 3), rule(100, 300)], vec![(4, 201), (3, 199), (2, 150)], epochs([4, 3])),
            ("no length: every instant", vec![rule(0, 2)], vec![(4, 3), (3, 3), (2, 2), (1, 0)], epochs([4, 2])),
            (
                "an hour's windows over half a million years cost nothing",
                vec![rule(1, u64::MAX)],
                vec![(4, 253_402_207_200), (3, -377_705_023_201)],
                epochs([4, 3]),
            ),
        ] {
            let retention = Retention { keep_every: rules, ..Retention::default() };
            assert_eq!(choose(&retention, &seals).every, kept, "{what}");
        }
    }

    #[test]
    fn nothing_sealed_is_nothing_chosen() {
        let retention = Retention { keep_last: Some(3), keep_within: Some(Duration::MAX), ..Retention::default() };
        assert_eq!(choose(&retention, &[]), Chosen::default());
    }
}
