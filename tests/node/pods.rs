//! What the other tests stand on: that pods run, and that a namespace may refuse them.

use std::time::Duration;

use anyhow::{Context, ensure};
use epochwarden_testkit::node::{Image, Node, compile, isolated};
use epochwarden_testkit::wait::until;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_mins(2);

#[test]
fn a_pod_runs_to_its_end_and_its_words_can_be_read_through_the_api_server() -> anyhow::Result<()> {
    isolated("pods::a_pod_runs_to_its_end_and_its_words_can_be_read_through_the_api_server", async || {
        let node = Node::start().await?;
        let source = r#"fn main() { println!("written by {}", std::process::id()); }"#;
        let program = compile(node.folder(), "speaker", source)?;
        node.import(
            &Image { reference: "localhost/speaker:dev", program: &program, files: &[] }.write(node.folder())?,
        )?;
        node.told(&["create", "-f", "-"], &pod("speaker", &restricted()).to_string()).await?;
        let ended = until("the pod has ended", SOON, async || {
            let phase = node.told(&["get", "pod", "speaker", "-o", "jsonpath={.status.phase}"], "").await.ok()?;
            ["Succeeded", "Failed"].contains(&phase.as_str()).then_some(phase)
        });
        let phase = match ended.await {
            Ok(phase) => phase,
            Err(error) => {
                let described = node.told(&["describe", "pod", "speaker"], "").await?;
                return Err(error).context(format!("{described}\n{}", node.evidence()));
            }
        };
        let said = node.told(&["logs", "speaker"], "").await?;
        // The first process of a container has that number.
        ensure!(phase == "Succeeded" && said == "written by 1\n", "it {phase} and said {said:?}");
        Ok(())
    })
}

#[test]
fn a_namespace_with_the_restricted_profile_refuses_a_privileged_pod_and_takes_a_restricted_one() -> anyhow::Result<()> {
    isolated(
        "pods::a_namespace_with_the_restricted_profile_refuses_a_privileged_pod_and_takes_a_restricted_one",
        async || {
            let node = Node::start().await?;
            let namespace = json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": { "name": "strict", "labels": { "pod-security.kubernetes.io/enforce": "restricted" } },
            });
            node.told(&["create", "-f", "-"], &namespace.to_string()).await?;
            let account = ["--namespace", "strict", "get", "serviceaccount", "default"];
            until("the namespace has its account", SOON, async || node.told(&account, "").await.ok()).await?;
            let create = ["--namespace", "strict", "create", "-f", "-"];
            let refused = node.kubectl(&create, &pod("bold", &json!({ "privileged": true })).to_string()).await?;
            ensure!(!refused.status.success() && refused.stderr.contains("violates PodSecurity"), "{}", refused.stderr);
            node.told(&create, &pod("modest", &restricted()).to_string()).await?;
            Ok(())
        },
    )
}

fn pod(name: &str, security: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "restartPolicy": "Never",
            "containers": [{
                "name": "main",
                "image": format!("localhost/{name}:dev"),
                "imagePullPolicy": "Never",
                "securityContext": security,
            }],
        },
    })
}

/// What the restricted profile asks for.
fn restricted() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
        "runAsNonRoot": true,
        "readOnlyRootFilesystem": true,
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}
