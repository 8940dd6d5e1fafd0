use std::sync::Mutex;

use object_store::ObjectStoreExt;
use object_store::client::HttpRequestBody;

use super::answers::{ACCESS_KEY, SECRET_KEY, Server, error_body, open, page};
use super::*;
use crate::error::ErrorClass;
use crate::listing::list_inventory;
use crate::observe::{Observer, RequestCounts};
use crate::root::{Root, RootSettings};

mod reach;
#[cfg(target_os = "linux")]
mod secluded;
mod tls;

#[derive(Default)]
struct Log(Mutex<Vec<(Operation, Outcome)>>);

impl Observer for Log {
    fn request(&self, operation: Operation, outcome: Outcome, _: Duration) {
        self.0.lock().unwrap().push((operation, outcome));
    }
}

fn log() -> (Arc<Log>, RootSettings) {
    let log = Arc::new(Log::default());
    let observer: Arc<dyn Observer> = Arc::clone(&log) as Arc<dyn Observer>;
    (log, RootSettings { observer, max_retries: Some(1), ..RootSettings::default() })
}

#[test]
fn an_operation_is_told_by_its_method_and_query() {
    for (method, uri, expected) in [
        ("GET", "https://h/b?list-type=2&prefix=epoch%3D", Some(Operation::List)),
        ("GET", "https://h/c?restype=container&comp=list&prefix=a", Some(Operation::List)),
        ("GET", "https://h/b/k?prefix=list-type", Some(Operation::Get)),
        ("GET", "https://h/b/epoch%3D1/_COMMIT", Some(Operation::Get)),
        ("HEAD", "https://h/b/k", Some(Operation::Head)),
        ("PUT", "https://h/b/k", Some(Operation::Put)),
        ("PUT", "https://h/b/k?comp=block&blockid=1", Some(Operation::Put)),
        ("POST", "https://h/b/k?uploads=", Some(Operation::Put)),
        ("POST", "https://h/b/k?uploadId=7", Some(Operation::Put)),
        ("DELETE", "https://h/b/k", Some(Operation::Delete)),
        ("POST", "https://h/b?delete", Some(Operation::Delete)),
        ("POST", "https://h/b?delete=", Some(Operation::Delete)),
        ("POST", "https://h/c?restype=container&comp=batch", Some(Operation::Delete)),
        ("POST", "https://login/tenant/oauth2/v2.0/token", None),
        ("OPTIONS", "https://h/b", None),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        assert_eq!(operation(&method, &uri.parse().unwrap()), expected, "{method} {uri}");
    }
}

#[test]
fn a_status_becomes_an_outcome() {
    for (status, expected) in [
        (200, Outcome::Ok),
        (204, Outcome::Ok),
        (304, Outcome::Ok),
        (301, Outcome::Rejected),
        (400, Outcome::Rejected),
        (401, Outcome::Denied),
        (403, Outcome::Denied),
        (404, Outcome::NotFound),
        (409, Outcome::Conflict),
        (412, Outcome::Conflict),
        (429, Outcome::Throttled),
        (503, Outcome::Throttled),
        (500, Outcome::ServerError),
    ] {
        assert_eq!(outcome(StatusCode::from_u16(status).unwrap()), expected, "{status}");
    }
}

#[tokio::test]
async fn every_page_and_every_retry_is_counted() {
    let server = Server::start(|_, number| {
        Some(match number {
            0 => (503, "", error_body("SlowDown", "slow")),
            1 => (200, "", page(&["orders/epoch=1/_COMMIT"], Some("t"))),
            _ => (200, "", page(&["orders/epoch=2/_COMMIT"], None)),
        })
    })
    .await;
    let (log, settings) = log();
    let root = server.s3(&settings);
    let inventory = list_inventory(&root, Some(1)).await.unwrap();
    assert_eq!(inventory.totals().sealed, 2);
    assert_eq!(root.requests(), RequestCounts { list: 3, ..RequestCounts::default() });
    let outcomes = [Outcome::Throttled, Outcome::Ok, Outcome::Ok].map(|outcome| (Operation::List, outcome));
    assert_eq!(*log.0.lock().unwrap(), outcomes);
}

#[tokio::test]
async fn a_request_of_each_cloud_is_counted_once_and_to_its_bucket() {
    let server = Server::start(|_, _| Some((200, "", String::new()))).await;
    let url = server.url.as_str();
    let settings = RootSettings::default();
    for (root, line) in [
        (server.s3(&settings), "HEAD /state/orders/k "),
        (
            open(
                "gs://state/orders",
                &[("google_base_url", url), ("google_skip_signature", "true"), ("allow_http", "true")],
                &settings,
            ),
            "HEAD /state/orders%2Fk ",
        ),
        (
            open(
                "az://state/orders",
                &[
                    ("azure_storage_account_name", "acct"),
                    ("azure_storage_endpoint", url),
                    ("azure_storage_account_key", "c2VjcmV0"),
                    ("allow_http", "true"),
                ],
                &settings,
            ),
            "HEAD /state/orders/k ",
        ),
    ] {
        root.store().head(&root.path("k").unwrap()).await.unwrap();
        assert_eq!(root.requests(), RequestCounts { head: 1, ..RequestCounts::default() }, "{root}");
        let last = server.requests().pop().unwrap();
        assert!(last.starts_with(line), "{root}: {last}");
    }
}

#[tokio::test]
async fn requests_that_fetch_credentials_are_not_counted() {
    let server = Server::start(|_, _| Some((200, "", String::new()))).await;
    let watch = Watch::new(Arc::new(()));
    let connector = connector(&watch);
    let options = ClientOptions::new().with_allow_http(true);
    let (credentials, store) = (connector.connect(&options).unwrap(), connector.connect(&options).unwrap());
    for (client, counted) in [(credentials, 0), (store, 1)] {
        client.execute(get(&server.url)).await.unwrap();
        assert_eq!(watch.counts().get, counted);
    }
}

#[tokio::test]
async fn all_connections_of_a_root_share_one_pool_but_the_metadata_services() {
    let server = Server::start(|_, _| Some((200, "", String::new()))).await;
    let connector = connector(&Watch::new(Arc::new(())));
    let options = ClientOptions::new().with_allow_http(true);
    for _ in 0..3 {
        connector.connect(&options).unwrap().execute(get(&server.url)).await.unwrap();
    }
    assert_eq!(connector.pools(), 1);
    let options = options.with_connect_timeout(Duration::from_secs(1));
    for _ in 0..2 {
        connector.connect(&options).unwrap().execute(get(&server.url)).await.unwrap();
    }
    assert_eq!(connector.pools(), 2);
}

#[tokio::test]
async fn plain_http_is_refused_before_anything_is_sent() {
    let server = Server::start(|_, _| Some((200, "", String::new()))).await;
    let client = connector(&Watch::new(Arc::new(()))).connect(&ClientOptions::new()).unwrap();
    let error = client.execute(get(&server.url)).await.unwrap_err();
    assert!(error.to_string().contains("allow_http"), "{error}");
    assert_eq!(server.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_write_carries_its_checksum_which_a_locked_bucket_asks_for() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let options = [("aws_endpoint", endpoint.as_str()), ("aws_skip_signature", "true"), ("allow_http", "true")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    let root = Root::open("s3://state", options, &RootSettings::default()).unwrap();
    let put = async {
        root.store().put(&root.path("epoch=1/_COMMIT").unwrap(), "pod-1".into()).await.ok();
    };
    let read = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 8192];
        let length = tokio::io::AsyncReadExt::read(&mut stream, &mut request).await.unwrap();
        String::from_utf8_lossy(&request[..length]).into_owned()
    };
    let head = tokio::select! { () = put => panic!("nobody answered"), head = read => head };
    // The SHA-256 of "pod-1", in base64.
    let checksum = "x-amz-checksum-sha256: DwZoJODDxL1tgPTBgnafoG5dqe8OH0T89ZC7kW8+QI8=";
    assert!(head.to_ascii_lowercase().contains(&checksum.to_ascii_lowercase()), "{head}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server = Server::start(|_, _| Some((307, "location: /elsewhere\r\n", String::new()))).await;
    let root = server.s3(&RootSettings::default());
    let error = read(&root).await;
    assert_eq!(error.class(), ErrorClass::InvalidConfiguration, "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_is_counted_as_cancelled() {
    let server = Server::start(|_, _| None).await;
    let (log, settings) = log();
    let root = server.s3(&settings);
    tokio::select! {
        error = read(&root) => panic!("{error}"),
        () = server.received(1) => {}
    }
    assert_eq!(*log.0.lock().unwrap(), [(Operation::Get, Outcome::Cancelled)]);
}

#[tokio::test]
async fn what_a_server_repeats_of_the_credentials_is_in_no_error() {
    let cases = [error_body("SignatureDoesNotMatch", &format!("{ACCESS_KEY} and {SECRET_KEY}")), {
        let filling = "x".repeat(ERROR_BODY_LIMIT - 5);
        format!("{filling}{ACCESS_KEY}{SECRET_KEY}")
    }];
    for body in cases {
        let server = Server::start(move |_, _| Some((403, "", body.clone()))).await;
        let root = server.s3(&RootSettings::default());
        let error = read(&root).await;
        assert_eq!(error.class(), ErrorClass::AccessDenied);
        let mut shown = format!("{error} {error:?} {root:?}");
        let mut source = std::error::Error::source(&error);
        while let Some(link) = source {
            shown.push_str(&link.to_string());
            source = link.source();
        }
        assert!(shown.contains("403"), "{shown}");
        for secret in [ACCESS_KEY, SECRET_KEY, &ACCESS_KEY[..5]] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

fn connector(watch: &Watch) -> Connector {
    let second = Duration::from_secs(5);
    Connector::new(Timeouts { request: second, connect: second }, watch.clone(), Vec::new(), Reach::default())
}

fn get(url: &str) -> HttpRequest {
    http::Request::builder().uri(format!("{url}/state/k")).body(HttpRequestBody::empty()).unwrap()
}

async fn read(root: &Root) -> crate::StoreError {
    let error = root.store().get(&root.path("k").unwrap()).await.unwrap_err();
    root.error(Operation::Get, "k", error)
}
