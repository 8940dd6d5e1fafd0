//! The registers' records with their times and bodies.

use std::collections::BTreeMap;

use epochwarden_core::finding::{Evidence, FenceEvidence, Floors};
use epochwarden_core::key::{Key, REGISTERS};
use epochwarden_core::register::RegisterKind;
use epochwarden_core::{Epoch, Version};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::CONCURRENCY;
use crate::error::StoreError;
use crate::listing::{modified, objects};
use crate::registers::{Record, Registers};
use crate::root::Root;

/// The newest records of one register, as many as its publishers keep, with the times at which the store took them.
type Times = BTreeMap<u64, Timestamp>;

/// What one record says about its register.
enum Word {
    /// It was trimmed meanwhile.
    Gone,
    Unreadable,
    Holder(String),
    Other,
}

impl Word {
    fn of<T>(record: Option<Record<T>>, word: impl FnOnce(T) -> Self) -> Self {
        match record {
            None => Self::Gone,
            Some(Record::Unreadable { .. }) => Self::Unreadable,
            Some(Record::Readable(record)) => word(record),
        }
    }
}

/// Reads all of it: one LIST, and a GET for each record.
pub(super) async fn read(root: &Root) -> Result<Evidence, StoreError> {
    let listed = list(root).await?;
    let registers = &Registers::new(root.clone(), "");
    let each = |(kind, times): (&RegisterKind, &Times)| {
        let kind = *kind;
        times.iter().map(move |(number, at)| (kind, *number, *at)).collect::<Vec<_>>()
    };
    let records: Vec<_> = listed.iter().flat_map(each).collect();
    let words: Vec<_> =
        stream::iter(records)
            .map(|(kind, number, at)| async move {
                word(registers, kind, number).await.map(|word| (kind, number, at, word))
            })
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
    let mut evidence = Evidence { floors: floors_of(&listed), ..Evidence::default() };
    for (kind, number, modified, word) in words {
        let holder = match word {
            Word::Gone => continue,
            Word::Holder(holder) => Some(holder),
            Word::Other => None,
            Word::Unreadable => {
                evidence.unreadable.push((kind, number));
                None
            }
        };
        evidence.records += 1;
        if kind == RegisterKind::Fence {
            evidence.fence.push(FenceEvidence { version: Version::new(number), modified, holder });
        }
    }
    Ok(evidence)
}

/// The floors alone: one LIST.
pub(super) async fn read_floors(root: &Root) -> Result<Floors, StoreError> {
    list(root).await.map(|listed| floors_of(&listed))
}

async fn list(root: &Root) -> Result<BTreeMap<RegisterKind, Times>, StoreError> {
    let mut listed: BTreeMap<RegisterKind, Times> = BTreeMap::new();
    let mut objects = std::pin::pin!(objects(root, Some(REGISTERS)));
    while let Some(object) = objects.try_next().await? {
        let Some(Key::Register { kind, number }) = root.relative(&object.location).map(Key::parse) else { continue };
        let times = listed.entry(kind).or_default();
        times.insert(number, modified(&object));
        if times.len() > kind.records_kept() {
            times.pop_first();
        }
    }
    Ok(listed)
}

async fn word(registers: &Registers, kind: RegisterKind, number: u64) -> Result<Word, StoreError> {
    Ok(match kind {
        RegisterKind::Fence => {
            Word::of(registers.fence_record(Version::new(number)).await?, |record| Word::Holder(record.holder))
        }
        RegisterKind::Floor => Word::of(registers.floor_record(Epoch::new(number)).await?, |_| Word::Other),
        RegisterKind::Owner => Word::of(registers.owner_record(number).await?, |_| Word::Other),
    })
}

fn floors_of(listed: &BTreeMap<RegisterKind, Times>) -> Floors {
    let mut floors = Floors::default();
    for (number, modified) in listed.get(&RegisterKind::Floor).into_iter().flatten() {
        floors.observe(Epoch::new(*number), *modified);
    }
    floors
}
