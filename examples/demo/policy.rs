//! The policy, and waiting for what its status says.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, bail};
use epochwarden::api::{RUN_ANNOTATION, StateEpochPolicy, StateEpochPolicyStatus};
use futures::StreamExt;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;

use crate::cluster::Kube;
use crate::narrator;
use crate::store::Store;

pub(crate) const NAME: &str = "orders";
pub(crate) const LEASE: &str = "orders-leader";
pub(crate) const VNODES: u32 = 4;

/// What is applied. JSON is YAML, so the store fits in as it is.
pub(crate) fn manifest(store: &Store) -> String {
    format!(
        r#"
apiVersion: epochwarden.io/v1alpha1
kind: StateEpochPolicy
metadata:
  name: {NAME}
spec:
  store: {store}
  vnodes: {VNODES}
  fence:
    leaseRef:
      name: {LEASE}
  retention:
    keepLast: 3
  prune:
    schedule: "* * * * *"
    minAge: 0s
  audit:
    schedule: "@hourly"
"#,
        store = store.spec()
    )
}

/// The policy in the cluster.
pub(crate) struct Policy<'a> {
    kube: &'a Kube,
    api: Api<StateEpochPolicy>,
}

impl<'a> Policy<'a> {
    pub(crate) fn new(kube: &'a Kube) -> Self {
        Self { kube, api: Api::namespaced(kube.client(), kube.namespace()) }
    }

    /// The status as it is.
    pub(crate) async fn status(&self) -> anyhow::Result<StateEpochPolicyStatus> {
        let policy = self.api.get(NAME).await.context("reading the policy")?;
        Ok(policy.status.unwrap_or_default())
    }

    /// Watches the status until `probe` finds in it what it looks for.
    pub(crate) async fn wait<T>(
        &self,
        what: &str,
        deadline: Duration,
        mut probe: impl FnMut(&StateEpochPolicyStatus) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut last = None;
        let watched = async {
            let mut changes = pin!(watch_object(self.api.clone(), NAME).default_backoff());
            while let Some(change) = changes.next().await {
                // The watch goes on by itself after an error.
                let Ok(Some(policy)) = change else { continue };
                let status = policy.status.unwrap_or_default();
                if let Some(answer) = probe(&status) {
                    return Ok(answer);
                }
                last = Some(status);
            }
            bail!("the watch of the policy ended")
        };
        if let Ok(answer) = tokio::time::timeout(deadline, watched).await {
            return answer;
        }
        let stands = last.as_ref().map(conditions).filter(|conditions| !conditions.is_empty());
        bail!("{what}: not within {deadline:?}. The conditions:\n{}", stands.as_deref().unwrap_or("none"))
    }

    /// Asks for a run, now.
    pub(crate) async fn ask_for(&self, run: &str) -> anyhow::Result<()> {
        let annotation = format!("{RUN_ANNOTATION}={run}");
        self.kube.kubectl(&["annotate", "--overwrite", "sep", NAME, &annotation]).await.map(drop)
    }
}

/// The conditions as people read them: type, status and reason, and the message below.
pub(crate) fn conditions(status: &StateEpochPolicyStatus) -> String {
    let mut text = String::new();
    for condition in &status.conditions {
        let message = narrator::wrap(&condition.message).join("\n    ");
        let words = format!("{:<13} {:<8} {}\n    {message}\n", condition.type_, condition.status, condition.reason);
        text.push_str(&words);
    }
    text
}
