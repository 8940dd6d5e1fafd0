//! A real S3 server of another make.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::process::Process;
use crate::{ports, tools, watchdog};

const READY: Duration = Duration::from_mins(1);

/// `MinIO` on a free port of 127.0.0.1: plain HTTP, region `us-east-1`, one user who may do everything.
///
/// Its listings with a delimiter of several characters repeat a page for ever. `make conformance` builds it.
pub struct Minio {
    // The server goes before its files.
    server: Process,
    folder: TempDir,
    port: u16,
    user: String,
    password: String,
}

impl fmt::Debug for Minio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minio").field("endpoint", &self.endpoint()).finish_non_exhaustive()
    }
}

impl Minio {
    /// The one server of this process, started by whoever asks first. Tests keep apart by bucket.
    pub async fn shared() -> anyhow::Result<&'static Self> {
        static SHARED: OnceCell<Minio> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// Starts a server with no bucket in it.
    pub async fn start() -> anyhow::Result<Self> {
        ports::with_others_on_failure("MinIO", async || Self::start_once().await).await
    }

    async fn start_once() -> anyhow::Result<Self> {
        let folder = watchdog::temp_dir()?;
        let port = ports::free()?;
        let (user, password) = (tools::random_hex()?, tools::random_hex()?);
        let buckets = folder.path().join("buckets");
        fs::create_dir(&buckets)?;
        let mut command = Command::new(tools::extra("minio")?);
        command
            .args(["server", "--quiet", "--json", "--address", &format!("127.0.0.1:{port}")])
            .arg("--certs-dir")
            .arg(folder.path().join("certs"))
            .arg(&buckets)
            // It looks for settings and certificates there.
            .env("HOME", folder.path())
            .env("MINIO_ROOT_USER", &user)
            .env("MINIO_ROOT_PASSWORD", &password)
            .env("MINIO_BROWSER", "off")
            // It would ask its makers for a newer version.
            .env("MINIO_UPDATE", "off");
        let mut server = Process::spawn("minio", &mut command, &folder.path().join("minio.log"))?;
        server.wait_ready(READY, async || is_ready(port).await.unwrap_or(false)).await?;
        Ok(Self { server, folder, port, user, password })
    }

    /// The server's address.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What a client needs beside the bucket, as the option names of `object_store`.
    #[must_use]
    pub fn options(&self) -> Vec<(String, String)> {
        [
            ("aws_endpoint", self.endpoint()),
            ("aws_region", "us-east-1".to_owned()),
            ("aws_access_key_id", self.user.clone()),
            ("aws_secret_access_key", self.password.clone()),
            ("aws_allow_http", "true".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Creates a bucket; one that is there already is an error. A folder is all that a bucket is to this server.
    pub fn create_bucket(&self, name: &str) -> anyhow::Result<()> {
        let bucket = self.buckets().join(name);
        fs::create_dir(&bucket).with_context(|| format!("creating bucket {name}"))
    }

    fn buckets(&self) -> std::path::PathBuf {
        Path::join(self.folder.path(), "buckets")
    }

    /// The id of the server.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.server.id()
    }
}

async fn is_ready(port: u16) -> anyhow::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET /minio/health/ready HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await?;
    Ok(response.starts_with(b"HTTP/1.1 200 "))
}
