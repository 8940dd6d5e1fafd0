//! Whether prune keeps up with the pipeline.

/// How many runs in a row have to leave more behind than the one before.
pub const RUNS: usize = 3;

/// Whether the backlog (what a run would have deleted and did not get to) grew over the last [`RUNS`] runs, of which each left
/// something: the pipeline writes faster than prune may delete. `backlogs` is one number for each run, the newest last.
#[must_use]
pub fn falling_behind(backlogs: &[u64]) -> bool {
    let Some(last) = backlogs.last_chunk::<RUNS>() else { return false };
    last.first().is_some_and(|first| *first > 0) && last.is_sorted_by(|a, b| a < b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_that_grew_from_run_to_run_over_three_runs_is_falling_behind() {
        let cases: [(&[u64], bool); 12] = [
            (&[], false),
            (&[9], false),
            (&[8, 9], false),
            (&[1, 2, 3], true),
            (&[7, 1, 2, 3], true),
            (&[1, 2, 3, 3], false),
            (&[1, 2, 2], false),
            (&[2, 2, 3], false),
            (&[1, 3, 2], false),
            (&[3, 2, 1], false),
            // The run before the last two left nothing.
            (&[0, 1, 2], false),
            (&[u64::MAX - 2, u64::MAX - 1, u64::MAX], true),
        ];
        for (backlogs, expected) in cases {
            assert_eq!(falling_behind(backlogs), expected, "{backlogs:?}");
        }
    }
}
