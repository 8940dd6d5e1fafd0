use epochwarden_core::lease::{FenceRefusal, LeaseIdentity, LeaseObservation};
use epochwarden_core::register::OwnerRecord;
use epochwarden_store::Root;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::told::worded_once;
use super::*;

const POLL: Duration = Duration::from_secs(10);

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

fn seen(heard: Option<u64>, renewed: Option<u64>) -> LeaseSeen {
    let lease = renewed.map(|renewed| LeaseObservation {
        namespace: "streaming".into(),
        name: "leader".into(),
        uid: "u1".into(),
        holder: Some("a".into()),
        transitions: Some(0),
        duration: Some(seconds(15)),
        annotation: None,
        renewed: seconds(renewed),
        holder_since: seconds(renewed),
    });
    let mut seen = LeaseSeen::default();
    (seen.lease, seen.heard) = (lease, heard.map(seconds));
    seen
}

#[test]
fn the_next_look_is_when_the_lease_may_have_expired_or_was_silent_for_too_long() {
    for (heard, renewed, now, expected) in [
        (Some(100), Some(100), 100, seconds(10)),
        (Some(100), Some(100), 104, seconds(6)),
        // The lease was seen again, but not renewed: it expires before the next poll.
        (Some(110), Some(97), 110, seconds(2)),
        // It has expired, which changes by a renewal alone.
        (Some(120), Some(100), 120, seconds(10)),
        (Some(100), None, 100, seconds(10)),
    ] {
        assert_eq!(
            Again::InTime.wait(&seen(heard, renewed), POLL, seconds(now)),
            expected,
            "{heard:?} {renewed:?} {now}"
        );
    }
}

#[test]
fn what_failed_waits_its_time_even_when_the_poll_is_overdue() {
    let (overdue, now) = (seen(Some(1), Some(1)), seconds(100));
    assert!(Again::InTime.wait(&overdue, POLL, now) < seconds(1));
    assert_eq!(Again::After(seconds(7)).wait(&overdue, POLL, now), seconds(7));
    assert_eq!(Again::After(seconds(7)).wait(&seen(None, None), POLL, now), seconds(7));
}

#[test]
fn what_only_a_change_can_mend_is_not_looked_at_in_between() {
    for silent in [seen(None, None), seen(Some(1), None), seen(Some(1), Some(1))] {
        assert_eq!(Again::WhenChanged.wait(&silent, POLL, seconds(100)), IDLE);
    }
}

#[test]
fn an_instant_that_was_named_comes_no_later_than_the_poll() {
    let fresh = seen(Some(100), Some(100));
    assert_eq!(Again::Within(seconds(3)).wait(&fresh, POLL, seconds(100)), seconds(3));
    assert_eq!(Again::Within(seconds(30)).wait(&fresh, POLL, seconds(100)), POLL);
}

#[test]
fn reckoning_with_the_lease_leaves_its_news_to_the_next_look() {
    let (sender, receiver) = watch::channel(LeaseSeen::default());
    let key = LeaseKey { namespace: "streaming".into(), name: "leader".into() };
    let mut subscription = Subscription { key, since: Duration::ZERO, seen: receiver };
    sender.send_replace(seen(Some(1), Some(1)));
    assert!(subscription.peek().lease.is_some());
    assert!(subscription.seen.has_changed().unwrap(), "nobody has acted upon it");
    assert!(subscription.take().lease.is_some());
    assert!(!subscription.seen.has_changed().unwrap());
}

#[test]
fn the_words_of_an_expired_lease_do_not_change_with_every_look() {
    let refusal = |silent| FenceRefusal::LeaseExpired { lease: "streaming/leader".into(), holder: "a".into(), silent };
    let words = |silent| worded_once(refusal(seconds(silent)), Some(seconds(15))).to_string();
    assert_eq!(words(16), words(3600));
    assert!(words(16).contains("15s"), "{}", words(16));
}

/// A policy that follows a Lease.
fn following(version_from: &str) -> Arc<Handle> {
    let fence = serde_json::json!({ "fence": { "leaseRef": { "name": "leader" }, "versionFrom": version_from } });
    let policy = crate::controller::workbench::policy(&fence, None);
    Arc::new(Handle::new(&Arc::new(policy), CancellationToken::new()))
}

#[tokio::test]
async fn nothing_is_published_while_a_later_owner_record_is_in_sight() {
    let handle = following("LeaseTransitions");
    let root = Root::from_store(Arc::new(object_store::memory::InMemory::new()));
    let registers = Registers::new(root.clone(), "test");
    // Claimed with the first record.
    handle.stores.send_replace(Some(Stores::of(root.clone())));
    let mut task = FenceTask::new(Context::alone(), Arc::clone(&handle));
    let term = |version| Term {
        version: Version::new(version),
        holder: "a".into(),
        lease: LeaseIdentity { namespace: "streaming".into(), name: "leader".into(), uid: "l1".into(), transitions: 0 },
    };
    assert!(task.publish(&term(1), None).await.is_ok());
    // A namesake of this policy claims the root, as it does when the policy is recreated.
    let namesake = OwnerRecord { uid: "u2".into(), ..handle.owner_record(&task.context) };
    for claimant in [handle.owner_record(&task.context), namesake] {
        registers.claim_owner(&claimant).await.unwrap();
    }
    assert!(!handle.saw(&registers.read().await.unwrap()));
    let stopped = task.publish(&term(2), None).await.unwrap_err();
    assert_eq!((stopped.reason, stopped.again), (FenceCurrent::StoreNotReady, Again::WhenChanged));
    let fence = epochwarden_store::list_registers(&root).await.unwrap().reading().fence;
    assert_eq!(fence, Version::new(1));
    // The store task has found out that the later record is this policy's, too.
    handle.stores.send_modify(|stores| stores.as_mut().unwrap().owner = Some(2));
    assert!(task.publish(&term(3), None).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_writes_alone_has_its_look_asked_for_less_and_less_often() {
    let handle = following("LeaseTransitions");
    let mut task = FenceTask::new(Context::alone(), Arc::clone(&handle));
    let root = Root::from_store(Arc::new(object_store::memory::InMemory::new()));
    let refused = || object_store::Error::PermissionDenied { path: String::new(), source: "no".into() };
    let mut asked = 0;
    for second in 0..3600 {
        if second % 10 == 0 {
            let error = root.error(epochwarden_store::Operation::Put, "_epochwarden/fence/1", refused());
            task.store_failed(PUBLISHING, &error);
        }
        tokio::time::advance(seconds(1)).await;
        let notified = handle.look_again.notified();
        asked += u32::from(futures::FutureExt::now_or_never(notified).is_some());
        assert!(second > 0 || asked == 1, "the first is told of at once");
    }
    assert!((5..=15).contains(&asked), "asked for {asked} looks in an hour");
}

#[tokio::test]
async fn what_the_watch_has_shown_of_a_lease_is_not_enough_to_assign_a_version() {
    let handle = following("Assigned");
    let root = Root::from_store(Arc::new(object_store::memory::InMemory::new()));
    handle.stores.send_replace(Some(Stores::of(root.clone())));
    // Its API server does not answer.
    let context = Context::alone();
    let mut task = FenceTask::new(Arc::clone(&context), Arc::clone(&handle));
    let key = LeaseKey { namespace: "streaming".into(), name: "leader".into() };
    let seen = context.leases.subscribe(key.clone());
    let lease = serde_json::from_value(serde_json::json!({
        "metadata": { "name": "leader", "namespace": "streaming", "uid": "l1" },
        "spec": { "holderIdentity": "orders-a-1f2e", "leaseTransitions": 3, "leaseDurationSeconds": 3600 },
    }))
    .unwrap();
    context.leases.observe(&key, Some(&lease));
    task.lease = Some(Subscription { key: key.clone(), since: Duration::ZERO, seen });
    let stopped = task.assign(&key, epochwarden_core::Numbering::Plain).await.unwrap_err();
    assert_eq!(stopped.reason, FenceCurrent::Pending, "{}", stopped.message);
    assert!(stopped.message.contains("streaming/leader could not be read"), "{}", stopped.message);
    assert_eq!(epochwarden_store::list_registers(&root).await.unwrap().reading().fence, Version::OFF);
}

#[tokio::test]
async fn what_the_watch_has_shown_of_a_lease_is_not_enough_to_publish_its_version() {
    for version_from in ["LeaseTransitions", "Annotation"] {
        let handle = following(version_from);
        let root = Root::from_store(Arc::new(object_store::memory::InMemory::new()));
        handle.stores.send_replace(Some(Stores::of(root.clone())));
        // Its API server does not answer.
        let context = Context::alone();
        let mut task = FenceTask::new(Arc::clone(&context), Arc::clone(&handle));
        let policy = handle.current();
        let key = task.subscribe(&policy).unwrap();
        let lease = serde_json::from_value(serde_json::json!({
            "metadata": {
                "name": key.name, "namespace": key.namespace, "uid": "l1",
                "annotations": { "epochwarden.io/assignment-version": "4" },
            },
            "spec": { "holderIdentity": "orders-a-1f2e", "leaseTransitions": 3, "leaseDurationSeconds": 3600 },
        }))
        .unwrap();
        context.leases.observe(&key, Some(&lease));
        let stopped = task.advance(&policy, &key).await.unwrap_err();
        assert_eq!(stopped.reason, FenceCurrent::Pending, "{version_from}: {}", stopped.message);
        assert!(stopped.message.contains("leader could not be read"), "{version_from}: {}", stopped.message);
        let fence = epochwarden_store::list_registers(&root).await.unwrap().reading().fence;
        assert_eq!(fence, Version::OFF, "{version_from}");
    }
}
