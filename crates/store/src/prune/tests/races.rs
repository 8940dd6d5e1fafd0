//! Two prunes of one root at once, and a pipeline that goes on meanwhile, in many orders of their requests.

use super::*;

/// Seeds, each of which delays every request by other spans.
const SEEDS: u64 = 200;

fn deleted_by(bench: &Bench, plan: &Plan) -> BTreeSet<u64> {
    assert!(plan.hold().is_none(), "{:?}", bench.journal);
    plan.decisions().filter(|planned| planned.decision.is_delete()).map(|planned| planned.epoch.get()).collect()
}

#[tokio::test(start_paused = true)]
async fn two_prunes_at_once_delete_what_one_of_their_plans_deletes_and_nothing_else() {
    let mut together = BTreeSet::new();
    for seed in 0..SEEDS {
        let mut bench = Bench::new().await;
        bench.put("epoch=3/notes").await;
        bench.seal(1..=12).await;
        bench.rules.plan.retention = Retention { pinned: [Epoch::new(2)].into(), ..keep_last(3) };
        let other = Bench {
            faults: bench.faults.clone(),
            journal: bench.journal.clone(),
            rules: PruneRules {
                plan: Rules {
                    retention: Retention { pinned: [Epoch::new(5)].into(), ..keep_last(6) },
                    ..bench.rules.plan.clone()
                },
                ..bench.rules.clone()
            },
            identity: bench.identity.clone(),
            cancel: bench.cancel.clone(),
        };
        let planned: BTreeSet<u64> =
            deleted_by(&bench, &bench.plan().await).union(&deleted_by(&other, &other.plan().await)).copied().collect();
        assert_eq!(planned, (1..=9).collect(), "each keeps what the other deletes");
        bench.journal.forget();
        bench.journal.delay_by(seed);
        // The pipeline seals two epochs more.
        let pipeline = async {
            for epoch in [13, 14] {
                tokio::time::sleep_until(Instant::now() + Duration::from_millis(seed % 40)).await;
                bench.seal([epoch]).await;
            }
        };
        let (one, two, ()) = tokio::join!(bench.prune(), other.prune(), pipeline);
        let (one, two) = (one.unwrap(), two.unwrap());
        together
            .insert((one.outcome.clone() == PruneOutcome::Succeeded, two.outcome.clone() == PruneOutcome::Succeeded));
        let left = bench.epochs().await;
        for kept in 13..=14 {
            assert!(left.contains(&kept), "seed {seed}: {left:?}");
            assert_eq!(bench.keys(&format!("epoch={kept}/")).await.len() as u64, OBJECTS);
        }
        // Whichever listings they made: both keep the three newest of what there was at the beginning, or newer ones instead.
        let newest_at_start = 12;
        assert!(left.contains(&newest_at_start), "seed {seed}: {left:?}");
        for epoch in left {
            let keys = bench.keys(&format!("epoch={epoch}/")).await;
            let sealed = keys.iter().any(|key| key.ends_with("/_COMMIT"));
            assert!(!sealed || keys.len() as u64 >= OBJECTS, "seed {seed}: a seal outlived its partials: {keys:?}");
        }
        let floors = bench.floors().await;
        let highest = floors.last().unwrap().clone();
        for event in bench.journal.all_of(&["DELETE epoch="]) {
            let epoch: u64 = event.strip_prefix("DELETE epoch=").unwrap().split('/').next().unwrap().parse().unwrap();
            assert!(floor(epoch) < highest, "seed {seed}: {event} at or above the floor {highest}");
            let planned = |plan: &epochwarden_core::plan::PlanSummary| {
                plan.delete.iter().any(|range| (range.from.get()..=range.to.get()).contains(&epoch))
            };
            assert!(planned(&one.plan) || planned(&two.plan), "seed {seed}: {event} is in neither plan");
        }
    }
    assert!(together.contains(&(true, true)), "{together:?}");
}
