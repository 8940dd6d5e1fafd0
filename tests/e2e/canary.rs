//! No secret value ever leaves: planted in every credential, and searched for in everything that a full run says at its most talkative.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use epochwarden_testkit::apiserver::Cluster;
use epochwarden_testkit::s3server::S3Server;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::support::bucket::Bucket;
use crate::support::lease::Leader;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{SOON, cluster, say, secret_of};

/// A store that refuses everything and repeats what it was sent: the worst that a server can do to a secret.
struct Parrot {
    address: String,
    task: AbortHandle,
}

impl Parrot {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let connections = Arc::new(tokio::sync::Semaphore::new(64));
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
                tokio::spawn(async move {
                    let _permit = permit;
                    let mut request = vec![0; 64 * 1024];
                    let Ok(length) = stream.read(&mut request).await else { return };
                    let repeated = String::from_utf8_lossy(request.get(..length).unwrap_or_default()).into_owned();
                    let body = format!("<Error><Code>AccessDenied</Code><Message>{repeated}</Message></Error>");
                    let answer = format!(
                        "HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                        body.len()
                    );
                    // A client that has gone has heard enough.
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        Ok(Self { address, task: task.abort_handle() })
    }
}

impl Drop for Parrot {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The values that must not be found, each with where it was planted.
#[derive(Default)]
struct Canaries(Vec<(String, String)>);

impl Canaries {
    /// A new secret.
    fn plant(&mut self, place: &str) -> String {
        let value = format!("canary{}", uuid::Uuid::new_v4().simple());
        self.add(place, &value);
        value
    }

    fn add(&mut self, place: &str, value: &str) {
        self.0.push((place.to_owned(), value.to_owned()));
    }

    fn search(&self, text: &str, of: &str) -> Result<()> {
        for (place, value) in &self.0 {
            let Some(at) = text.find(value.as_str()) else { continue };
            let line = text.get(..at).unwrap_or_default().lines().count();
            anyhow::bail!("the secret of {place} is in {of}, line {line}");
        }
        Ok(())
    }
}

/// A key of a service account, as it is downloaded, whose tokens come from the parrot.
fn service_account(canaries: &mut Canaries, parrot: &Parrot) -> Result<String> {
    let generated = Command::new("openssl").args(["genrsa", "2048"]).output()?;
    let private_key = String::from_utf8(generated.stdout)?;
    // A line from the middle of the key: neither its frame nor its end.
    let line = private_key.lines().nth(5).context("a private key of many lines")?.to_owned();
    canaries.add("google_service_account_key", &line);
    let key = json!({
        "type": "service_account",
        "private_key": private_key,
        "private_key_id": canaries.plant("private_key_id"),
        "client_email": "state@example.iam.gserviceaccount.com",
        "token_uri": format!("{}/token", parrot.address),
    });
    Ok(key.to_string())
}

/// Everything that the cluster shows of a namespace.
async fn shown(cluster: &Cluster, namespace: &str) -> Result<String> {
    let mut all = String::new();
    for args in [
        &["get", "sep", "-o", "yaml"][..],
        &["get", "sep", "-o", "wide"],
        &["describe", "sep"],
        &["get", "events.events.k8s.io", "-o", "yaml"],
    ] {
        let line: Vec<&str> = ["-n", namespace].into_iter().chain(args.iter().copied()).collect();
        let output = cluster.kubectl(&line).await?;
        ensure!(output.status.success(), "{args:?}: {}", output.stderr);
        writeln!(all, "{}", output.stdout)?;
    }
    Ok(all)
}

fn aws(url: &str, endpoint: &str, secret: &str) -> Value {
    json!({
        "url": url,
        "options": { "aws_region": "us-east-1", "aws_endpoint": endpoint, "aws_allow_http": "true" },
        "credentials": { "secretRef": { "name": secret } },
    })
}

/// The name of a Secret and its entries.
type Planted = (&'static str, Vec<(&'static str, String)>);

/// Credentials of every kind, each with a secret in it.
fn plant(canaries: &mut Canaries, server: &S3Server, parrot: &Parrot) -> Result<Vec<Planted>> {
    let account_key = data_encoding(&canaries.plant("azure_storage_account_key, before it was encoded"));
    canaries.add("azure_storage_account_key", &account_key);
    let signature = canaries.plant("azure_storage_sas_token");
    let sse = data_encoding("0123456789abcdef0123456789abcdef");
    canaries.add("aws_sse_customer_key_base64", &sse);
    Ok(vec![
        (
            "works",
            vec![
                ("aws_access_key_id", server.access_key().to_owned()),
                ("aws_secret_access_key", server.secret_key().to_owned()),
            ],
        ),
        (
            "refused",
            vec![
                ("aws_access_key_id", canaries.plant("aws_access_key_id")),
                ("aws_secret_access_key", canaries.plant("aws_secret_access_key")),
                ("aws_session_token", canaries.plant("aws_session_token")),
            ],
        ),
        (
            "customer-key",
            vec![
                ("aws_access_key_id", "AKIDEXAMPLE".to_owned()),
                ("aws_secret_access_key", canaries.plant("aws_secret_access_key beside a customer key")),
                ("aws_sse_customer_key_base64", sse),
            ],
        ),
        ("google", vec![("google_service_account_key", service_account(canaries, parrot)?)]),
        (
            "google-broken",
            vec![("google_service_account_key", canaries.plant("a key of a service account that is none"))],
        ),
        ("azure-key", vec![("azure_storage_account_key", account_key)]),
        ("azure-key-broken", vec![("azure_storage_account_key", canaries.plant("an account key that is not base64"))]),
        ("azure-sas", vec![("azure_storage_sas_token", format!("?sv=2024-01-01&ss=b&sp=rwdl&sig={signature}"))]),
        // All three together would be sent to the authority of Azure, which no policy can change, and no test may reach.
        (
            "azure-half",
            vec![
                ("azure_storage_client_id", canaries.plant("azure_storage_client_id")),
                ("azure_storage_client_secret", canaries.plant("azure_storage_client_secret")),
            ],
        ),
        ("azure-tenant", vec![("azure_storage_tenant_id", canaries.plant("azure_storage_tenant_id"))]),
        ("unknown-key", vec![("password", canaries.plant("a key that is not allowed"))]),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_logs_status_events_metrics_or_what_commands_print() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("canary").await?;
    let parrot = Parrot::start().await?;
    let server = S3Server::shared().await?;
    let bucket = Bucket::s3("canary").await?;
    bucket.seal(1..=6, 2).await?;
    bucket.lose_partial(5, 1).await?;
    let mut canaries = Canaries::default();
    canaries.add("the secret key of a store that works", server.secret_key());

    let secrets = plant(&mut canaries, server, &parrot)?;
    for (name, entries) in &secrets {
        let entries: Vec<(&str, &str)> = entries.iter().map(|(key, value)| (*key, value.as_str())).collect();
        secret_of(cluster, &namespace, name, &entries).await?;
    }

    let operator = Operator::start_talkative(cluster, &namespace, &[]).await?;
    let leader = Leader::new(cluster.client().await?, &namespace, "leader");
    leader.lead("pod-a", 0).await?;
    let works = json!({
        "store": bucket.store(Some("works")),
        "vnodes": 2,
        "fence": { "leaseRef": { "name": "leader" } },
        "retention": { "keepLast": 2 },
        "prune": { "minAge": "0s" },
    });
    let works = Policy::apply(cluster, &namespace, "works", works).await?;
    let google = |secret: &str| {
        json!({
            "url": "gs://state/orders",
            "options": { "google_base_url": parrot.address, "allow_http": "true" },
            "credentials": { "secretRef": { "name": secret } },
        })
    };
    let azure = |secret: &str| {
        json!({
            "url": "az://state/orders",
            "options": {
                "azure_storage_account_name": "account",
                "azure_storage_endpoint": format!("{}/account", parrot.address),
                "allow_http": "true",
            },
            "credentials": { "secretRef": { "name": secret } },
        })
    };
    let mut others = Vec::new();
    for (name, store) in [
        ("refused", aws("s3://state/refused", &parrot.address, "refused")),
        ("wrong-key", aws(&bucket.url, &server.endpoint(), "refused")),
        ("customer-key", aws("s3://state/sse", &parrot.address, "customer-key")),
        ("google", google("google")),
        ("google-broken", google("google-broken")),
        ("azure-key", azure("azure-key")),
        ("azure-key-broken", azure("azure-key-broken")),
        ("azure-sas", azure("azure-sas")),
        ("azure-half", azure("azure-half")),
        ("azure-tenant", azure("azure-tenant")),
        ("unknown-key", aws("s3://state/unknown", &parrot.address, "unknown-key")),
    ] {
        let spec = json!({ "store": store, "vnodes": 2, "fence": { "leaseRef": { "name": "leader" } } });
        others.push(Policy::apply(cluster, &namespace, name, spec).await?);
    }

    works.wait_for("FenceCurrent", "Published").await?;
    works.ask("prune@1").await?;
    works.wait_for("PruneHealthy", "Succeeded").await?;
    works.ask("audit@1").await?;
    works.wait_for("AuditClean", "Findings").await?;
    for other in &others {
        other
            .wait_until("a store that cannot be used", |status| {
                let ready =
                    status["conditions"].as_array()?.iter().find(|condition| condition["type"] == "StoreReady")?;
                (ready["status"] == "False").then_some(())
            })
            .await?;
    }

    canaries.search(&shown(cluster, &namespace).await?, "what the cluster shows")?;
    let log = operator.log();
    let (_, metrics) = operator.get("/metrics").await?;
    canaries.search(&metrics, "the metrics")?;
    for verb in commands(&bucket, &parrot, &secrets)? {
        canaries.search(&verb.1, &format!("what `{}` prints", verb.0))?;
    }
    operator.terminate(SOON).await?;
    // And in the middle of a run, with all credentials in memory, a fault.
    let faulty = [("RUST_LOG", "trace"), ("RUST_BACKTRACE", "full"), ("EPOCHWARDEN_PANIC_AT", "audit-listed")];
    let operator = Operator::start_with(cluster, &namespace, &[], &faulty).await?;
    works.ask("audit@2").await?;
    works.wait_for("AuditClean", "Failed").await?;
    canaries.search(&shown(cluster, &namespace).await?, "what the cluster shows after a panic")?;
    let fallen = operator.log();
    ensure!(fallen.contains("panicked") && fallen.contains("audit"), "nothing panicked");
    canaries.search(&fallen, "the log of an operator that panicked")?;
    ensure!(log.contains("TRACE"), "the operator is not at its most talkative");
    canaries.search(&log, "the log")?;
    say(&format!("{} secrets were searched for in {} lines of log", canaries.0.len(), log.lines().count()))?;
    Ok(())
}

/// What the commands print, with the credentials in the environment and in flags: where they work, and where they are refused.
fn commands(bucket: &Bucket, parrot: &Parrot, secrets: &[Planted]) -> Result<Vec<(String, String)>> {
    let mut printed = Vec::new();
    let entries = |name: &str| secrets.iter().find(|(known, _)| *known == name).map(|(_, entries)| entries.clone());
    let endpoint = bucket.options.iter().find(|(key, _)| key == "aws_endpoint").context("an endpoint")?.1.clone();
    for (name, url, endpoint) in
        [("works", bucket.url.as_str(), endpoint.as_str()), ("refused", "s3://state/orders", parrot.address.as_str())]
    {
        for verb in ["epochs", "latest", "audit --vnodes 2", "plan --vnodes 2 --keep-last 1", "fence show", "probe"] {
            let mut command = Command::new(PathBuf::from(env!("CARGO_BIN_EXE_epochwarden")));
            command.args(verb.split_whitespace()).args(["--store", url]).env("RUST_LOG", "trace");
            for (key, value) in [("aws_endpoint", endpoint), ("aws_region", "us-east-1"), ("aws_allow_http", "true")] {
                command.arg("--store-option").arg(format!("{key}={value}"));
            }
            for (key, value) in entries(name).context("credentials")? {
                // One by the environment, the others by a flag.
                if key == "aws_secret_access_key" {
                    command.env("AWS_SECRET_ACCESS_KEY", value);
                } else {
                    command.arg("--store-option").arg(format!("{key}={value}"));
                }
            }
            let output = command.output()?;
            let text =
                [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
            printed.push((format!("{verb} ({name})"), text));
        }
    }
    Ok(printed)
}

/// Base64, for the credentials that are written so.
fn data_encoding(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[((bits >> (18 - 6 * place)) & 63) as usize];
            encoded.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    encoded
}
