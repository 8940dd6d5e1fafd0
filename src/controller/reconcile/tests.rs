use std::sync::Mutex;

use async_trait::async_trait;
use epochwarden_store::{Clock, Root, RootSettings};
use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::api::status::{PlanRange, PlanStatus};
use crate::api::{APPROVE_ANNOTATION, StateEpochPolicyStatus};
use crate::controller::answer::NoAnswer;
use crate::controller::schedules::After;
use crate::controller::status_task::Destination;
use crate::controller::stores::Stores;
use crate::controller::workbench::shown;

struct Desk {
    reconciler: Reconciler,
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let reconciler =
            Reconciler { context: Context::alone(), registry: Arc::default(), shutdown: CancellationToken::new() };
        Self { reconciler, folder: tempfile::tempdir().unwrap() }
    }

    fn policy(request: Option<&str>, suspend: bool) -> Stored {
        let mut policy = json!({
            "apiVersion": "epochwarden.io/v1alpha1",
            "kind": "StateEpochPolicy",
            "metadata": { "name": "orders", "namespace": "streaming", "uid": "u1", "generation": if suspend { 2 } else { 1 } },
            "spec": { "store": { "url": "file:///nowhere" }, "vnodes": 4, "suspend": suspend,
                      "prune": { "schedule": "0 0 1 1 *" }, "audit": { "schedule": "0 0 1 1 *" } },
            "status": {},
        });
        if let Some(request) = request {
            policy["metadata"]["annotations"] = json!({ RUN_ANNOTATION: request });
        }
        serde_json::from_value(policy).unwrap()
    }

    fn look(&self, policy: &Stored) -> Arc<Handle> {
        self.reconciler.reconcile(policy).unwrap();
        let [handle] = self.reconciler.registry.all().try_into().unwrap();
        handle
    }

    fn opens(&self, handle: &Handle) {
        let url = format!("file://{}", self.folder.path().display());
        let root = Root::open(&url, [], &RootSettings::default()).unwrap();
        handle.stores.send_replace(Some(Stores::of(root)));
    }
}

#[tokio::test]
async fn a_request_is_recorded_when_its_run_begins_and_not_before() {
    let desk = Desk::new();
    let handle = desk.look(&Desk::policy(None, false));
    desk.look(&Desk::policy(Some("audit@1"), false));
    assert_eq!(handle.observed.borrow().last_run_request, None, "there is no store yet: a restart must still find it");
    desk.opens(&handle);
    // Somebody else's run is under way, so this one waits.
    let _permit = desk.reconciler.context.audits.try_acquire().unwrap();
    desk.look(&Desk::policy(Some("audit@1"), false));
    let observed = handle.observed.borrow().clone();
    assert_eq!(observed.last_run_request.as_deref(), Some("audit@1"));
    assert_eq!(observed.audit.phase, Some(Phase::Pending), "its turn has not come, but it is owed");
    assert!(observed.audit.started_at.is_some() && observed.audit.next_run_at.is_some());
}

#[tokio::test]
async fn a_request_of_a_suspended_policy_waits_for_its_resumption() {
    let desk = Desk::new();
    let handle = desk.look(&Desk::policy(None, true));
    desk.opens(&handle);
    desk.look(&Desk::policy(Some("prune"), true));
    assert_eq!(handle.observed.borrow().last_run_request, None);
    desk.look(&Desk::policy(Some("prune"), false));
    let observed = handle.observed.borrow().clone();
    assert_eq!(observed.last_run_request.as_deref(), Some("prune"));
    assert_eq!(observed.prune.phase, Some(Phase::Running), "nobody else had the permit");
}

#[test]
fn a_look_comes_no_later_than_the_longest_wait_and_never_before_its_slot() {
    for _ in 0..100 {
        assert!(jitter_towards_later(LONGEST) <= LONGEST);
        assert!(jitter_towards_later(Duration::from_secs(5)) >= Duration::from_secs(5));
    }
}

/// A policy whose plan waits, as an operator finds it that starts.
fn with_a_plan(word: Option<&str>, approved: bool) -> Stored {
    let mut policy = serde_json::to_value(Desk::policy(None, false).0.unwrap()).unwrap();
    let plan = PlanStatus {
        digest: "d1".into(),
        epochs: 3_u64.into(),
        delete: vec![PlanRange { from: shown(1), to: shown(3), reason: "Expired".into() }],
        approved_at: approved.then_some(Timestamp::UNIX_EPOCH),
        ..PlanStatus::default()
    };
    policy["status"] = json!({ "observedGeneration": 1, "plan": plan, "prune": { "phase": "AwaitingApproval" } });
    if let Some(word) = word {
        policy["metadata"]["annotations"] = json!({ APPROVE_ANNOTATION: word });
    }
    serde_json::from_value(policy).unwrap()
}

#[tokio::test]
async fn an_approval_makes_a_prune_due_at_once_and_is_owed_by_the_next_operator() {
    for (case, found, then, due) in [
        ("nobody has said anything", (None, false), None, false),
        ("the word comes", (None, false), Some("d1"), true),
        ("another word comes", (None, false), Some("d2"), false),
        ("the word was there when the operator started", (Some("d1"), false), None, true),
        ("an earlier operator took it, and the annotation is gone", (None, true), None, true),
    ] {
        let desk = Desk::new();
        let (word, approved) = found;
        let handle = desk.look(&with_a_plan(word, approved));
        // Without a store nothing can run: what is due is not forgotten for that.
        desk.opens(&handle);
        desk.look(&with_a_plan(then, approved));
        let observed = handle.observed.borrow().clone();
        assert_eq!(observed.prune.phase == Some(Phase::Running), due, "{case}");
        assert_eq!(observed.plan.unwrap().approved_at.is_some(), due, "{case}");
    }
}

#[tokio::test]
async fn a_slot_that_only_looks_at_a_waiting_plan_is_no_run_in_the_status() {
    let desk = Desk::new();
    let handle = desk.look(&with_a_plan(None, false));
    desk.opens(&handle);
    let promised = handle.observed.borrow().prune.next_run_at;
    // As if its time had come.
    handle.schedules.lock().unwrap().prune.remembered.promised = Some(Timestamp::UNIX_EPOCH);
    let before = handle.observed.borrow().prune.clone();
    desk.look(&with_a_plan(None, false));
    assert_eq!(handle.schedules.lock().unwrap().running, Some(RunKind::Prune));
    assert_eq!(handle.observed.borrow().prune, before);
    assert!(promised.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_goes_on_by_itself_is_looked_at_in_time_and_let_go_of_with_its_plan() {
    for (case, changed) in [("the plan stands", false), ("the policy has changed", true)] {
        let desk = Desk::new();
        let handle = desk.look(&with_a_plan(None, true));
        // As it is when a run of the plan has ended at a limit.
        let now = desk.reconciler.context.monotonic.now();
        {
            let mut schedules = handle.schedules.lock().unwrap();
            schedules.prune.requested = false;
            schedules.prune.again.ended(After::Limit, now);
        }
        handle.observed.send_modify(|observed| observed.prune.phase = Some(Phase::Stopped));
        desk.opens(&handle);
        let wait = desk.reconciler.look(&handle, false);
        assert_eq!(observed_phase(&handle), Some(Phase::Stopped), "{case}: not before its time");
        assert!(wait < Duration::from_secs(20), "{case}: {wait:?}");
        tokio::time::advance(wait).await;
        if changed {
            let mut policy = (*handle.current()).clone();
            policy.metadata.generation = Some(7);
            handle.policy.send_replace(Arc::new(policy));
        }
        // The task of the store may have found out meanwhile that there is none.
        desk.opens(&handle);
        desk.reconciler.look(&handle, false);
        let running = handle.schedules.lock().unwrap().running == Some(RunKind::Prune);
        assert_eq!(running, !changed, "{case}");
    }
}

fn observed_phase(handle: &Handle) -> Option<Phase> {
    handle.observed.borrow().prune.phase
}

/// Keeps what it is told to write.
#[derive(Default)]
struct Written(Mutex<Vec<StateEpochPolicyStatus>>);

#[async_trait]
impl Destination for Written {
    async fn write(&self, _: &StateEpochPolicy, status: &StateEpochPolicyStatus) -> Result<(), NoAnswer> {
        self.0.lock().unwrap().push(status.clone());
        Ok(())
    }
}

/// A wall clock that goes as fast as the test's.
#[derive(Debug)]
struct Together(Instant);

impl Clock for Together {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap() + self.0.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn in_an_hour_an_idle_policy_writes_its_status_not_once() {
    let folder = tempfile::tempdir().unwrap();
    let context = Context::alone_as(Arc::new(Together(Instant::now())), |settings| {
        settings.allow_file_roots = vec![folder.path().canonicalize().unwrap()];
    });
    let policy: StateEpochPolicy = serde_json::from_value(json!({
        "apiVersion": "epochwarden.io/v1alpha1",
        "kind": "StateEpochPolicy",
        "metadata": { "name": "orders", "namespace": "streaming", "uid": "u1", "generation": 1 },
        "spec": {
            "store": { "url": format!("file://{}", folder.path().display()) },
            "vnodes": 1,
            "retention": { "keepLast": 3 },
            "prune": { "schedule": "0 0 1 1 *" },
            "audit": { "schedule": "0 0 1 1 *", "stalledAfter": "7d" },
        },
    }))
    .unwrap();
    let epoch = folder.path().join("epoch=7");
    std::fs::create_dir_all(epoch.join("vnode=0")).unwrap();
    std::fs::write(epoch.join("vnode=0/partial.bin"), "state").unwrap();
    std::fs::write(epoch.join("_COMMIT"), "pod-1").unwrap();

    let reconciler = Reconciler { context, registry: Arc::default(), shutdown: CancellationToken::new() };
    let context = &reconciler.context;
    let handle = Arc::new(Handle::new(&Arc::new(policy), CancellationToken::new()));
    let written = Arc::new(Written::default());
    handle.tasks.spawn(stores::run(Arc::clone(context), Arc::clone(&handle)));
    handle.tasks.spawn(fence::run(Arc::clone(context), Arc::clone(&handle)));
    handle.tasks.spawn(seal_check::run(Arc::clone(context), Arc::clone(&handle)));
    handle.tasks.spawn({
        let (context, handle, written) = (Arc::clone(context), Arc::clone(&handle), Arc::clone(&written));
        async move { status_task::report(&context, &handle, &*written).await }
    });
    let looks = async |minutes: u32| {
        for minute in 0..minutes {
            reconciler.look(&handle, minute == 0 && written.0.lock().unwrap().len() < 2);
            tokio::time::sleep_until(Instant::now() + LONGEST).await;
        }
    };
    // Everything that there is to find out is found out in the first minutes.
    looks(10).await;
    let known = written.0.lock().unwrap().len();
    let last = written.0.lock().unwrap().last().cloned().unwrap();
    assert_eq!(last.epochs.as_ref().and_then(|epochs| epochs.latest_committed), Some(shown(7)));
    assert!(last.store.is_some_and(|store| store.capabilities.is_some()), "it was not even probed");
    let observed_at = handle.observed.borrow().epochs.clone().unwrap().observed_at.unwrap();

    looks(60).await;
    let more = written.0.lock().unwrap().split_off(known);
    assert!(more.is_empty(), "{more:#?}");
    let observed_later = handle.observed.borrow().epochs.clone().unwrap().observed_at.unwrap();
    assert!(observed_later.duration_since(observed_at) >= jiff::SignedDuration::from_mins(50), "nobody has looked");

    // What is new is written at once.
    std::fs::rename(&epoch, folder.path().join("epoch=8")).unwrap();
    looks(10).await;
    let more = written.0.lock().unwrap().split_off(known);
    assert_eq!(more.len(), 1, "{more:#?}");
    handle.ended.cancel();
    handle.cancel.cancel();
    handle.tasks.close();
    handle.tasks.wait().await;
}
