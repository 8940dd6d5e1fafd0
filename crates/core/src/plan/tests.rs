//! The rules one by one, in small listings written by hand: an epoch is a line of its number and what it holds.

use super::*;
use crate::inventory::InventoryBuilder;
use crate::retention::KeepEvery;

const VNODES: u32 = 2;

/// One epoch: its number, the second of its partials, that of its seal, and further keys below its folder.
#[derive(Clone)]
struct Listed {
    epoch: u64,
    partials: Vec<(u32, i64)>,
    seal: Option<i64>,
    extras: Vec<(&'static str, i64)>,
}

/// A whole epoch, written and sealed at `second`.
fn sealed(epoch: u64, second: i64) -> Listed {
    Listed { epoch, partials: vec![(0, second), (1, second)], seal: Some(second), extras: vec![] }
}

/// A sealed epoch that lacks a vnode.
fn incomplete(epoch: u64, second: i64) -> Listed {
    Listed { partials: vec![(1, second)], ..sealed(epoch, second) }
}

/// An epoch without a seal.
fn open(epoch: u64, second: i64) -> Listed {
    Listed { seal: None, ..sealed(epoch, second) }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn listing(epochs: &[Listed]) -> InventoryBuilder {
    let mut builder = InventoryBuilder::new(VNODES);
    for Listed { epoch, partials, seal, extras } in epochs {
        for (vnode, second) in partials {
            builder.observe(&format!("epoch={epoch}/vnode={vnode}/partial.bin"), 100, at(*second), None);
        }
        if let Some(second) = seal {
            builder.observe(&format!("epoch={epoch}/_COMMIT"), 1, at(*second), None);
        }
        for (name, second) in extras {
            builder.observe(&format!("epoch={epoch}{name}"), 10, at(*second), None);
        }
    }
    builder
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn rules(retention: Retention) -> Rules {
    Rules { vnodes: VNODES, retention, min_age: Duration::ZERO }
}

fn keep_last(count: u32) -> Retention {
    Retention { keep_last: Some(count), ..Retention::default() }
}

fn pins(epochs: &[u64]) -> std::collections::BTreeSet<Epoch> {
    epochs.iter().copied().map(Epoch::new).collect()
}

fn plan(epochs: &[Listed], rules: &Rules) -> Plan {
    let subject = Subject { root: "s3://state".into(), policy_uid: String::new() };
    Plan::new(&listing(epochs).finish(), rules, &subject)
}

/// The decisions as `number:word`, ascending.
fn words(plan: &Plan) -> String {
    let words: Vec<_> = plan.decisions().map(|planned| format!("{}:{}", planned.epoch, planned.decision)).collect();
    words.join(" ")
}

#[track_caller]
fn assert_words(cases: &[(&str, Rules, Vec<Listed>, &str)]) {
    for (what, rules, epochs, expected) in cases {
        assert_eq!(words(&plan(epochs, rules)), *expected, "{what}");
    }
}

#[test]
fn reasons_of_a_whole_root_come_first() {
    let two = vec![sealed(1, 10), sealed(2, 20)];
    let pinned = Retention { pinned: pins(&[1]), incremental_depth: 2, ..Retention::default() };
    assert_words(&[
        ("an empty retention", rules(Retention::default()), two.clone(), "1:KeepsEverything 2:KeepsEverything"),
        ("pins alone", rules(pinned), two.clone(), "1:KeepsEverything 2:KeepsEverything"),
        (
            "an empty retention over incomplete epochs",
            rules(Retention::default()),
            vec![incomplete(1, 10)],
            "1:KeepsEverything",
        ),
        (
            "nothing sealed is complete",
            rules(keep_last(1)),
            vec![incomplete(1, 10), open(2, 20)],
            "1:NoneComplete 2:NoneComplete",
        ),
        ("nothing is sealed", rules(keep_last(1)), vec![open(1, 10), open(2, 20)], "1:NoneComplete 2:NoneComplete"),
        (
            "judged by another number of vnodes",
            Rules { vnodes: 3, ..rules(keep_last(1)) },
            two,
            "1:NoneComplete 2:NoneComplete",
        ),
        ("nothing listed", rules(keep_last(1)), vec![], ""),
    ]);
}

#[test]
fn the_newest_sealed_and_the_newest_complete_stay_whatever_the_rules() {
    let none = keep_last(0);
    assert_words(&[
        ("one is both", rules(none.clone()), vec![sealed(1, 10), sealed(2, 20)], "1:Expired 2:Latest"),
        (
            "the latest is incomplete",
            rules(none.clone()),
            vec![sealed(1, 10), sealed(2, 20), incomplete(3, 30), incomplete(4, 40)],
            "1:Expired 2:NewestComplete 3:Expired 4:Latest",
        ),
        (
            "newest is the highest number, not the latest time",
            rules(none),
            vec![sealed(1, 50), sealed(u64::MAX, 50)],
            "1:Expired 18446744073709551615:Latest",
        ),
    ]);
}

#[test]
fn an_epoch_has_the_first_reason_that_holds() {
    let everything = Retention {
        keep_last: Some(9),
        keep_within: Some(seconds(99)),
        keep_every: vec![KeepEvery { every: seconds(1), for_: seconds(99) }],
        pinned: pins(&[1, 4]),
        incremental_depth: 9,
    };
    let epochs = vec![sealed(1, 10), sealed(2, 20), sealed(3, 30), incomplete(4, 40)];
    let old = Rules { min_age: seconds(99), ..rules(everything.clone()) };
    let without = |change: &dyn Fn(&mut Retention)| {
        let mut rules = old.clone();
        change(&mut rules.retention);
        rules
    };
    assert_words(&[
        ("all", old.clone(), epochs.clone(), "1:Pinned 2:KeepLast 3:NewestComplete 4:Latest"),
        (
            "less keepLast",
            without(&|r| r.keep_last = None),
            epochs.clone(),
            "1:Pinned 2:KeepWithin 3:NewestComplete 4:Latest",
        ),
        (
            "less keepWithin",
            without(&|r| (r.keep_last, r.keep_within) = (None, None)),
            epochs.clone(),
            "1:Pinned 2:KeepEvery 3:NewestComplete 4:Latest",
        ),
        (
            "less keepEvery",
            without(&|r| (r.keep_last, r.keep_within, r.keep_every) = (Some(0), None, vec![])),
            epochs.clone(),
            "1:Pinned 2:TooYoung 3:NewestComplete 4:Latest",
        ),
        (
            "less minAge",
            rules(Retention { keep_last: Some(0), incremental_depth: 9, ..Retention::default() }),
            epochs,
            "1:IncrementalBase 2:IncrementalBase 3:NewestComplete 4:Latest",
        ),
    ]);
}

#[test]
fn a_pin_keeps_an_epoch_sealed_or_not_and_only_where_it_is_listed() {
    let retention = Retention { pinned: pins(&[1, 2, 77]), ..keep_last(1) };
    let epochs = vec![open(1, 5), sealed(2, 10), sealed(3, 20), sealed(4, 30)];
    assert_words(&[("pins", rules(retention), epochs, "1:Pinned 2:Pinned 3:Expired 4:Latest")]);
}

#[test]
fn the_time_rules_count_back_from_the_newest_seal_and_not_from_newer_objects() {
    let within = Retention { keep_within: Some(seconds(10)), ..Retention::default() };
    let every =
        Retention { keep_every: vec![KeepEvery { every: seconds(100), for_: seconds(30) }], ..Retention::default() };
    let epochs = vec![sealed(1, 70), sealed(2, 89), sealed(3, 90), sealed(4, 100), open(5, 5000)];
    assert_words(&[
        ("keepWithin", rules(within), epochs.clone(), "1:Expired 2:Expired 3:KeepWithin 4:Latest 5:Unsealed"),
        ("keepEvery", rules(every), epochs, "1:Expired 2:Expired 3:KeepEvery 4:Latest 5:Unsealed"),
    ]);
}

#[test]
fn a_window_that_the_latest_fills_keeps_no_other() {
    let every =
        Retention { keep_every: vec![KeepEvery { every: seconds(100), for_: seconds(1000) }], ..Retention::default() };
    let epochs = vec![sealed(1, 10), sealed(2, 90), sealed(3, 110), sealed(4, 120)];
    assert_words(&[("two windows", rules(every), epochs, "1:Expired 2:KeepEvery 3:Expired 4:Latest")]);
}

#[test]
fn too_young_is_an_epoch_with_a_young_object_or_without_an_old_seal_above() {
    let with = |min_age: u64| Rules { min_age: seconds(min_age), ..rules(keep_last(1)) };
    let touched = Listed { extras: vec![("/note", 95)], ..sealed(1, 10) };
    assert_words(&[
        (
            "old, below an old seal",
            with(10),
            vec![sealed(1, 10), sealed(2, 80), sealed(3, 100)],
            "1:Expired 2:TooYoung 3:Latest",
        ),
        (
            "a seal as old as minAge is not older",
            with(20),
            vec![sealed(1, 10), sealed(2, 80), sealed(3, 100)],
            "1:TooYoung 2:TooYoung 3:Latest",
        ),
        (
            "an object as old as minAge is not younger",
            with(19),
            vec![sealed(1, 81), sealed(2, 80), sealed(3, 100)],
            "1:Expired 2:TooYoung 3:Latest",
        ),
        (
            "a young object",
            with(10),
            vec![touched.clone(), sealed(2, 80), sealed(3, 100)],
            "1:TooYoung 2:TooYoung 3:Latest",
        ),
        (
            "an unsealed one too",
            with(10),
            vec![open(1, 95), sealed(2, 80), sealed(3, 100)],
            "1:TooYoung 2:TooYoung 3:Latest",
        ),
        (
            "ages count back from the newest object, not the newest seal",
            with(10),
            vec![sealed(1, 10), sealed(2, 80), open(3, 91)],
            "1:Expired 2:Latest 3:TooYoung",
        ),
        ("0s turns it off", with(0), vec![touched, sealed(2, 100), sealed(3, 100)], "1:Expired 2:Expired 3:Latest"),
    ]);
}

#[test]
fn incremental_bases_reach_down_by_sealed_epochs_with_everything_between() {
    let with = |depth: u32, pinned: &[u64]| {
        rules(Retention { incremental_depth: depth, pinned: pins(pinned), ..keep_last(1) })
    };
    let epochs =
        vec![open(1, 1), sealed(2, 2), open(3, 3), sealed(40, 4), open(500, 5), sealed(600, 6), sealed(7000, 7)];
    assert_words(&[
        (
            "none",
            with(0, &[]),
            epochs.clone(),
            "1:Abandoned 2:Expired 3:Abandoned 40:Expired 500:Abandoned 600:Expired 7000:Latest",
        ),
        (
            "one",
            with(1, &[]),
            epochs.clone(),
            "1:Abandoned 2:Expired 3:Abandoned 40:Expired 500:Abandoned 600:IncrementalBase 7000:Latest",
        ),
        (
            "two",
            with(2, &[]),
            epochs.clone(),
            "1:Abandoned 2:Expired 3:Abandoned 40:IncrementalBase 500:IncrementalBase 600:IncrementalBase 7000:Latest",
        ),
        (
            "from a pin too",
            with(1, &[40]),
            epochs.clone(),
            "1:Abandoned 2:IncrementalBase 3:IncrementalBase 40:Pinned 500:Abandoned 600:IncrementalBase 7000:Latest",
        ),
        (
            "a kept one on the way is passed as well",
            with(2, &[600]),
            epochs.clone(),
            "1:Abandoned 2:IncrementalBase 3:IncrementalBase 40:IncrementalBase 500:IncrementalBase 600:Pinned 7000:Latest",
        ),
        (
            "not from an unsealed one",
            with(1, &[3]),
            epochs.clone(),
            "1:Abandoned 2:Expired 3:Pinned 40:Expired 500:Abandoned 600:IncrementalBase 7000:Latest",
        ),
        (
            "to the bottom",
            with(u32::MAX, &[]),
            epochs,
            "1:IncrementalBase 2:IncrementalBase 3:IncrementalBase 40:IncrementalBase 500:IncrementalBase 600:IncrementalBase 7000:Latest",
        ),
    ]);
}

#[test]
fn unsealed_epochs_above_the_lowest_anchor_may_be_in_flight() {
    let both = Retention { keep_last: Some(1), keep_within: Some(seconds(0)), ..Retention::default() };
    let within = Retention { keep_within: Some(seconds(10)), ..Retention::default() };
    let pinned = Retention { pinned: pins(&[2]), ..keep_last(2) };
    let only_pinned = Retention { pinned: pins(&[2]), ..keep_last(1) };
    let every =
        Retention { keep_every: vec![KeepEvery { every: seconds(1), for_: seconds(99) }], ..Retention::default() };
    let epochs = vec![open(1, 1), sealed(2, 2), open(3, 3), sealed(4, 4), open(5, 5)];
    assert_words(&[
        (
            "above the latest",
            rules(keep_last(1)),
            epochs.clone(),
            "1:Abandoned 2:Expired 3:Abandoned 4:Latest 5:Unsealed",
        ),
        (
            "above keepLast",
            rules(keep_last(2)),
            epochs.clone(),
            "1:Abandoned 2:KeepLast 3:Unsealed 4:Latest 5:Unsealed",
        ),
        ("above keepWithin", rules(within), epochs.clone(), "1:Abandoned 2:KeepWithin 3:Unsealed 4:Latest 5:Unsealed"),
        (
            "above keepLast under another word",
            rules(pinned),
            epochs.clone(),
            "1:Abandoned 2:Pinned 3:Unsealed 4:Latest 5:Unsealed",
        ),
        ("not above a pin", rules(only_pinned), epochs.clone(), "1:Abandoned 2:Pinned 3:Abandoned 4:Latest 5:Unsealed"),
        ("not above keepEvery", rules(every), epochs, "1:Abandoned 2:KeepEvery 3:Abandoned 4:Latest 5:Unsealed"),
        (
            "above the newest complete, below what both rules keep",
            rules(both),
            vec![open(1, 1), sealed(2, 2), open(3, 3), incomplete(4, 4)],
            "1:Abandoned 2:NewestComplete 3:Unsealed 4:Latest",
        ),
        (
            "above the newest complete",
            rules(keep_last(1)),
            vec![open(1, 1), sealed(2, 2), open(3, 3), incomplete(4, 4)],
            "1:Abandoned 2:NewestComplete 3:Unsealed 4:Latest",
        ),
    ]);
}

#[test]
fn an_unaddressable_key_holds_its_epoch_and_no_other() {
    let marked = |listed: Listed| Listed { extras: vec![("", 1)], ..listed };
    assert_words(&[
        (
            "sealed or not",
            rules(keep_last(1)),
            vec![sealed(1, 1), marked(sealed(2, 2)), marked(open(3, 3)), sealed(4, 4)],
            "1:Expired 2:UnaddressableKey 3:UnaddressableKey 4:Latest",
        ),
        (
            "other reasons come first",
            rules(keep_last(1)),
            vec![sealed(1, 1), marked(sealed(2, 2))],
            "1:Expired 2:Latest",
        ),
        (
            "its bases are not kept for it",
            rules(Retention { incremental_depth: 1, ..keep_last(1) }),
            vec![sealed(1, 1), marked(sealed(2, 2)), sealed(3, 3), sealed(4, 4)],
            "1:Expired 2:UnaddressableKey 3:IncrementalBase 4:Latest",
        ),
    ]);
}

#[test]
fn before_is_right_above_the_highest_deleted_epoch() {
    let pinned = rules(Retention { pinned: pins(&[1]), ..keep_last(1) });
    let top = u64::MAX;
    for (what, epochs, before) in [
        ("kept epochs may lie below", vec![sealed(1, 1), sealed(5, 5), sealed(900, 9)], Some(6)),
        ("never above the newest sealed one", vec![sealed(top - 1, 1), sealed(top, 2), open(7, 1)], Some(top)),
        ("nothing to delete", vec![sealed(1, 1), sealed(5, 5)], None),
        ("nothing listed", vec![], None),
    ] {
        assert_eq!(plan(&epochs, &pinned).before(), before.map(Epoch::new), "{what}");
    }
}

#[test]
fn a_plan_holds_while_an_epoch_to_delete_is_newer_than_the_newest_seal() {
    let touched = |second| Listed { extras: vec![("/note", second)], ..sealed(1, 10) };
    let regression = |epoch, modified| Hold::EpochRegression {
        epoch: Numbering::Plain.show(Epoch::new(epoch)),
        modified: at(modified),
        newest_sealed: Numbering::Plain.show(Epoch::new(9)),
        sealed_at: at(20),
    };
    for (what, epochs, hold) in [
        ("in the same second", vec![touched(20), sealed(9, 20)], None),
        ("a second later", vec![touched(21), sealed(9, 20)], Some(regression(1, 21))),
        ("an epoch that stays", vec![sealed(1, 10), sealed(9, 20), open(10, 50)], None),
        (
            "the newest of several",
            vec![touched(22), sealed(2, 23), sealed(3, 21), sealed(9, 20)],
            Some(regression(2, 23)),
        ),
        ("unsealed ones count", vec![open(3, 21), sealed(9, 20)], Some(regression(3, 21))),
    ] {
        let plan = plan(&epochs, &rules(keep_last(1)));
        assert_eq!(plan.hold(), hold.as_ref(), "{what}");
        assert!(
            plan.decision(Epoch::new(epochs[0].epoch)).unwrap().is_delete(),
            "{what}: a held plan still shows what it would do"
        );
        assert_eq!(plan.into_deletions().err(), hold, "{what}");
    }
}

#[test]
fn a_newer_layout_holds_the_whole_root() {
    for key in ["state-v2/x", "epoch=1/_SEAL"] {
        let mut builder = listing(&[sealed(1, 10), sealed(2, 5)]);
        builder.observe(key, 1, at(1), None);
        let subject = Subject { root: String::new(), policy_uid: String::new() };
        let plan = Plan::new(&builder.finish(), &rules(keep_last(1)), &subject);
        let hold = Hold::UnknownLayout { key: key.into() };
        assert_eq!(plan.hold(), Some(&hold));
        assert!(hold.to_string().contains(key) && hold.as_str() == "UnknownLayout");
        assert_eq!(plan.into_deletions(), Err(hold));
    }
}

#[test]
fn a_deletion_has_every_key_of_its_epoch_once_and_the_seal_apart() {
    let rich = Listed { partials: vec![(1, 1), (7, 1)], extras: vec![("/note", 1)], ..sealed(1, 1) };
    let deletions = plan(&[rich, open(2, 2), sealed(3, 3)], &rules(keep_last(1))).into_deletions().unwrap();
    let shown: Vec<_> = deletions
        .iter()
        .map(|deletion| {
            (
                deletion.epoch().get(),
                deletion.seal_key(),
                deletion.keys().collect::<Vec<_>>(),
                deletion.objects(),
                deletion.bytes(),
            )
        })
        .collect();
    let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
    let expected = vec![
        (
            1,
            Some("epoch=1/_COMMIT".to_owned()),
            keys(&["epoch=1/vnode=1/partial.bin", "epoch=1/note", "epoch=1/vnode=7/partial.bin"]),
            4,
            211,
        ),
        (2, None, keys(&["epoch=2/vnode=0/partial.bin", "epoch=2/vnode=1/partial.bin"]), 2, 200),
    ];
    assert_eq!(shown, expected);
    assert!(deletions.iter().all(|deletion| !deletion.must_list()));
}

#[test]
fn a_deletion_with_more_keys_than_were_kept_has_to_be_listed() {
    let mut builder = listing(&[sealed(1, 1), sealed(2, 2)]);
    for n in 0..100 {
        builder.observe(&format!("epoch=1/extra-{n}"), 1, at(1), None);
    }
    let subject = Subject { root: String::new(), policy_uid: String::new() };
    let deletions = Plan::new(&builder.finish(), &rules(keep_last(1)), &subject).into_deletions().unwrap();
    assert_eq!(deletions.iter().map(Deletion::must_list).collect::<Vec<_>>(), [true]);
    assert_eq!(deletions[0].objects(), 103);
}

#[test]
fn ranges_join_epochs_that_are_neighbours_in_the_listing() {
    let epochs = [open(1, 1), sealed(50, 2), sealed(60, 3), sealed(700, 4), sealed(8000, 5), sealed(u64::MAX, 6)];
    let rules = rules(Retention { pinned: pins(&[60]), ..keep_last(2) });
    let plan = plan(&epochs, &rules);
    let range = |from, to| (Epoch::new(from), Epoch::new(to));
    let deleted: Vec<_> = plan.delete_ranges().iter().map(|r| (range(r.from.get(), r.to.get()), r.reason)).collect();
    assert_eq!(
        deleted,
        [
            (range(1, 1), DeleteReason::Abandoned),
            (range(50, 50), DeleteReason::Expired),
            (range(700, 700), DeleteReason::Expired),
        ]
    );
    let kept: Vec<_> = plan.keep_ranges().iter().map(|r| (range(r.from.get(), r.to.get()), r.reason)).collect();
    assert_eq!(
        kept,
        [
            (range(60, 60), KeepReason::Pinned),
            (range(8000, 8000), KeepReason::KeepLast),
            (range(u64::MAX, u64::MAX), KeepReason::Latest),
        ]
    );
    let wide = self::plan(&epochs, &self::rules(keep_last(1)));
    assert_eq!(
        wide.delete_ranges()[1],
        Range {
            from: Numbering::Plain.show(Epoch::new(50)),
            to: Numbering::Plain.show(Epoch::new(8000)),
            reason: DeleteReason::Expired
        }
    );
    assert_eq!(plan.delete_totals(), PlanTotals { epochs: 3, objects: 8, bytes: 602 });
    assert_eq!(plan.keep_totals(), PlanTotals { epochs: 3, objects: 9, bytes: 603 });
}

#[test]
fn a_plan_in_json_has_epochs_as_strings_and_reasons_as_words() {
    let plan = plan(
        &[sealed(7, 10), Listed { extras: vec![("/note", 31)], ..sealed(8, 20) }, sealed(u64::MAX, 30)],
        &rules(keep_last(1)),
    );
    let decisions = serde_json::to_value(plan.decisions().collect::<Vec<_>>()).unwrap();
    assert_eq!(
        decisions[2],
        serde_json::json!({
            "epoch": "18446744073709551615", "action": "keep", "reason": "Latest", "sealed": true, "complete": true,
            "objects": 3, "bytes": 201, "newest": "1970-01-01T00:00:30Z",
        })
    );
    assert_eq!((decisions[0]["action"].as_str(), decisions[0]["reason"].as_str()), (Some("delete"), Some("Expired")));
    let summary = serde_json::to_value(plan.summary()).unwrap();
    assert_eq!(
        summary,
        serde_json::json!({
            "digest": plan.digest(), "before": "9", "through": "18446744073709551615", "computedAt": "1970-01-01T00:00:31Z",
            "epochs": 2, "objects": 7, "bytes": 412,
            "keep": [{"from": "18446744073709551615", "to": "18446744073709551615", "reason": "Latest"}],
            "delete": [{"from": "7", "to": "8", "reason": "Expired"}],
            "hold": {
                "reason": "EpochRegression", "epoch": "8", "modified": "1970-01-01T00:00:31Z",
                "newestSealed": "18446744073709551615", "sealedAt": "1970-01-01T00:00:30Z",
            },
        })
    );
}

#[test]
fn the_digest_covers_what_goes_and_not_when_or_what_stays() {
    let digest = |epochs: &[Listed]| plan(epochs, &rules(keep_last(1))).digest().to_owned();
    let base = digest(&[sealed(1, 10), sealed(2, 20)]);
    assert_eq!(digest(&[sealed(1, 11), sealed(2, 21)]), base, "times");
    assert_eq!(digest(&[sealed(1, 10), sealed(2, 20), open(3, 30)]), base, "an epoch that is kept");
    assert_ne!(digest(&[sealed(1, 10), sealed(2, 20), sealed(3, 30)]), base, "another deletion");
    assert_ne!(digest(&[sealed(2, 20)]), base, "no deletion");
    assert_eq!(base.len(), 64);
}

#[test]
fn a_plan_shows_its_epochs_as_their_numbering_writes_them_and_has_the_same_digest() {
    let v7 = 7_u64 << 40;
    let list = |numbering| {
        let mut builder = InventoryBuilder::new(1).numbered(numbering);
        for (second, epoch) in (0..).step_by(60).zip([12, v7, v7 + 1, v7 + 2]) {
            let at = Timestamp::from_second(second).unwrap();
            builder.observe(&format!("epoch={epoch}/vnode=0/partial.bin"), 1, at, None);
            builder.observe(&format!("epoch={epoch}/_COMMIT"), 1, at, None);
        }
        // A straggler, which makes the plan hold.
        builder.observe(&format!("epoch={v7}/late"), 1, Timestamp::from_second(1000).unwrap(), None);
        let retention = Retention { keep_last: Some(1), ..Retention::default() };
        let rules = Rules { vnodes: 1, retention, min_age: Duration::ZERO };
        Plan::new(&builder.finish(), &rules, &Subject { root: "s3://state".into(), policy_uid: String::new() })
    };
    let (plain, versioned) = (list(Numbering::Plain), list(Numbering::Versioned));
    assert_eq!(plain.digest(), versioned.digest());
    let summary = versioned.summary();
    let json = serde_json::to_value(&summary).unwrap();
    assert_eq!((&json["before"], &json["through"]), (&"v7/2".into(), &"v7/2".into()));
    assert_eq!(json["delete"], serde_json::json!([{"from": "12", "to": "v7/1", "reason": "Expired"}]));
    assert_eq!(json["hold"]["epoch"], "v7/0");
    let hold = versioned.hold().unwrap().to_string();
    assert!(hold.contains("epoch v7/0") && hold.contains("above v7/2") && !hold.contains("76965"), "{hold}");
    let shown: Vec<_> = versioned.decisions().map(|planned| planned.epoch.to_string()).collect();
    assert_eq!(shown, ["12", "v7/0", "v7/1", "v7/2"]);
}
