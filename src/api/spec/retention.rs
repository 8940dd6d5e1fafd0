//! Which sealed epochs are kept.

use kube::KubeSchema;
use kube::core::Rule;
use serde::{Deserialize, Serialize};

use super::rule;

/// Which sealed epochs are kept. Each rule keeps more; without `keepLast`, `keepWithin` and `keepEvery` everything is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetentionSpec {
    /// Keep this many of the newest sealed epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub keep_last: Option<u32>,

    /// Keep what was sealed within this time, counted back from the newest seal: a stopped pipeline loses nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(
        validation = rule::duration("spec.retention.keepWithin"),
        validation = rule::longer_than_nothing("spec.retention.keepWithin")
    )]
    pub keep_within: Option<String>,

    /// Keep the newest seal of each window of time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub keep_every: Vec<KeepEverySpec>,

    /// Keep these epochs, whatever their age.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["epoch"]))]
    pub pinned: Vec<PinnedEpoch>,

    /// For incremental state: also keep this many sealed epochs below each kept one, and everything between.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub incremental_depth: u32,
}

impl RetentionSpec {
    /// Whether nothing was written, so that everything is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Keep one seal of each window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeepEverySpec {
    /// How long each window is. Windows are aligned to Unix time.
    #[schemars(length(max = 32))]
    #[x_kube(
        validation = rule::duration("spec.retention.keepEvery[].every"),
        validation = rule::longer_than_nothing("spec.retention.keepEvery[].every")
    )]
    pub every: String,

    /// How far back windows reach, counted from the newest seal.
    #[serde(rename = "for")]
    #[schemars(length(max = 32))]
    #[x_kube(
        validation = rule::duration("spec.retention.keepEvery[].for"),
        validation = rule::longer_than_nothing("spec.retention.keepEvery[].for")
    )]
    pub for_: String,
}

/// An epoch that is kept whatever its age.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PinnedEpoch {
    /// The epoch, as a text: "4711", or with Versioned numbering "v7/12".
    #[schemars(length(max = 32))]
    #[x_kube(validation = epoch())]
    pub epoch: String,

    /// Why it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub note: Option<String>,
}

/// A canonical decimal up to 2^63-1, or a version and a sequence. Texts of 19 digits order as their numbers do. Whether the numbering has
/// versions is the policy's own rule.
fn epoch() -> Rule {
    rule::rule(
        "self.matches('^(0|[1-9][0-9]{0,18})$') ? (self.size() < 19 || self <= '9223372036854775807') : \
         (self.matches('^v[1-9][0-9]{0,6}/(0|[1-9][0-9]{0,12})$') && int(self.substring(1, self.indexOf('/'))) <= 8388607 && \
         int(self.substring(self.indexOf('/') + 1)) <= 1099511627775)",
        "spec.retention.pinned[].epoch",
        "write the epoch as decimal digits in quotes, without sign or leading zeros, at most 9223372036854775807, such as \"4711\"; \
         with numbering: Versioned also as version and sequence, such as \"v7/12\"",
    )
}
