//! A listing page by page, which ends even where the store repeats itself.

use std::borrow::Cow;
use std::sync::Arc;

use futures::{Stream, TryStreamExt};
use object_store::ObjectMeta;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;

use crate::error::StoreError;
use crate::observe::Operation;
use crate::root::Root;

/// Notices when a sequence that should never repeat itself has come into a circle, holding one element.
///
/// It compares with an element that is taken anew whenever twice as many have passed, so every circle is met at the latest after twice
/// its length, wherever it begins.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    remembered: Option<String>,
    since: u64,
    span: u64,
}

impl Repeats {
    /// Whether this element was there before.
    pub(super) fn observe(&mut self, element: &str) -> bool {
        if self.remembered.as_deref() == Some(element) {
            return true;
        }
        self.since += 1;
        if self.since > self.span {
            self.remembered = Some(element.to_owned());
            self.span = (self.span * 2).max(1);
            self.since = 0;
        }
        false
    }
}

/// One page, with what lies outside of the root left out.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) objects: Vec<ObjectMeta>,
    pub(crate) folders: Vec<Path>,
}

/// The pages below a raw prefix.
pub(crate) struct Pages {
    root: Root,
    client: Arc<dyn PaginatedListStore>,
    start: String,
    raw_prefix: String,
    delimiter: Option<Cow<'static, str>>,
    size: Option<usize>,
    token: Option<String>,
    done: bool,
    tokens: Repeats,
    keys: Repeats,
}

impl Pages {
    /// `None` where the root's client has no pages.
    pub(crate) fn new(root: &Root, start: &str, delimiter: Option<&'static str>) -> Option<Self> {
        Some(Self {
            root: root.clone(),
            client: Arc::clone(root.paginated()?),
            start: start.to_owned(),
            raw_prefix: root.raw_prefix(start),
            delimiter: delimiter.map(Cow::Borrowed),
            size: None,
            token: None,
            done: false,
            tokens: Repeats::default(),
            keys: Repeats::default(),
        })
    }

    /// The same in pages of at most `size` keys and folders, as far as the store heeds it.
    pub(crate) fn of_size(self, size: usize) -> Self {
        Self { size: Some(size), ..self }
    }

    pub(crate) fn stream(self) -> impl Stream<Item = Result<Page, StoreError>> + Send {
        futures::stream::try_unfold(self, |mut pages| async move { Ok(pages.next().await?.map(|page| (page, pages))) })
            .into_stream()
    }

    async fn next(&mut self) -> Result<Option<Page>, StoreError> {
        if self.done {
            return Ok(None);
        }
        let options = PaginatedListOptions {
            delimiter: self.delimiter.clone(),
            max_keys: self.size,
            page_token: self.token.take(),
            ..PaginatedListOptions::default()
        };
        let prefix = Some(self.raw_prefix.as_str()).filter(|prefix| !prefix.is_empty());
        let answer = self.client.list_paginated(prefix, options).await;
        let answer = answer.map_err(|error| self.root.error(Operation::List, &self.start, error))?;
        self.token = answer.page_token.filter(|token| !token.is_empty());
        self.done = self.token.is_none();
        let (mut objects, mut folders) = (answer.result.objects, answer.result.common_prefixes);
        // A token that comes back means the same pages again; a token can also differ for the same page, its keys cannot.
        let same_token = self.token.as_deref().is_some_and(|token| self.tokens.observe(token));
        let first = objects.first().map(|object| &object.location).or(folders.first());
        let same_page = first.is_some_and(|key| self.keys.observe(key.as_ref()));
        if same_token || same_page {
            return Err(StoreError::ListingLoops { location: self.root.location(&self.start) });
        }
        objects.retain(|object| self.root.relative(&object.location).is_some());
        folders.retain(|folder| self.root.relative(folder).is_some());
        Ok(Some(Page { objects, folders }))
    }
}
