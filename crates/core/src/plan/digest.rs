//! The digest of a plan: what an approval is given to.

use std::fmt::Write as _;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::epoch::Epoch;
use crate::plan::{Rules, Subject};

/// The first field: names this canonical form, so that another one never gives the same digest.
const FORM: &str = "epochwarden/plan/1";

/// Hashes what an approval covers: where, by which rules, and what goes. Time, fence and what is kept are not part of it.
///
/// The canonical form is a sequence of fields in a fixed order, each with its length before it (a big-endian `u64`). Numbers are
/// big-endian; spans are nanoseconds in 16 bytes; an absent value is an empty field; a list is its length as a field, then its items.
pub(crate) fn digest(subject: &Subject, rules: &Rules, before: Option<Epoch>, deleted: &[Epoch]) -> String {
    let Rules { vnodes, retention, min_age } = rules;
    let mut keep_every = retention.keep_every.clone();
    keep_every.sort_unstable();
    keep_every.dedup();

    let mut form = Form(Sha256::new());
    form.field(FORM.as_bytes());
    form.field(subject.root.as_bytes());
    form.field(subject.policy_uid.as_bytes());
    form.field(&vnodes.to_be_bytes());
    form.optional(retention.keep_last.map(u32::to_be_bytes));
    form.optional(retention.keep_within.map(span));
    form.list(&keep_every, |form, rule| {
        form.field(&span(rule.every));
        form.field(&span(rule.for_));
    });
    form.list(&retention.pinned, |form, epoch| form.epoch(*epoch));
    form.field(&retention.incremental_depth.to_be_bytes());
    form.field(&span(*min_age));
    form.optional(before.map(|epoch| epoch.get().to_be_bytes()));
    form.list(deleted, |form, epoch| form.epoch(*epoch));
    form.finish()
}

fn span(span: Duration) -> [u8; 16] {
    span.as_nanos().to_be_bytes()
}

struct Form(Sha256);

impl Form {
    fn field(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn optional<const N: usize>(&mut self, bytes: Option<[u8; N]>) {
        self.field(bytes.as_ref().map_or(&[], <[u8; N]>::as_slice));
    }

    fn epoch(&mut self, epoch: Epoch) {
        self.field(&epoch.get().to_be_bytes());
    }

    fn list<'a, T: 'a, I>(&mut self, items: I, mut write: impl FnMut(&mut Self, &'a T))
    where
        I: IntoIterator<Item = &'a T, IntoIter: ExactSizeIterator>,
    {
        let items = items.into_iter();
        self.field(&(items.len() as u64).to_be_bytes());
        for item in items {
            write(self, item);
        }
    }

    fn finish(self) -> String {
        self.0.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a String does not fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::retention::{KeepEvery, Retention};

    fn subject() -> Subject {
        Subject { root: "s3://state/orders".into(), policy_uid: "u1".into() }
    }

    fn every(every: u64, span: u64) -> KeepEvery {
        KeepEvery { every: Duration::from_secs(every), for_: Duration::from_secs(span) }
    }

    fn rules() -> Rules {
        Rules {
            vnodes: 4,
            retention: Retention {
                keep_last: Some(2),
                keep_within: None,
                keep_every: vec![every(60, 600), every(10, 60)],
                pinned: [Epoch::new(3)].into(),
                incremental_depth: 1,
            },
            min_age: Duration::from_mins(10),
        }
    }

    fn of(subject: &Subject, rules: &Rules, before: u64, deleted: &[u64]) -> String {
        let deleted: Vec<_> = deleted.iter().copied().map(Epoch::new).collect();
        digest(subject, rules, Some(Epoch::new(before)), &deleted)
    }

    #[test]
    fn the_canonical_form_is_written_out_here() {
        const SECOND: u128 = 1_000_000_000;
        let mut form = Vec::new();
        for field in [
            b"epochwarden/plan/1".to_vec(),
            b"s3://state/orders".to_vec(),
            b"u1".to_vec(),
            vec![0, 0, 0, 4],
            vec![0, 0, 0, 2],
            vec![],
            vec![0, 0, 0, 0, 0, 0, 0, 2],
            (10 * SECOND).to_be_bytes().to_vec(),
            (60 * SECOND).to_be_bytes().to_vec(),
            (60 * SECOND).to_be_bytes().to_vec(),
            (600 * SECOND).to_be_bytes().to_vec(),
            vec![0, 0, 0, 0, 0, 0, 0, 1],
            vec![0, 0, 0, 0, 0, 0, 0, 3],
            vec![0, 0, 0, 1],
            (600 * SECOND).to_be_bytes().to_vec(),
            vec![0, 0, 0, 0, 0, 0, 0, 9],
            vec![0, 0, 0, 0, 0, 0, 0, 2],
            vec![0, 0, 0, 0, 0, 0, 0, 7],
            vec![0, 0, 0, 0, 0, 0, 0, 8],
        ] {
            form.extend([0, 0, 0, 0, 0, 0, 0, u8::try_from(field.len()).unwrap()]);
            form.extend(field);
        }
        let expected: Vec<String> = Sha256::digest(&form).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(of(&subject(), &rules(), 9, &[7, 8]), expected.concat());
    }

    #[test]
    fn everything_that_an_approval_covers_changes_it() {
        let with = |change: &dyn Fn(&mut Rules)| {
            let mut rules = rules();
            change(&mut rules);
            of(&subject(), &rules, 9, &[7, 8])
        };
        let plans = [
            of(&subject(), &rules(), 9, &[7, 8]),
            of(&Subject { root: "s3://state/other".into(), ..subject() }, &rules(), 9, &[7, 8]),
            of(&Subject { policy_uid: String::new(), ..subject() }, &rules(), 9, &[7, 8]),
            // The same text, cut elsewhere.
            of(&Subject { root: "s3://state/ordersu".into(), policy_uid: "1".into() }, &rules(), 9, &[7, 8]),
            of(&subject(), &rules(), 10, &[7, 8]),
            of(&subject(), &rules(), 9, &[7]),
            of(&subject(), &rules(), 9, &[6, 8]),
            digest(&subject(), &rules(), None, &[]),
            with(&|rules| rules.vnodes = 5),
            with(&|rules| rules.min_age = Duration::ZERO),
            with(&|rules| rules.retention.keep_last = None),
            with(&|rules| rules.retention.keep_last = Some(3)),
            with(&|rules| rules.retention.keep_within = Some(Duration::ZERO)),
            with(&|rules| rules.retention.keep_every = vec![every(60, 600)]),
            with(&|rules| rules.retention.keep_every = vec![every(60, 10), every(600, 60)]),
            with(&|rules| rules.retention.pinned = BTreeSet::new()),
            with(&|rules| rules.retention.incremental_depth = 0),
        ];
        let distinct: BTreeSet<_> = plans.iter().collect();
        assert_eq!(distinct.len(), plans.len());
    }

    #[test]
    fn the_order_and_repetition_of_windows_change_nothing() {
        let mut shuffled = rules();
        shuffled.retention.keep_every = vec![every(10, 60), every(60, 600), every(10, 60)];
        assert_eq!(of(&subject(), &shuffled, 9, &[7, 8]), of(&subject(), &rules(), 9, &[7, 8]));
    }
}
