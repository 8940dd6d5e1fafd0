//! What the stores in memory are asked by the clients that the product uses. The conformance suite asks them all the rest.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::aws::AmazonS3Builder;
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use object_store::path::Path;
use object_store::{
    Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig, StaticCredentialProvider, UpdateVersion,
};

use super::*;

/// A refusal is told at once.
fn once() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn s3(server: &MemoryServer) -> impl ObjectStore {
    let builder = AmazonS3Builder::new().with_bucket_name("b").with_retry(once());
    let options = server.options().into_iter();
    options.fold(builder, |builder, (name, value)| builder.with_config(name.parse().unwrap(), value)).build().unwrap()
}

fn gcs(server: &MemoryServer) -> impl ObjectStore {
    let nobody = StaticCredentialProvider::new(GcpCredential { bearer: String::new() });
    let builder =
        GoogleCloudStorageBuilder::new().with_bucket_name("b").with_credentials(Arc::new(nobody)).with_retry(once());
    let options = server.options().into_iter();
    options.fold(builder, |builder, (name, value)| builder.with_config(name.parse().unwrap(), value)).build().unwrap()
}

/// Beside each other: one of either kind with an empty bucket, and its client.
fn both() -> [(MemoryServer, Arc<dyn ObjectStore>); 2] {
    let (on_s3, on_gcs) = (MemoryServer::s3().unwrap(), MemoryServer::gcs().unwrap());
    on_s3.create_bucket("b").unwrap();
    on_gcs.create_bucket("b").unwrap();
    let clients: [Arc<dyn ObjectStore>; 2] = [Arc::new(s3(&on_s3)), Arc::new(gcs(&on_gcs))];
    let [first, second] = clients;
    [(on_s3, first), (on_gcs, second)]
}

fn payload(text: &'static str) -> PutPayload {
    PutPayload::from_static(text.as_bytes())
}

#[tokio::test]
async fn a_create_meets_what_is_there_and_an_overwrite_does_not() {
    for (_server, client) in both() {
        let key = Path::from("a key/with ü & <b>+c%");
        client.put_opts(&key, payload("one"), PutMode::Create.into()).await.unwrap();
        let refused = client.put_opts(&key, payload("two"), PutMode::Create.into()).await.unwrap_err();
        assert!(matches!(refused, Error::AlreadyExists { .. }), "{refused}");
        assert_eq!(client.get(&key).await.unwrap().bytes().await.unwrap(), "one");
        client.put(&key, payload("three")).await.unwrap();
        let (listed, head) =
            (client.list(None).try_collect::<Vec<_>>().await.unwrap(), client.head(&key).await.unwrap());
        assert_eq!((listed.len(), &listed[0].location, listed[0].size), (1, &key, 5));
        assert_eq!((head.size, &head.e_tag), (5, &listed[0].e_tag));
        assert_eq!(head.last_modified.timestamp(), listed[0].last_modified.timestamp());
    }
}

#[tokio::test]
async fn an_etag_is_the_md5_of_the_body_on_s3_and_says_nothing_on_gcs() {
    let [on_s3, on_gcs] = both();
    // Of these five bytes, as any other tool computes it.
    let md5 = "\"5d41402abc4b2a76b9719d911017c592\"";
    let put = async |client: &dyn ObjectStore| {
        client.put_opts(&Path::from("k"), payload("hello"), PutMode::Overwrite.into()).await.unwrap()
    };
    let on_s3 = put(&*on_s3.1).await;
    assert_eq!((on_s3.e_tag.as_deref(), on_s3.version), (Some(md5), None));
    let (first, second) = (put(&*on_gcs.1).await, put(&*on_gcs.1).await);
    assert_ne!(first.e_tag, second.e_tag, "the same bytes written again");
    assert!(first.version.unwrap().parse::<u64>().unwrap() < second.version.unwrap().parse::<u64>().unwrap());
}

#[tokio::test]
async fn a_generation_that_is_no_more_is_refused_on_gcs() {
    let [_, (_server, client)] = both();
    let key = Path::from("k");
    let first = UpdateVersion::from(client.put(&key, payload("one")).await.unwrap());
    client.put_opts(&key, payload("two"), PutMode::Update(first.clone()).into()).await.unwrap();
    let refused = client.put_opts(&key, payload("three"), PutMode::Update(first).into()).await.unwrap_err();
    assert!(matches!(refused, Error::Precondition { .. }), "{refused}");
}

#[tokio::test]
async fn a_missing_key_is_deleted_on_s3_and_not_found_on_gcs() {
    let [(_s3, on_s3), (_gcs, on_gcs)] = both();
    for (client, finds) in [(on_s3, false), (on_gcs, true)] {
        let (there, missing) = (Path::from("a&b"), Path::from("missing"));
        client.put(&there, payload("x")).await.unwrap();
        let paths = stream::iter([there, missing].map(Ok)).boxed();
        let answers: Vec<_> = client.delete_stream(paths).collect().await;
        let found: Vec<bool> = answers.iter().map(Result::is_ok).collect();
        assert_eq!(found, [true, !finds], "{answers:?}");
        assert_eq!(client.list(None).count().await, 0);
        let error = client.get(&Path::from("a&b")).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
    }
}

#[tokio::test]
async fn what_it_does_not_know_it_refuses() {
    for (_server, client) in both() {
        client.put(&Path::from("k"), payload("hello")).await.unwrap();
        assert!(client.get_range(&Path::from("k"), 1..3).await.is_err());
        assert!(client.copy(&Path::from("k"), &Path::from("l")).await.is_err());
        assert_eq!(client.list(None).count().await, 1);
    }
}

#[tokio::test]
async fn latency_is_what_was_asked_for_and_requests_are_counted() {
    let [(server, client), _] = both();
    client.put(&Path::from("k"), payload("x")).await.unwrap();
    let latency = Duration::from_millis(300);
    server.set_latency(latency);
    #[allow(clippy::disallowed_methods, reason = "real time is what is measured")]
    let started = Instant::now();
    client.head(&Path::from("k")).await.unwrap();
    assert!(started.elapsed() >= latency);
    assert_eq!(server.requests(), 2);
}
