//! Object stores of this process's own memory, over HTTP: one that speaks S3, one that answers as Google documents its XML API.
//!
//! They answer the requests that the product's clients make and refuse every other with 501, so that nothing is taken for done that was
//! not. They believe every signature.
//!
//! ```no_run
//! use epochwarden_testkit::memory::MemoryServer;
//!
//! # fn main() -> anyhow::Result<()> {
//! let server = MemoryServer::s3()?;
//! server.create_bucket("state")?;
//! for number in 0..1_000_000 {
//!     server.put("state", &format!("epoch=1/app/{number}"), "x")?;
//! }
//! // ... requests to server.url(), by a client with server.options() ...
//! assert_eq!(server.objects("state"), 1_000_000);
//! # Ok(())
//! # }
//! ```

mod gcs;
mod http;
mod objects;
mod s3;
mod xml;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use tokio::sync::oneshot;

use http::{Dialect, Shared};

/// An object store on a free port of 127.0.0.1, gone with this value. It runs on a thread of its own.
///
/// Every write is visible to every later request. Objects are dated by a clock that starts at the same instant on every server and goes
/// on by a millisecond at each write, so the same writes give the same dates, whenever they are made.
#[must_use = "dropping it ends the server"]
pub struct MemoryServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for MemoryServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryServer").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl MemoryServer {
    /// One that speaks S3, as [`MemoryServer::options`] configures its client: listings of the second version with any delimiter,
    /// create-only writes, reads, deletes of one key and of many. An object's `ETag` is the MD5 of its body, its time in whole seconds.
    pub fn s3() -> anyhow::Result<Self> {
        Self::start(Dialect::S3)
    }

    /// One that answers as Google documents its XML API; no emulator that could be had takes the requests of `object_store`'s client.
    pub fn gcs() -> anyhow::Result<Self> {
        Self::start(Dialect::Gcs)
    }

    fn start(dialect: Dialect) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a port for a store in memory")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(dialect));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("memory-server".into()).spawn(move || {
            runtime.block_on(http::run(listener, serving, stopped));
        })?;
        Ok(Self { shared, address, stop: Some(stop), thread: Some(thread) })
    }

    /// Its address: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What a client needs beside the bucket, as the option names of `object_store`.
    #[must_use]
    pub fn options(&self) -> Vec<(String, String)> {
        let url = self.url();
        let options: &[(&str, &str)] = match self.shared.dialect {
            Dialect::S3 => &[
                ("aws_endpoint", &url),
                ("aws_region", "us-east-1"),
                ("aws_skip_signature", "true"),
                ("aws_allow_http", "true"),
            ],
            Dialect::Gcs => &[("google_base_url", &url), ("google_skip_signature", "true"), ("allow_http", "true")],
        };
        options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// Creates a bucket; one that is there already is an error.
    pub fn create_bucket(&self, name: &str) -> anyhow::Result<()> {
        ensure!(self.shared.buckets().create(name), "there is a bucket {name} already");
        Ok(())
    }

    /// Writes an object without a request, whatever stands there: for tests that want many.
    pub fn put(&self, bucket: &str, key: &str, body: impl Into<Bytes>) -> anyhow::Result<()> {
        let mut buckets = self.shared.buckets();
        buckets.put(bucket, key, body.into()).with_context(|| format!("there is no bucket {bucket}"))?;
        Ok(())
    }

    /// How many objects a bucket holds; 0 when there is none.
    #[must_use]
    pub fn objects(&self, bucket: &str) -> usize {
        self.shared.buckets().get(bucket).map_or(0, objects::Objects::len)
    }

    /// From now on each request is answered that much later. It waits before it acts.
    pub fn set_latency(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.shared.latency_micros.store(micros, Ordering::SeqCst);
    }

    /// How many requests were answered.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }
}

impl Drop for MemoryServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A server that panicked has failed the test's requests already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
