//! The alert rules, by promtool: each fires when it should, and is quiet when it should be.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::helm::{only, rendered, said, tool};

/// What is to become of an alert.
enum Then {
    /// It fires with these labels, beside its severity, for a value that is written so.
    Fires(&'static [(&'static str, &'static str)], &'static str),
    Quiet,
}

use Then::{Fires, Quiet};

/// An alert at a time, given series with a sample every 15 s.
type Case<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, &'a str)], Then);

const ORDERS: &[(&str, &str)] = &[("namespace", "streaming"), ("policy", "orders")];

macro_rules! with_reason {
    ($reason:literal) => {
        Fires(&[("namespace", "streaming"), ("policy", "orders"), ("reason", $reason)], "")
    };
}

macro_rules! condition {
    ($type_:literal, $reason:literal) => {
        concat!(
            "epochwarden_condition{namespace=\"streaming\",policy=\"orders\",pod=\"a\",type=\"",
            $type_,
            "\",reason=\"",
            $reason,
            "\"}"
        )
    };
}

macro_rules! leader {
    ($namespace:literal, $pod:literal) => {
        concat!("epochwarden_leader{namespace=\"", $namespace, "\",pod=\"", $pod, "\"}")
    };
}

const LAG: &str = "epochwarden_fence_last_lag_seconds{namespace=\"streaming\",policy=\"orders\",pod=\"a\"}";
const VERSION: &str = "epochwarden_fence_version{namespace=\"streaming\",policy=\"orders\",pod=\"a\"}";
const STALLED: &str = "epochwarden_audit_findings{namespace=\"streaming\",policy=\"orders\",kind=\"StalledSealing\"}";
const LEAKS: &str = "epochwarden_audit_findings{namespace=\"streaming\",policy=\"orders\",kind=\"Leak\"}";

const CASES: &[Case<'static>] = &[
    (
        "EpochwardenNoLeader",
        "nobody leads",
        "3m",
        &[
            (leader!("home", "guard-epochwarden-7d9f8b6c5d-abcde"), "0x40"),
            (leader!("home", "guard-epochwarden-7d9f8b6c5d-fghij"), "0x40"),
        ],
        Fires(&[], ""),
    ),
    ("EpochwardenNoLeader", "nobody is scraped", "3m", &[], Fires(&[], "")),
    (
        "EpochwardenNoLeader",
        "only others lead",
        "3m",
        &[
            (leader!("elsewhere", "guard-epochwarden-7d9f8b6c5d-abcde"), "1x40"),
            (leader!("home", "guard-epochwarden-two-7d9f8b6c5d-abcde"), "1x40"),
        ],
        Fires(&[], ""),
    ),
    (
        "EpochwardenNoLeader",
        "one of two leads",
        "3m",
        &[
            (leader!("home", "guard-epochwarden-7d9f8b6c5d-abcde"), "0x40"),
            (leader!("home", "guard-epochwarden-7d9f8b6c5d-fghij"), "1x40"),
        ],
        Quiet,
    ),
    (
        "EpochwardenNoLeader",
        "another leads soon enough",
        "5m",
        &[
            (leader!("home", "guard-epochwarden-7d9f8b6c5d-abcde"), "1x4 0x40"),
            (leader!("home", "guard-epochwarden-7d9f8b6c5d-fghij"), "0x8 1x40"),
        ],
        Quiet,
    ),
    ("EpochwardenFenceLag", "a slow move", "3m", &[(LAG, "0.2x4 30x40"), (VERSION, "7x4 8x40")], Fires(ORDERS, "30s")),
    ("EpochwardenFenceLag", "a quick move", "3m", &[(LAG, "0.2x40"), (VERSION, "7x4 8x40")], Quiet),
    ("EpochwardenFenceLag", "at the limit", "3m", &[(LAG, "10x40"), (VERSION, "7x4 8x40")], Quiet),
    ("EpochwardenFenceLag", "a slow move long ago", "20m", &[(LAG, "0.2x4 30x100"), (VERSION, "7x4 8x100")], Quiet),
    (
        "EpochwardenFenceNotPublished",
        "the store takes no record",
        "2m",
        &[(condition!("FenceCurrent", "PublishFailed"), "0x40")],
        with_reason!("PublishFailed"),
    ),
    (
        "EpochwardenFenceNotPublished",
        "there is no store",
        "2m",
        &[(condition!("FenceCurrent", "StoreNotReady"), "0x40")],
        with_reason!("StoreNotReady"),
    ),
    (
        "EpochwardenFenceNotPublished",
        "for a moment",
        "2m",
        &[
            (condition!("FenceCurrent", "PublishFailed"), "0x1 stale"),
            (condition!("FenceCurrent", "Published"), "_x1 1x40"),
        ],
        Quiet,
    ),
    (
        "EpochwardenFenceRegressed",
        "a Lease that starts over",
        "2m",
        &[(condition!("FenceCurrent", "LeaseRegressed"), "0x40")],
        with_reason!("LeaseRegressed"),
    ),
    (
        "EpochwardenFenceRegressed",
        "two holders of a version",
        "2m",
        &[(condition!("FenceCurrent", "FenceConflict"), "0x40")],
        with_reason!("FenceConflict"),
    ),
    (
        "EpochwardenFenceRegressed",
        "a jump",
        "2m",
        &[(condition!("FenceCurrent", "VersionJump"), "0x40")],
        with_reason!("VersionJump"),
    ),
    (
        "EpochwardenFenceRegressed",
        "no version",
        "2m",
        &[(condition!("FenceCurrent", "InvalidVersion"), "0x40")],
        with_reason!("InvalidVersion"),
    ),
    ("EpochwardenFenceRegressed", "all is well", "2m", &[(condition!("FenceCurrent", "Published"), "1x40")], Quiet),
    (
        "EpochwardenFenceRegressed",
        "a leader that is between two terms",
        "2m",
        &[(condition!("FenceCurrent", "NoHolder"), "0x40")],
        Quiet,
    ),
    (
        "EpochwardenRegisterLost",
        "records are gone",
        "1m",
        &[(condition!("Ready", "RegisterLost"), "0x40")],
        Fires(ORDERS, ""),
    ),
    ("EpochwardenRegisterLost", "all are there", "1m", &[(condition!("Ready", "Reachable"), "1x40")], Quiet),
    ("EpochwardenSealsStalled", "no seals", "2m", &[(STALLED, "0x2 1x40")], Fires(ORDERS, "")),
    ("EpochwardenSealsStalled", "seals again", "5m", &[(STALLED, "1x8 0x40")], Quiet),
    ("EpochwardenSealsStalled", "another finding", "2m", &[(STALLED, "0x40"), (LEAKS, "9x40")], Quiet),
    ("EpochwardenAuditCritical", "damage", "1m", &[(condition!("AuditClean", "Findings"), "0x40")], Fires(ORDERS, "")),
    ("EpochwardenAuditCritical", "warnings", "1m", &[(condition!("AuditClean", "Warnings"), "1x40")], Quiet),
    ("EpochwardenAuditCritical", "not audited yet", "1m", &[(condition!("AuditClean", "Pending"), "0x40")], Quiet),
    (
        "EpochwardenAuditFailing",
        "for long",
        "31m",
        &[(condition!("AuditClean", "Failed"), "0x200")],
        with_reason!("Failed"),
    ),
    (
        "EpochwardenAuditFailing",
        "a schedule that means nothing",
        "31m",
        &[(condition!("AuditClean", "InvalidSchedule"), "0x200")],
        with_reason!("InvalidSchedule"),
    ),
    ("EpochwardenAuditFailing", "not for long", "29m", &[(condition!("AuditClean", "Failed"), "0x200")], Quiet),
    ("EpochwardenPruneHeld", "held", "16m", &[(condition!("PruneHealthy", "Held"), "0x200")], with_reason!("Held")),
    (
        "EpochwardenPruneHeld",
        "very much to delete",
        "16m",
        &[(condition!("PruneHealthy", "MassDeletion"), "0x200")],
        with_reason!("MassDeletion"),
    ),
    ("EpochwardenPruneHeld", "not for long", "14m", &[(condition!("PruneHealthy", "Held"), "0x200")], Quiet),
    (
        "EpochwardenPruneHeld",
        "waits because it was told to",
        "16m",
        &[(condition!("PruneHealthy", "AwaitingApproval"), "1x200")],
        Quiet,
    ),
    (
        "EpochwardenPruneFailing",
        "for long",
        "31m",
        &[(condition!("PruneHealthy", "Failed"), "0x200")],
        with_reason!("Failed"),
    ),
    (
        "EpochwardenPruneFailing",
        "in parts",
        "31m",
        &[(condition!("PruneHealthy", "PartlyFailed"), "0x200")],
        with_reason!("PartlyFailed"),
    ),
    (
        "EpochwardenPruneFailing",
        "a schedule that means nothing",
        "31m",
        &[(condition!("PruneHealthy", "InvalidSchedule"), "0x200")],
        with_reason!("InvalidSchedule"),
    ),
    ("EpochwardenPruneFailing", "not for long", "29m", &[(condition!("PruneHealthy", "Failed"), "0x200")], Quiet),
    (
        "EpochwardenPruneFallingBehind",
        "for long",
        "16m",
        &[(condition!("PruneHealthy", "FallingBehind"), "0x200")],
        Fires(ORDERS, ""),
    ),
    (
        "EpochwardenPruneFallingBehind",
        "catches up",
        "16m",
        &[
            (condition!("PruneHealthy", "FallingBehind"), "0x20 stale"),
            (condition!("PruneHealthy", "Succeeded"), "_x20 1x200"),
        ],
        Quiet,
    ),
    (
        "EpochwardenStoreUnreachable",
        "for long",
        "6m",
        &[(condition!("StoreReady", "Unreachable"), "0x200")],
        Fires(ORDERS, ""),
    ),
    (
        "EpochwardenStoreUnreachable",
        "for a moment",
        "6m",
        &[(condition!("StoreReady", "Unreachable"), "0x8 stale"), (condition!("StoreReady", "Reachable"), "_x8 1x200")],
        Quiet,
    ),
    (
        "EpochwardenStoreUnusable",
        "refused",
        "6m",
        &[(condition!("StoreReady", "AccessDenied"), "0x200")],
        with_reason!("AccessDenied"),
    ),
    (
        "EpochwardenStoreUnusable",
        "another's",
        "6m",
        &[(condition!("StoreReady", "RootConflict"), "0x200")],
        with_reason!("RootConflict"),
    ),
    ("EpochwardenStoreUnusable", "not tried yet", "6m", &[(condition!("StoreReady", "Pending"), "0x200")], Quiet),
    ("EpochwardenStoreUnusable", "used", "6m", &[(condition!("StoreReady", "Reachable"), "1x200")], Quiet),
];

/// The rules of the chart.
pub(super) async fn rules() -> Result<Vec<Value>> {
    rules_with("prometheusRule.enabled=true").await
}

async fn rules_with(values: &str) -> Result<Vec<Value>> {
    let documents = rendered(&["--set", values]).await?;
    let groups = &only(&documents, "PrometheusRule")?["spec"]["groups"];
    Ok(groups[0]["rules"].as_array().context("there are no rules")?.clone())
}

/// A text of a rule, with what Prometheus writes into it.
fn told(template: &Value, labels: &[(&str, &str)], value: &str) -> String {
    let template = template.as_str().unwrap_or_default().replace("{{ $value | humanizeDuration }}", value);
    labels.iter().fold(template, |text, (name, value)| text.replace(&format!("{{{{ $labels.{name} }}}}"), value))
}

fn test(rule: &Value, (alert, what, at, series, then): &Case<'_>) -> Value {
    let expected: Vec<Value> = match then {
        Quiet => Vec::new(),
        Fires(labels, value) => {
            let mut all = json!({ "severity": rule["labels"]["severity"] });
            for (name, value) in *labels {
                all[*name] = json!(value);
            }
            let text = |name: &str| told(&rule["annotations"][name], labels, value);
            let annotations = json!({ "summary": text("summary"), "description": text("description") });
            vec![json!({ "exp_labels": all, "exp_annotations": annotations })]
        }
    };
    let series: Vec<Value> =
        series.iter().map(|(series, values)| json!({ "series": series, "values": values })).collect();
    json!({
        "name": format!("{alert}: {what}"),
        "interval": "15s",
        "input_series": series,
        "alert_rule_test": [{ "eval_time": at, "alertname": alert, "exp_alerts": expected }],
    })
}

#[tokio::test]
async fn every_alert_fires_when_it_should_and_is_quiet_when_it_should_be() -> Result<()> {
    let rules = rules().await?;
    let names: BTreeSet<&str> = rules.iter().filter_map(|rule| rule["alert"].as_str()).collect();
    ensure!(names.len() == rules.len(), "two rules share a name");
    for quiet in [false, true] {
        let tried = CASES.iter().filter(|(.., then)| matches!(then, Quiet) == quiet);
        let tried: BTreeSet<&str> = tried.map(|(alert, ..)| *alert).collect();
        ensure!(tried == names, "tried quiet {quiet}: {tried:?}, there are {names:?}");
    }
    let mut tests = Vec::new();
    for case in CASES {
        let rule = rules.iter().find(|rule| rule["alert"] == case.0).context(case.0)?;
        tests.push(test(rule, case));
    }

    hold_by_promtool(&rules, tests).await
}

/// A name of the release that is so long that the names of its pods are cut: the API server leaves 58 characters before its five.
#[tokio::test]
async fn the_pods_of_a_release_with_a_long_name_are_known_as_its_own() -> Result<()> {
    for length in [46, 47, 52] {
        let name = "n".repeat(length);
        let pod = |set: &str| format!("{:.58}abcde", format!("{name}-{set}-"));
        let rules = rules_with(&format!("prometheusRule.enabled=true,fullnameOverride={name}")).await?;
        let rule = rules.iter().find(|rule| rule["alert"] == "EpochwardenNoLeader").context("no such rule")?;
        let leads = |pod: &str| format!("epochwarden_leader{{namespace=\"home\",pod=\"{pod}\"}}");
        let (own, other) = (leads(&pod("7d9f8b6c5d")), leads(&format!("{name}-two-7d9f8b6c5d-abcde")));
        let tests = vec![
            test(rule, &("EpochwardenNoLeader", "one with a long name leads", "3m", &[(&own, "1x40")], Quiet)),
            test(rule, &("EpochwardenNoLeader", "another's leads", "3m", &[(&other, "1x40")], Fires(&[], ""))),
        ];
        hold_by_promtool(&rules, tests).await.with_context(|| format!("{own} {other}"))?;
    }
    Ok(())
}

async fn hold_by_promtool(rules: &[Value], tests: Vec<Value>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (rules_file, tests_file) = (folder.path().join("rules.json"), folder.path().join("tests.json"));
    // JSON is YAML.
    fs::write(&rules_file, json!({ "groups": [{ "name": "epochwarden", "rules": rules }] }).to_string())?;
    let tests = json!({ "rule_files": ["rules.json"], "evaluation_interval": "15s", "tests": tests });
    fs::write(&tests_file, tests.to_string())?;
    let promtool = async |args: &[&str], file| {
        let mut command = tool("promtool")?;
        command.args(args).arg(file).current_dir(folder.path());
        said(command).await
    };
    let checked = promtool(&["check", "rules", "--lint=all", "--lint-fatal"], &rules_file).await?;
    ensure!(checked.success, "{}{}", checked.stdout, checked.stderr);
    let tested = promtool(&["test", "rules"], &tests_file).await?;
    ensure!(tested.success, "{}{}", tested.stdout, tested.stderr);
    Ok(())
}

#[tokio::test]
async fn every_alert_is_in_the_documentation_and_leads_to_a_section_that_is_there() -> Result<()> {
    let (install, operations) = (include_str!("../../docs/install.md"), include_str!("../../docs/operations.md"));
    let rules = rules().await?;
    let names: BTreeSet<&str> = rules.iter().filter_map(|rule| rule["alert"].as_str()).collect();
    let rows = install.lines().filter_map(|line| line.strip_prefix("| `Epochwarden")?.split('`').next());
    let rows: BTreeSet<String> = rows.map(|name| format!("Epochwarden{name}")).collect();
    ensure!(rows.iter().map(String::as_str).eq(names), "the documentation has {rows:?}");
    let mut sections = 0;
    for rule in &rules {
        let description = rule["annotations"]["description"].as_str().context("a description")?;
        for section in description.split('"').skip(1).step_by(2) {
            ensure!(operations.contains(&format!("### {section}\n")), "{}: {section}", rule["alert"]);
            sections += 1;
        }
    }
    ensure!(sections > 4, "only {sections} sections are named");
    Ok(())
}
