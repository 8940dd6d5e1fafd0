//! The processes: the operator, and the pipeline twice.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, ensure};
use epochwarden_testkit::process::Process;

use crate::cluster::Kube;
use crate::policy;
use crate::store::Store;

const OPERATOR_LOG: &str = "operator.log";

/// The logs, by the names of their files.
pub(crate) const LOGS: [&str; 3] = [OPERATOR_LOG, "pipeline-a.log", "pipeline-b.log"];

/// Longer than any demo.
const WHOLE_DEMO: Duration = Duration::from_hours(1);

/// How long a pipeline may take for what it is expected to say.
const REPLY: Duration = Duration::from_secs(30);

/// The operator.
pub(crate) struct Operator {
    process: Process,
}

impl Operator {
    /// What `epochwarden crd` prints.
    pub(crate) async fn crd() -> anyhow::Result<String> {
        let output = tokio::process::Command::new(operator_binary()?).arg("crd").output().await?;
        ensure!(output.status.success(), "epochwarden crd: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    pub(crate) fn start(kube: &Kube, store: &Store, folder: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(operator_binary()?);
        command
            .args(["controller", "--http", "127.0.0.1:0", "--watch-namespace", kube.namespace()])
            .env("KUBECONFIG", kube.kubeconfig());
        if let Some(root) = store.folder() {
            command.arg("--allow-file-root").arg(root);
        }
        let process = Process::spawn("the operator", &mut command, &folder.join(OPERATOR_LOG))?;
        Ok(Self { process })
    }

    /// Returns when it ends, which it should not.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        self.process.wait_exit(WHOLE_DEMO).await
    }
}

/// One process of the example pipeline.
pub(crate) struct Pipeline {
    process: Process,
    log: PathBuf,
    heard: usize,
    identity: String,
}

impl Pipeline {
    /// Starts the process of the pod `pipeline-{letter}`.
    pub(crate) async fn start(letter: char, kube: &Kube, store: &Store, folder: &Path) -> anyhow::Result<Self> {
        let pod = format!("pipeline-{letter}");
        let log = folder.join(format!("{pod}.log"));
        let mut command = Command::new(target_folder()?.join("examples/pipeline"));
        command
            .args(["--store", store.root().url(), "--pod-name", &pod, "--vnodes", &policy::VNODES.to_string()])
            .arg(format!("--lease={}/{}", kube.namespace(), policy::LEASE))
            .env("KUBECONFIG", kube.kubeconfig());
        for (key, value) in store.options() {
            command.arg(format!("--store-option={key}={value}"));
        }
        // Whoever runs the demo may have credentials of their own in the environment.
        for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("AWS_")) {
            command.env_remove(key);
        }
        command.envs(store.credentials().iter().map(|(key, value)| (key.to_uppercase(), value)));
        let process = Process::spawn_listening(&pod, &mut command, &log)?;
        let mut pipeline = Self { process, log, heard: 0, identity: String::new() };
        pipeline.identity = pipeline.says("started ").await?.replacen("started ", "", 1);
        Ok(pipeline)
    }

    /// The name of this start of the process, as the Lease and the seals have it.
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    /// Waits for the next line that begins like this. Lines before it are passed over, and count as heard.
    pub(crate) async fn says(&mut self, beginning: &str) -> anyhow::Result<String> {
        let mut found = None;
        let (log, heard) = (&self.log, self.heard);
        let listened = self.process.wait_ready(REPLY, async || {
            let text = fs::read_to_string(log).unwrap_or_default();
            // The last piece is a line that is not written to its end, or nothing.
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let line = whole.lines().enumerate().skip(heard).find(|(_, line)| line.starts_with(beginning));
            found = line.map(|(number, line)| (number, line.to_owned()));
            found.is_some()
        });
        listened.await.with_context(|| format!("waiting for {beginning:?}"))?;
        let (number, line) = found.context("a line that was found is gone")?;
        self.heard = number + 1;
        Ok(line)
    }

    /// The number that follows in the next line that begins like this.
    pub(crate) async fn says_number(&mut self, beginning: &str) -> anyhow::Result<u64> {
        let line = self.says(beginning).await?;
        let digits = line.trim_start_matches(beginning);
        let end = digits.find(|character: char| !character.is_ascii_digit()).unwrap_or(digits.len());
        digits.split_at(end).0.parse().with_context(|| format!("reading a number in {line:?}"))
    }

    /// Stops it between writing the next epoch's partials and sealing it.
    pub(crate) fn pause(&mut self) -> anyhow::Result<()> {
        self.process.tell("pause")
    }

    pub(crate) fn resume(&mut self) -> anyhow::Result<()> {
        self.process.tell("resume")
    }
}

fn operator_binary() -> anyhow::Result<PathBuf> {
    Ok(target_folder()?.join("epochwarden"))
}

/// Where Cargo put what it built: this very program is in its `examples`.
fn target_folder() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folder = this.parent().and_then(Path::parent).context("this program is in no folder of examples")?;
    Ok(folder.to_owned())
}
