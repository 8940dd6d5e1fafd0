//! Publishing and reading the fence and the floor.

use std::sync::Arc;

use epochwarden_core::lease::LeaseIdentity;
use epochwarden_core::register::{FloorRecord, Reading, RegisterKind};
use epochwarden_core::{Epoch, Version};
use epochwarden_store::registers::Record;
use epochwarden_store::{ErrorClass, Published, Registers, Root, StoreError};
use epochwarden_testkit::fault::{FaultStore, Operation};
use object_store::ObjectStoreExt;

use crate::bucket::Bucket;

const FIVE: &str = "_epochwarden/fence/00000000000000000005";

const fn version(number: u64) -> Version {
    Version::new(number)
}

fn lease(uid: &str) -> LeaseIdentity {
    LeaseIdentity { namespace: "streaming".into(), name: "leader".into(), uid: uid.into(), transitions: 4 }
}

fn floor(before: u64) -> FloorRecord {
    FloorRecord {
        before: Epoch::new(before),
        policy: Some("u1".into()),
        plan_digest: Some("d1".into()),
        publisher: "nobody".into(),
        published_at: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn behind(faults: &FaultStore) -> Registers {
    Registers::new(Root::from_store(Arc::new(faults.clone())), "test")
}

on_every_store! {
    async fn no_records_read_as_zero(bucket: &Bucket) {
        bucket.put("epoch=7/_COMMIT", "a").await;
        assert_eq!(bucket.registers().read().await.unwrap(), Reading::default());
    }

    async fn the_registers_of_a_root_lie_below_its_prefix(bucket: &Bucket) {
        let registers = Registers::new(bucket.root.clone().with_prefix("state/orders").unwrap(), "test");
        registers.publish_fence(version(5), "a", None).await.unwrap();
        registers.publish_floor(floor(7)).await.unwrap();
        assert_eq!(registers.read().await.unwrap(), Reading { fence: version(5), floor: Epoch::new(7), owner: 0 });
        assert!(bucket.has("state/orders/_epochwarden/fence/00000000000000000005").await);
        assert_eq!(bucket.registers().read().await.unwrap(), Reading::default());
    }

    async fn the_value_is_the_highest_name_whatever_the_order_and_the_body(bucket: &Bucket) {
        bucket.publish_fence(9, "a").await;
        bucket.put("_epochwarden/fence/00000000000000000011", "not a record").await;
        bucket.put(FIVE, "").await;
        bucket.put("_epochwarden/fence/99", "no name of a record").await;
        bucket.publish_floor(1_700_000_000_000).await;
        bucket.publish_floor(u64::MAX).await;
        bucket.publish_floor(3).await;
        let registers = bucket.registers();
        let reading = registers.read().await.unwrap();
        assert_eq!(reading, Reading { fence: version(11), floor: Epoch::new(u64::MAX), owner: 0 });
        assert_eq!(registers.unreadable().await.unwrap(), [FIVE, "_epochwarden/fence/00000000000000000011"]);
        let versions: Vec<u64> = registers.fence_records().await.unwrap().iter().map(|(version, _)| version.get()).collect();
        assert_eq!(versions, [5, 9, 11]);
    }

    async fn publishing_a_fence_creates_it_or_says_what_stands(bucket: &Bucket) {
        let publish = async |number, holder: &str, lease: Option<&LeaseIdentity>| {
            bucket.registers().publish_fence(version(number), holder, lease).await
        };
        let conflict = |outcome: Result<Published, StoreError>, expected: &str| {
            let error = outcome.unwrap_err();
            assert!(
                matches!(&error, StoreError::FenceConflict { version: 5, holder: Some(holder) } if holder == expected),
                "{error}"
            );
        };
        let (ours, recreated) = (lease("u1"), lease("u2"));
        assert_eq!(publish(5, "a", Some(&ours)).await.unwrap(), Published::Created);
        assert_eq!(publish(5, "a", Some(&ours)).await.unwrap(), Published::AlreadyThere);
        assert_eq!(publish(5, "a", None).await.unwrap(), Published::AlreadyThere);
        conflict(publish(5, "a", Some(&recreated)).await, "a");
        conflict(publish(5, "b", Some(&ours)).await, "a");
        assert_eq!(publish(6, "b", None).await.unwrap(), Published::Created);
        assert_eq!(publish(5, "a", Some(&ours)).await.unwrap(), Published::Superseded { by: version(6) });
        assert_eq!(publish(4, "a", Some(&ours)).await.unwrap(), Published::Superseded { by: version(6) });
        assert_eq!(bucket.keys().await, [FIVE, "_epochwarden/fence/00000000000000000006"], "nothing else was written");

        let record = bucket.registers().fence_record(version(5)).await.unwrap().unwrap().readable().unwrap();
        assert_eq!((record.version, record.holder.as_str(), record.lease), (version(5), "a", Some(ours)));
        assert_eq!(record.publisher, "test");
        assert_eq!(bucket.registers().fence_record(version(4)).await.unwrap(), None);
    }

    async fn a_fence_that_cannot_be_read_belongs_to_nobody(bucket: &Bucket) {
        bucket.put(FIVE, "not a record").await;
        assert!(matches!(
            bucket.registers().fence_record(version(5)).await.unwrap(),
            Some(Record::Unreadable { .. })
        ));
        let error = bucket.registers().publish_fence(version(5), "a", None).await.unwrap_err();
        assert!(matches!(error, StoreError::FenceConflict { version: 5, holder: None }), "{error}");
        assert_eq!(bucket.registers().publish_fence(version(6), "a", None).await.unwrap(), Published::Created);
    }

    async fn versions_outside_of_their_range_are_not_published(bucket: &Bucket) {
        for number in [0, 1 << 53, u64::MAX] {
            let error = bucket.registers().publish_fence(version(number), "a", None).await.unwrap_err();
            assert_eq!(error.class(), ErrorClass::InvalidConfiguration, "{error}");
        }
        assert_eq!(bucket.keys().await, Vec::<String>::new());
        bucket.publish_fence(Version::MAX.get(), "a").await;
    }

    async fn between_two_that_know_only_lower_versions_the_name_decides(bucket: &Bucket) {
        let (first, second) = (bucket.registers(), bucket.registers());
        first.read().await.unwrap();
        second.read().await.unwrap();
        assert_eq!(first.publish_fence(version(5), "a", None).await.unwrap(), Published::Created);
        let error = second.publish_fence(version(5), "b", None).await.unwrap_err();
        assert!(matches!(&error, StoreError::FenceConflict { holder: Some(holder), .. } if holder == "a"), "{error}");
    }

    async fn nothing_is_published_after_a_listing_that_has_shown_a_lost_register(bucket: &Bucket) {
        for (lost, kept) in [(RegisterKind::Fence, "floor"), (RegisterKind::Floor, "fence")] {
            bucket.publish_fence(5, "a").await;
            bucket.publish_floor(7).await;
            let registers = bucket.registers();
            registers.read().await.unwrap();
            for key in bucket.keys().await.into_iter().filter(|key| !key.contains(kept)) {
                bucket.delete(&key).await;
            }
            let refused = async || {
                let before = bucket.keys().await;
                let error = registers.publish_fence(version(6), "a", None).await.unwrap_err();
                assert!(matches!(&error, StoreError::RegisterLost(told) if told.register == lost), "{error}");
                assert_eq!(bucket.keys().await, before, "nothing was written");
            };
            registers.read().await.unwrap_err();
            refused().await;
            refused().await;
            registers.forget(lost);
            assert_eq!(registers.publish_fence(version(6), "a", None).await.unwrap(), Published::Created);
            for key in bucket.keys().await {
                bucket.delete(&key).await;
            }
        }
    }

    async fn a_listing_that_was_sent_before_the_loss_was_seen_does_not_vouch_for_the_fence(bucket: &Bucket) {
        bucket.publish_fence(5, "a").await;
        let faults = bucket.faults();
        let registers = Arc::new(behind(&faults));
        registers.read().await.unwrap();
        let (other, store) = (Arc::clone(&registers), bucket.store());
        faults.after(Operation::List, "_epochwarden").once().run(move || {
            let (other, store) = (Arc::clone(&other), Arc::clone(&store));
            async move {
                store.delete(&FIVE.into()).await.unwrap();
                other.read().await.unwrap_err();
            }
        });
        assert_eq!(registers.read().await.unwrap().fence, version(5), "as it was when it was listed");
        assert_eq!(faults.pending(), 0);
        let error = registers.publish_fence(version(6), "a", None).await.unwrap_err();
        assert!(matches!(error, StoreError::RegisterLost(_)), "{error}");
    }

    async fn a_fence_whose_answer_was_lost_is_read_back(bucket: &Bucket) {
        let faults = bucket.faults();
        faults.after(Operation::Put, FIVE).once().fail();
        assert_eq!(behind(&faults).publish_fence(version(5), "a", None).await.unwrap(), Published::Created);
        assert_eq!(faults.pending(), 0);
    }

    async fn a_fence_that_met_a_conflict_in_flight_is_tried_again(bucket: &Bucket) {
        let faults = bucket.faults();
        faults.before(Operation::Put, FIVE).times(2).already_exists();
        assert_eq!(behind(&faults).publish_fence(version(5), "a", None).await.unwrap(), Published::Created);
        assert_eq!(faults.pending(), 0);
    }

    async fn a_fence_that_never_settles_is_an_unknown_outcome_and_not_counted_as_seen(bucket: &Bucket) {
        let faults = bucket.faults();
        faults.before(Operation::Put, FIVE).times(4).fail();
        let registers = behind(&faults);
        let error = registers.publish_fence(version(5), "a", None).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::OutcomeUnknown, "{error}");
        assert_eq!(faults.pending(), 0);
        assert_eq!(registers.seen(), Reading::default());
        assert_eq!(registers.publish_fence(version(5), "a", None).await.unwrap(), Published::Created);
    }

    async fn publishing_a_floor_raises_it_and_never_lowers_it(bucket: &Bucket) {
        for (before, published, stands) in [
            (0, Published::AlreadyThere, 0),
            (10, Published::Created, 10),
            (10, Published::AlreadyThere, 10),
            (7, Published::AlreadyThere, 10),
            (1_700_000_000_000, Published::Created, 1_700_000_000_000),
        ] {
            assert_eq!(bucket.registers().publish_floor(floor(before)).await.unwrap(), published, "{before}");
            assert_eq!(bucket.registers().read().await.unwrap().floor, Epoch::new(stands));
        }
        assert_eq!(bucket.keys().await.len(), 2);
        let record = bucket.registers().floor_record(Epoch::new(10)).await.unwrap().unwrap().readable().unwrap();
        assert_eq!((record.policy.as_deref(), record.plan_digest.as_deref()), (Some("u1"), Some("d1")));
        assert_eq!(record.publisher, "test", "the publisher is who published");
    }

    async fn a_floor_that_another_wrote_meanwhile_stands(bucket: &Bucket) {
        let faults = bucket.faults();
        let root = bucket.root.clone();
        faults.before(Operation::Put, "_epochwarden/floor/*").once().run(move || {
            let registers = Registers::new(root.clone(), "other");
            async move {
                registers.publish_floor(floor(10)).await.unwrap();
            }
        });
        assert_eq!(behind(&faults).publish_floor(floor(10)).await.unwrap(), Published::AlreadyThere);
        assert_eq!(faults.pending(), 0);
    }

    async fn a_floor_whose_answer_was_lost_is_read_back(bucket: &Bucket) {
        let faults = bucket.faults();
        faults.after(Operation::Put, "_epochwarden/floor/*").once().fail();
        assert_eq!(behind(&faults).publish_floor(floor(10)).await.unwrap(), Published::Created);
    }

    async fn a_register_that_reads_lower_than_it_was_seen_is_lost(bucket: &Bucket) {
        let registers = bucket.registers();
        registers.remember(&Reading { fence: version(5), floor: Epoch::new(7), owner: 0 });
        bucket.publish_floor(7).await;
        bucket.publish_fence(4, "a").await;
        for _ in 0..2 {
            let error = registers.read().await.unwrap_err();
            assert!(
                matches!(&error, StoreError::RegisterLost(lost)
                    if (lost.register, lost.seen, lost.found) == (RegisterKind::Fence, 5, 4)),
                "{error}"
            );
        }
        let error = registers.publish_floor(floor(9)).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::RegisterLost);
        assert_eq!(bucket.registers().read().await.unwrap().floor, Epoch::new(7), "nothing was published");
        registers.forget(RegisterKind::Fence);
        assert_eq!(registers.read().await.unwrap().fence, version(4));
    }

    async fn a_value_seen_while_a_listing_was_under_way_does_not_make_that_listing_a_loss(bucket: &Bucket) {
        let faults = bucket.faults();
        let registers = Arc::new(behind(&faults));
        let meanwhile = Arc::clone(&registers);
        faults.after(Operation::List, "_epochwarden").once().run(move || {
            let registers = Arc::clone(&meanwhile);
            async move { registers.remember(&Reading { fence: version(5), ..Reading::default() }) }
        });
        assert_eq!(registers.read().await.unwrap(), Reading::default());
        registers.read().await.unwrap_err();
    }

    async fn trimming_keeps_the_newest_records(bucket: &Bucket) {
        for before in 1..=20 {
            bucket.put(&format!("_epochwarden/floor/{before:020}"), "{}").await;
        }
        let registers = bucket.registers();
        assert_eq!(registers.trim(RegisterKind::Floor).await, 0, "nothing was listed yet");
        registers.read().await.unwrap();
        assert_eq!(registers.trim(RegisterKind::Fence).await, 0);
        assert_eq!(registers.trim(RegisterKind::Floor).await, 4);
        assert_eq!(registers.trim(RegisterKind::Floor).await, 0);
        let expected: Vec<String> = (5..=20).map(|before| format!("_epochwarden/floor/{before:020}")).collect();
        assert_eq!(bucket.keys().await, expected);
    }
}
