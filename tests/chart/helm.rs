//! Helm and its companions, as processes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use epochwarden_testkit::apiserver::Cluster;
use epochwarden_testkit::tools;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Semaphore;

/// The chart.
pub(super) const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/epochwarden");

/// What a command said.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) success: bool,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Runs a command to its end, away from the threads of the tests' runtime, and one at a time: each could keep every core busy, and beside
/// it run tests that measure how soon something happens.
pub(super) async fn said(mut command: Command) -> Result<Said> {
    static TURN: Semaphore = Semaphore::const_new(1);
    let _turn = TURN.acquire().await?;
    tokio::task::spawn_blocking(move || {
        let output = command.output().with_context(|| format!("starting {}", command.get_program().display()))?;
        Ok(Said {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    })
    .await?
}

/// A run of a tool, which gives way to everything else.
pub(super) fn tool(name: &'static str) -> Result<Command> {
    let mut command = Command::new("nice");
    command.args(["-n", "19"]).arg(path_of(name)?).env("GOMAXPROCS", "1");
    Ok(command)
}

/// Where a tool is. It is asked for once.
fn path_of(name: &'static str) -> Result<PathBuf> {
    static HELM: OnceLock<PathBuf> = OnceLock::new();
    static KUBECONFORM: OnceLock<PathBuf> = OnceLock::new();
    static PROMTOOL: OnceLock<PathBuf> = OnceLock::new();
    let known = match name {
        "helm" => &HELM,
        "kubeconform" => &KUBECONFORM,
        _ => &PROMTOOL,
    };
    if let Some(path) = known.get() {
        return Ok(path.clone());
    }
    let path = tools::extra(name)?;
    Ok(known.get_or_init(|| path).clone())
}

/// Helm with a home of its own, and a cluster if it is given one.
pub(super) struct Helm {
    home: TempDir,
    kubeconfig: PathBuf,
}

impl Helm {
    /// Without a cluster: for what only renders.
    pub(super) fn alone() -> Result<Self> {
        let home = tempfile::tempdir()?;
        let kubeconfig = home.path().join("there-is-none");
        Ok(Self { home, kubeconfig })
    }

    pub(super) fn of(cluster: &Cluster) -> Result<Self> {
        Ok(Self { home: tempfile::tempdir()?, kubeconfig: cluster.kubeconfig() })
    }

    pub(super) async fn run<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<Said> {
        let mut command = tool("helm")?;
        command.args(args).env("HOME", self.home.path()).env("KUBECONFIG", &self.kubeconfig);
        for (name, folder) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            command.env(name, self.home.path().join(folder));
        }
        said(command).await
    }

    /// The same, which has to succeed; what it printed.
    pub(super) async fn done<A: AsRef<OsStr> + std::fmt::Debug>(&self, args: &[A]) -> Result<String> {
        let said = self.run(args).await?;
        ensure!(said.success, "helm {args:?}: {}{}", said.stdout, said.stderr);
        Ok(said.stdout)
    }
}

/// What the chart makes of these arguments, as release `guard` in namespace `home`.
pub(super) async fn rendered(args: &[&str]) -> Result<Vec<Value>> {
    let mut all = vec!["template", "guard", CHART, "--namespace", "home"];
    all.extend(args);
    documents(&Helm::alone()?.done(&all).await?)
}

/// The documents of a stream of YAML that hold something.
pub(super) fn documents(yaml: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml)?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// The only one of this kind.
pub(super) fn only<'a>(documents: &'a [Value], kind: &str) -> Result<&'a Value> {
    let mut found = documents.iter().filter(|document| document["kind"] == kind);
    let first = found.next().with_context(|| format!("there is no {kind}"))?;
    ensure!(found.next().is_none(), "there are several {kind}");
    Ok(first)
}

/// A file of the chart.
pub(super) fn file(name: &str) -> Result<String> {
    let path = Path::new(CHART).join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}
