//! A real S3 server over a temporary folder.

use std::fmt;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::process::Process;
use crate::{ports, tls, tools, watchdog};

const READY: Duration = Duration::from_mins(1);

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// versitygw on a free port of 127.0.0.1: path-style requests, plain HTTP unless asked for TLS, region `us-east-1`, one user who may do
/// everything.
/// Conditional writes are exact: of many racing creates of a key one wins and the others are refused.
///
/// It belongs to no async runtime: one test may start it and others, each on a runtime of its own, use it.
pub struct S3Server {
    // The server goes before its files.
    server: Process,
    folder: TempDir,
    address: Ipv4Addr,
    port: u16,
    keys: Keys,
    authority: Option<String>,
}

/// What the one user has.
struct Keys {
    access: String,
    secret: String,
}

impl Keys {
    fn random() -> anyhow::Result<Self> {
        Ok(Self { access: tools::random_hex()?, secret: tools::random_hex()? })
    }
}

impl fmt::Debug for S3Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Server").field("endpoint", &self.endpoint()).finish_non_exhaustive()
    }
}

impl S3Server {
    /// The one server of this process, started by whoever asks first. Tests keep apart by bucket.
    pub async fn shared() -> anyhow::Result<&'static Self> {
        static SHARED: OnceCell<S3Server> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// Starts a server with no bucket in it.
    pub async fn start() -> anyhow::Result<Self> {
        ports::with_others_on_failure("an S3 server", async || Self::start_once(false, Ipv4Addr::LOCALHOST).await).await
    }

    /// Starts a server with no bucket in it that listens at another address of this machine, for who is in another network namespace.
    pub async fn start_at(address: Ipv4Addr) -> anyhow::Result<Self> {
        ports::with_others_on_failure("an S3 server", async || Self::start_once(false, address).await).await
    }

    /// Starts a server with no bucket in it that speaks TLS, with a certificate of an authority that nobody knows but for
    /// [`S3Server::ca`].
    pub async fn with_tls() -> anyhow::Result<Self> {
        ports::with_others_on_failure("an S3 server with TLS", async || {
            Self::start_once(true, Ipv4Addr::LOCALHOST).await
        })
        .await
    }

    async fn start_once(secure: bool, address: Ipv4Addr) -> anyhow::Result<Self> {
        let folder = watchdog::temp_dir()?;
        let port = ports::free()?;
        fs::create_dir(folder.path().join("buckets"))?;
        let authority = if secure { Some(write_certificate(folder.path())?) } else { None };
        let keys = Keys::random()?;
        let server = launch(folder.path(), (address, port), &keys, authority.as_deref()).await?;
        Ok(Self { server, folder, address, port, keys, authority })
    }

    /// Starts it anew with other keys, at the same address and with the same buckets. Whoever comes with the old keys is refused from now
    /// on.
    pub async fn change_keys(&mut self) -> anyhow::Result<()> {
        self.server.kill()?;
        self.keys = Keys::random()?;
        let at = (self.address, self.port);
        self.server = launch(self.folder.path(), at, &self.keys, self.authority.as_deref()).await?;
        Ok(())
    }

    /// The server's address.
    #[must_use]
    pub fn endpoint(&self) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.address, self.port)
    }

    /// The certificate of the authority that vouches for a server with TLS, as PEM.
    #[must_use]
    pub fn ca(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// The access key id of the one user.
    #[must_use]
    pub fn access_key(&self) -> &str {
        &self.keys.access
    }

    /// The secret access key of the one user.
    #[must_use]
    pub fn secret_key(&self) -> &str {
        &self.keys.secret
    }

    /// What a client needs beside the bucket, as the option names of `object_store`.
    #[must_use]
    pub fn options(&self) -> Vec<(String, String)> {
        [
            ("aws_endpoint", self.endpoint()),
            ("aws_region", "us-east-1".to_owned()),
            ("aws_access_key_id", self.keys.access.clone()),
            ("aws_secret_access_key", self.keys.secret.clone()),
            ("aws_allow_http", "true".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Creates a bucket; one that is there already is an error. A folder is all that a bucket is to this server.
    pub fn create_bucket(&self, name: &str) -> anyhow::Result<()> {
        let bucket = self.bucket_folder(name);
        fs::create_dir(&bucket).with_context(|| format!("creating bucket {name}"))
    }

    /// Where the objects of a bucket lie as files, for a test that wants to look or meddle behind the server's back.
    #[must_use]
    pub fn bucket_folder(&self, name: &str) -> PathBuf {
        self.folder.path().join("buckets").join(name)
    }

    /// The id of the server.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.server.id()
    }
}

/// Starts the program over the folder `buckets` in `folder`, and waits until it answers.
async fn launch(
    folder: &Path,
    (address, port): (Ipv4Addr, u16),
    keys: &Keys,
    authority: Option<&str>,
) -> anyhow::Result<Process> {
    // Only the server that was started here answers on a path that nobody else knows.
    let health = format!("/health-{}", tools::random_hex()?);
    let mut command = Command::new(tools::binary("versitygw")?);
    command
        .args(["--port", &format!("{address}:{port}"), "--region", "us-east-1", "--health", &health])
        .args(["--keep-alive", "--quiet"])
        .env("ROOT_ACCESS_KEY_ID", &keys.access)
        .env("ROOT_SECRET_ACCESS_KEY", &keys.secret);
    if authority.is_some() {
        command.arg("--cert").arg(folder.join(CERTIFICATE)).arg("--key").arg(folder.join(KEY));
    }
    command.arg("posix").arg(folder.join("buckets"));
    let mut server = Process::spawn("versitygw", &mut command, &folder.join("versitygw.log"))?;
    let ready = async || answers(address, port, &health, authority).await.unwrap_or(false);
    server.wait_ready(READY, ready).await?;
    Ok(server)
}

/// Writes a certificate and its key, and returns the authority that vouches for it.
fn write_certificate(folder: &Path) -> anyhow::Result<String> {
    let certified = tls::certify()?;
    fs::write(folder.join(CERTIFICATE), certified.certificate)?;
    fs::write(folder.join(KEY), certified.key)?;
    Ok(certified.authority)
}

async fn answers(address: Ipv4Addr, port: u16, path: &str, authority: Option<&str>) -> anyhow::Result<bool> {
    let stream = TcpStream::connect((address, port)).await?;
    match authority {
        None => is_ok(stream, port, path).await,
        Some(pem) => {
            let name = ServerName::from(std::net::IpAddr::from([127, 0, 0, 1]));
            is_ok(tls::trusting(pem)?.connect(name, stream).await?, port, path).await
        }
    }
}

async fn is_ok(mut stream: impl AsyncRead + AsyncWrite + Unpin, port: u16, path: &str) -> anyhow::Result<bool> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    // What comes after the answer, as a connection that ends without a farewell, does not matter.
    let _ = stream.read_to_end(&mut response).await;
    Ok(response.starts_with(b"HTTP/1.1 200 "))
}
