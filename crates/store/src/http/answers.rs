//! A server for tests that gives the answers it is told.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::root::{Root, RootSettings};

/// One answer: status, further header lines, body. `None` keeps the client waiting.
pub(crate) type Answer = Option<(u16, &'static str, String)>;

pub(crate) const ACCESS_KEY: &str = "AKIDVERYSECRET";
pub(crate) const SECRET_KEY: &str = "wJalrVERYSECRET";

pub(crate) struct Server {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<String>>>,
    received: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// `answer` gets the request line and how many requests came before.
    pub(crate) async fn start(answer: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (sender, received) = watch::channel(0);
        let log = Arc::clone(&requests);
        let answer = Arc::new(answer);
        let task = tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let line = read_request(&mut stream).await;
                let number = {
                    let mut log = log.lock().unwrap();
                    log.push(line.clone());
                    log.len() - 1
                };
                sender.send_replace(number + 1);
                match answer(&line, number) {
                    None => open.push(stream),
                    Some((status, headers, body)) => {
                        let length = body.len();
                        let head = format!(
                            "HTTP/1.1 {status} Said\r\ncontent-length: {length}\r\nconnection: close\r\n\
                             last-modified: Wed, 21 Oct 2026 07:28:00 GMT\r\netag: \"e\"\r\n{headers}\r\n"
                        );
                        let head_only = line.starts_with("HEAD ");
                        stream.write_all(head.as_bytes()).await.unwrap();
                        if !head_only {
                            stream.write_all(body.as_bytes()).await.unwrap();
                        }
                        stream.shutdown().await.ok();
                    }
                }
            }
        });
        Self { url, requests, received, task }
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) async fn received(&self, count: usize) {
        self.received.clone().wait_for(|received| *received >= count).await.unwrap();
    }

    pub(crate) fn s3(&self, settings: &RootSettings) -> Root {
        open(
            "s3://state/orders",
            &[
                ("aws_endpoint", &self.url),
                ("aws_access_key_id", ACCESS_KEY),
                ("aws_secret_access_key", SECRET_KEY),
                ("allow_http", "true"),
            ],
            settings,
        )
    }
}

pub(crate) fn open(url: &str, options: &[(&str, &str)], settings: &RootSettings) -> Root {
    Root::open(url, options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())), settings).unwrap()
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        let read = stream.read(&mut chunk).await.unwrap();
        assert!(read > 0, "the client hung up");
        bytes.extend_from_slice(&chunk[..read]);
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let length = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length:")
                .map(|value| value.trim().parse::<usize>().unwrap())
        })
        .unwrap_or(0);
    while bytes.len() < end + length {
        let read = stream.read(&mut chunk).await.unwrap();
        assert!(read > 0, "the client hung up");
        bytes.extend_from_slice(&chunk[..read]);
    }
    head.lines().next().unwrap().to_owned()
}

/// The body of an error as S3 and Azure write it.
pub(crate) fn error_body(code: &str, message: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message>\
         <AWSAccessKeyId>{ACCESS_KEY}</AWSAccessKeyId><StringToSign>{SECRET_KEY}</StringToSign></Error>"
    )
}

/// A page of an S3 listing.
pub(crate) fn page(keys: &[&str], token: Option<&str>) -> String {
    use std::fmt::Write;
    let mut body = String::from("<?xml version=\"1.0\"?><ListBucketResult>");
    for key in keys {
        write!(
            body,
            "<Contents><Key>{key}</Key><LastModified>2026-10-21T07:28:00.000Z</LastModified><ETag>\"e\"</ETag><Size>3</Size></Contents>"
        )
        .unwrap();
    }
    if let Some(token) = token {
        write!(body, "<NextContinuationToken>{token}</NextContinuationToken>").unwrap();
    }
    body.push_str("</ListBucketResult>");
    body
}
