//! Create-only writes whose answers may be missing, late, or about somebody else's write.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, GetResult, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use crate::error::{ErrorClass, cause};

/// How often a create is tried whose outcome cannot be settled.
pub(crate) const ATTEMPTS: u32 = 4;
/// How long the first try is given to settle; each further one gets four times as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// No record and no seal is longer. What is longer is somebody else's, and is not read.
const LONGEST: u64 = 64 * 1024;

/// What stands at a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// Its bytes.
    Bytes(Bytes),
    /// More bytes than anything of ours has.
    TooLong(u64),
}

/// How a create ended. `T` is what was read back.
#[derive(Debug)]
pub(crate) enum Created<T = Body> {
    /// This call wrote it.
    Written,
    /// Something stands there: another's write, or this call's own whose answer was lost.
    There(T),
    /// Neither: no answer, and nothing that could be read back.
    Unknown(Option<Error>),
}

/// What stands at `path`, its body yet to be read; `None` when nothing does. One GET.
pub(crate) async fn open(store: &dyn ObjectStore, path: &Path) -> Result<Option<GetResult>, Error> {
    match store.get(path).await {
        Ok(object) => Ok(Some(object)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The object at `path`; `None` when there is none. One GET.
pub(crate) async fn read(store: &Arc<dyn ObjectStore>, path: &Path) -> Result<Option<Body>, Error> {
    let Some(object) = open(store.as_ref(), path).await? else { return Ok(None) };
    if object.meta.size > LONGEST {
        return Ok(Some(Body::TooLong(object.meta.size)));
    }
    object.bytes().await.map(|bytes| Some(Body::Bytes(bytes)))
}

/// Creates `path` unless it is there. Any answer but a plain yes or a plain refusal is settled by reading back; when nothing is there
/// to read, a conflict may still be in flight or the write never arrived: it is tried again, [`ATTEMPTS`] times in all.
///
/// Only failures that say that nothing was written are errors. Dropping the future leaves the outcome unknown.
pub(crate) async fn create(store: &Arc<dyn ObjectStore>, path: &Path, body: &Bytes) -> Result<Created, Error> {
    create_with(store, path, body, || read(store, path)).await
}

/// As [`create`], reading back by `look`, which answers `None` when nothing is there.
pub(crate) async fn create_with<T, F>(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    body: &Bytes,
    look: impl Fn() -> F,
) -> Result<Created<T>, Error>
where
    F: Future<Output = Result<Option<T>, Error>>,
{
    let mut pause = FIRST_PAUSE;
    let mut last = None;
    for attempt in 1..=ATTEMPTS {
        match store.put_opts(path, PutPayload::from(body.clone()), PutMode::Create.into()).await {
            Ok(_) => return Ok(Created::Written),
            Err(error) if refused(&error) => return Err(error),
            Err(error) => last = Some(error),
        }
        match look().await {
            Ok(Some(found)) => return Ok(Created::There(found)),
            Ok(None) => {}
            Err(error) => last = Some(error),
        }
        if attempt < ATTEMPTS {
            wait(pause).await;
            pause *= 4;
        }
    }
    Ok(Created::Unknown(last))
}

/// Whether the failure of a write says that nothing was written and that trying again changes nothing.
fn refused(error: &Error) -> bool {
    matches!(error, Error::NotSupported { .. } | Error::NotImplemented { .. })
        || matches!(
            cause::class(error),
            ErrorClass::AccessDenied
                | ErrorClass::BucketNotFound
                | ErrorClass::InvalidConfiguration
                | ErrorClass::NotFound
                | ErrorClass::UnaddressableKey
        )
}

/// Waits before another request is sent.
#[allow(
    clippy::disallowed_methods,
    reason = "a store has no way to say when a conflict in flight is over, so each try gives it time"
)]
pub(crate) async fn wait(pause: Duration) {
    tokio::time::sleep(pause).await;
}
