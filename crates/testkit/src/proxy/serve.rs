//! Takes connections and requests, and passes them on as far as the rules allow.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::hushed::{Hush, Hushed};
use super::rules::{Action, Answer, Rules};
use crate::wait;

/// How many connections there are at once.
const CONNECTIONS: usize = 8_192;

/// What is held of one body.
const HELD: usize = 16 * 1024 * 1024;

type Reply = Response<UnsyncBoxBody<Bytes, anyhow::Error>>;

/// The server behind the proxy.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    pub(super) tls: Option<TlsConnector>,
}

/// What the proxy's owner and its connections have in common.
pub(super) struct Shared {
    upstream: Upstream,
    pub(super) rules: Rules,
    pub(super) hush: Hush,
    /// Changes when what hangs is let go.
    pub(super) released: watch::Sender<u64>,
    /// Changes when the connections that are open are closed.
    pub(super) dropped: watch::Sender<u64>,
    accepted: AtomicU64,
}

impl Shared {
    pub(super) fn new(upstream: Upstream) -> Self {
        Self {
            upstream,
            rules: Rules::default(),
            hush: Hush::default(),
            released: watch::Sender::new(0),
            dropped: watch::Sender::new(0),
            accepted: AtomicU64::new(0),
        }
    }

    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// Serves until `stop` is dropped; nothing of it is left then.
pub(super) async fn run(listener: std::net::TcpListener, shared: Arc<Shared>, mut stop: oneshot::Receiver<()>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stop => return,
            Some(_) = connections.join_next() => {}
            (place, stream) = accept(&listener, &places) => {
                shared.accepted.fetch_add(1, Ordering::SeqCst);
                let (shared, dropped) = (Arc::clone(&shared), shared.dropped.subscribe());
                connections.spawn(async move {
                    // Who gets no answer sees the connection end, and that is all there is to see.
                    let _ = connection(stream, shared, dropped).await;
                    drop(place);
                });
            }
        }
    }
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (Option<OwnedSemaphorePermit>, TcpStream) {
    // It is never closed.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            return (place, stream);
        }
        wait::pause().await;
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, mut dropped: watch::Receiver<u64>) -> anyhow::Result<()> {
    let turn = shared.hush.turn();
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    // As long as there is this one, the connection is not closed.
    let kept_open = stream.try_clone()?;
    let io = TokioIo::new(Hushed::new(TcpStream::from_std(stream)?, turn.clone()));
    let line = Arc::new(Mutex::new(None));
    let service = service_fn(|request| answer(Arc::clone(&shared), Arc::clone(&line), request));
    let served = async {
        let ended = http1::Builder::new().serve_connection(io, service).await;
        if turn.is_silent() {
            let mut rest = TcpStream::from_std(kept_open)?;
            let mut lost = vec![0; 4096];
            while rest.read(&mut lost).await? > 0 {}
        }
        anyhow::Ok(ended?)
    };
    tokio::select! {
        served = served => served,
        _ = dropped.changed() => Ok(()),
    }
}

/// A connection to the server, which ends with this value.
struct Line {
    sender: SendRequest<Incoming>,
    _driver: JoinSet<()>,
}

type Kept = Arc<Mutex<Option<Line>>>;

async fn answer(shared: Arc<Shared>, kept: Kept, request: Request<Incoming>) -> anyhow::Result<Reply> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let noted = shared.rules.note(request.method().as_str(), target);
    let reply = act(shared, kept, request).await?;
    noted.answered();
    Ok(reply)
}

async fn act(shared: Arc<Shared>, kept: Kept, request: Request<Incoming>) -> anyhow::Result<Reply> {
    let mut released = shared.released.subscribe();
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    match shared.rules.take(request.method().as_str(), target) {
        None => Ok(forward(&shared, &kept, request).await?.map(stream)),
        Some(Action::Answer(answer)) => {
            // A server that answers before it has heard the question out may reset the connection, and the answer with it.
            whole(request.into_body()).await?;
            own(answer)
        }
        Some(Action::CutBody(after)) => {
            let answer = forward(&shared, &kept, request).await?;
            Ok(answer.map(|body| Cut { body, left: after, sent: false }.boxed_unsync()))
        }
        Some(Action::CloseBefore) => bail!("closed before"),
        Some(Action::CloseAfter) => {
            whole(forward(&shared, &kept, request).await?.into_body()).await?;
            bail!("closed after")
        }
        Some(Action::Hang) => {
            whole(request.into_body()).await?;
            let _ = released.changed().await;
            bail!("let go")
        }
        Some(Action::Delay(span)) => {
            #[allow(clippy::disallowed_methods, reason = "the delay is the fault that is asked for")]
            tokio::time::sleep(span).await;
            Ok(forward(&shared, &kept, request).await?.map(stream))
        }
        Some(Action::Rewrite(change)) => {
            let (parts, body) = forward(&shared, &kept, request).await?.into_parts();
            let headers = parts.headers.iter().filter(|(name, _)| !is_about_length(name));
            let headers = headers.map(|(name, value)| Ok((name.to_string(), value.to_str()?.to_owned())));
            let answer = Answer {
                status: parts.status.as_u16(),
                headers: headers.collect::<anyhow::Result<_>>()?,
                body: String::from_utf8(whole(body).await?.into())?,
            };
            own(change(answer))
        }
    }
}

fn is_about_length(name: &HeaderName) -> bool {
    name == CONTENT_LENGTH || name == TRANSFER_ENCODING
}

async fn whole(body: Incoming) -> anyhow::Result<Bytes> {
    let collected = Limited::new(body, HELD).collect().await;
    Ok(collected.map_err(|error| anyhow::anyhow!("a body: {error}"))?.to_bytes())
}

fn stream(body: Incoming) -> UnsyncBoxBody<Bytes, anyhow::Error> {
    body.map_err(anyhow::Error::new).boxed_unsync()
}

fn own(answer: Answer) -> anyhow::Result<Reply> {
    let body = Full::new(Bytes::from(answer.body)).map_err(|never| match never {}).boxed_unsync();
    let mut reply = Response::new(body);
    *reply.status_mut() = StatusCode::from_u16(answer.status)?;
    for (name, value) in answer.headers {
        reply.headers_mut().append(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    Ok(reply)
}

/// Passes a request on, over the line of the request before it where that still stands.
async fn forward(shared: &Shared, kept: &Kept, request: Request<Incoming>) -> anyhow::Result<Response<Incoming>> {
    let mut kept = kept.lock().await;
    let mut before = kept.take();
    let stands = match &mut before {
        Some(line) => line.sender.ready().await.is_ok(),
        None => false,
    };
    let mut line = match before.filter(|_| stands) {
        Some(line) => line,
        None => connect(&shared.upstream).await?,
    };
    let answer = match line.sender.try_send_request(request).await {
        Ok(answer) => answer,
        Err(mut failed) => match failed.take_message() {
            // The server closed the line before anything was sent over it.
            Some(request) => {
                line = connect(&shared.upstream).await?;
                line.sender.send_request(request).await?
            }
            None => return Err(failed.into_error()).context("the server"),
        },
    };
    *kept = Some(line);
    Ok(answer)
}

async fn connect(upstream: &Upstream) -> anyhow::Result<Line> {
    let stream = TcpStream::connect(upstream.address).await?;
    stream.set_nodelay(true)?;
    let mut driver = JoinSet::new();
    let sender = match &upstream.tls {
        None => {
            let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            driver.spawn(async { drop(connection.await) });
            sender
        }
        Some(tls) => {
            let stream = tls.connect(ServerName::from(upstream.address.ip()), stream).await?;
            let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            driver.spawn(async { drop(connection.await) });
            sender
        }
    };
    Ok(Line { sender, _driver: driver })
}

/// A body that breaks off.
struct Cut {
    body: Incoming,
    left: usize,
    /// Whether what came before the break had its turn to be sent.
    sent: bool,
}

impl Body for Cut {
    type Data = Bytes;
    type Error = anyhow::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.left == 0 && !self.sent {
            self.sent = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.left == 0 {
            return Poll::Ready(Some(Err(anyhow::anyhow!("cut"))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let Ok(mut data) = frame.into_data() else { return Poll::Ready(None) };
                data.truncate(self.left);
                self.left -= data.len();
                Some(Ok(Frame::data(data)))
            }
            other => other.map(|frame| frame.map_err(anyhow::Error::new)),
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
