//! When and how epochs are removed.

use std::fmt;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::rule;

/// When and how epochs that retention does not keep are removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PruneSpec {
    /// When: five cron fields, in which H is a stable offset of this policy's own ("H/15 * * * *"), or a word such as @hourly. Absent:
    /// never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    #[x_kube(validation = rule::schedule("spec.prune.schedule"))]
    pub schedule: Option<String>,

    /// The time zone of the schedule.
    #[serde(default = "time_zone")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = rule::time_zone("spec.prune.timeZone"))]
    pub time_zone: String,

    /// Skips the slots of the schedule.
    #[serde(default)]
    pub suspend: bool,

    /// Only plans, and shows the plan in the status: nothing is removed.
    #[serde(default)]
    pub dry_run: bool,

    /// Who approves a plan. Automatic: nobody has to.
    #[serde(default)]
    pub approval: Approval,

    /// Keep an epoch while one of its objects is younger than this, by the store's clock, or no sealed epoch above it is older: someone
    /// may be restoring it. 0s turns this off.
    #[serde(default = "min_age")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = rule::duration("spec.prune.minAge"))]
    pub min_age: String,

    /// Remove at most this many objects in one run. The rest is the next run's.
    #[serde(default = "max_objects")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_objects: u32,

    /// Stop a run after this time. The rest is the next run's.
    #[serde(default = "deadline")]
    #[schemars(length(max = 32))]
    #[x_kube(
        validation = rule::duration("spec.prune.deadline"),
        validation = rule::longer_than_nothing("spec.prune.deadline")
    )]
    pub deadline: String,
}

impl Default for PruneSpec {
    fn default() -> Self {
        Self {
            schedule: None,
            time_zone: time_zone(),
            suspend: false,
            dry_run: false,
            approval: Approval::default(),
            min_age: min_age(),
            max_objects: max_objects(),
            deadline: deadline(),
        }
    }
}

/// Who approves a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Approval {
    /// Nobody has to.
    #[default]
    Automatic,
}

impl fmt::Display for Approval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Automatic => "Automatic",
        })
    }
}

pub(super) fn time_zone() -> String {
    "Etc/UTC".to_owned()
}

pub(super) fn deadline() -> String {
    "30m".to_owned()
}

fn min_age() -> String {
    "10m".to_owned()
}

const fn max_objects() -> u32 {
    1_000_000
}
