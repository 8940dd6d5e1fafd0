//! What a tenant's policy may not reach: each refusal with the proof that no connection was made.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use epochwarden_testkit::apiserver::Cluster;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::support::bucket::Bucket;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{cluster, secret_of};

/// As in a pod: the operator takes this for the sign that it runs in a cluster. The address is nobody's.
const IN_CLUSTER: [(&str, &str); 1] = [("KUBERNETES_SERVICE_HOST", "192.0.2.1")];

/// A server that counts who connects, and answers every request the same.
struct Counting {
    port: u16,
    connections: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Counting {
    async fn start(address: &str, answer: &'static str, location: Option<String>) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let port = listener.local_addr()?.port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let location = location.as_ref().map(|url| format!("Location: {url}\r\n")).unwrap_or_default();
                let mut request = [0; 4096];
                // One request at a time is enough for a store that is never to be used.
                let _ = stream.read(&mut request).await;
                let answer = format!("HTTP/1.1 {answer}\r\n{location}Content-Length: 0\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Ok(Self { port, connections, task: task.abort_handle() })
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keys(cluster: &Cluster, namespace: &str) -> Result<()> {
    let entries = [("aws_access_key_id", "id"), ("aws_secret_access_key", "not-a-real-secret")];
    secret_of(cluster, namespace, "keys", &entries).await
}

fn at(endpoint: &str) -> Value {
    json!({
        "store": {
            "url": "s3://state/orders",
            "options": { "aws_region": "us-east-1", "aws_endpoint": endpoint, "aws_allow_http": "true" },
            "credentials": { "secretRef": { "name": "keys" } },
        },
        "vnodes": 4,
        "fence": { "leaseRef": { "name": "leader" } },
    })
}

#[tokio::test]
async fn in_a_cluster_loopback_metadata_and_link_local_are_refused_in_every_spelling() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("reach").await?;
    keys(cluster, &namespace).await?;
    let server = Counting::start("127.0.0.1:0", "200 OK", None).await?;
    let six = Counting::start("[::1]:0", "200 OK", None).await;
    let operator = Operator::start_with(cluster, &namespace, &[], &IN_CLUSTER).await?;
    let port = server.port;
    let mut endpoints = vec![
        ("literal", format!("http://127.0.0.1:{port}")),
        ("name", format!("http://localhost:{port}")),
        ("mapped", format!("http://[::ffff:127.0.0.1]:{port}")),
        ("decimal", format!("http://2130706433:{port}")),
        ("short", format!("http://127.1:{port}")),
        ("hex", format!("http://0x7f000001:{port}")),
        ("nowhere", format!("http://0.0.0.0:{port}")),
        ("metadata", "http://169.254.169.254".to_owned()),
        ("metadata-six", "http://[fd00:ec2::254]".to_owned()),
        ("link-local", "http://[fe80::1]:9000".to_owned()),
        ("api-server", "http://192.0.2.1:443".to_owned()),
    ];
    if let Ok(six) = &six {
        endpoints.push(("six", format!("http://[::1]:{}", six.port)));
    }
    for (name, endpoint) in &endpoints {
        let policy = Policy::apply(cluster, &namespace, name, at(endpoint)).await?;
        let (status, message) = policy.wait_for("StoreReady", "InvalidConfiguration").await?;
        ensure!(status == "False" && message.contains("--allow-endpoint"), "{name}: {message}");
        policy.wait_for("Stalled", "InvalidConfiguration").await?;
    }
    ensure!(server.connections() == 0, "somebody connected");
    ensure!(six.as_ref().map_or(0, Counting::connections) == 0, "somebody connected over IPv6");
    ensure!(!operator.log().contains("panicked"));
    Ok(())
}

#[tokio::test]
async fn a_redirect_leads_nowhere() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("redirect").await?;
    keys(cluster, &namespace).await?;
    let target = Counting::start("127.0.0.1:0", "200 OK", None).await?;
    for (name, answer) in [("moved", "301 Moved Permanently"), ("temporary", "307 Temporary Redirect")] {
        let leads = format!("http://127.0.0.1:{}/state", target.port);
        let redirecting = Counting::start("127.0.0.1:0", answer, Some(leads)).await?;
        let operator = Operator::start(cluster, &namespace, &[]).await?;
        let endpoint = format!("http://127.0.0.1:{}", redirecting.port);
        let policy = Policy::apply(cluster, &namespace, name, at(&endpoint)).await?;
        policy
            .wait_until("the redirect to be told", |status| {
                let ready =
                    status["conditions"].as_array()?.iter().find(|condition| condition["type"] == "StoreReady")?;
                (ready["status"] == "False").then_some(())
            })
            .await?;
        ensure!(redirecting.connections() > 0, "nobody asked the one that redirects");
        operator.terminate(Duration::from_secs(20)).await?;
    }
    ensure!(target.connections() == 0, "a redirect was followed");
    Ok(())
}

#[tokio::test]
async fn a_host_that_the_operator_names_is_reached_and_only_that() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("allowed").await?;
    keys(cluster, &namespace).await?;
    let server = Counting::start("127.0.0.1:0", "403 Forbidden", None).await?;
    let flags = ["--allow-endpoint", "localhost"];
    let _operator = Operator::start_with(cluster, &namespace, &flags, &IN_CLUSTER).await?;
    let literal = at(&format!("http://127.0.0.1:{}", server.port));
    let literal = Policy::apply(cluster, &namespace, "literal", literal).await?;
    literal.wait_for("StoreReady", "InvalidConfiguration").await?;
    ensure!(server.connections() == 0);
    let named = at(&format!("http://localhost:{}", server.port));
    let named = Policy::apply(cluster, &namespace, "named", named).await?;
    named.wait_for("StoreReady", "AccessDenied").await?;
    ensure!(server.connections() > 0);
    Ok(())
}

#[tokio::test]
async fn the_api_server_is_no_store_also_outside_of_a_cluster() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("apiserver").await?;
    keys(cluster, &namespace).await?;
    let _operator = Operator::start(cluster, &namespace, &[]).await?;
    for (name, endpoint) in [("literal", cluster.url()), ("named", cluster.url().replace("127.0.0.1", "localhost"))] {
        let policy = Policy::apply(cluster, &namespace, name, at(&endpoint)).await?;
        let (_, message) = policy.wait_for("StoreReady", "InvalidConfiguration").await?;
        ensure!(message.contains("--allow-endpoint"), "{message}");
    }
    Ok(())
}

#[tokio::test]
async fn a_folder_outside_of_the_allowed_ones_is_refused_also_by_a_link() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("folders").await?;
    let (allowed, other) = (Bucket::folder()?, Bucket::folder()?);
    other.seal(1..=3, 4).await?;
    let link = allowed.path()?.join("link");
    std::os::unix::fs::symlink(other.path()?, &link)?;
    let root = allowed.path()?.display().to_string();
    let _operator = Operator::start(cluster, &namespace, &["--allow-file-root", &root]).await?;
    for (name, url) in [("outside", other.url.clone()), ("link", format!("file://{}", link.display()))] {
        let spec = json!({
            "store": { "url": url },
            "vnodes": 4,
            "fence": { "leaseRef": { "name": "leader" } },
            "retention": { "keepLast": 1 },
            "prune": { "minAge": "0s" },
        });
        let policy = Policy::apply(cluster, &namespace, name, spec).await?;
        let (_, message) = policy.wait_for("StoreReady", "InvalidConfiguration").await?;
        ensure!(message.contains("--allow-file-root"), "{message}");
        policy.ask("prune@1").await?;
        policy.wait_for("StoreReady", "InvalidConfiguration").await?;
    }
    ensure!(other.sealed().await? == [1, 2, 3]);
    ensure!(!other.path()?.join("_epochwarden").exists(), "something was written outside of the allowed folders");
    Ok(())
}
