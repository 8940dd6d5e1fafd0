//! Which policy writes to a root: the highest owner record says.

use std::convert::Infallible;
use std::fmt;

use epochwarden_core::register::{Claim, OwnerRecord, Reading, Refusal, RegisterKind, Word};

use super::{Record, Registers};
use crate::create::{ATTEMPTS, Created};
use crate::error::StoreError;
use crate::listing::list_registers;

/// A root that the claimant owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owned {
    /// The number of the claimant's record. A later reading whose `owner` differs says that somebody has taken over.
    pub number: u64,
    /// Whether this call wrote that record.
    pub created: bool,
}

/// How a claim ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The root is the claimant's.
    Owned {
        /// The number of its record.
        owned: Owned,
        /// The record as it stands, which says whose root was taken over, if any.
        record: OwnerRecord,
    },
    /// It is another's, and nothing was written.
    Refused(Conflict),
}

/// Whose a root is that was claimed in vain. Its `Display` names the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Conflict {
    /// Another policy owns it.
    Another {
        /// That policy.
        owner: OwnerRecord,
        /// Why it was not taken over.
        refusal: Refusal,
    },
    /// Its highest record cannot be read: it is obeyed all the same.
    Unreadable {
        /// The number of that record.
        number: u64,
        /// Why it cannot be read.
        reason: String,
    },
    /// No record can follow the highest one.
    LastNumber,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Another { owner: OwnerRecord { cluster, namespace, name, uid, .. }, .. } => {
                write!(f, "policy {namespace}/{name} (uid {uid}) of cluster {cluster}")
            }
            Self::Unreadable { number, reason } => {
                write!(f, "a policy whose record {number} cannot be read ({reason})")
            }
            Self::LastNumber => f.write_str("the last owner record that there can be"),
        }
    }
}

impl From<Conflict> for StoreError {
    fn from(conflict: Conflict) -> Self {
        Self::RootConflict { owner: conflict.to_string() }
    }
}

impl Registers {
    /// Claims the root for the policy `claimant`, which must be done before anything else is written.
    ///
    /// A root without owner is claimed; one whose owner has the same cluster, namespace and name (this policy was recreated) is taken
    /// over. Any other, and one whose highest record cannot be read, is [`StoreError::RootConflict`]. One LIST; a GET where there is an
    /// owner; a PUT where a record is written; again where another claim came between, a bounded number of times.
    pub async fn claim_owner(&self, claimant: &OwnerRecord) -> Result<Owned, StoreError> {
        let reading = self.read().await?;
        match self.claim_owner_from(&reading, claimant, Word::default()).await? {
            Claimed::Owned { owned, .. } => Ok(owned),
            Claimed::Refused(conflict) => Err(conflict.into()),
        }
    }

    /// As [`Registers::claim_owner`], from a reading that the caller has just made; and takes the root over from another policy on a
    /// person's `word`.
    ///
    /// A word counts once: also where the caller does not know any more that it was honoured, but a record of the claimant's own does.
    /// The record that takes over names the owner that it took over from. Costs a LIST less than [`Registers::claim_owner`]; where a word
    /// would be honoured, a LIST and a GET for each owner record more.
    pub async fn claim_owner_from(
        &self,
        reading: &Reading,
        claimant: &OwnerRecord,
        word: Word<'_>,
    ) -> Result<Claimed, StoreError> {
        let succeeds = || std::future::ready(Ok::<_, Infallible>(()));
        match self.claim_owner_asking(reading, claimant, word, succeeds).await? {
            Ok(claimed) => Ok(claimed),
            Err(never) => match never {},
        }
    }

    /// As [`Registers::claim_owner_from`], where the record of a namesake is followed only if `may_succeed` says so: which of the two was
    /// recreated no record tells. Its error is the inner one; nothing was written then.
    pub async fn claim_owner_asking<E, F>(
        &self,
        reading: &Reading,
        claimant: &OwnerRecord,
        word: Word<'_>,
        may_succeed: impl Fn() -> F + Send,
    ) -> Result<Result<Claimed, E>, StoreError>
    where
        F: Future<Output = Result<(), E>> + Send,
    {
        let mut highest = reading.owner;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                highest = self.read().await?.owner;
            }
            let mut take_over = None;
            if highest > 0 {
                let owner = match self.owner_record(highest).await? {
                    Some(Record::Readable(highest)) => highest,
                    Some(Record::Unreadable { reason }) => {
                        return Ok(Ok(Claimed::Refused(Conflict::Unreadable { number: highest, reason })));
                    }
                    // It was trimmed: there is a higher one by now.
                    None => continue,
                };
                match owner.claim(claimant, word) {
                    Claim::Stands => {
                        let stands = Owned { number: highest, created: false };
                        return Ok(Ok(Claimed::Owned { owned: stands, record: owner }));
                    }
                    Claim::Succeeds => {
                        if let Err(refused) = may_succeed().await {
                            return Ok(Err(refused));
                        }
                    }
                    Claim::TakesOver if self.has_honoured(claimant, &owner.uid).await? => {
                        return Ok(Ok(Claimed::Refused(Conflict::Another { owner, refusal: Refusal::Spent })));
                    }
                    Claim::TakesOver => take_over = Some(owner.uid),
                    Claim::Refused(refusal) => {
                        return Ok(Ok(Claimed::Refused(Conflict::Another { owner, refusal })));
                    }
                }
            }
            let Some(number) = highest.checked_add(1) else {
                return Ok(Ok(Claimed::Refused(Conflict::LastNumber)));
            };
            let record = OwnerRecord { take_over, ..claimant.clone() };
            match self.create(RegisterKind::Owner, number, &record).await? {
                Created::Written => {
                    return Ok(Ok(Claimed::Owned { owned: Owned { number, created: true }, record }));
                }
                // Perhaps this very claim, whose answer was lost: the next look tells.
                Created::There(_) => {}
                Created::Unknown(last) => return Err(self.unknown(RegisterKind::Owner, number, last)),
            }
        }
        Err(self.unknown(RegisterKind::Owner, self.seen().owner, None))
    }

    /// Whether a record of the claimant's own says that it has taken over from this owner before.
    async fn has_honoured(&self, claimant: &OwnerRecord, uid: &str) -> Result<bool, StoreError> {
        let listing = list_registers(self.root()).await?;
        let records = self.bodies::<OwnerRecord>(&listing, RegisterKind::Owner).await?;
        Ok(records.into_iter().filter_map(|(_, record)| record.readable()).any(|record| record.honours(claimant, uid)))
    }

    /// The owner of the root and the number of its record; `None` when nobody owns it. One LIST, and one GET where there is an owner.
    pub async fn owner(&self) -> Result<Option<(u64, Record<OwnerRecord>)>, StoreError> {
        for _ in 0..ATTEMPTS {
            let highest = self.read().await?.owner;
            if highest == 0 {
                return Ok(None);
            }
            if let Some(record) = self.owner_record(highest).await? {
                return Ok(Some((highest, record)));
            }
        }
        Err(self.unknown(RegisterKind::Owner, self.seen().owner, None))
    }
}
