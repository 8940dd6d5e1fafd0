//! What a run says and costs.

use epochwarden_testkit::fault::Operation;

use super::*;

#[tokio::test]
async fn the_report_has_a_stable_form() {
    let mut bench = Bench::sealed(1..=4).await;
    bench.rules.max_objects = 4;
    bench.faults.before(Operation::Delete, "epoch=1/vnode=0/*").fail();
    let json = serde_json::to_value(bench.prune().await.unwrap()).unwrap();
    let fields: BTreeSet<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "startedAt",
        "finishedAt",
        "outcome",
        "stop",
        "plan",
        "found",
        "floor",
        "epochs",
        "objects",
        "bytes",
        "failed",
        "errors",
        "remainder",
        "requests",
    ];
    assert_eq!(fields, expected.into());
    assert_eq!((&json["outcome"], &json["stop"]["reason"]), (&"Stopped".into(), &"MaxObjects".into()));
    assert_eq!((&json["floor"], &json["failed"]), (&"4".into(), &1.into()));
    assert_eq!(json["errors"][0]["key"], "epoch=1/vnode=0/partial.bin");
    assert_eq!(json["plan"]["delete"], serde_json::json!([{ "from": "1", "to": "3", "reason": "Expired" }]));
}

#[test]
fn a_stop_by_the_store_says_what_class_it_is_of() {
    let lost = Stop::Store { class: ErrorClass::RegisterLost, message: "x".into() };
    let expected = serde_json::json!({ "reason": "Store", "class": "RegisterLost", "message": "x" });
    assert_eq!(serde_json::to_value(lost).unwrap(), expected);
}

#[tokio::test]
async fn a_small_prune_takes_few_requests() {
    let mut bench = Bench::sealed(1..=3).await;
    bench.identity.policy = Some(ownership::policy("orders", "u1"));
    bench.prune().await.unwrap();
    bench.seal(4..=5).await;
    let requests = bench.prune().await.unwrap().requests;
    // The registers, the owner, the root; the registers before the floor and before the batch; two epochs of three objects.
    assert_eq!((requests.list, requests.get, requests.put, requests.delete, requests.head), (4, 1, 1, 6, 0));
}

#[tokio::test]
async fn a_key_that_no_request_can_name_refuses_the_run() {
    let bench = Bench::sealed(1..=3).await;
    bench.faults.before(Operation::List, "").fail_with(|_| object_store::Error::InvalidPath {
        source: object_store::path::Error::EmptySegment { path: "epoch=1//x".into() },
    });
    let error = bench.prune().await.unwrap_err();
    assert!(
        matches!(&error, PruneError::Store(StoreError::UnaddressableKey { key }) if key == "epoch=1//x"),
        "{error:?}"
    );
    assert!(error.is_refusal());
    bench.wrote_nothing();
}

#[tokio::test]
async fn an_epoch_that_is_sealed_again_meanwhile_is_left_alone() {
    let bench = Bench::sealed(1..=1).await;
    for number in 0..65 {
        bench.put(&format!("epoch=1/zzz/{number}")).await;
    }
    bench.seal(2..=3).await;
    let journal = bench.journal.clone();
    bench.faults.before(Operation::List, "epoch=1").once().run(move || {
        let journal = journal.clone();
        async move { journal.put_unnoticed("epoch=1/_COMMIT", "b").await }
    });
    let report = bench.prune().await.unwrap();
    assert_eq!((report.outcome, report.epochs, report.failed), (PruneOutcome::PartlyFailed, 1, 1));
    assert_eq!(report.errors[0].key, "epoch=1/_COMMIT");
    assert_eq!(bench.keys("epoch=1/").await.len(), 65 + 3);
}

#[tokio::test]
async fn a_run_can_be_spawned() {
    let bench = Bench::sealed(1..=3).await;
    let (root, rules, identity, cancel) =
        (bench.root(), bench.rules.clone(), bench.identity.clone(), bench.cancel.clone());
    let task = tokio::spawn(async move {
        let (permission, clock): (Box<dyn Permission>, Arc<dyn Clock>) = (Box::new(Always), Arc::new(LongAgo));
        let told = std::sync::Mutex::new(Vec::new());
        let progress = |progress| told.lock().unwrap().push(progress);
        run(&root, &rules, &identity, Approval::Automatic, &*permission, &clock, &cancel, &progress).await
    });
    assert_eq!(task.await.unwrap().unwrap().epochs, 2);
}
