//! Who sees everything at every instant, and objects where a promise is broken.
//!
//! The promises are the ones of the protocol. What is acknowledged is what a leader was told to be: `epoch_complete` gave `Ok(true)`.
//! What a state descends from is known from the states themselves: each says which term wrote it, at which epoch.

mod lineage;
mod prunes;

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use epochwarden_core::key::Key;
use epochwarden_core::lease::LeaseIdentity;
use epochwarden_core::register::{FenceRecord, Reading, RegisterKind};
use object_store::ObjectMeta;

use self::lineage::{Ack, Restored, TermFacts};
pub(crate) use self::lineage::{Node, Term};
use self::prunes::View;
use crate::bucket::Bucket;
use crate::setup::{Scenario, Setup};

/// A promise that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Promise {
    /// A restored epoch descends from every acknowledged one.
    Lineage,
    /// What was acknowledged, or something sealed after it, is there and whole.
    NothingLost,
    /// A restored epoch is the work of one term.
    Unmixed,
    /// What is acknowledged is sealed, by the one who is told so.
    OwnSeal,
    /// What is acknowledged lay above every floor that could be seen when its leader looked for the last time.
    AboveFloor,
    /// What a prune's rules keep is not deleted.
    NothingKeptDeleted,
    /// No epoch loses an object before the floor lies above it.
    FloorFirst,
    /// No epoch loses a partial while the seal that it had is there.
    SealFirst,
    /// Registers only rise, and records never change.
    Monotone,
    /// Who is told that a fence stands has it in his name.
    FenceTold,
    /// Versions follow the terms of the Lease.
    TermsInOrder,
    /// Who has seen a register fall writes nothing.
    RegisterLost,
    /// When the faults are over, work goes on.
    Recovers,
    /// An audit does not find what is not so, and finds nothing wrong at the end.
    Audit,
    /// A restore that is told to be whole has missed nothing, and the seal that it was by stood when all was read.
    WholeRestore,
    /// An epoch of another version's range is refused.
    OwnRange,
    /// Nothing panics, whatever a store answers.
    NoPanic,
}

/// What was broken, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) promise: Promise,
    pub(crate) how: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.promise, self.how)
    }
}

/// What a client is to the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientKind {
    /// A leader's or a worker's backend.
    Backend,
    /// An operator's fence.
    Fence,
    /// One run of a prune by the rules; what it deletes is judged by what it was shown.
    Prune { pins: [u64; 2] },
    /// One that only reads.
    Reader,
}

/// A client, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client(usize);

impl Client {
    /// One that sends nothing any more.
    pub(crate) const NOBODY: Self = Self(usize::MAX);
}

#[derive(Debug)]
struct ClientFacts {
    kind: ClientKind,
    /// The highest values that were shown to it, and had been when it asked last.
    seen: Reading,
    seen_at_request: Reading,
    reading: Reading,
    /// The millisecond at which it began its last listing of the registers that came to an end, and the one under way.
    looked: Option<u64>,
    looks: u64,
    /// What it was shown last lay below what it had seen.
    lost: bool,
    view: View,
}

/// The oracle.
#[derive(Debug)]
pub(crate) struct Oracle {
    scenario: Scenario,
    setup: Setup,
    clients: Vec<ClientFacts>,
    terms: Vec<TermFacts>,
    parents: BTreeMap<Node, Option<Node>>,
    acks: Vec<Ack>,
    restored: Vec<Restored>,
    /// Who sealed which epoch, ever, and at which millisecond.
    seals: BTreeMap<u64, Vec<(Bytes, u64)>>,
    /// When floors became durable: the millisecond by the epoch below which nothing is sealed any more.
    floors: BTreeMap<u64, u64>,
    /// Somebody has deleted the registers: nothing but [`Promise::RegisterLost`] is asked from then on.
    wiped: bool,
    violation: Option<Violation>,
}

impl Oracle {
    pub(crate) fn new(scenario: Scenario, setup: &Setup) -> Self {
        Self {
            scenario,
            setup: setup.clone(),
            clients: Vec::new(),
            terms: Vec::new(),
            parents: BTreeMap::new(),
            acks: Vec::new(),
            restored: Vec::new(),
            seals: BTreeMap::new(),
            floors: BTreeMap::new(),
            wiped: false,
            violation: None,
        }
    }

    pub(crate) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// The first objection stands.
    pub(crate) fn object(&mut self, promise: Promise, how: impl Into<String>) {
        if self.violation.is_some() || (self.wiped && !matches!(promise, Promise::RegisterLost | Promise::NoPanic)) {
            return;
        }
        self.violation = Some(Violation { promise, how: how.into() });
    }

    pub(crate) fn client(&mut self, kind: ClientKind) -> Client {
        self.clients.push(ClientFacts {
            kind,
            seen: Reading::default(),
            seen_at_request: Reading::default(),
            reading: Reading::default(),
            looked: None,
            looks: 0,
            lost: false,
            view: View::default(),
        });
        Client(self.clients.len() - 1)
    }

    /// The client knows these values from elsewhere.
    pub(crate) fn remembers(&mut self, client: Client, reading: Reading) {
        let facts = &mut self.clients[client.0];
        facts.seen = facts.seen.max(reading);
    }

    /// The registers are deleted by somebody who should not.
    pub(crate) fn wipe(&mut self) {
        self.wiped = true;
    }

    pub(crate) fn is_wiped(&self) -> bool {
        self.wiped
    }

    /// The client begins to list the registers.
    pub(crate) fn reads_registers(&mut self, client: Client, now: u64) {
        let facts = &mut self.clients[client.0];
        facts.looks = now;
        facts.seen_at_request = facts.seen;
        facts.reading = Reading::default();
    }

    /// The client is shown a part of that listing.
    pub(crate) fn saw_registers(&mut self, client: Client, objects: &[ObjectMeta], ends: bool) {
        let facts = &mut self.clients[client.0];
        for object in objects {
            if let Key::Register { kind, number } = Key::parse(object.location.as_ref()) {
                facts.reading.observe(kind, number);
            }
        }
        if ends {
            // Compared here, since the comparison of the rules is what is on trial.
            let (seen, found) = (facts.seen_at_request, facts.reading);
            facts.lost = found.fence < seen.fence || found.floor < seen.floor || found.owner < seen.owner;
            facts.seen = facts.seen.max(facts.reading);
            facts.looked = Some(facts.looks);
        }
    }

    /// The client sends a request.
    pub(crate) fn sends(&mut self, client: Client, what: &str, key: &str) {
        let writes = what == "DELETE" || (what == "PUT" && !matches!(Key::parse(key), Key::Partial { .. }));
        if writes && self.clients[client.0].lost {
            self.object(Promise::RegisterLost, format!("{what} {key} by one who was shown a register that fell"));
        }
    }

    /// An object is about to be written.
    pub(crate) fn writes(&mut self, bucket: &Bucket, key: &str, body: &Bytes, now: u64) {
        match Key::parse(key) {
            Key::Commit { epoch } => self.seals.entry(epoch.get()).or_default().push((body.clone(), now)),
            Key::Register { kind, number } => {
                if bucket.contains(key) {
                    self.object(Promise::Monotone, format!("the record {key} was written a second time"));
                }
                match kind {
                    RegisterKind::Floor => {
                        self.floors.entry(number).or_insert(now);
                    }
                    RegisterKind::Fence => self.fence_rises(bucket, number, body),
                    RegisterKind::Owner => {}
                }
            }
            _ => {}
        }
    }

    /// The version of a new fence and the term that it is for, against the one before.
    fn fence_rises(&mut self, bucket: &Bucket, version: u64, body: &Bytes) {
        let highest = bucket.registers().fence.get();
        if version < highest {
            return;
        }
        let lease = |body: &Bytes| serde_json::from_slice::<FenceRecord>(body).ok()?.lease;
        let key = epochwarden_core::key::register(RegisterKind::Fence, highest);
        let before = bucket.get(&key).and_then(|object| lease(&object.body));
        if let (Some(LeaseIdentity { uid, transitions, .. }), Some(now)) = (before, lease(body))
            && uid == now.uid
            && now.transitions <= transitions
        {
            let how = format!(
                "fence {version} is for transitions {} of the Lease, and {highest} below it for {transitions}",
                now.transitions
            );
            self.object(Promise::TermsInOrder, how);
        }
    }

    /// An audit says that an epoch is sealed and not whole. That would be somebody's loss: what was sealed below the floor is told apart,
    /// except within the very second in which the floor rose.
    pub(crate) fn found_incomplete(&mut self, epoch: u64, what: &str) {
        let sealed = self.seals.get(&epoch).into_iter().flatten().map(|(_, at)| at / 1000);
        let mut floors = self.floors.range(epoch + 1..).map(|(_, at)| at / 1000);
        let last = sealed.max();
        if !floors.any(|floor| Some(floor) == last) {
            self.object(Promise::Audit, format!("an audit finds what is not so: {what}"));
        }
    }

    /// Somebody was told that the fence stands for this holder.
    pub(crate) fn fence_told(&mut self, bucket: &Bucket, version: u64, holder: &str) {
        let key = epochwarden_core::key::register(RegisterKind::Fence, version);
        let named = bucket
            .get(&key)
            .and_then(|object| serde_json::from_slice::<FenceRecord>(&object.body).ok())
            .map(|record| record.holder);
        match named {
            Some(named) if named == holder => {}
            // Trimmed since.
            None if bucket.registers().fence.get() > version => {}
            named => {
                let named = named.as_deref().unwrap_or("nobody");
                self.object(
                    Promise::FenceTold,
                    format!("{holder} was told that fence {version} is its own: it names {named}"),
                );
            }
        }
    }
}
