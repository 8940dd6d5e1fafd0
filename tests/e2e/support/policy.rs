//! A policy under test, through kubectl and the API server.

use anyhow::{Context, ensure};
use epochwarden::api::StateEpochPolicy;
use epochwarden_testkit::apiserver::Cluster;
use epochwarden_testkit::wait::until;
use kube::Api;
use serde_json::{Value, json};

use super::SOON;

/// One policy in the API server.
pub(crate) struct Policy<'a> {
    cluster: &'a Cluster,
    api: Api<StateEpochPolicy>,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl<'a> Policy<'a> {
    /// Applies a policy with kubectl.
    pub(crate) async fn apply(cluster: &'a Cluster, namespace: &str, name: &str, spec: Value) -> anyhow::Result<Self> {
        let api = Api::namespaced(cluster.client().await?, namespace);
        let policy = Self { cluster, api, namespace: namespace.into(), name: name.into() };
        policy.update(spec).await?;
        Ok(policy)
    }

    /// Applies another spec.
    pub(crate) async fn update(&self, spec: Value) -> anyhow::Result<()> {
        let manifest = json!({
            "apiVersion": "epochwarden.io/v1alpha1",
            "kind": "StateEpochPolicy",
            "metadata": { "name": self.name, "namespace": self.namespace },
            "spec": spec,
        });
        let output = self.cluster.kubectl_stdin(&["apply", "-f", "-"], &manifest.to_string()).await?;
        ensure!(output.status.success(), "kubectl apply: {}", output.stderr);
        Ok(())
    }

    /// Asks for a run by the annotation.
    pub(crate) async fn ask(&self, request: &str) -> anyhow::Result<()> {
        let annotation = format!("epochwarden.io/run={request}");
        self.kubectl(&["annotate", "--overwrite", "sep", &self.name, &annotation]).await.map(drop)
    }

    pub(crate) async fn delete(&self) -> anyhow::Result<()> {
        self.kubectl(&["delete", "sep", &self.name, "--timeout=30s"]).await.map(drop)
    }

    /// kubectl in the policy's namespace; what it printed.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut all = vec!["-n", self.namespace.as_str()];
        all.extend(args);
        let output = self.cluster.kubectl(&all).await?;
        ensure!(output.status.success(), "kubectl {args:?}: {}", output.stderr);
        Ok(output.stdout)
    }

    /// The status, as JSON; null while there is none.
    pub(crate) async fn status(&self) -> anyhow::Result<Value> {
        let policy = self.api.get(&self.name).await?;
        Ok(serde_json::to_value(policy.status)?)
    }

    /// Waits until a condition has this reason, and returns its status and message.
    pub(crate) async fn wait_for(&self, type_: &str, reason: &str) -> anyhow::Result<(String, String)> {
        let found = until(&format!("condition {type_} with reason {reason}"), SOON, async || {
            let status = self.status().await.ok()?;
            let condition =
                status["conditions"].as_array()?.iter().find(|condition| condition["type"] == type_)?.clone();
            (condition["reason"] == reason).then(|| {
                let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
                (text("status"), text("message"))
            })
        })
        .await;
        match found {
            Ok(found) => Ok(found),
            Err(error) => Err(error).context(format!("the status is {:#}", self.status().await?)),
        }
    }

    /// Waits until the status satisfies `probe`.
    pub(crate) async fn wait_until<T>(&self, what: &str, probe: impl Fn(&Value) -> Option<T>) -> anyhow::Result<T> {
        let found = until(what, SOON, async || self.status().await.ok().and_then(|status| probe(&status))).await;
        match found {
            Ok(found) => Ok(found),
            Err(error) => Err(error).context(format!("the status is {:#}", self.status().await?)),
        }
    }

    /// The reasons of the Events of this policy, in no order.
    pub(crate) async fn events(&self) -> anyhow::Result<Vec<String>> {
        let field = format!("regarding.name={}", self.name);
        let events = self
            .kubectl(&["get", "events.events.k8s.io", "--field-selector", &field, "-o", "jsonpath={.items[*].reason}"])
            .await?;
        Ok(events.split_whitespace().map(str::to_owned).collect())
    }

    /// Waits until an Event with this reason is there.
    pub(crate) async fn wait_for_event(&self, reason: &str) -> anyhow::Result<()> {
        until(&format!("an Event {reason}"), SOON, async || {
            self.events().await.ok()?.iter().any(|event| event == reason).then_some(())
        })
        .await
    }
}
