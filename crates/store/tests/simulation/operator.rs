//! An operator: the real decisions and the real runs, in the order in which the controller makes them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use epochwarden_core::finding::FindingKind;
use epochwarden_core::lease::{
    self as rules, FenceDecision, FenceSeen, LeaseObservation, LeaseSeen, RecordSeen, Term, VersionFrom,
};
use epochwarden_core::plan::Rules;
use epochwarden_core::register::{OwnerRecord, RegisterKind};
use epochwarden_core::retention::Retention;
use epochwarden_core::{Epoch, ShownEpoch, Version};
use epochwarden_store::audit::{self, AuditRules};
use epochwarden_store::prune::{self, Always, Approval, Identity, PruneRules};
use epochwarden_store::registers::{AssignError, Assigned};
use epochwarden_store::{Published, Registers, Root, StoreError};
use tokio_util::sync::CancellationToken;

use crate::lease::{self, Lease};
use crate::oracle::{ClientKind, Promise};
use crate::process::Process;
use crate::store::SimStore;
use crate::world::{World, sleep};

/// How often one look may go from decision to action and back.
const ROUNDS: usize = 6;

/// One start of an operator.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    pub(crate) world: World,
    pub(crate) name: String,
    pub(crate) process: Process,
}

impl Operator {
    pub(crate) async fn run(self) {
        let prunes = self.clone();
        let audits = self.clone();
        futures::join!(Fence::new(&self).run(), prunes.prune_for_ever(), audits.audit_for_ever());
    }

    fn root(&self, kind: ClientKind, what: &str) -> (Root, SimStore) {
        let store = SimStore::new(&self.world, &self.process, format!("{} {what}", self.name), kind);
        let root = Root::from_store(Arc::new(store.clone())).numbered(self.world.numbering());
        let root = if self.world.chance(60) { root.with_paginated(Arc::new(store.clone())) } else { root };
        (root, store)
    }

    async fn prune_for_ever(self) {
        loop {
            let every = self.world.setup().prune_every;
            sleep(self.world.draw(every / 2, every * 2)).await;
            self.prune().await;
        }
    }

    async fn prune(&self) {
        let setup = self.world.setup();
        // Somebody pins what is there now, or takes the pin away.
        let (pins, seen) = self.world.with(|state| {
            let sealed = state.bucket.sealed();
            if setup.pins && !sealed.is_empty() && state.chance(30) {
                state.pins = [sealed[state.rng.usize(..sealed.len())], state.pins[0]];
            }
            (state.pins, state.status)
        });
        let (root, store) = self.root(ClientKind::Prune { pins }, "prune");
        let pinned: BTreeSet<Epoch> = pins.into_iter().map(Epoch::new).collect();
        let rules = PruneRules {
            plan: Rules {
                vnodes: setup.vnodes,
                retention: Retention { pinned, ..setup.retention.clone() },
                min_age: setup.min_age,
            },
            dry_run: false,
            max_objects: setup.max_objects,
            max_keys_per_second: None,
            deadline: Duration::from_mins(1),
        };
        let identity = Identity { policy: Some(policy()), ignore_owner: false, publisher: self.name.clone(), seen };
        self.world.with(|state| state.oracle.remembers(store.client(), seen));
        let (clock, cancel) = (self.world.clock(), CancellationToken::new());
        let report = prune::run(&root, &rules, &identity, Approval::Automatic, &Always, &clock, &cancel, &|_| ()).await;
        self.world.with(|state| match report {
            Ok(report) => {
                state.note(&self.name, "has pruned", &format!("{} objects", report.objects));
                state.count(if report.objects > 0 { "prunes with deletions" } else { "prunes without deletions" });
                if report.failed > 0 {
                    state.count("prunes that partly failed");
                }
            }
            Err(error) => {
                state.note(&self.name, "has failed to prune:", &error.to_string());
                state.count("failed prunes");
            }
        });
    }

    async fn audit_for_ever(self) {
        loop {
            sleep(self.world.draw(5_000, 60_000)).await;
            self.audit().await;
        }
    }

    /// One audit; whether it came to its end.
    pub(crate) async fn audit(&self) -> bool {
        let setup = self.world.setup();
        let (root, _) = self.root(ClientKind::Reader, "audit");
        let plan = Rules { vnodes: setup.vnodes, retention: setup.retention.clone(), min_age: setup.min_age };
        let rules = AuditRules { plan, stalled_after: Duration::from_hours(1), deadline: Some(Duration::from_mins(1)) };
        let clock = self.world.clock();
        let report = audit::run(&root, &rules, clock.as_ref(), &CancellationToken::new(), &|_| ()).await;
        let Ok(report) = report else {
            self.world.count("failed audits");
            return false;
        };
        self.world.with(|state| {
            state.count("audits");
            let incomplete = report.audit.findings.iter().find(|found| found.kind == FindingKind::SealedIncomplete);
            if let Some(found) = incomplete {
                state.oracle.found_incomplete(found.epoch.map_or(0, ShownEpoch::get), &found.detail);
            }
            // Nobody here writes such a seal.
            if let Some(found) = report.audit.findings.iter().find(|found| found.kind == FindingKind::MalformedMarker) {
                state.oracle.object(Promise::Audit, format!("a malformed seal was found: {}", found.detail));
            }
        });
        true
    }
}

fn policy() -> OwnerRecord {
    OwnerRecord {
        cluster: "cluster".into(),
        namespace: "streaming".into(),
        name: "orders".into(),
        uid: "policy".into(),
        take_over: None,
    }
}

/// The fence path: from the Lease to a durable record.
struct Fence<'a> {
    world: &'a World,
    name: &'a str,
    registers: Registers,
    known: Option<FenceSeen>,
    lease: Option<(Lease, LeaseObservation)>,
}

const MISSING: LeaseSeen<'static> = LeaseSeen::Missing { namespace: "streaming", name: "leader" };

/// Nothing more to do in this look.
struct Done;

impl<'a> Fence<'a> {
    fn new(operator: &'a Operator) -> Self {
        let (root, store) = operator.root(ClientKind::Fence, "fence");
        let registers = Registers::new(root, operator.name.clone()).with_clock(operator.world.clock());
        let seen = operator.world.with(|state| {
            state.oracle.remembers(store.client(), state.status);
            state.status
        });
        registers.remember(&seen);
        Self { world: &operator.world, name: &operator.name, registers, known: None, lease: None }
    }

    async fn run(mut self) {
        loop {
            if self.world.scenario().fenced() {
                let Done = self.look().await.unwrap_or(Done);
            }
            sleep(self.world.draw(200, 900)).await;
        }
    }

    /// From the Lease to a fence that is durable, or as far as it comes.
    async fn look(&mut self) -> Result<Done, Done> {
        if self.world.setup().assigned {
            return self.assign().await;
        }
        self.fetch().await?;
        let mut fetched = false;
        for _ in 0..ROUNDS {
            let fence = self.known().await?;
            let seen = match &self.lease {
                Some((_, lease)) => LeaseSeen::Found(lease),
                None => MISSING,
            };
            let from = VersionFrom::LeaseTransitions;
            match rules::decide(seen, from, self.world.numbering(), &fence, self.world.elapsed()) {
                FenceDecision::Publish(_) if !fetched => {
                    self.fetch().await?;
                    fetched = true;
                }
                FenceDecision::Publish(term) => self.publish(&term).await?,
                FenceDecision::ReadRecord(term) => self.read_record(&term).await?,
                FenceDecision::Refused(refusal) => {
                    self.world.count(refusal.reason());
                    return Ok(Done);
                }
                FenceDecision::Current(_) | FenceDecision::AwaitingAnnotation { .. } => return Ok(Done),
            }
        }
        Ok(Done)
    }

    /// The version is the operator's to give: the fence is listed, then the Lease is read, then the next version is created.
    async fn assign(&mut self) -> Result<Done, Done> {
        let (world, observed) = (self.world, Mutex::new(self.lease.take()));
        let assigned = self
            .registers
            .assign_fence(async |_, fence| {
                let found = lease::get(world).await?;
                let before = observed.lock().unwrap().take();
                let now = found.map(|found| observe(world, before, found));
                let seen = now.as_ref().map_or(MISSING, |(_, lease)| LeaseSeen::Found(lease));
                let decision = rules::decide(seen, VersionFrom::Assigned, world.numbering(), &fence, world.elapsed());
                *observed.lock().unwrap() = now;
                Ok::<_, lease::Failure>(decision)
            })
            .await;
        self.lease = observed.into_inner().unwrap();
        self.world.with(|state| match &assigned {
            Ok(Assigned::Created(term)) => {
                state.note(self.name, "has assigned", &format!("version {} to {}", term.version, term.holder));
                state.count("versions assigned");
                state.status.fence = state.status.fence.max(term.version);
                state.oracle.fence_told(&state.bucket, term.version.get(), &term.holder);
            }
            Ok(Assigned::Nothing { decision: FenceDecision::Refused(refusal), .. }) => state.count(refusal.reason()),
            Ok(Assigned::Nothing { .. }) => {}
            Err(AssignError::Store(StoreError::RegisterLost(_))) => state.count("lost registers told"),
            Err(_) => state.count("failed assignments"),
        });
        Ok(Done)
    }

    async fn fetch(&mut self) -> Result<(), Done> {
        let found = lease::get(self.world).await.map_err(|_| Done)?;
        let before = self.lease.take();
        self.lease = found.map(|found| observe(self.world, before, found));
        Ok(())
    }

    /// What is known of the fence, read once and again after every failure.
    async fn known(&mut self) -> Result<FenceSeen, Done> {
        if let Some(known) = &self.known {
            return Ok(known.clone());
        }
        let fence = match self.registers.read().await {
            Ok(reading) => {
                self.world.with(|state| state.status = state.status.max(reading));
                FenceSeen { highest: reading.fence, record: RecordSeen::Unread, lost: None }
            }
            Err(StoreError::RegisterLost(lost)) => {
                self.world.count("lost registers told");
                FenceSeen { highest: Version::OFF, record: RecordSeen::Unread, lost: Some(lost) }
            }
            Err(_) => return Err(Done),
        };
        // A lost register may come back: it is looked at again each time.
        if fence.lost.is_none() {
            self.known = Some(fence.clone());
        }
        Ok(fence)
    }

    async fn read_record(&mut self, term: &Term) -> Result<(), Done> {
        let Ok(Some(record)) = self.registers.fence_record(term.version).await else {
            self.known = None;
            return Err(Done);
        };
        if let Some(known) = &mut self.known {
            known.record = record.into();
        }
        Ok(())
    }

    async fn publish(&mut self, term: &Term) -> Result<(), Done> {
        let published = self.registers.publish_fence(term.version, &term.holder, Some(&term.lease)).await;
        let highest = match published {
            Ok(Published::Created | Published::AlreadyThere) => {
                self.world.with(|state| {
                    state.note(self.name, "has published", &format!("version {} of {}", term.version, term.holder));
                    state.count("fences published");
                    state.oracle.fence_told(&state.bucket, term.version.get(), &term.holder);
                });
                if self.registers.read().await.is_err() {
                    // Another register has fallen, perhaps: nothing is published before it is known to stand.
                    self.known = None;
                    return Err(Done);
                }
                self.registers.trim(RegisterKind::Fence).await;
                term.version
            }
            Err(StoreError::FenceConflict { .. }) => {
                self.world.count("fence conflicts");
                term.version
            }
            Ok(Published::Superseded { by }) => by,
            Err(_) => {
                self.known = None;
                return Err(Done);
            }
        };
        self.world.with(|state| state.status.fence = state.status.fence.max(highest));
        self.known = Some(FenceSeen { highest, record: RecordSeen::Unread, lost: None });
        Ok(())
    }
}

/// The Lease as it is seen now, with when its renewal and its holder were first seen.
fn observe(world: &World, before: Option<(Lease, LeaseObservation)>, found: Lease) -> (Lease, LeaseObservation) {
    let now = world.elapsed();
    let before = before.filter(|(before, _)| before.uid == found.uid);
    let renewed = match &before {
        Some((before, observed)) if before.renewed == found.renewed => observed.renewed,
        _ => now,
    };
    let holder_since = match &before {
        Some((before, observed)) if before.holder == found.holder => observed.holder_since,
        _ => now,
    };
    let observed = LeaseObservation {
        namespace: "streaming".into(),
        name: "leader".into(),
        uid: found.uid.clone(),
        holder: Some(found.holder.clone()),
        transitions: Some(found.transitions),
        duration: Some(world.setup().lease),
        annotation: None,
        renewed,
        holder_since,
    };
    (found, observed)
}
