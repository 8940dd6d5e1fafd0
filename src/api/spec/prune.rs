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

    /// Who approves a plan. Automatic: nobody has to, unless it is one of `holdAbove`. Manual: a person, by the annotation
    /// epochwarden.io/approve-plan with the digest of status.plan.
    #[serde(default)]
    pub approval: Approval,

    /// A plan that removes more than both of these waits for approval, whatever `approval` says.
    #[serde(default)]
    pub hold_above: HoldAbove,

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

    /// Remove at most this many keys per second: the pipeline shares the bucket.
    #[serde(default = "max_keys_per_second")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_keys_per_second: u32,

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
            hold_above: HoldAbove::default(),
            min_age: min_age(),
            max_objects: max_objects(),
            max_keys_per_second: max_keys_per_second(),
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
    /// A person, for every plan.
    Manual,
}

impl fmt::Display for Approval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Automatic => "Automatic",
            Self::Manual => "Manual",
        })
    }
}

/// A plan that removes more than both of these waits for approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HoldAbove {
    /// More epochs than this.
    #[serde(default = "hold_above_epochs")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub epochs: u32,

    /// And more than this many percent of the epochs that are listed. 100 turns this off.
    #[serde(default = "hold_above_percent")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: u32,
}

impl Default for HoldAbove {
    fn default() -> Self {
        Self { epochs: hold_above_epochs(), percent: hold_above_percent() }
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

const fn max_keys_per_second() -> u32 {
    2_000
}

const fn hold_above_epochs() -> u32 {
    1_000
}

const fn hold_above_percent() -> u32 {
    50
}
