//! What prunes have left behind, from run to run.

use epochwarden_core::backlog::{RUNS, falling_behind};

/// What the last prunes have left behind, the newest last. It is not in the status: an operator that has just started says what the one
/// before has said until it has seen as many runs itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backlog {
    left: Vec<u64>,
    behind: bool,
}

impl Backlog {
    /// What an earlier operator has said.
    pub(super) fn of(behind: bool) -> Self {
        Self { left: Vec::new(), behind }
    }

    /// Takes what a run has left because it came to a limit; 0 where it came to none. Says whether prune is falling behind.
    pub(crate) fn after(&mut self, left: u64) -> bool {
        if left == 0 {
            *self = Self::default();
            return false;
        }
        if self.left.len() == RUNS {
            self.left.remove(0);
        }
        self.left.push(left);
        if self.left.len() == RUNS {
            self.behind = falling_behind(&self.left);
        }
        self.behind
    }

    /// The numbers, the newest last.
    pub(crate) fn numbers(&self) -> String {
        let numbers: Vec<String> = self.left.iter().map(u64::to_string).collect();
        numbers.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prune_falls_behind_when_three_runs_in_a_row_left_more_each_and_never_when_one_left_nothing() {
        let mut backlog = Backlog::default();
        let steps = [
            (5, false),
            (6, false),
            (7, true),
            (8, true),
            (8, false),
            (9, false),
            (10, true),
            (0, false),
            (11, false),
            (12, false),
            (13, true),
        ];
        for (left, behind) in steps {
            assert_eq!(backlog.after(left), behind, "{left} left");
        }
        assert_eq!(backlog.numbers(), "11, 12, 13");
    }

    #[test]
    fn after_a_restart_what_was_said_stands_until_as_many_runs_were_seen_or_one_left_nothing() {
        let mut backlog = Backlog::of(true);
        assert!(backlog.after(7) && backlog.after(7));
        assert!(!backlog.after(7));
        assert!(!Backlog::of(true).after(0));
        assert!(!Backlog::of(false).after(7));
    }
}
