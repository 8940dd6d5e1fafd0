//! Sealing an epoch.

use std::collections::HashSet;

use bytes::Bytes;
use epochwarden_core::guard::{SealOwner, seal_owner};
use epochwarden_core::key::{self, Key};
use epochwarden_core::{Epoch, InstanceId, Vnode};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use super::guards::{As, Passed};
use super::scan::is_sealed;
use super::{ObjectStoreBackend, io, unknown};
use crate::crash;
use crate::create::{self, Body, Created};
use crate::error::StateBackendError;

impl ObjectStoreBackend {
    /// Guard, seal, guard again. The seal alone says nothing: only the second guard read proves that whoever leads next read the
    /// fence after this seal was there, and so restores from it or from a later one.
    pub(super) async fn commit(&self, epoch: Epoch, vnodes: &[u32]) -> Result<bool, StateBackendError> {
        let version = self.guards.version();
        self.guards.check_epoch(epoch, version)?;
        let before = self.guards.check(version, Some(epoch), As::Leader).await?;
        crash::point("commit-guarded");
        if !self.seal(epoch, vnodes).await? {
            return Ok(false);
        }
        crash::point("commit-before-second-guard");
        if let Passed::Holds(_) = before {
            self.guards.check(version, Some(epoch), As::Leader).await?;
        }
        crash::point("commit-done");
        Ok(true)
    }

    /// The classic commit: whether this instance's seal stands.
    async fn seal(&self, epoch: Epoch, vnodes: &[u32]) -> Result<bool, StateBackendError> {
        let key = key::commit(epoch);
        let path = Path::from(key.as_str());
        if is_sealed(self.store.as_ref(), epoch).await?
            && let Some(body) = create::read(&self.store, &path).await.map_err(io(key.as_str()))?
        {
            return self.compare(&body);
        }
        crash::point("commit-seal-looked-for");
        let mut missing = vnodes.iter().map(|vnode| self.check_vnode(*vnode)).collect::<Result<HashSet<_>, _>>()?;
        self.strike_out_present(epoch, &mut missing).await?;
        crash::point("commit-listed");
        if !missing.is_empty() {
            return Ok(false);
        }
        let body = Bytes::from(self.instance.as_str().to_owned());
        crash::point("commit-before-create");
        let created = create::create(&self.store, &path, &body).await.map_err(io(key.as_str()))?;
        crash::point("commit-created");
        match created {
            Created::Written => Ok(true),
            Created::There(body) => self.compare(&body),
            Created::Unknown(last) => Err(unknown(key, last)),
        }
    }

    /// Removes from `missing` what the epoch holds. One LIST.
    async fn strike_out_present(&self, epoch: Epoch, missing: &mut HashSet<Vnode>) -> Result<(), StateBackendError> {
        let folder = key::epoch_folder(epoch);
        let mut listing = self.store.list(Some(&Path::from(folder.as_str())));
        while let Some(object) = listing.try_next().await.map_err(io(folder.as_str()))? {
            if let Key::Partial { vnode, .. } = Key::parse(object.location.as_ref()) {
                missing.remove(&vnode);
            }
        }
        Ok(())
    }

    fn compare(&self, body: &Body) -> Result<bool, StateBackendError> {
        let owner = match body {
            Body::Bytes(bytes) => seal_owner(bytes, &self.instance),
            Body::TooLong(size) => SealOwner::Another(InstanceId::new(format!("({size} bytes)"))),
        };
        match owner {
            SealOwner::Ours => Ok(true),
            SealOwner::Another(committer) => Err(StateBackendError::SplitBrainCommit {
                committer: committer.as_str().to_owned(),
                self_id: self.instance.as_str().to_owned(),
            }),
        }
    }
}
