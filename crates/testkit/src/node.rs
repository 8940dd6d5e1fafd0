//! A real Kubernetes of one node: its pods run, from images, as users have it.
//!
//! Everything of a node lives in namespaces of its own: a network that leads nowhere, mounts and process ids that nobody else sees. The
//! test is in there too, see [`isolated`], so it reaches servers and pods as they reach each other. When the test ends, or is
//! killed, the kernel ends and unmounts all of it.

mod config;
mod image;
mod namespaces;

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};

pub use self::image::{Image, compile, libraries};
use self::namespaces::folder;
pub use self::namespaces::{NODE_ADDRESS, isolated};
use crate::apiserver::{self, Output};
use crate::process::{Process, read_log};
use crate::{tools, wait};

/// A node is Ready in less than ten seconds; a machine that also compiles takes longer.
const READY: Duration = Duration::from_mins(3);

/// The reference of the image in which a pod's namespaces are held.
const PAUSE: &str = "localhost/pause:dev";

/// Where the kubelet keeps what pods write.
const LOGS: &str = "/var/log/pods";

/// What holds them: a program that does nothing.
const PAUSE_SOURCE: &str = "fn main() { loop { std::thread::park(); } }";

/// A cluster of one node: etcd, API server, controllers, scheduler, containerd and kubelet. Images come from [`Node::import`] and are never
/// pulled: pods ask for `imagePullPolicy: Never`. There is no cluster DNS and no proxy for Services but the API server's own.
pub struct Node {
    // In the order in which they go.
    _kubelet: Process,
    _scheduler: Process,
    _controllers: Process,
    _containerd: Process,
    _apiserver: Process,
    _etcd: Process,
    folder: PathBuf,
    kubectl: PathBuf,
    ctr: PathBuf,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Node {
    /// Starts everything and waits until the node is Ready and pods may be made. Only inside of [`isolated`], and only once there.
    pub async fn start() -> anyhow::Result<Self> {
        let folder = folder()?.join("node");
        fs::create_dir(&folder).context("making the folder of the node")?;
        config::write_all(&folder)?;
        let containerd = start_containerd(&folder).await?;
        let (etcd, apiserver) = start_apiserver(&folder).await?;
        let (kubectl, ctr) = (tools::binary("kubectl")?, tools::extra("ctr")?);
        let spawn = |name: &str, arguments: Vec<String>| {
            let mut command = Command::new(tools::extra(name)?);
            Process::spawn(name, command.args(arguments), &folder.join(format!("{name}.log")))
        };
        let node = Self {
            _kubelet: spawn("kubelet", config::kubelet(&folder))?,
            _scheduler: spawn("kube-scheduler", config::scheduler(&folder))?,
            _controllers: spawn("kube-controller-manager", config::controllers(&folder))?,
            _containerd: containerd,
            _apiserver: apiserver,
            _etcd: etcd,
            folder,
            kubectl,
            ctr,
        };
        node.import_pause()?;
        node.wait_ready().await?;
        Ok(node)
    }

    /// A kubeconfig of the administrator, for inside of [`isolated`].
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// A new client of the administrator.
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// A folder of the node, for the files of a test.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes an image known to the node, from an archive in OCI's layout.
    pub fn import(&self, archive: &Path) -> anyhow::Result<()> {
        let import = ["--namespace", "k8s.io", "images", "import", "--all-platforms"];
        tools::output(Command::new(&self.ctr).args(import).arg(archive)).context("importing an image").map(drop)
    }

    /// Gives an image that the node knows another name as well.
    pub fn tag(&self, image: &str, name: &str) -> anyhow::Result<()> {
        let tag = ["--namespace", "k8s.io", "images", "tag", image, name];
        tools::output(Command::new(&self.ctr).args(tag)).context("naming an image").map(drop)
    }

    /// What the pods of a namespace have written so far, one file for each start of a container. A file goes with its pod; who has opened
    /// it before reads it to its end all the same. Lines begin with the time, the stream and a tag.
    pub fn logs(&self, namespace: &str) -> anyhow::Result<Vec<PathBuf>> {
        let pods = entries(Path::new(LOGS))?.into_iter().filter(|pod| {
            pod.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with(&format!("{namespace}_")))
        });
        let mut files = Vec::new();
        for container in pods.map(|pod| entries(&pod)).collect::<anyhow::Result<Vec<_>>>()?.concat() {
            files.extend(entries(&container)?);
        }
        Ok(files)
    }

    /// Kills what runs in a pod, as a machine that dies does: no signal before, no farewell; and waits until it has gone. The process is
    /// known by the variable `POD_NAME` in its environment. In the namespaces of [`isolated`] there are no processes but the test's own.
    pub async fn kill_pod(&self, name: &str) -> anyhow::Result<()> {
        let variable = format!("POD_NAME={name}");
        let is_it = |process: &Path| {
            let variables = fs::read(process.join("environ")).unwrap_or_default();
            variables.split(|byte| *byte == 0).any(|of| of == variable.as_bytes())
        };
        let found = entries(Path::new("/proc"))?.into_iter().find(|process| is_it(process));
        let found = found.with_context(|| format!("no process has {variable}"))?;
        let id = found.file_name().and_then(OsStr::to_str).context("a process has no number")?;
        tools::output(Command::new("sh").args(["-c", r#"kill -s KILL "$0""#, id]))?;
        // One that has ended has no environment, also where it was not waited for yet.
        wait::until("the process has gone", READY, async || (!is_it(&found)).then_some(())).await
    }

    /// Runs kubectl as the administrator, with `input` on its standard input. That it ran is no promise that it succeeded: see
    /// [`Output::status`].
    pub async fn kubectl<A: AsRef<OsStr>>(&self, args: &[A], input: &str) -> anyhow::Result<Output> {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(args).env("HOME", &self.folder);
        let input = input.to_owned();
        tokio::task::spawn_blocking(move || apiserver::run(&mut command, &input)).await?
    }

    /// What kubectl printed; an error with its complaint when it did not succeed.
    pub async fn told<A: AsRef<OsStr>>(&self, args: &[A], input: &str) -> anyhow::Result<String> {
        let output = self.kubectl(args, input).await?;
        ensure!(output.status.success(), "kubectl: {}", output.stderr);
        Ok(output.stdout)
    }

    /// The end of each server's log, for who asks why something did not come.
    #[must_use]
    pub fn evidence(&self) -> String {
        let servers = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "containerd", "kubelet"];
        let last = |server: &str| {
            let log = read_log(&self.folder.join(format!("{server}.log")));
            let lines: Vec<&str> = log.lines().collect();
            let (_, end) = lines.split_at(lines.len().saturating_sub(25));
            format!("{server}:\n{}\n", end.join("\n"))
        };
        servers.map(last).concat()
    }

    fn import_pause(&self) -> anyhow::Result<()> {
        let program = compile(&self.folder, "pause", PAUSE_SOURCE)?;
        let archive = Image { reference: PAUSE, program: &program, files: &[] }.write(&self.folder)?;
        self.import(&archive)
    }

    async fn wait_ready(&self) -> anyhow::Result<()> {
        let ready = async || {
            let node = ["get", "node", "node", "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}"];
            // Pods can be made once the controllers have given their namespace its account and the authority to trust.
            let account = ["--namespace", "default", "get", "serviceaccount/default", "configmap/kube-root-ca.crt"];
            let is_ready = self.told(&node, "").await.is_ok_and(|status| status == "True");
            let taints = ["get", "node", "node", "-o", "jsonpath={.spec.taints}"];
            (is_ready
                && self.told(&account, "").await.is_ok()
                && self.told(&taints, "").await.is_ok_and(|taints| taints.is_empty()))
            .then_some(())
        };
        wait::until("the node is Ready", READY, ready).await.with_context(|| self.evidence())
    }
}

/// What is in a folder; nothing where it has gone.
fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", folder.display())),
    }
}

async fn start_containerd(folder: &Path) -> anyhow::Result<Process> {
    let program = tools::extra("containerd")?;
    let path = [program.parent().map(Path::to_path_buf), tools::extra("runc")?.parent().map(Path::to_path_buf)];
    let system = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(path.into_iter().flatten().chain(std::env::split_paths(&system)))?;
    let mut command = Command::new(program);
    command.arg("--config").arg(folder.join("containerd.toml")).env("PATH", path);
    let mut containerd = Process::spawn("containerd", &mut command, &folder.join("containerd.log"))?;
    let log = folder.join("containerd.log");
    containerd.wait_ready(READY, async || read_log(&log).contains("containerd successfully booted")).await?;
    Ok(containerd)
}

async fn start_apiserver(folder: &Path) -> anyhow::Result<(Process, Process)> {
    let (etcd, etcd_url) = apiserver::start_etcd(folder).await?;
    let mut command = Command::new(tools::binary("kube-apiserver")?);
    command.arg(format!("--etcd-servers={etcd_url}")).args(config::apiserver(folder));
    let mut apiserver = Process::spawn("kube-apiserver", &mut command, &folder.join("kube-apiserver.log"))?;
    let kubectl = tools::binary("kubectl")?;
    let ready = async || {
        let mut command = Command::new(&kubectl);
        command.arg("--kubeconfig").arg(folder.join("admin.kubeconfig")).args(["get", "--raw=/readyz"]);
        command.arg("--request-timeout=5s").env("HOME", folder);
        tools::output(&mut command).is_ok()
    };
    apiserver.wait_ready(READY, ready).await?;
    Ok((etcd, apiserver))
}

/// Makes a file, readable by its owner alone.
fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}
