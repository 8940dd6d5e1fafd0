//! What listings show.

use std::collections::{BTreeMap, BTreeSet};

use epochwarden_core::key::Key;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use object_store::path::Path;

use super::problem::ProblemKind;
use super::{Stop, Trial, keys};
use crate::error::{ErrorClass, StoreError, cause};
use crate::listing::{self, Pages};
use crate::observe::Operation;

/// How small the pages are that are asked for.
const PAGE: usize = 2;
/// Far more pages than the probe's keys can fill.
const MANY_PAGES: usize = 64;
/// From which age on the keys of another probe are leftovers.
const LEFTOVER: SignedDuration = SignedDuration::from_hours(1);
/// How many leftovers one probe removes.
const LEFTOVERS: usize = 1000;

/// What a listing of the probes' folder shows.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// This probe's keys, with their sizes.
    pub(super) own: BTreeMap<String, u64>,
    /// When the newest of them was written, by the store's clock.
    newest: Option<Timestamp>,
    /// Some of the others, and when they were written.
    others: Vec<(Path, Timestamp)>,
}

/// What a listing page by page shows.
#[derive(Debug, Default, PartialEq, Eq)]
struct Paged {
    objects: Vec<String>,
    folders: BTreeSet<String>,
}

/// How a listing page by page ended.
enum Ended {
    Whole(Paged),
    Endless,
    /// The store does not take such a request.
    Refused(String),
}

impl Trial {
    /// Lists all probes' keys. One LIST, as long as there are few.
    pub(super) async fn listed(&mut self) -> Result<Seen, Stop> {
        let mut seen = Seen::default();
        let written: BTreeSet<String> = self.keys.written().into_iter().collect();
        let mut objects = std::pin::pin!(listing::objects(&self.root, Some(&keys::folder())));
        loop {
            let object = match objects.try_next().await {
                Ok(Some(object)) => object,
                Ok(None) => return Ok(seen),
                Err(StoreError::ListingLoops { .. }) => return Err(self.endless()),
                Err(error) => return Err(error.into()),
            };
            let Some(key) = self.root.relative(&object.location) else { continue };
            let modified = listing::modified(&object);
            if written.contains(key) {
                seen.own.insert(key.to_owned(), object.size);
                seen.newest = seen.newest.max(Some(modified));
            } else if seen.others.len() < LEFTOVERS && Key::parse(key) == Key::Probe {
                seen.others.push((object.location, modified));
            }
        }
    }

    fn endless(&mut self) -> Stop {
        self.capabilities.consistent_list = false;
        self.problem(
            ProblemKind::EndlessList,
            "a listing without a delimiter repeats a page without end, so that no listing of a large root would ever be whole",
        );
        Stop::Settled
    }

    pub(super) fn stale(&mut self, what: &str) {
        self.capabilities.consistent_list = false;
        self.problem(
            ProblemKind::StaleList,
            format_args!(
                "a listing right after {what} does not show it, so that fences and floors could be overlooked"
            ),
        );
    }

    /// A listing right after a create, an overwrite and other writes shows them. 10 PUTs and 2 LISTs.
    pub(super) async fn visibility(&mut self) -> Result<(), Stop> {
        self.capabilities.consistent_list = true;
        let seen = self.listed().await?;
        if !seen.own.contains_key(&self.keys.raced()) {
            self.stale("a create");
        }
        if let Some(now) = seen.newest {
            let is_leftover = |modified: Timestamp| now.duration_since(modified) >= LEFTOVER;
            self.leftovers = seen.others.into_iter().filter(|(_, at)| is_leftover(*at)).map(|(path, _)| path).collect();
        }
        let others = self.keys.written().into_iter().filter(|key| *key != self.keys.raced());
        for key in others.collect::<Vec<_>>() {
            self.put(&key, "written").await?;
        }
        let (overwritten, body) = (self.keys.overwritten(), "written again");
        // What cannot be overwritten cannot be listed as it was before either.
        let overwrites = self.overwrites(&overwritten, body).await?;
        let seen = self.listed().await?;
        let shown = seen.own.get(&overwritten).map(|size| usize::try_from(*size));
        if overwrites && shown != Some(Ok(body.len())) {
            self.stale("an overwrite");
        } else if seen.own.len() != self.keys.written().len() {
            self.stale("writes of several keys");
        }
        Ok(())
    }

    /// Small pages show every key once and end; with a delimiter they show each folder once. 9 LISTs, or 1 where the client has no pages.
    pub(super) async fn pages(&mut self) -> Result<(), Stop> {
        if self.root.paginated().is_none() {
            return self.folders().await;
        }
        let expected = Paged { objects: self.keys.written(), folders: BTreeSet::new() };
        match self.paged(None).await? {
            Ended::Whole(paged) if paged == expected => {}
            // What hides keys from one page hides them from many.
            Ended::Whole(_) if !self.capabilities.consistent_list => return Ok(()),
            Ended::Whole(paged) => {
                self.capabilities.consistent_list = false;
                self.problem(
                    ProblemKind::IncompleteList,
                    format_args!(
                        "a listing in pages of {PAGE} shows {} keys instead of {}, so that a large root would be seen in part",
                        paged.objects.len(),
                        expected.objects.len()
                    ),
                );
                return Ok(());
            }
            Ended::Endless => {
                self.endless();
                return Ok(());
            }
            Ended::Refused(reason) => {
                self.capabilities.consistent_list = false;
                self.problem(
                    ProblemKind::IncompleteList,
                    format_args!("the store does not list in pages of {PAGE} keys: {reason}"),
                );
                return Ok(());
            }
        }
        let folded = self.keys.seals().into_iter().chain([self.keys.raced()]);
        let mut objects: Vec<String> = folded.collect();
        objects.sort();
        let expected =
            |folders: Vec<String>| Paged { objects: objects.clone(), folders: folders.into_iter().collect() };
        // Some end the name of a folder with the delimiter's first character. As long as they show the seals beside it that is as good.
        let (whole, short) = (expected(self.keys.common_prefixes()), expected(self.keys.folders()));
        let what = "a listing in small pages with the delimiter \"/vnode=\"";
        match self.paged(Some("/vnode=")).await? {
            Ended::Whole(paged) if paged == whole || paged == short => self.capabilities.delimiter_index = true,
            Ended::Whole(_) => {
                self.problem(
                    ProblemKind::NoDelimiter,
                    format_args!("{what} shows other keys and folders than it should"),
                );
            }
            Ended::Endless => {
                self.problem(ProblemKind::NoDelimiter, format_args!("{what} repeats a page without end"));
            }
            Ended::Refused(reason) => {
                self.problem(ProblemKind::NoDelimiter, format_args!("{what} is refused: {reason}"));
            }
        }
        Ok(())
    }

    async fn paged(&self, delimiter: Option<&'static str>) -> Result<Ended, StoreError> {
        let Some(pages) = Pages::new(&self.root, &self.keys.start(), delimiter) else {
            return Ok(Ended::Whole(Paged::default()));
        };
        let mut pages = std::pin::pin!(pages.of_size(PAGE).stream());
        let mut shown = Paged::default();
        for _ in 0..MANY_PAGES {
            let page = match pages.try_next().await {
                Ok(Some(page)) => page,
                Ok(None) => {
                    shown.objects.sort();
                    return Ok(Ended::Whole(shown));
                }
                Err(StoreError::ListingLoops { .. }) => return Ok(Ended::Endless),
                Err(StoreError::Request { source, .. }) if cause::unsupported(&source) => {
                    return Ok(Ended::Refused(cause::plain(&source)));
                }
                Err(error) => return Err(error),
            };
            let keys = page.objects.iter().filter_map(|object| self.root.relative(&object.location));
            shown.objects.extend(keys.map(str::to_owned));
            let folders = page.folders.iter().filter_map(|folder| self.root.relative(folder));
            shown.folders.extend(folders.map(str::to_owned));
        }
        Ok(Ended::Endless)
    }

    /// The folders of the probes, as a client without pages lists those of the epochs.
    async fn folders(&mut self) -> Result<(), Stop> {
        let folder = self.path(&keys::folder())?;
        let listed = self.root.store().list_with_delimiter(Some(&folder)).await;
        let listed = listed.map_err(|error| self.root.error(Operation::List, &keys::folder(), error))?;
        let found: BTreeSet<&str> = listed.common_prefixes.iter().filter_map(|path| self.root.relative(path)).collect();
        if self.keys.folders().iter().all(|folder| found.contains(folder.as_str())) {
            self.capabilities.delimiter_index = true;
        } else {
            self.problem(ProblemKind::NoDelimiter, "a listing by folder does not show every folder");
        }
        Ok(())
    }

    /// Deletes what earlier probes have left. Best-effort, and nothing but keys of probes.
    pub(super) async fn sweep(&mut self) {
        let leftovers = std::mem::take(&mut self.leftovers);
        if leftovers.is_empty() {
            return;
        }
        let count = leftovers.len();
        let root = if self.capabilities.bulk_delete { self.root.clone() } else { self.root.one_by_one() };
        let paths = stream::iter(leftovers.into_iter().map(Ok)).boxed();
        let gone =
            |result: &object_store::Result<Path>| std::future::ready(result.as_ref().map_or_else(is_gone, |_| true));
        let removed = root.store().delete_stream(paths).filter(gone).count().await;
        tracing::info!(root = %self.root, removed, of = count, "removed what earlier probes had left");
    }
}

/// Whether a failed deletion says that the key is not there.
pub(super) fn is_gone(error: &object_store::Error) -> bool {
    match error {
        object_store::Error::NotFound { .. } => cause::class(error) != ErrorClass::BucketNotFound,
        // Gateways may name a missing key in the answer to a request for many.
        object_store::Error::Generic { .. } => cause::plain(error).ends_with("(code: NoSuchKey)"),
        _ => false,
    }
}
