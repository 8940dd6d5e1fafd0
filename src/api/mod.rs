//! `StateEpochPolicy`, the one resource that users write and the operator answers on.
//!
//! [`spec`] is what a user asks for, and [`validate`] turns it into the values that the rules take. [`status`] is what the operator
//! answers, with the conditions of [`condition`]. [`crd`] is the whole as a `CustomResourceDefinition`: whatever a schema or a CEL rule
//! can check is checked there, at admission, with a message that names the field and says what to write.

pub mod condition;
mod crd;
mod manifest;
pub mod spec;
pub mod status;
pub mod validate;

pub use crd::{CrdError, crd, crd_yaml};
pub use manifest::{ManifestError, parse_manifest};
pub use spec::{StateEpochPolicy, StateEpochPolicySpec};
pub use status::StateEpochPolicyStatus;

/// What every annotation of this product begins with.
pub const ANNOTATION_PREFIX: &str = "epochwarden.io/";

/// The annotation of a policy that asks for one run, now: `prune`, `audit` or `probe`, and anything after an `@` to ask again.
pub const RUN_ANNOTATION: &str = "epochwarden.io/run";

/// The annotation of a policy that approves the plan that waits: its digest. Once seen, it may go again.
pub const APPROVE_ANNOTATION: &str = "epochwarden.io/approve-plan";

/// The annotation of a policy that takes its root over: the uid of the policy that owns it. It counts once for each uid.
pub const TAKE_OVER_ANNOTATION: &str = "epochwarden.io/take-over";

/// The annotations that wake a policy.
pub const ANNOTATIONS: [&str; 3] = [RUN_ANNOTATION, APPROVE_ANNOTATION, TAKE_OVER_ANNOTATION];

/// The field manager of everything that the operator applies.
pub const FIELD_MANAGER: &str = "epochwarden";
