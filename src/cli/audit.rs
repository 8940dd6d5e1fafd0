//! `audit`: whether every sealed epoch is whole and was sealed by a leader.

use std::fmt;
use std::time::Duration;

use clap::Args;
use epochwarden_core::Numbering;
use epochwarden_core::finding::{Audit, Verdict};
use epochwarden_store::SystemClock;
use epochwarden_store::audit::{self, AuditProgress, AuditReport, AuditRules};
use serde::Serialize;

use super::exit::{CliError, Exit};
use super::human::{counted, harmless};
use super::output::OutputFlags;
use super::retention_flags::RetentionFlags;
use super::signals;
use super::store_flags::StoreFlags;
use super::table::{Align, Table};
use super::values;
use crate::api::{StateEpochPolicy, validate};

/// Looks whether every sealed epoch is whole and was sealed by a leader; writes nothing
///
/// The retention says which unsealed epochs are leaks: without one, none is. Ends with 3 when a finding is critical.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  epochwarden audit --store s3://state/orders --vnodes 256
  epochwarden audit --store s3://state/orders --vnodes 256 --stalled-after 1h -o json
  epochwarden audit --policy orders.yaml")]
pub(super) struct AuditVerb {
    #[command(flatten)]
    store: StoreFlags,
    #[command(flatten)]
    retention: RetentionFlags,
    #[command(flatten)]
    pub(super) output: OutputFlags,
    /// Warn when epochs are written and none was sealed for D
    #[arg(long, value_name = "D", default_value = "30m", conflicts_with = "policy", value_parser = values::some_duration)]
    stalled_after: Duration,
}

/// What programs are shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    root: &'a str,
    #[serde(flatten)]
    report: &'a AuditReport,
}

impl AuditVerb {
    pub(super) async fn run(self) -> Result<Exit, CliError> {
        let source = self.store.open()?;
        let rules = self.rules(source.policy.as_ref(), source.root.numbering())?;
        let root = source.root;
        let stop = signals::stop()?;
        let drawing = self.output.progress().start("listing");
        let draw = |progress| match progress {
            AuditProgress::Listing { objects } => drawing.objects(objects),
            AuditProgress::Markers { read } => drawing.say(&counted(read, "seal read", "seals read")),
            AuditProgress::SecondLook { epochs } => {
                drawing.say(&counted(epochs, "epoch looked at again", "epochs looked at again"));
            }
        };
        let report = audit::run(&root, &rules, &SystemClock, &stop, &draw).await?;
        drop(drawing);
        self.output.print(&Shown { root: root.url(), report: &report }, Text(&report.audit))?;
        Ok(exit(report.audit.verdict))
    }
}

impl AuditVerb {
    fn rules(&self, policy: Option<&StateEpochPolicy>, numbering: Numbering) -> Result<AuditRules, CliError> {
        let plan = self.retention.rules(policy, numbering)?;
        // The deadline of a policy is for runs that nobody watches.
        let stalled_after = match policy.map(|policy| validate::audit_settings(&policy.spec)) {
            Some(settings) => settings.map_err(|error| CliError::Usage(error.to_string()))?.stalled_after,
            None => self.stalled_after,
        };
        Ok(AuditRules { plan, stalled_after, deadline: None })
    }
}

const fn exit(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Clean | Verdict::Warning => Exit::Done,
        Verdict::Critical => Exit::Findings,
    }
}

/// An audit for people.
struct Text<'a>(&'a Audit);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Audit { verdict, coverage, counts, findings, truncated, .. } = self.0;
        if !findings.is_empty() {
            let mut table = Table::new([("SEVERITY", Align::Left), ("KIND", Align::Left), ("EPOCH", Align::Right)]);
            for finding in findings {
                let epoch = finding.epoch.map_or_else(|| "-".to_owned(), |epoch| epoch.to_string());
                table.row([finding.severity.to_string(), finding.kind.to_string(), epoch]);
            }
            // A finding says what to do in sentences: too long for a column.
            let lines = table.to_string();
            let mut lines = lines.lines();
            writeln!(f, "{}", lines.next().unwrap_or_default())?;
            for (line, finding) in lines.zip(findings) {
                writeln!(f, "{line}\n    {}", harmless(&finding.detail))?;
            }
            if *truncated {
                let each: Vec<_> = counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
                writeln!(f, "not all are shown; in all: {}", each.join(", "))?;
            }
            writeln!(f)?;
        }
        writeln!(f, "{verdict}: {coverage}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use epochwarden_core::finding::{Coverage, Finding, FindingKind, Severity};
    use epochwarden_core::inventory::InventoryBuilder;
    use epochwarden_core::{Epoch, Vnode};
    use epochwarden_store::RequestCounts;
    use jiff::Timestamp;

    use super::*;

    fn found() -> Audit {
        let missing = Finding {
            kind: FindingKind::SealedIncomplete,
            severity: Severity::Critical,
            epoch: Some(Numbering::Plain.show(Epoch::new(7))),
            vnode: Some(Vnode::new(3)),
            detail: "vnode 3 has no partial\u{1b}[2J; restore from another epoch".to_owned(),
        };
        let foreign = Finding {
            kind: FindingKind::ForeignKey,
            severity: Severity::Info,
            epoch: None,
            vnode: None,
            detail: "1 key, readme.txt".to_owned(),
        };
        Audit {
            verdict: Verdict::Critical,
            coverage: Coverage { epochs: 2, sealed: 1, objects: 9, markers_read: 1, ..Coverage::default() },
            counts: BTreeMap::from([(FindingKind::SealedIncomplete, 40), (FindingKind::ForeignKey, 1)]),
            findings: vec![missing, foreign],
            truncated: true,
            latest_committer: Some("worker-1".to_owned()),
        }
    }

    #[test]
    fn findings_are_lines_with_their_sentences_below_and_the_verdict_comes_last() {
        let expected = "\
SEVERITY   KIND               EPOCH
critical   SealedIncomplete       7
    vnode 3 has no partial\\u{1b}[2J; restore from another epoch
info       ForeignKey             -
    1 key, readme.txt
not all are shown; in all: SealedIncomplete 40, ForeignKey 1

Critical: 2 epochs, 9 objects, 1 marker read
";
        assert_eq!(Text(&found()).to_string(), expected);
        let clean = Audit { findings: Vec::new(), truncated: false, verdict: Verdict::Clean, ..found() };
        assert_eq!(Text(&clean).to_string(), "Clean: 2 epochs, 9 objects, 1 marker read\n");
    }

    #[test]
    fn only_a_critical_finding_ends_with_3() {
        for (verdict, code) in [(Verdict::Clean, 0), (Verdict::Warning, 0), (Verdict::Critical, 3)] {
            assert_eq!(exit(verdict) as i32, code);
        }
    }

    #[test]
    fn programs_are_shown_verdict_coverage_counts_findings_and_requests() {
        let report = AuditReport {
            started_at: Timestamp::UNIX_EPOCH,
            finished_at: Timestamp::UNIX_EPOCH,
            audit: found(),
            epochs: InventoryBuilder::new(1).finish().summary(Timestamp::UNIX_EPOCH),
            requests: RequestCounts { list: 2, ..RequestCounts::default() },
        };
        let json = serde_json::to_value(&Shown { root: "s3://state", report: &report }).unwrap();
        assert_eq!(json["root"], "s3://state");
        assert_eq!(json["verdict"], "Critical");
        assert_eq!(json["coverage"]["markersRead"], 1);
        assert_eq!(json["counts"]["SealedIncomplete"], 40);
        assert_eq!(json["findings"][0]["epoch"], "7");
        assert_eq!(json["truncated"], true);
        assert_eq!(json["requests"], serde_json::json!({"list": 2, "get": 0, "head": 0, "put": 0, "delete": 0}));
    }
}
