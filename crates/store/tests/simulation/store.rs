//! The store as its clients meet it: every request takes its time before and after its effect, and may lose its answer, fail key by key,
//! land when nobody waits for it any more, or show a listing of which no instant was like it.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::oneshot;

use crate::bucket::Part;
use crate::oracle::{Client, ClientKind};
use crate::process::Process;
use crate::setup::Weather;
use crate::world::{State, World, sleep, store_time};

/// How long a client waits for an answer, in milliseconds.
const PATIENCE: u64 = 4_000;
/// How many keys one delete request takes.
const BULK: usize = 1000;

/// The store, as one client of it.
#[derive(Clone)]
pub(crate) struct SimStore {
    world: World,
    name: String,
    client: Client,
    process: Process,
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy)]
struct Fate {
    /// Milliseconds until it takes effect, and from then on to the answer.
    before: u64,
    after: u64,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Answered,
    /// It fails and has no effect.
    Refused,
    /// It takes effect, and then fails.
    Lost,
    /// It takes effect, and nobody hears of it.
    Silent,
    /// It never arrives, and nobody hears of it.
    Vanished,
    /// It arrives twice, and the second answer is told.
    Resent,
    /// A create that meets another one in flight: refused as if the object were there, whatever became of it.
    Conflicts {
        effect: bool,
    },
}

impl SimStore {
    /// `process`: what asks, and stands still now and then.
    pub(crate) fn new(world: &World, process: &Process, name: impl Into<String>, kind: ClientKind) -> Self {
        let name = name.into();
        let client = world.with(|state| state.oracle.client(kind));
        Self { world: world.clone(), name, client, process: process.clone() }
    }

    pub(crate) fn client(&self) -> Client {
        self.client
    }

    fn weather(&self, what: &str, key: &str) -> Weather {
        let setup = self.world.setup();
        match what {
            "PUT" if key.starts_with("_epochwarden/") => setup.records,
            "PUT" if key.ends_with("/_COMMIT") => setup.seals,
            "PUT" => setup.writes,
            "LIST" => setup.lists,
            "DELETE" => setup.deletes,
            _ => setup.reads,
        }
    }

    fn fate(&self, what: &'static str, key: &str, creates: bool) -> Fate {
        let weather = self.weather(what, key);
        let slowest = self.world.setup().slowest;
        self.world.with(|state| {
            let mut fate = Fate { before: state.rng.u64(1..15), after: state.rng.u64(1..15), end: End::Answered };
            if state.mishap(weather.slow) {
                let long = state.spread(100, slowest);
                if state.chance(50) {
                    fate.before = long;
                } else {
                    fate.after = long;
                }
                state.count("slow requests");
            }
            if state.mishap(weather.fails) {
                fate.end = match state.rng.u32(..if creates { 8 } else { 5 }) {
                    0 => End::Refused,
                    1 | 2 => End::Lost,
                    3 => End::Silent,
                    4 => End::Vanished,
                    5 => End::Resent,
                    6 => End::Conflicts { effect: false },
                    _ => End::Conflicts { effect: true },
                };
                state.count(match fate.end {
                    End::Lost | End::Silent => "lost answers",
                    End::Resent => "resent creates",
                    End::Conflicts { .. } => "conflicts in flight",
                    _ => "failed requests",
                });
            }
            fate
        })
    }

    /// One request. Its effect takes place whether or not anybody still waits for the answer.
    async fn request<T: Send + 'static>(
        &self,
        what: &'static str,
        key: String,
        creates: bool,
        effect: impl Fn(&mut State, &str) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let fate = self.fate(what, &key, creates);
        let client = self.client;
        self.world.with(|state| {
            state.note(&self.name, what, &key);
            state.oracle.sends(client, what, &key);
        });
        let (answer, answered) = oneshot::channel();
        let (world, name, path) = (self.world.clone(), self.name.clone(), key.clone());
        tokio::spawn(async move {
            sleep(fate.before).await;
            if let Some(result) = land(&world, fate, &name, what, &path, effect) {
                sleep(fate.after).await;
                // Nobody may be waiting any more.
                let _ = answer.send(result);
            } else {
                sleep(PATIENCE * 2).await;
            }
        });
        let answered = tokio::time::timeout(Duration::from_millis(PATIENCE), answered).await;
        let result = if let Ok(Ok(result)) = answered {
            result
        } else {
            self.world.note(&self.name, "  gave up", &key);
            Err(failed("no answer in time"))
        };
        self.stall().await;
        result
    }

    /// Now and then the process stands still with the answer in its hands, until others have gone on.
    async fn stall(&self) {
        let setup = self.world.setup();
        let lease = u64::try_from(setup.lease.as_millis()).unwrap();
        let length = self.world.with(|state| {
            let stalls = state.mishap(setup.stalls);
            stalls.then(|| {
                state.count("stalls");
                state.note(&self.name, "  stands still", "");
                state.spread(lease / 2, lease * 8)
            })
        });
        if let Some(length) = length {
            self.process.pause_for(length).await;
        }
    }

    async fn page(
        &self,
        prefix: String,
        delimiter: Option<String>,
        cursor: Option<String>,
        most: usize,
        whole: bool,
    ) -> Result<Part> {
        let client = self.client;
        let begins = cursor.is_none();
        let page = self.world.setup().page.min(most);
        let size = self.world.with(|state| {
            if !state.chance(20) {
                return page;
            }
            state.count("short pages");
            state.rng.usize(0..=page)
        });
        // A page may be empty and not the last one, but a client has to come on.
        let size = if begins && size == 0 { 1 } else { size };
        let shown = format!("{prefix} {}", cursor.as_deref().unwrap_or_default());
        self.request("LIST", shown, false, move |state, _| {
            let part = state.bucket.list(&prefix, delimiter.as_deref(), cursor.as_deref(), size);
            if whole && delimiter.is_none() {
                state.oracle.listed(client, begins, &part.objects);
            }
            Ok(part)
        })
        .await
    }

    /// All keys below a raw prefix, page by page.
    fn pages(&self, prefix: String) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        let registers = prefix == "_epochwarden/";
        let first = (None::<String>, false);
        let generation = self.world.with(|state| {
            if registers {
                let now = state.now;
                state.oracle.reads_registers(store.client, now);
            }
            state.bucket.generation()
        });
        stream::try_unfold(first, move |(cursor, done)| {
            let (store, prefix) = (store.clone(), prefix.clone());
            async move {
                if done {
                    return Ok::<_, Error>(None);
                }
                let whole = prefix.is_empty();
                let again = cursor.is_some();
                let part = store.page(prefix, None, cursor, BULK, whole).await?;
                let done = part.next.is_none();
                store.world.with(|state| {
                    if again && state.bucket.generation() != generation {
                        state.count("torn lists");
                    }
                    if registers {
                        state.oracle.saw_registers(store.client, &part.objects, done);
                    }
                });
                let objects = stream::iter(part.objects.into_iter().map(Ok::<_, Error>));
                Ok(Some((objects, (part.next, done))))
            }
        })
        .try_flatten()
        .boxed()
    }
}

/// Lets a request take its effect; `None` when nobody is ever told of it.
fn land<T>(
    world: &World,
    fate: Fate,
    name: &str,
    what: &str,
    key: &str,
    effect: impl Fn(&mut State, &str) -> Result<T>,
) -> Option<Result<T>> {
    let exists = || Err(Error::AlreadyExists { path: key.to_owned(), source: "conflicting requests".into() });
    world.with(|state| {
        let mut take = |how: &str| {
            if what != "GET" && what != "HEAD" {
                state.note(name, how, key);
            }
            effect(state, key)
        };
        match fate.end {
            End::Answered => Some(take("  done")),
            End::Refused => {
                state.note(name, "  refused", key);
                Some(Err(failed("the connection was refused")))
            }
            End::Lost => {
                let _ = take("  done, answer lost");
                Some(Err(failed("the connection was reset")))
            }
            End::Silent => {
                let _ = take("  done, never answered");
                None
            }
            End::Vanished => None,
            End::Resent => {
                let _ = take("  done, sent again");
                Some(take("  done again"))
            }
            End::Conflicts { effect } => {
                if effect {
                    let _ = take("  done, told a conflict");
                } else {
                    state.note(name, "  conflicts", key);
                }
                Some(exists())
            }
        }
    })
}

fn failed(why: &'static str) -> Error {
    Error::Generic { store: "sim", source: why.into() }
}

fn not_found(key: &str) -> Error {
    Error::NotFound { path: key.to_owned(), source: "no such key".into() }
}

fn folder(prefix: Option<&Path>) -> String {
    prefix.filter(|prefix| !prefix.is_root()).map(|prefix| format!("{prefix}/")).unwrap_or_default()
}

impl fmt::Debug for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimStore({})", self.name)
    }
}

impl fmt::Display for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[async_trait]
impl ObjectStore for SimStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let creates = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented { operation: "update".into(), implementer: "sim".into() });
            }
        };
        let body = Bytes::from(payload);
        self.request("PUT", location.to_string(), creates, move |state, key| {
            if creates && state.bucket.contains(key) {
                state.count("refused creates");
                return Err(Error::AlreadyExists { path: key.to_owned(), source: failed("exists").into() });
            }
            let State { oracle, bucket, now, .. } = state;
            oracle.writes(bucket, key, &body, *now);
            let meta = bucket.put(key, body.clone(), store_time(*now), *now);
            Ok(PutResult { e_tag: meta.e_tag, version: None, extensions: http::Extensions::default() })
        })
        .await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented { operation: "multipart".into(), implementer: "sim".into() })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let what = if options.head { "HEAD" } else { "GET" };
        let head = options.head;
        self.request(what, location.to_string(), false, move |state, key| {
            let object = state.bucket.get(key).ok_or_else(|| not_found(key))?;
            let body = if head { Bytes::new() } else { object.body.clone() };
            Ok(GetResult {
                payload: GetResultPayload::Stream(stream::once(std::future::ready(Ok(body))).boxed()),
                meta: object.meta.clone(),
                range: Range { start: 0, end: object.meta.size },
                attributes: object_store::Attributes::default(),
                extensions: http::Extensions::default(),
            })
        })
        .await
    }

    /// As S3's: up to 1,000 keys in one request, which may fail as a whole, or for some of its keys.
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .try_chunks(BULK)
            .map_err(|error| error.1)
            .and_then(move |chunk| {
                let store = store.clone();
                async move { store.delete_chunk(chunk).await.map(stream::iter) }
            })
            .try_flatten()
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.pages(folder(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let offset = offset.clone();
        self.list(prefix).try_filter(move |object| std::future::ready(object.location > offset)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = folder(prefix);
        let part = self
            .request("LIST", prefix.clone(), false, move |state, _| {
                Ok(state.bucket.list(&prefix, Some("/"), None, usize::MAX))
            })
            .await?;
        Ok(ListResult { common_prefixes: part.folders, objects: part.objects, extensions: http::Extensions::default() })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented { operation: "copy".into(), implementer: "sim".into() })
    }
}

impl SimStore {
    async fn delete_chunk(&self, chunk: Vec<Path>) -> Result<Vec<Result<Path>>> {
        let client = self.client;
        let shown = match chunk.as_slice() {
            [only] => only.to_string(),
            [first, rest @ ..] => format!("{first} and {} more", rest.len()),
            [] => return Ok(Vec::new()),
        };
        let fails = self.world.setup().deletes.fails;
        self.request("DELETE", shown, false, move |state, _| {
            let mut results = Vec::with_capacity(chunk.len());
            for path in &chunk {
                let (fails, effect) = (state.mishap(fails), state.chance(50));
                if !fails || effect {
                    let State { oracle, bucket, now, .. } = state;
                    oracle.deletes(bucket, client, path.as_ref(), *now);
                    let gone = bucket.remove(path.as_ref());
                    oracle.deleted(bucket, client, path.as_ref(), gone.is_some());
                }
                results.push(if fails {
                    state.count("failed keys of bulk deletes");
                    Err(failed("InternalError for this key"))
                } else {
                    Ok(path.clone())
                });
            }
            Ok(results)
        })
        .await
    }
}

#[async_trait]
impl PaginatedListStore for SimStore {
    async fn list_paginated(&self, prefix: Option<&str>, opts: PaginatedListOptions) -> Result<PaginatedListResult> {
        let prefix = prefix.unwrap_or_default().to_owned();
        let most = opts.max_keys.unwrap_or(BULK);
        let registers = prefix == "_epochwarden/";
        let whole = prefix.is_empty();
        let client = self.client;
        if registers && opts.page_token.is_none() {
            self.world.with(|state| {
                let now = state.now;
                state.oracle.reads_registers(client, now);
            });
        }
        // A token that came back would mean the same page again, and an empty page has none of its own.
        let cursor = opts.page_token.and_then(|token| Some(token.split_once(':')?.1.to_owned()));
        let part = self.page(prefix, opts.delimiter.map(String::from), cursor, most, whole).await?;
        if registers {
            self.world.with(|state| state.oracle.saw_registers(client, &part.objects, part.next.is_none()));
        }
        let result = ListResult {
            common_prefixes: part.folders,
            objects: part.objects,
            extensions: http::Extensions::default(),
        };
        let page_token = part.next.map(|next| format!("{}:{next}", self.world.draw(0, u64::MAX)));
        Ok(PaginatedListResult { result, page_token })
    }
}
