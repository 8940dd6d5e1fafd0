//! A store in memory that does one thing wrong.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, Extensions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio_util::sync::CancellationToken;

use crate::http::UnderLock;
use crate::root::Root;

/// What it does wrong.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Quirk {
    None,
    /// A create writes whatever stands there.
    CreateOverwrites,
    /// A create is answered with an error of the kind that says that there is none.
    CreateRefused,
    /// A refused create has written all the same.
    LosersWrite,
    /// What was created cannot be read.
    CreateForgets,
    /// The first so many creates are conflicts with each other, and write nothing.
    Conflicts(usize),
    /// The create that wins is sent again, and its answer is that the key is there.
    WinnerMeetsItself,
    /// A listing does not show the last of such writes.
    Behind(Last),
    /// No listing shows keys of this name.
    Hides(&'static str),
    /// Listings show every key, whatever their prefix.
    IgnoresPrefix,
    /// No page of a listing has an end.
    Endless,
    /// No page of a listing with a delimiter has an end.
    EndlessWithDelimiter,
    /// Every listing has one page only.
    OnePage,
    /// Prefixes end at the first slash, whatever the delimiter.
    CutsAtSlash,
    /// The names of prefixes end with the delimiter's first character.
    CutsShort,
    /// Delimiters are ignored.
    IgnoresDelimiter,
    /// Delimiters of several characters are refused.
    RefusesDelimiter,
    /// Page sizes are refused.
    RefusesPages,
    /// More than one key cannot be deleted at once.
    BulkRefused,
    /// A deletion of more than one key is answered with success, and nothing happens.
    BulkDoesNothing,
    /// So is any deletion.
    DeletesNothing,
    /// A deletion of more than one key answers for a missing one with an error.
    MissingIsNamed,
    /// Writes have this version.
    Version(&'static str),
    /// What is read is said to be under a lock.
    UnderLock,
    /// Writes are refused, as with a default retention.
    LockedWrites,
    /// Overwrites are refused, as with a retention that lets new objects in.
    LockedOverwrites,
    /// Deletions are refused, as with a retention.
    LockedDeletes,
    /// So are overwrites and deletions, as in a container with a retention for a time.
    Immutable,
    /// Deletions are not allowed.
    DeniedDeletes,
    /// Deletions fail as if the store were gone.
    FailingDeletes,
    /// Writes are not allowed.
    DeniedWrites,
    /// Overwrites fail as if the store were gone.
    FailingOverwrites,
    /// The process is told to stop when such a key is written.
    Cancels(&'static str, CancellationToken),
    /// Listings hang once something was written.
    Hangs,
}

/// A kind of write.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Last {
    Create,
    Overwrite,
    New,
    Delete,
}

#[derive(Clone)]
pub(super) struct Fake {
    pub(super) inner: Arc<InMemory>,
    quirk: Quirk,
    creates: Arc<AtomicUsize>,
    /// What listings show instead of what is there.
    shown: Arc<Mutex<Option<Vec<ObjectMeta>>>>,
    /// The delimiters that were asked for.
    pub(super) delimiters: Arc<Mutex<Vec<String>>>,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.quirk)
    }
}

impl fmt::Display for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.quirk)
    }
}

fn generic(text: impl Into<String>) -> Error {
    Error::Generic { store: "Fake", source: text.into().into() }
}

fn none(what: &str) -> Error {
    Error::NotImplemented { operation: what.to_owned(), implementer: "Fake".to_owned() }
}

impl Fake {
    pub(super) fn new(quirk: Quirk) -> Self {
        Self {
            inner: Arc::new(InMemory::new()),
            quirk,
            creates: Arc::default(),
            shown: Arc::default(),
            delimiters: Arc::default(),
        }
    }

    /// As a store with pages and bulk deletes. What it does wrong with many keys at once, it does right one by one.
    pub(super) fn root(&self) -> Root {
        let one_by_one: Arc<dyn ObjectStore> = match self.quirk {
            Quirk::BulkRefused | Quirk::BulkDoesNothing => Arc::clone(&self.inner) as _,
            _ => Arc::new(self.clone()),
        };
        self.without_pages().with_paginated(Arc::new(self.clone())).posing_as_s3(Some(one_by_one))
    }

    pub(super) fn without_pages(&self) -> Root {
        Root::from_store(Arc::new(self.clone()))
    }

    pub(super) async fn keys(&self) -> Vec<String> {
        self.there().await.iter().map(|object| object.location.to_string()).collect()
    }

    async fn there(&self) -> Vec<ObjectMeta> {
        let mut objects: Vec<ObjectMeta> = self.inner.list(None).try_collect().await.unwrap();
        objects.sort_by(|a, b| a.location.cmp(&b.location));
        for object in &mut objects {
            // Its name says how many minutes old it is.
            let age = object.location.as_ref().rsplit_once('@').and_then(|(_, age)| age.parse().ok());
            object.last_modified -= chrono::TimeDelta::minutes(age.unwrap_or(0));
        }
        objects
    }

    /// What a listing shows now.
    async fn listing(&self) -> Vec<ObjectMeta> {
        let shown = self.shown.lock().unwrap().clone();
        if let Some(shown) = shown {
            return shown;
        }
        let mut there = self.there().await;
        if let Quirk::Hides(name) = self.quirk {
            there.retain(|object| !object.location.as_ref().ends_with(name));
        }
        there
    }

    /// A write of this kind is about to happen.
    async fn about_to(&self, what: Last) {
        let before = self.there().await;
        *self.shown.lock().unwrap() = (self.quirk == Quirk::Behind(what)).then_some(before);
    }

    async fn is_there(&self, location: &Path) -> bool {
        self.there().await.iter().any(|object| object.location == *location)
    }

    async fn create(&self, location: &Path, payload: PutPayload) -> Result<PutResult> {
        let number = self.creates.fetch_add(1, Ordering::Relaxed);
        let exists = || Error::AlreadyExists { path: location.to_string(), source: "it is there".into() };
        let there = self.is_there(location).await;
        match &self.quirk {
            Quirk::CreateRefused => return Err(none("If-None-Match")),
            Quirk::Conflicts(conflicts) if number < *conflicts => return Err(exists()),
            Quirk::CreateOverwrites => {}
            Quirk::LosersWrite if there => {
                self.inner.put_opts(location, payload, PutMode::Overwrite.into()).await?;
                return Err(exists());
            }
            Quirk::CreateForgets if number == 0 => return Ok(self.answer(None)),
            Quirk::CreateForgets => return Err(exists()),
            _ if there => return Err(exists()),
            _ => {}
        }
        self.about_to(Last::Create).await;
        self.inner.put_opts(location, payload, PutMode::Overwrite.into()).await?;
        match self.quirk {
            Quirk::WinnerMeetsItself => Err(exists()),
            _ => Ok(self.answer(None)),
        }
    }

    fn answer(&self, e_tag: Option<String>) -> PutResult {
        let version = match self.quirk {
            Quirk::Version(version) => Some(version.to_owned()),
            _ => None,
        };
        PutResult { e_tag, version, extensions: Extensions::new() }
    }

    async fn delete_all(&self, paths: Vec<Path>) -> Vec<Result<Path>> {
        let several = paths.len() > 1;
        match self.quirk {
            Quirk::BulkRefused if several => return vec![Err(none("DeleteObjects"))],
            Quirk::BulkDoesNothing if several => return paths.into_iter().map(Ok).collect(),
            Quirk::DeletesNothing => return paths.into_iter().map(Ok).collect(),
            Quirk::LockedDeletes | Quirk::Immutable => {
                return vec![Err(generic("Object is WORM protected and cannot be overwritten"))];
            }
            Quirk::FailingDeletes => return vec![Err(generic(std::io::Error::other("gone").to_string()))],
            Quirk::DeniedDeletes => {
                return vec![Err(Error::PermissionDenied { path: String::new(), source: "no".into() })];
            }
            _ => {}
        }
        self.about_to(Last::Delete).await;
        let mut answers = Vec::new();
        for path in paths {
            let there = self.is_there(&path).await;
            let deleted: Vec<_> = self.inner.delete_stream(stream::iter([Ok(path.clone())]).boxed()).collect().await;
            assert!(deleted.iter().all(Result::is_ok) || !there);
            answers.push(match self.quirk {
                Quirk::MissingIsNamed if !there => Err(generic("the key is not there (code: NoSuchKey)")),
                _ => Ok(path),
            });
        }
        answers
    }
}

#[async_trait]
impl ObjectStore for Fake {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        // So that the others of a race come in between.
        tokio::task::yield_now().await;
        match &self.quirk {
            Quirk::LockedWrites => {
                return Err(generic("Content-MD5 is required for Put Object requests with Object Lock parameters"));
            }
            Quirk::DeniedWrites => {
                return Err(Error::PermissionDenied { path: location.to_string(), source: "no".into() });
            }
            Quirk::Cancels(name, token) if location.as_ref().ends_with(name) => token.cancel(),
            _ => {}
        }
        if options.mode == PutMode::Create {
            return self.create(location, payload).await;
        }
        let there = self.is_there(location).await;
        if there && self.quirk == Quirk::FailingOverwrites {
            return Err(generic("gone"));
        }
        if there && matches!(self.quirk, Quirk::LockedOverwrites | Quirk::Immutable) {
            return Err(generic("the blob is under an immutable policy"));
        }
        self.about_to(if there { Last::Overwrite } else { Last::New }).await;
        let answer = self.inner.put_opts(location, payload, options).await?;
        Ok(self.answer(answer.e_tag))
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(none("multipart"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut object = self.inner.get_opts(location, options).await?;
        if self.quirk == Quirk::UnderLock {
            object.extensions.insert(UnderLock);
        }
        Ok(object)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let fake = self.clone();
        stream::once(async move {
            let paths = locations.try_collect().await.unwrap();
            stream::iter(fake.delete_all(paths).await)
        })
        .flatten()
        .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.map(|prefix| format!("{prefix}/")).unwrap_or_default();
        let fake = self.clone();
        stream::once(async move { stream::iter(fake.listing().await) })
            .flatten()
            .filter(move |object| std::future::ready(object.location.as_ref().starts_with(&prefix)))
            .map(Ok)
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(none("copy"))
    }
}

#[async_trait]
impl PaginatedListStore for Fake {
    async fn list_paginated(&self, prefix: Option<&str>, options: PaginatedListOptions) -> Result<PaginatedListResult> {
        let prefix = prefix.unwrap_or_default();
        let objects = self.listing().await;
        if self.quirk == Quirk::Hangs && !objects.is_empty() {
            std::future::pending::<()>().await;
        }
        self.delimiters.lock().unwrap().extend(options.delimiter.as_deref().map(str::to_owned));
        let delimiter = match (&self.quirk, options.delimiter.as_deref()) {
            (Quirk::RefusesDelimiter, Some(delimiter)) if delimiter.len() > 1 => return Err(none("this delimiter")),
            (Quirk::CutsAtSlash, Some(_)) => Some("/"),
            (Quirk::IgnoresDelimiter, _) => None,
            (_, delimiter) => delimiter,
        };
        if self.quirk == Quirk::RefusesPages && options.max_keys.is_some() {
            return Err(none("max-keys"));
        }
        let mut rows: Vec<(String, Option<ObjectMeta>)> = Vec::new();
        for object in objects {
            let key = object.location.to_string();
            let Some(rest) = key.strip_prefix(if self.quirk == Quirk::IgnoresPrefix { "" } else { prefix }) else {
                continue;
            };
            let folder = delimiter.and_then(|delimiter| {
                let shown = if self.quirk == Quirk::CutsShort { 1 } else { delimiter.len() };
                rest.find(delimiter).map(|at| format!("{prefix}{}", &rest[..at + shown]))
            });
            let row = folder.map_or((key.clone(), Some(object)), |folder| (folder, None));
            if rows.last().is_none_or(|last| last.0 != row.0) {
                rows.push(row);
            }
        }
        let endless = match self.quirk {
            Quirk::Endless => options.max_keys.is_some(),
            Quirk::EndlessWithDelimiter => delimiter.is_some(),
            _ => false,
        };
        let start = if endless { 0 } else { options.page_token.map_or(0, |token| token.parse().unwrap()) };
        let end = (start + options.max_keys.unwrap_or(1000)).min(rows.len());
        let more = end < rows.len() && self.quirk != Quirk::OnePage;
        let rows = rows.get(start..end).unwrap_or_default();
        Ok(PaginatedListResult {
            result: ListResult {
                objects: rows.iter().filter_map(|row| row.1.clone()).collect(),
                common_prefixes: rows
                    .iter()
                    .filter(|row| row.1.is_none())
                    .map(|row| Path::parse(&row.0).unwrap())
                    .collect(),
                extensions: Extensions::new(),
            },
            page_token: more.then(|| end.to_string()),
        })
    }
}
