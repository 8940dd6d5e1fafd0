//! One run: who is there, what befalls them, and what is asked at the end.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use epochwarden_core::register::RegisterKind;
use epochwarden_core::{Epoch, Vnode, key};
use epochwarden_store::{ObjectStoreBackend, StateBackendError};
use tokio::runtime::Builder;

use crate::leader::Pod;
use crate::operator::Operator;
use crate::oracle::{Client, ClientKind, Node, Promise, Violation};
use crate::process::{Process, Task, words_of};
use crate::setup::{Mode, Scenario};
use crate::standby::stand_by;
use crate::store::SimStore;
use crate::world::{Counts, World, sleep, store_time};

/// How long work may take to go on when the faults are over, in milliseconds.
const RECOVERS_WITHIN: u64 = 60_000;
/// After this, nothing that was sent is still under way.
const SETTLED: u64 = 45_000;

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) violation: Option<Violation>,
    pub(crate) hash: u64,
    pub(crate) events: u64,
    pub(crate) counts: Counts,
    pub(crate) lines: Vec<String>,
}

/// Runs a seed; `worded` keeps the trace as text.
pub(crate) fn run(seed: u64, scenario: Scenario, worded: bool) -> Outcome {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    // It takes its time from the runtime.
    let entered = runtime.enter();
    let world = World::new(seed, scenario, worded);
    let played = std::panic::catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            prepare(&world);
            tokio::select! {
                biased;
                () = world.stopped() => {}
                () = play(&world) => {}
            }
        });
    }));
    drop(entered);
    drop(runtime);
    let mut state = world.into_state();
    if let Err(panic) = played {
        state.oracle.object(Promise::NoPanic, words_of(panic.as_ref()));
    }
    Outcome {
        violation: state.oracle.violation().cloned(),
        hash: state.trace.hash(),
        events: state.trace.events(),
        counts: state.counts,
        lines: state.trace.into_lines(),
    }
}

/// Registers that are old already, and the epoch that was the newest then.
fn prepare(world: &World) {
    let (old, vnodes) = (world.setup().old_records, world.setup().vnodes);
    if old == 0 {
        return;
    }
    world.with(|state| {
        for number in 1..=old {
            let key = key::register(RegisterKind::Floor, number);
            state.bucket.put(&key, Bytes::from_static(b"{}"), store_time(0), 0);
        }
        let node = Node { term: state.oracle.begins_term(0, "long-ago", Client::NOBODY), epoch: old };
        state.oracle.continues(node, None);
        for vnode in 0..vnodes {
            let key = key::partial(Epoch::new(old), Vnode::new(vnode));
            state.bucket.put(&key, node.body(vnode), store_time(0), 0);
        }
        let seal = Bytes::from_static(b"long-ago");
        let key = key::commit(Epoch::new(old));
        state.oracle.writes(&state.bucket, &key, &seal, 0);
        state.bucket.put(&key, seal, store_time(0), 0);
        state.oracle.acknowledged(&state.bucket, node, 0);
    });
}

async fn play(world: &World) {
    let setup = world.setup();
    let workers: Arc<[Process]> = (0..setup.vnodes).map(|_| Process::default()).collect();
    let mut pods: Vec<Task> =
        (0..setup.pods).map(|slot| Task::of(keep_pod(world.clone(), slot, workers.clone()))).collect();
    let mut operators: Vec<Task> = (0..2).map(|slot| Task::of(keep_operator(world.clone(), slot))).collect();
    let mut befall: Vec<Task> = workers.iter().map(|worker| Task::of(pauses(world.clone(), worker.clone()))).collect();
    befall.push(Task::of(deletions(world.clone())));
    if world.scenario().fenced() {
        let process = Process::default();
        befall.push(process.spawn(stand_by(world.clone(), process.clone())));
    }
    let calm = async {
        sleep(setup.calm_at).await;
        world.with(|state| {
            state.calm = true;
            state.note("everybody", "is left alone from here on", "");
        });
        let before = world.with(|state| state.oracle.acknowledgements());
        let mut waited = 0;
        while world.with(|state| state.oracle.acknowledgements()) < before + 2 && waited < RECOVERS_WITHIN {
            sleep(500).await;
            waited += 500;
        }
        if waited >= RECOVERS_WITHIN {
            world.with(|state| state.oracle.object(Promise::Recovers, "nothing is acknowledged any more"));
        }
    };
    tokio::select! {
        biased;
        () = first_ended(&mut pods) => {}
        () = first_ended(&mut operators) => {}
        () = calm => {}
    }
    drop((pods, operators, befall));
    sleep(SETTLED).await;
    close(world).await;
}

/// A supervisor ends only by what went wrong in it.
async fn first_ended(tasks: &mut [Task]) {
    futures::future::select_all(tasks.iter_mut().map(|task| Box::pin(task.ended()))).await;
}

/// At the end: what was acknowledged is restored by whoever comes, and the audit agrees.
async fn close(world: &World) {
    if world.with(|state| state.oracle.is_wiped()) {
        return;
    }
    let fence = world.with(|state| state.bucket.registers().fence.get());
    let store = Arc::new(SimStore::new(world, &Process::default(), "the last reader", ClientKind::Reader));
    let backend = match world.scenario().mode {
        Mode::Classic => ObjectStoreBackend::new(store, "the last reader", world.setup().vnodes),
        _ => ObjectStoreBackend::builder(store)
            .vnode_capacity(world.setup().vnodes)
            .instance_id("the last reader")
            .leading(fence)
            .build(),
    };
    if let Err(error) = read_all(world, &backend).await {
        world.with(|state| {
            state.oracle.object(Promise::NothingLost, format!("the newest state cannot be restored: {error}"));
        });
    }
    if world.scenario().fenced() {
        let operator = Operator { world: world.clone(), name: "the last operator".into(), process: Process::default() };
        if !operator.audit().await {
            world.with(|state| state.oracle.object(Promise::Audit, "the audit at the end has failed"));
        }
    }
}

async fn read_all(world: &World, backend: &ObjectStoreBackend) -> Result<(), StateBackendError> {
    let mut bodies = Vec::new();
    let restore = backend.restore(None).await?;
    let acknowledged = world.with(|state| state.oracle.acknowledgements());
    if let Some(restore) = restore {
        for vnode in 0..world.setup().vnodes {
            bodies.push(restore.read_partial(vnode).await?);
        }
        restore.finish().await?;
    }
    world.with(|state| {
        if bodies.is_empty() && acknowledged > 0 {
            state.oracle.object(Promise::NothingLost, "nothing is left to restore");
        }
        let (now, term) = (state.now, state.oracle.begins_term(u64::MAX, "the last reader", Client::NOBODY));
        state.oracle.has_restored(term, &bodies, now);
    });
    Ok(())
}

/// A pod that is started again whenever it has died.
async fn keep_pod(world: World, slot: usize, workers: Arc<[Process]>) {
    let mut start = 0;
    let mut undead = None;
    loop {
        start += 1;
        let setup = world.setup();
        let name = if setup.same_name { format!("pod-{slot}") } else { format!("pod-{slot}-start-{start}") };
        let process = Process::default();
        let pod = Pod {
            world: world.clone(),
            name: name.clone(),
            process: process.clone(),
            workers: workers.clone(),
            free: Arc::default(),
        };
        let life = live(&world, &name, &process, pod.run());
        undead = life.await.or(undead);
    }
}

async fn keep_operator(world: World, slot: usize) {
    let name = format!("operator-{slot}");
    let mut undead = None;
    loop {
        let process = Process::default();
        let operator = Operator { world: world.clone(), name: name.clone(), process: process.clone() };
        let life = live(&world, &name, &process, operator.run());
        undead = life.await.or(undead);
    }
}

/// One life of a process: it runs, stands still now and then, and dies. Then it takes a while until the next. Some are only taken for
/// dead, and go on for a while beside their successors: of these the task is returned.
async fn live(
    world: &World,
    name: &str,
    process: &Process,
    life: impl Future<Output = ()> + Send + 'static,
) -> Option<Task> {
    let mut task = process.spawn(life);
    let death = async {
        match world.setup().crash_every {
            Some(every) => loop {
                sleep(world.draw(every / 2, every * 2)).await;
                if !world.with(|state| state.calm) {
                    break;
                }
            },
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = death => {}
        () = pauses(world.clone(), process.clone()) => {}
        () = task.ended() => {}
    }
    let undead = world.with(|state| {
        let undead = state.chance(40) && !state.calm;
        state.count(if undead { "undead processes" } else { "crashes" });
        state.note(name, if undead { "is taken for dead" } else { "dies" }, "");
        undead
    });
    let (stands_still, goes_on) = (world.draw(1, 8_000), world.draw(5_000, 30_000));
    process.resume();
    let undead = undead.then(|| {
        let process = process.clone();
        Task::of(async move {
            process.pause_for(stands_still).await;
            sleep(goes_on).await;
            drop(task);
        })
    });
    sleep(world.draw(100, 5_000)).await;
    undead
}

/// A process stands still now and then, until everybody is left alone.
async fn pauses(world: World, process: Process) {
    let Some(every) = world.setup().pause_every else { return std::future::pending().await };
    loop {
        sleep(world.draw(every / 2, every * 2)).await;
        let longest = world.setup().longest_pause;
        let Some(length) = world.with(|state| (!state.calm).then(|| state.spread(200, longest))) else { continue };
        process.pause();
        world.with(|state| state.count("pauses"));
        sleep(length).await;
        process.resume();
    }
}

/// What people do who should not.
async fn deletions(world: World) {
    let setup = world.setup();
    let records = async {
        let Some(at) = setup.wiped_at else { return };
        sleep(at).await;
        world.with(|state| {
            state.note("somebody", "deletes all records of the registers", "");
            state.count("wiped registers");
            state.oracle.wipe();
            for key in state.bucket.register_keys() {
                state.bucket.remove(&key);
            }
        });
    };
    let lease = async {
        let Some(at) = setup.lease_deleted_at else { return };
        sleep(at).await;
        world.with(|state| {
            state.note("somebody", "deletes the Lease", "");
            state.count("deleted Leases");
            state.lease = None;
        });
    };
    futures::join!(records, lease);
}
