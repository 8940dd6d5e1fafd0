//! A pipeline that goes on while a plan waits: what is remembered of the plan gives the same epochs again, and nothing else is deleted.

use std::time::Duration;

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::tests::{frozen, subject};
use super::*;
use crate::inventory::InventoryBuilder;
use crate::key::{self, Key};
use crate::register::RegisterKind;
use crate::retention::{KeepEvery, Retention};

const VNODES: u32 = 2;

/// An object: its key, and the second of its write. A store with whole seconds is the hard one: most things happen in the same.
type Object = (String, i64);

/// What a pipeline writes, in its order.
fn pipeline() -> impl Strategy<Value = Vec<Object>> {
    let step = || prop_oneof![5 => Just(0_i64), 2 => Just(1), 1 => 2..9_i64];
    let vnodes = prop_oneof![6 => Just(vec![0, 1]), 1 => Just(vec![1]), 1 => Just(vec![])];
    let epoch = (1..4_u64, vnodes, option::weighted(0.15, Just(())), proptest::bool::weighted(0.85), vec(step(), 4));
    vec(epoch, 1..16).prop_map(|epochs| {
        let (mut objects, mut number, mut clock) = (Vec::new(), 0, 0);
        for (gap, vnodes, note, sealed, steps) in epochs {
            number += gap;
            let folder = format!("epoch={number}");
            let keys = vnodes
                .iter()
                .map(|vnode| format!("{folder}/vnode={vnode}/partial.bin"))
                .chain(note.map(|()| format!("{folder}/note")))
                .chain(sealed.then(|| format!("{folder}/_COMMIT")));
            for (key, step) in keys.zip(steps) {
                clock += step;
                objects.push((key, clock));
            }
        }
        objects
    })
}

/// A pipeline with more than one epoch in flight, and stragglers: its writes come in another order.
fn disorder() -> impl Strategy<Value = Vec<Object>> {
    (pipeline(), vec(any::<Index>(), 0..8)).prop_map(|(mut objects, swaps)| {
        let mut keys: Vec<String> = objects.iter().map(|(key, _)| key.clone()).collect();
        for swap in swaps.iter().filter(|_| objects.len() > 4) {
            let at = swap.index(objects.len() - 4);
            keys.swap(at, at + 4);
        }
        objects.iter_mut().zip(keys).for_each(|(object, key)| object.0 = key);
        objects
    })
}

fn rules() -> impl Strategy<Value = Rules> {
    let seconds = |range: std::ops::Range<u64>| range.prop_map(Duration::from_secs);
    let every = (seconds(1..12), seconds(0..60)).prop_map(|(every, for_)| KeepEvery { every, for_ });
    let retention = (
        option::weighted(0.6, 0..4_u32),
        option::weighted(0.3, seconds(0..9)),
        vec(every, 0..2),
        btree_set((0..30_u64).prop_map(Epoch::new), 0..4),
        prop_oneof![3 => Just(0_u32), 1 => 1..3_u32],
    )
        .prop_map(|(keep_last, keep_within, keep_every, pinned, incremental_depth)| Retention {
            keep_last,
            keep_within,
            keep_every,
            pinned,
            incremental_depth,
        });
    let min_age = prop_oneof![2 => Just(Duration::ZERO), 1 => seconds(1..6)];
    (retention, min_age).prop_map(|(retention, min_age)| Rules { vnodes: VNODES, retention, min_age })
}

fn inventory<'o>(objects: impl IntoIterator<Item = &'o Object>, floor: Option<Epoch>) -> Inventory {
    let mut builder = InventoryBuilder::new(VNODES);
    for (key, second) in objects {
        builder.observe(key, 10, Timestamp::from_second(*second).unwrap(), None);
    }
    if let Some(floor) = floor {
        builder.observe(&key::register(RegisterKind::Floor, floor.get()), 1, Timestamp::UNIX_EPOCH, None);
    }
    builder.finish()
}

fn deleted(plan: &Plan) -> BTreeSet<Epoch> {
    plan.decisions().filter(|planned| planned.decision.is_delete()).map(|planned| planned.epoch.epoch()).collect()
}

fn epoch_of(key: &str) -> Option<Epoch> {
    match Key::parse(key) {
        Key::Partial { epoch, .. } | Key::Commit { epoch } | Key::Extra { epoch } => Some(epoch),
        _ => None,
    }
}

/// A plan that was frozen, with the objects that were there then and those that came later.
#[derive(Debug, Clone)]
struct Story {
    rules: Rules,
    objects: Vec<Object>,
    then: usize,
    ranges: usize,
    later: usize,
}

impl Story {
    /// What the status remembers, and which epochs that are. `None` where the plan has nothing to wait for.
    fn frozen(&self) -> Option<(Frozen, BTreeSet<Epoch>)> {
        let plan = Plan::new(&inventory(&self.objects[..self.then], None), &self.rules, &subject());
        (!plan.is_empty() && plan.hold().is_none()).then(|| (frozen(&plan, self.ranges), deleted(&plan)))
    }

    fn world(&self) -> &[Object] {
        &self.objects[..self.later]
    }

    fn admit(&self, inventory: &Inventory, frozen: &Frozen, approved: bool) -> (Admission, BTreeSet<Epoch>) {
        let gate = Gate { manual: true, hold_above: None, frozen: Some(frozen.clone()), approved };
        let fresh = Plan::new(inventory, &self.rules, &subject());
        (admit(&gate, &fresh, inventory, &self.rules, &subject()), deleted(&fresh))
    }
}

fn story(objects: impl Strategy<Value = Vec<Object>>) -> impl Strategy<Value = Story> {
    (objects, rules(), any::<Index>(), any::<Index>(), prop_oneof![1 => Just(usize::MAX), 2 => 0..3_usize]).prop_map(
        |(objects, rules, then, later, ranges)| {
            let then = then.index(objects.len() + 1);
            let later = then + later.index(objects.len() + 1 - then);
            Story { rules, objects, then, ranges, later }
        },
    )
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_frozen_plan_gives_the_same_epochs_again_after_any_growth_of_the_pipeline(story in story(pipeline())) {
        if let Some((frozen, planned)) = story.frozen() {
            let inventory = inventory(story.world(), None);
            for approved in [false, true] {
                let rebuilt = rebuild::rebuild(&frozen, approved, &inventory, &story.rules, &subject());
                prop_assert_eq!(rebuilt.as_ref(), Some(&planned));
            }
        }
    }

    #[test]
    fn a_pipeline_that_goes_on_neither_voids_a_frozen_plan_nor_takes_anything_out_of_an_approved_one(story in story(pipeline())) {
        if let Some((frozen, planned)) = story.frozen() {
            let inventory = inventory(story.world(), None);
            let (waits, fresh) = story.admit(&inventory, &frozen, false);
            prop_assert_eq!(waits, Admission::Waits { why: Waiting::Manual, plan: WaitingPlan::Frozen });
            prop_assert!(planned.is_subset(&fresh));
            prop_assert_eq!(story.admit(&inventory, &frozen, true).0, Admission::Approved(planned));
        }
    }

    #[test]
    fn what_is_left_of_an_approved_plan_is_of_it_whatever_was_deleted_so_far(
        story in story(pipeline()),
        fates in vec(0..4_u8, 48),
    ) {
        if let Some((frozen, planned)) = story.frozen() {
            // Of each epoch of the plan: nothing, the seal, all but one object, or everything.
            let left: Vec<&Object> = story.world().iter().enumerate().filter(|(index, (key, _))| {
                let Some(epoch) = epoch_of(key).filter(|epoch| planned.contains(epoch)) else { return true };
                let first = story.world().iter().position(|(key, _)| epoch_of(key) == Some(epoch)) == Some(*index);
                match fates[usize::try_from(epoch.get()).unwrap()] {
                    0 => true,
                    1 => !key.ends_with("_COMMIT"),
                    2 => first && !key.ends_with("_COMMIT"),
                    _ => false,
                }
            }).map(|(_, object)| object).collect();
            let inventory = inventory(left, frozen.before);
            let (admission, fresh) = story.admit(&inventory, &frozen, true);
            let both: BTreeSet<Epoch> = planned.intersection(&fresh).copied().collect();
            match admission {
                Admission::Approved(epochs) => {
                    prop_assert!(epochs.is_subset(&both), "{:?} of {:?}", epochs, both);
                    prop_assert!(frozen.truncated || epochs == both, "{:?} of {:?}", epochs, both);
                }
                Admission::Waits { plan: WaitingPlan::Fresh { instead_of }, .. } => {
                    prop_assert_eq!(instead_of, None, "it can always be told what is left");
                    prop_assert!(frozen.truncated || both.is_empty());
                }
                Admission::Free => prop_assert!(fresh.is_empty()),
                Admission::Waits { .. } => prop_assert!(false, "an approved plan waits for nobody"),
            }
        }
    }

    #[test]
    fn nothing_but_what_was_approved_and_may_still_go_is_deleted_whatever_else_happened(
        story in story(disorder()),
        gone in vec(any::<Index>(), 0..3),
        new in vec((0..30_u64, 0..3_i64), 0..3),
    ) {
        if let Some((frozen, planned)) = story.frozen() {
            let mut objects = story.world().to_vec();
            for gone in gone {
                if !objects.is_empty() {
                    objects.remove(gone.index(objects.len()));
                }
            }
            let last = story.objects[..story.then].iter().map(|(_, second)| *second).max().unwrap_or_default();
            for (epoch, late) in new {
                objects.push((format!("epoch={epoch}/note"), last + late));
                objects.push((format!("epoch={epoch}/_COMMIT"), last + late));
            }
            let inventory = inventory(&objects, None);
            let (admission, fresh) = story.admit(&inventory, &frozen, true);
            if let Admission::Approved(epochs) = admission {
                let both: BTreeSet<Epoch> = planned.intersection(&fresh).copied().collect();
                prop_assert_eq!(epochs, both);
            }
            if let (Admission::Waits { plan: WaitingPlan::Frozen, .. }, fresh) = story.admit(&inventory, &frozen, false) {
                prop_assert!(planned.is_subset(&fresh));
            }
        }
    }
}

#[test]
fn the_stories_tried_reach_every_way_in_which_a_plan_is_built_again() {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for round in 0..4000 {
        let story = if round % 2 == 0 { story(pipeline()).boxed() } else { story(disorder()).boxed() };
        let story = story.new_tree(&mut runner).unwrap().current();
        let Some((frozen, planned)) = story.frozen() else { continue };
        let (now, at) = (inventory(story.world(), None), frozen.computed_at.unwrap());
        let then = inventory(&story.objects[..story.then], None);
        let open = |epoch| then.get(epoch).is_some_and(|entry| !entry.is_sealed());
        let sealed_since = now.seals().any(|(epoch, seal)| open(epoch) && seal.modified == at);
        let begun_since = |(key, second): &Object| *second == at.as_second() && epoch_of(key) > frozen.through;
        let ways = [
            (!frozen.truncated, "remembered whole"),
            (frozen.truncated, "truncated"),
            (frozen.truncated && sealed_since, "truncated, and an epoch in flight was sealed in the same second"),
            (
                frozen.truncated && story.world().iter().any(begun_since),
                "truncated, and an epoch began in the same second",
            ),
        ];
        seen.extend(ways.iter().filter(|(holds, _)| *holds).map(|(_, way)| *way));
        seen.insert(match story.admit(&now, &frozen, false).0 {
            Admission::Waits { plan: WaitingPlan::Frozen, .. } => "waits on",
            Admission::Waits { plan: WaitingPlan::Fresh { instead_of: Some(Void::NotRebuilt) }, .. } => "not rebuilt",
            Admission::Waits { plan: WaitingPlan::Fresh { instead_of: Some(_) }, .. } => "kept by now",
            Admission::Free => "nothing goes any more",
            other => panic!("{other:?}"),
        });
        if matches!(story.admit(&now, &frozen, true).0, Admission::Approved(epochs) if epochs != planned) {
            seen.insert("approved, and in part kept by now");
        }
    }
    let expected = [
        "approved, and in part kept by now",
        "kept by now",
        "not rebuilt",
        "nothing goes any more",
        "remembered whole",
        "truncated",
        "truncated, and an epoch began in the same second",
        "truncated, and an epoch in flight was sealed in the same second",
        "waits on",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
}
