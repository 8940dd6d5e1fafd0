//! What tests of the tasks stand on: a policy without an API server, on a store in memory, by a clock that the test sets.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use epochwarden_core::key::{commit, partial};
use epochwarden_core::{Epoch, Numbering, ShownEpoch, Vnode};
use epochwarden_store::{Clock, Root};
use jiff::{SignedDuration, Timestamp};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::observed::Said;
use super::registry::Handle;
use super::stores::Stores;
use crate::api::condition::StoreReady;
use crate::api::{StateEpochPolicy, StateEpochPolicyStatus};

/// An epoch as a status of plain numbering shows it.
pub(super) fn shown(number: u64) -> ShownEpoch {
    Numbering::Plain.show(Epoch::new(number))
}

/// A wall clock that a test sets, and that can be made to panic.
#[derive(Debug)]
pub(super) struct Hands {
    now: Mutex<Timestamp>,
    panics: AtomicU32,
}

impl Hands {
    pub(super) fn at(text: &str) -> Arc<Self> {
        Arc::new(Self { now: Mutex::new(text.parse().unwrap()), panics: AtomicU32::new(0) })
    }

    pub(super) fn set(&self, now: Timestamp) {
        *self.now.lock().unwrap() = now;
    }

    pub(super) fn jump(&self, by: SignedDuration) {
        *self.now.lock().unwrap() += by;
    }

    /// The next so many looks at the clock panic.
    pub(super) fn break_for(&self, looks: u32) {
        self.panics.store(looks, Ordering::Relaxed);
    }
}

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        let left = self.panics.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        assert!(left.is_err(), "an injected panic");
        *self.now.lock().unwrap()
    }
}

/// A policy of these parts of a spec, as the API server would give it.
pub(super) fn policy(more: &Value, status: Option<&StateEpochPolicyStatus>) -> StateEpochPolicy {
    let mut policy = json!({
        "apiVersion": "epochwarden.io/v1alpha1",
        "kind": "StateEpochPolicy",
        "metadata": { "name": "orders", "namespace": "streaming", "uid": "u1", "generation": 1 },
        "spec": { "store": { "url": "s3://state/orders" }, "vnodes": 1 },
        "status": status.map_or_else(|| json!({}), |status| serde_json::to_value(status).unwrap()),
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        policy["spec"][field] = value.clone();
    }
    serde_json::from_value(policy).unwrap()
}

/// A policy with its store, which no task works for yet.
pub(super) struct Bench {
    pub(super) context: Arc<Context>,
    pub(super) handle: Arc<Handle>,
    pub(super) root: Root,
    pub(super) clock: Arc<Hands>,
}

impl Bench {
    pub(super) fn new(clock: &Arc<Hands>, more: &Value) -> Self {
        let context = Context::alone_at(Arc::clone(clock) as _);
        let handle = Arc::new(Handle::new(&Arc::new(policy(more, None)), CancellationToken::new()));
        let root = Root::from_store(Arc::new(InMemory::new()));
        open(&handle, &root);
        Self { context, handle, root, clock: Arc::clone(clock) }
    }

    /// Writes the partial of an epoch of one vnode, and gives the time by the store.
    pub(super) async fn write(&self, epoch: u64) -> Timestamp {
        put(&self.root, &partial(Epoch::new(epoch), Vnode::new(0)), "state").await
    }

    /// The same with its seal.
    pub(super) async fn seal(&self, epoch: u64) -> Timestamp {
        self.write(epoch).await;
        put(&self.root, &commit(Epoch::new(epoch)), "pod-1").await
    }
}

/// Says that the store of a policy was reached.
pub(super) fn open(handle: &Handle, root: &Root) {
    handle.observed.send_modify(|observed| observed.store = Said::new(StoreReady::Reachable, "it can be used"));
    handle.stores.send_replace(Some(Stores::of(root.clone())));
}

/// Waits until nothing runs for a policy: by turns, since nothing here takes time, and a paused clock stands still while anybody is busy.
pub(super) async fn end_of_run(handle: &Handle) {
    for _ in 0..100_000 {
        if handle.schedules.lock().unwrap().running.is_none() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the run does not end");
}

async fn put(root: &Root, key: &str, body: &'static str) -> Timestamp {
    let path = root.path(key).unwrap();
    root.store().put(&path, body.into()).await.unwrap();
    let modified = root.store().head(&path).await.unwrap().last_modified;
    Timestamp::from_nanosecond(modified.timestamp_nanos_opt().unwrap().into()).unwrap()
}
