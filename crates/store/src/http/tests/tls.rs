use std::sync::atomic::AtomicUsize;

use object_store::ObjectStoreExt;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::StoreError;

/// An authority and what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    async fn serve(&self, params: CertificateParams) -> Secure {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        Secure::start(TlsAcceptor::from(Arc::new(config))).await
    }
}

/// A server of one object over TLS. The end of the test's runtime ends it.
struct Secure {
    port: u16,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Secure {
    async fn start(acceptor: TlsAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = [0; 4096];
                if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\netag: \"e\"\r\n\
                                last-modified: Wed, 21 Oct 2026 07:28:00 GMT\r\n\r\nx";
                    stream.write_all(head.as_bytes()).await.ok();
                    stream.shutdown().await.ok();
                }
            }
        });
        Self { port, accepted, task }
    }

    async fn read(&self, host: &str, ca: &[&str]) -> Result<(), StoreError> {
        read_from(&format!("https://{host}:{}", self.port), ca).await
    }
}

async fn read_from(endpoint: &str, ca: &[&str]) -> Result<(), StoreError> {
    let ca = ca.iter().map(|pem| (*pem).to_owned()).collect();
    let settings = RootSettings { ca, timeout: Some(Duration::from_secs(5)), ..RootSettings::default() };
    let options = [("aws_endpoint", endpoint), ("aws_skip_signature", "true")];
    let root = open("s3://state/orders", &options, &settings);
    let answer = root.store().get(&root.path("k").unwrap()).await;
    answer.map(drop).map_err(|error| root.error(Operation::Get, "k", error))
}

fn for_names(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

#[tokio::test]
async fn a_server_of_a_private_authority_is_trusted_when_the_authority_is_given() {
    let (own, other) = (Authority::new("own"), Authority::new("other"));
    let server = own.serve(for_names(&["localhost", "127.0.0.1"])).await;
    let both = format!("{}\n{}", other.pem, own.pem);
    for host in ["localhost", "127.0.0.1"] {
        for ca in [&[own.pem.as_str()][..], &[both.as_str()], &[other.pem.as_str(), own.pem.as_str()]] {
            server.read(host, ca).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_be_trusted_is_told_once_and_says_what_to_do() {
    use ErrorClass::{InvalidConfiguration, Unreachable};
    let (own, other) = (Authority::new("own"), Authority::new("other"));
    let mut expired = for_names(&["localhost"]);
    (expired.not_before, expired.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    let mut early = for_names(&["localhost"]);
    (early.not_before, early.not_after) = (date_time_ymd(2999, 1, 1), date_time_ymd(3000, 1, 1));
    for (params, ca, class, says) in [
        (for_names(&["localhost"]), &[][..], InvalidConfiguration, "spec.store.ca"),
        (for_names(&["localhost"]), &[other.pem.as_str()], InvalidConfiguration, "not signed by a known authority"),
        (for_names(&["other.example"]), &[own.pem.as_str()], InvalidConfiguration, "is for another host"),
        (expired, &[own.pem.as_str()], Unreachable, "certificate has expired: renew or replace"),
        (early, &[own.pem.as_str()], Unreachable, "certificate is not valid yet: renew or replace"),
    ] {
        let server = own.serve(params).await;
        let error = server.read("localhost", ca).await.unwrap_err();
        assert_eq!(error.class(), class, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(server.accepted.load(Ordering::SeqCst), 1, "it was tried again: {error}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_called_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        stream
    });
    let error = read_from(&endpoint, &[]).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Unreachable, "{error}");
    assert!(error.to_string().contains("does not answer with TLS"), "{error}");
    drop(server.await.unwrap());
}

#[test]
fn what_holds_no_certificate_is_refused_before_any_request() {
    let good = Authority::new("own").pem;
    let key = KeyPair::generate().unwrap().serialize_pem();
    let block = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
    for (ca, says) in [
        (String::new(), "holds no certificate"),
        ("hunter2".into(), "holds no certificate"),
        (key, "holds no certificate"),
        (block("hunter2!"), "it is not PEM"),
        (block("aHVudGVyMg=="), "cannot be used"),
        ("-----BEGIN CERTIFICATE-----\nhunter2\n".into(), "it is not PEM"),
        (format!("{good}\n{}", block("aHVudGVyMg==")), "cannot be used"),
    ] {
        for bundles in [vec![ca.clone()], vec![good.clone(), ca.clone()]] {
            let settings = RootSettings { ca: bundles, ..RootSettings::default() };
            let options = [("aws_skip_signature".to_owned(), "true".to_owned())];
            let error = Root::open("s3://state", options, &settings).unwrap_err();
            assert!(matches!(error, StoreError::InvalidCa { .. }), "{ca}: {error:?}");
            assert_eq!(error.class(), ErrorClass::InvalidConfiguration);
            assert!(error.to_string().contains(says), "{ca}: {error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}

/// The endpoint that the second process of the test below asks.
const SECOND_PROCESS: &str = "EPOCHWARDEN_TEST_TLS_ENDPOINT";

#[tokio::test]
async fn the_authorities_of_the_system_stay_trusted_beside_a_private_one() {
    let private = Authority::new("private");
    if let Ok(endpoint) = std::env::var(SECOND_PROCESS) {
        read_from(&endpoint, &[]).await.unwrap();
        read_from(&endpoint, &[&private.pem]).await.unwrap();
        return;
    }
    let system = Authority::new("system");
    let server = system.serve(for_names(&["localhost"])).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca-certificates.crt");
    std::fs::write(&file, &system.pem).unwrap();
    // Where the system's certificates are is told by the environment, which a process has only one of.
    let name = "http::tests::tls::the_authorities_of_the_system_stay_trusted_beside_a_private_one";
    let mut process = std::process::Command::new(std::env::current_exe().unwrap());
    process
        .args(["--exact", name])
        .env(SECOND_PROCESS, format!("https://localhost:{}", server.port))
        .env("SSL_CERT_FILE", &file)
        .env_remove("SSL_CERT_DIR");
    let output = tokio::task::spawn_blocking(move || process.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(server.accepted.load(Ordering::SeqCst), 2);
}
