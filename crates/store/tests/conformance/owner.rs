//! Which policy a root belongs to.

use std::sync::Arc;

use epochwarden_core::register::{OwnerRecord, Refusal, RegisterKind, Word};
use epochwarden_store::registers::{Claimed, Conflict, Record};
use epochwarden_store::{ErrorClass, Owned, Registers, Root, StoreError};
use epochwarden_testkit::fault::Operation;

use crate::bucket::Bucket;

const FIRST: &str = "_epochwarden/owner/00000000000000000001";
const SECOND: &str = "_epochwarden/owner/00000000000000000002";

pub(crate) fn policy(namespace: &str, uid: &str) -> OwnerRecord {
    OwnerRecord {
        cluster: "c1".into(),
        namespace: namespace.into(),
        name: "orders".into(),
        uid: uid.into(),
        take_over: None,
    }
}

/// A claim of `claimant` on the word that `given` may be taken over from, where `honoured` is what it remembers.
async fn claim(bucket: &Bucket, claimant: &OwnerRecord, given: &str, honoured: Option<&str>) -> Claimed {
    let registers = bucket.registers();
    let reading = registers.read().await.unwrap();
    registers.claim_owner_from(&reading, claimant, Word { given: Some(given), honoured }).await.unwrap()
}

fn refusal(claimed: Claimed) -> Refusal {
    match claimed {
        Claimed::Refused(Conflict::Another { refusal, .. }) => refusal,
        other => panic!("{other:?}"),
    }
}

on_every_store! {
    async fn a_root_without_owner_is_claimed_once(bucket: &Bucket) {
        let registers = bucket.registers();
        assert_eq!(registers.owner().await.unwrap(), None);
        let ours = policy("streaming", "u1");
        assert_eq!(registers.claim_owner(&ours).await.unwrap(), Owned { number: 1, created: true });
        assert_eq!(bucket.registers().claim_owner(&ours).await.unwrap(), Owned { number: 1, created: false });
        assert_eq!(bucket.keys().await, [FIRST]);
        assert_eq!(registers.owner().await.unwrap(), Some((1, Record::Readable(ours))));
    }

    async fn another_policy_is_refused_and_told_whose_the_root_is(bucket: &Bucket) {
        bucket.registers().claim_owner(&policy("streaming", "u1")).await.unwrap();
        let error = bucket.registers().claim_owner(&policy("billing", "u2")).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::RootConflict);
        assert!(error.to_string().contains("streaming/orders"), "{error}");
        assert_eq!(bucket.keys().await, [FIRST]);
    }

    async fn a_recreated_policy_takes_over_by_itself(bucket: &Bucket) {
        let old = bucket.registers();
        let owned = old.claim_owner(&policy("streaming", "u1")).await.unwrap();
        let new = policy("streaming", "u2");
        assert_eq!(bucket.registers().claim_owner(&new).await.unwrap(), Owned { number: 2, created: true });
        assert_ne!(old.read().await.unwrap().owner, owned.number, "the old one can see that it was");
    }

    async fn a_record_that_cannot_be_read_is_obeyed(bucket: &Bucket) {
        bucket.put(FIRST, "{}").await;
        let error = bucket.registers().claim_owner(&policy("streaming", "u1")).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::RootConflict, "{error}");
        assert_eq!(bucket.keys().await, [FIRST]);
        assert_eq!(bucket.registers().unreadable().await.unwrap(), [FIRST]);
    }

    async fn a_claim_that_comes_second_reads_again_and_obeys(bucket: &Bucket) {
        let faults = bucket.faults();
        let root = bucket.root.clone();
        faults.before(Operation::Put, FIRST).once().run(move || {
            let registers = Registers::new(root.clone(), "other");
            async move {
                registers.claim_owner(&policy("billing", "u2")).await.unwrap();
            }
        });
        let registers = Registers::new(Root::from_store(Arc::new(faults.clone())), "test");
        let error = registers.claim_owner(&policy("streaming", "u1")).await.unwrap_err();
        assert!(matches!(&error, StoreError::RootConflict { owner } if owner.contains("billing/orders")), "{error}");
        assert_eq!(faults.pending(), 0);
    }

    async fn a_claim_whose_answer_was_lost_is_ours(bucket: &Bucket) {
        let faults = bucket.faults();
        faults.after(Operation::Put, FIRST).once().fail();
        let registers = Registers::new(Root::from_store(Arc::new(faults.clone())), "test");
        assert_eq!(registers.claim_owner(&policy("streaming", "u1")).await.unwrap().number, 1);
        assert_eq!(faults.pending(), 0);
        assert_eq!(bucket.keys().await, [FIRST]);
    }

    async fn an_owner_that_was_seen_and_is_gone_is_lost_until_it_is_forgotten(bucket: &Bucket) {
        let registers = bucket.registers();
        let ours = policy("streaming", "u1");
        registers.claim_owner(&ours).await.unwrap();
        bucket.delete(FIRST).await;
        let error = registers.claim_owner(&ours).await.unwrap_err();
        assert!(matches!(&error, StoreError::RegisterLost(lost) if lost.register == RegisterKind::Owner), "{error}");
        assert!(!bucket.has(FIRST).await);
        registers.forget(RegisterKind::Owner);
        assert!(registers.claim_owner(&ours).await.unwrap().created);
    }

    async fn a_root_is_taken_over_on_a_word_and_the_record_says_from_whom(bucket: &Bucket) {
        let (theirs, ours) = (policy("billing", "u2"), policy("streaming", "u1"));
        bucket.registers().claim_owner(&theirs).await.unwrap();
        let named = Refusal::NamesAnother { given: "u3".into() };
        assert_eq!(refusal(claim(bucket, &ours, "u3", None).await), named);
        assert_eq!(bucket.keys().await, [FIRST], "a word about somebody else writes nothing");

        let record = OwnerRecord { take_over: Some("u2".into()), ..ours.clone() };
        let taken = Claimed::Owned { owned: Owned { number: 2, created: true }, record: record.clone() };
        assert_eq!(claim(bucket, &ours, "u2", None).await, taken);
        assert_eq!(bucket.registers().owner().await.unwrap(), Some((2, Record::Readable(record.clone()))));
        // From then on it is the policy's own: the same word again changes nothing, and the one who lost it is refused.
        let stands = Claimed::Owned { owned: Owned { number: 2, created: false }, record };
        assert_eq!(claim(bucket, &ours, "u2", Some("u2")).await, stands);
        let error = bucket.registers().claim_owner(&theirs).await.unwrap_err();
        assert!(matches!(&error, StoreError::RootConflict { owner } if owner.contains("streaming/orders")), "{error}");
    }

    async fn a_word_counts_once_also_where_only_the_record_remembers_it(bucket: &Bucket) {
        let (theirs, ours) = (policy("billing", "u2"), policy("streaming", "u1"));
        bucket.registers().claim_owner(&theirs).await.unwrap();
        claim(bucket, &ours, "u2", None).await;
        assert!(matches!(claim(bucket, &theirs, "u1", None).await, Claimed::Owned { owned: Owned { number: 3, .. }, .. }));
        let before = bucket.keys().await;
        assert_eq!(refusal(claim(bucket, &ours, "u2", Some("u2")).await), Refusal::Spent);
        assert_eq!(refusal(claim(bucket, &ours, "u2", None).await), Refusal::Spent, "the status was not written in time");
        assert_eq!(bucket.keys().await, before);
        let recreated = policy("streaming", "u9");
        assert!(matches!(claim(bucket, &recreated, "u2", None).await, Claimed::Owned { owned: Owned { number: 4, .. }, .. }));
    }

    async fn a_take_over_that_comes_second_reads_again_and_obeys(bucket: &Bucket) {
        bucket.registers().claim_owner(&policy("billing", "u2")).await.unwrap();
        let faults = bucket.faults();
        let root = bucket.root.clone();
        faults.before(Operation::Put, SECOND).once().run(move || {
            let registers = Registers::new(root.clone(), "other");
            async move {
                let reading = registers.read().await.unwrap();
                let word = Word { given: Some("u2"), honoured: None };
                registers.claim_owner_from(&reading, &policy("third", "u3"), word).await.unwrap();
            }
        });
        let registers = Registers::new(Root::from_store(Arc::new(faults.clone())), "test");
        let reading = registers.read().await.unwrap();
        let word = Word { given: Some("u2"), honoured: None };
        let claimed = registers.claim_owner_from(&reading, &policy("streaming", "u1"), word).await.unwrap();
        assert_eq!(refusal(claimed), Refusal::NamesAnother { given: "u2".into() });
        assert_eq!(faults.pending(), 0);
    }

    async fn a_claim_from_a_reading_lists_nothing_again(bucket: &Bucket) {
        let ours = policy("streaming", "u1");
        for request in ["a PUT", "a GET"] {
            let registers = bucket.registers();
            let reading = registers.read().await.unwrap();
            let before = bucket.root.requests();
            registers.claim_owner_from(&reading, &ours, Word::default()).await.unwrap();
            let after = bucket.root.requests();
            assert_eq!((after.list - before.list, after.total() - before.total()), (0, 1), "{request}");
        }
    }
}
