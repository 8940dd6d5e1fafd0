//! What the operator answers.
//!
//! Everything here is bounded, because it is written to etcd: the lists by [`MAX_FINDINGS`], [`MAX_HISTORY`] and [`MAX_RANGES`], the
//! numbers by [`Count`]. Who fills the lists keeps to these bounds; the schema refuses what is longer.

mod plan;
mod runs;
mod schema;

use epochwarden_core::inventory::EpochsSummary;
use epochwarden_core::{ShownEpoch, Version};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

pub use epochwarden_core::finding::MAX_FINDINGS;
pub use plan::{PlanRange, PlanStatus};
pub use runs::{AuditStatus, FindingStatus, PastRun, Phase, ProgressStatus, PruneStatus, RunKind};

/// The most past runs that `history` holds: the newest.
pub const MAX_HISTORY: usize = 10;

/// The most ranges that each list of `plan` holds.
pub const MAX_RANGES: usize = 20;

/// A number of things, which ends where JSON integers of Kubernetes end: at 2^63-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Count(i64);

impl Count {
    /// The bare number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.unsigned_abs()
    }
}

impl From<u64> for Count {
    fn from(number: u64) -> Self {
        Self(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Count {
    fn from(number: u32) -> Self {
        Self(i64::from(number))
    }
}

impl From<usize> for Count {
    fn from(number: usize) -> Self {
        Self(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl JsonSchema for Count {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Count".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "format": "int64", "minimum": 0 })
    }
}

/// What was observed. It is computed whole, and applied whole.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateEpochPolicyStatus {
    /// The generation of the policy that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready, `StoreReady`, `FenceCurrent`, `PruneHealthy`, `AuditClean`; and Stalled or Reconciling while they hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,

    /// The store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreStatus>,

    /// The fence as it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<FenceStatus>,

    /// The epochs, as of `observedAt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<EpochsStatus>,

    /// The last plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,

    /// The last prune.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune: Option<PruneStatus>,

    /// The last audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditStatus>,

    /// Past runs, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub history: Vec<PastRun>,

    /// The value of the annotation `epochwarden.io/run` that was honoured last. The same value never runs again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_request: Option<String>,

    /// The value of the annotation `epochwarden.io/take-over` that was honoured last. The same value never takes over again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_take_over: Option<String>,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreStatus {
    /// Which kind of store it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,

    /// What the last probe found that it can do. Absent until it was probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<CapabilitiesStatus>,

    /// When it was probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_time")]
    pub probed_at: Option<Timestamp>,
}

/// What a store can do, as a probe found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct CapabilitiesStatus {
    /// Of several writers that create the same key, exactly one succeeds. Without it the store is unsafe.
    pub conditional_create: bool,

    /// What was written is in the next listing. Without it the store is unsafe.
    pub consistent_list: bool,

    /// One request deletes many keys. Without it they go one by one.
    pub bulk_delete: bool,

    /// A listing can be cut at a delimiter of several characters. Without it everything is listed.
    pub delimiter_index: bool,

    /// It keeps the versions of objects: what is deleted frees nothing until a lifecycle rule removes them.
    pub versioned: bool,

    /// It locks objects for a time: they cannot be deleted before.
    pub object_lock: bool,
}

/// The fence as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FenceStatus {
    /// The version at which the fence stands, 1 to 2^53-1.
    #[schemars(schema_with = "schema::version")]
    pub version: Version,

    /// Who leads in that version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,

    /// The `leaseTransitions` of the Lease when it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_transitions: Option<i32>,

    /// The uid of the Lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_uid: Option<String>,

    /// When it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_time")]
    pub published_at: Option<Timestamp>,

    /// From the change of the Lease to the durable fence: the window in which a deposed leader still worked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_milliseconds: Option<Count>,
}

/// The epochs, as of `observed_at`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EpochsStatus {
    /// The newest sealed epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub latest_committed: Option<ShownEpoch>,

    /// When it was sealed, by the store's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_time")]
    pub latest_committed_at: Option<Timestamp>,

    /// Who sealed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_committer: Option<String>,

    /// The oldest sealed epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub oldest_sealed: Option<ShownEpoch>,

    /// How many sealed epochs there are.
    pub sealed: Count,

    /// How many unsealed epochs there are.
    pub unsealed: Count,

    /// How many objects they have, by the last prune or audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<Count>,

    /// How many bytes these have, by the last prune or audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Count>,

    /// When this was observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_time")]
    pub observed_at: Option<Timestamp>,
}

impl From<&EpochsSummary> for EpochsStatus {
    fn from(summary: &EpochsSummary) -> Self {
        Self {
            latest_committed: summary.latest_committed,
            latest_committed_at: summary.latest_committed_at,
            latest_committer: None,
            oldest_sealed: summary.oldest_sealed,
            sealed: summary.sealed.into(),
            unsealed: summary.unsealed.into(),
            objects: Some(summary.objects.into()),
            bytes: Some(summary.bytes.into()),
            observed_at: Some(summary.observed_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use epochwarden_core::{Epoch, Numbering};

    use super::*;

    #[test]
    fn a_count_ends_where_the_integers_of_kubernetes_end() {
        for (number, count) in [(0, 0), (7, 7), (i64::MAX.unsigned_abs(), i64::MAX), (u64::MAX, i64::MAX)] {
            assert_eq!(serde_json::to_value(Count::from(number)).unwrap(), count);
            assert_eq!(Count::from(number).get(), count.unsigned_abs());
        }
    }

    #[test]
    fn an_epoch_is_a_string_in_the_status_and_what_is_not_known_is_absent() {
        let epochs = EpochsStatus {
            latest_committed: Some(Numbering::Plain.show(Epoch::new(u64::MAX))),
            ..EpochsStatus::default()
        };
        let status = StateEpochPolicyStatus { epochs: Some(epochs), ..StateEpochPolicyStatus::default() };
        let json = serde_json::to_value(&status).unwrap();
        let epochs = serde_json::json!({
            "latestCommitted": "18446744073709551615",
            "sealed": 0,
            "unsealed": 0,
        });
        assert_eq!(json, serde_json::json!({ "epochs": epochs }));
        assert_eq!(serde_json::from_value::<StateEpochPolicyStatus>(json).unwrap(), status);
    }
}
