//! What the alert rules and the dashboard ask for, against what an operator really shows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use epochwarden::api::condition::{AuditClean, FenceCurrent, PruneHealthy, Ready, Reason, StoreReady};
use epochwarden_core::finding::FindingKind;
use epochwarden_testkit::wait::until;
use serde_json::{Value, json};

use super::alerts;
use super::helm::{only, rendered};
use crate::support::bucket::Bucket;
use crate::support::lease::Leader;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{cluster, secret};

const SOON: Duration = Duration::from_secs(30);

/// Labels that Prometheus adds to what it scrapes.
const OF_THE_TARGET: [&str; 2] = ["namespace", "pod"];

/// A metric that a query names, with its matchers.
#[derive(Debug)]
struct Asked {
    metric: String,
    matchers: Vec<(String, String)>,
}

/// What is before the first character that no name has.
fn word(text: &str) -> &str {
    let end = text.find(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    text.get(..end.unwrap_or(text.len())).unwrap_or_default()
}

/// `name="value"` and the like, up to the closing brace.
fn matchers(mut text: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    loop {
        text = text.trim_start_matches(|character: char| character == ',' || character.is_whitespace());
        if text.starts_with('}') {
            return Ok(found);
        }
        let name = word(text);
        let (_, quoted) = text.split_once('"').context("a matcher without a value")?;
        let (value, rest) = quoted.split_once('"').context("a matcher without an end")?;
        found.push((name.to_owned(), value.to_owned()));
        text = rest;
    }
}

/// The metrics that a query names.
fn metrics(query: &str) -> Result<Vec<Asked>> {
    let starts = query.match_indices("epochwarden_").map(|(start, _)| start);
    let asked = starts.map(|start| {
        let text = query.get(start..).unwrap_or_default();
        let metric = word(text);
        let rest = text.get(metric.len()..).unwrap_or_default();
        let matchers = rest.strip_prefix('{').map(matchers).transpose()?.unwrap_or_default();
        Ok(Asked { metric: metric.to_owned(), matchers })
    });
    asked.collect()
}

/// The labels by which a query groups or joins.
fn groups(query: &str) -> BTreeSet<&str> {
    let lists = ["by (", "on ("].into_iter().flat_map(|word| query.split(word).skip(1));
    lists.flat_map(|list| list.split(')').next().unwrap_or_default().split(',').map(str::trim)).collect()
}

/// The queries of the rules and of the dashboard, and where each is from.
async fn queries() -> Result<Vec<(String, String)>> {
    let mut queries = Vec::new();
    for rule in alerts::rules().await? {
        queries.push((rule["alert"].to_string(), rule["expr"].as_str().context("expr")?.to_owned()));
    }
    let documents = rendered(&["--set", "dashboard.enabled=true"]).await?;
    let text = only(&documents, "ConfigMap")?["data"]["epochwarden.json"].as_str().context("the dashboard")?.to_owned();
    let dashboard: Value = serde_json::from_str(&text)?;
    for panel in dashboard["panels"].as_array().context("panels")? {
        if panel["type"] == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().context("targets")?;
        ensure!(!targets.is_empty(), "{} shows nothing", panel["title"]);
        for target in targets {
            queries.push((panel["title"].to_string(), target["expr"].as_str().context("expr")?.to_owned()));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().context("variables")? {
        if let Some(query) = variable["definition"].as_str() {
            queries.push((variable["name"].to_string(), query.to_owned()));
        }
    }
    Ok(queries)
}

/// The names of a scrape, each with the labels that all of its series have.
fn scraped(text: &str) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = word(line);
        let labels = line.get(name.len()..).and_then(|rest| rest.strip_prefix('{')).map(matchers).transpose()?;
        let labels: BTreeSet<String> = labels.into_iter().flatten().map(|(name, _)| name).collect();
        match found.get_mut(name) {
            Some(known) => known.retain(|label| labels.contains(label)),
            None => drop(found.insert(name.to_owned(), labels)),
        }
    }
    Ok(found)
}

/// The values that a label of a condition or finding can have.
fn words(label: &str) -> Option<BTreeSet<&'static str>> {
    fn all<R: Reason>() -> impl Iterator<Item = &'static str> {
        R::ALL.iter().map(|reason| reason.as_str())
    }
    match label {
        "type" => Some(
            [
                Ready::TYPE,
                StoreReady::TYPE,
                FenceCurrent::TYPE,
                PruneHealthy::TYPE,
                AuditClean::TYPE,
                "Stalled",
                "Reconciling",
            ]
            .into(),
        ),
        "reason" => {
            let reasons = all::<Ready>().chain(all::<StoreReady>()).chain(all::<FenceCurrent>());
            Some(reasons.chain(all::<PruneHealthy>()).chain(all::<AuditClean>()).collect())
        }
        "kind" => Some(FindingKind::ALL.into_iter().map(FindingKind::as_str).collect()),
        _ => None,
    }
}

/// An operator that has fenced, pruned, audited and held, and prunes again: what it then shows.
async fn scrape() -> Result<String> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("scrape").await?;
    let bucket = Bucket::s3(&namespace).await?;
    bucket.seal(1..=9, 4).await?;
    let lost = Bucket::s3(&format!("{namespace}-lost")).await?;
    lost.seal(1..=3, 4).await?;
    let busy = Bucket::s3(&format!("{namespace}-busy")).await?;
    busy.seal(1..=60, 1).await?;
    secret(cluster, &namespace, "state", &bucket).await?;
    let operator = Operator::start(cluster, &namespace, &[]).await?;
    let spec = |bucket: &Bucket, vnodes: u32| {
        json!({
            "store": bucket.store(Some("state")),
            "vnodes": vnodes,
            "fence": { "leaseRef": { "name": "leader" } },
            "retention": { "keepLast": 1 },
            "prune": { "minAge": "0s" },
        })
    };
    let leader = Leader::new(cluster.client().await?, &namespace, "leader");
    leader.lead("pod-1", 3).await?;
    let orders = Policy::apply(cluster, &namespace, "orders", spec(&bucket, 4)).await?;
    orders.wait_for("FenceCurrent", "Published").await?;
    orders.ask("prune").await?;
    orders.wait_for("PruneHealthy", "Succeeded").await?;
    orders.ask("audit").await?;
    orders.wait_for("AuditClean", "Clean").await?;
    // No epoch has five partials.
    let held = Policy::apply(cluster, &namespace, "held", spec(&lost, 5)).await?;
    held.wait_for("Ready", "Reachable").await?;
    held.ask("prune").await?;
    held.wait_for("PruneHealthy", "Held").await?;
    let mut slow = spec(&busy, 1);
    slow["prune"]["maxKeysPerSecond"] = 1.into();
    let slow = Policy::apply(cluster, &namespace, "slow", slow).await?;
    slow.wait_for("Ready", "Reachable").await?;
    slow.ask("prune").await?;
    // Some series are there only while a prune deletes.
    until("a prune that deletes", SOON, async || {
        let (status, text) = operator.get("/metrics").await.ok()?;
        (status == 200 && text.contains("epochwarden_store_keys_per_second_limit{")).then_some(text)
    })
    .await
}

#[tokio::test]
async fn every_metric_that_an_alert_or_the_dashboard_asks_for_is_shown_with_its_labels() -> Result<()> {
    let shown = scraped(&scrape().await?)?;
    let mut seen = 0;
    for (whose, query) in queries().await? {
        let asked = metrics(&query)?;
        ensure!(!asked.is_empty(), "{whose} asks for no metric of the operator: {query}");
        for Asked { metric, matchers } in asked {
            let Some(labels) = shown.get(&metric) else { bail!("{whose} asks for {metric}, which is not shown") };
            let has = |label: &str| labels.contains(label) || (labels.is_empty() && OF_THE_TARGET.contains(&label));
            for label in groups(&query) {
                ensure!(has(label), "{whose} groups by {label}, which {metric} does not have: {labels:?}");
            }
            for (label, value) in matchers {
                ensure!(has(&label), "{whose} asks for {label}, which {metric} does not have: {labels:?}");
                let Some(words) = words(&label) else { continue };
                for word in value.split('|') {
                    ensure!(words.contains(word), "{whose}: no {label} is {word}");
                }
            }
            seen += 1;
        }
    }
    ensure!(seen > 30, "only {seen} metrics were looked at");
    Ok(())
}

#[tokio::test]
async fn every_metric_that_the_documentation_names_is_on_the_dashboard() -> Result<()> {
    let asked: BTreeSet<String> = queries()
        .await?
        .iter()
        .map(|(_, query)| metrics(query))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .map(|asked| asked.metric)
        .collect();
    let operations = include_str!("../../docs/operations.md");
    let rows = operations.lines().filter_map(|line| line.strip_prefix("| `epochwarden_"));
    let mut known = 0;
    for row in rows {
        let metric = format!("epochwarden_{}", word(row));
        let forms = ["", "_total", "_bucket", "_info"].map(|end| format!("{metric}{end}"));
        ensure!(forms.iter().any(|form| asked.contains(form)), "nobody looks at {metric}");
        known += 1;
    }
    ensure!(known > 15, "the documentation has a table of {known} metrics");
    Ok(())
}
