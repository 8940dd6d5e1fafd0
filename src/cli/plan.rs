//! `plan`: what a prune would delete, and why the rest stays. And how a plan is shown, also before a prune.

use std::fmt;

use clap::Args;
use epochwarden_core::plan::{Decision, Plan, PlanSummary, PlanTotals, PlannedEpoch, Rules};
use epochwarden_store::listing::list_inventory_with;
use epochwarden_store::{RequestCounts, Root, StoreError};
use serde::Serialize;

use super::exit::{CliError, Exit};
use super::human;
use super::output::OutputFlags;
use super::progress::Progress;
use super::retention_flags::{RetentionFlags, subject};
use super::store_flags::StoreFlags;
use super::table::{Align, Table};

/// Shows what a prune would delete, with a reason for every epoch; writes nothing
///
/// Ends with 4 when the plan is held: then a prune with these rules would be refused.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  epochwarden plan --store s3://state/orders --vnodes 256 --keep-last 10 --keep-every 1h:7d
  epochwarden plan --store s3://state/orders --vnodes 256 --keep-within 24h -o json
  epochwarden plan --policy orders.yaml")]
pub(super) struct PlanVerb {
    #[command(flatten)]
    store: StoreFlags,
    #[command(flatten)]
    retention: RetentionFlags,
    #[command(flatten)]
    pub(super) output: OutputFlags,
}

/// What programs are shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    root: &'a str,
    /// Of the epochs to delete: `epochs`, `objects` and `bytes` are their sums.
    #[serde(flatten)]
    summary: PlanSummary,
    /// Every epoch, ascending.
    decisions: Vec<&'a PlannedEpoch>,
    requests: RequestCounts,
}

impl PlanVerb {
    pub(super) async fn run(self) -> Result<Exit, CliError> {
        let source = self.store.open()?;
        let rules = self.retention.rules(source.policy.as_ref(), source.root.numbering())?;
        let root = source.root;
        let plan = compute(&root, &rules, self.output.progress()).await?;
        let shown = Shown {
            root: root.url(),
            summary: plan.summary(),
            decisions: plan.decisions().collect(),
            requests: root.requests(),
        };
        self.output.print(&shown, Text(&plan))?;
        Ok(if plan.hold().is_some() { Exit::Refused } else { Exit::Done })
    }
}

/// Lists the root and plans.
pub(super) async fn compute(root: &Root, rules: &Rules, progress: Progress) -> Result<Plan, StoreError> {
    let drawing = progress.start("listing");
    let inventory = list_inventory_with(root, Some(rules.vnodes), |objects| drawing.objects(objects)).await?;
    Ok(Plan::new(&inventory, rules, &subject(root)))
}

/// A plan for people.
pub(super) struct Text<'a>(pub(super) &'a Plan);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.0;
        let epochs: Vec<_> = plan.decisions().collect();
        if epochs.is_empty() {
            return writeln!(f, "there are no epochs");
        }
        let mut table = Table::new([
            ("EPOCHS", Align::Left),
            ("COUNT", Align::Right),
            ("ACTION", Align::Left),
            ("REASON", Align::Left),
            ("OBJECTS", Align::Right),
            ("BYTES", Align::Right),
        ]);
        for range in epochs.chunk_by(|a, b| a.decision == b.decision) {
            table.row(row(range));
        }
        writeln!(f, "{table}")?;
        writeln!(f, "keep    {}", sum(&plan.keep_totals()))?;
        writeln!(f, "delete  {}", sum(&plan.delete_totals()))?;
        if let Some(before) = plan.before().map(|before| plan.numbering().show(before)) {
            writeln!(f, "floor   {before}: no epoch below it can be sealed any more, once this plan is executed")?;
        }
        writeln!(f, "digest  {}", plan.digest())?;
        match plan.hold() {
            Some(hold) => writeln!(f, "\nheld, {}: {hold}", hold.as_str()),
            None => Ok(()),
        }
    }
}

/// Neighbours that share a decision.
fn row(range: &[&PlannedEpoch]) -> [String; 6] {
    let name = match range {
        [] => String::new(),
        [only] => only.epoch.to_string(),
        [first, .., last] => format!("{} .. {}", first.epoch, last.epoch),
    };
    let decision = range.first().map(|planned| planned.decision);
    let (action, reason) = match decision {
        Some(Decision::Keep(reason)) => ("keep", reason.as_str()),
        Some(Decision::Delete(reason)) => ("delete", reason.as_str()),
        None => ("", ""),
    };
    let total = |of: fn(&PlannedEpoch) -> u64| range.iter().fold(0_u64, |sum, planned| sum.saturating_add(of(planned)));
    [
        name,
        human::count(range.len() as u64),
        action.to_owned(),
        reason.to_owned(),
        human::count(total(|planned| planned.objects)),
        human::bytes(total(|planned| planned.bytes)),
    ]
}

/// A sum of epochs in words.
pub(super) fn sum(totals: &PlanTotals) -> String {
    let PlanTotals { epochs, objects, bytes } = *totals;
    let epochs = human::counted(epochs, "epoch", "epochs");
    format!("{epochs}, {}, {}", human::counted(objects, "object", "objects"), human::bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use epochwarden_core::inventory::InventoryBuilder;
    use epochwarden_core::plan::Subject;
    use epochwarden_core::retention::Retention;
    use jiff::Timestamp;

    use super::*;

    /// Epochs as (number, sealed), each of one vnode, a minute apart.
    fn plan(epochs: &[(u64, bool)], extra: &[(&str, i64)]) -> Plan {
        let mut builder = InventoryBuilder::new(1);
        let at = |second| Timestamp::from_second(second).unwrap();
        for (second, (epoch, sealed)) in (0..).step_by(60).zip(epochs) {
            builder.observe(&format!("epoch={epoch}/vnode=0/partial.bin"), 1000, at(second), None);
            if *sealed {
                builder.observe(&format!("epoch={epoch}/_COMMIT"), 24, at(second + 1), None);
            }
        }
        for (key, second) in extra {
            builder.observe(key, 1, at(*second), None);
        }
        let retention = Retention { keep_last: Some(2), ..Retention::default() };
        let rules = Rules { vnodes: 1, retention, min_age: Duration::ZERO };
        Plan::new(&builder.finish(), &rules, &Subject { root: "s3://state".into(), policy_uid: String::new() })
    }

    #[test]
    fn neighbours_with_one_reason_share_a_line() {
        let plan = plan(&[(1, true), (2, true), (3, false), (9, true), (10, true), (11, true), (12, false)], &[]);
        let expected = format!(
            "\
EPOCHS   COUNT   ACTION   REASON      OBJECTS     BYTES
1 .. 2       2   delete   Expired           4   2.0 KiB
3            1   delete   Abandoned         1    1000 B
9            1   delete   Expired           2   1.0 KiB
10           1   keep     KeepLast          2   1.0 KiB
11           1   keep     Latest            2   1.0 KiB
12           1   keep     Unsealed          1    1000 B

keep    3 epochs, 5 objects, 3.0 KiB
delete  4 epochs, 7 objects, 4.0 KiB
floor   10: no epoch below it can be sealed any more, once this plan is executed
digest  {}
",
            plan.digest()
        );
        assert_eq!(Text(&plan).to_string(), expected);
    }

    #[test]
    fn a_held_plan_says_why() {
        let text = Text(&plan(&[(1, true), (2, true), (3, true)], &[("epoch=1/late", 1000)])).to_string();
        assert!(text.contains("\nheld, EpochRegression: epoch 1 would be deleted"), "{text}");
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        assert_eq!(Text(&plan(&[], &[])).to_string(), "there are no epochs\n");
    }

    #[test]
    fn programs_are_shown_every_epoch() {
        let plan = plan(&[(1, true), (2, true), (3, true), (4, false)], &[]);
        let shown = Shown {
            root: "s3://state",
            summary: plan.summary(),
            decisions: plan.decisions().collect(),
            requests: RequestCounts { list: 1, ..RequestCounts::default() },
        };
        let json = serde_json::to_value(&shown).unwrap();
        assert_eq!(json["epochs"], 1);
        assert_eq!(json["before"], "2");
        assert_eq!(json["through"], "4");
        assert_eq!(json["delete"], serde_json::json!([{"from": "1", "to": "1", "reason": "Expired"}]));
        let decisions: Vec<_> = json["decisions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|planned| (&planned["action"], &planned["reason"]))
            .collect();
        let expected = [("delete", "Expired"), ("keep", "KeepLast"), ("keep", "Latest"), ("keep", "Unsealed")];
        assert_eq!(decisions.len(), 4);
        for ((action, reason), expected) in decisions.into_iter().zip(expected) {
            assert_eq!((action.as_str().unwrap(), reason.as_str().unwrap()), expected);
        }
        assert_eq!(json["requests"], serde_json::json!({"list": 1, "get": 0, "head": 0, "put": 0, "delete": 0}));
    }
}
