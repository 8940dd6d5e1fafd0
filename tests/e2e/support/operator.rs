//! The operator as a process.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use epochwarden_testkit::apiserver::Cluster;
use epochwarden_testkit::process::Process;
use epochwarden_testkit::wait::until;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::bucket::Bucket;
use super::{SOON, cluster};

/// A running operator that works for one namespace.
pub(crate) struct Operator {
    pub(crate) process: Process,
    port: u16,
    _folder: TempDir,
}

impl Operator {
    /// Starts the operator for `namespace` and waits until it is ready.
    pub(crate) async fn start(cluster: &Cluster, namespace: &str, flags: &[&str]) -> anyhow::Result<Self> {
        Self::start_binary(Path::new(env!("CARGO_BIN_EXE_epochwarden")), cluster, namespace, flags).await
    }

    /// Starts the operator for a folder, in a namespace of its own, which it gives.
    pub(crate) async fn on(bucket: &Bucket, prefix: &str) -> anyhow::Result<(String, Self)> {
        let cluster = cluster().await?;
        let namespace = cluster.namespace(prefix).await?;
        let root = bucket.path()?.display().to_string();
        let operator = Self::start(cluster, &namespace, &["--allow-file-root", &root]).await?;
        Ok((namespace, operator))
    }

    /// The same, logging all that there is to log.
    pub(crate) async fn start_talkative(cluster: &Cluster, namespace: &str, flags: &[&str]) -> anyhow::Result<Self> {
        Self::start_with(cluster, namespace, flags, &[("RUST_LOG", "trace")]).await
    }

    /// The same, with these variables in its environment.
    pub(crate) async fn start_with(
        cluster: &Cluster,
        namespace: &str,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let binary = Path::new(env!("CARGO_BIN_EXE_epochwarden"));
        Self::start_process(binary, cluster, namespace, flags, environment).await
    }

    /// The same, with another build of it.
    pub(crate) async fn start_binary(
        binary: &Path,
        cluster: &Cluster,
        namespace: &str,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        Self::start_process(binary, cluster, namespace, flags, &[]).await
    }

    async fn start_process(
        binary: &Path,
        cluster: &Cluster,
        namespace: &str,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let flags = ["--watch-namespace", namespace].into_iter().chain(flags.iter().copied());
        let mut command = Command::new(binary);
        command
            .arg("controller")
            .args(flags)
            .env("KUBECONFIG", cluster.kubeconfig())
            .env("RUST_LOG", "info,epochwarden=debug,epochwarden_store=debug")
            .env_remove("AWS_ACCESS_KEY_ID")
            .envs(environment.iter().copied());
        Self::start_command(command).await
    }

    /// Starts the operator by a command that says all but where it serves, and waits until it is ready.
    pub(crate) async fn start_command(mut command: Command) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        // Free now; a test that loses the race for it sees the operator end with the reason.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        command.args(["--http", &format!("127.0.0.1:{port}")]);
        let process = Process::spawn("epochwarden", &mut command, &folder.path().join("operator.log"))?;
        let mut operator = Self { process, port, _folder: folder };
        let port = operator.port;
        operator
            .process
            .wait_ready(SOON, async || get(port, "/readyz").await.is_ok_and(|(status, _)| status == 200))
            .await?;
        Ok(operator)
    }

    /// Starts one of several for `namespace`: which of them works, the Lease `lease` in the same namespace decides.
    pub(crate) async fn replica(
        cluster: &Cluster,
        namespace: &str,
        flags: &[&str],
        lease: &str,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let elects = format!("--leader-elect={lease}");
        let flags: Vec<_> = flags.iter().copied().chain([elects.as_str()]).collect();
        let environment: Vec<_> =
            [("POD_NAMESPACE", namespace)].into_iter().chain(environment.iter().copied()).collect();
        Self::start_with(cluster, namespace, &flags, &environment).await
    }

    /// Whether it works, by its metrics; an error when it does not answer.
    pub(crate) async fn leads(&self) -> anyhow::Result<bool> {
        let (_, metrics) = self.get("/metrics").await?;
        let gauge = metrics.lines().find_map(|line| line.strip_prefix("epochwarden_leader "));
        Ok(gauge.context("there is no metric epochwarden_leader")?.parse::<f64>()? > 0.0)
    }

    /// Waits until it works.
    pub(crate) async fn wait_to_lead(&self) -> anyhow::Result<()> {
        let leads = until("the operator to lead", SOON, async || self.leads().await.ok()?.then_some(())).await;
        leads.with_context(|| self.log())
    }

    /// Asks it over HTTP: the status and the body.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        get(self.port, path).await
    }

    /// Begins a request and leaves it open.
    pub(crate) async fn begin_request(&self) -> anyhow::Result<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: local").await?;
        Ok(stream)
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) async fn terminate(mut self, deadline: Duration) -> anyhow::Result<std::process::ExitStatus> {
        self.process.signal("TERM")?;
        self.process.wait_exit(deadline).await
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }
}

async fn get(port: u16, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split_whitespace().nth(1).context("an answer without a status")?.parse()?;
    let (_, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
    ensure!(!answer.is_empty());
    Ok((status, body.to_owned()))
}
