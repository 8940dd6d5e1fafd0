//! The last plan, in short.

use std::fmt;

use epochwarden_core::ShownEpoch;
use epochwarden_core::plan::{PlanSummary, Range};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Count, MAX_RANGES, schema};

/// The last plan: what is kept and what is removed, and why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanStatus {
    /// The SHA-256 of what the plan decides.
    pub digest: String,

    /// The highest epoch to remove, + 1. Absent when nothing is to be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub before: Option<ShownEpoch>,

    /// The highest epoch that the plan saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub through: Option<ShownEpoch>,

    /// The newest last-modified that the plan saw: its ages count back from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_time")]
    pub computed_at: Option<Timestamp>,

    /// When a person approved it. What it removes is removed since, as far as it still may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_time")]
    pub approved_at: Option<Timestamp>,

    /// How many epochs are to be removed.
    pub epochs: Count,

    /// How many objects these have.
    pub objects: Count,

    /// How many bytes these have.
    pub bytes: Count,

    /// What is kept, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub keep: Vec<PlanRange>,

    /// What is to be removed, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub delete: Vec<PlanRange>,

    /// Whether there are more ranges than keep and delete show.
    #[serde(default)]
    pub truncated: bool,
}

/// Epochs next to each other in the listing for which the plan decides the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanRange {
    /// The lowest of them.
    #[schemars(with = "String")]
    pub from: ShownEpoch,

    /// The highest of them.
    #[schemars(with = "String")]
    pub to: ShownEpoch,

    /// Why.
    pub reason: String,
}

impl From<&PlanSummary> for PlanStatus {
    /// Where there are too many ranges, the newest epochs that are kept and the oldest that go are shown.
    fn from(summary: &PlanSummary) -> Self {
        let PlanSummary { digest, before, through, computed_at, totals, keep, delete, hold: _ } = summary;
        Self {
            digest: digest.clone(),
            before: *before,
            through: *through,
            computed_at: *computed_at,
            approved_at: None,
            epochs: totals.epochs.into(),
            objects: totals.objects.into(),
            bytes: totals.bytes.into(),
            keep: keep.iter().skip(keep.len().saturating_sub(MAX_RANGES)).map(PlanRange::from).collect(),
            delete: delete.iter().take(MAX_RANGES).map(PlanRange::from).collect(),
            truncated: keep.len() > MAX_RANGES || delete.len() > MAX_RANGES,
        }
    }
}

impl<R: fmt::Display> From<&Range<R>> for PlanRange {
    fn from(range: &Range<R>) -> Self {
        Self { from: range.from, to: range.to, reason: range.reason.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use epochwarden_core::plan::{DeleteReason, KeepReason, PlanTotals};
    use epochwarden_core::{Epoch, Numbering};

    use super::*;

    fn shown(number: u64) -> ShownEpoch {
        Numbering::Plain.show(Epoch::new(number))
    }

    fn ranges<R: Copy>(count: u64, reason: R) -> Vec<Range<R>> {
        (0..count).map(|number| Range { from: shown(10 * number), to: shown(10 * number + 1), reason }).collect()
    }

    fn summary(keep: u64, delete: u64) -> PlanSummary {
        PlanSummary {
            digest: "d1".to_owned(),
            before: Some(shown(7)),
            through: None,
            computed_at: None,
            totals: PlanTotals { epochs: 1, objects: 2, bytes: u64::MAX },
            keep: ranges(keep, KeepReason::KeepLast),
            delete: ranges(delete, DeleteReason::Expired),
            hold: None,
        }
    }

    #[test]
    fn a_plan_is_shown_with_the_words_of_its_reasons() {
        let status = PlanStatus::from(&summary(1, 1));
        let keep = PlanRange { from: shown(0), to: shown(1), reason: "KeepLast".to_owned() };
        let delete = PlanRange { reason: "Expired".to_owned(), ..keep.clone() };
        assert_eq!((status.keep, status.delete), (vec![keep], vec![delete]));
        assert_eq!((status.epochs.get(), status.objects.get(), status.bytes.get()), (1, 2, i64::MAX.unsigned_abs()));
        assert!(!status.truncated);
    }

    #[test]
    fn of_too_many_ranges_the_newest_kept_and_the_oldest_deleted_are_shown() {
        let most = u64::try_from(MAX_RANGES).unwrap();
        assert!(!PlanStatus::from(&summary(most, most)).truncated);
        for (keep, delete) in [(most + 5, 1), (1, most + 5)] {
            let status = PlanStatus::from(&summary(keep, delete));
            assert!(status.truncated);
            assert!(status.keep.len() <= MAX_RANGES && status.delete.len() <= MAX_RANGES);
            assert_eq!(status.keep.last().unwrap().from, shown(10 * (keep - 1)));
            assert_eq!(status.delete.first().unwrap().from, shown(0));
        }
    }
}
