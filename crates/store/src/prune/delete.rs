//! Deleting keys, and knowing of each whether it is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::stream::{self, BoxStream, StreamExt};
use object_store::Error;
use object_store::path::Path;

use super::Run;
use super::pace::Pace;
use super::until::Until;
use crate::error::{ErrorClass, StoreError, cause};
use crate::observe::Operation;
use crate::root::Root;

/// How many keys make a group where a store deletes them one by one.
const ONE_BY_ONE: usize = 100;

/// How many groups are under way at once: where a group is one request of 1,000 keys, they keep a partition of a bucket busy.
const GROUPS: usize = 4;

/// What became of one key.
pub(super) type Fate = (String, Result<(), StoreError>);

impl Run<'_> {
    /// Deletes `keys`, in groups of which each is one request where the store has such requests. Keys that were not begun when the run
    /// has to stop do not appear in the result. Holds a few groups in memory, never all keys.
    pub(super) fn delete<'k>(&'k self, keys: impl Iterator<Item = String> + Send + 'k) -> BoxStream<'k, Fate> {
        match self.root.bulk_delete_limit() {
            0 | 1 => self.delete_in_groups(keys, ONE_BY_ONE, false),
            limit => self.delete_in_groups(keys, limit, true),
        }
    }

    /// `bulk`: whether a group is one request.
    pub(super) fn delete_in_groups<'k>(
        &'k self,
        keys: impl Iterator<Item = String> + Send + 'k,
        group: usize,
        bulk: bool,
    ) -> BoxStream<'k, Fate> {
        let groups = stream::unfold(keys, move |mut keys| async move {
            let first = keys.next()?;
            let group = self.pace.group(group);
            let group: Vec<String> = std::iter::once(first).chain(keys.by_ref().take(group - 1)).collect();
            let begins = if bulk {
                self.until.bound(self.pace.take(group.len())).await.is_ok()
            } else {
                self.until.stop().is_none()
            };
            begins.then_some((group, keys))
        });
        let between = move || (!bulk).then(|| (self.until.clone(), Arc::clone(&self.pace)));
        groups
            .map(move |keys| delete_group(self.root, keys, &self.pace, between()))
            .buffer_unordered(GROUPS)
            .flat_map(stream::iter)
            .boxed()
    }
}

/// Deletes one group; `between` stops it between two keys and paces them, where each key is a request of its own.
async fn delete_group(root: &Root, keys: Vec<String>, pace: &Pace, between: Option<(Until, Arc<Pace>)>) -> Vec<Fate> {
    let mut fates = Vec::with_capacity(keys.len());
    let mut addressed = Vec::with_capacity(keys.len());
    let mut paths: Vec<object_store::Result<Path>> = Vec::with_capacity(keys.len());
    for key in keys {
        match root.path(&key) {
            Ok(path) => {
                paths.push(Ok(path));
                addressed.push(key);
            }
            Err(error) => fates.push((key, Err(error))),
        }
    }
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let by_key = between.is_some();
    let paths = stream::unfold((paths.into_iter(), between, counter), |(mut paths, between, counter)| async move {
        let path = paths.next()?;
        if let Some((until, pace)) = &between {
            until.bound(pace.take(1)).await.ok()?;
        }
        counter.fetch_add(1, Ordering::Relaxed);
        Some((path, (paths, between, counter)))
    });
    let told = |result: &object_store::Result<Path>| {
        if result.as_ref().is_err_and(cause::throttled) {
            pace.slow_down();
        }
    };
    let results: Vec<_> = root.store().delete_stream(paths.boxed()).inspect(told).collect().await;
    addressed.truncate(sent.load(Ordering::Relaxed));
    if results.len() == addressed.len() {
        // Results come in the order of the keys, one for each.
        let missing = results.iter().any(|result| matches!(result, Err(Error::NotFound { .. })));
        // Without its folder, every key of a root is missing, and none was deleted.
        let present = !missing || root.check_present().await.is_ok();
        fates.extend(addressed.into_iter().zip(results).map(|(key, result)| {
            let result = match result {
                Ok(_) => Ok(()),
                Err(error) if present && is_missing(root, &error, by_key) => Ok(()),
                Err(error) => Err(root.error(Operation::Delete, &key, error)),
            };
            (key, result)
        }));
        return fates;
    }
    // Fewer results than keys: a request failed as a whole, and took with it keys that it does not name.
    let mut failure = results.into_iter().find_map(Result::err);
    let reason = failure.as_ref().map_or_else(|| "the answer does not name every key".to_owned(), cause::plain);
    fates.extend(addressed.into_iter().map(|key| {
        let again = || Error::Generic { store: root.provider(), source: reason.clone().into() };
        let error = root.error(Operation::Delete, &key, failure.take().unwrap_or_else(again));
        (key, Err(error))
    }));
    fates
}

/// Whether a failed delete says that its key is not there, which is as good as deleted. `by_key`: whether the request was about that key
/// alone.
pub(super) fn is_missing(root: &Root, error: &Error, by_key: bool) -> bool {
    match error {
        // S3 itself answers for a missing key with success; a gateway may answer a request for one key with its code. Any other 404 is
        // about the request or the bucket.
        Error::NotFound { .. } if root.provider() == "s3" => by_key && cause::names_missing_key(error),
        Error::NotFound { .. } => cause::class(error) != ErrorClass::BucketNotFound,
        // Gateways to other stores may name a missing key in the answer to a request that succeeded.
        Error::Generic { .. } => cause::plain(error).ends_with("(code: NoSuchKey)"),
        _ => false,
    }
}
