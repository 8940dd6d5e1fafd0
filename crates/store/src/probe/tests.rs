use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt, stream};
use object_store::{ObjectStore, ObjectStoreExt};

use self::fake::{Fake, Last, Quirk};
use super::*;
use crate::clock::SystemClock;
use crate::http::UnderLock;
use crate::http::answers::Server;
use crate::listing::list_epochs;
use crate::root::RootSettings;

mod fake;

const GOOD: Capabilities = Capabilities::GOOD;

async fn probe(root: &Root) -> Result<ProbeReport, ProbeError> {
    run(root, DEADLINE, &SystemClock, &CancellationToken::new()).await
}

fn kinds(report: &ProbeReport) -> Vec<ProblemKind> {
    report.problems.iter().map(|problem| problem.kind).collect()
}

/// A quirk, what is known after it, the kinds of problems, and what the first of them says among other things.
type Row = (Quirk, Capabilities, &'static [ProblemKind], &'static str);

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    use ProblemKind::*;
    let unconditional = Capabilities { conditional_create: false, ..GOOD };
    let inconsistent = Capabilities { consistent_list: false, ..GOOD };
    let unpaged = Capabilities { delimiter_index: false, ..inconsistent };
    let undelimited = Capabilities { delimiter_index: false, ..GOOD };
    let single = Capabilities { bulk_delete: false, ..GOOD };
    let nothing = Capabilities {
        conditional_create: false,
        consistent_list: false,
        bulk_delete: false,
        delimiter_index: false,
        versioned: false,
        object_lock: false,
    };
    vec![
        (Quirk::None, GOOD, &[], ""),
        (Quirk::CreateOverwrites, unconditional, &[OverwritesOnCreate], "16 of 16 creates"),
        (Quirk::CreateRefused, unconditional, &[RefusesCreate], "If-None-Match"),
        (Quirk::LosersWrite, unconditional, &[ReadsAnotherBack], "another's write was read back"),
        (Quirk::CreateForgets, Capabilities { delimiter_index: false, conditional_create: false, ..inconsistent },
            &[ReadsAnotherBack, StaleList], "nothing was read back"),
        (Quirk::Conflicts(16), GOOD, &[], ""),
        (Quirk::Conflicts(100), Capabilities { conditional_create: false, ..unpaged }, &[RefusesCreate, StaleList],
            "every create of a key with a conflict"),
        (Quirk::WinnerMeetsItself, GOOD, &[], ""),
        (Quirk::Behind(Last::Create), inconsistent, &[StaleList], "right after a create"),
        (Quirk::Behind(Last::Overwrite), inconsistent, &[StaleList], "right after an overwrite"),
        (Quirk::Behind(Last::Delete), inconsistent, &[StaleList], "right after a deletion"),
        (Quirk::Hides("vnode=1"), unpaged, &[StaleList], "writes of several keys"),
        (Quirk::Endless, unpaged, &[EndlessList], "without end"),
        (Quirk::OnePage, unpaged, &[IncompleteList], "2 keys instead of 10"),
        (Quirk::RefusesPages, unpaged, &[IncompleteList], "max-keys"),
        (Quirk::EndlessWithDelimiter, undelimited, &[NoDelimiter], "repeats a page"),
        (Quirk::CutsAtSlash, undelimited, &[NoDelimiter], "other keys and folders"),
        (Quirk::CutsShort, GOOD, &[], ""),
        (Quirk::IgnoresDelimiter, undelimited, &[NoDelimiter], "other keys and folders"),
        (Quirk::RefusesDelimiter, undelimited, &[NoDelimiter], "is refused"),
        (Quirk::BulkRefused, single, &[NoBulkDelete], "DeleteObjects"),
        (Quirk::BulkDoesNothing, single, &[NoBulkDelete], "success and the keys are still there"),
        (Quirk::DeletesNothing, single, &[NoBulkDelete, LeftBehind], "still there"),
        (Quirk::MissingIsNamed, GOOD, &[], ""),
        (Quirk::Version("3sL4kqtJlcpXroDTDmJ"), Capabilities { versioned: true, ..GOOD }, &[Versioned], "keeps versions"),
        (Quirk::Version("null"), GOOD, &[], ""),
        (Quirk::UnderLock, Capabilities { object_lock: true, ..GOOD }, &[ObjectLock], "under a lock"),
        (Quirk::LockedOverwrites, Capabilities { object_lock: true, ..GOOD }, &[ObjectLock], "takes new keys"),
        (Quirk::Immutable, Capabilities { object_lock: true, ..single }, &[ObjectLock, LeftBehind], "immutable"),
        (Quirk::LockedWrites, Capabilities { object_lock: true, ..nothing }, &[RefusesWrites], "Object Lock"),
        (Quirk::LockedDeletes, Capabilities { object_lock: true, ..single }, &[ObjectLock, LeftBehind], "WORM"),
        (Quirk::DeniedDeletes, single, &[DeletesRefused, LeftBehind], "refuses deletions"),
    ]
}

#[tokio::test]
async fn what_a_store_does_wrong_is_seen_said_and_survived() {
    let mut met = BTreeSet::new();
    for (quirk, capabilities, problems, says) in rows() {
        let fake = Fake::new(quirk.clone());
        let report = probe(&fake.root()).await.unwrap();
        assert_eq!(kinds(&report), problems, "{quirk:?}: {:?}", report.problems);
        assert_eq!(report.capabilities, capabilities, "{quirk:?}");
        let first = report.problems.first().map(Problem::to_string).unwrap_or_default();
        assert!(first.contains(says), "{quirk:?}: {first}");
        let is_unsafe = !capabilities.conditional_create || !capabilities.consistent_list;
        assert_eq!(report.unsafe_because().is_some(), is_unsafe, "{quirk:?}: {:?}", report.problems);
        let remain = if problems.contains(&ProblemKind::LeftBehind) { 10 } else { 0 };
        assert_eq!(report.leaves_keys(), remain > 0, "{quirk:?}");
        assert_eq!(fake.keys().await.len(), remain, "{quirk:?}: {:?}", fake.keys().await);
        met.extend(kinds(&report));
    }
    assert_eq!(met, BTreeSet::from(ProblemKind::ALL), "every problem is met by a quirk");
}

#[tokio::test]
async fn a_store_without_pages_and_bulk_deletes_of_its_own_has_no_problem_with_that() {
    let fake = Fake::new(Quirk::None);
    let report = probe(&fake.without_pages()).await.unwrap();
    assert_eq!(report.problems, []);
    assert_eq!(report.capabilities, Capabilities { bulk_delete: false, ..GOOD });
    let requests = RequestCounts { list: 5, get: 1, head: 0, put: 26, delete: 11 };
    assert_eq!(report.requests, requests);
    assert_eq!(fake.keys().await, [""; 0]);
}

#[tokio::test]
async fn on_a_store_with_pages_and_bulk_deletes_it_costs_what_is_said() {
    let fake = Fake::new(Quirk::None);
    let report = probe(&fake.root()).await.unwrap();
    // Each key of a bulk delete counts, since the client here makes no HTTP requests.
    let requests = RequestCounts { list: 13, get: 1, head: 0, put: 26, delete: 11 };
    assert_eq!(report.requests, requests);
}

#[tokio::test]
async fn what_is_known_of_the_store_already_is_tried_all_the_same() {
    let fake = Fake::new(Quirk::None);
    let nothing = Capabilities { bulk_delete: false, delimiter_index: false, ..GOOD };
    let report = probe(&fake.root().with_capabilities(nothing)).await.unwrap();
    assert_eq!(report.capabilities, GOOD);
}

#[tokio::test]
async fn a_failure_says_nothing_about_the_store_and_leaves_nothing_behind() {
    for (quirk, class, left) in [
        (Quirk::DeniedWrites, ErrorClass::AccessDenied, 0),
        (Quirk::FailingOverwrites, ErrorClass::Other, 0),
        (Quirk::FailingDeletes, ErrorClass::Other, 10),
    ] {
        let fake = Fake::new(quirk.clone());
        let error = probe(&fake.root()).await.unwrap_err();
        assert_eq!(error.class(), Some(class), "{quirk:?}: {error}");
        assert_eq!(fake.keys().await.len(), left, "{quirk:?}");
    }
}

#[tokio::test]
async fn a_folder_that_is_gone_is_not_taken_for_an_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display());
    let root = Root::open(&url, [], &RootSettings::default()).unwrap();
    drop(folder);
    let error = probe(&root).await.unwrap_err();
    assert_eq!(error.class(), Some(ErrorClass::BucketNotFound), "{error}");
}

#[tokio::test]
async fn a_probe_that_is_told_to_stop_removes_its_keys_first() {
    for name in ["_COMMIT", "vnode=1", ""] {
        let cancel = CancellationToken::new();
        let fake = Fake::new(Quirk::Cancels(name, cancel.clone()));
        let error = run(&fake.root(), DEADLINE, &SystemClock, &cancel).await.unwrap_err();
        assert!(matches!(error, ProbeError::Cancelled), "{name}: {error}");
        assert_eq!(error.class(), None);
        assert_eq!(fake.keys().await, [""; 0], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_is_given_up_at_the_deadline_and_left_clean() {
    let fake = Fake::new(Quirk::Hangs);
    let before = tokio::time::Instant::now();
    let deadline = Duration::from_secs(7);
    let error = run(&fake.root(), deadline, &SystemClock, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(before.elapsed(), deadline);
    assert_eq!(error.class(), Some(ErrorClass::Unreachable));
    assert!(error.to_string().contains("within 7s"), "{error}");
    assert_eq!(fake.keys().await, [""; 0]);
}

#[tokio::test]
async fn what_probes_left_an_hour_ago_goes_and_nothing_else() {
    let kept = [
        "_epochwarden/fence/x@600",
        "_epochwarden/probe/another@59",
        "_epochwarden/probes/x@600",
        "epoch=1/x@600",
        "other/_epochwarden/probe/x@600",
    ];
    for quirk in [Quirk::None, Quirk::BulkRefused, Quirk::IgnoresPrefix] {
        let fake = Fake::new(quirk.clone());
        for key in kept.into_iter().chain(["_epochwarden/probe/one@60", "_epochwarden/probe/two/vnode=0@6000"]) {
            fake.inner.put(&Path::parse(key).unwrap(), "x".into()).await.unwrap();
        }
        probe(&fake.root()).await.unwrap();
        assert_eq!(fake.keys().await, kept, "{quirk:?}");
    }
}

#[tokio::test]
async fn two_probes_at_once_leave_each_other_alone() {
    let fake = Fake::new(Quirk::None);
    let root = fake.root();
    let (one, two) = tokio::join!(probe(&root), probe(&root));
    assert_eq!((one.unwrap().problems, two.unwrap().problems), (vec![], vec![]));
    assert_eq!(fake.keys().await, [""; 0]);
}

#[tokio::test]
async fn a_root_below_a_prefix_is_probed_inside_of_it() {
    let fake = Fake::new(Quirk::DeletesNothing);
    probe(&fake.root().with_prefix("a/b").unwrap()).await.unwrap();
    let keys = fake.keys().await;
    assert!(keys.len() == 10 && keys.iter().all(|key| key.starts_with("a/b/_epochwarden/probe/")), "{keys:?}");
}

#[tokio::test]
async fn where_delimiters_do_not_work_none_is_asked_for_any_more() {
    let fake = Fake::new(Quirk::EndlessWithDelimiter);
    for epoch in 1..2500 {
        let seal = Path::from(format!("epoch={epoch}/_COMMIT"));
        fake.inner.put(&seal, "a".into()).await.unwrap();
    }
    let root = fake.root();
    let capabilities = probe(&root).await.unwrap().capabilities;
    fake.delimiters.lock().unwrap().clear();
    assert_eq!(list_epochs(&root.clone().with_capabilities(capabilities)).await.unwrap().len(), 2499);
    assert_eq!(*fake.delimiters.lock().unwrap(), [""; 0]);
    assert_eq!(list_epochs(&root).await.unwrap().len(), 2499, "noticed on the way where nobody probed");
    assert_ne!(*fake.delimiters.lock().unwrap(), [""; 0]);
}

#[tokio::test]
async fn where_bulk_deletes_do_not_work_keys_are_deleted_one_by_one() {
    let fake = Fake::new(Quirk::BulkRefused);
    let root = fake.root();
    assert_eq!(root.bulk_delete_limit(), 1000);
    let report = probe(&root).await.unwrap();
    let root = root.with_capabilities(report.capabilities);
    assert_eq!(root.bulk_delete_limit(), 1);
    for store in [Arc::clone(root.store()), root.prefixed_store()] {
        let keys: Vec<Path> = (0..3).map(|number| Path::from(format!("epoch=1/{number}"))).collect();
        for key in &keys {
            fake.inner.put(key, "x".into()).await.unwrap();
        }
        let all = stream::iter(keys.into_iter().map(Ok)).boxed();
        assert!(store.delete_stream(all).all(|result| std::future::ready(result.is_ok())).await);
        assert_eq!(fake.keys().await, [""; 0]);
    }
}

#[tokio::test]
async fn an_answer_tells_of_a_lock_by_its_headers() {
    for (headers, locked) in [("", false), ("x-amz-object-lock-mode: COMPLIANCE\r\n", true)] {
        let server = Server::start(move |_, _| Some((200, headers, "racer 0".to_owned()))).await;
        let root = server.s3(&RootSettings::default());
        let object = root.store().get(&root.path("epoch=1/_COMMIT").unwrap()).await.unwrap();
        assert_eq!(object.extensions.get::<UnderLock>().is_some(), locked, "{headers}");
    }
}

#[tokio::test]
async fn a_report_shows_what_users_read_in_the_words_of_the_interface() {
    let mut report = probe(&Fake::new(Quirk::CreateOverwrites).root()).await.unwrap();
    report.started_at = Timestamp::UNIX_EPOCH;
    report.finished_at = Timestamp::UNIX_EPOCH;
    let shown = serde_json::to_value(&report).unwrap();
    let expected = serde_json::json!({
        "startedAt": "1970-01-01T00:00:00Z",
        "finishedAt": "1970-01-01T00:00:00Z",
        "capabilities": {
            "conditionalCreate": false,
            "consistentList": true,
            "bulkDelete": true,
            "delimiterIndex": true,
            "versioned": false,
            "objectLock": false,
        },
        "problems": [{
            "kind": "OverwritesOnCreate",
            "unsafe": true,
            "message": "16 of 16 creates of one key that raced were all answered with success, so that two leaders could seal the same epoch",
            "advice": "use a store with conditional writes (If-None-Match), or a newer version of this one",
        }],
        "requests": {"list": 13, "get": 0, "head": 0, "put": 26, "delete": 11},
    });
    assert_eq!(shown, expected);
}
