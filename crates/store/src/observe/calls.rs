//! Counts calls of a store that makes no HTTP requests of its own: a local folder, memory, or a client that the caller made.

use std::fmt;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::sync::Arc;

use super::{Attempt, Operation, Outcome, Watch};

/// A store whose calls are counted. A listing counts once, whatever its pages.
pub(crate) struct Observed<S: ?Sized> {
    inner: Arc<S>,
    watch: Watch,
}

impl<S: ?Sized> Observed<S> {
    pub(crate) fn new(inner: Arc<S>, watch: Watch) -> Self {
        Self { inner, watch }
    }
}

impl<S: ?Sized + fmt::Debug> fmt::Debug for Observed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl<S: ?Sized + fmt::Display> fmt::Display for Observed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

fn outcome<T>(result: &Result<T>) -> Outcome {
    match result {
        Ok(_) => Outcome::Ok,
        Err(Error::NotFound { .. }) => Outcome::NotFound,
        Err(Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. }) => Outcome::Conflict,
        Err(Error::PermissionDenied { .. } | Error::Unauthenticated { .. }) => Outcome::Denied,
        Err(Error::InvalidPath { .. } | Error::NotSupported { .. } | Error::NotImplemented { .. }) => Outcome::Rejected,
        Err(_) => Outcome::ServerError,
    }
}

impl<S: ?Sized> Observed<S> {
    async fn counted<T>(&self, operation: Operation, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let attempt = self.watch.start(operation);
        let result = call.await;
        attempt.finish(outcome(&result));
        result
    }
}

/// Ends the attempt with the stream: with its first error, or with its end.
fn counted_stream<'a>(
    attempt: Attempt,
    stream: impl Stream<Item = Result<ObjectMeta>> + Send + 'a,
) -> BoxStream<'a, Result<ObjectMeta>> {
    futures::stream::unfold((Box::pin(stream), Some(attempt)), |(mut stream, mut attempt)| async move {
        let next = stream.next().await;
        let ended = match &next {
            None => Some(Outcome::Ok),
            Some(result @ Err(_)) => Some(outcome(result)),
            Some(Ok(_)) => None,
        };
        if let Some(ended) = ended
            && let Some(attempt) = attempt.take()
        {
            attempt.finish(ended);
        }
        next.map(|item| (item, (stream, attempt)))
    })
    .boxed()
}

#[async_trait]
impl ObjectStore for Observed<dyn ObjectStore> {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.counted(Operation::Put, self.inner.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.counted(Operation::Put, self.inner.put_multipart_opts(location, opts)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head { Operation::Head } else { Operation::Get };
        self.counted(operation, self.inner.get_opts(location, options)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let watch = self.watch.clone();
        // Which key a result belongs to is the inner store's affair, so each is dated from its own arrival.
        let count = move |result: &Result<Path>| watch.start(Operation::Delete).finish(outcome(result));
        self.inner.delete_stream(locations).inspect(count).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        counted_stream(self.watch.start(Operation::List), self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        counted_stream(self.watch.start(Operation::List), self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.counted(Operation::List, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.counted(Operation::Put, self.inner.copy_opts(from, to, options)).await
    }
}

#[async_trait]
impl PaginatedListStore for Observed<dyn PaginatedListStore> {
    async fn list_paginated(&self, prefix: Option<&str>, opts: PaginatedListOptions) -> Result<PaginatedListResult> {
        self.counted(Operation::List, self.inner.list_paginated(prefix, opts)).await
    }
}
