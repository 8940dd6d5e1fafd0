//! A tenant: its namespace, credentials, policy, and two pods of its pipeline.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use epochwarden_testkit::node::Node;
use epochwarden_testkit::{s3server::S3Server, wait::until};
use serde_json::{Value, json};

use crate::release;

/// The name of everything that a tenant has.
pub(crate) const APP: &str = "orders";
/// The bucket, and where in it the epochs are.
pub(crate) const BUCKET: &str = "state";
pub(crate) const VNODES: u32 = 4;

const IMAGE: &str = "localhost/epochwarden-pipeline:dev";
const SOON: Duration = Duration::from_mins(2);

/// Makes the pipeline's image known to the node.
pub(crate) fn import_pipeline(node: &Node) -> Result<()> {
    let binaries = Path::new(env!("CARGO_BIN_EXE_epochwarden")).parent().context("a binary has no folder")?;
    node.import(&release::image_of(node, IMAGE, &binaries.join("examples/pipeline"))?)
}

/// A tenant that reaches the server at `endpoint`. What `rules` has joins the policy's specification, and `flags` the pipeline's arguments.
pub(crate) fn tenant(server: &S3Server, endpoint: &str, rules: &Value, flags: &[&str]) -> Value {
    let named = json!({ "name": APP, "namespace": APP });
    let options = json!({ "aws_endpoint": endpoint, "aws_region": "us-east-1", "aws_allow_http": "true" });
    let mut arguments = vec![
        format!("--store=s3://{BUCKET}/{APP}"),
        format!("--lease={APP}/{APP}"),
        format!("--vnodes={VNODES}"),
        "--pod-name=$(NAME)".into(),
    ];
    for (key, value) in options.as_object().into_iter().flatten() {
        arguments.push(format!("--store-option={key}={}", value.as_str().unwrap_or_default()));
    }
    arguments.extend(flags.iter().map(|&flag| flag.to_owned()));
    let mut spec = json!({
        "store": { "url": format!("s3://{BUCKET}/{APP}"), "options": options,
            "credentials": { "secretRef": { "name": APP } } },
        "vnodes": VNODES,
        "fence": { "leaseRef": { "name": APP }, "versionFrom": "LeaseTransitions" },
    });
    for (field, value) in rules.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": APP,
            "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } },
        secret(server),
        { "apiVersion": "v1", "kind": "ServiceAccount", "metadata": named },
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": named, "rules": [
            { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"] }] },
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": named,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": APP },
            "subjects": [{ "kind": "ServiceAccount", "name": APP, "namespace": APP }] },
        { "apiVersion": "epochwarden.io/v1alpha1", "kind": "StateEpochPolicy", "metadata": named, "spec": spec },
        { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": named, "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": APP } },
            "template": { "metadata": { "labels": { "app": APP } }, "spec": pod(&arguments) } } },
    ] })
}

/// The Secret with the server's keys of now.
pub(crate) fn secret(server: &S3Server) -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": APP, "namespace": APP }, "stringData": {
        "aws_access_key_id": server.access_key(), "aws_secret_access_key": server.secret_key() } })
}

fn pod(arguments: &[String]) -> Value {
    let from_secret = |key: &str| json!({ "secretKeyRef": { "name": APP, "key": key } });
    json!({
        "serviceAccountName": APP,
        "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "pipeline", "image": IMAGE, "imagePullPolicy": "Never", "args": arguments, "stdin": true,
            "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] }, "runAsNonRoot": true,
                "readOnlyRootFilesystem": true, "seccompProfile": { "type": "RuntimeDefault" },
            },
            "env": [
                { "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                { "name": "AWS_ACCESS_KEY_ID", "valueFrom": from_secret("aws_access_key_id") },
                { "name": "AWS_SECRET_ACCESS_KEY", "valueFrom": from_secret("aws_secret_access_key") },
            ],
        }],
    })
}

/// The pod of the pipeline that leads this term and has its fence.
pub(crate) async fn leading(node: &Node, version: u64) -> Result<String> {
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

/// Whether a pod of the pipeline has said this.
pub(crate) async fn said(node: &Node, pod: &str, words: &str) -> Option<()> {
    let log = node.told(&["--namespace", APP, "logs", pod], "").await.ok()?;
    log.contains(words).then_some(())
}
