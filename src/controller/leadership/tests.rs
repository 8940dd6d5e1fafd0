use serde_json::json;

use super::*;

fn key() -> LeaseKey {
    LeaseKey { namespace: "system".into(), name: "epochwarden".into() }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A Lease as the API server has it, held by `b`, with what this version knows nothing of.
fn stored() -> Lease {
    let lease = json!({
        "metadata": {
            "name": "epochwarden", "namespace": "system", "uid": "u1", "resourceVersion": "7", "labels": { "team": "orders" },
        },
        "spec": {
            "holderIdentity": "b",
            "leaseDurationSeconds": 60,
            "leaseTransitions": 3,
            "acquireTime": "2026-01-01T00:00:00.000001Z",
            "renewTime": "2026-01-01T00:00:10.000000Z",
            "strategy": "OldestEmulationVersion",
        },
    });
    serde_json::from_value(lease).unwrap()
}

fn observed(lease: &Lease) -> LeaseObservation {
    let mut seen = LeaseSeen::default();
    seen.take(&key(), Some(lease), Duration::ZERO);
    seen.lease.unwrap()
}

#[test]
fn the_first_claim_makes_the_lease() {
    let lease = claimed(None, None, &key(), "a", at("2026-01-01T00:01:00Z"));
    assert_eq!(
        serde_json::to_value(lease).unwrap(),
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": "epochwarden", "namespace": "system" },
            "spec": {
                "holderIdentity": "a",
                "leaseDurationSeconds": 15,
                "leaseTransitions": 0,
                "acquireTime": "2026-01-01T00:01:00.000000Z",
                "renewTime": "2026-01-01T00:01:00.000000Z",
            },
        })
    );
}

#[test]
fn a_claim_changes_the_holders_fields_alone_and_depends_on_what_was_read() {
    let taken = claimed(Some(&stored()), Some(&observed(&stored())), &key(), "a", at("2026-01-01T00:01:00Z"));
    let spec = taken.spec.clone().unwrap();
    assert_eq!(taken.metadata, stored().metadata, "the resourceVersion is the condition of the write");
    assert_eq!(spec.strategy.as_deref(), Some("OldestEmulationVersion"));
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("a"), Some(4)));
    assert_eq!(spec.lease_duration_seconds, Some(15));
    assert_eq!(spec.acquire_time, spec.renew_time);

    let renewed = claimed(Some(&taken), Some(&observed(&taken)), &key(), "a", at("2026-01-01T00:01:02Z"));
    let again = renewed.spec.unwrap();
    assert_eq!(again.lease_transitions, Some(4), "a renewal is no change of hands");
    assert_eq!(again.acquire_time, spec.acquire_time);
    assert_eq!(again.renew_time.unwrap().0, at("2026-01-01T00:01:02Z"));
}

#[test]
fn a_lease_that_is_given_back_has_no_holder_and_keeps_its_count() {
    let back = released(&stored(), at("2026-01-01T00:02:00Z"));
    assert_eq!(back.metadata, stored().metadata);
    assert_eq!(observed(&back).holder(), None);
    assert_eq!(back.spec.as_ref().unwrap().holder_identity.as_deref(), Some(""));
    assert_eq!(back.spec.unwrap().lease_transitions, Some(3));
    let next = claimed(Some(&stored()), Some(&observed(&stored())), &key(), "c", at("2026-01-01T00:02:01Z"));
    assert_eq!(next.spec.unwrap().lease_transitions, Some(4));
}
