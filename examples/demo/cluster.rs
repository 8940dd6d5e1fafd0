//! The cluster: one that is started for the demo, or one that somebody named.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use epochwarden_testkit::apiserver::Cluster;
use epochwarden_testkit::tools;
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::narrator::Narrator;

/// A cluster, a namespace in it, and kubectl.
pub(crate) struct Kube {
    client: Client,
    kubeconfig: PathBuf,
    namespace: String,
    kubectl: PathBuf,
    kubectl_cache: PathBuf,
    /// `None` for a cluster that is not the demo's own.
    throwaway: Option<Cluster>,
}

impl Kube {
    /// Starts an API server with its etcd, unless the kubeconfig of a cluster is given.
    pub(crate) async fn reach(narrator: &Narrator, named: Option<&Path>, folder: &Path) -> anyhow::Result<Self> {
        let (throwaway, kubeconfig, namespace) = if let Some(named) = named {
            let kubeconfig =
                fs::canonicalize(named).with_context(|| format!("finding the kubeconfig {}", named.display()))?;
            (None, kubeconfig, format!("epochwarden-demo-{:08x}", fastrand::u32(..)))
        } else {
            narrator.line("Starting a Kubernetes API server, just for this ...");
            let cluster = Cluster::start().await?;
            let kubeconfig = cluster.kubeconfig();
            (Some(cluster), kubeconfig, "streaming".to_owned())
        };
        let config = Kubeconfig::read_from(&kubeconfig)?;
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        let version = client.apiserver_version().await.context("asking the API server for its version")?.git_version;
        narrator.line(&match named {
            Some(_) => {
                format!("A Kubernetes {version} API server answers. The demo stays in the namespace {namespace}.")
            }
            None => format!("It is up: Kubernetes {version}."),
        });
        Ok(Self {
            client,
            kubeconfig,
            namespace,
            kubectl: tools::binary("kubectl")?,
            kubectl_cache: folder.join("kubectl-cache"),
            throwaway,
        })
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) async fn create_namespace(&self) -> anyhow::Result<()> {
        self.kubectl(&["create", "namespace", &self.namespace]).await.map(drop)
    }

    /// Runs kubectl in the namespace, and returns what it printed.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.kubectl_stdin(args, "").await
    }

    /// The same, with `input` on its standard input, for `--filename -`.
    pub(crate) async fn kubectl_stdin(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        let mut child = Command::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(&self.kubectl_cache)
            .args(["--namespace", &self.namespace])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            // Where kubectl ends without reading it, its own words say more than the broken pipe.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = child.wait_with_output().await?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {}", args.join(" "), complaint.trim_end());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Leaves nothing in a cluster that is not the demo's own but the CRD, which others may be using.
    pub(crate) async fn leave(&self, narrator: &Narrator) -> anyhow::Result<()> {
        if self.throwaway.is_none() {
            narrator.act("Leaving");
            narrator.line(&format!("Deleting the namespace {}; the CRD stays.", self.namespace));
            self.kubectl(&["delete", "namespace", &self.namespace, "--ignore-not-found", "--wait=false"]).await?;
        }
        Ok(())
    }
}
