//! An S3 server with users whose keys a test can hand out and revoke.

use std::net::TcpListener;
use std::process::Command;

use anyhow::ensure;
use epochwarden_testkit::process::Process;
use epochwarden_testkit::tools;
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::SOON;
use super::bucket::Bucket;

/// The server, and the one user who may make others.
const ROOT: (&str, &str) = ("the-root-user", "the-root-secret");

/// The secret of every user.
const SECRET: &str = "a-secret-of-a-test";

/// An S3 server with users.
pub(crate) struct Users {
    // The server goes before its files.
    _server: Process,
    folder: TempDir,
    port: u16,
}

impl Users {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (buckets, users) = (folder.path().join("buckets"), folder.path().join("users"));
        std::fs::create_dir(&buckets)?;
        std::fs::create_dir(&users)?;
        // Free now; a test that loses the race for it sees the server end with the reason.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(tools::binary("versitygw")?);
        command
            .args(["--port", &format!("127.0.0.1:{port}"), "--region", "us-east-1", "--keep-alive", "--quiet"])
            // A key that is revoked is refused from the next request on.
            .args(["--iam-cache-disable", "--iam-dir"])
            .arg(&users)
            .arg("posix")
            .arg(&buckets)
            .env("ROOT_ACCESS_KEY_ID", ROOT.0)
            .env("ROOT_SECRET_ACCESS_KEY", ROOT.1);
        let mut server = Process::spawn("versitygw", &mut command, &folder.path().join("versitygw.log"))?;
        server.wait_ready(SOON, async || TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await?;
        Ok(Self { _server: server, folder, port })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A new bucket, with the key of the root user: for the test's own eyes.
    pub(crate) fn bucket(&self, name: &str) -> anyhow::Result<Bucket> {
        std::fs::create_dir(self.folder.path().join("buckets").join(name))?;
        let options = [
            ("aws_endpoint", self.url().as_str()),
            ("aws_region", "us-east-1"),
            ("aws_access_key_id", ROOT.0),
            ("aws_secret_access_key", ROOT.1),
            ("aws_allow_http", "true"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
        Bucket::at(&format!("s3://{name}/state"), options.into())
    }

    /// Makes a user who may do everything, and gives the entries of a Secret with this user's key.
    pub(crate) fn add<'a>(&self, user: &'a str) -> anyhow::Result<[(&'a str, &'a str); 2]> {
        self.admin(&["create-user", "--access", user, "--secret", SECRET, "--role", "admin"])?;
        Ok([("aws_access_key_id", user), ("aws_secret_access_key", SECRET)])
    }

    /// From now on the server knows no such user.
    pub(crate) fn revoke(&self, user: &str) -> anyhow::Result<()> {
        self.admin(&["delete-user", "--access", user])
    }

    fn admin(&self, args: &[&str]) -> anyhow::Result<()> {
        let output = Command::new(tools::binary("versitygw")?)
            .args(["admin", "--access", ROOT.0, "--secret", ROOT.1, "--region", "us-east-1"])
            .args(["--endpoint-url", &self.url()])
            .args(args)
            .output()?;
        ensure!(output.status.success(), "versitygw admin {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}
