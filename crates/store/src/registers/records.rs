//! The bodies of records. The number in a record's name counts whether or not its body can be read.

use epochwarden_core::key;
use epochwarden_core::lease::RecordSeen;
use epochwarden_core::register::{FenceRecord, FloorRecord, OwnerRecord, RegisterKind};
use epochwarden_core::{Epoch, Version};
use futures::{StreamExt, TryStreamExt, stream};
use serde::de::DeserializeOwned;

use super::Registers;
use crate::create::{self, Body};
use crate::error::StoreError;
use crate::listing::{RegisterListing, list_registers};
use crate::observe::Operation;

/// How many bodies are read at once.
const READS: usize = 16;

/// A record's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<T> {
    /// What it says.
    Readable(T),
    /// It is there, and says nothing that can be understood. Its name counts all the same.
    Unreadable {
        /// Why.
        reason: String,
    },
}

impl<T> Record<T> {
    /// What it says, where it can be read.
    pub fn readable(self) -> Option<T> {
        match self {
            Self::Readable(record) => Some(record),
            Self::Unreadable { .. } => None,
        }
    }
}

/// As the rules of Leases want to know it.
impl From<Record<FenceRecord>> for RecordSeen {
    fn from(record: Record<FenceRecord>) -> Self {
        record.readable().map_or(Self::Unreadable, Self::Read)
    }
}

impl<T: DeserializeOwned> Record<T> {
    pub(super) fn parse(body: &Body) -> Self {
        match body {
            Body::Bytes(bytes) => match serde_json::from_slice(bytes) {
                Ok(record) => Self::Readable(record),
                Err(error) => Self::Unreadable { reason: error.to_string() },
            },
            Body::TooLong(size) => Self::Unreadable { reason: format!("{size} bytes are no record") },
        }
    }
}

impl Registers {
    /// The record of one version of the fence; `None` when there is none. One GET.
    pub async fn fence_record(&self, version: Version) -> Result<Option<Record<FenceRecord>>, StoreError> {
        self.record(RegisterKind::Fence, version.get()).await
    }

    /// The record of one floor; `None` when there is none. One GET.
    pub async fn floor_record(&self, floor: Epoch) -> Result<Option<Record<FloorRecord>>, StoreError> {
        self.record(RegisterKind::Floor, floor.get()).await
    }

    /// One owner record; `None` when there is none. One GET.
    pub async fn owner_record(&self, number: u64) -> Result<Option<Record<OwnerRecord>>, StoreError> {
        self.record(RegisterKind::Owner, number).await
    }

    /// The newest fence records with their versions, ascending, as many as their publishers keep. One LIST, and a GET for each.
    pub async fn fence_records(&self) -> Result<Vec<(Version, Record<FenceRecord>)>, StoreError> {
        let records = self.bodies(&list_registers(&self.root).await?, RegisterKind::Fence).await?;
        Ok(records.into_iter().map(|(number, record)| (Version::new(number), record)).collect())
    }

    /// The keys of the newest records whose bodies cannot be read, of all three registers. One LIST, and a GET for each record.
    pub async fn unreadable(&self) -> Result<Vec<String>, StoreError> {
        let listing = list_registers(&self.root).await?;
        let mut keys = Vec::new();
        for kind in RegisterKind::ALL {
            let unreadable = match kind {
                RegisterKind::Fence => unreadable(kind, &self.bodies::<FenceRecord>(&listing, kind).await?),
                RegisterKind::Floor => unreadable(kind, &self.bodies::<FloorRecord>(&listing, kind).await?),
                RegisterKind::Owner => unreadable(kind, &self.bodies::<OwnerRecord>(&listing, kind).await?),
            };
            keys.extend(unreadable);
        }
        Ok(keys)
    }

    async fn record<T: DeserializeOwned>(
        &self,
        kind: RegisterKind,
        number: u64,
    ) -> Result<Option<Record<T>>, StoreError> {
        let key = key::register(kind, number);
        let body = create::read(self.root.store(), &self.root.path(&key)?)
            .await
            .map_err(|error| self.root.error(Operation::Get, &key, error))?;
        Ok(body.as_ref().map(Record::parse))
    }

    /// The newest records of one register, ascending. One that is trimmed meanwhile is left out.
    pub(super) async fn bodies<T: DeserializeOwned>(
        &self,
        listing: &RegisterListing,
        kind: RegisterKind,
    ) -> Result<Vec<(u64, Record<T>)>, StoreError> {
        let mut newest: Vec<u64> =
            listing.records(kind).rev().take(kind.records_kept()).map(|record| record.number).collect();
        newest.reverse();
        stream::iter(newest)
            .map(|number| async move { self.record(kind, number).await.map(|record| (number, record)) })
            .buffered(READS)
            .try_filter_map(|(number, record)| async move { Ok(record.map(|record| (number, record))) })
            .try_collect()
            .await
    }
}

fn unreadable<T>(kind: RegisterKind, records: &[(u64, Record<T>)]) -> Vec<String> {
    let unreadable = records.iter().filter(|(_, record)| matches!(record, Record::Unreadable { .. }));
    unreadable.map(|(number, _)| key::register(kind, *number)).collect()
}
