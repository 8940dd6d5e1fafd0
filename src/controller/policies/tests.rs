use serde_json::{Value, json};

use super::*;
use crate::controller::reconcile::Reconciler;

fn stored(name: &str, uid: &str, generation: i64, numbering: &str) -> Stored {
    let policy: Value = json!({
        "apiVersion": "epochwarden.io/v1alpha1",
        "kind": "StateEpochPolicy",
        "metadata": { "name": name, "namespace": "streaming", "uid": uid, "generation": generation },
        "spec": { "store": { "url": "s3://state/orders" }, "vnodes": 4, "numbering": numbering },
    });
    serde_json::from_value(policy).unwrap()
}

struct Desk {
    context: Arc<Context>,
    reconciler: Reconciler,
    policies: Policies,
}

fn desk() -> Desk {
    let (context, registry) = (Context::alone(), Arc::new(Registry::default()));
    let policies = Policies::new(&context, &registry, None);
    let reconciler = Reconciler { context: Arc::clone(&context), registry, shutdown: CancellationToken::new() };
    Desk { context, reconciler, policies }
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_keeps_nobody_else_from_being_worked_for() {
    let Desk { reconciler, policies, .. } = desk();
    let list: Vec<Stored> = serde_json::from_value(json!([
        { "apiVersion": "epochwarden.io/v1alpha1", "kind": "StateEpochPolicy", "metadata": { "name": "odd", "uid": "u1" },
          "spec": { "store": { "url": "s3://state/odd" }, "vnodes": 4, "numbering": "FromTheFuture" } },
        { "apiVersion": "epochwarden.io/v1alpha1", "kind": "StateEpochPolicy", "metadata": { "name": "orders", "uid": "u2" },
          "spec": { "store": { "url": "s3://state/orders" }, "vnodes": 4 } },
    ]))
    .unwrap();
    let [odd, orders] = list.as_slice() else { panic!("two were listed") };
    let error = reconciler.reconcile(odd).unwrap_err().to_string();
    assert!(error.contains("FromTheFuture"), "{error}");
    reconciler.reconcile(orders).unwrap();
    let uids: Vec<String> = policies.registry.all().iter().map(|handle| handle.uid.clone()).collect();
    assert_eq!(uids, ["u2"]);
}

#[tokio::test]
async fn the_work_for_a_policy_ends_when_it_cannot_be_read_any_more() {
    let Desk { reconciler, policies, .. } = desk();
    reconciler.reconcile(&stored("orders", "u1", 1, "Plain")).unwrap();
    let [handle] = policies.registry.all().try_into().unwrap();
    reconciler.reconcile(&stored("orders", "u1", 2, "FromTheFuture")).unwrap_err();
    assert!(handle.cancel.is_cancelled() && policies.registry.all().is_empty());
}

#[tokio::test]
async fn a_comparison_wakes_what_the_watch_did_not_tell_of_and_ends_what_is_gone() {
    let Desk { context, reconciler, policies } = desk();
    for (name, uid) in [("same", "u1"), ("changed", "u2"), ("gone", "u3")] {
        reconciler.reconcile(&stored(name, uid, 1, "Plain")).unwrap();
    }
    let mut wakes = context.wake.subscribe();
    let listed = [("same", "u1", 1), ("changed", "u2", 2), ("new", "u4", 1)];
    policies.compare(&listed.map(|(name, uid, generation)| Arc::new(stored(name, uid, generation, "Plain"))));
    let mut woken = Vec::new();
    while let Ok(policy) = wakes.try_recv() {
        woken.push(policy.name);
    }
    assert_eq!(woken, ["changed", "new"]);
    assert!(policies.registry.all().iter().all(|handle| handle.uid != "u3"));
}

#[tokio::test]
async fn a_namesake_keeps_its_series_when_the_work_for_the_deleted_one_ends() {
    let Desk { context, reconciler, policies } = desk();
    reconciler.reconcile(&stored("orders", "u1", 1, "Plain")).unwrap();
    let [old] = policies.registry.all().try_into().unwrap();
    reconciler.reconcile(&stored("orders", "u2", 1, "Plain")).unwrap();
    context.metrics.fence_version.of(&old.name, &[]).set(7.0);
    old.farewell.wait().await;
    let shows = || {
        context
            .metrics
            .encode()
            .unwrap()
            .contains(r#"epochwarden_fence_version{namespace="streaming",policy="orders"}"#)
    };
    assert!(shows(), "the end of the old one took the new one's series");
    let [new] = policies.registry.all().try_into().unwrap();
    policies.registry.remove("u2");
    new.farewell.wait().await;
    assert!(!shows());
}

#[test]
fn a_status_wakes_nobody_and_a_run_request_does() {
    let wakes = |change: &dyn Fn(&mut StateEpochPolicy)| {
        let mut policy = stored("orders", "u1", 1, "Plain");
        change(policy.0.as_mut().unwrap());
        what_wakes(&policy)
    };
    let before = wakes(&|_| {});
    assert_eq!(wakes(&|policy| policy.status = Some(crate::api::StateEpochPolicyStatus::default())), before);
    assert_eq!(wakes(&|policy| policy.metadata.resource_version = Some("9".into())), before);
    assert_ne!(wakes(&|policy| policy.metadata.generation = Some(2)), before);
    assert_ne!(wakes(&|policy| policy.metadata.uid = Some("u2".into())), before);
    let annotate = |policy: &mut StateEpochPolicy| {
        policy.metadata.annotations = Some([(crate::api::RUN_ANNOTATION.to_owned(), "prune".to_owned())].into());
    };
    assert_ne!(wakes(&annotate), before);
}
