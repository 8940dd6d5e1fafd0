use std::path::PathBuf;

use epochwarden_core::register::{OwnerRecord, Word};
use epochwarden_store::registers::Claimed;
use epochwarden_store::{Registers, RootSettings};
use epochwarden_testkit::wait::until;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::api::StateEpochPolicy;
use crate::api::condition::StoreReady;

const SOON: Duration = Duration::from_secs(20);

/// A policy on a folder, with the task that keeps its store. It names no Secret, so no API server is needed.
struct Desk {
    folder: TempDir,
    handle: Arc<Handle>,
    _end: tokio_util::sync::DropGuard,
}

impl Desk {
    fn begin(metadata: &Value, spec: &Value, status: Option<Value>) -> Self {
        Self::facing("http://127.0.0.1:1", metadata, spec, status)
    }

    /// With an API server at this URL.
    fn facing(api_server: &str, metadata: &Value, spec: &Value, status: Option<Value>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut policy = json!({
            "apiVersion": "epochwarden.io/v1alpha1",
            "kind": "StateEpochPolicy",
            "metadata": { "name": "orders", "namespace": "streaming", "uid": "u1", "generation": 1 },
            "spec": { "store": { "url": format!("file://{}", folder.path().display()) }, "vnodes": 4 },
        });
        for (part, changes) in [("metadata", metadata), ("spec", spec)] {
            for (key, value) in changes.as_object().unwrap() {
                policy[part][key] = value.clone();
            }
        }
        if let Some(status) = status {
            policy["status"] = status;
        }
        let policy: StateEpochPolicy = serde_json::from_value(policy).unwrap();
        let context =
            Context::alone_facing(api_server, |settings| settings.allow_file_roots = vec![folder.path().to_owned()]);
        let end = CancellationToken::new();
        let handle = Arc::new(Handle::new(&Arc::new(policy), end.clone()));
        tokio::spawn(run(context, Arc::clone(&handle)));
        Self { folder, handle, _end: end.drop_guard() }
    }

    fn registers(&self) -> Registers {
        let url = format!("file://{}", self.folder.path().display());
        Registers::new(Root::open(&url, [], &RootSettings::default()).unwrap(), "test")
    }

    /// The keys below the registers' folder, with that of the probe.
    fn keys(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.folder.path().to_owned()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files.into_iter().map(|file| file.strip_prefix(self.folder.path()).unwrap().to_owned()).collect()
    }

    async fn handed_out(&self, what: &str, stores: impl Fn(&Stores) -> bool) -> Stores {
        until(what, SOON, async || self.handle.stores.borrow().clone().filter(&stores)).await.unwrap()
    }

    async fn says(&self, reason: StoreReady) -> String {
        let said = async || {
            let observed = self.handle.observed.borrow();
            (observed.store.reason == reason).then(|| observed.store.message.clone())
        };
        until(&format!("{reason:?}"), SOON, said).await.unwrap()
    }

    async fn owned(&self) -> Stores {
        self.handed_out("clients of a claimed root", |stores| stores.owner.is_some()).await
    }
}

/// An API server that knows one policy, of the uid that it was told last; while it was told none, it fails.
async fn api_server(uid: watch::Receiver<Option<&'static str>>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let (code, body) = match *uid.borrow() {
                Some(uid) => (
                    200,
                    json!({
                        "apiVersion": "epochwarden.io/v1alpha1",
                        "kind": "StateEpochPolicy",
                        "metadata": { "name": "orders", "namespace": "streaming", "uid": uid, "generation": 1 },
                        "spec": { "store": { "url": "file:///nowhere" }, "vnodes": 4 },
                    }),
                ),
                None => (500, json!({ "kind": "Status", "status": "Failure", "message": "no", "code": 500 })),
            };
            let body = body.to_string();
            let head = "content-type: application/json\r\nconnection: close";
            let answer = format!("HTTP/1.1 {code} Said\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    url
}

#[tokio::test]
async fn of_two_operators_that_know_another_uid_of_one_policy_only_that_of_the_live_one_takes_the_root() {
    let (live, uid) = watch::channel(Some("u2"));
    let desk = Desk::facing(&api_server(uid).await, &json!({}), &pruned(), None);
    desk.owned().await;
    let registers = desk.registers();
    // The policy is recreated, which this operator has not heard of.
    registers.claim_owner(&owner("streaming", "u2")).await.unwrap();
    desk.handle.look_again.notify_one();
    let message = desk.says(StoreReady::RootConflict).await;
    assert!(message.contains("recreated") && message.contains("u2"), "{message}");
    assert!(desk.handle.stores.borrow().is_none());
    assert_eq!(registers.read().await.unwrap().owner, 2, "nothing was written");
    // Nobody says which of the two there is.
    live.send_replace(None);
    desk.handle.look_again.notify_one();
    desk.says(StoreReady::Unreachable).await;
    assert_eq!(registers.read().await.unwrap().owner, 2, "nothing was written");
    // It was the other operator that had heard nothing.
    live.send_replace(Some("u1"));
    desk.handle.look_again.notify_one();
    assert_eq!(desk.owned().await.owner, Some(3));
}

fn pruned() -> Value {
    json!({ "prune": { "schedule": "0 0 1 1 *" } })
}

fn owner(namespace: &str, uid: &str) -> OwnerRecord {
    OwnerRecord {
        cluster: "cluster".into(),
        namespace: namespace.into(),
        name: "orders".into(),
        uid: uid.into(),
        take_over: None,
    }
}

/// Another policy writes an owner record of its own, on the word that it may take over from `from`.
async fn taken_over(registers: &Registers, by: &OwnerRecord, from: &str) {
    let reading = registers.read().await.unwrap();
    let word = Word { given: Some(from), honoured: None };
    let claimed = registers.claim_owner_from(&reading, by, word).await.unwrap();
    assert!(matches!(claimed, Claimed::Owned { owned, .. } if owned.created));
}

#[tokio::test]
async fn a_root_is_claimed_and_probed_before_its_clients_are_handed_out() {
    let desk = Desk::begin(&json!({}), &pruned(), None);
    let stores = desk.handed_out("the first clients", |_| true).await;
    assert_eq!(stores.owner, Some(1), "the first that anybody gets may be written with");
    let capabilities = stores.runs.capabilities().unwrap();
    assert!(capabilities.conditional_create && capabilities.consistent_list);
    assert_eq!(stores.fence.capabilities(), Some(capabilities));
    assert!(desk.handle.observed.borrow().capabilities.is_some());
    assert_eq!(desk.keys(), [PathBuf::from("_epochwarden/owner/00000000000000000001")], "the probe cleaned up");
}

#[tokio::test]
async fn a_store_that_was_probed_for_this_generation_is_not_probed_again() {
    let then = "2026-01-01T00:00:00Z";
    let known = |generation| {
        let capabilities = json!({
            "conditionalCreate": true, "consistentList": true, "bulkDelete": true,
            "delimiterIndex": false, "versioned": true, "objectLock": false,
        });
        json!({ "observedGeneration": generation, "store": { "capabilities": capabilities, "probedAt": then } })
    };
    for (generation, probed_again) in [(1, false), (0, true)] {
        let desk = Desk::begin(&json!({}), &pruned(), Some(known(generation)));
        let stores = desk.owned().await;
        let (capabilities, at) = desk.handle.observed.borrow().capabilities.unwrap();
        assert_eq!(at != then.parse().unwrap(), probed_again, "generation {generation}");
        // What the status says of it counts, until a probe says otherwise.
        assert_eq!(capabilities.versioned, !probed_again);
        assert_eq!(stores.runs.capabilities().unwrap().versioned, !probed_again);
    }
}

#[tokio::test]
async fn a_store_that_was_found_unsafe_is_probed_again_before_it_is_trusted() {
    let then = "2026-01-01T00:00:00Z";
    for (create, reason) in [(false, "Reachable"), (true, "UnsafeStore")] {
        let capabilities = json!({
            "conditionalCreate": create, "consistentList": true, "bulkDelete": true,
            "delimiterIndex": true, "versioned": false, "objectLock": false,
        });
        let condition = json!({
            "type": "StoreReady", "status": "False", "reason": reason, "message": "of before",
            "lastTransitionTime": then, "observedGeneration": 1,
        });
        let store = json!({ "capabilities": capabilities, "probedAt": then });
        let status = json!({ "observedGeneration": 1, "conditions": [condition], "store": store });
        let desk = Desk::begin(&json!({}), &pruned(), Some(status));
        desk.owned().await;
        let (capabilities, at) = desk.handle.observed.borrow().capabilities.unwrap();
        assert!(capabilities.conditional_create && at != then.parse().unwrap(), "{create} {reason}");
    }
}

#[tokio::test]
async fn a_policy_that_writes_nothing_claims_and_probes_only_for_a_run_that_deletes() {
    let desk = Desk::begin(&json!({}), &json!({}), None);
    let stores = desk.handed_out("the first clients", |_| true).await;
    assert_eq!((stores.owner, stores.runs.capabilities()), (None, None));
    assert_eq!(desk.keys(), Vec::<PathBuf>::new());
    let (stores, writing) = for_writing(&desk.handle, stores).await.unwrap();
    assert_eq!(stores.owner, Some(1));
    assert!(stores.runs.capabilities().is_some());
    // As long as the run goes on, its root is watched over; then, no more.
    let mut held = desk.handle.stores.subscribe();
    taken_over(&desk.registers(), &owner("billing", "u2"), "u1").await;
    desk.handle.look_again.notify_one();
    desk.says(StoreReady::RootConflict).await;
    drop(writing);
    desk.handle.look_again.notify_one();
    desk.says(StoreReady::Reachable).await;
    let unowned = held.wait_for(|held| held.as_ref().is_some_and(|stores| stores.owner.is_none()));
    tokio::time::timeout(SOON, unowned).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_run_that_deletes_is_told_whose_the_root_is() {
    let desk = Desk::begin(&json!({}), &json!({}), None);
    let stores = desk.handed_out("the first clients", |_| true).await;
    desk.registers().claim_owner(&owner("billing", "u2")).await.unwrap();
    let before = desk.keys();
    let refused = for_writing(&desk.handle, stores).await.unwrap_err();
    assert_eq!(refused.reason, Some(StoreReady::RootConflict));
    assert!(refused.message.contains("policy billing/orders (uid u2)"), "{}", refused.message);
    assert_eq!(desk.keys(), before, "neither a record nor a probe");
}

#[tokio::test]
async fn a_probe_that_was_asked_for_is_answered_together_with_its_result() {
    let then: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let capabilities = json!({
        "conditionalCreate": true, "consistentList": true, "bulkDelete": true,
        "delimiterIndex": true, "versioned": true, "objectLock": false,
    });
    let status = json!({ "observedGeneration": 1, "store": { "capabilities": capabilities, "probedAt": then } });
    let asked = json!({ "annotations": { crate::api::RUN_ANNOTATION: "probe@2" } });
    let desk = Desk::begin(&asked, &pruned(), Some(status));
    desk.owned().await;
    let mut observed = desk.handle.observed.subscribe();
    assert_eq!(observed.borrow_and_update().last_run_request, None, "nobody has asked this task yet");
    desk.handle.probe_requested.notify_one();
    let answered = tokio::time::timeout(SOON, observed.wait_for(|observed| observed.last_run_request.is_some())).await;
    let answered = answered.unwrap().unwrap();
    assert_eq!(answered.last_run_request.as_deref(), Some("probe@2"));
    let (capabilities, at) = answered.capabilities.unwrap();
    assert!(at > then && !capabilities.versioned, "the answer comes with what was found");
}

#[tokio::test]
async fn the_word_that_a_record_shows_as_honoured_is_written_down_after_a_crash() {
    let word = json!({ "annotations": { crate::api::TAKE_OVER_ANNOTATION: "u2" } });
    let mut spec = pruned();
    spec["suspend"] = json!(true);
    let desk = Desk::begin(&word, &spec, None);
    desk.handed_out("the first clients", |_| true).await;
    let (ours, theirs, registers) = (owner("streaming", "u1"), owner("billing", "u2"), desk.registers());
    registers.claim_owner(&theirs).await.unwrap();
    taken_over(&registers, &ours, "u2").await;
    assert_eq!(desk.handle.observed.borrow().last_take_over, None, "the operator ended before it wrote that down");

    let mut policy = StateEpochPolicy::clone(&desk.handle.current());
    policy.spec.suspend = false;
    policy.metadata.generation = Some(2);
    desk.handle.policy.send_replace(Arc::new(policy.clone()));
    assert_eq!(desk.owned().await.owner, Some(2));
    assert_eq!(desk.handle.observed.borrow().last_take_over.as_deref(), Some("u2"));

    // The other one takes it back; the word, which still stands there, was honoured.
    taken_over(&registers, &theirs, "u1").await;
    desk.handle.look_again.notify_one();
    let message = desk.says(StoreReady::RootConflict).await;
    assert!(message.contains("counts once"), "{message}");
    assert!(desk.handle.stores.borrow().is_none());
    assert_eq!(registers.read().await.unwrap().owner, 3, "nothing was written");
}

#[tokio::test(start_paused = true)]
async fn a_take_over_is_noticed_within_minutes_where_nobody_writes() {
    let desk = Desk::begin(&json!({}), &pruned(), None);
    let mut stores = desk.handle.stores.subscribe();
    stores.wait_for(|stores| stores.as_ref().is_some_and(|stores| stores.owner.is_some())).await.unwrap();
    taken_over(&desk.registers(), &owner("billing", "u2"), "u1").await;
    assert_eq!(desk.handle.observed.borrow().store.reason, StoreReady::Reachable);
    let mut observed = desk.handle.observed.subscribe();
    let noticed = observed.wait_for(|observed| observed.store.reason == StoreReady::RootConflict);
    // The longest that the jitter allows of both waits.
    tokio::time::timeout((REGISTERS_AGE + SECRETS_AGE).mul_f64(1.25), noticed).await.unwrap().unwrap();
    assert!(desk.handle.stores.borrow().is_none(), "nobody may write any more");
}

#[tokio::test]
async fn a_later_owner_record_stops_whoever_sees_it_until_it_is_known_whose_the_root_is() {
    let desk = Desk::begin(&json!({}), &pruned(), None);
    desk.owned().await;
    let registers = desk.registers();
    let reading = registers.read().await.unwrap();
    assert!(desk.handle.saw(&reading) && desk.handle.owns());
    taken_over(&registers, &owner("billing", "u2"), "u1").await;
    let reading = registers.read().await.unwrap();
    assert!(!desk.handle.saw(&reading) && !desk.handle.owns());
    desk.says(StoreReady::RootConflict).await;
}

#[tokio::test]
async fn a_store_whose_probe_comes_to_nothing_is_probed_less_and_less_often() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().join("gone").display());
    let policy = crate::controller::workbench::policy(&json!({ "store": { "url": url } }), None);
    let context = Context::alone_facing("http://127.0.0.1:1", |settings| {
        settings.allow_file_roots = vec![folder.path().to_owned()];
    });
    let handle = Arc::new(Handle::new(&Arc::new(policy), CancellationToken::new()));
    let mut keeper = keeper::Keeper::new(context, handle);
    // A quarter either way is chance.
    let about = |wait: Duration, seconds: f64| (0.75..=1.25).contains(&(wait.as_secs_f64() / seconds));
    for seconds in [2.0, 4.0, 8.0, 16.0] {
        keeper.probing = true;
        let wait = keeper.look(keeper::Look::Store).await;
        assert!(about(wait, seconds), "{wait:?} instead of {seconds} s");
    }
    let wait = keeper.look(keeper::Look::Store).await;
    assert!(about(wait, 1.0), "{wait:?}: what wrote nothing is tried again sooner");
}
