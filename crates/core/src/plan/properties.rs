//! What holds for every listing and every retention, tried on random ones and against the protocol's own words.

mod model;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::*;
use crate::inventory::InventoryBuilder;
use crate::retention::KeepEvery;
use model::{Model, Object, What};

const VNODES: u32 = 3;

fn plan(objects: &[Object], rules: &Rules) -> Plan {
    let mut builder = InventoryBuilder::new(VNODES);
    for object in objects {
        let modified = Timestamp::from_millisecond(object.modified).unwrap();
        builder.observe(&object.key(), object.size, modified, None);
    }
    let subject = Subject { root: "s3://state".into(), policy_uid: "u1".into() };
    Plan::new(&builder.finish(), rules, &subject)
}

fn epoch_number() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 0..14_u64,
        1 => select(vec![u64::MAX, u64::MAX - 1, 1 << 63, 1_700_000_000_000, 1_700_000_060_000]),
        1 => any::<u64>(),
    ]
}

/// A listing whose seals mostly come in the order of their numbers, around 1970, half a second apart at the least.
fn listing() -> impl Strategy<Value = Vec<Object>> {
    let seal = option::weighted(0.8, Just(()));
    let partials =
        prop_oneof![4 => Just(vec![0, 1, 2]), 1 => proptest::sample::subsequence(vec![0, 1, 2, 3, 77], 0..=5)];
    let note = option::weighted(0.2, (0..3_u8, -60..30_i64));
    let marker = proptest::bool::weighted(0.08);
    let skew = prop_oneof![4 => Just(0_i64), 1 => -40..40_i64];
    let epochs =
        proptest::collection::btree_map(epoch_number(), (seal, partials, note, marker, skew, 1..12_i64), 0..12);
    (epochs, -60..40_i64, any::<u64>()).prop_map(|(epochs, mut clock, seed)| {
        let mut objects = Vec::new();
        for (epoch, (seal, partials, note, marker, skew, step)) in epochs {
            clock += step;
            let mut add = |what, half_seconds: i64, size| {
                objects.push(Object { epoch, what, modified: half_seconds * 500, size });
            };
            for vnode in &partials {
                add(What::Partial(*vnode), clock + skew - i64::from(*vnode % 2), 100);
            }
            if seal.is_some() {
                add(What::Seal, clock + skew, 9);
            }
            if let Some((number, late)) = note {
                add(What::Note(number), clock + skew + late, 10);
            }
            if marker {
                add(What::FolderMarker, clock + skew - 1, 0);
            }
        }
        shuffle(&mut objects, seed);
        objects
    })
}

fn shuffle(objects: &mut [Object], mut seed: u64) {
    for index in (1..objects.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        objects.swap(index, (seed >> 33) as usize % (index + 1));
    }
}

fn half_seconds(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(|number| Duration::from_millis(number * 500))
}

fn rules() -> impl Strategy<Value = Rules> {
    let keep_every = (half_seconds(1..20), half_seconds(0..80)).prop_map(|(every, for_)| KeepEvery { every, for_ });
    let retention = (
        option::weighted(0.5, 0..5_u32),
        option::weighted(0.4, half_seconds(0..30)),
        prop_oneof![2 => Just(vec![]), 1 => vec(keep_every, 1..3)],
        proptest::collection::btree_set(epoch_number().prop_map(Epoch::new), 0..3),
        prop_oneof![2 => Just(0_u32), 2 => 1..4_u32, 1 => Just(u32::MAX)],
    )
        .prop_map(|(keep_last, keep_within, keep_every, pinned, incremental_depth)| Retention {
            keep_last,
            keep_within,
            keep_every,
            pinned,
            incremental_depth,
        });
    let min_age = prop_oneof![1 => Just(Duration::ZERO), 2 => half_seconds(1..25)];
    (retention, min_age).prop_map(|(retention, min_age)| Rules { vnodes: VNODES, retention, min_age })
}

fn words(plan: &Plan) -> Vec<(u64, &'static str)> {
    plan.decisions().map(|planned| (planned.epoch.get(), planned.decision.as_str())).collect()
}

fn deleted(plan: &Plan) -> Vec<u64> {
    plan.decisions().filter(|planned| planned.decision.is_delete()).map(|planned| planned.epoch.get()).collect()
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_plan_is_what_the_protocol_says(objects in listing(), rules in rules()) {
        let model = Model { objects: &objects, rules: &rules };
        let plan = plan(&objects, &rules);
        let expected: Vec<_> = model.listed().into_iter().map(|epoch| (epoch, model.word(epoch))).collect();
        prop_assert_eq!(words(&plan), expected.clone());
        let gone = |(epoch, word): (u64, &str)| matches!(word, "Expired" | "Abandoned").then_some(epoch);
        let expected: Vec<_> = expected.into_iter().filter_map(gone).collect();
        prop_assert_eq!(deleted(&plan), expected.clone());
        prop_assert_eq!(plan.before().map(Epoch::get), expected.last().map(|highest| highest + 1));
        prop_assert_eq!(plan.hold().is_some(), model.held(&expected));
        prop_assert_eq!(plan.through().map(Epoch::get), model.listed().last().copied());
    }

    #[test]
    fn neither_the_latest_nor_the_newest_complete_epoch_is_ever_deleted(objects in listing(), rules in rules()) {
        let model = Model { objects: &objects, rules: &rules };
        let deletions = plan(&objects, &rules).into_deletions().unwrap_or_default();
        for deletion in &deletions {
            prop_assert_ne!(Some(deletion.epoch().get()), model.latest());
            prop_assert_ne!(Some(deletion.epoch().get()), model.newest_complete());
        }
        prop_assert!(deletions.is_empty() || model.newest_complete().is_some());
    }

    #[test]
    fn everything_deleted_is_below_before_and_before_is_never_above_the_newest_sealed(objects in listing(), rules in rules()) {
        let plan = plan(&objects, &rules);
        let latest = Model { objects: &objects, rules: &rules }.latest().map(Epoch::new);
        prop_assert_eq!(plan.before().is_none(), plan.is_empty());
        if let Some(before) = plan.before() {
            prop_assert!(latest.is_some_and(|latest| before <= latest));
            prop_assert!(plan.deletions.iter().all(|deletion| deletion.epoch() < before));
        }
    }

    #[test]
    fn what_a_plan_hands_out_is_exactly_what_it_decided_to_delete_oldest_first(objects in listing(), rules in rules()) {
        let plan = plan(&objects, &rules);
        let decided = deleted(&plan);
        if let Ok(deletions) = plan.into_deletions() {
            let handed: Vec<_> = deletions.iter().map(|deletion| deletion.epoch().get()).collect();
            prop_assert_eq!(handed, decided);
        }
    }

    #[test]
    fn the_order_of_the_listing_changes_nothing(objects in listing(), rules in rules(), seed in any::<u64>()) {
        let mut other = objects.clone();
        shuffle(&mut other, seed);
        prop_assert_eq!(plan(&other, &rules), plan(&objects, &rules));
    }

    #[test]
    fn the_order_of_windows_changes_nothing(objects in listing(), mut rules in rules()) {
        let before = plan(&objects, &rules);
        let again = rules.retention.keep_every.clone();
        rules.retention.keep_every.reverse();
        rules.retention.keep_every.extend(again);
        prop_assert_eq!(plan(&objects, &rules), before);
    }

    #[test]
    fn a_retention_of_pins_only_deletes_nothing(objects in listing(), rules in rules()) {
        let Retention { pinned, incremental_depth, .. } = rules.retention;
        let rules = Rules { retention: Retention { pinned, incremental_depth, ..Retention::default() }, ..rules };
        let plan = plan(&objects, &rules);
        prop_assert!(plan.is_empty() && plan.before().is_none());
        prop_assert!(words(&plan).iter().all(|(_, word)| *word == "KeepsEverything"));
    }

    #[test]
    fn planning_again_after_executing_deletes_nothing(objects in listing(), rules in rules()) {
        let Ok(deletions) = plan(&objects, &rules).into_deletions() else {
            return Ok(());
        };
        let mut left = objects;
        for deletion in &deletions {
            let keys: BTreeSet<String> = deletion.keys().chain(deletion.seal_key()).collect();
            let (gone, stay): (Vec<_>, Vec<_>) = left.into_iter().partition(|object| keys.contains(&object.key()));
            left = stay;
            prop_assert_eq!(gone.len(), keys.len());
            prop_assert_eq!(gone.len() as u64, deletion.objects());
            prop_assert_eq!(gone.iter().map(|object| object.size).sum::<u64>(), deletion.bytes());
            prop_assert!(left.iter().all(|object| object.epoch != deletion.epoch().get()));
        }
        let again = plan(&left, &rules);
        prop_assert!(again.is_empty(), "{:?}", words(&again));
        prop_assert!(again.hold().is_none());
    }
}

#[test]
fn the_listings_and_rules_tried_reach_every_reason_and_the_hold() {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for _ in 0..3000 {
        let objects = listing().new_tree(&mut runner).unwrap().current();
        let rules = rules().new_tree(&mut runner).unwrap().current();
        let plan = plan(&objects, &rules);
        seen.extend(words(&plan).into_iter().map(|(_, word)| word));
        seen.extend(plan.hold().map(Hold::as_str));
        if plan.hold().is_none() && !plan.is_empty() {
            seen.insert("(something is deleted)");
        }
    }
    let expected = [
        "(something is deleted)",
        "Abandoned",
        "EpochRegression",
        "Expired",
        "IncrementalBase",
        "KeepEvery",
        "KeepLast",
        "KeepWithin",
        "KeepsEverything",
        "Latest",
        "NewestComplete",
        "NoneComplete",
        "Pinned",
        "TooYoung",
        "UnaddressableKey",
        "Unsealed",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
}
