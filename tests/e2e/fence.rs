//! The fence path: from a Lease to a durable record, and every reason why it does not move.

mod by_hand;
mod clocks;
mod half_open;

use std::time::Duration;

use anyhow::{Result, ensure};
use epochwarden_testkit::apiserver::Cluster;
use epochwarden_testkit::wait::until;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::bucket::Bucket;
use crate::support::lease::Leader;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{SOON, cluster, say};

/// A policy with a fence on a folder, its operator, and the Lease that it follows.
struct Stage {
    policy: Policy<'static>,
    bucket: Bucket,
    leader: Leader,
    operator: Operator,
}

impl Stage {
    async fn set(prefix: &str, version_from: &str) -> Result<Self> {
        let cluster = cluster().await?;
        let namespace = cluster.namespace(prefix).await?;
        let bucket = Bucket::folder()?;
        let leader = Leader::new(cluster.client().await?, &namespace, "orders-leader");
        Self::set_on(cluster, namespace, bucket, leader, version_from, None).await
    }

    async fn set_on(
        cluster: &'static Cluster,
        namespace: String,
        bucket: Bucket,
        leader: Leader,
        version_from: &str,
        secret: Option<&str>,
    ) -> Result<Self> {
        let root = bucket.path().map_or_else(|_| "/nonexistent".into(), |path| path.display().to_string());
        let operator =
            Operator::start(cluster, &namespace, &["--allow-file-root", &root, "--lease-poll", "2s"]).await?;
        let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket, version_from, secret)).await?;
        Ok(Self { policy, bucket, leader, operator })
    }

    async fn fence_is(&self, version: u64) -> Result<()> {
        until(&format!("the fence at {version}"), SOON, async || {
            (self.bucket.fence().await.ok()? == version).then_some(())
        })
        .await
    }
}

fn spec(bucket: &Bucket, version_from: &str, secret: Option<&str>) -> Value {
    json!({
        "store": bucket.store(secret),
        "vnodes": 4,
        "fence": { "leaseRef": { "name": "orders-leader" }, "versionFrom": version_from },
    })
}

#[tokio::test]
async fn the_fence_follows_the_lease_and_the_status_says_so() -> Result<()> {
    let stage = Stage::set("fence", "LeaseTransitions").await?;
    let (status, message) = stage.policy.wait_for("FenceCurrent", "LeaseNotFound").await?;
    ensure!(status == "False" && message.contains("orders-leader"), "{message}");

    stage.leader.lead("pod-a", 0).await?;
    stage.policy.wait_for("FenceCurrent", "Published").await?;
    stage.fence_is(1).await?;
    stage.leader.lead("pod-b", 1).await?;
    let fence = stage
        .policy
        .wait_until("the fence of pod-b", |status| {
            (status["fence"]["holder"] == "pod-b").then(|| status["fence"].clone())
        })
        .await?;
    ensure!(fence["version"] == 2 && fence["leaseTransitions"] == 1 && fence["lagMilliseconds"].is_u64(), "{fence}");
    stage.fence_is(2).await?;
    stage.policy.wait_for_event("FencePublished").await?;

    let (_, ready) = stage.policy.wait_for("Ready", "Reachable").await?;
    ensure!(ready.contains(&stage.bucket.url), "{ready}");
    let (_, metrics) = stage.operator.get("/metrics").await?;
    ensure!(
        metrics.contains(&format!(
            "epochwarden_fence_version{{namespace=\"{}\",policy=\"orders\"}} 2.0",
            stage.policy.namespace
        )),
        "{metrics}"
    );
    Ok(())
}

#[tokio::test]
async fn a_fence_is_durable_within_a_second_of_the_lease_change() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("lag").await?;
    let leader = Leader::new(cluster.client().await?, &namespace, "orders-leader");
    leader.lead("pod-0", 0).await?;
    let stage = Stage::set_on(cluster, namespace, Bucket::folder()?, leader, "LeaseTransitions", None).await?;
    stage.fence_is(1).await?;
    let mut lags = Vec::new();
    for change in 1..=20_i32 {
        let changed = Instant::now();
        stage.leader.lead(&format!("pod-{change}"), change).await?;
        let version = u64::try_from(change)? + 1;
        let record = stage.bucket.path()?.join(format!("_epochwarden/fence/{version:020}"));
        until(&format!("the record of version {version}"), SOON, async || record.exists().then_some(())).await?;
        lags.push(changed.elapsed());
    }
    lags.sort_unstable();
    let (median, worst) = (lags[lags.len() / 2], lags[lags.len() - 1]);
    say(&format!("from the change of the Lease to the durable fence, 20 times: median {median:?}, worst {worst:?}"))?;
    ensure!(worst < Duration::from_secs(1), "the worst took {worst:?}");
    Ok(())
}

#[tokio::test]
async fn a_lease_that_regresses_conflicts_jumps_or_is_free_moves_nothing_and_is_named() -> Result<()> {
    let stage = Stage::set("refused", "LeaseTransitions").await?;
    stage.leader.lead("pod-a", 4).await?;
    stage.fence_is(5).await?;

    stage.leader.lead("pod-z", 4).await?;
    let (status, message) = stage.policy.wait_for("FenceCurrent", "FenceConflict").await?;
    ensure!(status == "False" && message.contains("pod-a") && message.contains("pod-z"), "{message}");
    stage.policy.wait_for_event("FenceConflict").await?;

    stage.leader.release(4).await?;
    stage.policy.wait_for("FenceCurrent", "NoHolder").await?;

    stage.leader.lead("pod-b", 5_000_000).await?;
    stage.policy.wait_for("FenceCurrent", "VersionJump").await?;
    stage.policy.wait_for_event("VersionJump").await?;

    stage.leader.delete().await?;
    stage.policy.wait_for("FenceCurrent", "LeaseNotFound").await?;
    stage.leader.lead("pod-c", 0).await?;
    let (_, message) = stage.policy.wait_for("FenceCurrent", "LeaseRegressed").await?;
    ensure!(message.contains('5'), "{message}");
    stage.policy.wait_for_event("LeaseRegressed").await?;

    // The policy as a whole is in order: its store is, and nothing was lost.
    stage.policy.wait_for("Ready", "Reachable").await?;
    ensure!(stage.bucket.fence().await? == 5, "nothing of this may move the fence");
    Ok(())
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_expires_by_the_operators_own_clock() -> Result<()> {
    let mut stage = Stage::set("expired", "LeaseTransitions").await?;
    stage.leader.seconds = 2;
    stage.leader.lead("pod-a", 0).await?;
    stage.fence_is(1).await?;
    let (_, message) = stage.policy.wait_for("FenceCurrent", "LeaseExpired").await?;
    ensure!(message.contains("pod-a"), "{message}");
    stage.leader.lead("pod-b", 1).await?;
    stage.fence_is(2).await
}

#[tokio::test]
async fn a_declared_version_is_taken_from_the_annotation_and_a_malformed_one_is_named() -> Result<()> {
    let stage = Stage::set("declared", "Annotation").await?;
    stage.leader.lead("pod-a", 0).await?;
    let (_, message) = stage.policy.wait_for("FenceCurrent", "InvalidVersion").await?;
    ensure!(message.contains("epochwarden.io/assignment-version"), "{message}");
    stage.leader.declare("pod-a", 0, "07").await?;
    stage.policy.wait_for("FenceCurrent", "InvalidVersion").await?;
    stage.leader.declare("pod-a", 0, "7").await?;
    stage.fence_is(7).await
}

#[tokio::test]
async fn an_assigned_version_is_the_next_for_each_term_and_a_recreated_lease_is_one_more() -> Result<()> {
    let stage = Stage::set("assigned", "Assigned").await?;
    stage.leader.lead("orders-a-1f2e", 7).await?;
    stage.fence_is(1).await?;
    stage.policy.wait_for("FenceCurrent", "Published").await?;
    stage.leader.lead("orders-b-3c4d", 8).await?;
    stage.fence_is(2).await?;
    // The same process again, in a term of its own.
    stage.leader.lead("orders-b-3c4d", 9).await?;
    stage.fence_is(3).await?;

    // Deleted and created again, the Lease starts over: no version is below the fence, and nobody is locked out.
    stage.leader.delete().await?;
    stage.policy.wait_for("FenceCurrent", "LeaseNotFound").await?;
    stage.leader.lead("orders-b-3c4d", 0).await?;
    stage.fence_is(4).await?;
    stage.policy.wait_for("FenceCurrent", "Published").await?;
    let said = |status: &Value| (status["fence"]["version"] == 4).then(|| status["fence"].clone());
    let fence = stage.policy.wait_until("the fence of the new Lease", said).await?;
    ensure!(fence["holder"] == "orders-b-3c4d" && fence["leaseTransitions"] == 0, "{fence}");

    // What a person raised in between is followed by the next version.
    let by_hand = epochwarden_store::Registers::new(stage.bucket.root.clone(), "test");
    by_hand.publish_fence(epochwarden_core::Version::new(10), "somebody", None).await?;
    stage.leader.lead("orders-c-5e6f", 1).await?;
    stage.fence_is(11).await?;
    until("the message of version 11", SOON, async || {
        let (_, message) = stage.policy.wait_for("FenceCurrent", "Published").await.ok()?;
        (message.contains("11") && message.contains("orders-c-5e6f")).then_some(())
    })
    .await
}

#[tokio::test]
async fn two_operators_at_once_assign_one_version_to_each_term() -> Result<()> {
    let stage = Stage::set("both", "Assigned").await?;
    let root = stage.bucket.path()?.display().to_string();
    let cluster = cluster().await?;
    let _other = Operator::start(cluster, &stage.policy.namespace, &["--allow-file-root", &root]).await?;
    for term in 0..20 {
        let holder = format!("orders-{term}-{term:04x}");
        stage.leader.lead(&holder, term).await?;
        let (bucket, version) = (&stage.bucket, u64::try_from(term)? + 1);
        // What a leader does that waits for its version.
        let backend = epochwarden_store::ObjectStoreBackend::builder(bucket.root.prefixed_store())
            .instance_id(holder)
            .vnode_capacity(4)
            .build();
        let given = backend.await_leadership(SOON).await?;
        ensure!(given == version, "term {term} has version {given}");
    }
    let records = epochwarden_store::Registers::new(stage.bucket.root.clone(), "test").fence_records().await?;
    ensure!(records.len() == 20, "{records:#?}");
    let publishers: std::collections::BTreeSet<_> =
        records.into_iter().filter_map(|(_, record)| Some(record.readable()?.publisher)).collect();
    say(&format!("{} of two operators published some of the 20 terms", publishers.len()))?;
    Ok(())
}

#[tokio::test]
async fn a_version_that_the_numbering_has_no_epochs_for_is_not_published() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("numbered").await?;
    let bucket = Bucket::folder()?;
    let leader = Leader::new(cluster.client().await?, &namespace, "orders-leader");
    let root = bucket.path()?.display().to_string();
    let _operator = Operator::start(cluster, &namespace, &["--allow-file-root", &root, "--lease-poll", "2s"]).await?;
    let mut versioned = spec(&bucket, "LeaseTransitions", None);
    versioned["numbering"] = json!("Versioned");
    let policy = Policy::apply(cluster, &namespace, "orders", versioned).await?;
    leader.lead("orders-a-1f2e", 8_388_607).await?;
    let (status, message) = policy.wait_for("FenceCurrent", "InvalidVersion").await?;
    ensure!(status == "False" && message.contains("8388608") && message.contains("1..=8388607"), "{message}");
    ensure!(bucket.fence().await? == 0);
    leader.lead("orders-a-1f2e", 8_388_606).await?;
    policy.wait_for("FenceCurrent", "Published").await?;
    ensure!(bucket.fence().await? == 8_388_607);
    Ok(())
}

#[tokio::test]
async fn a_holder_that_is_named_as_its_pod_alone_is_warned_about() -> Result<()> {
    let stage = Stage::set("bare", "LeaseTransitions").await?;
    stage.leader.lead("orders-0", 0).await?;
    let (status, message) = stage.policy.wait_for("FenceCurrent", "Published").await?;
    ensure!(status == "True" && message.contains("bare name of a pod of a StatefulSet"), "{message}");
    stage.leader.lead("orders-0-3f2a9c41d07be6a2", 1).await?;
    stage.fence_is(2).await?;
    until("a message without a warning", SOON, async || {
        let (_, message) = stage.policy.wait_for("FenceCurrent", "Published").await.ok()?;
        (message.contains("3f2a") && !message.contains("bare")).then_some(())
    })
    .await
}

#[tokio::test]
async fn the_annotation_of_the_one_before_is_put_up_with_for_one_lease_duration_and_then_a_conflict() -> Result<()> {
    let mut stage = Stage::set("late", "Annotation").await?;
    stage.leader.declare("orders-a-1f2e", 0, "7").await?;
    stage.fence_is(7).await?;
    stage.policy.wait_for("FenceCurrent", "Published").await?;
    // At fail-over the annotation of the leader before stands beside the new holder.
    stage.leader.seconds = 5;
    stage.leader.declare("orders-b-3c4d", 1, "7").await?;
    let (_, message) = stage.policy.wait_for("FenceCurrent", "Pending").await?;
    ensure!(message.contains("orders-b-3c4d") && message.contains('7'), "{message}");
    stage.leader.declare("orders-b-3c4d", 1, "8").await?;
    stage.fence_is(8).await?;
    stage.policy.wait_for("FenceCurrent", "Published").await?;
    // A leader that renews and never declares has its predecessor's version.
    let renewing = async {
        loop {
            stage.leader.declare("orders-c-5e6f", 2, "8").await?;
            tokio::time::timeout(Duration::from_secs(1), std::future::pending::<()>()).await.ok();
        }
    };
    tokio::select! {
        ended = renewing => ended,
        told = stage.policy.wait_for("FenceCurrent", "FenceConflict") => {
            let (_, message) = told?;
            ensure!(message.contains("orders-b-3c4d") && message.contains("orders-c-5e6f"), "{message}");
            Ok(())
        }
    }
}

#[tokio::test]
async fn a_fence_that_was_seen_and_is_gone_is_lost_and_never_off() -> Result<()> {
    let stage = Stage::set("lost", "LeaseTransitions").await?;
    stage.leader.lead("pod-a", 2).await?;
    stage.policy.wait_for("FenceCurrent", "Published").await?;
    stage
        .policy
        .wait_until("the fence in the status", |status| (status["fence"]["version"] == 3).then_some(()))
        .await?;
    let path = stage.bucket.path()?;
    let Stage { policy, bucket, leader, operator } = stage;
    operator.terminate(Duration::from_secs(10)).await?;
    let aside = tempfile::tempdir()?;
    let (fence, backup) = (path.join("_epochwarden/fence"), aside.path().join("fence"));
    std::fs::rename(&fence, &backup)?;

    let cluster = cluster().await?;
    let _operator =
        Operator::start(cluster, &policy.namespace, &["--allow-file-root", &path.display().to_string()]).await?;
    let (status, message) = policy.wait_for("FenceCurrent", "RegisterLost").await?;
    ensure!(status == "False" && message.contains('3'), "{message}");
    policy.wait_for("Ready", "RegisterLost").await?;
    policy.wait_for("Stalled", "RegisterLost").await?;
    leader.lead("pod-b", 3).await?;
    policy.ask("prune").await?;
    policy.wait_for("PruneHealthy", "Held").await?;
    ensure!(bucket.fence().await? == 0, "a lost fence is not published over");

    // Put back, it is found with the next look at the store, and goes on from where it stood.
    std::fs::create_dir_all(path.join("_epochwarden"))?;
    std::fs::rename(&backup, &fence)?;
    policy.ask("audit").await?;
    policy.wait_for("FenceCurrent", "Published").await?;
    policy.wait_for("Ready", "Reachable").await?;
    ensure!(bucket.fence().await? == 4);
    Ok(())
}

#[tokio::test]
async fn a_suspended_policy_moves_no_fence_and_says_so() -> Result<()> {
    let stage = Stage::set("suspended", "LeaseTransitions").await?;
    stage.leader.lead("pod-a", 0).await?;
    stage.fence_is(1).await?;
    let mut suspended = spec(&stage.bucket, "LeaseTransitions", None);
    suspended["suspend"] = json!(true);
    stage.policy.update(suspended).await?;
    let (status, _) = stage.policy.wait_for("FenceCurrent", "Suspended").await?;
    ensure!(status == "Unknown");
    stage.policy.wait_for_event("Suspended").await?;
    stage.leader.lead("pod-b", 1).await?;
    stage.policy.update(spec(&stage.bucket, "LeaseTransitions", None)).await?;
    stage.fence_is(2).await?;
    let records = epochwarden_store::Registers::new(stage.bucket.root.clone(), "test").fence_records().await?;
    ensure!(records.len() == 2, "{records:?}");
    Ok(())
}

#[tokio::test]
async fn the_fence_reaches_an_s3_bucket() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("fence-s3").await?;
    let bucket = Bucket::s3(&namespace).await?;
    let leader = Leader::new(cluster.client().await?, &namespace, "orders-leader");
    leader.lead("pod-a", 6).await?;
    crate::support::secret(cluster, &namespace, "orders-state", &bucket).await?;
    let stage = Stage::set_on(cluster, namespace, bucket, leader, "LeaseTransitions", Some("orders-state")).await?;
    stage.fence_is(7).await?;
    let (_, message) = stage.policy.wait_for("FenceCurrent", "Published").await?;
    ensure!(message.contains("pod-a"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_fence_that_somebody_else_raised_is_noticed_with_the_next_leader() -> Result<()> {
    let stage = Stage::set("raised", "LeaseTransitions").await?;
    stage.leader.lead("pod-a", 0).await?;
    stage.fence_is(1).await?;
    stage.policy.wait_for("FenceCurrent", "Published").await?;
    let by_hand = epochwarden_store::Registers::new(stage.bucket.root.clone(), "test");
    by_hand.publish_fence(epochwarden_core::Version::new(10), "somebody", None).await?;

    stage.leader.lead("pod-b", 1).await?;
    let (_, message) = stage.policy.wait_for("FenceCurrent", "LeaseRegressed").await?;
    ensure!(message.contains("10"), "{message}");
    stage.policy.wait_for_event("LeaseRegressed").await?;
    let said = |status: &Value| {
        let fence = &status["fence"];
        (fence["version"] == 10 && fence["holder"] == "somebody").then_some(())
    };
    stage.policy.wait_until("the fence as it stands", said).await
}

#[tokio::test]
async fn a_restart_of_the_operator_writes_no_status_where_nothing_has_changed() -> Result<()> {
    let stage = Stage::set("restarted", "LeaseTransitions").await?;
    stage.leader.lead("pod-a", 0).await?;
    stage.policy.wait_for("FenceCurrent", "Published").await?;
    stage.policy.wait_for("Ready", "Reachable").await?;
    let Stage { policy, bucket, leader: _, operator } = stage;
    operator.terminate(Duration::from_secs(10)).await?;
    let version =
        async || policy.kubectl(&["get", "sep", "orders", "-o", "jsonpath={.metadata.resourceVersion}"]).await;
    let before = version().await?;

    let root = bucket.path()?.display().to_string();
    let operator = Operator::start(cluster().await?, &policy.namespace, &["--allow-file-root", &root]).await?;
    // The series of the fence is made when the next operator has found it where the Lease says.
    for series in ["epochwarden_fence_version{", "type=\"Ready\",reason=\"Reachable\"} 1.0"] {
        until(series, SOON, async || operator.get("/metrics").await.ok()?.1.contains(series).then_some(())).await?;
    }
    ensure!(version().await? == before, "{:#}", policy.status().await?);
    Ok(())
}
