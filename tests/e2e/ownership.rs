//! Whose root it is: the first policy's, until a person says otherwise, once.

use anyhow::{Context, Result, ensure};
use epochwarden_core::register::OwnerRecord;
use epochwarden_store::Registers;
use epochwarden_testkit::apiserver::Cluster;
use epochwarden_testkit::wait::until;
use serde_json::{Value, json};

use crate::support::bucket::Bucket;
use crate::support::lease::Leader;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{SOON, cluster, secret};

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

/// Two policies of one name in two namespaces of one operator, and the folder that both want.
struct Rivals {
    cluster: &'static Cluster,
    bucket: Bucket,
    namespaces: [String; 2],
    flags: Vec<String>,
}

impl Rivals {
    async fn meet(prefix: &str) -> Result<Self> {
        let cluster = cluster().await?;
        let namespaces = [cluster.namespace(prefix).await?, cluster.namespace(prefix).await?];
        let bucket = Bucket::folder()?;
        let root = bucket.path()?.display().to_string();
        let flags = ["--watch-namespace", &namespaces[1], "--allow-file-root", &root].map(str::to_owned).into();
        Ok(Self { cluster, bucket, namespaces, flags })
    }

    async fn operator(&self, environment: &[(&str, &str)]) -> Result<Operator> {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        Operator::start_with(self.cluster, &self.namespaces[0], &flags, environment).await
    }

    async fn leader(&self, namespace: &str) -> Result<Leader> {
        Ok(Leader::new(self.cluster.client().await?, namespace, "orders-leader"))
    }

    async fn apply(&self, namespace: &str) -> Result<Policy<'static>> {
        Policy::apply(self.cluster, namespace, "orders", spec(&self.bucket.store(None))).await
    }
}

async fn uid(policy: &Policy<'_>) -> Result<String> {
    policy.kubectl(&["get", "sep", &policy.name, "-o", "jsonpath={.metadata.uid}"]).await
}

/// Runs the command that a message ends with, as a person would who copies it.
async fn follow(cluster: &Cluster, message: &str) -> Result<()> {
    let (_, command) = message.split_once("kubectl ").with_context(|| format!("no command in {message:?}"))?;
    let ran = cluster.kubectl(&command.split_whitespace().collect::<Vec<_>>()).await?;
    ensure!(ran.status.success(), "{command}: {}", ran.stderr);
    Ok(())
}

async fn published(policy: &Policy<'_>, version: u64) -> Result<()> {
    let what = format!("the fence of {} at {version}", policy.namespace);
    policy
        .wait_until(&what, |status| {
            let current = status["conditions"]
                .as_array()?
                .iter()
                .any(|condition| condition["type"] == "FenceCurrent" && condition["reason"] == "Published");
            (current && status["fence"]["version"] == version).then_some(())
        })
        .await
}

#[tokio::test]
async fn the_later_of_two_policies_writes_nothing_until_it_is_told_to_take_over_and_then_the_first_stops() -> Result<()>
{
    let rivals = Rivals::meet("rivals").await?;
    let [one, two] = &rivals.namespaces;
    let (bucket, cluster) = (&rivals.bucket, rivals.cluster);
    bucket.seal(1..=3, 4).await?;
    let operator = rivals.operator(&[]).await?;
    let (leader_one, leader_two) = (rivals.leader(one).await?, rivals.leader(two).await?);
    leader_one.lead("one-a", 0).await?;
    leader_two.lead("two-a", 4).await?;
    let first = rivals.apply(one).await?;
    published(&first, 1).await?;
    let written = bucket.own_keys().await?;
    ensure!(written.len() == 2, "{written:?}");

    // The later one has a leader, and is asked to prune and to probe: nothing comes of it.
    let second = rivals.apply(two).await?;
    let (_, message) = second.wait_for("StoreReady", "RootConflict").await?;
    ensure!(message.contains(&format!("policy {one}/orders (uid {})", uid(&first).await?)), "{message}");
    second.wait_for("Ready", "RootConflict").await?;
    second.wait_for("Stalled", "RootConflict").await?;
    second.wait_for_event("RootConflict").await?;
    second.wait_for("FenceCurrent", "StoreNotReady").await?;
    second.ask("probe").await?;
    second.ask("prune").await?;
    leader_two.lead("two-b", 5).await?;
    // The first one, meanwhile, goes on.
    leader_one.lead("one-b", 1).await?;
    published(&first, 2).await?;
    let written = bucket.own_keys().await?;
    ensure!(written.len() == 3 && written.iter().all(|key| !key.contains("probe")), "{written:?}");
    ensure!(bucket.sealed().await? == [1, 2, 3]);
    ensure!(second.status().await?["store"]["capabilities"].is_null(), "it was probed");

    // A person says so, in the words of the message.
    follow(cluster, &message).await?;
    second.wait_for("Ready", "Reachable").await?;
    published(&second, 6).await?;
    let taken = second.status().await?["lastTakeOver"].clone();
    ensure!(taken == uid(&first).await?, "{taken}");
    let (_, record) = Registers::new(bucket.root.clone(), "test").owner().await?.context("an owner")?;
    let record = record.readable().context("a record")?;
    ensure!(record.uid == uid(&second).await? && record.take_over.as_deref() == taken.as_str(), "{record:?}");

    // The first one may publish once more before it notices, and never again.
    leader_one.lead("one-c", 6).await?;
    let (_, message) = first.wait_for("StoreReady", "RootConflict").await?;
    ensure!(message.contains(&format!("policy {two}/orders")), "{message}");
    first.wait_for("FenceCurrent", "StoreNotReady").await?;
    let fence = bucket.fence().await?;
    leader_one.lead("one-d", 20).await?;
    first.ask("prune").await?;
    second.ask("prune").await?;
    second.wait_for("PruneHealthy", "Succeeded").await?;
    ensure!(bucket.sealed().await? == [3]);
    ensure!(bucket.fence().await? == fence, "the first one went on fencing");

    // The first one gets it back by its own word. The second one's word stands there still, and was honoured.
    follow(cluster, &message).await?;
    published(&first, 21).await?;
    second.ask("prune@again").await?;
    let (_, message) = second.wait_for("StoreReady", "RootConflict").await?;
    ensure!(message.contains("counts once"), "{message}");
    drop(operator);
    let _again = rivals.operator(&[]).await?;
    published(&first, 21).await?;
    let (_, message) = second.wait_for("StoreReady", "RootConflict").await?;
    ensure!(message.contains("counts once"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_take_over_in_whose_middle_the_operator_dies_is_honoured_once() -> Result<()> {
    let rivals = Rivals::meet("died").await?;
    let [one, two] = &rivals.namespaces;
    let bucket = &rivals.bucket;
    let operator = rivals.operator(&[]).await?;
    let first = rivals.apply(one).await?;
    first.wait_for("Ready", "Reachable").await?;
    let second = rivals.apply(two).await?;
    let (_, message) = second.wait_for("StoreReady", "RootConflict").await?;
    drop(operator);
    follow(rivals.cluster, &message).await?;

    // It dies when the record is durable and the status knows nothing of it.
    let flags: Vec<&str> = rivals.flags.iter().map(String::as_str).collect();
    let crash = [("EPOCHWARDEN_CRASH_AT", "owner-created")];
    let died = Operator::start_with(rivals.cluster, one, &flags, &crash).await;
    let registers = Registers::new(bucket.root.clone(), "test");
    let number = async || registers.read().await.ok().map(|reading| reading.owner).filter(|number| *number == 2);
    until("the owner record", SOON, number).await?;
    drop(died);
    ensure!(second.status().await?["lastTakeOver"].is_null(), "it was written down before the end");

    let _operator = rivals.operator(&[]).await?;
    second.wait_for("Ready", "Reachable").await?;
    let taken = second.wait_until("the word", |status| status["lastTakeOver"].as_str().map(str::to_owned)).await?;
    ensure!(taken == uid(&first).await?, "{taken}");
    first.wait_for("StoreReady", "RootConflict").await?;
    ensure!(registers.read().await?.owner == 2, "one record is one take-over");
    Ok(())
}

#[tokio::test]
async fn a_root_of_another_cluster_is_left_alone_and_a_word_about_somebody_else_changes_nothing() -> Result<()> {
    let rivals = Rivals::meet("abroad").await?;
    let (bucket, namespace) = (&rivals.bucket, &rivals.namespaces[0]);
    bucket.seal(1..=3, 4).await?;
    let abroad = OwnerRecord {
        cluster: "a-cluster-far-away".into(),
        namespace: namespace.clone(),
        name: "orders".into(),
        uid: "uid-far-away".into(),
        take_over: None,
    };
    Registers::new(bucket.root.clone(), "abroad").claim_owner(&abroad).await?;
    let _operator = rivals.operator(&[]).await?;
    let policy = rivals.apply(namespace).await?;
    let (_, message) = policy.wait_for("StoreReady", "RootConflict").await?;
    ensure!(message.contains("a-cluster-far-away") && message.contains("take-over=uid-far-away"), "{message}");

    policy.kubectl(&["annotate", "sep", "orders", "epochwarden.io/take-over=somebody-else"]).await?;
    let named = policy.wait_until("the word that names somebody else", |status| {
        let conditions = status["conditions"].as_array()?;
        let ready = conditions.iter().find(|condition| condition["type"] == "StoreReady")?;
        ready["message"].as_str().filter(|message| message.contains("somebody-else")).map(str::to_owned)
    });
    let message = named.await?;
    ensure!(bucket.own_keys().await?.len() == 1, "something was written");
    ensure!(policy.status().await?["lastTakeOver"].is_null());
    follow(rivals.cluster, &message).await?;
    policy.wait_for("Ready", "Reachable").await?;
    Ok(())
}

async fn nested_roots_leave_each_other_alone_on(outer: Bucket, flags: &[&str], prefix: &str) -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace(prefix).await?;
    let inner = outer.below("inner")?;
    outer.seal(1..=4, 4).await?;
    inner.seal(11..=14, 4).await?;
    // Of the inner root alone: what an audit of the outer one would find, if it looked there.
    inner.lose_partial(14, 2).await?;
    inner.seal(15..=15, 4).await?;
    let name = (!outer.options.is_empty()).then_some("orders-state");
    if let Some(name) = name {
        secret(cluster, &namespace, name, &outer).await?;
    }
    let _operator = Operator::start(cluster, &namespace, flags).await?;
    let mut spec = spec(&outer.store(name));
    spec["fence"] = Value::Null;
    let above = Policy::apply(cluster, &namespace, "above", spec.clone()).await?;
    spec["store"] = inner.store(name);
    let below = Policy::apply(cluster, &namespace, "below", spec).await?;
    above.wait_for("Ready", "Reachable").await?;
    below.wait_for("Ready", "Reachable").await?;

    above.ask("audit").await?;
    below.ask("audit").await?;
    above.wait_for("AuditClean", "Clean").await?;
    let (_, message) = below.wait_for("AuditClean", "Findings").await?;
    ensure!(message.contains("14"), "{message}");

    above.ask("prune").await?;
    above.wait_for("PruneHealthy", "Succeeded").await?;
    ensure!(outer.epochs().await? == [4] && inner.epochs().await? == [11, 12, 13, 14, 15]);
    below.ask("prune").await?;
    below.wait_for("PruneHealthy", "Succeeded").await?;
    ensure!(outer.epochs().await? == [4] && inner.epochs().await? == [15]);
    // Each has an owner of its own.
    for (policy, bucket) in [(&above, &outer), (&below, &inner)] {
        let owner = Registers::new(bucket.root.clone(), "test").owner().await?.context("an owner")?;
        ensure!(owner.1.readable().context("a record")?.name == policy.name);
    }
    Ok(())
}

#[tokio::test]
async fn policies_on_nested_roots_neither_delete_nor_audit_each_others_epochs() -> Result<()> {
    let folder = Bucket::folder()?;
    let path = folder.path()?.display().to_string();
    nested_roots_leave_each_other_alone_on(folder, &["--allow-file-root", &path], "nestdir").await?;
    let cluster = cluster().await?;
    let bucket = Bucket::s3(&cluster.namespace("nested").await?).await?;
    nested_roots_leave_each_other_alone_on(bucket, &[], "nests3").await
}
