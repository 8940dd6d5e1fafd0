//! Stores that delete many keys with one request, which can fail as a whole.

use std::fmt;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions,
    PutOptions, PutResult, Result,
};

use super::*;
use crate::root::RootSettings;

/// Passes everything on, but answers deletes of partials as a bulk request does whose bucket is not there: once, for all keys.
#[derive(Debug)]
struct Bulk(Arc<dyn ObjectStore>);

impl fmt::Display for Bulk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bulk")
    }
}

#[async_trait]
impl ObjectStore for Bulk {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.0.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let inner = Arc::clone(&self.0);
        stream::once(async move {
            let locations: Vec<_> = locations.collect().await;
            if locations.iter().flatten().any(|location| location.as_ref().contains("/vnode=")) {
                return stream::iter([Err(not_found("NoSuchBucket"))]).boxed();
            }
            inner.delete_stream(stream::iter(locations).boxed())
        })
        .flatten()
        .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

fn not_found(code: &str) -> Error {
    let answer = format!("Server returned non-2xx status code: 404 Not Found: <Error><Code>{code}</Code></Error>");
    Error::NotFound { path: "x".into(), source: answer.into() }
}

#[tokio::test]
async fn a_request_that_fails_as_a_whole_deletes_none_of_its_keys() {
    let bucket = Bucket::with(1..=3).await;
    let root = Root::from_store(Arc::new(Bulk(Arc::clone(bucket.memory()))));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (rules, identity, cancel) = (&bucket.rules, &bucket.identity, &bucket.cancel);
    let report = run(&root, rules, identity, Approval::Automatic, &Always, &clock, cancel, &|_| ()).await.unwrap();
    assert_eq!(report.outcome, PruneOutcome::PartlyFailed);
    assert_eq!((report.epochs, report.objects, report.failed), (0, 2, 4));
    assert_eq!(report.remainder, Remainder { epochs: 2, objects: 4 });
}

#[tokio::test]
async fn a_request_that_was_sent_is_finished_and_no_other_is_begun() {
    let bucket = Bucket::with([]).await;
    let (root, parts) = (bucket.root(), Parts::default());
    let cancel = parts.cancel.clone();
    bucket.faults.after(Operation::Delete, "*").skip(14).once().run(move || {
        cancel.cancel();
        std::future::ready(())
    });
    let keys = (0..1000).map(|vnode| format!("epoch=1/vnode={vnode}/partial.bin"));
    let run = parts.run(&root);
    let fates: Vec<_> = run.delete_in_groups(keys, 10, true).collect().await;
    assert!((20..=60).contains(&fates.len()) && fates.len().is_multiple_of(10), "{}", fates.len());
}

#[test]
fn only_a_missing_key_is_as_good_as_deleted() {
    let s3 = Root::open(
        "s3://state/orders",
        [("aws_access_key_id", "a"), ("aws_secret_access_key", "b"), ("aws_region", "eu-west-1")]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        &RootSettings::default(),
    )
    .unwrap();
    let other = Root::from_store(Arc::new(InMemory::new()));
    let failed = |code: &str| Error::Generic {
        store: "S3",
        source: format!("DeleteObjects request failed for key (code: NoSuchKey): no (code: {code})").into(),
    };
    let missing = super::super::delete::is_missing;
    assert!(missing(&other, &not_found("NoSuchKey")));
    assert!(!missing(&other, &not_found("NoSuchBucket")));
    assert!(!missing(&s3, &not_found("NoSuchKey")), "S3 says that of no key");
    assert!(missing(&s3, &failed("NoSuchKey")));
    assert!(!missing(&s3, &failed("AccessDenied")));
}
