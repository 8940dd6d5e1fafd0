//! The rules of approval, in small listings: every epoch has one vnode, and is sealed in the second that is given.

use std::time::Duration;

use super::*;
use crate::inventory::InventoryBuilder;
use crate::key;
use crate::numbering::Numbering;
use crate::register::RegisterKind;
use crate::retention::Retention;

/// What a root holds: epochs, whether each is sealed, and its second.
#[derive(Clone, Default)]
struct World {
    epochs: Vec<(u64, bool, i64)>,
    floor: u64,
}

impl World {
    /// One epoch a second from `first` to `last`, all sealed.
    fn sealed(first: u64, last: u64) -> Self {
        Self { epochs: (first..=last).map(|epoch| (epoch, true, seconds(epoch))).collect(), floor: 0 }
    }

    fn and(mut self, epoch: u64, sealed: bool, second: i64) -> Self {
        self.epochs.push((epoch, sealed, second));
        self
    }

    fn without(mut self, gone: &[u64]) -> Self {
        self.epochs.retain(|(epoch, ..)| !gone.contains(epoch));
        self
    }

    fn floor(self, floor: u64) -> Self {
        Self { floor, ..self }
    }

    fn inventory(&self) -> Inventory {
        let mut builder = InventoryBuilder::new(1);
        for (epoch, sealed, second) in &self.epochs {
            let at = Timestamp::from_second(*second).unwrap();
            builder.observe(&format!("epoch={epoch}/vnode=0/partial.bin"), 10, at, None);
            if *sealed {
                builder.observe(&format!("epoch={epoch}/_COMMIT"), 1, at, None);
            }
        }
        if self.floor > 0 {
            builder.observe(&key::register(RegisterKind::Floor, self.floor), 1, Timestamp::UNIX_EPOCH, None);
        }
        builder.finish()
    }

    fn plan(&self, rules: &Rules) -> Plan {
        Plan::new(&self.inventory(), rules, &subject())
    }

    fn frozen(&self, rules: &Rules) -> Frozen {
        frozen(&self.plan(rules), usize::MAX)
    }

    fn admit(&self, gate: &Gate, rules: &Rules) -> Admission {
        admit(gate, &self.plan(rules), &self.inventory(), rules, &subject())
    }
}

/// What a status with room for `ranges` ranges remembers.
pub(super) fn frozen(plan: &Plan, ranges: usize) -> Frozen {
    let summary = plan.summary();
    Frozen {
        truncated: summary.keep.len() > ranges || summary.delete.len() > ranges,
        delete: summary.delete.iter().take(ranges).map(|range| (range.from.epoch(), range.to.epoch())).collect(),
        digest: summary.digest,
        before: summary.before.map(ShownEpoch::epoch),
        through: summary.through.map(ShownEpoch::epoch),
        computed_at: summary.computed_at,
    }
}

pub(super) fn subject() -> Subject {
    Subject { root: "s3://state".into(), policy_uid: "u1".into() }
}

fn seconds(epoch: u64) -> i64 {
    i64::try_from(epoch).unwrap()
}

fn keep_last(count: u32) -> Rules {
    let retention = Retention { keep_last: Some(count), ..Retention::default() };
    Rules { vnodes: 1, retention, min_age: Duration::ZERO }
}

fn epochs(numbers: impl IntoIterator<Item = u64>) -> BTreeSet<Epoch> {
    numbers.into_iter().map(Epoch::new).collect()
}

fn manual() -> Gate {
    Gate { manual: true, ..Gate::default() }
}

fn waiting(frozen: Frozen) -> Gate {
    Gate { frozen: Some(frozen), ..manual() }
}

fn approved(frozen: Frozen) -> Gate {
    Gate { approved: true, ..waiting(frozen) }
}

fn fresh(instead_of: Option<Void>) -> Admission {
    Admission::Waits { why: Waiting::Manual, plan: WaitingPlan::Fresh { instead_of } }
}

const GOES_ON: Admission = Admission::Waits { why: Waiting::Manual, plan: WaitingPlan::Frozen };

#[test]
fn a_plan_waits_when_every_plan_does_or_when_it_deletes_more_than_both_limits() {
    let above = |epochs, percent| Gate { hold_above: Some(HoldAbove { epochs, percent }), ..Gate::default() };
    // Of ten epochs, seven go.
    let cases = [
        (Gate::default(), None),
        (manual(), Some("AwaitingApproval")),
        (above(6, 69), Some("MassDeletion")),
        (above(7, 69), None),
        (above(6, 70), None),
        (above(7, 0), None),
        (above(0, 100), None),
        (above(0, 0), Some("MassDeletion")),
        (Gate { manual: true, ..above(6, 69) }, Some("AwaitingApproval")),
        (Gate { manual: true, ..above(7, 69) }, Some("AwaitingApproval")),
    ];
    for (gate, expected) in cases {
        match (World::sealed(1, 10).admit(&gate, &keep_last(3)), expected) {
            (Admission::Free, None) => {}
            (Admission::Waits { why, plan: WaitingPlan::Fresh { instead_of: None } }, Some(word)) => {
                assert_eq!(why.as_str(), word, "{gate:?}");
                if let Waiting::MassDeletion { epochs, listed, .. } = why {
                    assert_eq!((epochs, listed), (7, 10));
                    assert!(why.to_string().contains("7 of 10 listed epochs"), "{why}");
                }
            }
            (other, _) => panic!("{gate:?}: {other:?}"),
        }
    }
}

#[test]
fn a_plan_that_deletes_nothing_never_waits() {
    let gate = Gate { hold_above: Some(HoldAbove { epochs: 0, percent: 0 }), ..manual() };
    assert_eq!(World::sealed(1, 3).admit(&gate, &keep_last(3)), Admission::Free);
    assert_eq!(World::default().admit(&gate, &keep_last(3)), Admission::Free);
}

#[test]
fn limits_of_any_size_do_not_overflow() {
    assert!(HoldAbove { epochs: 0, percent: 99 }.holds(u64::MAX, u64::MAX));
    assert!(!HoldAbove { epochs: u64::MAX, percent: 0 }.holds(u64::MAX, u64::MAX));
    assert!(!HoldAbove { epochs: 0, percent: 255 }.holds(u64::MAX, u64::MAX));
}

#[test]
fn a_frozen_plan_goes_on_waiting_while_the_pipeline_goes_on() {
    let rules = keep_last(2);
    let gate = waiting(World::sealed(1, 5).and(6, false, 6).frozen(&rules));
    let worlds = [
        World::sealed(1, 5).and(6, false, 6),
        // The epoch in flight is sealed, and others above it.
        World::sealed(1, 6),
        World::sealed(1, 60),
        // In the very second in which the plan was made.
        World::sealed(1, 5).and(6, true, 6).and(7, true, 6).and(8, false, 6),
    ];
    for world in worlds {
        assert_eq!(world.admit(&gate, &rules), GOES_ON);
        assert_eq!(world.admit(&approved(gate.frozen.clone().unwrap()), &rules), Admission::Approved(epochs(1..=3)));
    }
}

#[test]
fn a_mass_deletion_goes_on_waiting_with_the_numbers_that_it_had() {
    let above = HoldAbove { epochs: 5, percent: 50 };
    let frozen = World::sealed(1, 10).frozen(&keep_last(3));
    let gate = Gate { hold_above: Some(above), frozen: Some(frozen), ..Gate::default() };
    let why = Waiting::MassDeletion { epochs: 7, listed: 10, above };
    let waits = Admission::Waits { why, plan: WaitingPlan::Frozen };
    assert_eq!(World::sealed(1, 1000).admit(&gate, &keep_last(3)), waits);
}

#[test]
fn a_plan_that_nothing_makes_wait_any_more_does_not() {
    let frozen = World::sealed(1, 10).frozen(&keep_last(3));
    for hold_above in [None, Some(HoldAbove { epochs: 500, percent: 50 })] {
        let gate = Gate { hold_above, frozen: Some(frozen.clone()), ..Gate::default() };
        assert_eq!(World::sealed(1, 11).admit(&gate, &keep_last(3)), Admission::Free);
    }
}

#[test]
fn a_waiting_plan_is_void_once_it_would_delete_what_is_kept_by_now() {
    let mut rules = keep_last(2);
    rules.min_age = Duration::from_secs(2);
    // An object arrives in epochs 2 and 3: nobody may have meant them to go.
    let world = World::sealed(1, 9);
    let gate = waiting(world.frozen(&rules));
    let touched = world.and(2, false, 9).and(3, false, 9);
    let void =
        Void::WouldDeleteKept { epoch: Numbering::Plain.show(Epoch::new(2)), reason: KeepReason::TooYoung, epochs: 2 };
    assert_eq!(touched.admit(&gate, &rules), fresh(Some(void)));
    assert!(void.to_string().contains("epoch 2") && void.to_string().contains("TooYoung, one of 2"), "{void}");

    // The same once it was approved: what is kept stays, the rest goes.
    let admission = touched.admit(&approved(gate.frozen.unwrap()), &rules);
    assert_eq!(admission, Admission::Approved(epochs([1, 4, 5])));
}

#[test]
fn a_waiting_plan_whose_epochs_cannot_be_told_any_more_is_void() {
    let rules = keep_last(2);
    let world = World::sealed(1, 5);
    let frozen = world.frozen(&rules);
    let not_rebuilt = fresh(Some(Void::NotRebuilt));
    let other = |change: fn(&mut Frozen)| {
        let mut frozen = frozen.clone();
        change(&mut frozen);
        frozen
    };
    let cases = [
        ("one of its epochs is gone", world.clone().without(&[2]), frozen.clone()),
        ("another digest", world.clone(), other(|frozen| frozen.digest.clear())),
        ("another floor", world.clone(), other(|frozen| frozen.before = Some(Epoch::new(5)))),
        ("no floor", world.clone(), other(|frozen| frozen.before = None)),
        ("no time", world.clone(), other(|frozen| frozen.computed_at = None)),
        ("a wider range", world.clone(), other(|frozen| frozen.delete = vec![(Epoch::ZERO, Epoch::new(4))])),
        ("no ranges", world.clone(), other(|frozen| frozen.delete.clear())),
    ];
    for (case, world, frozen) in cases {
        assert_eq!(world.admit(&waiting(frozen.clone()), &rules), not_rebuilt, "{case}");
        // Approved, it deletes nothing either, and the fresh plan waits like any other.
        assert_eq!(world.admit(&approved(frozen), &rules), not_rebuilt, "{case}");
    }
    // Other rules, another policy, another root: the digest is of these too.
    assert_eq!(world.admit(&approved(frozen.clone()), &keep_last(1)), not_rebuilt);
    for other in [Subject { root: "s3://other".into(), ..subject() }, Subject { policy_uid: "u2".into(), ..subject() }]
    {
        let plan = Plan::new(&world.inventory(), &rules, &other);
        assert_eq!(admit(&approved(frozen.clone()), &plan, &world.inventory(), &rules, &other), not_rebuilt);
    }
}

#[test]
fn an_epoch_that_came_into_a_range_since_is_no_part_of_the_plan() {
    let rules = keep_last(2);
    let world = World::sealed(1, 9).without(&[3]);
    let frozen = world.frozen(&rules);
    assert_eq!(frozen.delete, [(Epoch::new(1), Epoch::new(7))]);
    let planned = epochs([1, 2, 4, 5, 6, 7]);
    let later = world.clone().and(10, true, 10).and(3, true, 10);
    assert_eq!(later.admit(&waiting(frozen.clone()), &rules), GOES_ON);
    assert_eq!(later.admit(&approved(frozen.clone()), &rules), Admission::Approved(planned));
    // In the second of the plan it cannot be told apart: nothing is guessed.
    let same_second = world.and(3, true, 9);
    for gate in [waiting(frozen.clone()), approved(frozen)] {
        assert_eq!(same_second.admit(&gate, &rules), fresh(Some(Void::NotRebuilt)));
    }
}

#[test]
fn what_is_left_of_an_approved_plan_goes_on_once_its_floor_stands() {
    let rules = keep_last(2);
    let frozen = World::sealed(1, 9).frozen(&rules);
    for (floor, expected) in [
        (8, Admission::Approved(epochs([3, 6, 7]))),
        (9, Admission::Approved(epochs([3, 6, 7]))),
        // Nothing was deleted by this plan yet: whatever else deleted them, it is not the plan that was shown.
        (7, fresh(Some(Void::NotRebuilt))),
        (0, fresh(Some(Void::NotRebuilt))),
    ] {
        let world = World::sealed(1, 30).without(&[1, 2, 4, 5]).floor(floor);
        assert_eq!(world.admit(&approved(frozen.clone()), &rules), expected, "{floor}");
        // Without approval, a floor proves nothing.
        assert_eq!(world.admit(&waiting(frozen.clone()), &rules), fresh(Some(Void::NotRebuilt)), "{floor}");
    }
}

#[test]
fn what_is_left_is_below_the_floor_of_the_plan_whatever_its_ranges_say() {
    let rules = keep_last(2);
    let mut frozen = World::sealed(1, 9).frozen(&rules);
    frozen.delete = vec![(Epoch::ZERO, Epoch::new(u64::MAX))];
    frozen.computed_at = Some(Timestamp::MAX);
    let later = World::sealed(4, 30).floor(8);
    assert_eq!(later.admit(&approved(frozen), &rules), Admission::Approved(epochs(4..=7)));
}

#[test]
fn what_is_left_has_nothing_that_was_written_since_or_was_too_young_then() {
    let mut rules = keep_last(2);
    let frozen = |rules: &Rules| World::sealed(1, 9).frozen(rules);
    let later = World::sealed(3, 30).without(&[6]).floor(8);
    // Epoch 6 is another one by now; at the second of the plan it may have been the same.
    for (second, expected) in [(10, vec![3, 4, 5, 7]), (9, vec![3, 4, 5, 6, 7]), (6, vec![3, 4, 5, 6, 7])] {
        let world = later.clone().and(6, true, second);
        assert_eq!(world.admit(&approved(frozen(&rules)), &rules), Admission::Approved(epochs(expected)), "{second}");
    }
    // Where an age is asked for, the plan had nothing that was younger.
    rules.min_age = Duration::from_secs(2);
    let frozen = frozen(&rules);
    assert_eq!(
        frozen.delete,
        [(Epoch::new(1), Epoch::new(5))],
        "the seal of epoch 6 is the last that is older than that"
    );
    let later = World::sealed(3, 30).without(&[4]).floor(6);
    for (second, expected) in [(8, vec![3, 5]), (7, vec![3, 4, 5])] {
        let world = later.clone().and(4, true, second);
        assert_eq!(world.admit(&approved(frozen.clone()), &rules), Admission::Approved(epochs(expected)), "{second}");
    }
}

#[test]
fn an_approved_plan_of_which_nothing_is_left_is_done_and_the_next_starts_from_nothing() {
    let rules = keep_last(2);
    let frozen = World::sealed(1, 5).frozen(&rules);
    let later = World::sealed(4, 9).floor(4);
    assert_eq!(later.admit(&approved(frozen.clone()), &rules), fresh(None));
    let above = Gate { hold_above: Some(HoldAbove { epochs: 9, percent: 50 }), manual: false, ..approved(frozen) };
    assert_eq!(later.admit(&above, &rules), Admission::Free);
}

/// Two of three epochs are pinned, so that there are many ranges.
fn pinned(rules: &mut Rules, upto: u64) {
    rules.retention.pinned = (1..=upto).filter(|epoch| epoch % 3 != 0).map(Epoch::new).collect();
}

#[test]
fn a_plan_of_more_ranges_than_were_remembered_is_planned_again_at_its_instant() {
    let mut rules = keep_last(2);
    pinned(&mut rules, 40);
    let world = World::sealed(1, 40).and(41, false, 40);
    let frozen = frozen(&world.plan(&rules), 3);
    assert_eq!((frozen.truncated, frozen.delete.len()), (true, 3));
    let all = epochs((1..=13).map(|third| 3 * third).filter(|epoch| *epoch < 39));
    let worlds = [
        world.clone(),
        World::sealed(1, 90),
        // Sealed since, within the second of the plan: the epoch in flight, and two more.
        World::sealed(1, 40).and(41, true, 40).and(42, true, 40).and(43, true, 40),
    ];
    for later in worlds {
        assert_eq!(later.admit(&waiting(frozen.clone()), &rules), GOES_ON);
        assert_eq!(later.admit(&approved(frozen.clone()), &rules), Admission::Approved(all.clone()));
    }
    let left: BTreeSet<_> = all.iter().copied().filter(|epoch| *epoch > Epoch::new(12)).collect();
    let later = World::sealed(1, 90).without(&[3, 6, 9, 12]);
    assert_eq!(later.admit(&approved(frozen.clone()), &rules), fresh(Some(Void::NotRebuilt)));
    assert_eq!(later.floor(37).admit(&approved(frozen), &rules), Admission::Approved(left));
}

#[test]
fn what_is_left_of_a_truncated_plan_has_nothing_that_it_may_not_have_had() {
    // Nothing pinned among the last ones, so that the highest seals decide what goes.
    let mut rules = keep_last(2);
    pinned(&mut rules, 30);
    let world = World::sealed(1, 40);
    let frozen = frozen(&world.plan(&rules), 3);
    assert_eq!(frozen.before, Some(Epoch::new(39)));
    // An epoch that nobody pinned comes between the remembered ranges, as old as can be.
    let mut unpinned = rules.clone();
    unpinned.retention.pinned.remove(&Epoch::new(5));
    let later = World::sealed(1, 60).without(&[3]).floor(39);
    let admission = later.admit(&approved(frozen), &unpinned);
    let expected: Vec<u64> = (1..=38).filter(|epoch| (*epoch > 30 || epoch % 3 == 0) && *epoch != 3).collect();
    assert_eq!(admission, Admission::Approved(epochs(expected)));
}
