//! The fence against deposed leaders.

use epochwarden_core::lease::VersionFrom;
use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::rule;

/// Which Lease says who leads, and how it becomes a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FenceSpec {
    /// The Lease of the pipeline's leader election.
    pub lease_ref: LeaseRef,

    /// What gives the assignment version. `LeaseTransitions`: the Lease's `leaseTransitions` + 1. Annotation: the Lease's annotation
    /// `epochwarden.io/assignment-version`, which the leader sets. Assigned: the highest version + 1 for each new term, which the leader
    /// waits for.
    #[serde(default)]
    #[schemars(schema_with = "version_from")]
    pub version_from: VersionFrom,
}

/// A Lease in the policy's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseRef {
    /// Its name.
    #[schemars(length(max = 253))]
    #[x_kube(validation = rule::object_name("spec.fence.leaseRef.name", "Lease"))]
    pub name: String,
}

fn version_from(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": [VersionFrom::LeaseTransitions, VersionFrom::Annotation, VersionFrom::Assigned] })
}
