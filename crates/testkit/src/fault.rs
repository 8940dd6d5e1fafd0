//! A store whose calls can fail, wait, lose their answers, or let something else happen at an exact point.
//!
//! ```
//! use std::sync::Arc;
//! use epochwarden_testkit::fault::{FaultStore, Operation};
//! use object_store::memory::InMemory;
//! use object_store::{ObjectStoreExt, PutPayload, path::Path};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let store = FaultStore::new(Arc::new(InMemory::new()));
//! store.after(Operation::Put, "epoch=*/_COMMIT").once().fail();
//! let key = Path::from("epoch=7/_COMMIT");
//! assert!(store.put(&key, PutPayload::from_static(b"a")).await.is_err(), "the answer was lost");
//! assert!(store.head(&key).await.is_ok(), "the effect was not");
//! # });
//! ```

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What kind of call a hook is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A listing; its key is the prefix, empty for the whole store.
    List,
    /// A read of a body.
    Get,
    /// A read of metadata alone.
    Head,
    /// A write.
    Put,
    /// The deletion of one key.
    Delete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Before,
    After,
}

type Action = Arc<dyn Fn(&str) -> BoxFuture<'static, Result<()>> + Send + Sync>;

#[derive(Clone)]
struct Hook {
    when: When,
    operation: Operation,
    pattern: String,
    skip: usize,
    times: usize,
    action: Action,
}

type Hooks = Arc<Mutex<Vec<Hook>>>;

/// Passes calls on, with hooks before and after their effect.
#[derive(Clone)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    hooks: Hooks,
    also_listed: Arc<Mutex<Vec<Path>>>,
}

impl FaultStore {
    /// No hooks yet: passes everything on to `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, hooks: Hooks::default(), also_listed: Arc::default() }
    }

    /// The store below, which no hook touches.
    #[must_use]
    pub fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    /// A hook before the effect of `operation` on keys that match `pattern`, in which `*` stands for any text.
    pub fn before(&self, operation: Operation, pattern: &str) -> HookBuilder {
        self.hook(When::Before, operation, pattern)
    }

    /// A hook after the effect of `operation`; an error from it is a lost answer.
    pub fn after(&self, operation: Operation, pattern: &str) -> HookBuilder {
        self.hook(When::After, operation, pattern)
    }

    /// Every listing below `key`, or of it as a folder, ends with this empty object, which is not there: as a folder marker is listed by
    /// a name that it cannot be reached by.
    pub fn list_also(&self, key: &str) {
        self.also_listed.lock().unwrap_or_else(PoisonError::into_inner).push(Path::from(key));
    }

    /// Removes all hooks.
    pub fn clear(&self) {
        lock(&self.hooks).clear();
    }

    /// How many hooks can still fire: 0 proves that each of a test's hooks was met.
    #[must_use]
    pub fn pending(&self) -> usize {
        lock(&self.hooks).iter().filter(|hook| hook.times > 0).count()
    }

    fn hook(&self, when: When, operation: Operation, pattern: &str) -> HookBuilder {
        HookBuilder {
            hooks: Arc::clone(&self.hooks),
            when,
            operation,
            pattern: pattern.to_owned(),
            skip: 0,
            times: usize::MAX,
        }
    }
}

/// A hook that still has to be told what to do. Without [`HookBuilder::once`] it fires at every match.
#[must_use = "a hook does nothing before it is told what to do"]
pub struct HookBuilder {
    hooks: Hooks,
    when: When,
    operation: Operation,
    pattern: String,
    skip: usize,
    times: usize,
}

impl fmt::Debug for HookBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {}", self.when, self.operation, self.pattern)
    }
}

impl HookBuilder {
    /// Fires at the first match only.
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// Fires at that many matches.
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Lets that many matches pass first.
    pub fn skip(mut self, skip: usize) -> Self {
        self.skip = skip;
        self
    }

    /// The call fails as a time-out would: nobody says whether it had an effect.
    pub fn fail(self) {
        self.fail_with(|key| Error::Generic { store: "FaultStore", source: format!("no answer about {key}").into() });
    }

    /// The call fails with this error.
    pub fn fail_with(self, error: impl Fn(&str) -> Error + Send + Sync + 'static) {
        self.act(Arc::new(move |key| Box::pin(std::future::ready(Err(error(key))))));
    }

    /// A create fails as an existing key does, and as a conflict in flight does, whether or not the key is there.
    pub fn already_exists(self) {
        self.fail_with(|key| Error::AlreadyExists { path: key.to_owned(), source: "a conflict in flight".into() });
    }

    /// The call waits, on tokio's clock.
    pub fn delay(self, span: Duration) {
        #[allow(clippy::disallowed_methods, reason = "the delay is the fault that is asked for")]
        self.act(Arc::new(move |_| {
            Box::pin(async move {
                tokio::time::sleep(span).await;
                Ok(())
            })
        }));
    }

    /// Something else happens here, to its end, and then the call goes on.
    pub fn run<F>(self, action: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.act(Arc::new(move |_| {
            let future = action();
            Box::pin(async move {
                future.await;
                Ok(())
            })
        }));
    }

    fn act(self, action: Action) {
        let Self { hooks, when, operation, pattern, skip, times } = self;
        lock(&hooks).push(Hook { when, operation, pattern, skip, times, action });
    }
}

fn lock(hooks: &Hooks) -> std::sync::MutexGuard<'_, Vec<Hook>> {
    hooks.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether `key` matches `pattern`, in which `*` stands for any text, slashes included.
pub(crate) fn matches(pattern: &str, key: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == key,
        Some((head, rest)) => key
            .strip_prefix(head)
            .is_some_and(|key| (0..=key.len()).filter_map(|start| key.get(start..)).any(|tail| matches(rest, tail))),
    }
}

/// Runs the hooks that match, in the order of their making, until one fails. No lock is held while they run.
async fn fire(hooks: Hooks, when: When, operation: Operation, key: String) -> Result<()> {
    let mut due: Vec<Action> = Vec::new();
    for hook in lock(&hooks).iter_mut() {
        if hook.times == 0 || hook.when != when || hook.operation != operation || !matches(&hook.pattern, &key) {
            continue;
        }
        if hook.skip > 0 {
            hook.skip -= 1;
            continue;
        }
        if hook.times != usize::MAX {
            hook.times -= 1;
        }
        due.push(Arc::clone(&hook.action));
    }
    for action in due {
        action(&key).await?;
    }
    Ok(())
}

impl FaultStore {
    async fn around<T>(&self, operation: Operation, key: &Path, call: impl Future<Output = Result<T>>) -> Result<T> {
        let fire = |when| fire(Arc::clone(&self.hooks), when, operation, key.to_string());
        fire(When::Before).await?;
        let answer = call.await?;
        fire(When::After).await?;
        Ok(answer)
    }

    /// The listing that `list` makes once the hooks before it have run.
    fn around_listing(
        &self,
        prefix: Option<&Path>,
        list: impl FnOnce(&dyn ObjectStore) -> BoxStream<'static, Result<ObjectMeta>> + Send + 'static,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let key = prefix.map(ToString::to_string).unwrap_or_default();
        let (inner, hooks) = (Arc::clone(&self.inner), Arc::clone(&self.hooks));
        let end = fire(Arc::clone(&hooks), When::After, Operation::List, key.clone());
        let also = self.also_listed.lock().unwrap_or_else(PoisonError::into_inner);
        let also: Vec<_> =
            also.iter().filter(|listed| listed.prefix_matches(&Path::from(key.as_str()))).cloned().collect();
        stream::once(async move {
            fire(hooks, When::Before, Operation::List, key).await?;
            Ok::<_, Error>(list(inner.as_ref()))
        })
        .try_flatten()
        .chain(stream::iter(also.into_iter().map(|location| Ok(empty(location)))))
        .chain(stream::once(end).filter_map(|end| std::future::ready(end.err().map(Err))))
        .boxed()
    }
}

fn empty(location: Path) -> ObjectMeta {
    ObjectMeta { location, last_modified: std::time::UNIX_EPOCH.into(), size: 0, e_tag: None, version: None }
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({:?}, {} hooks)", self.inner, lock(&self.hooks).len())
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.around(Operation::Put, location, self.inner.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head { Operation::Head } else { Operation::Get };
        self.around(operation, location, self.inner.get_opts(location, options)).await
    }

    /// Key by key, so that every key meets its hooks.
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    let key = stream::once(std::future::ready(Ok(location.clone()))).boxed();
                    let call = async { store.inner.delete_stream(key).try_collect::<Vec<_>>().await };
                    store.around(Operation::Delete, &location, call).await?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let owned = prefix.cloned();
        self.around_listing(prefix, move |inner| inner.list(owned.as_ref()))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let (owned, offset) = (prefix.cloned(), offset.clone());
        self.around_listing(prefix, move |inner| inner.list_with_offset(owned.as_ref(), &offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let root = Path::default();
        self.around(Operation::List, prefix.unwrap_or(&root), self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use object_store::{ObjectStoreExt, PutPayload};

    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, key, expected) in [
            ("", "", true),
            ("*", "a/b", true),
            ("epoch=*/_COMMIT", "epoch=7/_COMMIT", true),
            ("epoch=*/_COMMIT", "epoch=7/_COMMIT2", false),
            ("epoch=7", "epoch=77", false),
            ("*/vnode=*/*", "epoch=7/vnode=1/partial.bin", true),
        ] {
            assert_eq!(matches(pattern, key), expected, "{pattern} {key}");
        }
    }

    #[tokio::test]
    async fn hooks_fire_before_and_after_the_effect_and_as_often_as_said() {
        let store = FaultStore::new(Arc::new(InMemory::new()));
        let key = Path::from("a");
        store.before(Operation::Put, "a").once().fail();
        store.after(Operation::Delete, "*").skip(1).once().fail();
        assert!(store.put(&key, PutPayload::from_static(b"1")).await.is_err());
        assert!(store.head(&key).await.is_err(), "failed before the effect");
        store.put(&key, PutPayload::from_static(b"1")).await.unwrap();
        store.delete(&key).await.unwrap();
        store.put(&key, PutPayload::from_static(b"1")).await.unwrap();
        assert_eq!(store.pending(), 1);
        assert!(store.delete(&key).await.is_err());
        assert_eq!(store.pending(), 0);
        assert!(store.head(&key).await.is_err(), "failed after the effect");
    }

    #[tokio::test]
    async fn a_hook_may_use_the_store_it_hangs_on() {
        let store = FaultStore::new(Arc::new(InMemory::new()));
        let inside = store.clone();
        store.before(Operation::List, "").once().run(move || {
            let store = inside.clone();
            async move {
                store.put(&Path::from("slipped/in"), PutPayload::from_static(b"")).await.unwrap();
            }
        });
        let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
        assert_eq!(listed.len(), 1);
    }
}
