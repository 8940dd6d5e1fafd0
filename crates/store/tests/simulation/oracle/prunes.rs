//! What a prune was shown, and what it deletes of it.

use std::collections::{BTreeMap, BTreeSet};

use epochwarden_core::key::Key;
use object_store::ObjectMeta;

use super::{Client, ClientKind, Oracle, Promise};
use crate::bucket::Bucket;

/// What a listing of everything has shown to one client.
#[derive(Debug, Default)]
pub(super) struct View {
    epochs: BTreeMap<u64, Seen>,
    /// What has to be kept by it, once something is deleted.
    kept: Option<BTreeSet<u64>>,
}

#[derive(Debug, Default)]
struct Seen {
    sealed: bool,
    vnodes: u32,
}

impl View {
    fn observe(&mut self, object: &ObjectMeta) {
        match Key::parse(object.location.as_ref()) {
            Key::Commit { epoch } => self.epochs.entry(epoch.get()).or_default().sealed = true,
            Key::Partial { epoch, .. } => self.epochs.entry(epoch.get()).or_default().vnodes += 1,
            _ => {}
        }
    }

    /// What the plainest reading of the rules keeps: the newest sealed epochs, the newest whole one, the pins, and everything unsealed
    /// above the oldest of the newest.
    fn keeps(&self, last: usize, vnodes: u32, pins: &[u64]) -> BTreeSet<u64> {
        let sealed = || self.epochs.iter().rev().filter(|(_, seen)| seen.sealed);
        let whole = sealed().find(|(_, seen)| seen.vnodes == vnodes);
        if whole.is_none() {
            return self.epochs.keys().copied().collect();
        }
        let newest: BTreeSet<u64> = sealed().take(last.max(1)).chain(whole).map(|(epoch, _)| *epoch).collect();
        let lowest = newest.first().copied().unwrap_or_default();
        let in_flight = self.epochs.iter().filter(|(epoch, seen)| !seen.sealed && **epoch > lowest);
        let mut kept: BTreeSet<u64> = in_flight.map(|(epoch, _)| *epoch).collect();
        kept.extend(newest);
        kept.extend(pins);
        kept
    }
}

impl Oracle {
    /// A page of a listing of everything was taken for a client.
    pub(crate) fn listed(&mut self, client: Client, begins: bool, objects: &[ObjectMeta]) {
        let facts = &mut self.clients[client.0];
        if !matches!(facts.kind, ClientKind::Prune { .. }) {
            return;
        }
        if begins {
            facts.view = View::default();
        }
        for object in objects {
            facts.view.observe(object);
        }
    }

    /// An object is about to be deleted.
    pub(crate) fn deletes(&mut self, bucket: &Bucket, client: Client, key: &str, _now: u64) {
        let (Key::Partial { epoch, .. } | Key::Commit { epoch } | Key::Extra { epoch }) = Key::parse(key) else {
            return;
        };
        let epoch = epoch.get();
        if !self.scenario.fenced() {
            return;
        }
        let floor = bucket.registers().floor.get();
        if floor <= epoch {
            self.object(Promise::FloorFirst, format!("{key} was deleted while the floor stood at {floor}"));
        }
        if !matches!(Key::parse(key), Key::Commit { .. })
            && let Some(seal) = bucket.seal(epoch)
            && self.floors.range(epoch + 1..).map(|(_, at)| *at).min().is_some_and(|at| seal.written < at)
        {
            self.object(Promise::SealFirst, format!("{key} was deleted while the seal of its epoch stood"));
        }
        let facts = &mut self.clients[client.0];
        if let ClientKind::Prune { pins } = facts.kind {
            let last = usize::try_from(self.setup.retention.keep_last.unwrap_or_default()).unwrap();
            let vnodes = self.setup.vnodes;
            let view = &mut facts.view;
            if view.kept.is_none() {
                view.kept = Some(view.keeps(last, vnodes, &pins));
            }
            if view.kept.as_ref().is_some_and(|kept| kept.contains(&epoch)) {
                self.object(
                    Promise::NothingKeptDeleted,
                    format!("{key} was deleted by a prune whose rules keep its epoch"),
                );
            }
        }
    }

    /// An object was deleted, if it was there.
    pub(crate) fn deleted(&mut self, bucket: &Bucket, client: Client, key: &str, was_there: bool) {
        if !was_there {
            return;
        }
        match Key::parse(key) {
            Key::Register { kind, number } if bucket.registers().value(kind) < number => {
                self.object(Promise::Monotone, format!("the {kind} register fell: {key} was its highest record"));
            }
            Key::Commit { epoch } => {
                // One that was sealed only after it was listed, and after later ones, is not among what the plan counted.
                let facts = &self.clients[client.0];
                let by_rules = matches!(facts.kind, ClientKind::Prune { .. })
                    && facts.view.epochs.get(&epoch.get()).is_some_and(|seen| seen.sealed);
                let last = usize::try_from(self.setup.retention.keep_last.unwrap_or_default()).unwrap();
                let above = bucket.sealed().into_iter().filter(|sealed| *sealed > epoch.get()).count();
                if by_rules && self.scenario.fenced() && !self.setup.pruned_by_leader && above < last {
                    let how = format!(
                        "{key} was deleted, and {above} sealed epochs are left above it: {last} are to be kept"
                    );
                    self.object(Promise::NothingKeptDeleted, how);
                }
                self.nothing_lost(bucket, "a seal was deleted");
            }
            Key::Partial { .. } => self.nothing_lost(bucket, "a partial was deleted"),
            _ => {}
        }
    }
}
