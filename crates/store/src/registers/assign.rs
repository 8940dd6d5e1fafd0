//! Giving each term of leadership the next version of the fence.

use epochwarden_core::Version;
use epochwarden_core::lease::{FenceDecision, FenceSeen, RecordSeen, Term};
use epochwarden_core::register::{Reading, RegisterKind};
use thiserror::Error;

use super::Registers;
use crate::create::ATTEMPTS;
use crate::error::StoreError;

/// How an assignment ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assigned {
    /// This call made the term durable.
    Created(Term),
    /// Nothing was written.
    Nothing {
        /// The fence as it was listed for it.
        fence: FenceSeen,
        /// What was decided: that it stands for the term already, or why it must not move.
        decision: FenceDecision,
    },
}

/// Why an assignment came to no end. `E` is what reading the Lease failed with.
#[derive(Debug, Error)]
pub enum AssignError<E> {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The Lease could not be read, or was not to be.
    #[error("{0}")]
    Lease(E),
}

impl Registers {
    /// Makes the term that a Lease names durable under the next version, where it has none.
    ///
    /// `look` reads the Lease, *when it is called and not before*, and decides with [`epochwarden_core::lease::decide`] by the fence that
    /// it is given. The order is the safety: the fence is listed, then the Lease is read, and then exactly the next version is created.
    /// Whoever lost that create begins again, because a term may have begun and been published since the listing; so the holder of the
    /// highest version is never one whose term had ended before the version below it was published.
    ///
    /// One LIST, a GET where there is a fence, what `look` costs, and a PUT where the term is new; again where another publisher came
    /// between, a bounded number of times. Dropping the future leaves it open whether a record was written; calling again settles it.
    ///
    /// Errors: those of `look`; [`StoreError::RegisterLost`]; [`StoreError::InvalidVersion`] for a version that the root's numbering does not
    /// have; [`StoreError::OutcomeUnknown`] when nothing settles whether the record was
    /// written.
    pub async fn assign_fence<E, F>(
        &self,
        look: impl Fn(Reading, FenceSeen) -> F + Send,
    ) -> Result<Assigned, AssignError<E>>
    where
        F: Future<Output = Result<FenceDecision, E>> + Send,
    {
        for _ in 0..ATTEMPTS {
            let reading = self.read().await?;
            let Some(fence) = self.stands(reading.fence).await? else { continue };
            let term = match look(reading, fence.clone()).await.map_err(AssignError::Lease)? {
                FenceDecision::Publish(term) => term,
                decision => return Ok(Assigned::Nothing { fence, decision }),
            };
            self.root.numbering().check_version(term.version).map_err(StoreError::from)?;
            if self.create_fence(term.version, &term.holder, Some(&term.lease)).await?.is_none() {
                return Ok(Assigned::Created(term));
            }
        }
        Err(self.unknown(RegisterKind::Fence, self.seen().fence.get(), None).into())
    }

    /// The fence at `highest` with its record; `None` where that was listed and is gone, so that another listing has to say what stands.
    async fn stands(&self, highest: Version) -> Result<Option<FenceSeen>, StoreError> {
        let record = if highest.is_off() {
            RecordSeen::Unread
        } else {
            match self.fence_record(highest).await? {
                Some(record) => record.into(),
                None => return Ok(None),
            }
        };
        Ok(Some(FenceSeen { highest, record, lost: None }))
    }
}
