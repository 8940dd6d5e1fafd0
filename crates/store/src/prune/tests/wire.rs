//! What stores answer to deletes, as their clients understand it.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::http::answers::{Server, error_body, open, page};
use crate::root::{Capabilities, RootSettings};

/// What is under `orders/` before the prune: epochs 1 and 2 may go, the fence stands.
const KEYS: [&str; 10] = [
    "orders/_epochwarden/fence/00000000000000000001",
    "orders/epoch=1/_COMMIT",
    "orders/epoch=1/vnode=0/partial.bin",
    "orders/epoch=1/vnode=1/partial.bin",
    "orders/epoch=2/_COMMIT",
    "orders/epoch=2/vnode=0/partial.bin",
    "orders/epoch=2/vnode=1/partial.bin",
    "orders/epoch=3/_COMMIT",
    "orders/epoch=3/vnode=0/partial.bin",
    "orders/epoch=3/vnode=1/partial.bin",
];
const FLOOR: &str = "orders/_epochwarden/floor/00000000000000000003";

/// A bucket with these keys, that answers to deletes as it is told: the request line, and how many deletes came before.
async fn bucket(delete: impl Fn(&str, usize) -> (u16, String) + Send + Sync + 'static) -> Server {
    let floor_stands = AtomicBool::new(false);
    let deletes = std::sync::atomic::AtomicUsize::new(0);
    Server::start(move |line, _| {
        let answer = if line.starts_with("PUT ") {
            floor_stands.store(true, Ordering::SeqCst);
            (200, String::new())
        } else if line.starts_with("GET ") {
            let registers = line.contains("_epochwarden");
            let floor = floor_stands.load(Ordering::SeqCst).then_some(FLOOR);
            let keys: Vec<_> = if registers { KEYS[..1].iter() } else { KEYS.iter() }.copied().chain(floor).collect();
            (200, page(&keys, None))
        } else {
            delete(line, deletes.fetch_add(1, Ordering::SeqCst))
        };
        Some((answer.0, "", answer.1))
    })
    .await
}

fn settings() -> RootSettings {
    RootSettings { max_retries: Some(0), ..RootSettings::default() }
}

fn gcs(server: &Server) -> Root {
    let options = [("google_base_url", server.url.as_str()), ("google_skip_signature", "true"), ("allow_http", "true")];
    open("gs://state/orders", &options, &settings())
}

/// S3 by a gateway that takes no bulk deletes.
fn single(server: &Server) -> Root {
    server.s3(&settings()).with_capabilities(Capabilities { bulk_delete: false, ..Capabilities::GOOD })
}

async fn prune(root: &Root) -> PruneReport {
    let Bench { rules, identity, cancel, .. } = Bench::without_fence();
    let clock: Arc<dyn Clock> = Arc::new(LongAgo);
    run(root, &rules, &identity, Approval::Automatic, &Always, &clock, &cancel, &|_| ()).await.unwrap()
}

fn deletes(server: &Server) -> usize {
    server.requests().iter().filter(|line| line.starts_with("POST ") || line.starts_with("DELETE ")).count()
}

fn deleted(errors: &[(&str, &str)]) -> String {
    let errors = errors
        .iter()
        .map(|(key, code)| format!("<Error><Key>{key}</Key><Code>{code}</Code><Message>no</Message></Error>"));
    // The client asks for at least one element, whichever.
    format!("<DeleteResult><Deleted><Key>orders/epoch=1</Key></Deleted>{}</DeleteResult>", errors.collect::<String>())
}

#[tokio::test]
async fn s3_deletes_the_seals_with_one_request_and_the_rest_with_another() {
    let server = bucket(|_, _| (200, deleted(&[]))).await;
    let report = prune(&server.s3(&settings())).await;
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::Succeeded, ((2, 6), (0, 0))));
    assert_eq!((deletes(&server), report.requests.delete), (2, 2));
}

#[tokio::test]
async fn a_key_that_s3_names_in_a_successful_answer_was_not_deleted() {
    let server = bucket(|_, number| {
        let refused = [("orders/epoch=1/_COMMIT", "AccessDenied")];
        (200, deleted(if number == 0 { &refused } else { &[] }))
    })
    .await;
    let report = prune(&server.s3(&settings())).await;
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::PartlyFailed, ((1, 3), (1, 3))));
    assert_eq!((report.failed, report.errors[0].key.as_str()), (1, "epoch=1/_COMMIT"));
    assert!(report.errors[0].error.contains("AccessDenied"), "{:?}", report.errors);
}

#[tokio::test]
async fn a_bulk_request_that_fails_fails_all_of_its_keys() {
    for (status, code) in [(404, "NoSuchBucket"), (404, "NoSuchKey"), (403, "AccessDenied"), (503, "SlowDown")] {
        // The first request: the seals. Then the second.
        for failing in [0, 1] {
            let server = bucket(
                move |_, number| {
                    if number == failing { (status, error_body(code, "no")) } else { (200, deleted(&[])) }
                },
            )
            .await;
            let report = prune(&server.s3(&settings())).await;
            let expected = if failing == 0 { ((0, 0), (2, 6)) } else { ((0, 2), (2, 4)) };
            assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::PartlyFailed, expected), "{code}");
            assert_eq!(report.failed, if failing == 0 { 2 } else { 4 }, "{code}");
            assert_eq!(report.errors.len() as u64, report.failed);
            assert!(report.errors.iter().all(|failure| failure.error.contains(code)), "{:?}", report.errors);
            assert_eq!(deletes(&server), failing + 1, "{code}");
        }
    }
}

#[tokio::test]
async fn a_bulk_request_for_one_key_that_finds_no_bucket_is_a_failure_too() {
    let server = bucket(|_, _| (404, error_body("NoSuchBucket", "no"))).await;
    let root = server.s3(&settings());
    let mut bench = Bench::without_fence();
    bench.rules.max_objects = 1;
    let Bench { rules, identity, cancel, .. } = bench;
    let clock: Arc<dyn Clock> = Arc::new(LongAgo);
    let report = run(&root, &rules, &identity, Approval::Automatic, &Always, &clock, &cancel, &|_| ()).await.unwrap();
    assert_eq!((report.failed, account(&report).0), (1, (0, 0)), "{report:?}");
}

#[tokio::test]
async fn a_missing_key_is_success_where_keys_are_deleted_one_by_one_and_a_missing_bucket_is_not() {
    let server = bucket(|_, _| (404, error_body("NoSuchKey", "no"))).await;
    let report = prune(&gcs(&server)).await;
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::Succeeded, ((2, 6), (0, 0))), "{report:?}");
    assert_eq!((deletes(&server), report.requests.delete), (6, 6));

    // Gateways that take no bulk deletes answer so, and the second of two prunes at once meets it.
    let server = bucket(|_, _| (404, error_body("NoSuchKey", "no"))).await;
    let report = prune(&single(&server)).await;
    assert_eq!((report.outcome.clone(), account(&report)), (PruneOutcome::Succeeded, ((2, 6), (0, 0))), "{report:?}");
    assert_eq!((deletes(&server), report.requests.delete), (6, 6));

    for body in [error_body("NoSuchBucket", "no"), String::new()] {
        let server = bucket(move |_, _| (404, body.clone())).await;
        let report = prune(&single(&server)).await;
        assert_eq!((report.failed, account(&report)), (2, ((0, 0), (2, 6))), "{report:?}");
    }

    let server = bucket(|_, _| (404, error_body("NoSuchBucket", "no"))).await;
    let report = prune(&gcs(&server)).await;
    assert_eq!(
        (report.outcome.clone(), account(&report)),
        (PruneOutcome::PartlyFailed, ((0, 0), (2, 6))),
        "{report:?}"
    );
    assert_eq!((deletes(&server), report.failed), (2, 2), "the seals, and nothing after them");
}

#[tokio::test]
async fn a_missing_key_in_an_answer_of_azure_is_success_and_a_refused_one_is_not() {
    let part = |id: usize, status: u16| {
        format!(
            "--batch\r\nContent-Type: application/http\r\nContent-ID: {id}\r\n\r\nHTTP/1.1 {status} Said\r\nx-ms-version: 2\r\n\r\n\r\n"
        )
    };
    let floor_stands = AtomicBool::new(false);
    let server = Server::start(move |line, _| {
        if line.starts_with("PUT ") {
            floor_stands.store(true, Ordering::SeqCst);
            return Some((201, "", String::new()));
        }
        if line.starts_with("GET ") {
            let registers = line.contains("_epochwarden");
            let floor = floor_stands.load(Ordering::SeqCst).then_some(FLOOR);
            let keys = if registers { KEYS[..1].iter() } else { KEYS.iter() }.copied().chain(floor);
            let blob = |key: &str| {
                format!(
                    "<Blob><Name>{key}</Name><Properties><Last-Modified>Wed, 21 Oct 2026 07:28:00 GMT</Last-Modified>\
                     <Content-Length>3</Content-Length><Content-Type>x</Content-Type><Etag>e</Etag></Properties></Blob>"
                )
            };
            let body = format!(
                "<?xml version=\"1.0\"?><EnumerationResults><Blobs>{}</Blobs><NextMarker/></EnumerationResults>",
                keys.map(blob).collect::<String>()
            );
            return Some((200, "content-type: application/xml\r\n", body));
        }
        // Of the seals, the first is missing and the second refused; the rest goes.
        let parts = [part(0, 404), part(1, 403)].concat();
        Some((202, "content-type: multipart/mixed; boundary=batch\r\n", format!("{parts}--batch--\r\n")))
    })
    .await;
    let options = [
        ("azure_storage_account_name", "acct"),
        ("azure_storage_endpoint", server.url.as_str()),
        ("azure_storage_account_key", "c2VjcmV0"),
        ("allow_http", "true"),
    ];
    let root = open("az://state/orders", &options, &settings());
    let report = prune(&root).await;
    // Epoch 1's partials are asked for next: the first is missing, the second refused.
    assert_eq!(
        (report.outcome.clone(), account(&report)),
        (PruneOutcome::PartlyFailed, ((0, 2), (2, 4))),
        "{report:?}"
    );
    let failed: Vec<_> = report.errors.iter().map(|failure| failure.key.as_str()).collect();
    assert_eq!(failed, ["epoch=2/_COMMIT", "epoch=1/vnode=1/partial.bin"]);
}
