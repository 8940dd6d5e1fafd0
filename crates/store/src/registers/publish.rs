//! Raising the fence and the floor.

use bytes::Bytes;
use epochwarden_core::key;
use epochwarden_core::lease::LeaseIdentity;
use epochwarden_core::register::{FenceRecord, FenceStep, FloorRecord, Reading, RegisterKind, fence_step};
use epochwarden_core::{Epoch, Version};
use serde::Serialize;

use super::{Record, Registers};
use crate::crash;
use crate::create::{self, ATTEMPTS, Created};
use crate::error::{StoreError, cause};
use crate::observe::Operation;

/// How a publication ended. The register stands at least at the published value in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// This call wrote the record.
    Created,
    /// It stood there already.
    AlreadyThere,
    /// A higher fence stands: nothing was written.
    Superseded {
        /// The version that stands.
        by: Version,
    },
}

impl Registers {
    /// Makes `version` durable as the term of `holder`, and `lease`, where one is known, as where it came from.
    ///
    /// Where this value has listed the registers before and saw only lower versions, it costs one PUT and no LIST: a record below the
    /// highest does no harm. Where the last listing has shown a lost register, it lists again. Otherwise one LIST and one PUT, or one LIST
    /// and one GET. A lost answer costs a GET and perhaps another try.
    ///
    /// Errors: [`StoreError::InvalidVersion`] for one that the root's numbering does not have; [`StoreError::FenceConflict`] when `version`
    /// stands for another term or for nobody who can be read; [`StoreError::RegisterLost`]; [`StoreError::OutcomeUnknown`] when nothing
    /// settles whether it was written.
    pub async fn publish_fence(
        &self,
        version: Version,
        holder: &str,
        lease: Option<&LeaseIdentity>,
    ) -> Result<Published, StoreError> {
        self.root.numbering().check_version(version)?;
        let known = {
            let memory = self.memory();
            memory.listed.then_some(memory.seen.fence)
        };
        let mut highest = match known {
            Some(known) if known < version => known,
            _ => self.read().await?.fence,
        };
        for _ in 0..ATTEMPTS {
            match fence_step(version, highest) {
                FenceStep::Superseded { by } => return Ok(Published::Superseded { by }),
                FenceStep::Compare => match self.fence_record(version).await? {
                    Some(record) => return same_term(version, record, holder, lease),
                    None => highest = self.read().await?.fence,
                },
                FenceStep::Create => {
                    return match self.create_fence(version, holder, lease).await? {
                        None => Ok(Published::Created),
                        Some(record) => same_term(version, record, holder, lease),
                    };
                }
            }
        }
        Err(self.unknown(RegisterKind::Fence, version.get(), None))
    }

    /// Creates the record of a term. `None`: this call wrote it; otherwise what stands in its place.
    pub(super) async fn create_fence(
        &self,
        version: Version,
        holder: &str,
        lease: Option<&LeaseIdentity>,
    ) -> Result<Option<Record<FenceRecord>>, StoreError> {
        let ours = FenceRecord {
            version,
            holder: holder.to_owned(),
            lease: lease.cloned(),
            publisher: self.publisher.clone(),
            published_at: self.clock.now(),
        };
        match self.create(RegisterKind::Fence, version.get(), &ours).await? {
            Created::Written => Ok(None),
            // A request that was sent again met its own write.
            Created::There(body) => Ok(Some(Record::parse(&body)).filter(|record| *record != Record::Readable(ours))),
            Created::Unknown(last) => Err(self.unknown(RegisterKind::Fence, version.get(), last)),
        }
    }

    /// Makes it durable that no epoch below `floor.before` may be sealed any more. Publisher and time of the record are this value's
    /// own, whatever `floor` says. One LIST, and one PUT unless the floor stands there already.
    pub async fn publish_floor(&self, floor: FloorRecord) -> Result<Published, StoreError> {
        let reading = self.read().await?;
        self.raise_floor(&reading, floor).await
    }

    /// As [`Registers::publish_floor`], from a reading that the caller has.
    pub(crate) async fn raise_floor(&self, reading: &Reading, floor: FloorRecord) -> Result<Published, StoreError> {
        let before = floor.before;
        if before == Epoch::ZERO || reading.floor >= before {
            return Ok(Published::AlreadyThere);
        }
        let ours = FloorRecord { publisher: self.publisher.clone(), published_at: self.clock.now(), ..floor };
        match self.create(RegisterKind::Floor, before.get(), &ours).await? {
            Created::Written => Ok(Published::Created),
            Created::There(body) if Record::parse(&body) == Record::Readable(ours) => Ok(Published::Created),
            // The name alone is the value: whoever wrote it, the floor stands.
            Created::There(_) => Ok(Published::AlreadyThere),
            Created::Unknown(last) => Err(self.unknown(RegisterKind::Floor, before.get(), last)),
        }
    }

    /// Creates one record, and remembers that it is there when it is.
    pub(super) async fn create(
        &self,
        kind: RegisterKind,
        number: u64,
        record: &impl Serialize,
    ) -> Result<Created, StoreError> {
        let key = key::register(kind, number);
        let body = serde_json::to_vec(record)
            .map_err(|source| StoreError::UnreadableRecord { location: self.root.location(&key), source })?;
        if kind == RegisterKind::Fence {
            crash::point("fence-before-create");
        }
        let created = create::create(self.root.store(), &self.root.path(&key)?, &Bytes::from(body))
            .await
            .map_err(|error| self.root.error(Operation::Put, &key, error))?;
        match kind {
            RegisterKind::Fence => crash::point("fence-created"),
            RegisterKind::Owner => crash::point("owner-created"),
            RegisterKind::Floor => {}
        }
        match &created {
            Created::Written | Created::There(_) => self.saw(kind, number),
            Created::Unknown(last) => {
                let error = last.as_ref().map(cause::plain).unwrap_or_default();
                tracing::warn!(%key, %error, "whether a record was written is not known");
            }
        }
        Ok(created)
    }

    /// Nothing settled whether a record stands.
    pub(crate) fn unknown(&self, kind: RegisterKind, number: u64, last: Option<object_store::Error>) -> StoreError {
        let location = self.root.location(&key::register(kind, number));
        StoreError::OutcomeUnknown { location, attempts: ATTEMPTS, source: last }
    }
}

/// Whether the record that stands at `version` is of this term.
fn same_term(
    version: Version,
    record: Record<FenceRecord>,
    holder: &str,
    lease: Option<&LeaseIdentity>,
) -> Result<Published, StoreError> {
    match record {
        Record::Readable(record) if record.is_of(holder, lease) => Ok(Published::AlreadyThere),
        Record::Readable(record) => {
            Err(StoreError::FenceConflict { version: version.get(), holder: Some(record.holder) })
        }
        Record::Unreadable { .. } => Err(StoreError::FenceConflict { version: version.get(), holder: None }),
    }
}
