//! The protocol's paragraph on plans, sentence by sentence and as slow as it reads: no inventory, no bitmaps, no single pass; every
//! rule asks the bare list of objects again.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::plan::Rules;

/// One object of a listing. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) epoch: u64,
    pub(super) what: What,
    pub(super) modified: i64,
    pub(super) size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Partial(u32),
    Seal,
    Note(u8),
    FolderMarker,
}

impl Object {
    pub(super) fn key(&self) -> String {
        let folder = format!("epoch={}", self.epoch);
        match self.what {
            What::Partial(vnode) => format!("{folder}/vnode={vnode}/partial.bin"),
            What::Seal => format!("{folder}/_COMMIT"),
            What::Note(number) => format!("{folder}/notes/{number}"),
            What::FolderMarker => folder,
        }
    }
}

fn millis(span: Duration) -> i128 {
    span.as_millis().try_into().unwrap()
}

pub(super) struct Model<'a> {
    pub(super) objects: &'a [Object],
    pub(super) rules: &'a Rules,
}

impl Model<'_> {
    pub(super) fn listed(&self) -> BTreeSet<u64> {
        self.objects.iter().map(|object| object.epoch).collect()
    }

    fn of(&self, epoch: u64) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(move |object| object.epoch == epoch)
    }

    fn seal(&self, epoch: u64) -> Option<i64> {
        self.of(epoch).find(|object| object.what == What::Seal).map(|object| object.modified)
    }

    fn sealed(&self) -> Vec<u64> {
        self.listed().into_iter().filter(|epoch| self.seal(*epoch).is_some()).collect()
    }

    fn complete(&self, epoch: u64) -> bool {
        (0..self.rules.vnodes).all(|vnode| self.of(epoch).any(|object| object.what == What::Partial(vnode)))
    }

    pub(super) fn latest(&self) -> Option<u64> {
        self.sealed().into_iter().max()
    }

    pub(super) fn newest_complete(&self) -> Option<u64> {
        self.sealed().into_iter().filter(|epoch| self.complete(*epoch)).max()
    }

    /// "every time is the store's: ages count back from the newest last-modified in the listing"
    fn age(&self, modified: i64) -> i128 {
        i128::from(self.objects.iter().map(|object| object.modified).max().unwrap() - modified)
    }

    /// "windows from the newest seal"
    fn before_newest_seal(&self, epoch: u64) -> Option<i128> {
        Some(i128::from(self.seal(self.latest()?)? - self.seal(epoch)?))
    }

    fn keep_last(&self, epoch: u64) -> bool {
        let above = self.sealed().into_iter().filter(|other| *other > epoch).count();
        self.seal(epoch).is_some() && self.rules.retention.keep_last.is_some_and(|count| above < count as usize)
    }

    fn keep_within(&self, epoch: u64) -> bool {
        match (self.rules.retention.keep_within, self.before_newest_seal(epoch)) {
            (Some(span), Some(before)) => before <= millis(span),
            _ => false,
        }
    }

    fn keep_every(&self, epoch: u64) -> bool {
        self.rules.retention.keep_every.iter().any(|rule| {
            let window = |epoch: u64| {
                let inside = self.before_newest_seal(epoch)? <= millis(rule.for_);
                inside.then(|| i128::from(self.seal(epoch).unwrap()).div_euclid(millis(rule.every)))
            };
            let mine = window(epoch);
            mine.is_some() && !self.sealed().into_iter().any(|other| other > epoch && window(other) == mine)
        })
    }

    fn too_young(&self, epoch: u64) -> bool {
        let min_age = millis(self.rules.min_age);
        let young_object = self.of(epoch).any(|object| self.age(object.modified) < min_age);
        let old_seal_above =
            self.sealed().into_iter().any(|other| other > epoch && self.age(self.seal(other).unwrap()) > min_age);
        min_age != 0 && (young_object || !old_seal_above)
    }

    /// The reasons up to `TooYoung`.
    fn first_reasons(&self, epoch: u64) -> Option<&'static str> {
        if Some(epoch) == self.latest() {
            Some("Latest")
        } else if Some(epoch) == self.newest_complete() {
            Some("NewestComplete")
        } else if self.rules.retention.pinned.iter().any(|pin| pin.get() == epoch) {
            Some("Pinned")
        } else if self.keep_last(epoch) {
            Some("KeepLast")
        } else if self.keep_within(epoch) {
            Some("KeepWithin")
        } else if self.keep_every(epoch) {
            Some("KeepEvery")
        } else if self.too_young(epoch) {
            Some("TooYoung")
        } else {
            None
        }
    }

    /// Walking down from a kept sealed epoch, fewer than the depth have been passed on the way here.
    fn incremental_base(&self, epoch: u64) -> bool {
        self.sealed().into_iter().filter(|kept| *kept > epoch && self.first_reasons(*kept).is_some()).any(|kept| {
            let passed = self.sealed().into_iter().filter(|other| epoch < *other && *other < kept).count();
            passed < self.rules.retention.incremental_depth as usize
        })
    }

    fn in_flight(&self, epoch: u64) -> bool {
        let anchor = |other: u64| {
            Some(other) == self.latest()
                || Some(other) == self.newest_complete()
                || self.keep_last(other)
                || self.keep_within(other)
        };
        self.seal(epoch).is_none() && self.listed().into_iter().any(|other| other < epoch && anchor(other))
    }

    /// The word of an epoch.
    pub(super) fn word(&self, epoch: u64) -> &'static str {
        let retention = &self.rules.retention;
        if retention.keep_last.is_none() && retention.keep_within.is_none() && retention.keep_every.is_empty() {
            return "KeepsEverything";
        }
        if self.newest_complete().is_none() {
            return "NoneComplete";
        }
        if let Some(word) = self.first_reasons(epoch) {
            word
        } else if self.incremental_base(epoch) {
            "IncrementalBase"
        } else if self.in_flight(epoch) {
            "Unsealed"
        } else if self.of(epoch).any(|object| object.what == What::FolderMarker) {
            "UnaddressableKey"
        } else if self.seal(epoch).is_some() {
            "Expired"
        } else {
            "Abandoned"
        }
    }

    /// "while an epoch that would be deleted has an object newer than the newest seal, prune holds"
    pub(super) fn held(&self, deleted: &[u64]) -> bool {
        let Some(newest_seal) = self.latest().and_then(|latest| self.seal(latest)) else {
            return false;
        };
        deleted.iter().any(|epoch| self.of(*epoch).any(|object| object.modified > newest_seal))
    }
}
