//! From the policy as written to the values that the rules take.
//!
//! The API server has checked the form of a policy that it stores, but not that of one in a file, and an older schema may have let
//! through what this one would not. So everything is read here as if nobody had looked at it before.

use std::fmt;
use std::time::Duration;

use epochwarden_core::Numbering;
use epochwarden_core::approval::HoldAbove;
use epochwarden_core::duration::{DurationError, parse_duration};
use epochwarden_core::numbering::ParseEpochError;
use epochwarden_core::plan::Rules;
use epochwarden_core::retention::{KeepEvery, Retention};
use epochwarden_core::schedule::{Schedule, ScheduleError};
use thiserror::Error;

use super::spec::{self, Approval, MAX_VNODES, RetentionSpec, StateEpochPolicy, StateEpochPolicySpec};

/// Which field of a policy, by its path from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field(String);

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A field that says something that cannot be: the reason `InvalidConfiguration`. Each names the field and says what to write.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Invalid {
    /// It is no duration.
    #[error("{field}: {source}")]
    Duration {
        /// The field.
        field: Field,
        /// What is wrong with it.
        source: DurationError,
    },
    /// It is a duration of no length where one is needed.
    #[error("{field}: write a duration longer than 0s")]
    NoLength {
        /// The field.
        field: Field,
    },
    /// It is no epoch.
    #[error("{field}: {source}")]
    Epoch {
        /// The field.
        field: Field,
        /// What is wrong with it.
        source: ParseEpochError,
    },
    /// It is a number that is too small or too large.
    #[error("{field}: {number} is out of range: write a number from {lowest} to {highest}")]
    OutOfRange {
        /// The field.
        field: Field,
        /// What it says.
        number: u32,
        /// The least that it may say.
        lowest: u32,
        /// The most that it may say.
        highest: u32,
    },
}

/// How a policy wants to be pruned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneSettings {
    /// What is kept.
    pub rules: Rules,
    /// Plan only.
    pub dry_run: bool,
    /// The most objects that one run removes.
    pub max_objects: u64,
    /// The most keys that are removed in a second.
    pub max_keys_per_second: u64,
    /// Who approves a plan.
    pub approval: Approval,
    /// A plan above this waits for approval, whoever approves the others.
    pub hold_above: HoldAbove,
    /// The longest that one run takes.
    pub deadline: Duration,
}

/// How a policy wants to be audited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditSettings {
    /// What is kept: what is left over below the floor is a finding.
    pub rules: Rules,
    /// How often the newest seal is looked for between audits; `None`: never.
    pub seal_check_every: Option<Duration>,
    /// From the newest seal on, this long without another is a finding.
    pub stalled_after: Duration,
    /// The longest that one audit takes.
    pub deadline: Duration,
}

/// Reads everything that can be invalid. What is `Ok` here is `Ok` in each of the others.
pub fn check(spec: &StateEpochPolicySpec) -> Result<(), Invalid> {
    prune_settings(spec)?;
    audit_settings(spec)?;
    Ok(())
}

/// How a policy wants to be pruned.
pub fn prune_settings(spec: &StateEpochPolicySpec) -> Result<PruneSettings, Invalid> {
    let prune = &spec.prune;
    Ok(PruneSettings {
        rules: rules(spec)?,
        dry_run: prune.dry_run,
        max_objects: u64::from(within("spec.prune.maxObjects", prune.max_objects, 1, 1_000_000_000)?),
        max_keys_per_second: u64::from(within("spec.prune.maxKeysPerSecond", prune.max_keys_per_second, 1, 1_000_000)?),
        approval: prune.approval,
        hold_above: hold_above(prune.hold_above)?,
        deadline: longer_than_nothing("spec.prune.deadline", &prune.deadline)?,
    })
}

fn hold_above(spec: spec::HoldAbove) -> Result<HoldAbove, Invalid> {
    let percent = within("spec.prune.holdAbove.percent", spec.percent, 0, 100)?;
    Ok(HoldAbove {
        epochs: u64::from(within("spec.prune.holdAbove.epochs", spec.epochs, 0, 1_000_000_000)?),
        percent: u8::try_from(percent).unwrap_or(100),
    })
}

/// How a policy wants to be audited.
pub fn audit_settings(spec: &StateEpochPolicySpec) -> Result<AuditSettings, Invalid> {
    let audit = &spec.audit;
    Ok(AuditSettings {
        rules: rules(spec)?,
        seal_check_every: Some(duration("spec.audit.sealCheckEvery", &audit.seal_check_every)?)
            .filter(|every| !every.is_zero()),
        stalled_after: duration("spec.audit.stalledAfter", &audit.stalled_after)?,
        deadline: longer_than_nothing("spec.audit.deadline", &audit.deadline)?,
    })
}

/// The rules of a plan.
pub fn rules(spec: &StateEpochPolicySpec) -> Result<Rules, Invalid> {
    Ok(Rules {
        vnodes: within("spec.vnodes", spec.vnodes, 1, MAX_VNODES)?,
        retention: retention(&spec.retention, spec.numbering)?,
        min_age: duration("spec.prune.minAge", &spec.prune.min_age)?,
    })
}

/// What is kept.
pub fn retention(spec: &RetentionSpec, numbering: Numbering) -> Result<Retention, Invalid> {
    const MOST: u32 = 1_000_000;
    let keep_every = spec.keep_every.iter().enumerate().map(|(index, rule)| {
        Ok(KeepEvery {
            every: longer_than_nothing(format!("spec.retention.keepEvery[{index}].every"), &rule.every)?,
            for_: longer_than_nothing(format!("spec.retention.keepEvery[{index}].for"), &rule.for_)?,
        })
    });
    let pinned = spec.pinned.iter().enumerate().map(|(index, pin)| {
        let field = || Field(format!("spec.retention.pinned[{index}].epoch"));
        numbering.parse(&pin.epoch).map_err(|source| Invalid::Epoch { field: field(), source })
    });
    Ok(Retention {
        keep_last: spec.keep_last.map(|count| within("spec.retention.keepLast", count, 1, MOST)).transpose()?,
        keep_within: spec
            .keep_within
            .as_ref()
            .map(|text| longer_than_nothing("spec.retention.keepWithin", text))
            .transpose()?,
        keep_every: keep_every.collect::<Result<_, _>>()?,
        pinned: pinned.collect::<Result<_, _>>()?,
        incremental_depth: within("spec.retention.incrementalDepth", spec.incremental_depth, 0, MOST)?,
    })
}

/// When the policy wants to be pruned; `None`: never. An error is the reason `InvalidSchedule`, and concerns nothing but the prune.
pub fn prune_schedule(policy: &StateEpochPolicy) -> Result<Option<Schedule>, ScheduleError> {
    let prune = &policy.spec.prune;
    schedule(policy, "prune", prune.schedule.as_deref(), &prune.time_zone)
}

/// When the policy wants to be audited; `None`: never. An error is the reason `InvalidSchedule`, and concerns nothing but the audit.
pub fn audit_schedule(policy: &StateEpochPolicy) -> Result<Option<Schedule>, ScheduleError> {
    let audit = &policy.spec.audit;
    schedule(policy, "audit", audit.schedule.as_deref(), &audit.time_zone)
}

/// The seed of `H` is the policy and what is run, so that the two runs of a policy do not start in the same minute.
fn schedule(
    policy: &StateEpochPolicy,
    what: &str,
    text: Option<&str>,
    time_zone: &str,
) -> Result<Option<Schedule>, ScheduleError> {
    let uid = policy.metadata.uid.as_deref().unwrap_or_default();
    text.map(|text| Schedule::parse(text, time_zone, &format!("{uid}/{what}"))).transpose()
}

fn duration(field: impl Into<String>, text: &str) -> Result<Duration, Invalid> {
    parse_duration(text).map_err(|source| Invalid::Duration { field: Field(field.into()), source })
}

fn longer_than_nothing(field: impl Into<String>, text: &str) -> Result<Duration, Invalid> {
    let field = field.into();
    let duration = duration(field.as_str(), text)?;
    if duration.is_zero() { Err(Invalid::NoLength { field: Field(field) }) } else { Ok(duration) }
}

fn within(field: &str, number: u32, lowest: u32, highest: u32) -> Result<u32, Invalid> {
    if (lowest..=highest).contains(&number) {
        Ok(number)
    } else {
        Err(Invalid::OutOfRange { field: Field(field.to_owned()), number, lowest, highest })
    }
}

#[cfg(test)]
mod tests;
