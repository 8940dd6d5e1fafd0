//! The admission rules of the chart, as an API server applies them.

use anyhow::{Result, ensure};
use epochwarden_testkit::apiserver::{Cluster, Output};
use epochwarden_testkit::wait::until;
use serde_json::{Value, json};

use super::helm::{CHART, Helm};
use crate::support::SOON;

/// A cluster of its own: these rules are about all policies of a cluster.
async fn guarded(values: &Value) -> Result<(Cluster, tempfile::TempDir)> {
    let cluster = Cluster::start().await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("values.json");
    std::fs::write(&file, values.to_string())?;
    let file = file.display().to_string();
    Helm::of(&cluster)?
        .done(&["install", "guard", CHART, "--namespace", "guard", "--create-namespace", "--values", &file])
        .await?;
    let established = ["wait", "--for=condition=Established", "crd/stateepochpolicies.epochwarden.io", "--timeout=60s"];
    ensure!(cluster.kubectl(&established).await?.status.success());
    for namespace in ["streaming", "billing"] {
        ensure!(cluster.kubectl(&["create", "namespace", namespace]).await?.status.success());
    }
    Ok((cluster, folder))
}

fn policy(namespace: &str, url: &str, annotations: &Value) -> Value {
    json!({
        "apiVersion": "epochwarden.io/v1alpha1",
        "kind": "StateEpochPolicy",
        "metadata": { "name": "orders", "namespace": namespace, "annotations": annotations },
        "spec": { "store": { "url": url }, "vnodes": 4 },
    })
}

#[tokio::test]
async fn a_namespace_may_use_the_stores_that_it_was_given_and_no_others() -> Result<()> {
    let rules = json!([
        { "namespaces": ["streaming"], "prefixes": ["s3://state/orders/", "s3://clicks"] },
        { "namespaces": ["*"], "prefixes": ["gs://shared"] },
    ]);
    let (cluster, _folder) =
        guarded(&json!({ "admission": { "storeUrls": { "enabled": true, "rules": rules } } })).await?;
    let tried = async |namespace: &str, url: &str| {
        let policy = policy(namespace, url, &Value::Null).to_string();
        cluster.kubectl_stdin(&["create", "--dry-run=server", "-f", "-"], &policy).await
    };
    until("the rule to be in force", SOON, async || {
        let tried = tried("billing", "s3://state/orders").await.ok()?;
        tried.stderr.contains("may not use the store").then_some(())
    })
    .await?;
    for (namespace, url, may) in [
        ("streaming", "s3://state/orders", true),
        ("streaming", "s3://state/orders/eu", true),
        ("streaming", "s3://state/orders-of-others", false),
        ("streaming", "s3://state", false),
        ("streaming", "s3://clicks", true),
        ("streaming", "s3://clicks/a/b", true),
        ("streaming", "s3://clicks2", false),
        ("streaming", "gs://clicks", false),
        ("streaming", "gs://shared/x", true),
        ("billing", "gs://shared", true),
        ("billing", "s3://state/orders", false),
        ("billing", "s3://clicks/a", false),
        ("billing", "file:///etc", false),
    ] {
        let tried = tried(namespace, url).await?;
        ensure!(tried.status.success() == may, "{namespace} {url}: {}{}", tried.stdout, tried.stderr);
        ensure!(
            may || tried.stderr.contains(&format!("namespace {namespace} may not use the store {url}")),
            "{}",
            tried.stderr
        );
    }
    Ok(())
}

#[tokio::test]
async fn only_who_may_approve_sets_the_annotations_that_approve_or_take_over() -> Result<()> {
    let (cluster, _folder) = guarded(&json!({ "admission": { "approvals": { "enabled": true } } })).await?;
    let bound = |role: &str, user: &str| {
        let (role, user) = (format!("--clusterrole={role}"), format!("--user={user}"));
        let name = user.trim_start_matches("--user=").to_owned();
        let cluster = &cluster;
        async move {
            let args = ["--namespace=streaming", "create", "rolebinding", &name, &role, &user];
            let bound = cluster.kubectl(&args).await?;
            ensure!(bound.status.success(), "{}", bound.stderr);
            Ok(())
        }
    };
    bound("guard-guard-epochwarden-approve", "approver").await?;
    bound("guard-guard-epochwarden-view", "tenant").await?;
    // The role that an aggregation would fill, where a controller ran.
    let edit = [
        "--namespace=streaming",
        "create",
        "rolebinding",
        "tenant-edit",
        "--clusterrole=guard-guard-epochwarden-edit",
        "--user=tenant",
    ];
    ensure!(cluster.kubectl(&edit).await?.status.success());
    let create = async |user: &str, annotations: &Value| {
        let policy = policy("streaming", "s3://state/orders", annotations).to_string();
        cluster.kubectl_stdin(&["--as", user, "create", "--dry-run=server", "-f", "-"], &policy).await
    };
    let refused = |output: &Output| !output.status.success() && output.stderr.contains("needs the verb approve");
    until("the rule to be in force", SOON, async || {
        let tried = create("tenant", &json!({ "epochwarden.io/take-over": "uid" })).await.ok()?;
        refused(&tried).then_some(())
    })
    .await?;
    for (annotations, may) in [
        (Value::Null, true),
        (json!({ "epochwarden.io/run": "prune@1", "note": "x" }), true),
        (json!({ "epochwarden.io/approve-plan": "abc" }), false),
        (json!({ "epochwarden.io/take-over": "uid" }), false),
    ] {
        let tried = create("tenant", &annotations).await?;
        ensure!(if may { tried.status.success() } else { refused(&tried) }, "{annotations}: {}", tried.stderr);
    }

    let there = policy("streaming", "s3://state/orders", &Value::Null).to_string();
    ensure!(cluster.kubectl_stdin(&["--as=tenant", "create", "-f", "-"], &there).await?.status.success());
    for (user, annotation, may) in [
        ("tenant", "epochwarden.io/run=audit@1", true),
        ("tenant", "epochwarden.io/approve-plan=one", false),
        ("approver", "epochwarden.io/approve-plan=one", true),
        // What stands there is nobody's doing now, and another word is.
        ("tenant", "epochwarden.io/run=audit@2", true),
        ("tenant", "epochwarden.io/approve-plan=one", true),
        ("tenant", "epochwarden.io/approve-plan=two", false),
        ("tenant", "epochwarden.io/approve-plan-", true),
        ("tenant", "epochwarden.io/approve-plan=one", false),
        ("tenant", "epochwarden.io/take-over=uid", false),
        ("approver", "epochwarden.io/take-over=uid", true),
        ("admin", "epochwarden.io/take-over=another", true),
    ] {
        let mut args = vec!["--namespace=streaming", "annotate", "--overwrite", "sep", "orders", annotation];
        let who = format!("--as={user}");
        if user != "admin" {
            args.push(&who);
        }
        let tried = cluster.kubectl(&args).await?;
        ensure!(if may { tried.status.success() } else { refused(&tried) }, "{user} {annotation}: {}", tried.stderr);
    }
    Ok(())
}
