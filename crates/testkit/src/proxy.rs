//! An HTTP/1.1 proxy in front of a real server, which does to chosen requests what networks and servers do on bad days.
//!
//! Requests go on as they came, the `Host` header too, so that signatures stay good; bodies are streamed.
//!
//! ```no_run
//! use epochwarden_testkit::proxy::{Answer, Proxy};
//!
//! # fn main() -> anyhow::Result<()> {
//! let proxy = Proxy::to("http://127.0.0.1:9000")?;
//! let hits = proxy.on("PUT", "/state/*/_COMMIT").once().answer(Answer::s3(503, "SlowDown").header("retry-after", "1"));
//! // ... requests to proxy.url() ...
//! assert_eq!(hits.count(), 1);
//! # Ok(())
//! # }
//! ```

mod hushed;
mod rules;
mod serve;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, ensure};
use tokio::sync::oneshot;

use crate::tls;
pub use rules::{Answer, Hits, Journal, Passage, RuleBuilder};
use serve::{Shared, Upstream};

/// A proxy on a free port, of 127.0.0.1 unless asked otherwise. It runs on a thread of its own, so that a test which blocks does not block it, and ends
/// with this value, connections and all.
///
/// More than 1,024 connections at once wait until others end.
#[must_use = "dropping it ends the proxy"]
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl Proxy {
    /// In front of `http://127.0.0.1:PORT`.
    pub fn to(upstream: &str) -> anyhow::Result<Self> {
        Self::at(Ipv4Addr::LOCALHOST, upstream)
    }

    /// The same at another address of this machine, for who is in another network namespace.
    pub fn at(listening: Ipv4Addr, upstream: &str) -> anyhow::Result<Self> {
        Self::start(listening, Upstream { address: address(upstream, "http://")?, tls: None })
    }

    /// In front of `https://127.0.0.1:PORT`, for which one of the certificates in `ca_pem` vouches. The proxy itself speaks plain HTTP.
    pub fn to_tls(upstream: &str, ca_pem: &str) -> anyhow::Result<Self> {
        let upstream = Upstream { address: address(upstream, "https://")?, tls: Some(tls::trusting(ca_pem)?) };
        Self::start(Ipv4Addr::LOCALHOST, upstream)
    }

    fn start(listening: Ipv4Addr, upstream: Upstream) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((listening, 0)).context("a port for a proxy")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(upstream));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("proxy".into()).spawn(move || {
            runtime.block_on(serve::run(listener, serving, stopped));
        })?;
        Ok(Self { shared, address, stop: Some(stop), thread: Some(thread) })
    }

    /// Its address: `http://ADDRESS:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A rule for requests of this method (`*` for any) whose path and query match `pattern`, in which `*` stands for any text. They are
    /// compared as people write them: `%3D` is `=`. Of the rules that match and are not used up the one that was made first acts.
    pub fn on(&self, method: &str, pattern: &str) -> RuleBuilder {
        self.shared.rules.on(method, pattern)
    }

    /// Removes all rules. What hangs is let go: its connection is closed.
    pub fn clear(&self) {
        self.shared.rules.clear();
        self.shared.released.send_modify(|count| *count += 1);
    }

    /// From now on nothing moves on any connection, open or new, and nothing closes: what a network does that lost its way.
    pub fn silence(&self) {
        self.shared.hush.silence();
    }

    /// Ends the silence for connections to come; those that it fell upon stay silent.
    pub fn resume(&self) {
        self.shared.hush.resume();
    }

    /// Closes the connections that are open now.
    pub fn drop_connections(&self) {
        self.shared.dropped.send_modify(|count| *count += 1);
    }

    /// Keeps, from now on, when requests of this method and pattern, as in [`Proxy::on`], arrive and are answered.
    #[must_use]
    pub fn journal(&self, method: &str, pattern: &str) -> Journal {
        self.shared.rules.journal(method, pattern)
    }

    /// How many connections were accepted.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.accepted()
    }

    /// How many requests of this method and pattern, as in [`Proxy::on`], have arrived, whatever became of them. Of 16,384 different
    /// ones each is known; further ones count only for the pattern `*`.
    #[must_use]
    pub fn requests(&self, method: &str, pattern: &str) -> u64 {
        self.shared.rules.requests(method, pattern)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A proxy that panicked has failed the test's requests already.
            let _ = thread.join();
        }
    }
}

fn address(url: &str, scheme: &str) -> anyhow::Result<SocketAddr> {
    let address = url.strip_prefix(scheme).map(|rest| rest.trim_end_matches('/'));
    let address: SocketAddr = address
        .with_context(|| format!("{url} does not begin with {scheme}"))?
        .parse()
        .with_context(|| format!("{url} is not {scheme}ADDRESS:PORT"))?;
    ensure!(address.ip().is_loopback(), "{url} is not on this machine");
    Ok(address)
}

#[cfg(test)]
mod tests;
