//! A server of Azure blobs.

use std::fmt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::process::Process;
use crate::{ports, tools, watchdog};

const READY: Duration = Duration::from_mins(1);

const ACCOUNT: &str = "epochwarden";

/// The version of the service that signatures of [`Azurite::create_container`] are made for.
const VERSION: &str = "2021-12-02";

/// Azurite's blob service on a free port of 127.0.0.1: plain HTTP, one account with one key, everything in its memory.
///
/// Its listings with a delimiter cut folders after the delimiter's first character. `make conformance` fetches it; it needs Node.js.
pub struct Azurite {
    // The server goes before its files.
    server: Process,
    _folder: TempDir,
    port: u16,
    key: String,
    /// Signed once: query parameters that allow everything in this account.
    signature: String,
}

impl fmt::Debug for Azurite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Azurite").field("endpoint", &self.endpoint()).finish_non_exhaustive()
    }
}

impl Azurite {
    /// The one server of this process, started by whoever asks first. Tests keep apart by container.
    pub async fn shared() -> anyhow::Result<&'static Self> {
        static SHARED: OnceCell<Azurite> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// Starts a server with no container in it.
    pub async fn start() -> anyhow::Result<Self> {
        ports::with_others_on_failure("Azurite", async || Self::start_once().await).await
    }

    async fn start_once() -> anyhow::Result<Self> {
        let folder = watchdog::temp_dir()?;
        let port = ports::free()?;
        let hex = tools::random_hex()?;
        let key = tools::filter("openssl", &["base64", "-A"], hex.as_bytes())?;
        let key = String::from_utf8(key)?.trim_end().to_owned();
        let mut command = Command::new(tools::extra("azurite-blob")?);
        command
            .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
            // A connection that it closes while a request is on its way to it fails that request.
            .args(["--blobKeepAliveTimeout", "3600"])
            .args(["--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--disableProductStyleUrl"])
            // It would tell its makers how it is used.
            .arg("--disableTelemetry")
            .current_dir(folder.path())
            .env("HOME", folder.path())
            .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{key}"));
        let mut server = Process::spawn("azurite-blob", &mut command, &folder.path().join("azurite.log"))?;
        server.wait_ready(READY, async || TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await?;
        let signature = account_signature(&hex)?;
        Ok(Self { server, _folder: folder, port, key, signature })
    }

    /// The server's address, account and all.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{ACCOUNT}", self.port)
    }

    /// What a client needs beside the container, as the option names of `object_store`.
    #[must_use]
    pub fn options(&self) -> Vec<(String, String)> {
        [
            ("azure_storage_endpoint", self.endpoint()),
            ("azure_storage_account_name", ACCOUNT.to_owned()),
            ("azure_storage_account_key", self.key.clone()),
            ("allow_http", "true".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Creates a container; one that is there already is an error.
    pub async fn create_container(&self, name: &str) -> anyhow::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let request = format!(
            "PUT /{ACCOUNT}/{name}?restype=container&{} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nx-ms-version: {VERSION}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n",
            self.signature, self.port
        );
        stream.write_all(request.as_bytes()).await?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await?;
        let response = String::from_utf8_lossy(&response);
        ensure!(response.starts_with("HTTP/1.1 201 "), "creating container {name}: {response}");
        Ok(())
    }

    /// The id of the server.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.server.id()
    }
}

/// The query parameters of an account's shared access signature (learn.microsoft.com, "Create an account SAS"): blobs, on all levels, for
/// long. `secret` is the account's key, each of its bytes as a character.
fn account_signature(secret: &str) -> anyhow::Result<String> {
    const EXPIRY: &str = "2099-01-01T00:00:00Z";
    let signed = [ACCOUNT, "rwdlac", "b", "sco", "", EXPIRY, "", "http,https", VERSION, "", ""].join("\n");
    let option = format!("hexkey:{}", tools::hex(secret.as_bytes()));
    let digest = ["dgst", "-sha256", "-mac", "HMAC", "-macopt", &option, "-binary"];
    let signature = tools::filter("openssl", &digest, signed.as_bytes()).context("signing")?;
    let signature = String::from_utf8(tools::filter("openssl", &["base64", "-A"], &signature)?)?;
    let signature = signature.trim_end().replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    Ok(format!(
        "sv={VERSION}&ss=b&srt=sco&sp=rwdlac&se={}&spr=http%2Chttps&sig={signature}",
        EXPIRY.replace(':', "%3A")
    ))
}
