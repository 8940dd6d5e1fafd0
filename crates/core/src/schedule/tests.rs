use std::collections::BTreeSet;

use jiff::tz::Offset;
use proptest::prelude::*;

use super::*;

fn schedule(expression: &str, time_zone: &str) -> Schedule {
    Schedule::parse(expression, time_zone, "uid/prune").unwrap()
}

fn utc(expression: &str) -> Schedule {
    schedule(expression, "Etc/UTC")
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn slots(schedule: &Schedule, from: &str, until: &str) -> Vec<Timestamp> {
    let until = at(until);
    let mut slots = Vec::new();
    // One second before, so that `from` itself counts.
    let mut last = at(from) - SignedDuration::from_secs(1);
    while let Some(next) = schedule.next_after(last).filter(|next| *next < until) {
        assert!(next > last, "slots ascend");
        slots.push(next);
        last = next;
    }
    slots
}

fn instants(texts: &[&str]) -> Vec<Timestamp> {
    texts.iter().map(|text| at(text)).collect()
}

#[test]
fn the_next_slot_is_the_first_one_after_the_instant() {
    for (expression, after, next) in [
        ("*/15 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:15:00Z"),
        ("*/15 * * * *", "2026-01-01T00:14:59.9Z", "2026-01-01T00:15:00Z"),
        ("*/15 * * * *", "2026-01-01T00:15:00.1Z", "2026-01-01T00:30:00Z"),
        ("0 3 * * *", "2026-01-01T02:59:59Z", "2026-01-01T03:00:00Z"),
        ("0 3 * * *", "2026-01-01T03:00:00Z", "2026-01-02T03:00:00Z"),
        ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
        ("30 4 * * MON-FRI", "2026-11-06T05:00:00Z", "2026-11-09T04:30:00Z"),
        ("0 0 * * 7", "2026-11-02T00:00:00Z", "2026-11-08T00:00:00Z"),
        ("0 0 1 JAN,JUL *", "2026-02-01T00:00:00Z", "2026-07-01T00:00:00Z"),
        // Either day field counts when both are given: the 13th, or a Friday.
        ("0 0 13 * 5", "2026-11-10T00:00:00Z", "2026-11-13T00:00:00Z"),
        ("0 0 13 * 5", "2026-11-13T00:00:00Z", "2026-11-20T00:00:00Z"),
        ("0 0 L * *", "2026-02-01T00:00:00Z", "2026-02-28T00:00:00Z"),
        ("0 0 15W * *", "2026-11-01T00:00:00Z", "2026-11-16T00:00:00Z"),
        ("0 0 LW * *", "2026-10-01T00:00:00Z", "2026-10-30T00:00:00Z"),
        ("0 0 * * FRI#2", "2026-11-01T00:00:00Z", "2026-11-13T00:00:00Z"),
        ("0 0 * * 5L", "2026-11-01T00:00:00Z", "2026-11-27T00:00:00Z"),
        ("@hourly", "2026-11-01T07:00:00Z", "2026-11-01T08:00:00Z"),
        ("@daily", "2026-11-01T07:00:00Z", "2026-11-02T00:00:00Z"),
        ("@midnight", "2026-11-01T07:00:00Z", "2026-11-02T00:00:00Z"),
        ("@weekly", "2026-11-02T07:00:00Z", "2026-11-08T00:00:00Z"),
        ("@monthly", "2026-11-02T07:00:00Z", "2026-12-01T00:00:00Z"),
        ("@yearly", "2026-11-02T07:00:00Z", "2027-01-01T00:00:00Z"),
        (" @Annually ", "2026-11-02T07:00:00Z", "2027-01-01T00:00:00Z"),
    ] {
        assert_eq!(utc(expression).next_after(at(after)), Some(at(next)), "{expression} after {after}");
    }
}

#[test]
fn a_time_of_day_is_the_time_zones() {
    let noon = schedule("0 12 * * *", "Europe/Berlin");
    assert_eq!(noon.next_after(at("2026-01-10T00:00:00Z")), Some(at("2026-01-10T11:00:00Z")));
    assert_eq!(noon.next_after(at("2026-07-10T00:00:00Z")), Some(at("2026-07-10T10:00:00Z")));
}

#[test]
fn a_wrong_schedule_names_the_field_and_says_what_to_write() {
    for (expression, words) in [
        ("", &["0 fields", "write five"][..]),
        ("* * * *", &["4 fields", "write five"]),
        ("0 * * * * *", &["6 fields", "no seconds"]),
        ("0 0 * * * * 2030", &["7 fields", "no year"]),
        ("@reboot", &["@reboot", "write @hourly"]),
        ("@", &["write @hourly"]),
        ("60 * * * *", &["minute field \"60\"", "write 0-59"]),
        ("-1 * * * *", &["minute field"]),
        ("*/0 * * * *", &["minute field \"*/0\"", "zero"]),
        ("5/10 * * * *", &["minute field \"5/10\"", "write 0-59"]),
        ("30-10 * * * *", &["minute field"]),
        ("1,,2 * * * *", &["minute field \"1,,2\"", "empty item"]),
        (", * * * *", &["minute field", "empty item"]),
        ("MON * * * *", &["minute field \"MON\"", "MON is not a name"]),
        ("L * * * *", &["minute field \"L\""]),
        ("* 24 * * *", &["hour field \"24\"", "write 0-23"]),
        ("* ? * * *", &["hour field \"?\""]),
        ("* * 0 * *", &["day-of-month field \"0\"", "write 1-31"]),
        ("* * 32 * *", &["day-of-month field"]),
        ("* * 40W * *", &["day-of-month field"]),
        ("* * L,LW * *", &["day-of-month field", "together"]),
        ("* * JAN * *", &["day-of-month field", "JAN is not a name"]),
        ("* * * 13 *", &["month field \"13\"", "write 1-12"]),
        ("* * * MON *", &["month field", "MON is not a name"]),
        ("* * * MARCH *", &["month field", "MARCH is not a name"]),
        ("* * * * 8", &["day-of-week field \"8\"", "write 0-7"]),
        ("* * * * +1", &["day-of-week field", "'+' has no meaning"]),
        ("* * * * L", &["day-of-week field", "L is not a name"]),
        ("* * * * 1#6", &["day-of-week field \"1#6\""]),
        ("* * * * 1#2L", &["day-of-week field"]),
        ("H/0 * * * *", &["minute field \"H/0\"", "step 0"]),
        ("H/1 * * * *", &["minute field \"H/1\"", "* is every value"]),
        ("H/61 * * * *", &["minute field \"H/61\"", "2-60"]),
        ("H(0-29)/31 * * * *", &["minute field", "2-30"]),
        ("H(0-60) * * * *", &["minute field", "0-59"]),
        ("H(9-3) * * * *", &["minute field"]),
        ("H(3) * * * *", &["minute field"]),
        ("H-5 * * * *", &["minute field"]),
        ("H5 * * * *", &["minute field"]),
        ("HH * * * *", &["minute field"]),
        ("* * H(0-5) * *", &["day-of-month field", "1-31"]),
        ("٣ * * * *", &["minute field"]),
        ("0 0 30 2 *", &["never comes"]),
        ("0 0 31 4,6,9,11 *", &["never comes"]),
    ] {
        let message = Schedule::parse(expression, "Etc/UTC", "seed").unwrap_err().to_string();
        for word in words {
            assert!(message.contains(word), "{expression}: {message}");
        }
    }
    for name in ["Berlin", "", "Etc/Unknown", "+01:00", "/etc/localtime"] {
        let message = Schedule::parse("@daily", name, "seed").unwrap_err().to_string();
        assert!(message.starts_with("timeZone: ") && message.contains(&format!("{name:?}")), "{message}");
    }
}

fn resolved(expression: &str, seed: &str) -> String {
    Schedule::parse(expression, "Etc/UTC", seed).unwrap().resolved().to_owned()
}

#[test]
fn an_h_is_the_same_for_a_seed_in_every_process_and_version() {
    // Computed by hand with sha256sum: the first 8 bytes of SHA-256("uid/prune" 00 FIELD), modulo the width.
    assert_eq!(resolved("H H H H H", "uid/prune"), "48 13 23 2 5");
}

#[test]
fn a_word_stays_on_the_exact_minute() {
    for seed in ["a", "b", "c"] {
        assert_eq!(resolved("@hourly", seed), "0 * * * *");
    }
}

#[test]
fn a_bare_h_is_one_value_of_its_field_and_of_every_month() {
    let ranges = [0..=59, 0..=23, 1..=28, 1..=12, 0..=6];
    let mut seen = vec![BTreeSet::new(); 5];
    for seed in 0..2_000 {
        for ((value, range), seen) in resolved("H H H H H", &seed.to_string()).split(' ').zip(&ranges).zip(&mut seen) {
            let value: u32 = value.parse().unwrap();
            assert!(range.contains(&value), "{value} {range:?}");
            seen.insert(value);
        }
    }
    // And every value is some seed's.
    for (seen, range) in seen.iter().zip(ranges) {
        assert_eq!(seen.len(), range.count());
    }
}

#[test]
fn an_h_with_a_step_is_an_offset_and_every_step_from_there() {
    let mut offsets = BTreeSet::new();
    for seed in 0..500 {
        let minutes: Vec<u32> = resolved("H/15 * * * *", &seed.to_string())
            .split(' ')
            .next()
            .unwrap()
            .split(',')
            .map(|minute| minute.parse().unwrap())
            .collect();
        let offset = minutes[0];
        assert!(offset < 15);
        assert_eq!(minutes, [offset, offset + 15, offset + 30, offset + 45]);
        offsets.insert(offset);
    }
    assert_eq!(offsets.len(), 15);
}

#[test]
fn an_h_with_a_range_stays_in_it_and_stands_in_lists() {
    for seed in 0..200 {
        let text = resolved("H(10-19)/5,59 H(1-3) * * *", &seed.to_string());
        let mut fields = text.split(' ');
        let minutes: Vec<u32> = fields.next().unwrap().split(',').map(|minute| minute.parse().unwrap()).collect();
        assert!((10..15).contains(&minutes[0]), "{text}");
        assert_eq!(minutes[1..], [minutes[0] + 5, 59]);
        assert!((1..=3).contains(&fields.next().unwrap().parse().unwrap()), "{text}");
    }
    // The range may be asked to reach beyond what a bare H picks from.
    assert_eq!(resolved("0 0 H(31-31) * *", "seed"), "0 0 31 * *");
}

#[test]
fn a_time_that_berlin_skips_runs_right_after_the_gap() {
    // 2026-03-29: 02:00 to 03:00 does not exist; 03:00 is 01:00 UTC.
    let day =
        |expression| slots(&schedule(expression, "Europe/Berlin"), "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
    for expression in ["0 2 * * *", "30 2 * * *", "0,30 2 * * *", "*/15 2 * * *", "59 2 29 3 *", "0 2,3 * * *"] {
        assert_eq!(day(expression), instants(&["2026-03-29T01:00:00Z"]), "{expression}");
    }
    assert_eq!(day("30 2,14 * * *"), instants(&["2026-03-29T01:00:00Z", "2026-03-29T12:30:00Z"]));
    assert_eq!(day("59 1 * * *"), instants(&["2026-03-29T00:59:00Z"]));
    // What runs in every hour follows real time.
    assert_eq!(day("@hourly").len(), 23);
    assert_eq!(day("*/15 * * * *").len(), 23 * 4);
}

#[test]
fn a_time_that_comes_twice_in_berlin_runs_the_first_time() {
    // 2026-10-25: 02:00 to 03:00 comes twice, at 00:00 UTC and at 01:00 UTC.
    let day =
        |expression| slots(&schedule(expression, "Europe/Berlin"), "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
    assert_eq!(day("0 2 * * *"), instants(&["2026-10-25T00:00:00Z"]));
    assert_eq!(day("0,30 2 * * *"), instants(&["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z"]));
    assert_eq!(day("30 2,14 * * *"), instants(&["2026-10-25T00:30:00Z", "2026-10-25T13:30:00Z"]));
    // Asked within the second pass, whose times had their slots in the first.
    let nightly = schedule("30 2 * * *", "Europe/Berlin");
    assert_eq!(nightly.next_after(at("2026-10-25T01:10:00Z")), Some(at("2026-10-26T01:30:00Z")));
    let twice = schedule("30 2-3 * * *", "Europe/Berlin");
    assert_eq!(twice.next_after(at("2026-10-25T01:10:00Z")), Some(at("2026-10-25T02:30:00Z")));
    assert_eq!(day("@hourly").len(), 25);
    assert_eq!(day("*/15 * * * *").len(), 25 * 4);
}

#[test]
fn midnight_in_santiago_is_one_slot_on_the_days_that_the_clock_changes() {
    // 2026-09-06 begins at 01:00 (04:00 UTC); on 2026-04-04 the hour from 23:00 comes twice (02:00 and 03:00 UTC).
    let daily = schedule("@daily", "America/Santiago");
    assert_eq!(
        slots(&daily, "2026-09-05T00:00:00Z", "2026-09-08T00:00:00Z"),
        instants(&["2026-09-05T04:00:00Z", "2026-09-06T04:00:00Z", "2026-09-07T03:00:00Z"])
    );
    assert_eq!(
        slots(&daily, "2026-04-04T00:00:00Z", "2026-04-07T00:00:00Z"),
        instants(&["2026-04-04T03:00:00Z", "2026-04-05T04:00:00Z", "2026-04-06T04:00:00Z"])
    );
    let late = schedule("30 23 * * *", "America/Santiago");
    assert_eq!(
        slots(&late, "2026-04-04T00:00:00Z", "2026-04-06T00:00:00Z"),
        instants(&["2026-04-04T02:30:00Z", "2026-04-05T02:30:00Z"])
    );
    let weekly = schedule("0 0 * * SUN", "America/Santiago");
    assert_eq!(weekly.next_after(at("2026-09-05T00:00:00Z")), Some(at("2026-09-06T04:00:00Z")));
    assert_eq!(weekly.next_after(at("2026-09-06T04:00:00Z")), Some(at("2026-09-13T03:00:00Z")));
}

#[test]
fn a_gap_over_midnight_loses_no_slot() {
    // Toronto, 1919-03-30: the clock went from 23:30 to 00:30 of the next day.
    let late = schedule("45 23 30 3 *", "America/Toronto");
    assert_eq!(late.next_after(at("1919-03-25T00:00:00Z")), Some(at("1919-03-31T04:30:00Z")));
}

/// All slots in a span, by trying every minute of it: of the real time, or of the clock on the wall.
fn by_trial(schedule: &Schedule, from: Timestamp, until: Timestamp) -> BTreeSet<Timestamp> {
    let minute = SignedDuration::from_mins(1);
    let zone = &schedule.time_zone;
    let mut found = BTreeSet::new();
    if schedule.every_hour {
        let mut instant = from;
        while instant < until {
            if schedule.cron.is_time_matching(&zone.to_datetime(instant)).unwrap() {
                found.insert(instant);
            }
            instant += minute;
        }
    } else {
        let day = SignedDuration::from_hours(24);
        let mut wall = Offset::UTC.to_datetime(from - day);
        while wall < Offset::UTC.to_datetime(until + day) {
            if schedule.cron.is_time_matching(&wall).unwrap() {
                let exact = zone.to_ambiguous_timestamp(wall);
                let slot = if let AmbiguousOffset::Gap { .. } = exact.offset() {
                    // The first real minute whose time on the wall is later.
                    let mut instant = exact.earlier().unwrap();
                    while zone.to_datetime(instant) < wall {
                        instant += minute;
                    }
                    instant
                } else {
                    exact.earlier().unwrap()
                };
                found.insert(slot);
            }
            wall += minute;
        }
    }
    found.retain(|slot| (from..until).contains(slot));
    found
}

fn expressions() -> impl Strategy<Value = String> {
    let minutes = prop::sample::select(vec!["0", "30", "59", "*", "*/7", "H", "H/15", "0,30", "10-20"]);
    let hours = prop::sample::select(vec!["*", "0-23", "*/2", "0", "1", "2", "3", "23", "0,2,23", "1-3", "H", "H/6"]);
    let days = prop::sample::select(vec!["*", "*/2", "29", "L"]);
    let weekdays = prop::sample::select(vec!["*", "SUN", "6L"]);
    (minutes, hours, days, weekdays)
        .prop_map(|(minute, hour, day, weekday)| format!("{minute} {hour} {day} * {weekday}"))
}

/// Midnight UTC of days near the changes of the clock of 2026, in zones that change at different hours and by different amounts.
fn changes() -> impl Strategy<Value = (&'static str, Timestamp)> {
    prop::sample::select(vec![
        ("Europe/Berlin", "2026-03-29"),
        ("Europe/Berlin", "2026-10-25"),
        ("America/Santiago", "2026-09-06"),
        ("America/Santiago", "2026-04-05"),
        ("Australia/Lord_Howe", "2026-10-03"),
        ("Australia/Lord_Howe", "2026-04-04"),
        ("Asia/Kathmandu", "2026-05-05"),
        // A whole day was skipped.
        ("Pacific/Apia", "2011-12-30"),
    ])
    .prop_map(|(zone, day)| (zone, format!("{day}T00:00:00Z").parse().unwrap()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn around_a_change_of_the_clock_each_slot_comes_once_and_none_is_lost(
        expression in expressions(), (zone, day) in changes(), offset in 0_i64..86_400,
    ) {
        let schedule = schedule(&expression, zone);
        let (from, until) = (day - SignedDuration::from_hours(30), day + SignedDuration::from_hours(54));
        let expected = by_trial(&schedule, from, until);
        let mut found = BTreeSet::new();
        let mut last = from - SignedDuration::from_secs(1);
        while let Some(next) = schedule.next_after(last).filter(|next| *next < until) {
            prop_assert!(next > last);
            found.insert(next);
            last = next;
        }
        prop_assert_eq!(&found, &expected);
        // And from any instant in between.
        let after = day + SignedDuration::from_secs(offset) + SignedDuration::from_millis(offset % 3);
        if let Some(next) = expected.range(after..).find(|slot| **slot > after) {
            prop_assert_eq!(schedule.next_after(after), Some(*next));
        }
    }
}

const NEW: Remembered = Remembered { promised: None, last: LastRun::None };

fn finished(started: &str, promised: &str) -> Remembered {
    Remembered { promised: Some(at(promised)), last: LastRun::Finished { started: at(started) } }
}

fn unfinished(started: &str, promised: &str) -> Remembered {
    Remembered { promised: Some(at(promised)), last: LastRun::Unfinished { started: at(started) } }
}

fn now_due(slot: &str, missed: u32) -> Due {
    Due::Now { slot: at(slot), missed }
}

fn not_yet(next: &str) -> Due {
    Due::NotYet { next: at(next) }
}

#[test]
fn due_follows_what_the_status_remembers() {
    let quarter = utc("*/15 * * * *");
    let ran_at_noon = finished("2026-11-05T12:00:03Z", "2026-11-05T12:15:00Z");
    let promised_noon = Remembered { promised: Some(at("2026-11-05T12:00:00Z")), last: LastRun::None };
    for (case, remembered, now, due) in [
        ("first seen", NEW, "2026-11-05T12:07:00Z", not_yet("2026-11-05T12:15:00Z")),
        ("first seen at a slot", NEW, "2026-11-05T12:15:00Z", not_yet("2026-11-05T12:30:00Z")),
        ("promised, early", promised_noon, "2026-11-05T11:59:59.999Z", not_yet("2026-11-05T12:00:00Z")),
        ("promised, on time", promised_noon, "2026-11-05T12:00:00Z", now_due("2026-11-05T12:00:00Z", 0)),
        ("promised, waiting for its turn", promised_noon, "2026-11-05T12:14:59Z", now_due("2026-11-05T12:00:00Z", 0)),
        ("ran, next ahead", ran_at_noon, "2026-11-05T12:14:59Z", not_yet("2026-11-05T12:15:00Z")),
        ("ran, next here", ran_at_noon, "2026-11-05T12:15:00Z", now_due("2026-11-05T12:15:00Z", 0)),
        ("down over three slots", ran_at_noon, "2026-11-05T12:50:00Z", now_due("2026-11-05T12:45:00Z", 2)),
        ("back right on a slot", ran_at_noon, "2026-11-05T12:45:00Z", now_due("2026-11-05T12:45:00Z", 2)),
        ("down for a year", ran_at_noon, "2027-11-05T12:50:00Z", now_due("2027-11-05T12:45:00Z", MISSED_AT_MOST)),
        (
            "a run by hand covers the slots before it",
            finished("2026-11-05T12:20:00Z", "2026-11-05T12:15:00Z"),
            "2026-11-05T12:21:00Z",
            not_yet("2026-11-05T12:30:00Z"),
        ),
        (
            "not promised: resumed",
            Remembered { promised: None, ..ran_at_noon },
            "2026-11-05T18:07:00Z",
            not_yet("2026-11-05T18:15:00Z"),
        ),
        (
            "stopped in the middle",
            unfinished("2026-11-05T12:00:03Z", "2026-11-05T12:15:00Z"),
            "2026-11-05T12:01:00Z",
            now_due("2026-11-05T12:00:03Z", 0),
        ),
        (
            "stopped in the middle, and a slot since",
            unfinished("2026-11-05T12:00:03Z", "2026-11-05T12:15:00Z"),
            "2026-11-05T12:31:00Z",
            now_due("2026-11-05T12:30:00Z", 2),
        ),
        (
            "stopped in the middle, then unscheduled for long",
            Remembered { promised: None, last: LastRun::Unfinished { started: at("2026-11-01T00:00:00Z") } },
            "2026-11-05T12:01:00Z",
            now_due("2026-11-01T00:00:00Z", 0),
        ),
    ] {
        assert_eq!(quarter.due(&remembered, at(now), false), due, "{case}");
        assert_eq!(quarter.due(&remembered, at(now), true), Due::Suspended, "{case}, suspended");
    }
}

#[test]
fn an_edited_schedule_counts_from_the_edit_on() {
    let monthly = finished("2026-11-01T00:00:01Z", "2026-12-01T00:00:00Z");
    assert_eq!(
        utc("*/5 * * * *").due(&monthly, at("2026-11-05T12:02:00Z"), false),
        not_yet("2026-11-05T12:05:00Z"),
        "more often: at once"
    );
    let often = finished("2026-11-05T12:00:01Z", "2026-11-05T12:05:00Z");
    assert_eq!(
        utc("@monthly").due(&often, at("2026-11-05T12:30:00Z"), false),
        not_yet("2026-12-01T00:00:00Z"),
        "less often: the promise of the old one is void"
    );
}

#[test]
fn a_clock_that_is_set_back_repeats_no_slot() {
    let hourly = utc("@hourly");
    let ran = finished("2026-11-05T12:00:01Z", "2026-11-05T13:00:00Z");
    for (now, due) in [
        ("2026-11-05T11:59:58Z", not_yet("2026-11-05T13:00:00Z")),
        ("2026-11-04T12:00:00Z", not_yet("2026-11-05T13:00:00Z")),
        ("2026-11-04T11:00:01Z", not_yet("2026-11-05T13:00:00Z")),
        // Set back further than is believed: the record was wrong, and the schedule goes on from now.
        ("2026-11-04T10:59:59Z", not_yet("2026-11-04T11:00:00Z")),
        ("2020-01-01T00:30:00Z", not_yet("2020-01-01T01:00:00Z")),
    ] {
        assert_eq!(hourly.due(&ran, at(now), false), due, "{now}");
    }
}

/// The operator as the documentation of [`Remembered`] asks for it, with runs that take a while, and restarts in between.
struct Operator<'a> {
    schedule: &'a Schedule,
    status: Remembered,
    running_until: Option<Timestamp>,
    starts: Vec<Timestamp>,
}

impl Operator<'_> {
    fn reconcile(&mut self, now: Timestamp, suspended: bool, takes: SignedDuration) {
        if let (Some(until), LastRun::Unfinished { started }) = (self.running_until, self.status.last) {
            if now < until {
                return;
            }
            self.running_until = None;
            self.status.last = LastRun::Finished { started };
        }
        match self.schedule.due(&self.status, now, suspended) {
            Due::Suspended | Due::Never => self.status.promised = None,
            Due::NotYet { next } => self.status.promised = Some(next),
            Due::Now { .. } => {
                self.starts.push(now);
                self.status =
                    Remembered { promised: self.schedule.next_after(now), last: LastRun::Unfinished { started: now } };
                self.running_until = Some(now + takes);
            }
        }
    }

    /// Only the status survives.
    fn restart(&mut self) {
        self.running_until = None;
    }
}

#[test]
fn a_clock_that_jumps_a_day_to_and_fro_makes_one_run() {
    let schedule = utc("@hourly");
    let mut operator = Operator { schedule: &schedule, status: NEW, running_until: None, starts: Vec::new() };
    let (today, tomorrow) = (at("2026-11-05T12:30:00Z"), at("2026-11-06T12:30:00Z"));
    for second in 0..600 {
        let clock = if second % 2 == 0 { today } else { tomorrow };
        operator.reconcile(clock + SignedDuration::from_secs(second), false, SignedDuration::ZERO);
    }
    assert_eq!(operator.starts.len(), 1, "{:?}", operator.starts);
}

proptest! {
    #[test]
    fn restarts_lose_no_slot_and_repeat_none(
        // What happens in each of a number of minutes: seconds later a reconcile, after a restart, down, suspended, or not.
        minutes in prop::collection::vec((0_i64..60, 0_u8..10), 1..240), takes in 0_i64..600,
    ) {
        let schedule = utc("*/5 * * * *");
        let mut operator = Operator { schedule: &schedule, status: NEW, running_until: None, starts: Vec::new() };
        let begin = at("2026-11-05T12:00:30Z");
        let mut interrupted = 0;
        // Since when every slot is owed: the first time that it was seen, or seen resumed.
        let mut owed_since = None;
        for (minute, (second, event)) in (0_i64..).zip(&minutes) {
            let now = begin + SignedDuration::from_secs(minute * 60 + second);
            match event {
                0 | 1 => continue,
                2 => {
                    // An end that was not written down is an interruption too.
                    interrupted += usize::from(operator.running_until.is_some());
                    operator.restart();
                }
                _ => {}
            }
            operator.reconcile(now, *event == 3, SignedDuration::from_secs(takes));
            // Each start stands for a slot of its own, or for a run that was interrupted.
            let since_begin = usize::try_from(now.duration_since(begin).as_secs()).unwrap() / 300 + 1;
            prop_assert!(operator.starts.len() <= since_begin + interrupted);
            owed_since = if *event == 3 { None } else { owed_since.or(Some(now)) };
            // With nothing running, the latest slot that is owed has had its run.
            let latest = begin.as_second().max(now.as_second() / 300 * 300);
            if owed_since.is_some_and(|since| since.as_second() < latest) && operator.running_until.is_none() {
                prop_assert!(operator.starts.last().is_some_and(|start| start.as_second() >= latest));
            }
        }
        let mut slots: Vec<i64> = operator.starts.iter().map(|start| start.as_second() / 300).collect();
        let all = slots.len();
        slots.dedup();
        prop_assert!(all - slots.len() <= interrupted, "a slot ran twice: {:?}", operator.starts);
    }

    #[test]
    fn the_slot_that_is_due_is_the_latest_that_passed(expression in expressions(), ago in 1_i64..4_000_000) {
        let schedule = utc(&expression);
        let now = at("2026-11-05T12:34:56Z");
        let promised = schedule.next_after(now - SignedDuration::from_secs(ago)).unwrap();
        let remembered = Remembered { promised: Some(promised), last: LastRun::None };
        match schedule.due(&remembered, now, false) {
            Due::Now { slot, missed } => {
                let passed: Vec<_> = std::iter::successors(Some(promised), |slot| schedule.next_after(*slot))
                    .take_while(|slot| *slot <= now)
                    .collect();
                prop_assert_eq!(Some(&slot), passed.last());
                prop_assert_eq!(missed as usize, (passed.len() - 1).min(MISSED_AT_MOST as usize));
            }
            due => prop_assert_eq!(due, Due::NotYet { next: promised }),
        }
    }
}
