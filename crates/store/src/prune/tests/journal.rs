//! A store in memory that writes down what takes effect in it, dates objects by a clock of its own, and can answer after random delays.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::sync::Arc;
use tokio::time::{Instant, sleep_until};

#[derive(Clone, Default)]
pub(super) struct Journal {
    inner: Arc<InMemory>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    events: Vec<String>,
    dates: HashMap<Path, i64>,
    seconds: i64,
    /// Of a sequence of random numbers; 0: no delays.
    random: u64,
}

impl Journal {
    pub(super) fn inner(&self) -> &InMemory {
        &self.inner
    }

    /// What took effect, in its order: `PUT key`, `DELETE key`, `LIST prefix`, `GET key`.
    pub(super) fn events(&self) -> Vec<String> {
        self.state().events.clone()
    }

    pub(super) fn all_of(&self, operations: &[&str]) -> Vec<String> {
        let of = |event: &String| operations.iter().any(|operation| event.starts_with(operation));
        self.events().into_iter().filter(of).collect()
    }

    pub(super) fn count(&self, event: &str) -> usize {
        self.events().iter().filter(|happened| *happened == event).count()
    }

    /// Where in the order an event took place for the first time.
    pub(super) fn position(&self, event: &str) -> usize {
        let events = self.events();
        events.iter().position(|happened| happened == event).unwrap_or_else(|| panic!("no {event} in {events:?}"))
    }

    pub(super) fn forget(&self) {
        self.state().events.clear();
    }

    pub(super) async fn put_unnoticed(&self, key: &str, body: &'static str) {
        let path = Path::parse(key).unwrap();
        self.inner.put(&path, PutPayload::from_static(body.as_bytes())).await.unwrap();
        self.date(&path);
    }

    pub(super) async fn remove_unnoticed(&self, key: &str) {
        self.inner.delete(&Path::parse(key).unwrap()).await.unwrap();
    }

    /// The store's clock goes on.
    pub(super) fn advance(&self, seconds: i64) {
        self.state().seconds += seconds;
    }

    /// From now on every request is delayed, by a span that the seed decides.
    pub(super) fn delay_by(&self, seed: u64) {
        self.state().random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn date(&self, path: &Path) {
        let mut state = self.state();
        state.seconds += 1;
        let now = state.seconds;
        state.dates.insert(path.clone(), now);
    }

    fn note(&self, operation: &str, path: &Path) {
        self.state().events.push(format!("{operation} {path}"));
    }

    async fn pause(&self) {
        let span = {
            let mut state = self.state();
            if state.random == 0 {
                return;
            }
            state.random ^= state.random << 13;
            state.random ^= state.random >> 7;
            state.random ^= state.random << 17;
            Duration::from_millis(state.random % 10)
        };
        sleep_until(Instant::now() + span).await;
    }

    fn listing(
        &self,
        prefix: &Path,
        listing: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (before, dating) = (self.clone(), self.clone());
        let prefix = prefix.clone();
        stream::once(async move {
            before.pause().await;
            before.note("LIST", &prefix);
            listing
        })
        .flatten()
        .map_ok(move |mut object| {
            if let Some(seconds) = dating.state().dates.get(&object.location) {
                object.last_modified = DateTime::<Utc>::from_timestamp(*seconds, 0).unwrap();
            }
            object
        })
        .boxed()
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Journal")
    }
}

impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Journal")
    }
}

#[async_trait]
impl ObjectStore for Journal {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.pause().await;
        let result = self.inner.put_opts(path, payload, opts).await?;
        self.date(path);
        self.note("PUT", path);
        Ok(result)
    }

    async fn put_multipart_opts(&self, path: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, opts).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.pause().await;
        self.note("GET", path);
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let journal = self.clone();
        paths
            .then(move |path| {
                let journal = journal.clone();
                async move {
                    let path = path?;
                    journal.pause().await;
                    journal.inner.delete(&path).await?;
                    journal.note("DELETE", &path);
                    Ok(path)
                }
            })
            .boxed()
    }

    // Lazily, so that a listing shows what is there when its answer is given, not when it is asked for.
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, owned) = (Arc::clone(&self.inner), prefix.cloned());
        let listing = stream::once(async move { inner.list(owned.as_ref()) }).flatten().boxed();
        self.listing(prefix.unwrap_or(&Path::default()), listing)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
