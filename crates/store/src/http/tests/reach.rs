use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::ObjectStoreExt;
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};

use super::*;
use crate::http::addresses::RefusedAddress;

/// A place that nobody may connect to.
pub(super) struct Guarded {
    listener: TcpListener,
    pub(super) port: u16,
}

impl Guarded {
    pub(super) async fn at(address: impl ToSocketAddrs) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, port }
    }

    /// Connections are accepted in the order in which they came, so an earlier one would come out before this test's own.
    pub(super) async fn nobody_connected(&self) -> bool {
        let own = TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap();
        let (_, first) = self.listener.accept().await.unwrap();
        first == own.local_addr().unwrap()
    }

    /// Whether a request connects before it ends. Nobody answers it.
    pub(super) async fn somebody_connects<T>(&self, request: impl Future<Output = T>) -> bool {
        tokio::select! {
            biased;
            connection = self.listener.accept() => connection.is_ok(),
            _ = request => false,
        }
    }
}

pub(super) fn strict() -> AddressRules {
    AddressRules::guarded(false, Vec::new(), Vec::new())
}

pub(super) fn settings(addresses: AddressRules) -> RootSettings {
    let second = Some(Duration::from_secs(2));
    RootSettings { addresses, timeout: second, connect_timeout: second, ..RootSettings::default() }
}

pub(super) fn s3(endpoint: &str, settings: &RootSettings) -> Root {
    let options = [("aws_endpoint", endpoint), ("aws_skip_signature", "true"), ("allow_http", "true")];
    open("s3://state/orders", &options, settings)
}

pub(super) fn assert_refused(root: &Root, error: &crate::StoreError) {
    assert_eq!(error.class(), ErrorClass::InvalidConfiguration, "{error}");
    assert!(error.to_string().contains("--allow-endpoint"), "{error}");
    let RequestCounts { list, get, head, put, delete } = root.requests();
    assert!(list + get + head + put + delete <= 1, "tried again: {:?}", root.requests());
}

#[tokio::test]
async fn a_refused_address_is_never_connected_to_however_it_is_written() {
    let guarded = Guarded::at("127.0.0.1:0").await;
    for host in [
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "0x7f000001",
        "0177.0.0.1",
        "2130706433",
        "127.0.0.1.",
        "0.0.0.0",
        "0",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::1]",
        "[::]",
        "localhost",
        "LocalHost",
    ] {
        let root = s3(&format!("http://{host}:{}", guarded.port), &settings(strict()));
        let error = read(&root).await;
        assert_refused(&root, &error);
        assert!(guarded.nobody_connected().await, "{host}");
    }
}

#[tokio::test]
async fn the_same_texts_reach_a_server_where_nothing_is_refused() {
    let server = Server::start(|_, _| Some((200, "", "x".into()))).await;
    let port = server.url.rsplit(':').next().unwrap().to_owned();
    for host in ["127.0.0.1", "127.1", "0x7f.1", "2130706433", "0.0.0.0", "localhost"] {
        for rules in [AddressRules::default(), AddressRules::guarded(false, Vec::new(), vec![host.parse().unwrap()])] {
            let root = s3(&format!("http://{host}:{port}"), &settings(rules));
            root.store().get(&root.path("k").unwrap()).await.unwrap();
        }
    }
    assert_eq!(server.requests().len(), 12);
}

#[tokio::test]
async fn every_kind_of_request_is_refused() {
    let guarded = Guarded::at("127.0.0.1:0").await;
    for host in ["127.0.0.1", "localhost"] {
        let endpoint = format!("http://{host}:{}", guarded.port);
        for operation in [Operation::Get, Operation::Head, Operation::List, Operation::Put, Operation::Delete] {
            let root = s3(&endpoint, &settings(strict()));
            let path = root.path("k").unwrap();
            let store = root.store();
            let error = match operation {
                Operation::Get => store.get(&path).await.map(drop),
                Operation::Head => store.head(&path).await.map(drop),
                Operation::Put => store.put(&path, "x".into()).await.map(drop),
                Operation::Delete => store.delete(&path).await,
                Operation::List => {
                    assert_refused(&root, &list_inventory(&root, None).await.unwrap_err());
                    continue;
                }
            };
            assert_refused(&root, &root.error(operation, "k", error.unwrap_err()));
        }
    }
    assert!(guarded.nobody_connected().await);
}

#[tokio::test]
async fn the_api_server_is_out_of_reach_where_the_rest_of_the_loopback_is_not() {
    let server = Server::start(|_, _| Some((200, "", "x".into()))).await;
    let store_port = server.url.rsplit(':').next().unwrap().to_owned();
    let api_server = Guarded::at("127.0.0.1:0").await;
    let refused = RefusedAddress { address: [127, 0, 0, 1].into(), port: Some(api_server.port) };
    let rules = AddressRules::guarded(true, vec![refused], Vec::new());
    for host in ["127.0.0.1", "localhost"] {
        let root = s3(&format!("http://{host}:{}", api_server.port), &settings(rules.clone()));
        let error = read(&root).await;
        assert_refused(&root, &error);
        assert!(error.to_string().contains("the Kubernetes API server"), "{error}");
        let root = s3(&format!("http://{host}:{store_port}"), &settings(rules.clone()));
        root.store().get(&root.path("k").unwrap()).await.unwrap();
    }
    assert!(api_server.nobody_connected().await);
}

/// Answers each look-up with the next of a list.
struct Answers(Mutex<VecDeque<Vec<&'static str>>>);

impl Lookup for Answers {
    fn addresses(&self, _: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let next = self.0.lock().unwrap().pop_front().expect("one look-up for each connection");
        let addresses = next.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0)).collect();
        async move { Ok(addresses) }.boxed()
    }
}

#[tokio::test]
async fn a_name_that_changes_its_answer_does_not_lead_elsewhere() {
    let server = Server::start(|_, _| Some((200, "", "x".into()))).await;
    let port = server.url.rsplit(':').next().unwrap().to_owned();
    let guarded = Guarded::at(&format!("127.0.0.2:{port}")).await;
    // The one address can be reached by any name, the other by none.
    let addresses = AddressRules::guarded(false, Vec::new(), vec!["127.0.0.1".parse().unwrap()]);
    let answers = [
        (vec!["127.0.0.1"], true),
        (vec!["127.0.0.2"], false),
        (vec!["127.0.0.2", "127.0.0.1"], true),
        (vec!["169.254.169.254", "::ffff:127.0.0.2"], false),
        (vec!["127.0.0.1"], true),
    ];
    let lookup = Arc::new(Answers(Mutex::new(answers.iter().map(|(answer, _)| answer.clone()).collect())));
    let second = Duration::from_secs(5);
    let connector = Connector::with_lookup(
        Timeouts { request: second, connect: second },
        Watch::new(Arc::new(())),
        Vec::new(),
        Reach { addresses, ..Reach::default() },
        Arc::clone(&lookup) as Arc<dyn Lookup>,
    );
    let client = connector.connect(&ClientOptions::new().with_allow_http(true)).unwrap();
    for (answer, reached) in answers {
        let outcome = client.execute(get(&format!("http://store.example:{port}"))).await;
        match outcome {
            Ok(response) => assert!(reached && response.status() == 200, "{answer:?}"),
            Err(error) => {
                assert!(!reached, "{answer:?}: {error}");
                assert_eq!(error.kind(), HttpErrorKind::Unknown, "it would be tried again");
                assert!(error.to_string().contains("--allow-endpoint store.example"), "{error}");
            }
        }
    }
    assert!(lookup.0.lock().unwrap().is_empty());
    assert_eq!(server.requests().len(), 3);
    assert!(guarded.nobody_connected().await);
}

#[tokio::test]
async fn a_redirect_leads_nowhere_and_says_so() {
    let guarded = Guarded::at("127.0.0.1:0").await;
    for status in [301, 302, 307, 308] {
        let location = format!("location: http://127.0.0.1:{}/latest/meta-data\r\n", guarded.port);
        let location: &'static str = Box::leak(location.into_boxed_str());
        let server = Server::start(move |_, _| Some((status, location, String::new()))).await;
        let root = s3(&server.url, &settings(AddressRules::guarded(true, Vec::new(), Vec::new())));
        let error = read(&root).await;
        assert_eq!(error.class(), ErrorClass::InvalidConfiguration, "{error}");
        let said = error.to_string();
        assert!(said.contains(&format!("HTTP {status} (a redirect, which is not followed)")), "{said}");
        assert_eq!(server.requests().len(), 1, "{status}");
    }
    assert!(guarded.nobody_connected().await);
}

#[tokio::test]
async fn only_what_fetches_the_environments_credentials_may_reach_a_metadata_service() {
    let server = Server::start(|_, _| Some((200, "", String::new()))).await;
    let port = server.url.rsplit(':').next().unwrap().to_owned();
    let options = ClientOptions::new().with_allow_http(true);
    for (ambient, reached) in [(true, [true, false]), (false, [false, false])] {
        for host in ["127.0.0.1", "localhost"] {
            let reach = Reach { addresses: strict(), ambient, ..Reach::default() };
            let second = Duration::from_secs(5);
            let timeouts = Timeouts { request: second, connect: second };
            let connector = Connector::new(timeouts, Watch::new(Arc::new(())), Vec::new(), reach);
            let connections = [connector.connect(&options).unwrap(), connector.connect(&options).unwrap()];
            for (number, (connection, reached)) in connections.iter().zip(reached).enumerate() {
                let before = server.requests().len();
                let outcome = connection.execute(get(&format!("http://{host}:{port}"))).await;
                assert_eq!(outcome.is_ok(), reached, "ambient: {ambient}, {host}, {number}: {outcome:?}");
                assert_eq!(server.requests().len() - before, usize::from(reached), "{host}");
            }
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_a_key_file_names_is_checked_as_any_other() {
    let guarded = Guarded::at("127.0.0.1:0").await;
    for (base, says) in [
        (format!("http://127.0.0.1:{}", guarded.port), "--allow-endpoint"),
        (format!("http://localhost:{}", guarded.port), "--allow-endpoint"),
        // The parsers of URLs do not agree on this one.
        ("http://1.2.3.4.5".to_owned(), "is no URL of an endpoint"),
    ] {
        let key = format!(
            r#"{{"private_key":"k","private_key_id":"i","client_email":"e","disable_oauth":true,"gcs_base_url":"{base}"}}"#
        );
        let options = [("google_service_account_key", key.as_str()), ("allow_http", "true")];
        let root = open("gs://state/orders", &options, &settings(strict()));
        let error = read(&root).await;
        assert_eq!(error.class(), ErrorClass::InvalidConfiguration, "{base}: {error}");
        assert!(error.to_string().contains(says), "{base}: {error}");
    }
    assert!(guarded.nobody_connected().await);
}
