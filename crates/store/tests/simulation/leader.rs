//! A leader and its workers, as the documentation tells a pipeline to be: over the library, and over nothing else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use epochwarden_core::Numbering;
use epochwarden_core::lease::LeaseIdentity;
use epochwarden_store::{ObjectStoreBackend, StateBackend, StateBackendError};
use tokio::sync::oneshot;

use crate::lease::{self, Lease};
use crate::oracle::{ClientKind, Node, Promise, Term};
use crate::process::Process;
use crate::setup::Mode;
use crate::store::SimStore;
use crate::world::{World, sleep};

/// How long a leader waits for the workers of an epoch, in milliseconds.
const EPOCH_TAKES: u64 = 12_000;

/// From an epoch of one version to the same of the next, where numbers begin with the version.
const VERSION: u64 = 1 << 40;

/// An epoch that nobody comes to.
const NEVER: u64 = u64::MAX;

/// One start of a process that would lead.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) world: World,
    /// Its name in the Lease and in the seals.
    pub(crate) name: String,
    pub(crate) process: Process,
    pub(crate) workers: Arc<[Process]>,
    /// Above every number that this process has used.
    pub(crate) free: Arc<AtomicU64>,
}

/// One term of it.
struct Led<'a> {
    pod: &'a Pod,
    term: Term,
    version: u64,
    backend: ObjectStoreBackend,
    workers: Vec<Arc<ObjectStoreBackend>>,
    /// Epochs that took too long, and may be whole by now.
    late: Mutex<Vec<Node>>,
}

/// The term is over.
struct Over;

/// How an epoch ended.
enum Ended {
    Acknowledged,
    /// Its number is given up.
    Burned,
    /// It was not whole in time.
    Late,
    /// It lies below the floor.
    Below(u64),
}

/// What a leader is told when it asks for the seal.
enum Sealed {
    Ended(Ended),
    /// A partial is missing.
    NotYet,
    Failed,
}

impl Pod {
    /// Leads whenever the Lease is to be had.
    pub(crate) async fn run(self) {
        loop {
            let lease = lease::acquire(&self.world, &self.name).await;
            let work = async {
                let mut led = None;
                // The version that is awaited may be one of an earlier term of this process, until this term has its own: who is told so and
                // still holds the Lease waits for that, instead of beginning yet another term.
                while let Some(version) = self.version(&lease).await.filter(|version| led != Some(*version)) {
                    let Over = self.begin(version).work(&lease).await;
                    led = Some(version);
                }
            };
            let stubborn = self.world.setup().stubborn;
            let deposed = async {
                lease::renew(&self.world, lease.clone()).await;
                self.world.note(&self.name, "has lost the Lease", "");
                if stubborn {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                () = deposed => {}
                () = work => {}
            }
            self.world.note(&self.name, "leads no more", "");
            sleep(self.world.draw(100, 2_000)).await;
        }
    }

    /// The version to lead with; `None` when nobody gives one.
    async fn version(&self, lease: &Lease) -> Option<u64> {
        if !self.world.setup().assigned {
            return Some(u64::try_from(lease.transitions).unwrap() + 1);
        }
        let store = SimStore::new(&self.world, &self.process, format!("{} waits", self.name), ClientKind::Backend);
        let backend = self.backend(store, None);
        for _ in 0..20 {
            match backend.await_leadership(Duration::from_secs(30)).await {
                Ok(version) => {
                    self.world.count("leaderships awaited");
                    return Some(version);
                }
                Err(StateBackendError::Io { .. }) => sleep(200).await,
                Err(_) => return None,
            }
        }
        None
    }

    fn begin(&self, version: u64) -> Led<'_> {
        let store = SimStore::new(&self.world, &self.process, format!("{} v{version}", self.name), ClientKind::Backend);
        let client = store.client();
        let backend = self.backend(store, Some(version));
        let vnodes = self.world.setup().vnodes;
        let worker = |vnode| {
            let name = format!("worker-{vnode} of {} v{version}", self.name);
            let process = &self.workers[vnode as usize];
            Arc::new(self.backend(SimStore::new(&self.world, process, name, ClientKind::Backend), Some(version)))
        };
        let workers = (0..vnodes).map(worker).collect();
        let term = self.world.with(|state| {
            state.count("terms");
            state.note(&self.name, "leads", &format!("version {version}"));
            state.oracle.begins_term(version, &self.name, client)
        });
        Led { pod: self, term, version, backend, workers, late: Mutex::default() }
    }

    fn backend(&self, store: SimStore, version: Option<u64>) -> ObjectStoreBackend {
        let setup = self.world.setup();
        let mode = self.world.scenario().mode;
        let store = Arc::new(store);
        if mode == Mode::Classic {
            return ObjectStoreBackend::new(store, self.name.clone(), setup.vnodes);
        }
        let builder = ObjectStoreBackend::builder(store)
            .instance_id(self.name.clone())
            .vnode_capacity(setup.vnodes)
            .fence_refresh(setup.fence_refresh)
            .exclusive_partials(mode == Mode::Exclusive)
            .numbering(self.world.numbering());
        match version {
            Some(version) => builder.leading(version).build(),
            None => builder.build(),
        }
    }
}

impl Led<'_> {
    fn world(&self) -> &World {
        &self.pod.world
    }

    /// Leads until it is told that it does not.
    async fn work(&self, lease: &Lease) -> Over {
        match self.lead(lease).await {
            Ok(never) => never,
            Err(over) => over,
        }
    }

    async fn lead(&self, lease: &Lease) -> Result<Over, Over> {
        self.await_fence(lease).await?;
        let (mut state, above) = self.restore().await?;
        let free = self.first_epoch(above)?.max(self.world().setup().begin);
        self.pod.free.fetch_max(free, Ordering::Relaxed);
        let mut burned = 0;
        loop {
            let epoch = self.pod.free.load(Ordering::Relaxed) + self.world().draw(0, self.world().setup().step - 1);
            let node = Node { term: self.term, epoch };
            self.world().with(|world| world.oracle.continues(node, state));
            match self.epoch(node).await? {
                Ended::Acknowledged => {
                    burned = 0;
                    self.acknowledged(node);
                    self.look_around(epoch).await?;
                }
                Ended::Burned => {
                    self.world().count("burned epochs");
                    burned += 1;
                    // Its workers may know that the term is over.
                    if burned > 3 {
                        return Err(Over);
                    }
                }
                Ended::Late => {
                    self.world().count("late epochs");
                    self.late.lock().unwrap().push(node);
                }
                Ended::Below(floor) => drop(self.pod.free.fetch_max(floor, Ordering::Relaxed)),
            }
            self.pod.free.fetch_max(epoch + 1, Ordering::Relaxed);
            state = Some(node);
            sleep(self.world().draw(200, 2_500)).await;
        }
    }

    fn acknowledged(&self, node: Node) {
        self.world().with(|world| {
            world.note(&self.pod.name, "is told that it has sealed", &node.epoch.to_string());
            world.count("acknowledged");
            let now = world.now;
            world.oracle.acknowledged(&world.bucket, node, now);
        });
    }

    /// What a failed call means for the term: `Ok` when trying again may help.
    fn heed(&self, error: &StateBackendError) -> Result<(), Over> {
        let (counted, over) = match error {
            StateBackendError::Io { .. } => ("failed calls", false),
            StateBackendError::RestoreIncomplete { .. } => ("restores begun anew", false),
            StateBackendError::StaleVersion { .. } => ("stale versions", true),
            StateBackendError::FenceNotReached { .. } => ("fences not reached", true),
            StateBackendError::FenceConflict { .. } => ("fence conflicts", true),
            StateBackendError::RegisterLost { .. } => ("lost registers told", true),
            _ => ("other refusals", true),
        };
        self.world().with(|state| {
            state.note(&self.pod.name, "is told", &error.to_string());
            state.count(counted);
        });
        if over { Err(Over) } else { Ok(()) }
    }

    async fn await_fence(&self, lease: &Lease) -> Result<(), Over> {
        let setup = self.world().setup();
        if !self.world().scenario().fenced() {
            return Ok(());
        }
        if setup.publishes_itself {
            let identity = identity(lease);
            loop {
                match self.backend.publish_fence(self.version, Some(identity.clone())).await {
                    Ok(()) => break,
                    Err(error) => self.heed(&error)?,
                }
                sleep(200).await;
            }
            self.world().with(|state| state.oracle.fence_told(&state.bucket, self.version, &self.pod.name));
        }
        loop {
            match self.backend.await_fence(self.version, Duration::from_secs(30)).await {
                Ok(()) => return Ok(()),
                Err(error) => self.heed(&error)?,
            }
            sleep(200).await;
        }
    }

    /// The newest state, and the number that the next epoch has to lie above.
    async fn restore(&self) -> Result<(Option<Node>, Option<u64>), Over> {
        for _ in 0..8 {
            match self.restore_once().await {
                Ok(restored) => return Ok(restored),
                Err(error) => self.heed(&error)?,
            }
            sleep(100).await;
        }
        Err(Over)
    }

    async fn restore_once(&self) -> Result<(Option<Node>, Option<u64>), StateBackendError> {
        let begun = self.world().with(|state| state.now);
        let Some(restore) = self.backend.restore(None).await? else {
            self.world().with(|state| {
                state.note(&self.pod.name, "has found nothing to restore", "");
                state.oracle.has_restored(self.term, &[], begun);
            });
            return Ok((None, None));
        };
        let mut bodies = Vec::new();
        for vnode in 0..self.world().setup().vnodes {
            bodies.push(restore.read_partial(vnode).await?);
        }
        let (epoch, highest) = (restore.epoch(), restore.highest_listed());
        let asked = self.world().with(|state| state.now);
        restore.finish().await?;
        self.world().with(|state| {
            state.note(&self.pod.name, "has restored", &epoch.to_string());
            state.count("restores");
            state.oracle.has_restored(self.term, &bodies, asked);
        });
        let above = if self.world().scenario().mode == Mode::Plain { epoch } else { highest };
        Ok((Some(Node::of(&bodies[0])), Some(above)))
    }

    /// The lowest number of the term: above every one that was listed, where the leader goes by the rules.
    fn first_epoch(&self, above: Option<u64>) -> Result<u64, Over> {
        let scenario = self.world().scenario();
        if scenario.mode == Mode::Plain || (above.is_none() && !scenario.begins_above_unsealed) {
            return Ok(above.map_or(0, |above| above + 1));
        }
        self.backend.first_epoch(above).ok_or(Over)
    }

    /// Has the epoch written and sealed.
    async fn epoch(&self, node: Node) -> Result<Ended, Over> {
        let writes: Vec<_> = (0..self.world().setup().vnodes).map(|vnode| self.write(node, vnode)).collect();
        if self.world().scenario().mode == Mode::Exclusive {
            let all = futures::future::join_all(writes);
            let written = tokio::time::timeout(Duration::from_millis(EPOCH_TAKES), all).await;
            let all_written =
                written.is_ok_and(|all| all.into_iter().all(|written| written.is_ok_and(|written| written)));
            if !all_written {
                return Ok(Ended::Burned);
            }
        }
        if self.world().setup().overtaken && self.world().chance(30) {
            return Ok(Ended::Late);
        }
        let mut waited = 0;
        let mut failed = 0;
        while waited < EPOCH_TAKES && failed < 5 {
            match self.seal(node).await? {
                Sealed::Ended(ended) => return Ok(ended),
                Sealed::Failed => failed += 1,
                Sealed::NotYet => {}
            }
            let pause = self.world().draw(100, 400);
            waited += pause;
            sleep(pause).await;
        }
        // By the rules of exclusive partials an epoch that is given up is burned.
        Ok(if self.world().scenario().mode == Mode::Exclusive { Ended::Burned } else { Ended::Late })
    }

    /// Asks once for the seal.
    async fn seal(&self, node: Node) -> Result<Sealed, Over> {
        let vnodes: Vec<u32> = (0..self.world().setup().vnodes).collect();
        match self.backend.epoch_complete(node.epoch, &vnodes).await {
            Ok(true) => Ok(Sealed::Ended(Ended::Acknowledged)),
            Ok(false) => Ok(Sealed::NotYet),
            Err(StateBackendError::EpochPruned { floor, .. }) => {
                self.world().count("epochs below the floor");
                Ok(Sealed::Ended(Ended::Below(floor.get())))
            }
            Err(StateBackendError::SplitBrainCommit { .. }) => {
                self.world().count("seals of others");
                Ok(Sealed::Ended(Ended::Burned))
            }
            Err(error) => {
                self.heed(&error)?;
                Ok(Sealed::Failed)
            }
        }
    }

    /// Has one worker write; what comes is whether it was told so.
    fn write(&self, node: Node, vnode: u32) -> oneshot::Receiver<bool> {
        let (told, written) = oneshot::channel();
        let (world, version) = (self.world().clone(), self.version);
        let backend = Arc::clone(&self.workers[vnode as usize]);
        let assigned = if world.scenario().fenced() { version } else { 0 };
        let body: Bytes = node.body(vnode);
        let task = async move {
            sleep(world.draw(1, 200)).await;
            let mut done = false;
            for _ in 0..3 {
                match backend.write_partial(vnode, node.epoch, assigned, body.clone()).await {
                    Ok(()) => done = true,
                    Err(StateBackendError::Io { .. }) => {
                        sleep(100).await;
                        continue;
                    }
                    Err(error) => world.with(|state| {
                        state.count(match error {
                            StateBackendError::StaleVersion { .. } => "stale writes",
                            StateBackendError::PartialConflict { .. } => "partial conflicts",
                            _ => "refused writes",
                        });
                    }),
                }
                break;
            }
            // The leader may be gone.
            let _ = told.send(done);
        };
        self.pod.workers[vnode as usize].spawn_detached(self.world(), task);
        written
    }

    /// Now and then a leader asks again for an epoch that took too long, prunes by itself, rehearses a restore, reads an epoch by its
    /// number, or is so confused that it asks for another version's seal.
    async fn look_around(&self, epoch: u64) -> Result<(), Over> {
        let late = self.late.lock().unwrap().pop().filter(|_| self.world().chance(70));
        if let Some(node) = late {
            sleep(self.world().draw(0, 3_000)).await;
            if let Sealed::Ended(Ended::Acknowledged) = self.seal(node).await? {
                self.world().count("late epochs sealed after later ones");
                self.acknowledged(node);
            }
        }
        if self.world().setup().pruned_by_leader && self.world().chance(30) {
            let before = epoch.saturating_sub(self.world().draw(0, 3));
            let pruned = self.backend.prune_before(before).await;
            self.world().count(if pruned.is_ok() { "prunes by a leader" } else { "failed prunes by a leader" });
        }
        if self.world().chance(15) {
            match self.restore_once().await {
                Ok(_) => self.world().count("rehearsed restores"),
                Err(error) => self.heed(&error)?,
            }
        }
        if self.world().chance(10) {
            let sealed = self.world().with(|state| state.bucket.sealed());
            let any = sealed.get(usize::try_from(self.world().draw(0, 3)).unwrap()).copied();
            let read = self.read(any.filter(|_| self.world().chance(50)).unwrap_or(epoch)).await;
            if let Ok(Some(bodies)) = read {
                self.world().with(|state| {
                    state.count("epochs read by number");
                    state.oracle.has_read(self.term, &bodies);
                });
            }
        }
        if self.world().numbering() == Numbering::Versioned && self.world().chance(5) {
            let other = epoch.wrapping_add(if self.world().chance(50) { VERSION } else { VERSION.wrapping_neg() });
            let asked = self.backend.epoch_complete(other, &[]).await;
            self.world().with(|state| {
                state.count("seals of other versions asked for");
                if !matches!(asked, Err(StateBackendError::EpochOutOfRange { .. })) {
                    let how = format!("version {} asked for the seal of {other}, and was told {asked:?}", self.version);
                    state.oracle.object(Promise::OwnRange, how);
                }
            });
        }
        Ok(())
    }

    async fn read(&self, epoch: u64) -> Result<Option<Vec<Bytes>>, StateBackendError> {
        let Some(restore) = self.backend.restore(Some(epoch)).await? else { return Ok(None) };
        let mut bodies = Vec::new();
        for vnode in 0..self.world().setup().vnodes {
            bodies.push(restore.read_partial(vnode).await?);
        }
        // An older state that nobody has written: who goes on all the same is not to be told that all is well.
        let missing = self.world().chance(10)
            && matches!(restore.read_base(0, NEVER).await, Err(StateBackendError::RestoreIncomplete { .. }));
        // A prune may come to it meanwhile.
        if self.world().chance(50) {
            sleep(self.world().draw(0, 5_000)).await;
        }
        let stands = self.world().with(|state| state.bucket.seal(epoch).is_some());
        let finished = restore.finish().await;
        self.world().with(|state| {
            for (wrong, what) in [(missing, "states missed by a restore"), (!stands, "seals lost during a restore")] {
                if wrong {
                    state.count(what);
                    if finished.is_ok() {
                        state
                            .oracle
                            .object(Promise::WholeRestore, format!("{what}: epoch {epoch} was restored all the same"));
                    }
                }
            }
        });
        finished?;
        Ok(Some(bodies))
    }
}

/// How a fence record names a Lease.
pub(crate) fn identity(lease: &Lease) -> LeaseIdentity {
    LeaseIdentity {
        namespace: "streaming".into(),
        name: "leader".into(),
        uid: lease.uid.clone(),
        transitions: lease.transitions,
    }
}
