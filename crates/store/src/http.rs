//! The HTTP side of a root: one client, every attempt counted, nothing followed that leads elsewhere, nothing reached that must not be.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use http::{Method, StatusCode, Uri};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use url::{Host, Url};

pub(crate) mod addresses;
mod listings;
mod resolver;
mod trust;
mod unsent;

use addresses::AddressRules;
pub(crate) use listings::NoListing;
use listings::PageRequest;
use resolver::{Guarded, Lookup, System};
pub(crate) use trust::Trust;
pub(crate) use unsent::Unsent;

use crate::observe::{Operation, Outcome, Watch};

/// What is kept of an error's body.
const ERROR_BODY_LIMIT: usize = 16 * 1024;

/// The headers by which S3 and Azure say how long an object is kept under a lock.
const LOCK_HEADERS: [&str; 2] = ["x-amz-object-lock-mode", "x-ms-immutability-policy-mode"];

/// An extension of an answer: what was read is kept under a lock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnderLock;

/// How the clients of a root behave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// A whole request, body included.
    pub(crate) request: Duration,
    /// The connection alone.
    pub(crate) connect: Duration,
}

/// Where the connections of a root may lead, and whom they trust.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reach {
    /// Which addresses may be reached.
    pub(crate) addresses: AddressRules,
    /// Whether connections that fetch credentials are exempt: the environment alone says where they lead.
    pub(crate) ambient: bool,
    /// Whose certificates are trusted.
    pub(crate) trust: Trust,
}

/// Makes the HTTP connections of one root.
///
/// A store's builder asks for several: one for each way to fetch credentials, and last the store's own. They share pools as far as
/// [`Pool`] allows, which mostly leaves one, and only the store's own is counted.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    shared: Arc<Shared>,
    connections: Arc<AtomicUsize>,
}

struct Shared {
    timeouts: Timeouts,
    watch: Watch,
    secrets: Vec<String>,
    reach: Reach,
    lookup: Arc<dyn Lookup>,
    pools: Mutex<Vec<(Pool, reqwest::Client)>>,
}

/// What connections must have in common to share a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pool {
    /// The time-out of a connection.
    connect: Duration,
    /// Whether addresses are checked.
    checked: bool,
    /// The port they lead to, where the rules ask for it.
    port: Option<u16>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("timeouts", &self.timeouts).finish_non_exhaustive()
    }
}

impl Connector {
    /// `secrets` are blotted out of every error that a server sends.
    pub(crate) fn new(timeouts: Timeouts, watch: Watch, secrets: Vec<String>, reach: Reach) -> Self {
        Self::with_lookup(timeouts, watch, secrets, reach, Arc::new(System))
    }

    fn with_lookup(
        timeouts: Timeouts,
        watch: Watch,
        secrets: Vec<String>,
        reach: Reach,
        lookup: Arc<dyn Lookup>,
    ) -> Self {
        let secrets = secrets.into_iter().filter(|secret| secret.len() >= 4).collect();
        Self {
            shared: Arc::new(Shared { timeouts, watch, secrets, reach, lookup, pools: Mutex::new(Vec::new()) }),
            connections: Arc::default(),
        }
    }

    /// A connector for another client of the same root: it shares the pools.
    pub(crate) fn another(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), connections: Arc::default() }
    }

    #[cfg(test)]
    fn pools(&self) -> usize {
        self.shared.pools.lock().unwrap().len()
    }
}

impl Shared {
    fn client(&self, pool: Pool) -> Result<reqwest::Client, Unsent> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = pools.iter().find(|(known, _)| *known == pool) {
            return Ok(client.clone());
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("epochwarden/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .http1_only()
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .tls_backend_preconfigured(self.reach.trust.config().map_err(|error| Unsent::NoClient(error.to_string()))?)
            .timeout(self.timeouts.request)
            .connect_timeout(pool.connect);
        if pool.checked {
            let (lookup, rules) = (Arc::clone(&self.lookup), self.reach.addresses.clone());
            builder = builder.dns_resolver(Guarded { lookup, rules, port: pool.port });
        }
        let client = builder.build().map_err(|error| Unsent::NoClient(innermost(&error)))?;
        pools.push((pool, client.clone()));
        Ok(client)
    }

    fn redact(&self, body: Vec<u8>) -> Vec<u8> {
        let Ok(mut text) = String::from_utf8(body) else {
            return b"(not text)".to_vec();
        };
        for secret in &self.secrets {
            text = text.replace(secret.as_str(), "***");
        }
        text.into_bytes()
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // The crate shortens the connect time-out for the metadata services only, and says nothing else about whom it will ask.
        let asked = options.get_config_value(&object_store::ClientConfigKey::ConnectTimeout);
        let usual = ClientOptions::default().get_config_value(&object_store::ClientConfigKey::ConnectTimeout);
        let connect = if asked == usual {
            self.shared.timeouts.connect
        } else {
            self.shared.timeouts.connect.min(Duration::from_secs(1))
        };
        let allow_http =
            options.get_config_value(&object_store::ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
        let connections = Arc::clone(&self.connections);
        let number = connections.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(HttpClient::new(Connection { shared: Arc::clone(&self.shared), connections, connect, allow_http, number }))
    }
}

/// One connection: a view of the shared clients.
#[derive(Debug)]
struct Connection {
    shared: Arc<Shared>,
    connections: Arc<AtomicUsize>,
    connect: Duration,
    allow_http: bool,
    number: usize,
}

impl Connection {
    /// The store's own connection is the last that its builder asks for; the others fetch credentials.
    fn is_the_stores(&self) -> bool {
        self.number == self.connections.load(Ordering::Relaxed)
    }

    /// The client for a request, unless it must not be sent.
    ///
    /// An address in the URL is checked here, as it is not looked up; a name is checked where it is.
    fn client(&self, uri: &Uri) -> Result<reqwest::Client, Unsent> {
        if !self.allow_http && uri.scheme() != Some(&http::uri::Scheme::HTTPS) {
            return Err(Unsent::PlainHttp);
        }
        // The client reads the URL in this way, too, which takes many a text for an address.
        let url: Url = uri.to_string().parse().map_err(|error: url::ParseError| Unsent::NoUrl {
            url: format!("{}://{}", uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default()),
            reason: error.to_string(),
        })?;
        let reach = &self.shared.reach;
        let exempt = reach.addresses.allow_all() || (reach.ambient && !self.is_the_stores());
        let mut port = None;
        if !exempt {
            port = url.port_or_known_default();
            let address = match url.host() {
                Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
                Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
                Some(Host::Domain(_)) | None => None,
            };
            if let Some(address) = address {
                reach.addresses.check(url.host_str().unwrap_or_default(), address, port)?;
            }
            port = port.filter(|_| reach.addresses.ask_for_port());
        }
        self.shared.client(Pool { connect: self.connect, checked: !exempt, port })
    }

    /// Cuts an error's body to a bounded length and blots out the secrets that a server repeats in it.
    async fn clean(&self, response: HttpResponse) -> Result<HttpResponse, HttpError> {
        let (mut parts, body) = response.into_parts();
        let mut chunks = body.bytes_stream();
        let mut kept = Vec::new();
        while let Some(chunk) = chunks.next().await {
            kept.extend_from_slice(&chunk?);
            if kept.len() > ERROR_BODY_LIMIT {
                // A secret could be cut in two at the end, so the end is not shown either.
                return Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(b"(a long answer)".to_vec())));
            }
        }
        parts.headers.remove(http::header::CONTENT_LENGTH);
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(self.shared.redact(kept))))
    }
}

#[async_trait]
impl HttpService for Connection {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let client = self.client(request.uri())?;
        let page = PageRequest::read(request.uri());
        let attempt = operation(request.method(), request.uri())
            .filter(|_| self.is_the_stores())
            .map(|operation| self.shared.watch.start(operation));
        let answer = client.call(request).await.map_err(|error| match Unsent::of(&error) {
            Some(unsent) => unsent.into(),
            None => error,
        });
        let answer = match (page, answer) {
            (Some(page), Ok(response)) if response.status().is_success() => listings::checked(&page, response).await,
            (_, answer) => answer,
        };
        if let Some(attempt) = attempt {
            attempt.finish(match &answer {
                Ok(response) => outcome(response.status()),
                Err(error) if error.kind() == HttpErrorKind::Timeout => Outcome::Timeout,
                Err(_) => Outcome::Disconnected,
            });
        }
        let mut response = answer?;
        if response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED {
            if LOCK_HEADERS.iter().any(|header| response.headers().contains_key(*header)) {
                response.extensions_mut().insert(UnderLock);
            }
            return Ok(response);
        }
        self.clean(response).await
    }
}

/// The first thing that went wrong, which a chain of wrappers says last.
pub(crate) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut link = error;
    while let Some(next) = link.source() {
        link = next;
    }
    link.to_string()
}

/// What a request does, from what it looks like on the wire. `None` for what no store charges as one of these.
fn operation(method: &Method, uri: &Uri) -> Option<Operation> {
    let query = uri.query().unwrap_or_default();
    let has = |wanted: &str| query.split('&').any(|pair| pair == wanted || pair.strip_suffix('=') == Some(wanted));
    let names = |wanted: &str| query.split('&').any(|pair| pair.split('=').next() == Some(wanted));
    match method.as_str() {
        "GET" if names("list-type") || has("comp=list") || names("uploads") => Some(Operation::List),
        "GET" => Some(Operation::Get),
        "HEAD" => Some(Operation::Head),
        "PUT" => Some(Operation::Put),
        "DELETE" => Some(Operation::Delete),
        "POST" if has("delete") || has("comp=batch") => Some(Operation::Delete),
        "POST" if names("uploads") || names("uploadId") => Some(Operation::Put),
        _ => None,
    }
}

fn outcome(status: StatusCode) -> Outcome {
    match status.as_u16() {
        200..300 | 304 => Outcome::Ok,
        401 | 403 => Outcome::Denied,
        404 => Outcome::NotFound,
        409 | 412 => Outcome::Conflict,
        429 | 503 => Outcome::Throttled,
        500.. => Outcome::ServerError,
        _ => Outcome::Rejected,
    }
}

#[cfg(test)]
pub(crate) mod answers;
#[cfg(test)]
mod tests;
