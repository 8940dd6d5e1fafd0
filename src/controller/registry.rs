//! The policies that this process works for: one [`Handle`] each, keyed by uid, with the tasks that belong to it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use epochwarden_core::register::{OwnerRecord, Reading};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Api, Resource, ResourceExt};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answer::{NoAnswer, answer};
use super::context::Context;
use super::observed::Observed;
use super::schedules::Schedules;
use super::stores::{Owed, Stores};
use crate::api::{ANNOTATIONS, StateEpochPolicy};
use crate::server::PolicyName;

/// One policy, as its tasks share it.
#[derive(Debug)]
pub(crate) struct Handle {
    /// Its namespace and name.
    pub(crate) name: PolicyName,
    /// Its uid.
    pub(crate) uid: String,
    /// What Events refer to.
    pub(crate) reference: ObjectReference,
    /// The policy as it was last read from the cluster.
    pub(crate) policy: watch::Sender<Arc<StateEpochPolicy>>,
    /// What its tasks have found out.
    pub(crate) observed: watch::Sender<Observed>,
    /// The clients of its store, while there are any.
    pub(crate) stores: watch::Sender<Option<Stores>>,
    /// Asks the store task to look at the store and the credentials again, now.
    pub(crate) look_again: Notify,
    /// Asks the store task to probe the store again, whatever is known of it.
    pub(crate) probe_requested: Notify,
    /// Asks the store task to claim and to probe, though the policy by itself writes nothing: somebody of `writers` does.
    pub(crate) write_requested: Notify,
    /// How many runs under way write to the root.
    pub(crate) writers: Arc<AtomicUsize>,
    /// Set by a run that has met a newer layout: the store task looks at the epochs, too.
    pub(crate) layout_doubted: AtomicBool,
    /// Whether a prune is owed to other credentials than it had.
    pub(crate) owed: Owed,
    /// The digest of the plan whose approval the status in the cluster is known to show.
    pub(crate) approved: watch::Sender<Option<String>>,
    /// When its runs are due.
    pub(crate) schedules: Mutex<Schedules>,
    /// Ends every task of this policy.
    pub(crate) cancel: CancellationToken,
    /// The tasks of this policy, but for the one that writes its status.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when all of those have ended: what is observed then is the last.
    pub(crate) ended: CancellationToken,
    /// The status task, and what comes after it.
    pub(crate) farewell: TaskTracker,
}

impl Handle {
    /// A policy that is seen for the first time by this process; what an earlier one knew is taken from the status.
    #[must_use]
    pub(crate) fn new(policy: &Arc<StateEpochPolicy>, cancel: CancellationToken) -> Self {
        let name = PolicyName { namespace: policy.namespace().unwrap_or_default(), name: policy.name_any() };
        Self {
            name,
            uid: policy.uid().unwrap_or_default(),
            reference: policy.object_ref(&()),
            observed: watch::Sender::new(Observed::of(policy)),
            policy: watch::Sender::new(Arc::clone(policy)),
            stores: watch::Sender::new(None),
            look_again: Notify::new(),
            probe_requested: Notify::new(),
            write_requested: Notify::new(),
            writers: Arc::default(),
            layout_doubted: AtomicBool::new(false),
            owed: Owed::default(),
            approved: watch::Sender::new(None),
            schedules: Mutex::default(),
            cancel,
            tasks: TaskTracker::new(),
            ended: CancellationToken::new(),
            farewell: TaskTracker::new(),
        }
    }

    /// The policy as it was last read from the cluster.
    #[must_use]
    pub(crate) fn current(&self) -> Arc<StateEpochPolicy> {
        Arc::clone(&self.policy.borrow())
    }

    /// Whether `policy` says something that the tasks do not know yet.
    #[must_use]
    pub(crate) fn is_outdated_by(&self, policy: &StateEpochPolicy) -> bool {
        let known = self.policy.borrow();
        known.metadata.generation != policy.metadata.generation
            || ANNOTATIONS.iter().any(|key| known.annotations().get(*key) != policy.annotations().get(*key))
    }

    /// Takes a reading of the registers, whoever made it and what for. `false` when it shows a later owner record than this policy's
    /// own: until the store task has found out whose the root is, nothing more may be written.
    pub(crate) fn saw(&self, reading: &Reading) -> bool {
        self.observed.send_if_modified(|observed| {
            observed.seen = observed.seen.max(*reading);
            false
        });
        let owns = self.owns();
        if !owns {
            self.look_again.notify_one();
        }
        owns
    }

    /// Whether no later owner record was seen than the one with which the root was claimed, if it was.
    #[must_use]
    pub(crate) fn owns(&self) -> bool {
        let claimed = self.stores.borrow().as_ref().and_then(|stores| stores.owner);
        claimed.is_none_or(|claimed| self.observed.borrow().seen.owner <= claimed)
    }

    /// Whether a run can be started now: the store was reached.
    #[must_use]
    pub(crate) fn may_run(&self) -> bool {
        self.stores.borrow().is_some()
    }

    /// How this policy names itself as the owner of its root.
    #[must_use]
    pub(crate) fn owner_record(&self, context: &Context) -> OwnerRecord {
        OwnerRecord {
            cluster: context.cluster.clone(),
            namespace: self.name.namespace.clone(),
            name: self.name.name.clone(),
            uid: self.uid.clone(),
            take_over: None,
        }
    }

    /// The policy that has this name now, whatever its uid, as the API server has it. One GET.
    pub(crate) async fn read_again(&self, context: &Context) -> Result<Option<StateEpochPolicy>, NoAnswer> {
        let api = Api::<StateEpochPolicy>::namespaced(context.client.clone(), &self.name.namespace);
        answer(api.get_opt(&self.name.name)).await
    }

    /// Asks for a look at this policy, soon.
    pub(crate) fn wake(&self, context: &Context) {
        context.wake(self.name.clone());
    }
}

/// All policies of this process.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    handles: Mutex<HashMap<String, Arc<Handle>>>,
}

impl Registry {
    fn handles(&self) -> MutexGuard<'_, HashMap<String, Arc<Handle>>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handle of a policy, and whether it is new. A namesake with another uid is gone: its tasks end.
    pub(crate) fn ensure(&self, policy: &Arc<StateEpochPolicy>, shutdown: &CancellationToken) -> (Arc<Handle>, bool) {
        let uid = policy.uid().unwrap_or_default();
        let mut handles = self.handles();
        if let Some(handle) = handles.get(&uid) {
            return (Arc::clone(handle), false);
        }
        let handle = Arc::new(Handle::new(policy, shutdown.child_token()));
        handles.retain(|_, other| {
            let namesake = other.name == handle.name;
            if namesake {
                other.cancel.cancel();
            }
            !namesake
        });
        handles.insert(uid, Arc::clone(&handle));
        (handle, true)
    }

    /// Whether a policy is worked for as it is now.
    #[must_use]
    pub(crate) fn knows(&self, policy: &StateEpochPolicy) -> bool {
        let handle = self.handles().get(policy.metadata.uid.as_deref().unwrap_or_default()).cloned();
        handle.is_some_and(|handle| !handle.is_outdated_by(policy))
    }

    /// Does what is due when no policy has a name any more. None can get it in the meantime.
    pub(crate) fn unless_named(&self, name: &PolicyName, last: impl FnOnce()) {
        let handles = self.handles();
        if !handles.values().any(|handle| handle.name == *name) {
            last();
        }
    }

    /// Ends the work for a policy, if there is any. Its bucket is left as it is.
    pub(crate) fn remove(&self, uid: &str) {
        if let Some(handle) = self.handles().remove(uid) {
            tracing::info!(
                namespace = handle.name.namespace,
                policy = handle.name.name,
                reason = "Deleted",
                "the policy is gone: its work ends, its bucket stays"
            );
            handle.cancel.cancel();
        }
    }

    /// Ends the work for every policy that `exists` does not know.
    pub(crate) fn retain(&self, exists: impl Fn(&Handle) -> bool) {
        let gone: Vec<String> =
            self.all().into_iter().filter(|handle| !exists(handle)).map(|handle| handle.uid.clone()).collect();
        for uid in gone {
            self.remove(&uid);
        }
    }

    /// All handles.
    #[must_use]
    pub(crate) fn all(&self) -> Vec<Arc<Handle>> {
        self.handles().values().cloned().collect()
    }
}
