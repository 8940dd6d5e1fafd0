//! The audit against stores in memory and on disk: what it asks for, and what it makes of what changes meanwhile.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use epochwarden_core::ShownEpoch;
use epochwarden_core::finding::{FindingKind, Severity, Verdict};
use epochwarden_core::retention::Retention;
use epochwarden_testkit::fault::{self, FaultStore};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use super::*;
use crate::root::RootSettings;

const FENCE: &str = "_epochwarden/fence/00000000000000000001";

#[derive(Debug)]
struct At(Timestamp);

impl Clock for At {
    fn now(&self) -> Timestamp {
        self.0
    }
}

fn rules() -> AuditRules {
    AuditRules {
        plan: Rules { vnodes: 2, retention: Retention::default(), min_age: Duration::ZERO },
        stalled_after: Duration::from_mins(30),
        deadline: None,
    }
}

/// The wall clock as it was long ago: nothing has stalled yet.
const fn long_ago() -> At {
    At(Timestamp::UNIX_EPOCH)
}

async fn audit_by(root: &Root, rules: &AuditRules) -> Result<AuditReport, AuditError> {
    run(root, rules, &long_ago(), &CancellationToken::new(), &|_| ()).await
}

async fn audit_of(store: &Arc<dyn ObjectStore>) -> AuditReport {
    let before = everything(store).await;
    let report = audit_by(&Root::from_store(Arc::clone(store)), &rules()).await.unwrap();
    assert_eq!((report.requests.put, report.requests.delete), (0, 0));
    assert_eq!(everything(store).await, before, "an audit only reads");
    report
}

async fn everything(store: &Arc<dyn ObjectStore>) -> Vec<(Path, Option<String>)> {
    let mut all: Vec<_> =
        store.list(None).map_ok(|object| (object.location, object.e_tag)).try_collect().await.unwrap();
    all.sort();
    all
}

async fn put(store: &Arc<dyn ObjectStore>, key: &str, body: impl Into<PutPayload>) {
    store.put(&Path::from(key), body.into()).await.unwrap();
}

async fn remove(store: &Arc<dyn ObjectStore>, key: &str) {
    store.delete(&Path::from(key)).await.unwrap();
}

fn fence_record(holder: &str) -> String {
    format!(
        r#"{{"version":1,"holder":"{holder}","lease":null,"publisher":"test","publishedAt":"1970-01-01T00:00:00Z"}}"#
    )
}

async fn sealed(store: &Arc<dyn ObjectStore>, epoch: u64, vnodes: u32, committer: &'static str) {
    for vnode in 0..vnodes {
        put(store, &format!("epoch={epoch}/vnode={vnode}/partial.bin"), "state").await;
    }
    put(store, &format!("epoch={epoch}/_COMMIT"), committer).await;
}

/// A fence held by `leader-1`, and three whole epochs that it sealed.
async fn sound(store: &Arc<dyn ObjectStore>) {
    put(store, FENCE, fence_record("leader-1")).await;
    for epoch in [9, 10, 4_000_000_000] {
        sealed(store, epoch, 2, "leader-1").await;
    }
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn kinds(report: &AuditReport) -> Vec<(FindingKind, Option<u64>)> {
    report.audit.findings.iter().map(|finding| (finding.kind, finding.epoch.map(ShownEpoch::get))).collect()
}

/// Lists `ETag`s as S3 does: the MD5 of the body.
#[derive(Debug)]
struct Md5Etags(Arc<dyn ObjectStore>);

impl std::fmt::Display for Md5Etags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Md5Etags({})", self.0)
    }
}

/// Taken from `md5sum`.
fn md5(body: &[u8]) -> Option<&'static str> {
    match body {
        b"leader-1" => Some("\"c954b6338c3d683992b3ec2aa0ce7a81\""),
        b"leader-2" => Some("\"45d0ec7fec7b182afa8fa0342a94168b\""),
        _ => None,
    }
}

#[async_trait]
impl ObjectStore for Md5Etags {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> object_store::Result<PutResult> {
        self.0.put_opts(path, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(path, opts).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.0.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.0.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let inner = Arc::clone(&self.0);
        self.0
            .list(prefix)
            .and_then(move |object| {
                let inner = Arc::clone(&inner);
                async move {
                    let body = inner.get(&object.location).await?.bytes().await?;
                    Ok(ObjectMeta { e_tag: md5(&body).map(str::to_owned), ..object })
                }
            })
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn a_sound_root_is_clean_in_memory_and_on_disk_and_below_a_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let local = Root::open(&format!("file://{}", folder.path().display()), [], &RootSettings::default()).unwrap();
    let below: Arc<dyn ObjectStore> = Arc::new(object_store::prefix::PrefixStore::new(memory(), "streams/orders"));
    for store in [memory(), Arc::clone(local.store()), below] {
        sound(&store).await;
        let report = audit_of(&store).await;
        assert_eq!((report.audit.verdict, kinds(&report)), (Verdict::Clean, vec![]), "{store}");
        assert_eq!(report.audit.coverage.to_string(), "3 epochs, 9 objects, 3 markers read");
        assert_eq!(report.audit.latest_committer.as_deref(), Some("leader-1"));
        assert_eq!(report.epochs.latest_committed.map(ShownEpoch::get), Some(4_000_000_000));
        remove(&store, "epoch=10/vnode=1/partial.bin").await;
        let report = audit_of(&store).await;
        assert_eq!(kinds(&report), [(FindingKind::SealedIncomplete, Some(10))], "{store}");
        assert_eq!(report.audit.verdict, Verdict::Critical);
    }
}

#[tokio::test]
async fn known_committers_cost_no_request() {
    let store: Arc<dyn ObjectStore> = Arc::new(Md5Etags(memory()));
    sound(&store).await;
    let requests = audit_of(&store).await.requests;
    // The root, the registers; the one fence record.
    assert_eq!(requests, RequestCounts { list: 2, get: 1, ..RequestCounts::default() });
}

#[tokio::test]
async fn an_unknown_committer_is_fetched_once_however_many_epochs_it_sealed() {
    let store: Arc<dyn ObjectStore> = Arc::new(Md5Etags(memory()));
    sound(&store).await;
    for epoch in 20..60 {
        sealed(&store, epoch, 2, "leader-2").await;
    }
    let report = audit_of(&store).await;
    assert_eq!((report.requests.get, report.audit.coverage.markers_read), (2, 1));
    assert_eq!(report.audit.counts[&FindingKind::UnknownCommitter], 40);
    assert_eq!(report.audit.verdict, Verdict::Warning);
}

#[tokio::test]
async fn where_etags_say_nothing_each_seal_is_fetched_once_and_at_most_sixteen_at_a_time() {
    let faults = FaultStore::new(memory());
    let store: Arc<dyn ObjectStore> = Arc::new(faults.clone());
    put(&store, FENCE, fence_record("leader-1")).await;
    for epoch in 0..100 {
        sealed(&store, epoch, 2, "leader-1").await;
    }
    let gauge = Arc::new(Mutex::new((0_usize, 0_usize)));
    let (up, down) = (Arc::clone(&gauge), Arc::clone(&gauge));
    faults.before(fault::Operation::Get, "epoch=*/_COMMIT").run(move || {
        let up = Arc::clone(&up);
        async move {
            {
                let mut gauge = up.lock().unwrap();
                gauge.0 += 1;
                gauge.1 = gauge.1.max(gauge.0);
            }
            tokio::task::yield_now().await;
        }
    });
    faults.after(fault::Operation::Get, "epoch=*/_COMMIT").run(move || {
        down.lock().unwrap().0 -= 1;
        std::future::ready(())
    });
    let report = audit_of(&store).await;
    assert_eq!((report.requests.get, report.audit.coverage.markers_read), (101, 100));
    assert_eq!((report.audit.verdict, gauge.lock().unwrap().1), (Verdict::Clean, CONCURRENCY));
}

#[tokio::test]
async fn what_looks_critical_is_listed_again_before_it_is_reported() {
    let store = memory();
    sound(&store).await;
    remove(&store, "epoch=9/vnode=0/partial.bin").await;
    let report = audit_of(&store).await;
    let [finding] = &report.audit.findings[..] else { panic!("{report:?}") };
    assert_eq!((finding.kind, finding.severity), (FindingKind::SealedIncomplete, Severity::Critical));
    assert_eq!((finding.epoch.unwrap().get(), finding.vnode.unwrap().get()), (9, 0));
    assert_eq!(report.audit.coverage.looked_again, 1);
    // The root, the registers, the epoch, the registers again; the record, three seals; the seal once more.
    assert_eq!(report.requests, RequestCounts { list: 4, get: 4, head: 1, ..RequestCounts::default() });
}

/// Runs an audit of a root whose epoch 9 lacks a partial at first; `change` slips in when `operation` on `pattern` has had its effect.
async fn audit_while<F>(
    operation: fault::Operation,
    pattern: &str,
    change: impl Fn(Arc<dyn ObjectStore>) -> F + Send + Sync + 'static,
) -> AuditReport
where
    F: Future<Output = ()> + Send + 'static,
{
    let faults = FaultStore::new(memory());
    let below = Arc::clone(faults.inner());
    sound(&below).await;
    remove(&below, "epoch=9/vnode=0/partial.bin").await;
    faults.after(operation, pattern).once().run(move || change(Arc::clone(&below)));
    let root = Root::from_store(Arc::new(faults.clone()));
    let report = audit_by(&root, &rules()).await.unwrap();
    assert_eq!(faults.pending(), 0, "the change slipped in");
    report
}

async fn prune_nine(store: Arc<dyn ObjectStore>) {
    remove(&store, "epoch=9/_COMMIT").await;
    remove(&store, "epoch=9/vnode=1/partial.bin").await;
}

#[tokio::test]
async fn a_prune_or_a_late_page_between_the_looks_leaves_no_finding() {
    for report in [
        audit_while(fault::Operation::List, "", prune_nine).await,
        audit_while(fault::Operation::Get, "epoch=9/_COMMIT", prune_nine).await,
        audit_while(fault::Operation::List, "_epochwarden", |store| async move {
            put(&store, "epoch=9/vnode=0/partial.bin", "state").await;
        })
        .await,
        // Between the pages of the second look itself: the seal goes before what is missing then.
        audit_while(fault::Operation::List, "epoch=9", prune_nine).await,
    ] {
        assert_eq!((report.audit.verdict, kinds(&report)), (Verdict::Clean, vec![]));
        assert_eq!(report.audit.coverage.looked_again, 1);
    }
}

#[tokio::test]
async fn a_seal_that_is_pruned_before_it_is_fetched_is_no_finding() {
    let report = audit_while(fault::Operation::List, "_epochwarden", prune_nine).await;
    assert_eq!((report.audit.verdict, report.audit.coverage.markers_read), (Verdict::Clean, 2));
}

#[tokio::test]
async fn another_seal_than_the_listed_one_is_not_judged() {
    let report = audit_while(fault::Operation::List, "", |store| async move {
        put(&store, "epoch=10/_COMMIT", "an intruder that sealed it meanwhile").await;
        put(&store, "epoch=9/vnode=0/partial.bin", "state").await;
    })
    .await;
    assert_eq!((report.audit.verdict, report.audit.coverage.markers_read), (Verdict::Clean, 2));
}

#[tokio::test]
async fn an_incomplete_epoch_is_excused_only_by_a_floor_that_stood_before_its_seal() {
    const FLOOR: &str = "_epochwarden/floor/00000000000000000006";
    let body =
        r#"{"before":"6","policy":null,"planDigest":null,"publisher":"test","publishedAt":"1970-01-01T00:00:00Z"}"#;
    for (floor_first, verdict) in [(true, Verdict::Clean), (false, Verdict::Critical)] {
        let store = memory();
        sound(&store).await;
        if floor_first {
            put(&store, FLOOR, body).await;
            sealed(&store, 5, 1, "leader-1").await;
        } else {
            sealed(&store, 5, 1, "leader-1").await;
            put(&store, FLOOR, body).await;
        }
        // That epoch 5 was sealed after higher ones is a warning either way.
        let report = audit_of(&store).await;
        let critical = report.audit.findings.iter().any(|finding| finding.severity == Severity::Critical);
        assert_eq!(critical, verdict == Verdict::Critical, "{:?}", report.audit.findings);
        assert_eq!(report.audit.counts.contains_key(&FindingKind::SealedIncomplete), critical);
    }
}

#[tokio::test]
async fn the_floor_is_read_after_the_epoch_whose_seal_it_may_excuse() {
    let faults = FaultStore::new(memory());
    let below = Arc::clone(faults.inner());
    sound(&below).await;
    remove(&below, "epoch=9/vnode=0/partial.bin").await;
    faults.before(fault::Operation::List, "epoch=9").once().run(move || {
        let store = Arc::clone(&below);
        async move {
            let floor = r#"{"before":"10","policy":null,"planDigest":null,"publisher":"p","publishedAt":"1970-01-01T00:00:00Z"}"#;
            put(&store, "_epochwarden/floor/00000000000000000010", floor).await;
            remove(&store, "epoch=9/_COMMIT").await;
            put(&store, "epoch=9/_COMMIT", "leader-1").await;
        }
    });
    let report = audit_by(&Root::from_store(Arc::new(faults.clone())), &rules()).await.unwrap();
    assert_eq!((report.audit.verdict, faults.pending()), (Verdict::Clean, 0), "{:?}", report.audit.findings);
}

#[tokio::test]
async fn seals_that_name_nobody_are_found_and_not_fetched_where_their_size_says_so() {
    let store = memory();
    sound(&store).await;
    put(&store, "epoch=9/_COMMIT", "").await;
    put(&store, "epoch=10/_COMMIT", vec![b'a'; 1025]).await;
    put(&store, "epoch=4000000000/_COMMIT", vec![0xff]).await;
    let report = audit_of(&store).await;
    let malformed = |epoch| (FindingKind::MalformedMarker, Some(epoch));
    let expected = [malformed(4_000_000_000), malformed(10), malformed(9)];
    let critical: Vec<_> =
        kinds(&report).into_iter().filter(|(kind, _)| *kind == FindingKind::MalformedMarker).collect();
    assert_eq!(critical, expected);
    assert_eq!((report.audit.coverage.markers_read, report.requests.get), (1, 2));
    assert_eq!(report.audit.latest_committer, None);
}

#[tokio::test]
async fn records_that_do_not_parse_are_named_and_excuse_strangers() {
    let store = memory();
    sound(&store).await;
    sealed(&store, 5_000_000_000, 2, "stranger").await;
    assert_eq!(kinds(&audit_of(&store).await), [(FindingKind::UnknownCommitter, Some(5_000_000_000))]);

    put(&store, "_epochwarden/floor/00000000000000000003", "{").await;
    put(&store, "_epochwarden/owner/00000000000000000001", "").await;
    let report = audit_of(&store).await;
    assert_eq!(report.audit.counts[&FindingKind::UnreadableRegister], 2);
    assert_eq!(report.audit.counts[&FindingKind::UnknownCommitter], 1);
    assert_eq!(report.audit.coverage.records_read, 3);

    let store = memory();
    put(&store, FENCE, "not JSON").await;
    sealed(&store, 9, 2, "stranger").await;
    assert_eq!(kinds(&audit_of(&store).await), [(FindingKind::UnreadableRegister, None)]);
}

#[tokio::test]
async fn no_more_records_are_read_than_their_publishers_keep() {
    let store = memory();
    for version in 1..=300 {
        put(&store, &format!("_epochwarden/fence/{version:020}"), fence_record("leader-1")).await;
    }
    let report = audit_of(&store).await;
    assert_eq!((report.requests.get, report.audit.coverage.records_read), (256, 256));
}

#[tokio::test]
async fn a_newer_layout_is_refused_by_its_key() {
    for key in ["state-v2/epoch=1/_COMMIT", "epoch=9/_SEAL"] {
        let store = memory();
        sound(&store).await;
        put(&store, key, "x").await;
        let error = audit_by(&Root::from_store(store), &rules()).await.unwrap_err();
        assert_eq!(error.class(), Some(ErrorClass::UnknownLayout));
        assert!(error.to_string().contains(key), "{error}");
    }
}

#[tokio::test]
async fn a_key_that_no_request_can_name_holds_the_audit() {
    let faults = FaultStore::new(memory());
    faults.before(fault::Operation::List, "").fail_with(|_| object_store::Error::InvalidPath {
        source: object_store::path::Error::EmptySegment { path: "epoch=5//partial.bin".into() },
    });
    let error = audit_by(&Root::from_store(Arc::new(faults)), &rules()).await.unwrap_err();
    assert_eq!(error.class(), Some(ErrorClass::UnaddressableKey));
    assert!(error.to_string().contains("epoch=5//partial.bin"), "{error}");
}

#[tokio::test]
async fn a_request_that_fails_fails_the_audit_whichever_it_is() {
    for (operation, pattern) in [
        (fault::Operation::List, ""),
        (fault::Operation::List, "_epochwarden"),
        (fault::Operation::Get, FENCE),
        (fault::Operation::Get, "epoch=10/_COMMIT"),
        (fault::Operation::List, "epoch=9"),
        (fault::Operation::Head, "epoch=9/_COMMIT"),
    ] {
        let faults = FaultStore::new(memory());
        sound(faults.inner()).await;
        remove(faults.inner(), "epoch=9/vnode=0/partial.bin").await;
        faults.before(operation, pattern).once().fail();
        let error = audit_by(&Root::from_store(Arc::new(faults)), &rules()).await.unwrap_err();
        assert!(matches!(&error, AuditError::Store(StoreError::Request { .. })), "{operation:?} {pattern}: {error}");
    }
}

#[tokio::test]
async fn a_cancelled_audit_sends_no_further_request() {
    let faults = FaultStore::new(memory());
    sound(faults.inner()).await;
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    faults.after(fault::Operation::List, "_epochwarden").run(move || {
        stop.cancel();
        tokio::task::yield_now()
    });
    let root = Root::from_store(Arc::new(faults));
    let error = run(&root, &rules(), &long_ago(), &cancel, &|_| ()).await.unwrap_err();
    assert!(matches!(error, AuditError::Cancelled), "{error}");
    let before = root.requests();
    assert_eq!((before.list, before.get), (2, 0));
    let error = run(&root, &rules(), &long_ago(), &cancel, &|_| ()).await.unwrap_err();
    assert!(matches!(error, AuditError::Cancelled), "{error}");
    assert_eq!(root.requests(), before);
}

#[tokio::test(start_paused = true)]
async fn an_audit_ends_at_its_deadline() {
    let faults = FaultStore::new(memory());
    sound(faults.inner()).await;
    faults.before(fault::Operation::Get, "epoch=10/_COMMIT").delay(Duration::from_hours(1));
    let root = Root::from_store(Arc::new(faults));
    let deadline = Duration::from_mins(30);
    let error = audit_by(&root, &AuditRules { deadline: Some(deadline), ..rules() }).await.unwrap_err();
    assert!(matches!(error, AuditError::DeadlineExceeded { .. }), "{error}");
    assert!(error.to_string().contains("30m"), "{error}");
    audit_by(&root, &AuditRules { deadline: Some(Duration::from_hours(2)), ..rules() }).await.unwrap();
}

#[tokio::test]
async fn stalled_sealing_is_measured_by_the_wall_clock() {
    let store = memory();
    sound(&store).await;
    put(&store, "epoch=5000000000/vnode=0/partial.bin", "state").await;
    let later = At(Timestamp::from_second(7_258_118_400).unwrap());
    let root = Root::from_store(store);
    let report = run(&root, &rules(), &later, &CancellationToken::new(), &|_| ()).await.unwrap();
    assert_eq!(kinds(&report), [(FindingKind::StalledSealing, Some(5_000_000_000))]);
    assert_eq!((report.started_at, report.finished_at, report.epochs.observed_at), (later.0, later.0, later.0));
}

#[tokio::test]
async fn progress_is_told_step_by_step_and_a_run_can_be_a_task_of_its_own() {
    let store = memory();
    sound(&store).await;
    remove(&store, "epoch=9/vnode=0/partial.bin").await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let task = tokio::spawn(async move {
        let progress = move |step| tell.lock().unwrap().push(step);
        run(&Root::from_store(store), &rules(), &long_ago(), &CancellationToken::new(), &progress).await
    });
    task.await.unwrap().unwrap();
    assert_eq!(
        *told.lock().unwrap(),
        [
            AuditProgress::Listing { objects: 9 },
            AuditProgress::Markers { read: 1 },
            AuditProgress::Markers { read: 2 },
            AuditProgress::Markers { read: 3 },
            AuditProgress::SecondLook { epochs: 1 },
        ]
    );
}

#[tokio::test]
async fn the_report_has_a_stable_form() {
    let store = memory();
    sound(&store).await;
    remove(&store, "epoch=9/vnode=0/partial.bin").await;
    let json = serde_json::to_value(audit_of(&store).await).unwrap();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        keys(&json),
        [
            "counts",
            "coverage",
            "epochs",
            "findings",
            "finishedAt",
            "latestCommitter",
            "requests",
            "startedAt",
            "truncated",
            "verdict"
        ]
    );
    assert_eq!(keys(&json["requests"]), ["delete", "get", "head", "list", "put"]);
    assert_eq!(keys(&json["findings"][0]), ["detail", "epoch", "kind", "severity", "vnode"]);
    assert_eq!(
        keys(&json["coverage"]),
        ["epochs", "lookedAgain", "markersRead", "objects", "recordsRead", "sealed", "unconfirmed"]
    );
    assert_eq!(json["epochs"]["latestCommitted"], "4000000000");
}
