//! Keys in groups, as they are deleted: how many there are at once, and what the answers mean.

use std::sync::atomic::{AtomicU64, Ordering};

use epochwarden_testkit::fault::Operation;
use futures::StreamExt;
use object_store::Error;
use object_store::memory::InMemory;

use super::super::delete::is_missing;
use super::*;
use crate::root::RootSettings;

/// What a [`Run`] needs that only deletes.
pub(super) struct Parts {
    bench: Bench,
    clock: Arc<dyn Clock>,
}

impl Parts {
    fn new() -> Self {
        Self::of(Bench::without_fence())
    }

    pub(super) fn of(bench: Bench) -> Self {
        Self { bench, clock: Arc::new(LongAgo) }
    }

    pub(super) fn run<'a>(&'a self, root: &'a Root) -> Run<'a> {
        let Bench { rules, identity, cancel, .. } = &self.bench;
        Run {
            root,
            rules,
            identity,
            permission: &Always,
            clock: &self.clock,
            progress: &|_| (),
            registers: Registers::new(root.clone(), "test"),
            subject: Subject { root: String::new(), policy_uid: String::new() },
            until: Until::new(cancel, rules.deadline),
            pace: Arc::new(Pace::new(rules.max_keys_per_second, root)),
        }
    }
}

pub(super) fn partials(count: u64) -> impl Iterator<Item = String> + Send {
    (0..count).map(|vnode| format!("epoch=1/vnode={vnode}/partial.bin"))
}

#[tokio::test]
async fn keys_are_made_as_they_are_deleted_and_never_held_all() {
    let root = Root::from_store(Arc::new(InMemory::new()));
    let parts = Parts::new();
    let run = parts.run(&root);
    let made = AtomicU64::new(0);
    let keys = partials(100_000).inspect(|_| {
        made.fetch_add(1, Ordering::Relaxed);
    });
    let mut fates = run.delete(keys);
    let (mut gone, mut most) = (0, 0);
    while let Some((_, result)) = fates.next().await {
        result.unwrap();
        gone += 1;
        most = most.max(made.load(Ordering::Relaxed) - gone);
    }
    assert_eq!(gone, 100_000);
    assert!(most <= 1000, "{most} keys at once");
}

#[tokio::test]
async fn a_bulk_request_that_was_begun_is_finished_and_no_other_is_begun() {
    let parts = Parts::new();
    let (root, cancel) = (parts.bench.root(), parts.bench.cancel.clone());
    parts.bench.faults.after(Operation::Delete, "*").skip(14).once().run(move || {
        cancel.cancel();
        std::future::ready(())
    });
    let run = parts.run(&root);
    let fates: Vec<_> = run.delete_in_groups(partials(1000), 10, true).collect().await;
    assert!((20..=60).contains(&fates.len()) && fates.len().is_multiple_of(10), "{}", fates.len());
}

#[tokio::test]
async fn keys_of_a_folder_that_is_gone_are_not_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display());
    let root = Root::open(&url, [], &RootSettings::default()).unwrap();
    let parts = Parts::new();
    let run = parts.run(&root);
    let (_, missing) = run.delete(partials(1)).next().await.unwrap();
    assert!(missing.is_ok(), "it never was there: {missing:?}");
    folder.close().unwrap();
    let (_, nothing) = run.delete(partials(1)).next().await.unwrap();
    assert!(nothing.is_err(), "nothing is there");
}

#[test]
fn a_missing_key_is_told_from_a_missing_bucket() {
    let credentials = [("aws_access_key_id", "a"), ("aws_secret_access_key", "b"), ("aws_region", "eu-west-1")];
    let credentials = credentials.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let s3 = Root::open("s3://state/orders", credentials, &RootSettings::default()).unwrap();
    let other = Root::from_store(Arc::new(InMemory::new()));
    let answered = |code: &str| {
        let answer = format!("Server returned non-2xx status code: 404 Not Found: <Error><Code>{code}</Code></Error>");
        Error::NotFound { path: "x".into(), source: answer.into() }
    };
    let named = |code: &str| Error::Generic {
        store: "S3",
        source: format!("DeleteObjects request failed for key (code: NoSuchKey): no (code: {code})").into(),
    };
    for by_key in [true, false] {
        assert!(is_missing(&other, &answered("NoSuchKey"), by_key));
        assert!(!is_missing(&other, &answered("NoSuchBucket"), by_key));
        assert!(!is_missing(&s3, &answered("NoSuchBucket"), by_key));
        assert!(is_missing(&s3, &named("NoSuchKey"), by_key), "a gateway may");
        assert!(!is_missing(&s3, &named("AccessDenied"), by_key));
    }
    assert!(is_missing(&s3, &answered("NoSuchKey"), true), "a gateway may");
    assert!(!is_missing(&s3, &answered("NoSuchKey"), false), "of a request for many keys it names none");
}
