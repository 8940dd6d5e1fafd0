//! Connections and requests, the same in every dialect.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::objects::{Buckets, PAGE, Page, Query};
use super::{gcs, s3, xml};
use crate::wait;

/// What is held of one body.
const HELD: usize = 64 * 1024 * 1024;

/// Headers that would change an answer, and that no dialect heeds: a request with one of them is refused.
const UNHEEDED: [&str; 5] = ["range", "if-match", "if-modified-since", "if-unmodified-since", "transfer-encoding"];

pub(super) type Reply = Response<Full<Bytes>>;

/// Which store is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    S3,
    Gcs,
}

/// What the server's owner and its connections have in common.
pub(super) struct Shared {
    pub(super) dialect: Dialect,
    buckets: Mutex<Buckets>,
    pub(super) latency_micros: AtomicU64,
    pub(super) requests: AtomicU64,
}

impl Shared {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            buckets: Mutex::default(),
            latency_micros: AtomicU64::default(),
            requests: AtomicU64::default(),
        }
    }

    pub(super) fn buckets(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request, taken apart.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) bucket: String,
    /// Empty where the bucket itself is asked.
    pub(super) key: String,
    pub(super) query: BTreeMap<String, String>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The text of a parameter; empty where it is not given.
    pub(super) fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// Whether it has these parameters alone.
    pub(super) fn only_asks(&self, known: &[&str]) -> bool {
        self.query.keys().all(|name| known.contains(&name.as_str()))
    }
}

/// Serves until `stop` is dropped; nothing of it is left then.
pub(super) async fn run(listener: std::net::TcpListener, shared: Arc<Shared>, mut stop: oneshot::Receiver<()>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stop => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let shared = Arc::clone(&shared);
                    connections.spawn(async move { serve(stream, shared).await });
                }
                Err(_) => wait::pause().await,
            },
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    // A client that goes away in the middle of a request is its own affair.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, HELD).collect().await else {
        return error(StatusCode::BAD_REQUEST, "IncompleteBody", "the body broke off, or is too long");
    };
    let latency = Duration::from_micros(shared.latency_micros.load(Ordering::SeqCst));
    if !latency.is_zero() {
        #[allow(clippy::disallowed_methods, reason = "the latency is what is asked for")]
        tokio::time::sleep(latency).await;
    }
    shared.requests.fetch_add(1, Ordering::SeqCst);
    if let Some(header) = UNHEEDED.into_iter().find(|header| parts.headers.contains_key(*header)) {
        return not_implemented(header);
    }
    let (bucket, key) = parts.uri.path().trim_start_matches('/').split_once('/').unwrap_or((parts.uri.path(), ""));
    let (Some(bucket), Some(key)) = (decoded(bucket.trim_start_matches('/')), decoded(key)) else {
        return error(StatusCode::BAD_REQUEST, "InvalidURI", "the path is no text");
    };
    let Some(query) = parameters(parts.uri.query().unwrap_or_default()) else {
        return error(StatusCode::BAD_REQUEST, "InvalidURI", "the query is no text");
    };
    let asked = Asked { method: parts.method, bucket, key, query, headers: parts.headers, body: body.to_bytes() };
    let mut buckets = shared.buckets();
    if buckets.get(&asked.bucket).is_none() {
        return error(StatusCode::NOT_FOUND, "NoSuchBucket", "there is no such bucket");
    }
    match shared.dialect {
        Dialect::S3 => s3::answer(&mut buckets, &asked),
        Dialect::Gcs => gcs::answer(&mut buckets, &asked),
    }
}

/// The page that a LIST of the second version asks for; the reply where it asks for what is not heeded.
#[allow(clippy::result_large_err, reason = "an answer is an answer, made once for a request")]
pub(super) fn page<'a>(buckets: &'a Buckets, asked: &Asked) -> Result<Page<'a>, Reply> {
    let known = ["list-type", "prefix", "delimiter", "continuation-token", "start-after", "max-keys"];
    if asked.parameter("list-type") != "2" || !asked.only_asks(&known) {
        return Err(not_implemented("a parameter of the listing"));
    }
    let given = |name| asked.query.get(name).map(String::as_str);
    let Ok(rows) = given("max-keys").map_or(Ok(PAGE), str::parse) else {
        return Err(error(StatusCode::BAD_REQUEST, "InvalidArgument", "max-keys is no number"));
    };
    let query = Query {
        prefix: asked.parameter("prefix"),
        delimiter: asked.parameter("delimiter"),
        token: given("continuation-token"),
        after: given("start-after"),
        rows: rows.min(PAGE),
    };
    let page = buckets.get(&asked.bucket).and_then(|objects| objects.list(&query));
    page.ok_or_else(|| error(StatusCode::BAD_REQUEST, "InvalidArgument", "nobody gave this continuation-token"))
}

/// What both dialects say of a page; `row` makes the inside of an object's element.
pub(super) fn listed(asked: &Asked, page: &Page<'_>, row: impl Fn(&str, &super::objects::Object) -> String) -> Reply {
    let mut inside = xml::element("Name", &asked.bucket);
    for (name, parameter) in [("Prefix", "prefix"), ("Delimiter", "delimiter")] {
        inside.push_str(&xml::element(name, asked.parameter(parameter)));
    }
    inside.push_str(&xml::element("KeyCount", &(page.objects.len() + page.folders.len()).to_string()));
    inside.push_str(&xml::element("IsTruncated", if page.next.is_some() { "true" } else { "false" }));
    if let Some(next) = &page.next {
        inside.push_str(&xml::element("NextContinuationToken", next));
    }
    for (key, object) in &page.objects {
        inside.push_str(&xml::around("Contents", &row(key, object)));
    }
    for folder in &page.folders {
        inside.push_str(&xml::around("CommonPrefixes", &xml::element("Prefix", folder)));
    }
    reply(StatusCode::OK, &[(CONTENT_TYPE.as_str(), "application/xml")], xml::document("ListBucketResult", &inside))
}

pub(super) fn reply(status: StatusCode, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(*name), HeaderValue::try_from(*value)) {
            reply.headers_mut().append(name, value);
        }
    }
    reply
}

/// An error, in the words of this server and the codes of the store that it plays.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Reply {
    let inside = xml::element("Code", code) + &xml::element("Message", message);
    reply(status, &[(CONTENT_TYPE.as_str(), "application/xml")], xml::document("Error", &inside))
}

pub(super) fn not_implemented(what: &str) -> Reply {
    error(StatusCode::NOT_IMPLEMENTED, "NotImplemented", &format!("the store in memory does not know {what}"))
}

fn parameters(query: &str) -> Option<BTreeMap<String, String>> {
    let text = |text: &str| decoded(&text.replace('+', " "));
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(name, value)| Some((text(name)?, text(value)?))).collect()
}

/// A text with its `%XX` replaced by what they stand for; `None` when that is no text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}
