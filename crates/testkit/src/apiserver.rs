//! A real Kubernetes API server over a real etcd, for as long as a test needs it.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::process::{Process, read_log};
use crate::{ports, tools, watchdog};

/// Both servers are ready in about two seconds; a machine that also compiles takes longer.
const READY: Duration = Duration::from_mins(2);

/// An API server with everything but controllers and nodes: custom resources with their rules, RBAC, tokens of service accounts,
/// server-side apply, watches, Leases, Events. What it has no controllers for stays as it was written: a deleted namespace
/// remains `Terminating`, and a Deployment has no pods.
///
/// It belongs to no async runtime: one test may start it and others, each on a runtime of its own, use it.
pub struct Cluster {
    // In the order in which they go: the API server, its store, the files of both.
    apiserver: Mutex<Option<Process>>,
    etcd: Process,
    folder: TempDir,
    etcd_url: String,
    port: u16,
    admin_token: String,
    kubectl: PathBuf,
    /// Variables of the API server's environment, beside those of this process.
    environment: Vec<(String, String)>,
}

/// How a command ended, and what it said.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl Cluster {
    /// The one cluster of this process, started by whoever asks first. A test that needs quiet takes a [`Cluster::namespace`]
    /// in it; a test that stops the API server starts a cluster of its own.
    pub async fn shared() -> anyhow::Result<&'static Self> {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// Starts a cluster: etcd and the API server on free ports of 127.0.0.1, with their files in a temporary folder.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// The same, with variables in the environment of the API server.
    pub async fn start_with(environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        ports::with_others_on_failure("a cluster", async || Self::start_once(environment).await).await
    }

    async fn start_once(environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let folder = watchdog::temp_dir()?;
        let (etcd, etcd_url) = start_etcd(folder.path()).await?;
        let admin_token = tools::random_hex()?;
        tools::output(
            Command::new("openssl").args(["genrsa", "-out"]).arg(folder.path().join("accounts.key")).arg("2048"),
        )?;
        write(&folder.path().join("tokens.csv"), &format!("{admin_token},admin,admin,system:masters\n"))?;
        let cluster = Self {
            apiserver: Mutex::new(None),
            etcd,
            folder,
            etcd_url,
            port: ports::free()?,
            admin_token,
            kubectl: tools::binary("kubectl")?,
            environment: environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
        };
        cluster.write_kubeconfig(&cluster.kubeconfig(), "admin", &cluster.admin_token)?;
        cluster.start_apiserver().await?;
        Ok(cluster)
    }

    /// The API server's address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The bearer token of a user in `system:masters`.
    #[must_use]
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// The certificate that vouches for the API server, as PEM.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificates/apiserver.crt")
    }

    /// A kubeconfig of the administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// A kubeconfig for the bearer of `token`, who is called `name` in it and in the file's name.
    pub fn kubeconfig_for(&self, name: &str, token: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join(format!("kubeconfig-{name}"));
        self.write_kubeconfig(&path, name, token)?;
        Ok(path)
    }

    /// The same, leading to `url`: a proxy in front of the API server. Over plain HTTP no certificate is asked for.
    pub fn kubeconfig_at(&self, name: &str, token: &str, url: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join(format!("kubeconfig-{name}"));
        self.write_kubeconfig_at(&path, name, token, url)?;
        Ok(path)
    }

    /// A new client of the administrator. It belongs to the runtime that it is made on: each test makes its own.
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// Creates a namespace that no other test has, and returns its name: `prefix` and a number.
    pub async fn namespace(&self, prefix: &str) -> anyhow::Result<String> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let namespace = Namespace {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        let namespaces: Api<Namespace> = Api::all(self.client().await?);
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .with_context(|| format!("creating namespace {name}"))?;
        Ok(name)
    }

    /// Runs kubectl as the administrator. That it ran is no promise that it succeeded: see [`Output::status`].
    pub async fn kubectl<A: AsRef<OsStr>>(&self, args: &[A]) -> anyhow::Result<Output> {
        self.kubectl_stdin(args, "").await
    }

    /// The same, with `input` on its standard input, for `-f -`.
    pub async fn kubectl_stdin<A: AsRef<OsStr>>(&self, args: &[A], input: &str) -> anyhow::Result<Output> {
        let mut command = self.kubectl_command(args);
        let input = input.to_owned();
        tokio::task::spawn_blocking(move || run(&mut command, &input)).await?
    }

    /// Starts kubectl as the administrator and lets it run, for what watches. What it prints is the process's log.
    pub fn kubectl_process<A: AsRef<OsStr>>(&self, args: &[A], log: &Path) -> anyhow::Result<Process> {
        Process::spawn("kubectl", &mut self.kubectl_command(args), log)
    }

    fn kubectl_command<A: AsRef<OsStr>>(&self, args: &[A]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .arg("--cache-dir")
            .arg(self.folder.path().join("kubectl-cache"))
            .args(args)
            .env("HOME", self.folder.path())
            .env_remove("KUBECONFIG");
        command
    }

    /// Ends the API server and leaves its store and files: to clients, the cluster is away.
    pub fn stop_apiserver(&self) -> anyhow::Result<()> {
        let running = self.apiserver.lock().unwrap_or_else(PoisonError::into_inner).take();
        running.map_or(Ok(()), |mut apiserver| apiserver.kill())
    }

    /// Starts the API server again after [`Cluster::stop_apiserver`], with the same address, certificate and data, and waits
    /// until it is ready.
    pub async fn start_apiserver(&self) -> anyhow::Result<()> {
        let folder = self.folder.path();
        let mut command = Command::new(tools::binary("kube-apiserver")?);
        command
            .arg(format!("--etcd-servers={}", self.etcd_url))
            .args(["--bind-address=127.0.0.1", &format!("--secure-port={}", self.port)])
            // On the loopback interface there is no address to announce as the endpoint of the kubernetes service.
            .arg("--endpoint-reconciler-type=none")
            .arg("--service-cluster-ip-range=10.0.0.0/24")
            .args(["--authorization-mode=RBAC", "--anonymous-auth=false", "--profiling=false"])
            .arg(format!("--cert-dir={}", self.certificate().with_file_name("").display()))
            .arg(format!("--token-auth-file={}", folder.join("tokens.csv").display()))
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(format!("--service-account-key-file={}", folder.join("accounts.key").display()))
            .arg(format!("--service-account-signing-key-file={}", folder.join("accounts.key").display()))
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut apiserver = Process::spawn("kube-apiserver", &mut command, &folder.join("kube-apiserver.log"))?;
        apiserver
            .wait_ready(READY, async || {
                let ready = self.kubectl(&["get", "--raw=/readyz", "--request-timeout=5s"]).await;
                ready.is_ok_and(|output| output.status.success())
            })
            .await?;
        *self.apiserver.lock().unwrap_or_else(PoisonError::into_inner) = Some(apiserver);
        Ok(())
    }

    /// The ids of the API server, while it runs, and of etcd.
    #[must_use]
    pub fn process_ids(&self) -> Vec<u32> {
        let apiserver = self.apiserver.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Process::id);
        apiserver.into_iter().chain([self.etcd.id()]).collect()
    }

    fn write_kubeconfig(&self, path: &Path, user: &str, token: &str) -> anyhow::Result<()> {
        self.write_kubeconfig_at(path, user, token, &self.url())
    }

    fn write_kubeconfig_at(&self, path: &Path, user: &str, token: &str, url: &str) -> anyhow::Result<()> {
        let content = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "test",
                "cluster": { "server": url, "certificate-authority": self.certificate() },
            }],
            "users": [{ "name": user, "user": { "token": token } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": user } }],
            "current-context": "test",
        });
        // JSON is YAML.
        write(path, &format!("{content:#}\n"))
    }
}

pub(crate) async fn start_etcd(folder: &Path) -> anyhow::Result<(Process, String)> {
    let client = format!("http://127.0.0.1:{}", ports::free()?);
    let peer = format!("http://127.0.0.1:{}", ports::free()?);
    let mut command = Command::new(tools::binary("etcd")?);
    command
        .arg(format!("--data-dir={}", folder.join("etcd").display()))
        .arg(format!("--listen-client-urls={client}"))
        .arg(format!("--advertise-client-urls={client}"))
        .arg(format!("--listen-peer-urls={peer}"))
        .arg(format!("--initial-advertise-peer-urls={peer}"))
        .arg(format!("--initial-cluster=default={peer}"))
        // Nothing here is worth surviving a power cut.
        .arg("--unsafe-no-fsync");
    let mut etcd = Process::spawn("etcd", &mut command, &folder.join("etcd.log"))?;
    // Its own log is the evidence: on a port that was snatched away some other server would answer.
    let log = folder.join("etcd.log");
    etcd.wait_ready(READY, async || read_log(&log).contains("ready to serve client requests")).await?;
    Ok((etcd, client))
}

pub(crate) fn run(command: &mut Command, input: &str) -> anyhow::Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that ends without reading its input says why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    Ok(Output {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}
