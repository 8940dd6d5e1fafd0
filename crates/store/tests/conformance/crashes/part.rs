//! What one process does, from its start to its end: a term of a pipeline, and then what the operator does beside it.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use epochwarden_core::Numbering;
use epochwarden_core::plan::Rules;
use epochwarden_core::register::{OwnerRecord, Reading};
use epochwarden_core::retention::Retention;
use epochwarden_store::audit::{self, AuditRules};
use epochwarden_store::prune::{self, Always, Approval, Identity, PruneOutcome, PruneRules};
use epochwarden_store::{Clock, ObjectStoreBackend, Root, RootSettings, StateBackend, SystemClock, list_epochs};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// The environment's variable that makes this test binary a process of a test.
pub(super) const VARIABLE: &str = "EPOCHWARDEN_TEST_PART";

/// All vnodes.
pub(super) const VNODES: [u32; 2] = [0, 1];
/// How many epochs a process seals, and how many of them its prune leaves.
pub(super) const SEALED: usize = 3;
pub(super) const KEPT: usize = 2;

/// The longest that a process takes.
const DEADLINE: Duration = Duration::from_mins(1);

/// All that a process is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) url: String,
    pub(super) options: Vec<(String, String)>,
    pub(super) versioned: bool,
    pub(super) version: u64,
    pub(super) instance: String,
    /// Where it writes down what it was told, at once and for good.
    pub(super) journal: PathBuf,
}

/// What the application of a process was told, and would have passed on.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Told {
    /// The state of this epoch, vnode after vnode, may be used.
    Restored { epoch: u64, states: Vec<State> },
    /// Nothing was ever sealed.
    NothingToRestore,
    /// This epoch is durable.
    Sealed { epoch: u64 },
}

/// The state of a vnode: which version wrote which epoch, from the first to this one. An epoch descends from those of its line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) vnode: u32,
    pub(super) line: Vec<(u64, u64)>,
}

/// What everybody keeps.
pub(super) fn rules() -> Rules {
    let retention = Retention { keep_last: Some(KEPT.try_into().unwrap()), ..Retention::default() };
    Rules { vnodes: VNODES.len().try_into().unwrap(), retention, min_age: Duration::ZERO }
}

pub(super) fn audit_rules() -> AuditRules {
    AuditRules { plan: rules(), stalled_after: Duration::from_mins(30), deadline: None }
}

impl Part {
    /// The part of this process; `None` where it is none of those that are told one.
    pub(super) fn of_this_process() -> Option<Self> {
        Some(serde_json::from_str(&std::env::var(VARIABLE).ok()?).unwrap())
    }

    pub(super) async fn play(self) {
        tokio::time::timeout(DEADLINE, self.act()).await.expect("a process takes no longer");
    }

    /// The backend of a leader. With plain numbers it needs exclusive partials, and the three rules that belong to them.
    pub(super) fn backend(&self, root: &Root) -> ObjectStoreBackend {
        ObjectStoreBackend::builder(root.prefixed_store())
            .instance_id(&self.instance)
            .vnode_capacity(VNODES.len().try_into().unwrap())
            .leading(self.version)
            .numbering(if self.versioned { Numbering::Versioned } else { Numbering::Plain })
            .exclusive_partials(!self.versioned)
            .build()
    }

    pub(super) fn root(&self) -> Root {
        Root::open(&self.url, self.options.clone(), &RootSettings::default()).unwrap()
    }

    async fn act(self) {
        let root = self.root();
        let backend = self.backend(&root);
        backend.publish_fence(self.version, None).await.unwrap();
        let (mut line, highest) = self.restore(&root, &backend).await;
        let first = backend.first_epoch(Some(highest)).unwrap();
        for epoch in (first..).take(SEALED) {
            line.push((self.version, epoch));
            self.seal(&backend, epoch, &line).await;
        }
        backend.prune_before(first).await.unwrap();
        self.operate(&root).await;
    }

    /// The line of the newest state, and the highest number in use.
    async fn restore(&self, root: &Root, backend: &ObjectStoreBackend) -> (Vec<(u64, u64)>, u64) {
        let Some((epoch, states, highest)) = restored(backend, None).await else {
            self.tell(&Told::NothingToRestore);
            let highest = list_epochs(root).await.unwrap().last().map_or(0, |epoch| epoch.get());
            return (Vec::new(), highest);
        };
        let by_number = restored(backend, Some(epoch)).await.unwrap();
        assert_eq!((by_number.0, &by_number.1), (epoch, &states));
        let line = states[0].line.clone();
        self.tell(&Told::Restored { epoch, states });
        (line, highest)
    }

    async fn seal(&self, backend: &ObjectStoreBackend, epoch: u64, line: &[(u64, u64)]) {
        for vnode in VNODES {
            // Where numbers are a version's own, it may be asked too early.
            if self.versioned {
                assert!(!backend.epoch_complete(epoch, &VNODES).await.unwrap(), "{vnode} is missing yet");
            }
            let state = serde_json::to_vec(&State { vnode, line: line.to_vec() }).unwrap();
            backend.write_partial(vnode, epoch, self.version, Bytes::from(state)).await.unwrap();
        }
        assert!(backend.epoch_complete(epoch, &VNODES).await.unwrap());
        self.tell(&Told::Sealed { epoch });
    }

    /// A prune and an audit for a policy that was recreated, and so takes the root over.
    async fn operate(&self, root: &Root) {
        let rules = PruneRules {
            plan: rules(),
            dry_run: false,
            max_objects: u64::MAX,
            max_keys_per_second: None,
            deadline: DEADLINE,
        };
        let policy = OwnerRecord {
            cluster: "c".into(),
            namespace: "n".into(),
            name: "orders".into(),
            uid: format!("uid-{}", self.version),
            take_over: None,
        };
        let identity =
            Identity { policy: Some(policy), ignore_owner: false, publisher: "test".into(), seen: Reading::default() };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let cancel = CancellationToken::new();
        let pruned = prune::run(root, &rules, &identity, Approval::Automatic, &Always, &clock, &cancel, &|_| ()).await;
        let pruned = pruned.unwrap();
        assert_eq!((&pruned.outcome, pruned.failed), (&PruneOutcome::Succeeded, 0), "{pruned:?}");
        assert_eq!(pruned.epochs, u64::try_from(SEALED - KEPT).unwrap(), "{pruned:?}");
        audit::run(root, &audit_rules(), clock.as_ref(), &cancel, &|_| ()).await.unwrap();
    }

    fn tell(&self, told: &Told) {
        let mut journal = File::options().create(true).append(true).open(&self.journal).unwrap();
        let line = format!("{}\n", serde_json::to_string(told).unwrap());
        journal.write_all(line.as_bytes()).unwrap();
    }
}

/// An epoch, the states of its vnodes, and the highest number that was listed.
pub(super) async fn restored(backend: &ObjectStoreBackend, epoch: Option<u64>) -> Option<(u64, Vec<State>, u64)> {
    let restore = backend.restore(epoch).await.unwrap()?;
    let mut states = Vec::new();
    for vnode in VNODES {
        states.push(serde_json::from_slice(&restore.read_partial(vnode).await.unwrap()).unwrap());
    }
    let (epoch, highest) = (restore.epoch(), restore.highest_listed());
    restore.finish().await.unwrap();
    Some((epoch, states, highest))
}
