//! Which policy writes to a root: the highest owner record says.

use epochwarden_core::register::{OwnerRecord, Ownership, RegisterKind};

use super::{Record, Registers};
use crate::create::{ATTEMPTS, Created};
use crate::error::StoreError;

/// A root that the claimant owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owned {
    /// The number of the claimant's record. A later reading whose `owner` differs says that somebody has taken over.
    pub number: u64,
    /// Whether this call wrote that record.
    pub created: bool,
}

impl Registers {
    /// Claims the root for the policy `claimant`, which must be done before anything else is written.
    ///
    /// A root without owner is claimed; one whose owner has the same cluster, namespace and name (this policy was recreated) is taken
    /// over. Any other, and one whose highest record cannot be read, is [`StoreError::RootConflict`]. One LIST; a GET where there is an
    /// owner; a PUT where a record is written; again where another claim came between, a bounded number of times.
    pub async fn claim_owner(&self, claimant: &OwnerRecord) -> Result<Owned, StoreError> {
        for _ in 0..ATTEMPTS {
            let highest = self.read().await?.owner;
            if highest > 0 {
                match self.owner_record(highest).await? {
                    Some(Record::Readable(owner)) => match owner.meets(claimant) {
                        Ownership::Ours => return Ok(Owned { number: highest, created: false }),
                        Ownership::Predecessor => {}
                        Ownership::Another => return Err(conflict(&owner)),
                    },
                    Some(Record::Unreadable { reason }) => {
                        let owner = format!("a policy whose record {highest} cannot be read ({reason})");
                        return Err(StoreError::RootConflict { owner });
                    }
                    None => continue,
                }
            }
            let Some(number) = highest.checked_add(1) else {
                return Err(StoreError::RootConflict { owner: "the last owner record that there can be".to_owned() });
            };
            match self.create(RegisterKind::Owner, number, claimant).await? {
                Created::Written => return Ok(Owned { number, created: true }),
                Created::There(_) => {}
                Created::Unknown(_) => return Err(self.unknown(RegisterKind::Owner, number)),
            }
        }
        Err(self.unknown(RegisterKind::Owner, self.seen().owner))
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
        Err(self.unknown(RegisterKind::Owner, self.seen().owner))
    }
}

fn conflict(owner: &OwnerRecord) -> StoreError {
    let OwnerRecord { cluster, namespace, name, uid, .. } = owner;
    StoreError::RootConflict { owner: format!("policy {namespace}/{name} (uid {uid}) of cluster {cluster}") }
}
