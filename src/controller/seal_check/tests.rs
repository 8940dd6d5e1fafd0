use jiff::SignedDuration;
use serde_json::json;

use super::*;
use crate::controller::observed::Said;
use crate::controller::status::{differs, status};
use crate::controller::workbench::{Bench, Hands, policy, shown};

const EVERY: Duration = Duration::from_mins(5);

fn bench() -> Bench {
    Bench::new(&Hands::at("2026-01-01T00:00:00Z"), &json!({}))
}

/// Begins the task, and lets it work for so long.
async fn work(bench: &Bench, span: Duration) {
    let task = tokio::spawn(run(Arc::clone(&bench.context), Arc::clone(&bench.handle)));
    wait(span).await;
    task.abort();
}

async fn wait(span: Duration) {
    tokio::time::sleep_until(Instant::now() + span).await;
}

fn seen(bench: &Bench) -> Observed {
    bench.handle.observed.borrow().clone()
}

/// Another spec of the policy.
fn change(bench: &Bench, more: &serde_json::Value) {
    bench.handle.policy.send_replace(Arc::new(policy(more, None)));
}

#[tokio::test(start_paused = true)]
async fn the_newest_seal_is_in_the_status_seconds_after_the_store_was_reached() {
    let bench = bench();
    let stores = bench.handle.stores.send_replace(None);
    bench.seal(3).await;
    let sealed = bench.seal(7).await;
    bench.write(8).await;
    bench.clock.set(sealed);
    let task = tokio::spawn(run(Arc::clone(&bench.context), Arc::clone(&bench.handle)));
    wait(Duration::from_mins(10)).await;
    assert_eq!(seen(&bench).epochs, None, "without a store nothing is known");
    bench.handle.stores.send_replace(stores);
    wait(SOON).await;
    task.abort();
    let expected = EpochsStatus {
        latest_committed: Some(shown(7)),
        latest_committed_at: Some(sealed),
        latest_committer: None,
        oldest_sealed: Some(shown(3)),
        sealed: 2_u64.into(),
        unsealed: 1_u64.into(),
        objects: None,
        bytes: None,
        observed_at: Some(sealed),
    };
    assert_eq!(seen(&bench).epochs, Some(expected));
    assert_eq!(seen(&bench).stalled, None);
    let text = bench.context.metrics.encode().unwrap();
    let metric = "epochwarden_latest_committed_timestamp_seconds{namespace=\"streaming\",policy=\"orders\"}";
    assert!(text.contains(&format!("{metric} {}", sealed.as_second())), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_an_idle_policy_asks_a_dozen_times_and_is_worth_no_write() {
    let bench = bench();
    let sealed = bench.seal(7).await;
    bench.write(8).await;
    // Long stalled, and staying so.
    bench.clock.set(sealed + SignedDuration::from_hours(2));
    let before = bench.root.requests();
    let task = tokio::spawn(run(Arc::clone(&bench.context), Arc::clone(&bench.handle)));
    wait(SOON).await;
    let shown = |observed: &Observed| status(&bench.handle.current(), observed, &[], bench.context.clock.now());
    let (first, mut changes) = (shown(&seen(&bench)), bench.handle.observed.subscribe());
    assert!(seen(&bench).stalled.is_some());
    for _ in 0..60 {
        wait(Duration::from_mins(1)).await;
        bench.clock.jump(SignedDuration::from_mins(1));
    }
    task.abort();
    assert!(!changes.has_changed().unwrap(), "{:?}", changes.borrow_and_update());
    assert!(!differs(&shown(&seen(&bench)), &first));
    let (asked, lists) = (bench.root.requests() - before, 60 / 5);
    assert!((lists - 3..=lists + 5).contains(&asked.list), "{asked:?}");
    assert!(seen(&bench).epochs.unwrap().observed_at > first.epochs.unwrap().observed_at, "but it was looked at");
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_that_writes_and_does_not_seal_is_stalled_until_it_seals() {
    let bench = bench();
    let sealed = bench.seal(7).await;
    bench.clock.set(sealed + SignedDuration::from_mins(31));
    work(&bench, SOON).await;
    assert_eq!(seen(&bench).stalled, None, "a pipeline that stands still writes nothing, and that is no finding");
    bench.write(8).await;
    bench.clock.set(sealed + SignedDuration::from_secs(30 * 60 - 1));
    work(&bench, EVERY * 2).await;
    assert_eq!(seen(&bench).stalled, None);
    bench.clock.set(sealed + SignedDuration::from_mins(30));
    work(&bench, EVERY * 2).await;
    let stalled = seen(&bench).stalled.unwrap();
    assert!(stalled.starts_with("warning StalledSealing epoch 8: no epoch was sealed since 7 at "), "{stalled}");
    assert_eq!(seen(&bench).audit_said(), Some(Said::new(AuditClean::Warnings, stalled)));
    let text = bench.context.metrics.encode().unwrap();
    let metric = "epochwarden_audit_findings{namespace=\"streaming\",policy=\"orders\",kind=\"StalledSealing\"}";
    assert!(text.contains(&format!("{metric} 1")), "{text}");
    let sealed = bench.seal(8).await;
    bench.clock.set(sealed + SignedDuration::from_mins(31));
    bench.write(6).await;
    work(&bench, EVERY * 2).await;
    assert_eq!((seen(&bench).stalled, seen(&bench).audit_said()), (None, None), "lower epochs are another finding's");
    assert!(bench.context.metrics.encode().unwrap().contains(&format!("{metric} 0")));
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_a_day_moves_no_check_and_leaves_no_finding() {
    let bench = bench();
    let sealed = bench.seal(7).await;
    bench.write(8).await;
    bench.clock.set(sealed);
    let day = SignedDuration::from_hours(24);
    let before = bench.root.requests();
    let task = tokio::spawn(run(Arc::clone(&bench.context), Arc::clone(&bench.handle)));
    for (jump, stalled) in [(day, true), (-day, false), (-day, false), (day, false)] {
        bench.clock.jump(jump);
        wait(EVERY * 2).await;
        assert_eq!(seen(&bench).stalled.is_some(), stalled, "after {jump:?}");
    }
    task.abort();
    let asked = (bench.root.requests() - before).list;
    assert!((5..=11).contains(&asked), "{asked} checks in 40 minutes");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_of_a_store_that_is_suspended_or_not_ready_or_never_to_be_checked() {
    let mut cases = vec![
        ("never", json!({ "audit": { "sealCheckEvery": "0s" } })),
        ("suspended", json!({ "suspend": true })),
        ("audit suspended", json!({ "audit": { "suspend": true } })),
    ];
    cases.push(("unreachable", json!({})));
    for (case, more) in cases {
        let bench = bench();
        bench.seal(7).await;
        change(&bench, &more);
        if case == "unreachable" {
            bench.handle.observed.send_modify(|observed| observed.store.reason = StoreReady::Unreachable);
        }
        let before = bench.root.requests();
        let task = tokio::spawn(run(Arc::clone(&bench.context), Arc::clone(&bench.handle)));
        wait(Duration::from_hours(1)).await;
        assert_eq!((bench.root.requests() - before).total(), 0, "{case}");
        assert_eq!(seen(&bench).epochs, None, "{case}");
        // And then it is.
        change(&bench, &json!({}));
        bench.handle.observed.send_modify(|observed| observed.store.reason = StoreReady::Reachable);
        wait(NOT_READY * 2).await;
        assert!(seen(&bench).epochs.is_some(), "{case}");
        task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn what_only_a_check_has_said_ends_with_the_checks() {
    let bench = bench();
    let sealed = bench.seal(7).await;
    bench.write(8).await;
    bench.clock.set(sealed + SignedDuration::from_hours(1));
    let task = tokio::spawn(run(Arc::clone(&bench.context), Arc::clone(&bench.handle)));
    wait(SOON).await;
    assert!(seen(&bench).stalled.is_some());
    change(&bench, &json!({ "audit": { "sealCheckEvery": "0s" } }));
    wait(Duration::from_secs(1)).await;
    assert_eq!(seen(&bench).stalled, None);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn what_an_index_does_not_show_stays_as_the_last_run_has_counted_it() {
    let bench = bench();
    bench.seal(7).await;
    let counted = EpochsStatus {
        latest_committed: Some(shown(7)),
        latest_committer: Some("pod-9".into()),
        objects: Some(5_u64.into()),
        bytes: Some(50_u64.into()),
        ..EpochsStatus::default()
    };
    bench.handle.observed.send_modify(|observed| observed.epochs = Some(counted));
    work(&bench, EVERY * 2).await;
    let epochs = seen(&bench).epochs.unwrap();
    assert_eq!((epochs.objects, epochs.bytes), (Some(5_u64.into()), Some(50_u64.into())));
    assert_eq!(epochs.latest_committer.as_deref(), Some("pod-9"), "it is still the same seal");
    bench.seal(8).await;
    work(&bench, EVERY * 2).await;
    let epochs = seen(&bench).epochs.unwrap();
    assert_eq!((epochs.latest_committed, epochs.latest_committer), (Some(shown(8)), None), "nobody knows yet");
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_a_run_has_overtaken_is_thrown_away() {
    let bench = bench();
    bench.seal(7).await;
    let index = epochwarden_store::list_index(&bench.root).await.unwrap();
    let newer = EpochsStatus { latest_committed: Some(shown(9)), ..EpochsStatus::default() };
    bench.handle.observed.send_modify(|observed| observed.epochs = Some(newer.clone()));
    observe(&bench.context, &bench.handle, &index, Duration::ZERO, None);
    assert_eq!(seen(&bench).epochs, Some(newer));
}

#[tokio::test(start_paused = true)]
async fn no_more_than_a_bounded_number_of_checks_is_under_way_and_none_waits_for_a_run() {
    let bench = bench();
    bench.seal(7).await;
    let _runs = Arc::clone(&bench.context.runs).try_acquire_owned().unwrap();
    let all = bench.context.seal_checks.acquire_many(u32::try_from(CHECKS).unwrap()).await.unwrap();
    let task = tokio::spawn(run(Arc::clone(&bench.context), Arc::clone(&bench.handle)));
    wait(Duration::from_mins(10)).await;
    assert_eq!(seen(&bench).epochs, None, "it waits for its turn");
    drop(all);
    wait(SOON).await;
    assert!(seen(&bench).epochs.is_some(), "the runs are all taken, and that is nothing to it");
    task.abort();
}
