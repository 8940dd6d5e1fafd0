//! The runs: prunes and audits, the last ones and those before.

use std::collections::BTreeMap;

use epochwarden_core::{ShownEpoch, Vnode};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Count, schema};

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// It is due, and waits for its turn.
    Pending,
    /// It runs.
    Running,
    /// It did what it should.
    Succeeded,
    /// It did a part; the rest was reported, and is the next run's.
    PartlyFailed,
    /// It removed nothing, because its plan waits for approval.
    AwaitingApproval,
    /// It removed nothing, because something is not as it should be.
    Held,
    /// It was stopped: by its deadline, by a suspension, by a change of the policy or by the end of the operator.
    Stopped,
    /// It could not do its work.
    Failed,
}

impl Phase {
    /// Its name, as the status, the Events and the metrics show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::PartlyFailed => "PartlyFailed",
            Self::AwaitingApproval => "AwaitingApproval",
            Self::Held => "Held",
            Self::Stopped => "Stopped",
            Self::Failed => "Failed",
        }
    }
}

/// The last prune, or the one that runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PruneStatus {
    /// How far it has come. Absent when none has run yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,

    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_time")]
    pub started_at: Option<Timestamp>,

    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_time")]
    pub finished_at: Option<Timestamp>,

    /// How many epochs it removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<Count>,

    /// How many objects it removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<Count>,

    /// How many bytes these had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Count>,

    /// How many objects it could not remove. The next run tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Count>,

    /// How many requests it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Count>,

    /// The floor as it stands: no epoch below it may be sealed any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub floor: Option<ShownEpoch>,

    /// What happened, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// When the next one is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_time")]
    pub next_run_at: Option<Timestamp>,

    /// How far it has come, in objects, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressStatus>,
}

/// How far a prune has come, in objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgressStatus {
    /// Removed.
    pub done: Count,

    /// To be removed in all.
    pub total: Count,
}

/// The last audit, or the one that runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditStatus {
    /// How far it has come. Absent when none has run yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,

    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_time")]
    pub started_at: Option<Timestamp>,

    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_time")]
    pub finished_at: Option<Timestamp>,

    /// The last audit that ended, in one word: Clean, Warning or Critical.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,

    /// What it looked at, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<String>,

    /// How many findings there are of each kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub counts: BTreeMap<String, Count>,

    /// The first findings, the worst ones first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub findings: Vec<FindingStatus>,

    /// When the next one is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_time")]
    pub next_run_at: Option<Timestamp>,
}

/// One thing that an audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FindingStatus {
    /// What is wrong.
    pub kind: String,

    /// How bad it is: critical, warning or info.
    pub severity: String,

    /// The epoch it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub epoch: Option<ShownEpoch>,

    /// The first vnode it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<u32>")]
    pub vnode: Option<Vnode>,

    /// What, on which objects, and what to do.
    pub detail: String,
}

impl From<&epochwarden_core::finding::Finding> for FindingStatus {
    fn from(finding: &epochwarden_core::finding::Finding) -> Self {
        Self {
            kind: finding.kind.as_str().to_owned(),
            severity: finding.severity.as_str().to_owned(),
            epoch: finding.epoch,
            vnode: finding.vnode,
            detail: finding.detail.clone(),
        }
    }
}

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum RunKind {
    /// A prune.
    Prune,
    /// An audit.
    Audit,
}

impl RunKind {
    /// Its name, as the status shows it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prune => "Prune",
            Self::Audit => "Audit",
        }
    }
}

/// A run that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PastRun {
    /// What ran.
    pub kind: RunKind,

    /// When it started.
    #[schemars(schema_with = "schema::time")]
    pub started_at: Timestamp,

    /// When it ended.
    #[schemars(schema_with = "schema::time")]
    pub finished_at: Timestamp,

    /// How it ended.
    pub result: Phase,

    /// What happened, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
