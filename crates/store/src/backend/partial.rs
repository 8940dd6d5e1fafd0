//! The state of one vnode at one epoch.

use bytes::Bytes;
use epochwarden_core::key;
use epochwarden_core::{Epoch, Vnode};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutPayload};

use super::{ObjectStoreBackend, io, unknown};
use crate::create::{self, Created};
use crate::error::StateBackendError;

/// What is there where a partial was to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// The same bytes: a retry has met its own write, or another has written the very same state.
    Same,
    /// Others.
    Other,
}

impl ObjectStoreBackend {
    /// Writes a partial: over what is there, or only where nothing else is.
    pub(super) async fn put_partial(&self, vnode: Vnode, epoch: Epoch, bytes: Bytes) -> Result<(), StateBackendError> {
        let key = key::partial(epoch, vnode);
        let path = Path::from(key.as_str());
        if !self.exclusive_partials {
            self.store.put(&path, PutPayload::from(bytes)).await.map_err(io(key))?;
            return Ok(());
        }
        let look = || compare(self.store.as_ref(), &path, &bytes);
        match create::create_with(&self.store, &path, &bytes, look).await.map_err(io(key.as_str()))? {
            Created::Written | Created::There(Found::Same) => Ok(()),
            Created::There(Found::Other) => {
                Err(StateBackendError::PartialConflict { epoch: self.guards.show(epoch), vnode: vnode.get() })
            }
            Created::Unknown(last) => Err(unknown(key, last)),
        }
    }
}

/// One partial state; `None` when there is none. One GET.
pub(super) async fn get(
    store: &dyn ObjectStore,
    vnode: Vnode,
    epoch: Epoch,
) -> Result<Option<Bytes>, StateBackendError> {
    let key = key::partial(epoch, vnode);
    let object = create::open(store, &Path::from(key.as_str())).await.map_err(io(key.as_str()))?;
    let Some(object) = object else { return Ok(None) };
    object.bytes().await.map(Some).map_err(io(key))
}

/// Compares what is at `path` with `bytes`, without holding it; `None` when nothing is there. One GET.
async fn compare(store: &dyn ObjectStore, path: &Path, bytes: &Bytes) -> Result<Option<Found>, Error> {
    let Some(object) = create::open(store, path).await? else { return Ok(None) };
    if usize::try_from(object.meta.size) != Ok(bytes.len()) {
        return Ok(Some(Found::Other));
    }
    let mut rest = bytes.as_ref();
    let mut chunks = object.into_stream();
    while let Some(chunk) = chunks.try_next().await? {
        let Some(after) = rest.strip_prefix(chunk.as_ref()) else { return Ok(Some(Found::Other)) };
        rest = after;
    }
    // A body that ended early would have been an error; were it none, it would still not be the same.
    Ok(Some(if rest.is_empty() { Found::Same } else { Found::Other }))
}
