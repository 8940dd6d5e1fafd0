use super::*;
use crate::epoch::Version;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn epoch(number: u64) -> Epoch {
    Epoch::new(number)
}

fn vnodes(numbers: &[u32]) -> Vec<Vnode> {
    numbers.iter().copied().map(Vnode::new).collect()
}

/// An inventory of objects given as (key, size, second).
fn inventory(vnodes: u32, objects: &[(&str, u64, i64)]) -> Inventory {
    let mut builder = InventoryBuilder::new(vnodes);
    for (key, size, second) in objects {
        builder.observe(key, *size, at(*second), Some("tag"));
    }
    builder.finish()
}

const TWO_EPOCHS: [(&str, u64, i64); 9] = [
    ("epoch=10/_COMMIT", 3, 15),
    ("epoch=10/vnode=0/partial.bin", 100, 13),
    ("epoch=10/vnode=1/partial.bin", 200, 14),
    ("epoch=9/_COMMIT", 3, 10),
    ("epoch=9/vnode=1/partial.bin", 50, 12),
    ("epoch=9/notes.txt", 7, 20),
    ("_epochwarden/fence/00000000000000000007", 90, 99),
    ("_epochwarden/probe/4b9c", 1, 99),
    ("readme.txt", 1, 99),
];

#[test]
fn a_listing_is_folded_to_its_epochs() {
    let inventory = inventory(2, &TWO_EPOCHS);
    assert_eq!(inventory.epochs().map(|(epoch, _)| epoch).collect::<Vec<_>>(), [epoch(9), epoch(10)]);
    assert_eq!(inventory.totals(), Totals { sealed: 2, unsealed: 0, objects: 6, bytes: 363 });
    assert_eq!((inventory.newest_sealed(), inventory.oldest_sealed()), (Some(epoch(10)), Some(epoch(9))));
    assert_eq!((inventory.newest_complete(), inventory.highest_listed()), (Some(epoch(10)), Some(epoch(10))));
    assert_eq!(inventory.reading(), Reading { fence: Version::new(7), ..Reading::default() });
    assert_eq!(inventory.foreign().count(), 1);
    assert_eq!(inventory.foreign().examples().collect::<Vec<_>>(), ["readme.txt"]);

    let nine = inventory.get(epoch(9)).unwrap();
    assert_eq!((nine.objects(), nine.bytes(), nine.newest()), (3, 60, at(20)));
    assert_eq!(nine.newest_partial(), Some((at(12), Vnode::new(1))));
    assert_eq!(nine.seal(), Some(&Seal { modified: at(10), etag: Some("tag".into()), size: 3 }));
    assert_eq!(nine.extras(), ["epoch=9/notes.txt"]);
    assert!(nine.is_sealed() && !nine.is_complete());
    assert_eq!((nine.missing_count(), nine.missing(5)), (1, vnodes(&[0])));
}

#[test]
fn only_objects_of_epochs_tell_the_time() {
    assert_eq!(inventory(2, &TWO_EPOCHS).newest_modified(), Some(at(20)));
    assert_eq!(inventory(2, &[("readme.txt", 1, 99)]).newest_modified(), None);
}

#[test]
fn the_summary_is_of_the_newest_seal_and_the_sums() {
    let summary = serde_json::to_value(inventory(2, &TWO_EPOCHS).summary(at(30))).unwrap();
    let expected = serde_json::json!({
        "latestCommitted": "10", "latestCommittedAt": "1970-01-01T00:00:15Z", "oldestSealed": "9",
        "sealed": 2, "unsealed": 0, "objects": 6, "bytes": 363, "observedAt": "1970-01-01T00:00:30Z",
    });
    assert_eq!(summary, expected);
}

#[test]
fn the_order_of_the_listing_changes_nothing() {
    let mut objects: Vec<(String, u64, i64)> =
        TWO_EPOCHS.iter().map(|(key, size, second)| ((*key).to_owned(), *size, *second)).collect();
    objects.extend((0..100).map(|n| (format!("epoch=9/extra-{n:03}"), 1, 1)));
    objects.extend((2..30).map(|n| (format!("epoch=10/vnode={n}/partial.bin"), 1, 14)));
    objects.extend((0..30).map(|n| (format!("foreign-{n:02}"), 1, 1)));
    objects.extend(["epoch=9/", "epoch=9", "state-v2/x", "epoch=9/_SEAL"].map(|key| (key.to_owned(), 0, 1)));
    let of = |objects: &mut dyn Iterator<Item = &(String, u64, i64)>| {
        let mut builder = InventoryBuilder::new(2);
        objects.for_each(|(key, size, second)| builder.observe(key, *size, at(*second), None));
        builder.finish()
    };
    let forwards = of(&mut objects.iter());
    assert_eq!(of(&mut objects.iter().rev()), forwards);
    assert_eq!(forwards.newer_layout(), Some("epoch=9/_SEAL"));
    assert_eq!(forwards.get(epoch(9)).unwrap().unaddressable(), Some("epoch=9"));
    assert_eq!(forwards.foreign().examples().last(), Some("foreign-09"));
    assert_eq!(forwards.foreign().count(), 31);
}

#[test]
fn a_key_that_is_listed_twice_counts_once() {
    let twice: Vec<_> = [TWO_EPOCHS, TWO_EPOCHS].concat();
    let (once, twice) = (inventory(2, &TWO_EPOCHS), inventory(2, &twice));
    assert_eq!(once.epochs().collect::<Vec<_>>(), twice.epochs().collect::<Vec<_>>());
    assert!(!twice.get(epoch(9)).unwrap().is_complete());
}

#[test]
fn a_seal_that_was_written_again_while_listing_is_the_later_one() {
    for seconds in [[5, 8], [8, 5]] {
        let [first, second] = seconds.map(|second| ("epoch=1/_COMMIT", 3, second));
        let inventory = inventory(1, &[first, second]);
        let entry = inventory.get(epoch(1)).unwrap();
        assert_eq!((entry.seal().unwrap().modified, entry.objects(), entry.bytes()), (at(8), 1, 3));
    }
}

#[test]
fn vnodes_out_of_range_complete_nothing_and_stay_deletable_by_key() {
    let keys = ["epoch=1/vnode=0/partial.bin", "epoch=1/vnode=4294967295/partial.bin", "epoch=1/vnode=2/partial.bin"];
    let inventory = inventory(2, &keys.map(|key| (key, 1, 1)));
    let entry = inventory.get(epoch(1)).unwrap();
    assert_eq!(entry.out_of_range(), Some(OutOfRange { count: 2, first: Vnode::new(2) }));
    assert_eq!(entry.extras(), [keys[2], keys[1]]);
    assert_eq!((entry.is_complete(), entry.missing(5)), (false, vnodes(&[1])));
}

#[test]
fn beyond_the_extras_kept_an_epoch_has_to_be_listed() {
    for (count, overflow) in [(EXTRAS_KEPT, false), (EXTRAS_KEPT + 1, true), (3 * EXTRAS_KEPT, true)] {
        let mut builder = InventoryBuilder::new(1);
        for n in 0..count {
            builder.observe(&format!("epoch=1/extra-{n}"), 1, at(1), None);
        }
        let inventory = builder.finish();
        let entry = inventory.get(epoch(1)).unwrap();
        assert_eq!((entry.extras().len(), entry.extras_overflow()), (EXTRAS_KEPT, overflow), "{count}");
        assert_eq!(entry.objects(), count as u64);
    }
}

#[test]
fn what_cannot_be_deleted_by_its_name_is_known() {
    for (key, size, unaddressable) in [
        ("epoch=1", 0, true),
        ("epoch=1", 5, true),
        ("epoch=1/", 0, true),
        ("epoch=1/a//b", 1, true),
        ("epoch=1/./b", 1, true),
        ("epoch=1/../b", 1, true),
        ("epoch=1/a\nb", 1, true),
        ("epoch=1/a/", 1, true),
        ("epoch=1/vnode=3", 0, true),
        ("epoch=1/vnode=3", 1, false),
        ("epoch=1/vnode=x", 0, false),
        ("epoch=1/a/vnode=3", 0, false),
        ("epoch=1/_SUCCESS", 0, false),
        ("epoch=1/a..b/.c", 1, false),
        ("epoch=1/vnode=0/partial.bin", 0, false),
    ] {
        let inventory = inventory(1, &[(key, size, 1)]);
        let entry = inventory.get(epoch(1)).unwrap();
        assert_eq!(entry.unaddressable(), unaddressable.then_some(key), "{key:?} of {size} bytes");
        assert_eq!(entry.objects(), 1, "{key:?}");
    }
}

#[test]
fn without_the_number_of_vnodes_no_epoch_is_complete_and_everything_is_counted() {
    let mut builder = InventoryBuilder::without_vnodes();
    for key in ["epoch=1/vnode=0/partial.bin", "epoch=1/vnode=4294967295/partial.bin", "epoch=1/_COMMIT"] {
        builder.observe(key, 2, at(1), None);
    }
    let inventory = builder.finish();
    let entry = inventory.get(epoch(1)).unwrap();
    assert_eq!((entry.objects(), entry.bytes(), entry.is_sealed(), entry.is_complete()), (3, 6, true, false));
    assert_eq!((entry.out_of_range(), entry.missing_count(), inventory.newest_complete()), (None, 0, None));
}

#[test]
fn newest_complete_is_sealed_and_whole() {
    for (keys, complete) in [
        (
            vec!["epoch=1/vnode=0/partial.bin", "epoch=1/_COMMIT", "epoch=2/vnode=0/partial.bin", "epoch=3/_COMMIT"],
            Some(1),
        ),
        (vec!["epoch=1/vnode=1/partial.bin", "epoch=1/_COMMIT"], None),
        (vec!["epoch=1/vnode=0/partial.bin"], None),
    ] {
        let objects: Vec<_> = keys.iter().map(|key| (*key, 1, 1)).collect();
        assert_eq!(inventory(1, &objects).newest_complete(), complete.map(epoch), "{keys:?}");
    }
    assert_eq!(inventory(0, &[("epoch=1/_COMMIT", 1, 1)]).newest_complete(), None);
}

/// The numbers below `count`, in an order without any pattern that matters.
fn shuffled(count: u32) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..count).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for index in (1..count).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        numbers.swap(index as usize, (state >> 33) as usize % (index as usize + 1));
    }
    numbers
}

#[test]
fn a_million_objects_in_any_order_end_as_a_thousand_small_entries() {
    const EPOCHS: u32 = 1000;
    const VNODES: u32 = 1024;
    let mut builder = InventoryBuilder::new(VNODES);
    let footprint =
        |builder: &InventoryBuilder| builder.inventory.epochs.values().map(EpochEntry::footprint).sum::<usize>();
    let mut peak = 0;
    for (index, number) in shuffled(EPOCHS * (VNODES + 1)).into_iter().enumerate() {
        let (epoch, vnode) = (1_700_000_000_000_000 + u64::from(number % EPOCHS) * 997, number / EPOCHS);
        let key = if vnode == VNODES {
            format!("epoch={epoch}/_COMMIT")
        } else {
            format!("epoch={epoch}/vnode={vnode}/partial.bin")
        };
        builder.observe(&key, 10, at(1), Some("\"d41d8cd98f00b204e9800998ecf8427e\""));
        if index % 65_536 == 0 {
            peak = peak.max(footprint(&builder));
        }
    }
    let per_entry = |bytes: usize| bytes / EPOCHS as usize;
    assert!(per_entry(peak) <= 384, "at its peak, an entry has {} bytes", per_entry(peak));
    assert!(per_entry(footprint(&builder)) <= 256, "in the end, an entry has {} bytes", per_entry(footprint(&builder)));
    let inventory = builder.finish();
    assert!(inventory.epochs().all(|(_, entry)| entry.is_complete() && entry.vnodes().unwrap().heap_bytes() == 0));
    assert_eq!(inventory.totals(), Totals { sealed: 1000, unsealed: 0, objects: 1_025_000, bytes: 10_250_000 });
}
