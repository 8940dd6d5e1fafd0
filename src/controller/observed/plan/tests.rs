use epochwarden_core::Epoch;
use serde_json::json;

use super::*;
use crate::api::StateEpochPolicyStatus;
use crate::api::condition::Reason as _;
use crate::api::status::{PlanRange, RunKind};
use crate::controller::status::status;
use crate::controller::workbench;
use crate::controller::workbench::shown;

const DIGEST: &str = "d1";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn plan() -> PlanStatus {
    let range = PlanRange { from: shown(1), to: shown(7), reason: "Expired".into() };
    PlanStatus { digest: DIGEST.into(), epochs: 7_u64.into(), delete: vec![range], ..PlanStatus::default() }
}

/// The policy, with what an annotation approves.
fn policy(word: Option<&str>, generation: i64, status: Option<&StateEpochPolicyStatus>) -> StateEpochPolicy {
    let mut policy = workbench::policy(&json!({ "prune": { "approval": "Manual" } }), status);
    policy.metadata.generation = Some(generation);
    if let Some(word) = word {
        policy.metadata.annotations = Some([(APPROVE_ANNOTATION.to_owned(), word.to_owned())].into());
    }
    policy
}

/// What is known of a policy of generation 1 with a plan that waits.
fn waiting() -> Observed {
    let mut observed = Observed::of(&policy(None, 1, None));
    observed.plan = Some(plan());
    observed.open_for = Some(1);
    observed.prune.phase = Some(Phase::AwaitingApproval);
    observed.pruned = Some(Said::new(PruneHealthy::AwaitingApproval, "plan d1 waits"));
    observed
}

/// What the next operator knows by the status that this one has written.
fn restarted(observed: &Observed, policy: &StateEpochPolicy) -> Observed {
    let written = status(policy, observed, &[], at(9));
    Observed::of(&StateEpochPolicy { status: Some(written), ..policy.clone() })
}

fn prune_healthy(policy: &StateEpochPolicy, observed: &Observed) -> (String, String) {
    let status = status(policy, observed, &[], at(9));
    let found = status.conditions.into_iter().find(|condition| condition.type_ == PruneHealthy::TYPE).unwrap();
    (found.reason, found.message)
}

#[test]
fn the_plan_that_waits_is_the_one_that_waited_before_the_restart() {
    let next = restarted(&waiting(), &policy(None, 1, None));
    assert_eq!(next.waiting_plan(&policy(None, 1, None)), Some(&plan()));
    assert_eq!(prune_healthy(&policy(None, 1, None), &next), ("AwaitingApproval".into(), "plan d1 waits".into()));
}

#[test]
fn a_plan_is_open_until_it_was_carried_out_by_what_the_status_says_of_the_run() {
    for (phase, unapproved, approved) in [
        (Phase::AwaitingApproval, true, true),
        (Phase::Running, true, true),
        (Phase::Pending, true, true),
        (Phase::Failed, true, true),
        (Phase::Held, true, true),
        (Phase::Stopped, false, true),
        (Phase::Succeeded, false, false),
        (Phase::PartlyFailed, false, false),
    ] {
        let prune = PruneStatus { phase: Some(phase), ..PruneStatus::default() };
        let approved_plan = PlanStatus { approved_at: Some(at(3)), ..plan() };
        assert_eq!((is_open(&plan(), &prune), is_open(&approved_plan, &prune)), (unapproved, approved), "{phase:?}");
    }
    let awaiting = PruneStatus { phase: Some(Phase::AwaitingApproval), ..PruneStatus::default() };
    assert!(!is_open(&PlanStatus { epochs: 0_u64.into(), ..plan() }, &awaiting), "it deletes nothing");
}

#[test]
fn a_plan_that_was_carried_out_is_gone_before_the_status_could_make_it_look_open() {
    let mut observed = waiting();
    (observed.open_for, observed.prune.phase) = (None, Some(Phase::Succeeded));
    let policy = policy(None, 1, None);
    assert_eq!(
        status(&policy, &observed, &[], at(9)).plan,
        Some(plan()),
        "it is shown for as long as nothing else runs"
    );
    observed.begins(RunKind::Prune, Phase::Running, at(9));
    assert_eq!(status(&policy, &observed, &[], at(9)).plan, None);
    assert_eq!(restarted(&observed, &policy).open_for, None);
}

#[test]
fn an_approval_is_taken_once_and_stays_when_the_annotation_goes() {
    let mut observed = waiting();
    assert!(!observed.approve(&policy(None, 1, None), at(4)));
    assert!(observed.approve(&policy(Some(DIGEST), 1, None), at(5)));
    assert!(!observed.approve(&policy(Some(DIGEST), 1, None), at(6)), "it was taken before");
    for word in [None, Some("d2")] {
        let policy = policy(word, 1, None);
        for known in [observed.clone(), restarted(&observed, &policy)] {
            let approved = known.approved_plan(&policy).unwrap();
            assert_eq!((approved.digest.as_str(), approved.approved_at), (DIGEST, Some(at(5))), "{word:?}");
            let (reason, message) = prune_healthy(&policy, &known);
            assert!(reason == "Running" && message.contains("d1 was approved"), "{reason}: {message}");
        }
    }
}

#[test]
fn the_word_for_another_plan_approves_nothing_and_is_named_once_however_often_the_operator_starts() {
    let policy = policy(Some("d2"), 1, None);
    let mut observed = waiting();
    assert!(!observed.approve(&policy, at(5)));
    for _ in 0..3 {
        let (reason, message) = prune_healthy(&policy, &observed);
        assert_eq!(reason, "AwaitingApproval");
        assert_eq!(
            message,
            "plan d1 waits; the annotation epochwarden.io/approve-plan approves \"d2\", which is another plan than this"
        );
        observed = restarted(&observed, &policy);
    }
    let long = "x".repeat(200_000);
    let (_, message) = prune_healthy(&self::policy(Some(&long), 1, None), &observed);
    assert!(message.len() < 1000, "{}", message.len());
}

#[test]
fn another_generation_voids_the_plan_and_its_approval_also_over_a_restart() {
    let mut approved = waiting();
    assert!(approved.approve(&policy(Some(DIGEST), 1, None), at(5)));
    let changed = policy(Some(DIGEST), 2, None);
    for observed in [waiting(), approved] {
        // Changed while this operator watches, between two of its writes, and while none ran.
        let seen_by_the_next = restarted(&observed, &changed);
        let written = status(&policy(None, 1, None), &observed, &[], at(9));
        let missed_by_all = Observed::of(&policy(Some(DIGEST), 2, Some(&written)));
        for mut known in [observed.clone(), seen_by_the_next, missed_by_all] {
            assert_eq!(known.open_plan(&changed), None);
            assert!(!known.approve(&changed, at(6)));
            assert_eq!(status(&changed, &known, &[], at(9)).plan, None, "nobody may take it for the one to approve");
            let (reason, message) = prune_healthy(&changed, &known);
            assert!(reason != "AwaitingApproval" && reason != "Running", "{reason}: {message}");
            known.void_plan(&changed);
            assert_eq!((known.plan.clone(), known.open_for), (None, None));
            assert!(!known.void_plan(&changed));
        }
    }
}

#[test]
fn what_the_rules_are_told_of_a_plan_lacks_ranges_only_where_there_are_as_many_as_the_status_holds() {
    let ranges = |count: u64| -> Vec<PlanRange> {
        let range =
            |number| PlanRange { from: shown(10 * number), to: shown(10 * number + 1), reason: "Expired".into() };
        (0..count).map(range).collect()
    };
    let most = u64::try_from(MAX_RANGES).unwrap();
    for (count, truncated, expected) in [(most, true, true), (most, false, false), (most - 1, true, false)] {
        let frozen = frozen(&PlanStatus { delete: ranges(count), truncated, ..plan() });
        assert_eq!(frozen.truncated, expected, "{count} {truncated}");
        assert_eq!(frozen.delete.first(), Some(&(Epoch::new(0), Epoch::new(1))));
    }
}
