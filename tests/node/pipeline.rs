//! The example pipeline in pods, guarded by the operators that the chart installs.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use epochwarden_testkit::node::{NODE_ADDRESS, Node, isolated};
use epochwarden_testkit::{s3server::S3Server, wait::until};
use serde_json::{Value, json};

use crate::release;

const SOON: Duration = Duration::from_mins(2);
const APP: &str = "orders";

#[test]
fn pods_of_the_pipeline_seal_epochs_and_the_fence_moves_with_their_lease() -> Result<()> {
    isolated("pipeline::pods_of_the_pipeline_seal_epochs_and_the_fence_moves_with_their_lease", async || {
        let node = Node::start().await?;
        let server = S3Server::start_at(NODE_ADDRESS).await?;
        server.create_bucket("state")?;
        node.import(&release::operator_image(&node)?)?;
        let binaries = Path::new(env!("CARGO_BIN_EXE_epochwarden")).parent().context("a binary has no folder")?;
        let program = binaries.join("examples/pipeline");
        node.import(&release::image_of(&node, "localhost/epochwarden-pipeline:dev", &program)?)?;
        node.told(&["create", "-f", "-"], &release::namespace()).await?;
        release::install(&node).await?;
        node.told(&["create", "-f", "-"], &tenant(&server).to_string()).await?;

        let first = leading(&node, 1).await?;
        until("an epoch is sealed", SOON, async || said(&node, &first, "sealed 3:").await).await?;
        node.told(&["--namespace", APP, "delete", "pod", &first, "--grace-period=0", "--force"], "").await?;
        let second = leading(&node, 2).await?;
        ensure!(second != first, "{first} leads again");
        until("its successor seals", SOON, async || said(&node, &second, "sealed ").await).await?;
        let fence = ["--namespace", APP, "get", "stateepochpolicy", APP, "-o", "jsonpath={.status.fence.version}"];
        let moved = async || node.told(&fence, "").await.ok().filter(|version| version == "2");
        until("the policy shows the fence of the second term", SOON, moved).await?;
        // What the first leader was told is sealed is there: the second began above it.
        ensure!(server.bucket_folder("state").join("orders/epoch=3/_COMMIT").exists(), "epoch 3 has gone");
        Ok(())
    })
}

/// The pod that leads this term and has its fence.
async fn leading(node: &Node, version: u32) -> Result<String> {
    let find = async || {
        let names = ["--namespace", APP, "get", "pods", "-o", "jsonpath={.items[*].metadata.name}"];
        let names = node.told(&names, "").await.ok()?;
        for name in names.split(' ').filter(|name| !name.is_empty()) {
            if said(node, name, &format!("fenced version {version}\n")).await.is_some() {
                return Some(name.to_owned());
            }
        }
        None
    };
    let found = until(&format!("a pod has the fence of version {version}"), SOON, find).await;
    let Err(error) = found else { return found };
    let described = node.kubectl(&["--namespace", APP, "describe", "pods,stateepochpolicies"], "").await?.stdout;
    let logs = node.kubectl(&["--namespace", APP, "logs", "--selector", "app=orders"], "").await?;
    Err(error.context(format!("{described}\n{}{}", logs.stdout, logs.stderr)))
}

async fn said(node: &Node, pod: &str, words: &str) -> Option<()> {
    let log = node.told(&["--namespace", APP, "logs", pod], "").await.ok()?;
    log.contains(words).then_some(())
}

/// A tenant: its namespace, credentials, policy, and two pods of its pipeline.
fn tenant(server: &S3Server) -> Value {
    let named = json!({ "name": APP, "namespace": APP });
    let options = json!({ "aws_endpoint": server.endpoint(), "aws_region": "us-east-1", "aws_allow_http": "true" });
    let mut arguments =
        vec!["--store=s3://state/orders".to_owned(), "--lease=orders/orders".into(), "--pod-name=$(NAME)".into()];
    for (key, value) in server.options().iter().filter(|(key, _)| !key.contains("access_key")) {
        arguments.push(format!("--store-option={key}={value}"));
    }
    let security = json!({
        "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] }, "runAsNonRoot": true,
        "readOnlyRootFilesystem": true, "seccompProfile": { "type": "RuntimeDefault" },
    });
    let secret = |key: &str| json!({ "secretKeyRef": { "name": APP, "key": key } });
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": APP,
            "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } },
        { "apiVersion": "v1", "kind": "Secret", "metadata": named, "stringData": {
            "aws_access_key_id": server.access_key(), "aws_secret_access_key": server.secret_key() } },
        { "apiVersion": "v1", "kind": "ServiceAccount", "metadata": named },
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": named, "rules": [
            { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"] }] },
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": named,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": APP },
            "subjects": [{ "kind": "ServiceAccount", "name": APP, "namespace": APP }] },
        { "apiVersion": "epochwarden.io/v1alpha1", "kind": "StateEpochPolicy", "metadata": named, "spec": {
            "store": { "url": "s3://state/orders", "options": options,
                "credentials": { "secretRef": { "name": APP } } },
            "vnodes": 4,
            "fence": { "leaseRef": { "name": APP }, "versionFrom": "LeaseTransitions" } } },
        { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": named, "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": APP } },
            "template": { "metadata": { "labels": { "app": APP } }, "spec": {
                "serviceAccountName": APP,
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "pipeline", "image": "localhost/epochwarden-pipeline:dev", "imagePullPolicy": "Never",
                    "args": arguments, "securityContext": security, "stdin": true,
                    "env": [
                        { "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                        { "name": "AWS_ACCESS_KEY_ID", "valueFrom": secret("aws_access_key_id") },
                        { "name": "AWS_SECRET_ACCESS_KEY", "valueFrom": secret("aws_secret_access_key") },
                    ],
                }],
            } } } },
    ] })
}
