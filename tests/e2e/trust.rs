//! Whether a store can be trusted, and whether it trusts us: probes, Secrets and certificates.

use std::time::Duration;

use anyhow::{Result, ensure};
use epochwarden_testkit::apiserver::Cluster;
use epochwarden_testkit::proxy::{Answer, Proxy};
use epochwarden_testkit::s3server::S3Server;
use epochwarden_testkit::wait::until;
use object_store::ObjectStoreExt;
use serde_json::{Value, json};

use crate::support::bucket::Bucket;
use crate::support::lease::Leader;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::users::Users;
use crate::support::{SOON, cluster, secret, secret_of};

/// A policy that fences, and that prunes when it is asked to.
fn spec(store: &Value) -> Value {
    json!({
        "store": store,
        "vnodes": 4,
        "fence": { "leaseRef": { "name": "orders-leader" } },
        "retention": { "keepLast": 1 },
        "prune": { "minAge": "0s" },
    })
}

async fn desk(prefix: &str) -> Result<(&'static Cluster, String, Operator)> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace(prefix).await?;
    let operator = Operator::start(cluster, &namespace, &[]).await?;
    Ok((cluster, namespace, operator))
}

async fn kubectl(cluster: &Cluster, namespace: &str, args: &[&str]) -> Result<()> {
    let mut all = vec!["-n", namespace];
    all.extend(args);
    let done = cluster.kubectl(&all).await?;
    ensure!(done.status.success(), "kubectl {args:?}: {}", done.stderr);
    Ok(())
}

/// Other entries in the same Secret.
async fn rewrite_secret(cluster: &Cluster, namespace: &str, name: &str, entries: &[(&str, &str)]) -> Result<()> {
    kubectl(cluster, namespace, &["delete", "secret", name]).await?;
    secret_of(cluster, namespace, name, entries).await
}

#[tokio::test]
async fn a_store_that_lets_two_writers_create_one_key_is_unsafe_and_nothing_more_is_written() -> Result<()> {
    let (cluster, namespace, _operator) = desk("unsafe").await?;
    let bucket = Bucket::s3(&namespace).await?;
    bucket.seal(1..=3, 4).await?;
    secret(cluster, &namespace, "orders-state", &bucket).await?;
    // What a gateway does that does not know the condition: every create succeeds.
    let proxy = Proxy::to(&S3Server::shared().await?.endpoint())?;
    let lie = |answer: Answer| match answer.status {
        409 | 412 => Answer::new(200).header("ETag", "\"0\""),
        _ => answer,
    };
    proxy.on("PUT", "*").rewrite(lie);
    let mut store = bucket.store(Some("orders-state"));
    store["options"]["aws_endpoint"] = json!(proxy.url());
    Leader::new(cluster.client().await?, &namespace, "orders-leader").lead("pod-a", 0).await?;
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&store)).await?;

    let (status, message) = policy.wait_for("StoreReady", "UnsafeStore").await?;
    ensure!(status == "False" && !message.is_empty(), "{message}");
    policy.wait_for("Ready", "UnsafeStore").await?;
    policy.wait_for("Stalled", "UnsafeStore").await?;
    policy.wait_for("FenceCurrent", "StoreNotReady").await?;
    let store = policy.status().await?["store"].clone();
    ensure!(store["capabilities"]["conditionalCreate"] == false && store["probedAt"].is_string(), "{store}");
    policy.ask("prune").await?;
    let keys = bucket.own_keys().await?;
    ensure!(keys == ["_epochwarden/owner/00000000000000000001"], "{keys:?}");
    ensure!(bucket.sealed().await? == [1, 2, 3]);

    // Somebody has replaced the gateway, and says so.
    proxy.clear();
    policy.ask("probe@gateway-replaced").await?;
    policy.wait_for("Ready", "Reachable").await?;
    policy.wait_for("FenceCurrent", "Published").await?;
    let status = policy.status().await?;
    ensure!(status["store"]["capabilities"]["conditionalCreate"] == true, "{}", status["store"]);
    Ok(())
}

#[tokio::test]
async fn a_probe_that_is_asked_for_is_in_the_status_and_leaves_nothing_behind() -> Result<()> {
    let (cluster, namespace, _operator) = desk("probe").await?;
    let bucket = Bucket::s3(&namespace).await?;
    secret(cluster, &namespace, "orders-state", &bucket).await?;
    let store = bucket.store(Some("orders-state"));
    // It has nothing to write by itself.
    let reads = json!({ "store": store, "vnodes": 4 });
    let policy = Policy::apply(cluster, &namespace, "orders", reads).await?;
    policy.wait_for("Ready", "Reachable").await?;
    ensure!(policy.status().await?["store"]["capabilities"].is_null());
    ensure!(bucket.own_keys().await?.is_empty());

    policy.ask("probe@1").await?;
    let asked = |request: &'static str| {
        move |status: &Value| {
            (status["lastRunRequest"] == request).then(|| (status["store"].clone(), status["history"].clone()))
        }
    };
    let (store, history) = policy.wait_until("the answer to the first request", asked("probe@1")).await?;
    let first = store["probedAt"].as_str().map(str::to_owned);
    for capability in ["conditionalCreate", "consistentList", "bulkDelete", "delimiterIndex"] {
        ensure!(store["capabilities"][capability] == true, "{store}");
    }
    ensure!(history.is_null() && first.is_some(), "{store} {history}");
    ensure!(bucket.own_keys().await?.iter().all(|key| !key.contains("probe")));

    policy.ask("probe@2").await?;
    let (store, _) = policy.wait_until("the answer to the second request", asked("probe@2")).await?;
    ensure!(store["probedAt"].as_str().map(str::to_owned) > first, "{store}");
    Ok(())
}

/// A prune whose key is revoked between its listing and its first delete. `first` is what happens to the Secret before that.
async fn revoked_in_the_middle(prefix: &str, secret_first: bool) -> Result<()> {
    let (cluster, namespace, _operator) = desk(prefix).await?;
    let users = Users::start().await?;
    let bucket = users.bucket(&namespace)?;
    bucket.seal(1..=5, 4).await?;
    let (old, new) = (users.add("old")?, users.add("new")?);
    secret_of(cluster, &namespace, "orders-state", &old).await?;
    let proxy = Proxy::to(&users.url())?;
    let mut store = bucket.store(Some("orders-state"));
    store["options"]["aws_endpoint"] = json!(proxy.url());
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&store)).await?;
    policy.wait_for("Ready", "Reachable").await?;

    let deleting = proxy.on("POST", "*delete*").once().delay(Duration::from_secs(3));
    policy.ask("prune").await?;
    until("the first delete", SOON, async || (deleting.count() == 1).then_some(())).await?;
    if secret_first {
        rewrite_secret(cluster, &namespace, "orders-state", &new).await?;
    }
    users.revoke("old")?;
    let failed = policy.wait_until("the end of the run", |status| {
        let run = status["history"].as_array()?.last()?.clone();
        (run["kind"] == "Prune").then_some(run)
    });
    let failed = failed.await?;
    ensure!(
        failed["result"] == "PartlyFailed" || failed["result"] == "Failed" || failed["result"] == "Stopped",
        "{failed}"
    );
    if !secret_first {
        policy.wait_for("StoreReady", "AccessDenied").await?;
        ensure!(bucket.sealed().await? == [1, 2, 3, 4, 5]);
        rewrite_secret(cluster, &namespace, "orders-state", &new).await?;
    }
    // There is no schedule, and nobody asks again.
    policy.wait_for("PruneHealthy", "Succeeded").await?;
    ensure!(bucket.sealed().await? == [5]);
    policy.wait_for("Ready", "Reachable").await?;
    let history = policy.status().await?["history"].clone();
    ensure!(history.as_array().is_some_and(|runs| runs.len() == 2), "{history:#}");
    Ok(())
}

#[tokio::test]
async fn a_prune_whose_key_is_revoked_goes_on_as_soon_as_there_is_another() -> Result<()> {
    revoked_in_the_middle("revoked", false).await
}

#[tokio::test]
async fn a_prune_whose_key_was_replaced_before_it_was_revoked_goes_on_at_once() -> Result<()> {
    revoked_in_the_middle("replaced", true).await
}

#[tokio::test]
async fn a_secret_that_is_deleted_stops_everything_until_it_is_back() -> Result<()> {
    let (cluster, namespace, _operator) = desk("deleted").await?;
    let bucket = Bucket::s3(&namespace).await?;
    bucket.seal(1..=3, 4).await?;
    secret(cluster, &namespace, "orders-state", &bucket).await?;
    let leader = Leader::new(cluster.client().await?, &namespace, "orders-leader");
    leader.lead("pod-a", 0).await?;
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket.store(Some("orders-state")))).await?;
    policy.wait_for("FenceCurrent", "Published").await?;
    kubectl(cluster, &namespace, &["delete", "secret", "orders-state"]).await?;
    policy.ask("prune").await?;
    let (_, message) = policy.wait_for("StoreReady", "SecretNotFound").await?;
    ensure!(message.contains("orders-state"), "{message}");
    policy.wait_for("Reconciling", "SecretNotFound").await?;
    policy.wait_for("FenceCurrent", "StoreNotReady").await?;
    leader.lead("pod-b", 1).await?;
    policy.ask("prune@2").await?;
    ensure!(bucket.sealed().await? == [1, 2, 3] && bucket.fence().await? == 1);
    secret(cluster, &namespace, "orders-state", &bucket).await?;
    policy.wait_for("PruneHealthy", "Succeeded").await?;
    policy.wait_for("FenceCurrent", "Published").await?;
    ensure!(bucket.sealed().await? == [3] && bucket.fence().await? == 2);
    Ok(())
}

#[tokio::test]
async fn a_store_behind_a_private_authority_needs_its_certificate_and_says_what_is_wrong_with_it() -> Result<()> {
    let (cluster, namespace, _operator) = desk("ca").await?;
    let server = S3Server::with_tls().await?;
    server.create_bucket(&namespace)?;
    let mut store = json!({
        "url": format!("s3://{namespace}/state"),
        "options": { "aws_endpoint": server.endpoint(), "aws_region": "us-east-1" },
        "credentials": { "secretRef": { "name": "orders-state" } },
    });
    let keys = [("aws_access_key_id", server.access_key()), ("aws_secret_access_key", server.secret_key())];
    secret_of(cluster, &namespace, "orders-state", &keys).await?;
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&store)).await?;
    let (_, message) = policy.wait_for("StoreReady", "InvalidConfiguration").await?;
    ensure!(message.contains("certificate"), "{message}");

    store["ca"] = json!({ "secretRef": { "name": "store-ca" } });
    policy.update(spec(&store)).await?;
    let (_, message) = policy.wait_for("StoreReady", "SecretNotFound").await?;
    ensure!(message.contains("store-ca") && message.contains("spec.store.ca"), "{message}");

    secret_of(cluster, &namespace, "store-ca", &[("tls.crt", server.ca().unwrap_or_default())]).await?;
    let key_missing = policy.wait_until("the missing key", |status| {
        let conditions = status["conditions"].as_array()?;
        let ready = conditions.iter().find(|condition| condition["type"] == "StoreReady")?;
        let told = ready["message"].as_str()?.contains("ca.crt") && ready["reason"] == "SecretNotFound";
        told.then_some(())
    });
    key_missing.await?;

    rewrite_secret(cluster, &namespace, "store-ca", &[("ca.crt", "not a certificate")]).await?;
    let (_, message) = policy.wait_for("StoreReady", "InvalidConfiguration").await?;
    ensure!(message.contains("store-ca") && message.contains("PEM"), "{message}");
    let garbled = "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";
    rewrite_secret(cluster, &namespace, "store-ca", &[("ca.crt", garbled)]).await?;
    policy.wait_for("StoreReady", "InvalidConfiguration").await?;

    rewrite_secret(cluster, &namespace, "store-ca", &[("ca.crt", server.ca().unwrap_or_default())]).await?;
    policy.wait_for("Ready", "Reachable").await?;
    store["ca"] = json!({ "secretRef": { "name": "store-ca", "key": "another" } });
    policy.update(spec(&store)).await?;
    policy.wait_for("StoreReady", "SecretNotFound").await?;
    Ok(())
}

#[tokio::test]
async fn the_operators_own_credentials_are_for_the_urls_of_the_flag_and_not_for_another_tenants() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("ambient").await?;
    let (server, bucket) = (S3Server::shared().await?, Bucket::s3(&namespace).await?);
    let own = [("AWS_ACCESS_KEY_ID", server.access_key()), ("AWS_SECRET_ACCESS_KEY", server.secret_key())];
    let flags = ["--allow-ambient-credentials", bucket.url.as_str(), "--allow-endpoint", "127.0.0.1"];
    let _operator = Operator::start_with(cluster, &namespace, &flags, &own).await?;
    let allowed = Policy::apply(cluster, &namespace, "allowed", spec(&bucket.store(None))).await?;
    allowed.wait_for("Ready", "Reachable").await?;

    // Nobody answers there: whoever was asked with the operator's key would be told of it.
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    for (name, url) in [("beside", format!("{}-of-others", bucket.url)), ("tenant", "s3://another-tenant/state".into())]
    {
        let mut store = bucket.store(None);
        store["url"] = json!(url);
        store["options"]["aws_endpoint"] = json!(format!("http://{}", listener.local_addr()?));
        let refused = Policy::apply(cluster, &namespace, name, spec(&store)).await?;
        let (_, message) = refused.wait_for("StoreReady", "CredentialsNotAllowed").await?;
        ensure!(message.contains(&url), "{message}");
        refused.wait_for("Stalled", "CredentialsNotAllowed").await?;
    }
    // An allowed URL says nothing of the server behind it: a tenant's own one is not told the operator's key.
    let mut store = bucket.store(None);
    store["options"]["aws_endpoint"] = json!(format!("http://localhost:{}", listener.local_addr()?.port()));
    let refused = Policy::apply(cluster, &namespace, "elsewhere", spec(&store)).await?;
    let (_, message) = refused.wait_for("StoreReady", "CredentialsNotAllowed").await?;
    ensure!(message.contains("aws_endpoint"), "{message}");
    ensure!(listener.accept().is_err(), "a connection was made");
    Ok(())
}

#[tokio::test]
async fn a_root_with_a_newer_layout_is_left_alone_until_it_has_none() -> Result<()> {
    let (cluster, namespace, _operator) = desk("layout").await?;
    let bucket = Bucket::s3(&namespace).await?;
    bucket.seal(1..=3, 4).await?;
    secret(cluster, &namespace, "orders-state", &bucket).await?;
    let leader = Leader::new(cluster.client().await?, &namespace, "orders-leader");
    leader.lead("pod-a", 0).await?;
    let mut spec = spec(&bucket.store(Some("orders-state")));
    // A check that came first would have the prune wait for the store, and go when the mark is gone.
    spec["audit"]["sealCheckEvery"] = json!("0s");
    let policy = Policy::apply(cluster, &namespace, "orders", spec).await?;
    policy.wait_for("FenceCurrent", "Published").await?;
    // A pipeline of tomorrow writes another kind of seal, which a prune meets; the root of another one shows it at its top.
    for key in ["epoch=4/_SEAL", "state-v2/manifest"] {
        let path = bucket.root.path(key)?;
        bucket.root.store().put(&path, "of tomorrow".into()).await?;
        policy.ask(&format!("prune@{}", key.len())).await?;
        let (status, message) = policy.wait_for("StoreReady", "UnknownLayout").await?;
        ensure!(status == "False" && message.contains("upgrade"), "{message}");
        policy.wait_for("Ready", "UnknownLayout").await?;
        policy.wait_for("Stalled", "UnknownLayout").await?;
        policy.wait_for("FenceCurrent", "StoreNotReady").await?;
        ensure!(bucket.sealed().await? == [1, 2, 3]);
        bucket.root.store().delete(&path).await?;
        policy.wait_for("Ready", "Reachable").await?;
        policy.wait_for("FenceCurrent", "Published").await?;
    }
    policy.ask("prune@last").await?;
    policy.wait_for("PruneHealthy", "Succeeded").await?;
    ensure!(bucket.sealed().await? == [3]);
    Ok(())
}
