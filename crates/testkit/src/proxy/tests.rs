use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStoreExt, RetryConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::s3server::S3Server;
use crate::wait::until;

const DEADLINE: Duration = Duration::from_secs(30);

/// Long enough for an answer over the loopback interface.
const A_MOMENT: Duration = Duration::from_millis(300);

/// A server that answers every request with ten digits.
struct Digits {
    port: u16,
    asked: Arc<AtomicU64>,
}

impl Digits {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    let mut request = vec![0; 4096];
                    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                        count.fetch_add(1, Ordering::SeqCst);
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789").await.unwrap();
                    }
                });
            }
        });
        Self { port, asked }
    }

    fn proxy(&self) -> Proxy {
        Proxy::to(&format!("http://127.0.0.1:{}", self.port)).unwrap()
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn open(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address).await.unwrap()
}

async fn ask(stream: &mut TcpStream, target: &str) {
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: digits\r\n\r\n").as_bytes()).await.unwrap();
}

/// What a connection of its own brings until it ends.
async fn get(proxy: &Proxy, target: &str) -> String {
    let mut stream = open(proxy).await;
    stream.write_all(format!("GET {target} HTTP/1.1\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("the connection to end");
    String::from_utf8(answer).unwrap()
}

/// Whether nothing at all happens on a connection for a moment.
async fn is_silent(stream: &mut TcpStream) -> bool {
    tokio::time::timeout(A_MOMENT, stream.read(&mut [0; 16])).await.is_err()
}

fn s3(server: &S3Server, proxy: &Proxy, bucket: &str) -> AmazonS3 {
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let builder = AmazonS3Builder::new().with_bucket_name(bucket).with_retry(retry);
    let options = server.options().into_iter().filter(|(name, _)| name != "aws_endpoint");
    let builder = options.fold(builder, |builder, (name, value)| builder.with_config(name.parse().unwrap(), value));
    builder.with_endpoint(proxy.url()).build().unwrap()
}

#[tokio::test]
async fn signed_requests_pass_unchanged_and_are_counted_as_people_write_them() {
    let server = S3Server::shared().await.unwrap();
    server.create_bucket("proxied").unwrap();
    let proxy = Proxy::to(&server.endpoint()).unwrap();
    let client = s3(server, &proxy, "proxied");
    let key = Path::from("state/epoch=7/_COMMIT");
    let body = vec![7_u8; 3 * 1024 * 1024];
    client.put(&key, body.clone().into()).await.unwrap();
    assert!(client.get(&key).await.unwrap().bytes().await.unwrap() == body);
    assert!(server.bucket_folder("proxied").join("state/epoch=7/_COMMIT").is_file());
    for (method, pattern, count) in [
        ("PUT", "/proxied/state/epoch=7/_COMMIT", 1),
        ("*", "*epoch=7*", 2),
        ("GET", "*", 1),
        ("DELETE", "*", 0),
        ("*", "*epoch=8*", 0),
    ] {
        assert_eq!(proxy.requests(method, pattern), count, "{method} {pattern}");
    }
    assert!((1..=2).contains(&proxy.connections()), "{}", proxy.connections());
}

#[tokio::test]
async fn a_journal_says_when_a_request_arrived_and_when_it_was_answered() {
    let server = Digits::start().await;
    let proxy = server.proxy();
    let journal = proxy.journal("GET", "/epoch=7/*");
    let delay = Duration::from_millis(50);
    proxy.on("GET", "*/slow").delay(delay);
    proxy.on("GET", "*/lost").close_after();
    for target in ["/epoch%3D7/slow", "/epoch=8/slow", "/epoch=7/lost"] {
        get(&proxy, target).await;
    }
    let passages = journal.passages();
    let targets: Vec<_> = passages.iter().map(|passage| passage.target.as_str()).collect();
    assert_eq!(targets, ["/epoch=7/slow", "/epoch=7/lost"]);
    assert!(passages[0].answered.unwrap() - passages[0].arrived >= delay, "{passages:?}");
    assert_eq!(passages[1].answered, None, "an answer that never came has no instant");
    assert!(passages[1].arrived > passages[0].answered.unwrap());
    assert_eq!(journal.first("*/lost").as_ref(), passages.get(1));
}

#[tokio::test]
async fn a_server_with_a_private_certificate_is_reached_by_whoever_trusts_its_authority() {
    let server = S3Server::with_tls().await.unwrap();
    server.create_bucket("secure").unwrap();
    assert!(server.endpoint().starts_with("https://"));
    let proxy = Proxy::to_tls(&server.endpoint(), server.ca().unwrap()).unwrap();
    // The signature covers the host that the client speaks to, which the server takes from the request.
    s3(&server, &proxy, "secure").put(&Path::from("a"), "b".into()).await.unwrap();

    let stranger = tls::certify().unwrap();
    let proxy = Proxy::to_tls(&server.endpoint(), &stranger.authority).unwrap();
    assert_eq!(get(&proxy, "/").await, "");
}

#[tokio::test]
async fn a_rule_answers_in_the_servers_place_as_often_as_it_was_told() {
    let digits = Digits::start().await;
    let proxy = digits.proxy();
    let hits =
        proxy.on("GET", "/a?b=*").skip(1).times(2).answer(Answer::s3(503, "SlowDown").header("retry-after", "4"));
    let mut answers = Vec::new();
    for target in ["/a?b=1", "/a%3Fb%3d2", "/other", "/a?b=3", "/a?b=4"] {
        answers.push(get(&proxy, target).await);
    }
    let refused: Vec<bool> = answers.iter().map(|answer| answer.starts_with("HTTP/1.1 503 ")).collect();
    assert_eq!(refused, [false, true, false, true, false]);
    assert!(answers[1].contains("retry-after: 4") && answers[1].contains("<Code>SlowDown</Code>"), "{}", answers[1]);
    assert_eq!((hits.count(), digits.asked()), (2, 3));
}

#[tokio::test]
async fn a_cut_body_ends_before_its_announced_length() {
    let digits = Digits::start().await;
    let proxy = digits.proxy();
    for after in [4, 0] {
        let _ = proxy.on("GET", "*").once().cut_body(after);
        let answer = get(&proxy, "/").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("content-length: 10"), "{head}");
        assert_eq!(body, &"0123456789"[..after]);
    }
    assert!(get(&proxy, "/").await.ends_with("0123456789"));
}

#[tokio::test]
async fn an_answer_is_lost_after_its_effect_or_before() {
    let digits = Digits::start().await;
    let proxy = digits.proxy();
    let _ = proxy.on("GET", "/before").close_before();
    let _ = proxy.on("GET", "/after").close_after();
    assert_eq!((get(&proxy, "/before").await.as_str(), digits.asked()), ("", 0));
    assert_eq!((get(&proxy, "/after").await.as_str(), digits.asked()), ("", 1));
}

#[tokio::test]
async fn what_hangs_is_let_go_when_the_rules_are_removed() {
    let digits = Digits::start().await;
    let proxy = digits.proxy();
    let hits = proxy.on("GET", "*").hang();
    let mut stream = open(&proxy).await;
    ask(&mut stream, "/").await;
    assert!(is_silent(&mut stream).await);
    assert_eq!((hits.count(), digits.asked()), (1, 0));
    proxy.clear();
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
    assert!(get(&proxy, "/").await.ends_with("0123456789"));
}

#[tokio::test]
async fn a_delayed_request_arrives_later_and_an_answer_can_be_rewritten() {
    let digits = Digits::start().await;
    let proxy = digits.proxy();
    let _ = proxy.on("GET", "/late").delay(2 * A_MOMENT);
    let _ = proxy.on("GET", "/rewritten").rewrite(|answer| {
        let body = answer.body.replace("456", "");
        answer.header("x-was", "touched").body(body)
    });
    let mut stream = open(&proxy).await;
    ask(&mut stream, "/late").await;
    assert!(is_silent(&mut stream).await);
    assert_ne!(stream.read(&mut [0; 16]).await.unwrap(), 0);
    let answer = get(&proxy, "/rewritten").await;
    let expected = ["HTTP/1.1 200 OK", "content-length: 7", "x-was: touched", "\r\n\r\n0123789"];
    assert!(expected.iter().all(|part| answer.contains(part)), "{answer}");
}

#[tokio::test]
async fn in_silence_nothing_moves_and_nothing_closes() {
    let digits = Digits::start().await;
    let proxy = digits.proxy();
    let mut before = open(&proxy).await;
    ask(&mut before, "/").await;
    let mut head = [0; 1024];
    assert_ne!(before.read(&mut head).await.unwrap(), 0);
    until("the whole answer", DEADLINE, async || is_silent(&mut before).await.then_some(())).await.unwrap();

    proxy.silence();
    let mut during = open(&proxy).await;
    for stream in [&mut before, &mut during] {
        ask(stream, "/").await;
        assert!(is_silent(stream).await);
    }
    until("the silent connection", DEADLINE, async || (proxy.connections() == 2).then_some(())).await.unwrap();

    proxy.resume();
    assert!(get(&proxy, "/").await.ends_with("0123456789"));
    for stream in [&mut before, &mut during] {
        ask(stream, "/").await;
        assert!(is_silent(stream).await, "what was silent stays silent");
    }
    assert_eq!(digits.asked(), 2);
}

#[tokio::test]
async fn open_connections_can_be_dropped_and_all_end_with_the_proxy() {
    let digits = Digits::start().await;
    let proxy = digits.proxy();
    let _ = proxy.on("GET", "/hang").hang();
    let mut one = open(&proxy).await;
    ask(&mut one, "/hang").await;
    assert!(is_silent(&mut one).await);
    proxy.drop_connections();
    assert_eq!(one.read(&mut [0; 16]).await.unwrap_or(0), 0);
    assert!(get(&proxy, "/").await.ends_with("0123456789"));

    let mut two = open(&proxy).await;
    ask(&mut two, "/hang").await;
    assert!(is_silent(&mut two).await);
    let address = proxy.address;
    drop(proxy);
    assert_eq!(two.read(&mut [0; 16]).await.unwrap_or(0), 0);
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[test]
fn only_servers_of_this_machine_are_proxied() {
    for url in ["http://192.0.2.1:80", "https://127.0.0.1:80", "http://localhost:80", "127.0.0.1:80"] {
        assert!(Proxy::to(url).is_err(), "{url}");
    }
}
