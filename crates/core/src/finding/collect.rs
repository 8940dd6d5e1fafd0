//! Keeps the findings that matter most, in memory that does not grow with what is wrong.

use std::collections::BTreeMap;

use super::problem::{Problem, Rank};
use super::{Finding, FindingKind, MAX_FINDINGS, Severity, Verdict};
use crate::numbering::Numbering;

/// Counts all problems and keeps the foremost ones. The order in which they come makes no difference.
#[derive(Debug, Default)]
pub(super) struct Collected {
    counts: BTreeMap<FindingKind, u64>,
    worst: Option<Severity>,
    foremost: BTreeMap<Rank, Problem>,
    dropped: bool,
}

impl Collected {
    pub(super) fn add(&mut self, problem: Problem) {
        *self.counts.entry(problem.kind()).or_default() += problem.count();
        self.worst = self.worst.map_or(Some(problem.severity()), |worst| Some(worst.min(problem.severity())));
        self.foremost.insert(problem.rank(), problem);
        if self.foremost.len() > MAX_FINDINGS {
            self.foremost.pop_last();
            self.dropped = true;
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        match self.worst {
            Some(Severity::Critical) => Verdict::Critical,
            Some(Severity::Warning) => Verdict::Warning,
            Some(Severity::Info) | None => Verdict::Clean,
        }
    }

    pub(super) fn criticals(&self) -> usize {
        self.foremost.values().filter(|problem| problem.severity() == Severity::Critical).count()
    }

    /// Whether there were more than are kept.
    pub(super) const fn truncated(&self) -> bool {
        self.dropped
    }

    pub(super) fn into_parts(self, numbering: Numbering) -> (BTreeMap<FindingKind, u64>, Vec<Finding>) {
        (self.counts, self.foremost.into_values().map(|problem| problem.into_finding(numbering)).collect())
    }
}
