//! When sealed epochs are checked.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{prune, rule};

/// When sealed epochs are checked, and what counts as stalled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditSpec {
    /// When: five cron fields, in which H is a stable offset of this policy's own ("H/15 * * * *"), or a word such as @hourly. Absent:
    /// never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    #[x_kube(validation = rule::schedule("spec.audit.schedule"))]
    pub schedule: Option<String>,

    /// The time zone of the schedule.
    #[serde(default = "prune::time_zone")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = rule::time_zone("spec.audit.timeZone"))]
    pub time_zone: String,

    /// Skips the slots of the schedule.
    #[serde(default)]
    pub suspend: bool,

    /// How often the newest seal is looked for between audits, for status.epochs and `stalledAfter`. 0s: never.
    #[serde(default = "seal_check_every")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = rule::duration("spec.audit.sealCheckEvery"))]
    pub seal_check_every: String,

    /// Report a pipeline that writes epochs and has sealed none for this time.
    #[serde(default = "stalled_after")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = rule::duration("spec.audit.stalledAfter"))]
    pub stalled_after: String,

    /// Stop an audit after this time.
    #[serde(default = "prune::deadline")]
    #[schemars(length(max = 32))]
    #[x_kube(
        validation = rule::duration("spec.audit.deadline"),
        validation = rule::longer_than_nothing("spec.audit.deadline")
    )]
    pub deadline: String,
}

impl Default for AuditSpec {
    fn default() -> Self {
        Self {
            schedule: None,
            time_zone: prune::time_zone(),
            suspend: false,
            seal_check_every: seal_check_every(),
            stalled_after: stalled_after(),
            deadline: prune::deadline(),
        }
    }
}

fn seal_check_every() -> String {
    "5m".to_owned()
}

fn stalled_after() -> String {
    "30m".to_owned()
}
