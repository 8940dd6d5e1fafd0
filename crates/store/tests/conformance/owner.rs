//! Which policy a root belongs to.

use std::sync::Arc;

use epochwarden_core::register::{OwnerRecord, RegisterKind};
use epochwarden_store::registers::Record;
use epochwarden_store::{ErrorClass, Owned, Registers, Root, StoreError};
use epochwarden_testkit::fault::Operation;

use crate::bucket::Bucket;

const FIRST: &str = "_epochwarden/owner/00000000000000000001";

pub(crate) fn policy(namespace: &str, uid: &str) -> OwnerRecord {
    OwnerRecord {
        cluster: "c1".into(),
        namespace: namespace.into(),
        name: "orders".into(),
        uid: uid.into(),
        take_over: None,
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
}
