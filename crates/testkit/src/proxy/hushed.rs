//! Connections on which nothing moves any more, and which nobody closes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Who may speak. Counts the turns between speech and silence: a connection belongs to the turn in which it was accepted, and
/// speaks while that turn goes on and is an even one.
#[derive(Debug, Clone, Default)]
pub(super) struct Hush(Arc<AtomicU64>);

impl Hush {
    pub(super) fn silence(&self) {
        self.0.fetch_or(1, Ordering::SeqCst);
    }

    pub(super) fn resume(&self) {
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |turn| (turn % 2 == 1).then_some(turn + 1));
    }

    /// What a connection that is accepted now will be held to.
    pub(super) fn turn(&self) -> Turn {
        Turn { hush: self.clone(), accepted: self.0.load(Ordering::SeqCst) }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Turn {
    hush: Hush,
    accepted: u64,
}

impl Turn {
    pub(super) fn is_silent(&self) -> bool {
        self.accepted % 2 == 1 || self.hush.0.load(Ordering::SeqCst) != self.accepted
    }
}

/// A stream that keeps the silence: what comes in is lost, nothing goes out, and only the other side's end is noticed.
pub(super) struct Hushed {
    stream: TcpStream,
    turn: Turn,
}

impl Hushed {
    pub(super) fn new(stream: TcpStream, turn: Turn) -> Self {
        Self { stream, turn }
    }
}

impl AsyncRead for Hushed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.turn.is_silent() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        loop {
            let mut lost = [0; 4096];
            let mut lost = ReadBuf::new(&mut lost);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut lost))?;
            if lost.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// While there is silence a write waits without anybody to wake it: the silence of a connection never ends.
impl AsyncWrite for Hushed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.turn.is_silent() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.turn.is_silent() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
