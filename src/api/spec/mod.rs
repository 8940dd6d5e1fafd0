//! What a user asks for.
//!
//! The fields are as written: texts that the schema has checked for their form. [`validate`](super::validate) reads them. The comments of
//! the fields are what `kubectl explain` shows.

#![allow(unreachable_pub, reason = "the derive of the schema declares copies of these types inside of functions")]

mod audit;
mod fence;
mod prune;
mod retention;
mod rule;
mod store;

use epochwarden_core::Numbering;
use epochwarden_core::lease::VersionFrom;
use kube::core::Rule;
use kube::{CustomResource, KubeSchema};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::status::StateEpochPolicyStatus;

pub use audit::AuditSpec;
pub use epochwarden_store::{OPTION_KEYS, SECRET_KEYS};
pub use fence::{FenceSpec, LeaseRef};
pub use prune::{Approval, HoldAbove, PruneSpec};
pub use retention::{KeepEverySpec, PinnedEpoch, RetentionSpec};
pub use store::{CaRef, CaSpec, CredentialsSpec, SecretRef, StoreSpec};

/// The most vnodes that a policy may name.
pub const MAX_VNODES: u32 = 1_048_576;

/// What is guarded, and how.
#[derive(Debug, Clone, PartialEq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "epochwarden.io",
    version = "v1alpha1",
    kind = "StateEpochPolicy",
    plural = "stateepochpolicies",
    shortname = "sep",
    category = "epochwarden",
    namespaced,
    status = "StateEpochPolicyStatus",
    derive = "PartialEq",
    doc = "Guards the state epochs that one stream processor keeps in an object store: fences, prunes and audits them."
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = pins_as_numbered())]
pub struct StateEpochPolicySpec {
    /// Where the epochs are.
    pub store: StoreSpec,

    /// How many vnodes the state has. A sealed epoch holds one partial of each, 0 to vnodes - 1. Immutable.
    #[schemars(range(min = 1, max = 1_048_576))]
    #[x_kube(validation = rule::immutable("spec.vnodes", "another number of vnodes is another state"))]
    pub vnodes: u32,

    /// How epochs are numbered. Plain: by one rising number. Versioned: by version * 2^40 + sequence, so that two leaders never share an
    /// epoch; shown and accepted as v7/12. Immutable.
    #[serde(default)]
    #[schemars(schema_with = "numbering")]
    #[x_kube(validation = rule::immutable("spec.numbering", "the epochs in the store are numbered already"))]
    pub numbering: Numbering,

    /// The fence against deposed leaders. Without it the operator publishes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<FenceSpec>,

    /// Which sealed epochs are kept; each rule keeps more. Without `keepLast`, `keepWithin` and `keepEvery` everything is kept. The newest
    /// sealed epoch and the newest complete one are always kept.
    #[serde(default, skip_serializing_if = "RetentionSpec::is_empty")]
    pub retention: RetentionSpec,

    /// When and how epochs that retention does not keep are removed.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub prune: PruneSpec,

    /// When sealed epochs are checked.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub audit: AuditSpec,

    /// Suspends the whole policy: nothing is written to the store, and the fence does not move either.
    #[serde(default)]
    pub suspend: bool,
}

/// Pinned epochs are written as the numbering writes them.
fn pins_as_numbered() -> Rule {
    rule::rule(
        "self.numbering == 'Versioned' || !has(self.retention) || !has(self.retention.pinned) || \
         self.retention.pinned.all(pin, !pin.epoch.startsWith('v'))",
        "spec.retention.pinned[].epoch",
        "write it in decimal digits, such as \"4711\": only with numbering: Versioned has an epoch the form v7/12",
    )
}

fn numbering(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": [Numbering::Plain, Numbering::Versioned] })
}

impl StateEpochPolicy {
    /// How the Lease becomes a version; the default where the policy names no Lease.
    #[must_use]
    pub fn version_from(&self) -> VersionFrom {
        self.spec.fence.as_ref().map(|fence| fence.version_from).unwrap_or_default()
    }

    /// Whether the operator writes to the store by itself: it publishes the fence, or prunes on schedule.
    #[must_use]
    pub fn writes(&self) -> bool {
        let prunes = self.spec.prune.schedule.is_some() && !self.spec.prune.suspend && !self.spec.prune.dry_run;
        !self.spec.suspend && (self.spec.fence.is_some() || prunes)
    }
}
