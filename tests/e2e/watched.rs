//! What a person sees who leaves `kubectl get sep -w` running, and what kstatus makes of each step.

use anyhow::{Result, ensure};
use epochwarden_testkit::process::Process;
use epochwarden_testkit::s3server::S3Server;
use epochwarden_testkit::wait::until;
use serde_json::{Value, json};

use crate::support::bucket::Bucket;
use crate::support::lease::Leader;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{SOON, cluster, secret};

const HEADER: &str = "NAME STORE FENCE LEADER LATEST SEALED AUDIT READY AGE";

/// All that may be shown, in this order.
const STEPS: [&str; 15] = [
    HEADER,
    "orders",
    "orders Pending Unknown",
    "orders Reachable True",
    "orders Reachable 6 6 True",
    "orders Reachable 1 pod-a True",
    "orders Reachable 1 pod-a 6 6 True",
    "orders Reachable 2 pod-b 6 6 True",
    // As a prune goes on.
    "orders Reachable 2 pod-b 6 5 True",
    "orders Reachable 2 pod-b 6 4 True",
    "orders Reachable 2 pod-b 6 3 True",
    "orders Reachable 2 pod-b 6 2 True",
    "orders Reachable 2 pod-b 6 2 Clean True",
    "orders BucketNotFound 2 pod-b 6 2 Clean False",
    "orders Reachable 2 pod-b 6 2 Clean True",
];

/// So often a line may come again, for a change that no column shows: a request for a run, its beginning, its progress and its end.
const REPEATED: usize = 10;

/// The lines that a watch has printed: each but its age, with one blank between its columns.
fn lines(watch: &Process) -> Vec<String> {
    let line = |line: &str| {
        let mut columns: Vec<&str> = line.split_whitespace().collect();
        if columns.first() != Some(&"NAME") {
            columns.pop();
        }
        columns.join(" ")
    };
    watch.log().lines().map(line).collect()
}

/// Waits until the watch's last line is this one.
async fn shows(watch: &Process, line: &str) -> Result<()> {
    let shown = until(line, SOON, async || (lines(watch).last().map(String::as_str) == Some(line)).then_some(())).await;
    shown.map_err(|error| error.context(watch.log()))
}

/// What a reader of kstatus says of a resource, by its rules: Failed while Stalled, `InProgress` while Reconciling or not observed yet.
fn kstatus(status: &Value, generation: i64) -> &'static str {
    let is = |type_: &str| {
        let conditions = status["conditions"].as_array().into_iter().flatten();
        conditions
            .into_iter()
            .find(|condition| condition["type"] == type_)
            .map(|condition| condition["status"] == "True")
    };
    if status["observedGeneration"] != generation || is("Reconciling") == Some(true) {
        "InProgress"
    } else if is("Stalled") == Some(true) {
        "Failed"
    } else if is("Ready") == Some(true) {
        "Current"
    } else {
        "InProgress"
    }
}

#[tokio::test]
async fn each_step_of_a_policy_reads_well_to_who_watches_it() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("watched").await?;
    let bucket = Bucket::s3(&namespace).await?;
    bucket.seal(1..=6, 2).await?;
    secret(cluster, &namespace, "orders-state", &bucket).await?;
    let _operator = Operator::start(cluster, &namespace, &[]).await?;
    let leader = Leader::new(cluster.client().await?, &namespace, "leader");
    leader.lead("pod-a", 0).await?;
    let log = tempfile::tempdir()?;
    let watch =
        cluster.kubectl_process(&["-n", &namespace, "get", "sep", "--watch"], &log.path().join("kubectl.log"))?;
    let spec = json!({
        "store": bucket.store(Some("orders-state")),
        "vnodes": 2,
        "fence": { "leaseRef": { "name": "leader" } },
        "retention": { "keepLast": 2 },
        "prune": { "minAge": "0s" },
        "audit": { "sealCheckEvery": "1s" },
    });
    let policy = Policy::apply(cluster, &namespace, "orders", spec).await?;
    let reads = async |expected: &str| {
        let status = policy.status().await?;
        let read = kstatus(&status, 1);
        ensure!(read == expected, "{read}: {:#}", status["conditions"]);
        Ok(())
    };

    shows(&watch, "orders Reachable 1 pod-a 6 6 True").await?;
    policy.kubectl(&["wait", "--for=condition=Ready", "sep/orders", "--timeout=30s"]).await?;
    reads("Current").await?;

    leader.lead("pod-b", 1).await?;
    shows(&watch, "orders Reachable 2 pod-b 6 6 True").await?;
    reads("Current").await?;

    policy.ask("prune").await?;
    policy.wait_for("PruneHealthy", "Succeeded").await?;
    shows(&watch, "orders Reachable 2 pod-b 6 2 True").await?;
    reads("Current").await?;

    policy.ask("audit").await?;
    shows(&watch, "orders Reachable 2 pod-b 6 2 Clean True").await?;
    reads("Current").await?;

    let here = S3Server::shared().await?.bucket_folder(&namespace);
    let away = here.with_extension("away");
    std::fs::rename(&here, &away)?;
    shows(&watch, "orders BucketNotFound 2 pod-b 6 2 Clean False").await?;
    policy.kubectl(&["wait", "--for=condition=Ready=false", "sep/orders", "--timeout=30s"]).await?;
    std::fs::rename(&away, &here)?;
    shows(&watch, "orders Reachable 2 pod-b 6 2 Clean True").await?;
    policy.kubectl(&["wait", "--for=condition=Ready", "sep/orders", "--timeout=30s"]).await?;
    reads("Current").await?;

    let seen = lines(&watch);
    let most = seen.chunk_by(|one, next| one == next).map(<[String]>::len).max().unwrap_or_default();
    ensure!(most <= REPEATED, "a line is repeated {most} times:\n{}", watch.log());
    // Some of it may pass too quickly to be shown; nothing may come back, and nothing else may come.
    let mut steps = STEPS.iter();
    let mut dedup = seen;
    dedup.dedup();
    for line in &dedup {
        ensure!(steps.any(|step| step == line), "{line:?} is out of order:\n{}", watch.log());
    }
    Ok(())
}
