//! What a prune was shown, and what it deletes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use epochwarden_core::key::Key;
use epochwarden_core::retention::KeepEvery;
use object_store::ObjectMeta;

use super::{Client, ClientKind, Oracle, Promise};
use crate::bucket::Bucket;
use crate::setup::Setup;

/// What a listing of everything has shown to one client.
#[derive(Debug, Default)]
pub(super) struct View {
    epochs: BTreeMap<u64, Seen>,
    /// The second of the newest object that it has shown.
    newest: i64,
    /// What has to be kept by it, once something is deleted.
    kept: Option<BTreeSet<u64>>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The second in which it was sealed.
    sealed: Option<i64>,
    vnodes: u32,
    /// The second of its newest object.
    newest: i64,
}

impl View {
    fn observe(&mut self, object: &ObjectMeta) {
        let second = object.last_modified.timestamp();
        self.newest = self.newest.max(second);
        let seen = match Key::parse(object.location.as_ref()) {
            Key::Commit { epoch } => {
                let seen = self.epochs.entry(epoch.get()).or_default();
                seen.sealed = Some(second);
                seen
            }
            Key::Partial { epoch, .. } => {
                let seen = self.epochs.entry(epoch.get()).or_default();
                seen.vnodes += 1;
                seen
            }
            _ => return,
        };
        seen.newest = seen.newest.max(second);
    }

    fn sealed(&self) -> impl Iterator<Item = (u64, i64)> {
        self.epochs.iter().rev().filter_map(|(epoch, seen)| Some((*epoch, seen.sealed?)))
    }

    /// What the plainest reading of the rules keeps: the newest sealed epochs, the newest whole one, the pins, the last of each window,
    /// what is young, what any of these builds on, and everything unsealed above the oldest of the newest.
    fn keeps(&self, setup: &Setup, pins: &[u64]) -> BTreeSet<u64> {
        let whole = self.sealed().find(|(epoch, _)| self.epochs[epoch].vnodes == setup.vnodes);
        let Some(whole) = whole else { return self.epochs.keys().copied().collect() };
        let last = usize::try_from(setup.retention.keep_last.unwrap_or_default()).unwrap();
        let newest: BTreeSet<u64> = self.sealed().take(last.max(1)).chain([whole]).map(|(epoch, _)| epoch).collect();
        let lowest = newest.first().copied().unwrap_or_default();

        let mut kept = newest;
        kept.extend(pins);
        kept.extend(self.last_of_windows(&setup.retention.keep_every));
        kept.extend(self.young(setup.min_age));
        let bases: Vec<u64> =
            kept.iter().flat_map(|epoch| self.bases(*epoch, setup.retention.incremental_depth)).collect();
        kept.extend(bases);
        kept.extend(
            self.epochs
                .iter()
                .filter(|(epoch, seen)| seen.sealed.is_none() && **epoch > lowest)
                .map(|(epoch, _)| epoch),
        );
        kept
    }

    /// Of each window, the highest number that was sealed in it, as far back as the rule reaches from the newest seal.
    fn last_of_windows(&self, rules: &[KeepEvery]) -> BTreeSet<u64> {
        let Some((_, newest)) = self.sealed().next() else { return BTreeSet::new() };
        let mut windows = BTreeMap::new();
        for (number, rule) in rules.iter().enumerate() {
            let (every, reach) = (whole_seconds(rule.every), whole_seconds(rule.for_));
            for (epoch, sealed) in self.sealed().filter(|(_, sealed)| newest - sealed <= reach) {
                windows.entry((number, sealed.div_euclid(every))).or_insert(epoch);
            }
        }
        windows.into_values().collect()
    }

    /// Those that somebody may be restoring: with a young object, or with nothing above them that was sealed long enough ago.
    fn young(&self, min_age: Duration) -> BTreeSet<u64> {
        let least = whole_seconds(min_age);
        if least == 0 {
            return BTreeSet::new();
        }
        let settled = |above: u64| self.sealed().any(|(epoch, sealed)| epoch > above && self.newest - sealed > least);
        let young = self.epochs.iter().filter(|(epoch, seen)| self.newest - seen.newest < least || !settled(**epoch));
        young.map(|(epoch, _)| *epoch).collect()
    }

    /// What a sealed epoch builds on: everything down to so many seals below it.
    fn bases(&self, of: u64, depth: u32) -> Vec<u64> {
        let mut bases = Vec::new();
        if depth == 0 || self.epochs.get(&of).is_none_or(|seen| seen.sealed.is_none()) {
            return bases;
        }
        let mut passed = 0;
        for (epoch, seen) in self.epochs.range(..of).rev() {
            bases.push(*epoch);
            passed += u32::from(seen.sealed.is_some());
            if passed == depth {
                break;
            }
        }
        bases
    }
}

/// The store dates by whole seconds, and so are all spans that a seed draws.
fn whole_seconds(span: Duration) -> i64 {
    assert_eq!(span.subsec_nanos(), 0, "{span:?}");
    i64::try_from(span.as_secs()).unwrap()
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
            let view = &mut facts.view;
            if view.kept.is_none() {
                view.kept = Some(view.keeps(&self.setup, &pins));
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
                    && facts.view.epochs.get(&epoch.get()).is_some_and(|seen| seen.sealed.is_some());
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
