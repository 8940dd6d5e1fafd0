//! Names that are new at every start of a process.

use epochwarden_core::InstanceId;
use uuid::Uuid;

/// Makes an [`InstanceId`] that no other process has, nor had.
///
/// A version belongs to one start of a process. Election libraries keep `leaseTransitions` when the same identity acquires a Lease again, so
/// a process that was started again under the name of its pod would share its version with what is left of the one before. Use one id
/// throughout a process: as the identity in the Lease, and for the backend.
///
/// ```
/// use epochwarden_store::{InstanceId, UniqueInstanceId};
///
/// let id = InstanceId::unique("orders-0");
/// assert!(id.as_str().starts_with("orders-0-"));
/// assert_ne!(id, InstanceId::unique("orders-0"));
/// ```
pub trait UniqueInstanceId {
    /// The id of this start of the process in the pod `pod_name`: that name and a random part.
    #[must_use]
    fn unique(pod_name: &str) -> Self;
}

impl UniqueInstanceId for InstanceId {
    fn unique(pod_name: &str) -> Self {
        // A few bits of a random UUID are fixed, others in each half.
        Self::of_start(pod_name, Uuid::new_v4().as_u64_pair().1 ^ Uuid::new_v4().as_u64_pair().0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use epochwarden_core::lease::BarePodName;

    use super::*;

    #[test]
    fn no_two_starts_have_one_name_and_none_looks_like_a_bare_pod() {
        let ids: BTreeSet<_> = (0..10_000).map(|_| InstanceId::unique("orders-0")).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| BarePodName::of(id.as_str()).is_none()));
    }
}
