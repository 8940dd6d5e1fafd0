//! Versions that are assigned to terms, and leaders that wait for theirs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use epochwarden_core::lease::{
    FenceDecision, FenceSeen, LeaseIdentity, LeaseObservation, LeaseSeen, VersionFrom, decide,
};
use epochwarden_core::register::Reading;
use epochwarden_core::{Numbering, Version};
use epochwarden_store::registers::{AssignError, Assigned, Record};
use epochwarden_store::{ObjectStoreBackend, Registers, Root, StateBackend, StateBackendError, StoreError};
use epochwarden_testkit::counter::{Calls, CountingStore};
use epochwarden_testkit::fault::Operation;
use futures::future::join_all;
use tokio::time::Instant;

use crate::bucket::{ALL, Bucket, VNODES, leader, write};

const NOTHING: Calls = Calls { list: 0, get: 0, head: 0, put: 0, delete: 0 };

/// A Lease as the API server has it now.
#[derive(Clone)]
struct ApiServer(Arc<Mutex<LeaseObservation>>);

impl ApiServer {
    fn led_by(holder: &str, uid: &str, transitions: i32) -> Self {
        Self(Arc::new(Mutex::new(LeaseObservation {
            namespace: "streaming".into(),
            name: "orders-leader".into(),
            uid: uid.into(),
            holder: Some(holder.into()),
            transitions: Some(transitions),
            duration: None,
            annotation: None,
            renewed: Duration::ZERO,
            holder_since: Duration::ZERO,
        })))
    }

    fn set(&self, holder: &str, transitions: i32) {
        let mut lease = self.0.lock().unwrap();
        lease.holder = Some(holder.into());
        lease.transitions = Some(transitions);
    }

    fn decide(&self, fence: &FenceSeen) -> FenceDecision {
        let lease = self.0.lock().unwrap().clone();
        decide(LeaseSeen::Found(&lease), VersionFrom::Assigned, Numbering::Plain, fence, Duration::ZERO)
    }

    async fn assign(&self, registers: &Registers) -> Result<Assigned, AssignError<String>> {
        registers.assign_fence(|_: Reading, fence| async move { Ok(self.decide(&fence)) }).await
    }

    /// The version that its term has now, and whether this call gave it.
    async fn assigned(&self, registers: &Registers) -> (u64, bool) {
        match self.assign(registers).await.unwrap() {
            Assigned::Created(term) => (term.version.get(), true),
            Assigned::Nothing { decision: FenceDecision::Current(term), .. } => (term.version.get(), false),
            Assigned::Nothing { decision, .. } => panic!("{decision:?}"),
        }
    }
}

async fn holders(bucket: &Bucket) -> Vec<(u64, String)> {
    let records = bucket.registers().fence_records().await.unwrap();
    records
        .into_iter()
        .map(|(version, record)| (version.get(), record.readable().map(|record| record.holder).unwrap_or_default()))
        .collect()
}

fn owned(holders: &[(u64, &str)]) -> Vec<(u64, String)> {
    holders.iter().map(|(version, holder)| (*version, (*holder).to_owned())).collect()
}

on_every_store! {
    async fn each_term_gets_the_next_version_and_keeps_it(bucket: &Bucket) {
        let registers = bucket.registers();
        let server = ApiServer::led_by("a", "u1", 0);
        assert_eq!(server.assigned(&registers).await, (1, true));
        assert_eq!(server.assigned(&registers).await, (1, false));
        server.set("b", 1);
        assert_eq!(server.assigned(&registers).await, (2, true));
        server.set("a", 2);
        assert_eq!(server.assigned(&registers).await, (3, true));
        server.set("a", 3);
        assert_eq!(server.assigned(&registers).await, (4, true), "the same process, in another term");
        // The Lease was deleted and created again: its transitions start over, its version does not.
        let recreated = ApiServer::led_by("a", "u2", 0);
        assert_eq!(recreated.assigned(&registers).await, (5, true));
        assert_eq!(recreated.assigned(&registers).await, (5, false));
        assert_eq!(holders(bucket).await, owned(&[(1, "a"), (2, "b"), (3, "a"), (4, "a"), (5, "a")]));
    }

    async fn a_version_that_a_person_raised_is_followed_by_the_next(bucket: &Bucket) {
        bucket.publish_fence(9, "a").await;
        let server = ApiServer::led_by("a", "u1", 0);
        assert_eq!(server.assigned(&bucket.registers()).await, (10, true), "what names no Lease is no term's");
    }

    async fn a_record_that_says_nothing_is_followed_by_the_next(bucket: &Bucket) {
        bucket.put("_epochwarden/fence/00000000000000000009", "not a record").await;
        assert_eq!(ApiServer::led_by("a", "u1", 0).assigned(&bucket.registers()).await, (10, true));
    }

    async fn what_is_refused_writes_nothing(bucket: &Bucket) {
        bucket.publish_fence(3, "a").await;
        let server = ApiServer::led_by("", "u1", 0);
        let assigned = server.assign(&bucket.registers()).await.unwrap();
        assert!(
            matches!(&assigned, Assigned::Nothing { decision: FenceDecision::Refused(refusal), fence }
                if refusal.reason() == "NoHolder" && fence.highest == Version::new(3)),
            "{assigned:?}"
        );
        assert_eq!(bucket.registers().read().await.unwrap().fence, Version::new(3));
    }

    async fn it_lists_then_reads_the_lease_and_then_creates(bucket: &Bucket) {
        let calls = bucket.counting();
        let registers = Registers::new(Root::from_store(Arc::new(calls.clone())), "test");
        let server = ApiServer::led_by("a", "u1", 0);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let look = |_, fence| {
            let (server, calls, seen) = (server.clone(), calls.clone(), Arc::clone(&seen));
            async move {
                seen.lock().unwrap().push(calls.take());
                Ok::<_, String>(server.decide(&fence))
            }
        };
        registers.assign_fence(look).await.unwrap();
        assert_eq!(seen.lock().unwrap().pop().unwrap(), Calls { list: 1, ..NOTHING });
        assert_eq!(calls.take(), Calls { put: 1, ..NOTHING });
        registers.assign_fence(look).await.unwrap();
        assert_eq!(seen.lock().unwrap().pop().unwrap(), Calls { list: 1, get: 1, ..NOTHING }, "each time anew");
        assert_eq!(calls.take(), NOTHING);
    }

    // Publisher 1 has listed, and is slow. Meanwhile a new term begins, and publisher 2 gives it the next version. What publisher 1 knows
    // of the Lease may be from before or from after: in no case does the ended term come above the new one.
    async fn a_publisher_that_was_overtaken_begins_again_with_a_new_look_at_the_lease(bucket: &Bucket) {
        let server = ApiServer::led_by("a", "u1", 0);
        let faults = bucket.faults();
        let (other, inside) = (bucket.registers(), server.clone());
        let other = Arc::new(other);
        faults.before(Operation::Put, "_epochwarden/fence/*").once().run(move || {
            let (other, server) = (Arc::clone(&other), inside.clone());
            async move {
                server.set("b", 1);
                assert_eq!(server.assigned(&other).await, (1, true));
            }
        });
        let slow = Registers::new(Root::from_store(Arc::new(faults.clone())), "slow");
        assert_eq!(server.assigned(&slow).await, (1, false), "it has found the new term published");
        assert_eq!(faults.pending(), 0);
        assert_eq!(holders(bucket).await, owned(&[(1, "b")]));
    }

    async fn a_publisher_that_lost_the_create_to_an_older_term_goes_above_it(bucket: &Bucket) {
        let server = ApiServer::led_by("b", "u1", 1);
        let faults = bucket.faults();
        let late = bucket.store();
        faults.before(Operation::Put, "_epochwarden/fence/00000000000000000001").once().run(move || {
            let registers = Registers::new(Root::from_store(Arc::clone(&late)), "late");
            async move {
                assert_eq!(ApiServer::led_by("a", "u1", 0).assigned(&registers).await, (1, true));
            }
        });
        let registers = Registers::new(Root::from_store(Arc::new(faults.clone())), "test");
        assert_eq!(server.assigned(&registers).await, (2, true));
        assert_eq!(faults.pending(), 0);
        assert_eq!(holders(bucket).await, owned(&[(1, "a"), (2, "b")]));
    }

    async fn a_lost_answer_is_settled_by_reading_back(bucket: &Bucket) {
        let faults = bucket.faults();
        faults.after(Operation::Put, "_epochwarden/fence/*").once().fail();
        let registers = Registers::new(Root::from_store(Arc::new(faults.clone())), "test");
        assert_eq!(ApiServer::led_by("a", "u1", 0).assigned(&registers).await, (1, true));
        assert_eq!(faults.pending(), 0);
        assert_eq!(holders(bucket).await, owned(&[(1, "a")]));
    }

    async fn a_fence_that_was_seen_and_is_gone_is_lost_and_not_begun_again(bucket: &Bucket) {
        let registers = bucket.registers();
        let server = ApiServer::led_by("a", "u1", 0);
        assert_eq!(server.assigned(&registers).await, (1, true));
        bucket.delete("_epochwarden/fence/00000000000000000001").await;
        let error = server.assign(&registers).await.unwrap_err();
        assert!(matches!(error, AssignError::Store(StoreError::RegisterLost(_))), "{error}");
        assert_eq!(bucket.keys().await, Vec::<String>::new());
    }

    async fn a_version_that_the_numbering_does_not_have_is_not_assigned(bucket: &Bucket) {
        let last = (1 << 23) - 1;
        bucket.publish_fence(last, "a").await;
        let registers = Registers::new(bucket.root.clone().numbered(Numbering::Versioned), "test");
        // Who decides goes by plain numbers, and the root does not.
        let error = ApiServer::led_by("b", "u1", 1).assign(&registers).await.unwrap_err();
        assert!(matches!(error, AssignError::Store(StoreError::InvalidVersion { .. })), "{error}");
        assert_eq!(holders(bucket).await, owned(&[(last, "a")]));
    }

    async fn a_lease_that_cannot_be_read_writes_nothing(bucket: &Bucket) {
        let registers = bucket.registers();
        let outcome = registers.assign_fence(|_, _| async { Err::<FenceDecision, _>("no answer") }).await;
        assert!(matches!(outcome, Err(AssignError::Lease("no answer"))));
        assert_eq!(bucket.keys().await, Vec::<String>::new());
    }

    async fn of_many_publishers_of_one_term_exactly_one_writes_it(bucket: &Bucket) {
        let server = ApiServer::led_by("a", "u1", 0);
        let racers = (0..16).map(|_| {
            let (registers, server) = (bucket.registers(), server.clone());
            async move { server.assigned(&registers).await }
        });
        let outcomes = join_all(racers).await;
        assert!(outcomes.iter().all(|(version, _)| *version == 1), "{outcomes:?}");
        assert_eq!(outcomes.iter().filter(|(_, created)| *created).count(), 1);
        assert_eq!(holders(bucket).await, owned(&[(1, "a")]));
    }

    async fn a_leader_waits_until_the_fence_names_it_and_leads_with_that_version(bucket: &Bucket) {
        bucket.publish_fence(6, "b").await;
        let waiting = ObjectStoreBackend::builder(bucket.store()).instance_id("a").vnode_capacity(VNODES).build();
        let (version, ()) = tokio::join!(waiting.await_leadership(Duration::from_mins(1)), async {
            ApiServer::led_by("c", "u1", 1).assigned(&bucket.registers()).await;
            ApiServer::led_by("a", "u1", 2).assigned(&bucket.registers()).await;
        });
        let version = version.unwrap();
        assert_eq!(version, 8);
        write(&waiting, 7).await;
        let error = waiting.epoch_complete(7, &ALL).await.unwrap_err();
        assert!(matches!(error, StateBackendError::StaleVersion { caller: 0, authoritative: 8 }), "it has not said so: {error}");
        assert!(leader(bucket.store(), "a", version).epoch_complete(7, &ALL).await.unwrap());
        waiting.set_authoritative_version(version);
        assert!(waiting.epoch_complete(7, &ALL).await.unwrap());
    }

    async fn a_leader_is_known_by_its_name_in_the_lease(bucket: &Bucket) {
        bucket.publish_fence(6, "pod-1").await;
        let backend = ObjectStoreBackend::builder(bucket.store()).instance_id("x").holder("pod-1").build();
        assert_eq!(backend.await_leadership(Duration::ZERO).await.unwrap(), 6);
    }
}

fn waiting(calls: &CountingStore) -> ObjectStoreBackend {
    ObjectStoreBackend::builder(Arc::new(calls.clone())).instance_id("a").vnode_capacity(VNODES).build()
}

#[tokio::test(start_paused = true)]
async fn waiting_for_leadership_reads_each_record_once_and_lists_ever_more_rarely() {
    let bucket = Bucket::in_memory();
    let calls = bucket.counting();
    bucket.publish_fence(6, "b").await;
    let begun = Instant::now();
    let error = waiting(&calls).await_leadership(Duration::from_secs(30)).await.unwrap_err();
    assert!(matches!(error, StateBackendError::FenceNotReached { version: 7, fence: 6 }), "{error}");
    assert_eq!(begun.elapsed(), Duration::from_secs(30));
    let Calls { list, get, .. } = calls.take();
    assert_eq!(get, 1);
    assert!((25..=36).contains(&list), "{list} listings in 30 s");
    // Where nothing stands there is no record to read.
    let empty = Bucket::in_memory();
    let calls = empty.counting();
    let error = waiting(&calls).await_leadership(Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, StateBackendError::FenceNotReached { version: 1, fence: 0 }), "{error}");
    assert_eq!(calls.take().get, 0);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_names_nobody_and_the_next_one_is_waited_for() {
    let bucket = Bucket::in_memory();
    bucket.put("_epochwarden/fence/00000000000000000006", "not a record").await;
    let backend = waiting(&bucket.counting());
    let error = backend.await_leadership(Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, StateBackendError::FenceNotReached { fence: 6, .. }), "{error}");
    bucket.publish_fence(7, "a").await;
    assert_eq!(backend.await_leadership(Duration::ZERO).await.unwrap(), 7);
}

#[tokio::test]
async fn waiting_ends_where_the_fence_has_passed_the_version_to_lead_or_was_lost() {
    let bucket = Bucket::in_memory();
    let backend = leader(bucket.store(), "a", 5);
    bucket.publish_fence(5, "a").await;
    assert_eq!(backend.await_leadership(Duration::ZERO).await.unwrap(), 5);
    bucket.publish_fence(6, "a").await;
    let error = backend.await_leadership(Duration::from_mins(1)).await.unwrap_err();
    assert!(matches!(error, StateBackendError::StaleVersion { caller: 5, authoritative: 6 }), "{error}");
    for version in [5, 6] {
        bucket.delete(&format!("_epochwarden/fence/{version:020}")).await;
    }
    let error = backend.await_leadership(Duration::from_mins(1)).await.unwrap_err();
    assert!(matches!(error, StateBackendError::RegisterLost { seen: 6, found: 0, .. }), "{error}");
}

#[tokio::test]
async fn an_assigned_record_says_which_term_it_is_of() {
    let bucket = Bucket::in_memory();
    ApiServer::led_by("a", "u1", 7).assigned(&bucket.registers()).await;
    let Some(Record::Readable(record)) = bucket.registers().fence_record(Version::new(1)).await.unwrap() else {
        panic!("no record")
    };
    let lease =
        LeaseIdentity { namespace: "streaming".into(), name: "orders-leader".into(), uid: "u1".into(), transitions: 7 };
    assert_eq!((record.holder.as_str(), record.lease), ("a", Some(lease)));
}
