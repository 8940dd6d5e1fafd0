//! The HTTP side of a root: one client, every attempt counted, nothing followed that leads elsewhere.

use std::error::Error;
use std::fmt;
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

use crate::observe::{Operation, Outcome, Watch};

/// What is kept of an error's body.
const ERROR_BODY_LIMIT: usize = 16 * 1024;

/// How the clients of a root behave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// A whole request, body included.
    pub(crate) request: Duration,
    /// The connection alone.
    pub(crate) connect: Duration,
}

/// A request over plain HTTP, which was not allowed.
#[derive(Debug)]
pub(crate) struct PlainHttp;

impl fmt::Display for PlainHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the endpoint is plain http://, which is not allowed: use https://, or set allow_http to true")
    }
}

impl Error for PlainHttp {}

/// Makes the HTTP connections of one root.
///
/// A store's builder asks for several: one for each way to fetch credentials, and last the store's own. All of them share one pool
/// (a second one exists only where a metadata service, with its short time-out, is asked), and only the store's own is counted.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    shared: Arc<Shared>,
}

struct Shared {
    timeouts: Timeouts,
    watch: Watch,
    secrets: Vec<String>,
    connections: AtomicUsize,
    pools: Mutex<Vec<(Duration, reqwest::Client)>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("timeouts", &self.timeouts).finish_non_exhaustive()
    }
}

impl Connector {
    /// `secrets` are blotted out of every error that a server sends.
    pub(crate) fn new(timeouts: Timeouts, watch: Watch, secrets: Vec<String>) -> Self {
        let secrets = secrets.into_iter().filter(|secret| secret.len() >= 4).collect();
        Self {
            shared: Arc::new(Shared {
                timeouts,
                watch,
                secrets,
                connections: AtomicUsize::new(0),
                pools: Mutex::new(Vec::new()),
            }),
        }
    }

    #[cfg(test)]
    fn pools(&self) -> usize {
        self.shared.pools.lock().unwrap().len()
    }
}

impl Shared {
    fn pool(&self, connect: Duration) -> Result<reqwest::Client, reqwest::Error> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, pool)) = pools.iter().find(|(timeout, _)| *timeout == connect) {
            return Ok(pool.clone());
        }
        let pool = reqwest::Client::builder()
            .user_agent(concat!("epochwarden/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .http1_only()
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .timeout(self.timeouts.request)
            .connect_timeout(connect)
            .build()?;
        pools.push((connect, pool.clone()));
        Ok(pool)
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
        let client = self
            .shared
            .pool(connect)
            .map_err(|source| object_store::Error::Generic { store: "HTTP", source: Box::new(source) })?;
        let number = self.shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(HttpClient::new(Connection { shared: Arc::clone(&self.shared), client, allow_http, number }))
    }
}

/// One connection: a view of the shared client.
#[derive(Debug)]
struct Connection {
    shared: Arc<Shared>,
    client: reqwest::Client,
    allow_http: bool,
    number: usize,
}

impl Connection {
    /// The store's own connection is the last that its builder asks for; the others fetch credentials.
    fn is_the_stores(&self) -> bool {
        self.number == self.shared.connections.load(Ordering::Relaxed)
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
        if !self.allow_http && request.uri().scheme() != Some(&http::uri::Scheme::HTTPS) {
            return Err(HttpError::new(HttpErrorKind::Unknown, PlainHttp));
        }
        let attempt = operation(request.method(), request.uri())
            .filter(|_| self.is_the_stores())
            .map(|operation| self.shared.watch.start(operation));
        let answer = self.client.call(request).await;
        if let Some(attempt) = attempt {
            attempt.finish(match &answer {
                Ok(response) => outcome(response.status()),
                Err(error) if error.kind() == HttpErrorKind::Timeout => Outcome::Timeout,
                Err(_) => Outcome::Disconnected,
            });
        }
        let response = answer?;
        if response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        self.clean(response).await
    }
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
