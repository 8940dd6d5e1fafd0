//! What audits and the checks between them say together: the condition `AuditClean`.

use epochwarden_core::finding::{FindingKind, Verdict};

use super::{Observed, Said, said};
use crate::api::StateEpochPolicyStatus;
use crate::api::condition::AuditClean;
use crate::api::status::{AuditStatus, FindingStatus, Phase, RunKind};

/// What an audit says, from what it found. `None` where none has ended yet.
#[must_use]
pub(crate) fn told_by_audit(audit: &AuditStatus) -> Option<Said<AuditClean>> {
    let verdict = audit.verdict.as_deref()?;
    let coverage = audit.coverage.as_deref().unwrap_or_default();
    let reason = [
        (Verdict::Clean, AuditClean::Clean),
        (Verdict::Warning, AuditClean::Warnings),
        (Verdict::Critical, AuditClean::Findings),
    ]
    .into_iter()
    .find_map(|(known, reason)| (known.as_str() == verdict).then_some(reason))?;
    let message = match reason {
        AuditClean::Clean => format!("nothing found: {coverage}"),
        _ => format!("{} ({coverage})", found(audit)),
    };
    Some(Said::new(reason, message))
}

/// The worst finding in words, and how many there are of each kind.
fn found(audit: &AuditStatus) -> String {
    let counts: Vec<_> = audit.counts.iter().map(|(kind, count)| format!("{kind} {}", count.get())).collect();
    match audit.findings.first() {
        Some(worst) => format!("{}; in all: {}", in_words(worst), counts.join(", ")),
        None => "no findings".into(),
    }
}

/// A finding in one line.
#[must_use]
pub(crate) fn in_words(finding: &FindingStatus) -> String {
    let FindingStatus { kind, severity, epoch, detail, .. } = finding;
    match epoch {
        Some(epoch) => format!("{severity} {kind} epoch {epoch}: {detail}"),
        None => format!("{severity} {kind}: {detail}"),
    }
}

fn counted_stalled_sealing(audit: &AuditStatus) -> bool {
    audit.counts.contains_key(FindingKind::StalledSealing.as_str())
}

fn stalled_by(audit: &AuditStatus) -> Option<String> {
    let kind = FindingKind::StalledSealing.as_str();
    let shown = || audit.findings.iter().find(|finding| finding.kind == kind).map(in_words);
    // Worse findings may have left no room for it.
    counted_stalled_sealing(audit).then(|| shown().unwrap_or_else(|| kind.to_owned()))
}

/// How the last audit ended, as an earlier life of the operator wrote it down.
pub(super) fn last(status: &StateEpochPolicyStatus) -> Option<Said<AuditClean>> {
    let audit = status.audit.as_ref()?;
    let failed = || said::<AuditClean>(&status.conditions, &[]).filter(|said| said.reason == AuditClean::Failed);
    let in_history = || {
        let run = status.history.iter().find(|run| run.kind == RunKind::Audit && run.result == Phase::Failed)?;
        Some(Said::new(AuditClean::Failed, run.message.clone().unwrap_or_default()))
    };
    // A condition may say something else meanwhile: that the audit is suspended, say.
    let failure = failed().or_else(|| (audit.phase == Some(Phase::Failed)).then(in_history).flatten());
    failure.or_else(|| told_by_audit(audit))
}

/// Whether sealing had stalled, as an earlier life of the operator wrote it down.
pub(super) fn stalled(status: &StateEpochPolicyStatus) -> Option<String> {
    let audit = status.audit.clone().unwrap_or_default();
    let shown = said::<AuditClean>(&status.conditions, &[]).filter(|said| said.reason == AuditClean::Warnings)?;
    if counted_stalled_sealing(&audit) {
        return stalled_by(&audit);
    }
    let by_audit = told_by_audit(&audit).map(|said| said.message);
    (by_audit.as_ref() != Some(&shown.message)).then_some(shown.message)
}

impl Observed {
    /// What is known of the epochs: what the last audit said, and what was seen of sealing since. `None` where nothing is.
    #[must_use]
    pub(crate) fn audit_said(&self) -> Option<Said<AuditClean>> {
        let by_audit = self.audited.clone();
        match (by_audit.as_ref().map(|said| said.reason), &self.stalled) {
            (None | Some(AuditClean::Clean), Some(stalled)) => Some(Said::new(AuditClean::Warnings, stalled.clone())),
            (Some(AuditClean::Warnings), Some(stalled)) if !self.audit_found_stalled_sealing() => {
                Some(Said::new(AuditClean::Warnings, stalled.clone()))
            }
            // A seal came since, and there was nothing else.
            (Some(AuditClean::Warnings), None) if self.audit_found_stalled_sealing() && !self.has_other_warnings() => {
                let coverage = self.audit.coverage.as_deref().unwrap_or_default();
                let message = format!("nothing found but that sealing had stalled, and it goes on: {coverage}");
                Some(Said::new(AuditClean::Clean, message))
            }
            _ => by_audit,
        }
    }

    /// Whether the last audit has found that sealing had stalled.
    #[must_use]
    pub(crate) fn audit_found_stalled_sealing(&self) -> bool {
        counted_stalled_sealing(&self.audit)
    }

    /// What the last audit said of sealing alone.
    #[must_use]
    pub(crate) fn stalled_by_audit(&self) -> Option<String> {
        stalled_by(&self.audit)
    }

    fn has_other_warnings(&self) -> bool {
        let (kind, info) = (FindingKind::StalledSealing.as_str(), FindingKind::ForeignKey.as_str());
        self.audit.counts.keys().any(|found| found != kind && found != info)
    }
}

#[cfg(test)]
mod tests {
    use epochwarden_core::finding::Severity;
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::api::StateEpochPolicy;
    use crate::controller::status::status;

    fn policy(status: Option<&StateEpochPolicyStatus>) -> StateEpochPolicy {
        let mut policy = json!({
            "apiVersion": "epochwarden.io/v1alpha1",
            "kind": "StateEpochPolicy",
            "metadata": { "name": "orders", "namespace": "streaming", "uid": "u1", "generation": 3 },
            "spec": { "store": { "url": "s3://state/orders" }, "vnodes": 4 },
        });
        if let Some(status) = status {
            policy["status"] = serde_json::to_value(status).unwrap();
        }
        serde_json::from_value(policy).unwrap()
    }

    fn finding(kind: FindingKind, severity: Severity) -> FindingStatus {
        let (kind, severity) = (kind.as_str().to_owned(), severity.as_str().to_owned());
        FindingStatus {
            kind,
            severity,
            epoch: Some(crate::controller::workbench::shown(7)),
            vnode: None,
            detail: "so it is".into(),
        }
    }

    /// After an audit that found these, and a check that found this.
    fn observed(verdict: Option<Verdict>, found: &[FindingStatus], stalled: Option<&str>) -> Observed {
        let mut observed = Observed::of(&policy(None));
        observed.audit.phase = verdict.map(|_| Phase::Succeeded);
        observed.audit.verdict = verdict.map(|verdict| verdict.as_str().to_owned());
        observed.audit.coverage = verdict.map(|_| "2 epochs".to_owned());
        observed.audit.counts = found.iter().map(|finding| (finding.kind.clone(), 1_u64.into())).collect();
        observed.audit.findings = found.to_vec();
        observed.audited = told_by_audit(&observed.audit);
        observed.stalled = stalled.map(str::to_owned);
        observed
    }

    #[test]
    fn more_findings_than_are_shown_are_counted_by_kind() {
        let mut audit = observed(
            Some(Verdict::Critical),
            &vec![finding(FindingKind::SealedIncomplete, Severity::Critical); 20],
            None,
        )
        .audit;
        audit.counts =
            [("ForeignKey".to_owned(), 3_u64.into()), ("SealedIncomplete".to_owned(), 100_u64.into())].into();
        let said = told_by_audit(&audit).unwrap();
        let words =
            "critical SealedIncomplete epoch 7: so it is; in all: ForeignKey 3, SealedIncomplete 100 (2 epochs)";
        assert_eq!((said.reason, said.message.as_str()), (AuditClean::Findings, words));
    }

    const STALLED: &str = "warning StalledSealing epoch 7: so it is";

    #[test]
    fn what_a_check_has_seen_since_counts_unless_the_audit_has_found_worse() {
        let stalled = || finding(FindingKind::StalledSealing, Severity::Warning);
        let leak = || finding(FindingKind::Leak, Severity::Warning);
        let late = || finding(FindingKind::LateWrite, Severity::Critical);
        for (verdict, found, check, reason, words) in [
            (None, vec![], None, None, ""),
            (None, vec![], Some(STALLED), Some(AuditClean::Warnings), STALLED),
            (Some(Verdict::Clean), vec![], None, Some(AuditClean::Clean), "nothing found: 2 epochs"),
            (Some(Verdict::Clean), vec![], Some(STALLED), Some(AuditClean::Warnings), STALLED),
            (Some(Verdict::Warning), vec![leak()], Some(STALLED), Some(AuditClean::Warnings), STALLED),
            (Some(Verdict::Warning), vec![leak()], None, Some(AuditClean::Warnings), "warning Leak epoch 7"),
            (
                Some(Verdict::Warning),
                vec![stalled()],
                Some(STALLED),
                Some(AuditClean::Warnings),
                "in all: StalledSealing 1 (2 epochs)",
            ),
            (Some(Verdict::Warning), vec![stalled()], None, Some(AuditClean::Clean), "it goes on"),
            (
                Some(Verdict::Warning),
                vec![stalled(), leak()],
                None,
                Some(AuditClean::Warnings),
                "Leak 1, StalledSealing 1",
            ),
            (Some(Verdict::Critical), vec![late()], Some(STALLED), Some(AuditClean::Findings), "critical LateWrite"),
        ] {
            let case = format!("{verdict:?} {found:?} {check:?}");
            let said = observed(verdict, &found, check).audit_said();
            assert_eq!(said.as_ref().map(|said| said.reason), reason, "{case}");
            let message = said.map(|said| said.message).unwrap_or_default();
            assert!(message.contains(words), "{case}: {message}");
        }
        let mut failed = observed(Some(Verdict::Clean), &[], Some(STALLED));
        failed.audited = Some(Said::new(AuditClean::Failed, "no answer"));
        assert_eq!(failed.audit_said(), failed.audited, "what cannot be read may hide anything");
    }

    #[test]
    fn a_restart_says_of_audits_and_of_sealing_what_was_said_before() {
        let stalled = || finding(FindingKind::StalledSealing, Severity::Warning);
        let leak = || finding(FindingKind::Leak, Severity::Warning);
        for (verdict, found, check) in [
            (None, vec![], None),
            (None, vec![], Some(STALLED)),
            (Some(Verdict::Clean), vec![], None),
            (Some(Verdict::Clean), vec![], Some(STALLED)),
            (Some(Verdict::Warning), vec![leak()], None),
            (Some(Verdict::Warning), vec![leak()], Some(STALLED)),
            (Some(Verdict::Warning), vec![stalled()], Some(STALLED)),
            (Some(Verdict::Warning), vec![stalled()], None),
            (Some(Verdict::Critical), vec![finding(FindingKind::LateWrite, Severity::Critical)], None),
        ] {
            let case = format!("{verdict:?} {found:?} {check:?}");
            let before = observed(verdict, &found, check);
            let written = status(&policy(None), &before, &[], Timestamp::UNIX_EPOCH);
            let after = Observed::of(&policy(Some(&written)));
            assert_eq!((&after.audited, &after.stalled), (&before.audited, &before.stalled), "{case}");
            assert_eq!(after.audit_said(), before.audit_said(), "{case}");
        }
    }

    #[test]
    fn a_failure_is_remembered_also_where_the_condition_says_something_else_by_now() {
        let mut before = observed(Some(Verdict::Clean), &[], None);
        before.audited = Some(Said::new(AuditClean::Failed, "no answer"));
        before.audit.phase = Some(Phase::Failed);
        let mut written = status(&policy(None), &before, &[], Timestamp::UNIX_EPOCH);
        assert_eq!(Observed::of(&policy(Some(&written))).audited, before.audited);
        written.history = vec![crate::api::status::PastRun {
            kind: RunKind::Audit,
            started_at: Timestamp::UNIX_EPOCH,
            finished_at: Timestamp::UNIX_EPOCH,
            result: Phase::Failed,
            message: Some("no answer".into()),
        }];
        written.conditions.retain(|condition| condition.type_ != "AuditClean");
        assert_eq!(Observed::of(&policy(Some(&written))).audited, before.audited);
    }
}
