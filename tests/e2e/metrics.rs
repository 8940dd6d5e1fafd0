//! The metrics as they are scraped, against docs/operations.md: each is there with its type, unit, help and labels, and no other.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use epochwarden_testkit::wait::until;
use serde_json::json;

use crate::docs;
use crate::support::SOON;
use crate::support::bucket::Bucket;
use crate::support::lease::Leader;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{cluster, say};

/// What is known of a metric: its type, its unit, its help, and the labels of its series, those of its own kind aside.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    unit: Option<String>,
    help: String,
    labels: BTreeSet<String>,
}

/// What the series of a family may have behind its name.
const SUFFIXES: [&str; 6] = ["", "_total", "_count", "_sum", "_bucket", "_info"];

fn families(scrape: &str) -> Result<BTreeMap<String, Family>> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in scrape.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (Some(kind), Some(name)) = (words.next(), words.next()) else { continue };
            let family = families.entry(name.to_owned()).or_default();
            let rest = words.next().unwrap_or_default().to_owned();
            match kind {
                "TYPE" => family.kind = rest,
                "UNIT" => family.unit = Some(rest),
                "HELP" => family.help = rest,
                _ => anyhow::bail!("{line}"),
            }
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let family =
            SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix).filter(|name| families.contains_key(*name)));
        let family = family.with_context(|| format!("of no family: {line}"))?.to_owned();
        let labels = line.split_once('{').and_then(|(_, rest)| rest.split_once("} ")).map_or("", |(labels, _)| labels);
        let labels = labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        families.entry(family).or_default().labels.extend(labels.filter(|label| label != "le"));
    }
    families.remove("EOF");
    Ok(families)
}

/// A row of the table of metrics.
struct Row {
    kind: String,
    labels: BTreeSet<String>,
    means: String,
}

/// The table of metrics, by their names.
fn table() -> Result<BTreeMap<String, Row>> {
    let rows = docs::table("Metrics")?.into_iter().map(|(name, cells)| {
        let [_, kind, labels, means] = cells.as_slice() else { anyhow::bail!("{name}: {cells:?}") };
        let labels = labels.split(", ").map(|label| label.trim_matches('`').to_owned()).filter(|label| label != "-");
        Ok((name, Row { kind: kind.clone(), labels: labels.collect(), means: means.clone() }))
    });
    rows.collect()
}

#[tokio::test]
async fn every_metric_is_scraped_as_it_is_documented_and_those_of_a_policy_vanish_with_it() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("metrics").await?;
    // In the one something to find, in the other nothing that could be restored.
    let (damaged, hopeless, slow) = (Bucket::folder()?, Bucket::folder()?, Bucket::folder()?);
    for (bucket, last) in [(&damaged, 6), (&hopeless, 6), (&slow, 60)] {
        bucket.seal(1..=last, 2).await?;
    }
    damaged.lose_partial(5, 1).await?;
    for epoch in 1..=6 {
        hopeless.lose_partial(epoch, 1).await?;
    }
    let roots = [damaged.path()?, hopeless.path()?, slow.path()?].map(|root| root.display().to_string());
    let flags: Vec<&str> = roots.iter().flat_map(|root| ["--allow-file-root", root]).collect();
    let leader = Leader::new(cluster.client().await?, &namespace, "orders-leader");
    leader.lead("pod-a", 0).await?;
    let operator = Operator::start(cluster, &namespace, &flags).await?;
    let before = families(&operator.get("/metrics").await?.1)?;
    let mut policies = Vec::new();
    for (bucket, name, prune) in [(&damaged, "damaged", "Succeeded"), (&hopeless, "hopeless", "Held")] {
        let spec = json!({
            "store": bucket.store(None),
            "vnodes": 2,
            "fence": { "leaseRef": { "name": "orders-leader" } },
            "retention": { "keepLast": 2 },
            "prune": { "minAge": "0s" },
        });
        let policy = Policy::apply(cluster, &namespace, name, spec).await?;
        policy.wait_for("FenceCurrent", "Published").await?;
        policy.ask("audit@1").await?;
        policy.wait_for("AuditClean", "Findings").await?;
        policy.ask("prune@2").await?;
        policy.wait_for("PruneHealthy", prune).await?;
        policies.push(policy);
    }

    // What it may delete in a second is there while it deletes.
    let spec = json!({
        "store": slow.store(None),
        "vnodes": 2,
        "fence": { "leaseRef": { "name": "orders-leader" } },
        "retention": { "keepLast": 1 },
        "prune": { "minAge": "0s", "maxKeysPerSecond": 1 },
    });
    let policy = Policy::apply(cluster, &namespace, "slow", spec).await?;
    policy.wait_for("FenceCurrent", "Published").await?;
    policy.ask("prune@1").await?;
    let limit = format!("epochwarden_store_keys_per_second_limit{{bucket=\"{}\"}} 1\n", slow.url);
    until("the limit of the bucket", SOON, async || {
        let (_, scrape) = operator.get("/metrics").await.ok()?;
        scrape.contains(&limit).then_some(())
    })
    .await?;
    policies.push(policy);

    let documented = table()?;
    let (_, scrape) = operator.get("/metrics").await?;
    let scraped = families(&scrape)?;
    for (name, family) in &scraped {
        let unit = ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(&format!("_{unit}")));
        ensure!(family.unit.as_deref() == unit, "{name}: the unit is {:?}", family.unit);
        ensure!(!family.help.is_empty(), "{name} has no help");
        let row = documented.get(name).with_context(|| format!("{name} is not in docs/operations.md"))?;
        ensure!(row.kind == family.kind && !row.means.is_empty(), "{name}: {} {:?}", family.kind, row.kind);
        ensure!(row.labels == family.labels, "{name} has the labels {:?}", family.labels);
    }
    for name in documented.keys() {
        ensure!(scraped.contains_key(name), "{name} is documented and not scraped:\n{scrape}");
    }

    for policy in &policies {
        policy.delete().await?;
    }
    let left = until("no series of the policy", SOON, async || {
        let (_, scrape) = operator.get("/metrics").await.ok()?;
        (!scrape.contains("policy=\"") && !scrape.contains("bucket=\"")).then_some(scrape)
    })
    .await?;
    for (name, family) in families(&left)? {
        ensure!(!family.labels.contains("namespace"), "{name}: {:?}", family.labels);
    }
    say(&format!("{} metrics, {} of them before there was a policy", scraped.len(), before.len()))?;
    Ok(())
}
