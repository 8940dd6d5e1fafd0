//! The log: one line per decision, with policy, namespace and a reason that docs/operations.md explains.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use epochwarden::api::condition::{AuditClean, FenceCurrent, PruneHealthy, Ready, Reason, StoreReady};
use epochwarden_testkit::wait::until;
use serde_json::{Value, json};

use crate::docs;
use crate::support::bucket::Bucket;
use crate::support::lease::Leader;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{SOON, cluster};

fn names<R: Reason>() -> impl Iterator<Item = String> {
    R::ALL.iter().map(|reason| reason.as_str().to_owned())
}

/// The reasons of conditions, and those that the documentation gives the log alone.
fn documented() -> Result<BTreeSet<String>> {
    let conditions = names::<Ready>()
        .chain(names::<StoreReady>())
        .chain(names::<FenceCurrent>())
        .chain(names::<PruneHealthy>())
        .chain(names::<AuditClean>());
    Ok(docs::table("The log")?.into_keys().chain(conditions).collect())
}

/// The fields of every line. Every line has to be one JSON object.
fn lines(log: &str) -> Result<Vec<Value>> {
    log.lines()
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
            Ok(line["fields"].take())
        })
        .collect()
}

fn text<'a>(line: &'a Value, field: &str) -> &'a str {
    line[field].as_str().unwrap_or_default()
}

/// How many lines about a policy give a reason and say this.
fn count(lines: &[Value], policy: &str, reason: &str, says: &str) -> usize {
    let one = |line: &&Value| {
        text(line, "policy") == policy && text(line, "reason") == reason && text(line, "message").contains(says)
    };
    lines.iter().filter(one).count()
}

#[tokio::test]
async fn each_decision_is_a_line_with_policy_namespace_and_a_documented_reason() -> Result<()> {
    let cluster = cluster().await?;
    let bucket = Bucket::folder()?;
    bucket.seal(1..=4, 2).await?;
    let namespace = cluster.namespace("logs").await?;
    let root = bucket.path()?.display().to_string();
    let flags = ["--allow-file-root", &root, "--log-format", "json"];
    let operator = Operator::start_with(cluster, &namespace, &flags, &[("RUST_LOG", "info")]).await?;

    let leader = Leader::new(cluster.client().await?, &namespace, "leader");
    leader.lead("pod-a-1", 6).await?;
    let spec = json!({
        "store": bucket.store(None),
        "vnodes": 2,
        "fence": { "leaseRef": { "name": "leader" } },
        "retention": { "keepLast": 2 },
        "prune": { "minAge": "0s" },
    });
    let policy = Policy::apply(cluster, &namespace, "orders", spec).await?;
    policy.wait_for("FenceCurrent", "Published").await?;
    policy.ask("prune@1").await?;
    policy.wait_for("PruneHealthy", "Succeeded").await?;
    // Two that find the same: the second is a decision, too.
    for run in 1..=2 {
        policy.ask(&format!("audit@{run}")).await?;
        let asked = format!("audit@{run}");
        policy
            .wait_until("the audit", |status| {
                (status["lastRunRequest"] == asked.as_str() && status["audit"]["phase"] == "Succeeded").then_some(())
            })
            .await?;
    }
    policy.ask("compact").await?;
    policy.wait_until("the word", |status| (status["lastRunRequest"] == "compact").then_some(())).await?;
    leader.lead("pod-b-1", 2).await?;
    policy.wait_for("FenceCurrent", "LeaseRegressed").await?;
    // Its Event is StoreUnreachable, as for every store that cannot be used.
    let keyless =
        json!({ "store": { "url": "s3://state", "credentials": { "secretRef": { "name": "none" } } }, "vnodes": 2 });
    let keyless = Policy::apply(cluster, &namespace, "keyless", keyless).await?;
    keyless.wait_for("StoreReady", "SecretNotFound").await?;
    keyless.wait_for_event("StoreUnreachable").await?;
    policy.delete().await?;
    let ended = async || {
        let lines = lines(&operator.log()).ok()?;
        (count(&lines, "orders", "Deleted", "its bucket stays") == 1).then_some(lines)
    };
    let lines = until("the end of the work", SOON, ended).await.with_context(|| operator.log())?;

    for (policy, reason, says, times) in [
        ("orders", "Started", "working for the policy", 1),
        ("orders", "Reachable", "can be used", 1),
        ("orders", "Probed", "the store was probed", 1),
        ("orders", "Published", "the fence is at version 7", 1),
        ("orders", "Published", "looks like the bare name of a pod", 1),
        ("orders", "Running", "deleting", 1),
        ("orders", "Succeeded", "", 1),
        ("orders", "Clean", "", 2),
        ("orders", "PruneFailed", "compact", 1),
        ("orders", "LeaseRegressed", "", 1),
        ("keyless", "Started", "", 1),
        ("keyless", "SecretNotFound", "", 1),
    ] {
        let found = count(&lines, policy, reason, says);
        ensure!(found == times, "{found} lines of {policy} are {reason}: {says}\n{}", operator.log());
    }
    let documented = documented()?;
    for line in &lines {
        // Whatever names a policy in its words is about one.
        let message = text(line, "message");
        let about = line.get("policy").is_some() || message.contains("orders") || message.contains("keyless");
        if !about {
            continue;
        }
        ensure!(["orders", "keyless"].contains(&text(line, "policy")), "{line} names no policy");
        ensure!(text(line, "namespace") == namespace, "{line} names no namespace");
        ensure!(documented.contains(text(line, "reason")), "the reason of {line} is not documented");
    }
    Ok(())
}

/// What is written with the macros of tracing has a reason wherever it names a policy: also what no scenario reaches.
#[test]
fn no_line_of_the_source_is_about_a_policy_and_has_no_reason() -> Result<()> {
    let documented = documented()?;
    let mut sources = BTreeMap::new();
    docs::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/controller")), "", &mut sources)?;
    let mut found = 0;
    for (module, source) in &sources {
        for start in ["tracing::error!(", "tracing::warn!(", "tracing::info!("] {
            let lines = source.split(start).skip(1).map(|line| line.split(");").next().unwrap_or_default());
            for line in lines.filter(|line| line.contains("policy")) {
                found += 1;
                ensure!(line.contains("reason"), "{module}: {line} has no reason");
                if let Some((_, literal)) = line.split_once("reason = \"") {
                    let reason = literal.split('"').next().unwrap_or_default();
                    ensure!(documented.contains(reason), "{module}: {reason} is not in docs/operations.md");
                }
            }
        }
    }
    ensure!(found > 15, "only {found} lines were found: they are written in another way now");
    Ok(())
}
