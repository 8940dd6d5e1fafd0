//! From the first installation to the last trace of it, with Helm on a real API server.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use epochwarden_testkit::apiserver::Cluster;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::helm::{CHART, Helm, documents, only, rendered, said};
use super::values::EVERY;
use crate::support::bucket::Bucket;
use crate::support::policy::Policy;

/// The newest chart in the history that is not this one. None where there is no history, or no other.
async fn earlier(folder: &TempDir) -> Result<Option<PathBuf>> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(repository).args(args);
        said(command)
    };
    let Ok(log) = git(&["log", "--format=%H", "--", "charts/epochwarden"]).await else { return Ok(None) };
    for commit in log.stdout.lines() {
        if git(&["diff", "--quiet", commit, "--", "charts/epochwarden"]).await?.success {
            continue;
        }
        let archive = folder.path().join("chart.tar");
        let name = archive.to_str().context("a path")?;
        let archived = git(&["archive", "--output", name, commit, "charts/epochwarden"]).await?;
        // A commit that took the chart away has none.
        if !archived.success {
            continue;
        }
        let mut tar = Command::new("tar");
        tar.arg("-xf").arg(&archive).arg("-C").arg(folder.path());
        let unpacked = said(tar).await?;
        ensure!(unpacked.success, "{}", unpacked.stderr);
        return Ok(Some(folder.path().join("charts/epochwarden")));
    }
    Ok(None)
}

async fn get(cluster: &Cluster, args: &[&str]) -> Result<Value> {
    let mut all = vec!["get", "-o", "json"];
    all.extend(args);
    let output = cluster.kubectl(&all).await?;
    ensure!(output.status.success(), "kubectl {all:?}: {}", output.stderr);
    Ok(serde_json::from_str(&output.stdout)?)
}

/// Everything in the cluster that a release left, by kind and name.
async fn left(cluster: &Cluster, release: &str) -> Result<Vec<String>> {
    let kinds = "crd,clusterrole,clusterrolebinding,role,rolebinding,serviceaccount,service,deployment,poddisruptionbudget,\
                 networkpolicy,configmap,secret,validatingadmissionpolicy,validatingadmissionpolicybinding";
    let selector = format!("app.kubernetes.io/instance={release}");
    let found = get(cluster, &[kinds, "--all-namespaces", "--selector", &selector]).await?;
    let name = |object: &Value| format!("{} {}", object["kind"], object["metadata"]["name"]).replace('"', "");
    Ok(found["items"].as_array().context("items")?.iter().map(name).collect())
}

/// The arguments of the operator, as the API server has them.
async fn arguments(cluster: &Cluster) -> Result<Vec<String>> {
    let deployment = get(cluster, &["--namespace=guard", "deployment", "guard-epochwarden"]).await?;
    let arguments = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
    Ok(serde_json::from_value(arguments.clone())?)
}

fn spec(bucket: &Bucket) -> Value {
    json!({ "store": bucket.store(None), "vnodes": 4 })
}

#[tokio::test]
async fn what_is_installed_upgraded_rolled_back_and_uninstalled_leaves_policies_and_buckets_alone() -> Result<()> {
    let cluster = &Cluster::start().await?;
    let (helm, folder) = (Helm::of(cluster)?, tempfile::tempdir()?);
    let before = if let Some(chart) = earlier(&folder).await? {
        chart
    } else {
        crate::support::say("there is no earlier chart: this one is upgraded to itself with other values")?;
        CHART.into()
    };
    let before = before.to_str().context("a path")?;
    let release = ["guard", "--namespace", "guard"];
    let helm_with = async |verb: &str, more: &[&str]| {
        let args: Vec<&str> = [verb].into_iter().chain(release).chain(more.iter().copied()).collect();
        helm.done(&args).await
    };

    let notes = helm_with("install", &[before, "--create-namespace", "--set", "maxConcurrentRuns=2"]).await?;
    ensure!(notes.contains("StateEpochPolicy"), "nobody is told what to do next: {notes}");
    let established = ["wait", "--for=condition=Established", "crd/stateepochpolicies.epochwarden.io", "--timeout=60s"];
    ensure!(cluster.kubectl(&established).await?.status.success());
    let installed = arguments(cluster).await?;
    ensure!(installed.contains(&"--max-concurrent-runs=2".to_owned()), "{installed:?}");

    let bucket = Bucket::folder()?;
    bucket.seal(1..=3, 4).await?;
    let policy = Policy::apply(cluster, "default", "orders", spec(&bucket)).await?;
    let uid = get(cluster, &["sep", "orders"]).await?["metadata"]["uid"].clone();

    helm_with("upgrade", &[CHART, "--set", "policySelector=team=orders,networkPolicy.enabled=true"]).await?;
    let upgraded = arguments(cluster).await?;
    ensure!(upgraded.contains(&"--policy-selector=team=orders".to_owned()), "{upgraded:?}");
    ensure!(left(cluster, "guard").await?.contains(&"NetworkPolicy guard-epochwarden".to_owned()));

    // Every value, but for kinds that only the Prometheus operator brings, and in namespaces that are there.
    for namespace in ["streaming", "billing", "grafana"] {
        ensure!(cluster.kubectl(&["create", "namespace", namespace]).await?.status.success());
    }
    let cannot = "serviceMonitor.enabled=false,podMonitor.enabled=false,prometheusRule.enabled=false,crds.keep=true,\
                  nameOverride=,fullnameOverride=";
    helm_with("upgrade", &[CHART, "--values", EVERY, "--set", cannot]).await?;

    helm_with("rollback", &["1"]).await?;
    let back = arguments(cluster).await?;
    ensure!(back == installed, "{back:?}");
    ensure!(!left(cluster, "guard").await?.contains(&"NetworkPolicy guard-epochwarden".to_owned()));

    helm_with("uninstall", &[]).await?;
    let remains = left(cluster, "guard").await?;
    ensure!(remains == ["CustomResourceDefinition stateepochpolicies.epochwarden.io"], "{remains:?}");
    ensure!(get(cluster, &["sep", "orders"]).await?["metadata"]["uid"] == uid, "another policy has its name");
    ensure!(bucket.sealed().await? == [1, 2, 3]);

    // Whoever installs again finds the resource, and the policies.
    helm_with("install", &[CHART]).await?;
    ensure!(get(cluster, &["sep", "orders"]).await?["metadata"]["uid"] == uid);
    let second = ["install", "second", CHART, "--namespace", "default"];
    let refused = helm.run(&second).await?;
    ensure!(!refused.success && refused.stderr.contains("CustomResourceDefinition"), "{}", refused.stderr);
    helm.done(&second.into_iter().chain(["--set", "crds.enabled=false"]).collect::<Vec<_>>()).await?;
    for (release, namespace) in [("second", "default"), ("guard", "guard")] {
        helm.done(&["uninstall", release, "--namespace", namespace]).await?;
    }

    // No operator runs, and a policy can go.
    policy.delete().await?;
    let gone = cluster.kubectl(&["get", "sep", "orders"]).await?;
    ensure!(gone.stderr.contains("NotFound"), "{}{}", gone.stdout, gone.stderr);
    ensure!(bucket.sealed().await? == [1, 2, 3]);
    Ok(())
}

#[tokio::test]
async fn the_pods_are_admitted_where_the_restricted_profile_is_enforced() -> Result<()> {
    let cluster = crate::support::cluster().await?;
    let namespace = cluster.namespace("restricted").await?;
    let label = ["label", "namespace", &namespace, "pod-security.kubernetes.io/enforce=restricted"];
    ensure!(cluster.kubectl(&label).await?.status.success());
    let account = ["--namespace", &namespace, "create", "serviceaccount", "guard-epochwarden"];
    ensure!(cluster.kubectl(&account).await?.status.success());
    for (set, admitted) in [
        ("replicaCount=2", true),
        ("securityContext.allowPrivilegeEscalation=true", false),
        ("podSecurityContext.runAsNonRoot=false", false),
    ] {
        let documents = rendered(&["--set", set]).await?;
        let template = &only(&documents, "Deployment")?["spec"]["template"];
        let mut pod = json!({ "apiVersion": "v1", "kind": "Pod", "spec": template["spec"] });
        pod["metadata"] = json!({ "name": "guard", "namespace": namespace, "labels": template["metadata"]["labels"] });
        let created = cluster.kubectl_stdin(&["create", "--dry-run=server", "-f", "-"], &pod.to_string()).await?;
        ensure!(created.status.success() == admitted, "{set}: {}{}", created.stdout, created.stderr);
        ensure!(admitted || created.stderr.contains("PodSecurity"), "{set}: {}", created.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn the_notes_say_how_to_make_a_policy_that_the_api_server_takes() -> Result<()> {
    let cluster = crate::support::cluster().await?;
    let helm = Helm::of(cluster)?;
    for (set, namespace) in [
        ("replicaCount=2", "streaming"),
        ("allow.ambientCredentials={s3://state/}", "streaming"),
        ("watchNamespaces={billing},policySelector=team=orders", "billing"),
    ] {
        let args = ["install", "guard", CHART, "--namespace", "default", "--dry-run=client", "--set", set];
        let notes = helm.done(&args).await?;
        // Where the release reads every namespace, the one of the policy need not be there yet.
        let created = notes.contains(&format!("kubectl create namespace {namespace}\n"));
        ensure!(created != set.contains("watchNamespaces"), "{notes}");
        let (_, manifest) = notes.split_once("<<END\n").context("there is no policy in the notes")?;
        let (manifest, _) = manifest.split_once("END\n").context("the policy has no end")?;
        let lines: Vec<&str> = manifest.lines().filter_map(|line| line.get(3..)).collect();
        let manifest = lines.join("\n");
        let mut policy = documents(&manifest)?.pop().context("no policy")?;
        ensure!(policy["metadata"]["namespace"] == namespace, "{policy}");
        policy["metadata"]["namespace"] = "default".into();
        let applied = cluster.kubectl_stdin(&["apply", "--dry-run=server", "-f", "-"], &policy.to_string()).await?;
        ensure!(applied.status.success(), "{set}: {}\n{manifest}", applied.stderr);
    }
    Ok(())
}
