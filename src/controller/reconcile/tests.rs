use epochwarden_store::{Root, RootSettings};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::controller::stores::Stores;

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
    let _permit = Arc::clone(&desk.reconciler.context.runs).try_acquire_owned().unwrap();
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
