//! The wall clock jumps, the operator restarts, and daylight saving comes and goes: what a look starts.

use epochwarden_store::{Clock, Root};
use jiff::{SignedDuration, Timestamp};
use object_store::memory::InMemory;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::api::StateEpochPolicyStatus;
use crate::controller::status::status;
use crate::controller::workbench::{self, Hands};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// An operator that works for one policy, whose audits find an empty root.
struct Office {
    reconciler: Reconciler,
    clock: Arc<Hands>,
    audit: Value,
    handle: Arc<Handle>,
}

impl Office {
    fn open(clock: &Arc<Hands>, audit: Value, status: Option<&StateEpochPolicyStatus>) -> Self {
        let context = Context::alone_at(Arc::clone(clock) as _);
        let reconciler = Reconciler { context, registry: Arc::default(), shutdown: CancellationToken::new() };
        let spec = json!({ "audit": audit.clone() });
        // Without the tasks that belong to it: its store is open.
        let (handle, _) = reconciler.registry.ensure(&Arc::new(workbench::policy(&spec, status)), &reconciler.shutdown);
        workbench::open(&handle, &Root::from_store(Arc::new(InMemory::new())));
        reconciler.look(&handle, true);
        Self { reconciler, clock: Arc::clone(clock), audit, handle }
    }

    /// One look at this time, and the end of what it starts. Whether it started anything.
    async fn look(&self, now: Timestamp) -> bool {
        self.clock.set(now);
        let handle = &self.handle;
        let started = || handle.observed.borrow().audit.started_at;
        let (before, runs) = (started(), handle.observed.borrow().history.len());
        self.reconciler.look(handle, false);
        workbench::end_of_run(handle).await;
        let ran = started() != before || handle.observed.borrow().history.len() != runs;
        if ran {
            assert_eq!(handle.observed.borrow().audit.phase, Some(Phase::Succeeded));
        }
        ran
    }

    /// Looks so often in a span, as the operator would. When something was started.
    async fn watch(&self, from: Timestamp, until: Timestamp, every: SignedDuration) -> Vec<Timestamp> {
        let mut started = Vec::new();
        let mut now = from;
        while now < until {
            if self.look(now).await {
                started.push(now);
            }
            now += every;
        }
        started
    }

    /// The operator ends and another begins: only the status is left.
    fn restart(self) -> Self {
        let handle = &self.handle;
        let written = status(&handle.current(), &handle.observed.borrow(), &[], self.clock.now());
        handle.cancel.cancel();
        Self::open(&self.clock, self.audit.clone(), Some(&written))
    }
}

fn hourly() -> Value {
    json!({ "schedule": "@hourly", "sealCheckEvery": "0s" })
}

#[tokio::test]
async fn a_clock_that_jumps_a_day_ahead_makes_one_run_due() {
    let office = Office::open(&Hands::at("2026-11-05T12:30:00Z"), hourly(), None);
    assert!(!office.look(at("2026-11-05T12:59:59Z")).await);
    assert!(office.look(at("2026-11-05T13:00:00Z")).await);
    assert!(office.look(at("2026-11-06T13:30:00Z")).await, "24 slots were jumped over: one run stands for them");
    let next = office.handle.observed.borrow().audit.next_run_at;
    assert_eq!(next, Some(at("2026-11-06T14:00:00Z")));
    for minute in 31..60 {
        assert!(!office.look(at(&format!("2026-11-06T13:{minute}:00Z"))).await);
    }
    assert!(office.look(at("2026-11-06T14:00:00Z")).await);
}

#[tokio::test]
async fn a_clock_that_is_set_back_a_day_repeats_no_slot_and_silences_none_for_longer_than_25_hours() {
    let office = Office::open(&Hands::at("2026-11-05T12:30:00Z"), hourly(), None);
    assert!(office.look(at("2026-11-05T13:00:00Z")).await);
    let back = at("2026-11-04T13:00:10Z");
    let started = office.watch(back, back + HOUR * 26, SignedDuration::from_mins(5)).await;
    // The slot of 13:00 ran: what comes next is 14:00, an hour after the clock is where it was.
    assert_eq!(started.first().map(|start| start.duration_since(at("2026-11-05T14:00:00Z")).as_secs()), Some(10));
    assert!(started[0].duration_since(back) <= HOUR * 25 + SignedDuration::from_mins(5), "{started:?}");
}

#[tokio::test]
async fn a_clock_that_was_wrong_by_more_than_a_day_does_not_silence_the_schedule() {
    let office = Office::open(&Hands::at("2026-11-05T12:30:00Z"), hourly(), None);
    assert!(!office.look(at("2026-11-05T12:40:00Z")).await);
    assert!(office.look(at("2036-11-05T12:30:00Z")).await, "ten years ahead: one run is due");
    let back = at("2026-11-05T12:41:00Z");
    let started = office.watch(back, back + HOUR * 3, SignedDuration::from_mins(1)).await;
    let expected = ["2026-11-05T13:00:00Z", "2026-11-05T14:00:00Z", "2026-11-05T15:00:00Z"].map(at);
    assert_eq!(started, expected, "the record was wrong, and the schedule goes on from the present");
}

#[tokio::test]
async fn a_clock_that_jumps_to_and_fro_makes_one_run() {
    let office = Office::open(&Hands::at("2026-11-05T12:30:00Z"), hourly(), None);
    let (today, tomorrow) = (at("2026-11-05T12:30:00Z"), at("2026-11-06T12:30:00Z"));
    let mut runs = 0;
    for second in 0..60 {
        let now = if second % 2 == 0 { today } else { tomorrow };
        runs += u32::from(office.look(now + SignedDuration::from_secs(second)).await);
    }
    assert_eq!(runs, 1);
}

#[tokio::test]
async fn slots_that_pass_while_no_operator_is_there_are_one_run_of_the_next() {
    let office = Office::open(&Hands::at("2026-11-05T12:30:00Z"), hourly(), None);
    assert!(office.look(at("2026-11-05T13:00:00Z")).await);
    // Down from 13:10 to 18:20, and then once more without anything missed.
    office.clock.set(at("2026-11-05T18:20:00Z"));
    let office = office.restart();
    assert!(office.look(at("2026-11-05T18:20:01Z")).await, "five slots were missed");
    assert!(!office.look(at("2026-11-05T18:20:02Z")).await);
    let office = office.restart();
    assert!(!office.look(at("2026-11-05T18:59:59Z")).await, "what ran before the restart does not run again");
    assert!(office.look(at("2026-11-05T19:00:00Z")).await);
    assert_eq!(office.handle.observed.borrow().history.len(), 3);
}

#[tokio::test]
async fn where_the_clock_changes_each_slot_is_one_run_and_none_is_lost() {
    let ten = SignedDuration::from_mins(10);
    for (zone, schedule, from, until, expected) in [
        // Midnight of the 6th does not exist in Santiago: the day begins at 01:00.
        (
            "America/Santiago",
            "0 0 * * *",
            "2026-09-05T00:00:00Z",
            "2026-09-08T00:00:00Z",
            &["2026-09-05T04:00:00Z", "2026-09-06T04:00:00Z", "2026-09-07T03:00:00Z"][..],
        ),
        // 23:30 comes twice on the 4th.
        (
            "America/Santiago",
            "30 23 * * *",
            "2026-04-04T00:00:00Z",
            "2026-04-07T00:00:00Z",
            &["2026-04-04T02:30:00Z", "2026-04-05T02:30:00Z", "2026-04-06T03:30:00Z"],
        ),
        // 02:30 does not exist on the 29th.
        (
            "Europe/Berlin",
            "30 2 * * *",
            "2026-03-28T00:00:00Z",
            "2026-03-31T00:00:00Z",
            &["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
        ),
        // And comes twice on the 25th.
        (
            "Europe/Berlin",
            "30 2 * * *",
            "2026-10-24T00:00:00Z",
            "2026-10-27T00:00:00Z",
            &["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
        ),
    ] {
        let audit = json!({ "schedule": schedule, "timeZone": zone, "sealCheckEvery": "0s" });
        let office = Office::open(&Hands::at(from), audit, None);
        let started = office.watch(at(from), at(until), ten).await;
        let expected: Vec<Timestamp> = expected.iter().map(|text| at(text)).collect();
        assert_eq!(started, expected, "{schedule} in {zone}");
    }
}
