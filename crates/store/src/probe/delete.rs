//! How keys are deleted.

use futures::{StreamExt, stream};
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt};

use super::lists::is_gone;
use super::problem::ProblemKind;
use super::{Stop, Trial};
use crate::error::{ErrorClass, StoreError, cause};
use crate::observe::Operation;
use crate::root::Root;

/// Deletes keys by the root's client. The first failure, but that a key is not there; `Ok` says nothing more than what was answered.
async fn delete(root: &Root, keys: &[String]) -> Result<(), Error> {
    let paths: Vec<object_store::Result<Path>> = keys.iter().filter_map(|key| root.path(key).ok()).map(Ok).collect();
    let answers: Vec<_> = root.store().delete_stream(stream::iter(paths).boxed()).collect().await;
    let answered = answers.len();
    if let Some(error) = answers.into_iter().find_map(|answer| answer.err().filter(|error| !is_gone(error))) {
        return Err(error);
    }
    if answered == keys.len() {
        return Ok(());
    }
    Err(Error::Generic { store: root.provider(), source: "the answer does not name every key".into() })
}

impl Trial {
    /// All keys, and one that was never there, are deleted by one request where the store has such requests, and the next listing shows
    /// none of them. One DELETE (one for each key where it has not) and a LIST.
    pub(super) async fn deletion(&mut self) -> Result<(), Stop> {
        let mut keys = self.keys.written();
        keys.push(self.keys.missing());
        let by_one_request = self.root.bulk_delete_limit() > 1;
        let answer = delete(&self.root, &keys).await;
        let left: Vec<String> = self.listed().await?.own.into_keys().collect();
        let refusal = match (answer, left.first()) {
            (Ok(()), None) => {
                self.capabilities.bulk_delete = by_one_request;
                self.remains = false;
                return Ok(());
            }
            // The listing may be what is wrong.
            (Ok(()), Some(key)) if !self.is_there(key).await? => {
                self.capabilities.bulk_delete = by_one_request;
                self.stale("a deletion");
                return Ok(());
            }
            (Ok(()), Some(_)) => "it was answered with success and the keys are still there".to_owned(),
            (Err(error), _) if !by_one_request => return self.refused_deletion(&keys, error),
            (Err(error), _) if is_transient(&error) => return Err(self.failed_deletion(&keys, error).into()),
            (Err(error), _) => cause::plain(&error),
        };
        if let Err(error) = delete(&self.root.one_by_one(), &keys).await {
            return self.refused_deletion(&keys, error);
        }
        if by_one_request {
            self.problem(
                ProblemKind::NoBulkDelete,
                format_args!("the store does not delete many keys by one request: {refusal}"),
            );
        }
        let left = self.listed().await?.own.len();
        self.remains = left > 0;
        if self.remains {
            self.problem(
                ProblemKind::LeftBehind,
                format_args!(
                    "{left} keys of the probe are still listed after their deletion was answered with success"
                ),
            );
        }
        Ok(())
    }

    /// Keys are not deleted one by one either.
    fn refused_deletion(&mut self, keys: &[String], error: Error) -> Result<(), Stop> {
        let refusal = cause::plain(&error);
        if cause::locked(&error) {
            self.capabilities.object_lock = true;
            self.problem(
                ProblemKind::ObjectLock,
                format_args!("the bucket refuses deletions ({refusal}), so that nothing can be pruned"),
            );
        } else if cause::class(&error) == ErrorClass::AccessDenied {
            self.problem(
                ProblemKind::DeletesRefused,
                format_args!("the store refuses deletions ({refusal}), so that nothing can be pruned"),
            );
        } else {
            return Err(self.failed_deletion(keys, error).into());
        }
        self.remains = false;
        self.problem(ProblemKind::LeftBehind, "the keys of the probe stay where they are");
        Ok(())
    }

    fn failed_deletion(&self, keys: &[String], error: Error) -> StoreError {
        self.root.error(Operation::Delete, keys.first().map_or("", String::as_str), error)
    }

    async fn is_there(&self, key: &str) -> Result<bool, StoreError> {
        match self.root.store().head(&self.path(key)?).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.root.error(Operation::Head, key, error)),
        }
    }

    /// Removes this probe's keys once it has ended before their deletion, or without it.
    pub(super) async fn clean_up(&self) {
        if let Err(error) = delete(&self.root.one_by_one(), &self.keys.written()).await {
            tracing::warn!(root = %self.root, error = %cause::plain(&error), "the keys of a probe could not all be removed");
        }
    }
}

/// Whether a failure says nothing about what the store can do.
fn is_transient(error: &Error) -> bool {
    cause::class(error) == ErrorClass::Unreachable && !cause::unsupported(error)
}
