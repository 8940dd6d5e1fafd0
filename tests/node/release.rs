//! The chart, as it is installed: pods of two operators, of which one leads.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use epochwarden_testkit::node::{Image, Node, isolated, libraries};
use epochwarden_testkit::{tools, wait::until};
use serde_json::json;

const SOON: Duration = Duration::from_mins(3);
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/epochwarden");
pub(crate) const REFERENCE: &str = "localhost/epochwarden:dev";
const RELEASE: &str = "epochwarden";
const SETTINGS: &str = "image.tag=dev,image.pullPolicy=Never,allow.endpoints={10.77.0.2}";
pub(crate) const NAMESPACE: &str = "guard";

#[test]
fn two_operators_are_ready_under_the_restricted_profile_and_the_second_takes_over_from_a_leader_that_is_killed()
-> Result<()> {
    isolated(
        "release::two_operators_are_ready_under_the_restricted_profile_and_the_second_takes_over_from_a_leader_that_is_killed",
        async || {
            let node = Node::start().await?;
            node.import(&operator_image(&node)?)?;
            node.told(&["create", "-f", "-"], &namespace()).await?;
            install(&node).await?;
            let ready = [
                "--namespace",
                NAMESPACE,
                "get",
                "deployment",
                "epochwarden",
                "-o",
                "jsonpath={.status.readyReplicas}",
            ];
            ensure!(node.told(&ready, "").await? == "2", "Helm waited for {:?}", node.told(&ready, "").await);

            let first = until("one leads", SOON, async || leader(&node).await).await?;
            let kill = ["--namespace", NAMESPACE, "delete", "pod", &first, "--grace-period=0", "--force"];
            node.told(&kill, "").await?;
            let other = async || leader(&node).await.filter(|holder| *holder != first);
            until("another leads", SOON, other).await?;
            let whole = async || (node.told(&ready, "").await.ok()? == "2").then_some(());
            until("there are two again", SOON, whole).await?;

            uninstall(&node).await?;
            let crd = ["get", "crd", "stateepochpolicies.epochwarden.io"];
            node.told(&crd, "").await.context("the policies' resource went with the release")?;
            Ok(())
        },
    )
}

pub(crate) fn namespace() -> String {
    let enforce = json!({ "pod-security.kubernetes.io/enforce": "restricted" });
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE, "labels": enforce } }).to_string()
}

pub(crate) async fn install(node: &Node) -> Result<()> {
    let installed = helm(node, &["install", RELEASE, CHART, "--set", SETTINGS, "--wait", "--timeout", "3m"]).await;
    if let Err(error) = installed {
        let described = node.told(&["--namespace", NAMESPACE, "describe", "pods"], "").await?;
        let logs = ["--namespace", NAMESPACE, "logs", "--selector", "app.kubernetes.io/name=epochwarden"];
        let logs = node.kubectl(&logs, "").await?;
        return Err(error.context(format!("{described}\n{}{}", logs.stdout, logs.stderr)));
    }
    Ok(())
}

/// Installs the chart over what is installed, with these settings beside those of before.
pub(crate) async fn upgrade(node: &Node, settings: &str) -> Result<()> {
    let set = ["--set", SETTINGS, "--set", settings];
    helm(node, &[&["upgrade", RELEASE, CHART, "--wait", "--timeout", "3m"], &set[..]].concat()).await.map(drop)
}

/// Goes back to what was installed at first.
pub(crate) async fn roll_back(node: &Node) -> Result<()> {
    helm(node, &["rollback", RELEASE, "1", "--wait", "--timeout", "3m"]).await.map(drop)
}

pub(crate) async fn uninstall(node: &Node) -> Result<()> {
    helm(node, &["uninstall", RELEASE, "--wait", "--timeout", "3m"]).await.map(drop)
}

/// The pod that holds the Lease of the operators.
pub(crate) async fn leader(node: &Node) -> Option<String> {
    let holder = ["--namespace", NAMESPACE, "get", "lease", "epochwarden", "-o", "jsonpath={.spec.holderIdentity}"];
    let holder = node.told(&holder, "").await.ok()?;
    let names = ["--namespace", NAMESPACE, "get", "pods", "-o", "jsonpath={.items[*].metadata.name}"];
    let names = node.told(&names, "").await.ok()?;
    // The holder is the pod's name and what is new at every start.
    names.split(' ').find(|name| !name.is_empty() && holder.starts_with(name)).map(str::to_owned)
}

pub(crate) async fn helm(node: &Node, args: &[&str]) -> Result<String> {
    let mut command = Command::new(tools::extra("helm")?);
    command.args(args).args(["--namespace", NAMESPACE]).arg("--kubeconfig").arg(node.kubeconfig());
    command.env("HOME", node.folder());
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(output.status.success(), "helm: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The archive that `EPOCHWARDEN_IMAGE` names; without it an image of the binary that was built with this test, and of its libraries.
pub(crate) fn operator_image(node: &Node) -> Result<PathBuf> {
    if let Some(archive) = std::env::var_os("EPOCHWARDEN_IMAGE") {
        println!("The operator's image is {}.", archive.display());
        return Ok(archive.into());
    }
    println!("EPOCHWARDEN_IMAGE names no archive: the operator's image is made of the debug build.");
    image_of(node, REFERENCE, Path::new(env!("CARGO_BIN_EXE_epochwarden")))
}

/// An image of a program with its libraries and the certificates of this system.
pub(crate) fn image_of(node: &Node, reference: &str, program: &Path) -> Result<PathBuf> {
    let libraries = libraries(program)?;
    let mut files: Vec<(&str, &Path)> =
        libraries.iter().map(|(inside, path)| (inside.as_str(), path.as_path())).collect();
    files.push(("etc/ssl/certs/ca-certificates.crt", Path::new("/etc/ssl/certs/ca-certificates.crt")));
    Image { reference, program, files: &files }.write(node.folder())
}
