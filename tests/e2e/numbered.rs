//! A policy whose epochs are numbered by version: in its status, its Events, its columns, and read back by the next operator.

use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use epochwarden_store::{Numbering, ObjectStoreBackend, StateBackend};
use serde_json::{Value, json};

use crate::support::bucket::Bucket;
use crate::support::cluster;
use crate::support::operator::Operator;
use crate::support::policy::Policy;

const VNODES: [u32; 2] = [0, 1];

/// The whole number of `v{version}/{sequence}`.
const fn whole(version: u64, sequence: u64) -> u64 {
    (version << 40) + sequence
}

/// A term that seals so many epochs.
async fn term(bucket: &Bucket, version: u64, holder: &str, epochs: u64) -> Result<()> {
    let backend = ObjectStoreBackend::builder(bucket.root.prefixed_store())
        .instance_id(holder)
        .vnode_capacity(2)
        .leading(version)
        .numbering(Numbering::Versioned)
        .build();
    backend.publish_fence(version, None).await?;
    for sequence in 0..epochs {
        seal(&backend, version, sequence).await?;
    }
    Ok(())
}

async fn seal(backend: &ObjectStoreBackend, version: u64, sequence: u64) -> Result<()> {
    let epoch = whole(version, sequence);
    for vnode in VNODES {
        backend.write_partial(vnode, epoch, version, Bytes::from_static(b"state")).await?;
    }
    ensure!(backend.epoch_complete(epoch, &VNODES).await?);
    Ok(())
}

#[tokio::test]
async fn a_policy_tells_of_epochs_by_version_and_sequence_and_the_next_operator_understands_it() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("versioned").await?;
    let bucket = Bucket::folder()?;
    term(&bucket, 1, "orders-a-1f2e", 4).await?;
    term(&bucket, 2, "orders-b-3c4d", 2).await?;
    let root = bucket.path()?.display().to_string();
    let operator = Operator::start(cluster, &namespace, &["--allow-file-root", &root]).await?;
    let spec = json!({
        "store": bucket.store(None),
        "vnodes": 2,
        "numbering": "Versioned",
        "retention": { "keepLast": 1, "pinned": [{ "epoch": "v1/0", "note": "INC-12" }] },
        "prune": { "minAge": "0s" },
    });
    let policy = Policy::apply(cluster, &namespace, "orders", spec).await?;
    policy.wait_for("Ready", "Reachable").await?;
    policy.ask("prune").await?;
    policy.wait_for("PruneHealthy", "Succeeded").await?;
    let (plan, floor) = policy
        .wait_until("the plan and the floor", |status| {
            let floor = status["prune"]["floor"].as_str()?.to_owned();
            Some((status["plan"].clone(), floor))
        })
        .await?;
    ensure!(floor == "v2/1", "{floor}");
    ensure!(plan["before"] == "v2/1" && plan["through"] == "v2/1", "{plan}");
    ensure!(plan["delete"] == json!([{ "from": "v1/1", "to": "v2/0", "reason": "Expired" }]), "{plan}");
    ensure!(plan["keep"][0] == json!({ "from": "v1/0", "to": "v1/0", "reason": "Pinned" }), "{plan}");
    ensure!(!bucket.path()?.join(format!("epoch={}", whole(1, 1))).join("_COMMIT").exists());
    ensure!(bucket.path()?.join(format!("epoch={}", whole(1, 0))).join("_COMMIT").exists());
    let columns = policy.kubectl(&["get", "sep", "orders"]).await?;
    ensure!(columns.contains(" v2/1 "), "{columns}");

    // A leader of version 1 that was paused all the time wakes up and seals: nobody acknowledged that.
    let woken = ObjectStoreBackend::new(bucket.root.prefixed_store(), "orders-a-1f2e", 2);
    for vnode in VNODES {
        woken.write_partial(vnode, whole(1, 9), 0, Bytes::from_static(b"state")).await?;
    }
    woken.epoch_complete(whole(1, 9), &VNODES).await?;
    let bad = bucket.path()?.join(format!("epoch={}/vnode=1/partial.bin", whole(2, 1)));
    std::fs::remove_file(bad)?;
    operator.terminate(Duration::from_secs(10)).await?;
    let _operator = Operator::start(cluster, &namespace, &["--allow-file-root", &root]).await?;
    policy.ask("audit").await?;
    let (_, message) = policy.wait_for("AuditClean", "Findings").await?;
    ensure!(message.contains("epoch v2/1"), "{message}");
    let finding = |status: &Value, kind: &str| {
        status["audit"]["findings"].as_array()?.iter().find(|finding| finding["kind"] == kind).cloned()
    };
    let status = policy.status().await?;
    let incomplete = finding(&status, "SealedIncomplete").unwrap_or_default();
    ensure!(incomplete["epoch"] == "v2/1", "{status:#}");
    let contested = finding(&status, "ContestedSeal").unwrap_or_default();
    ensure!(contested["epoch"] == "v1/9" && contested["severity"] == "warning", "{status:#}");
    let text = status.to_string();
    ensure!(!text.contains("10995") && !text.contains("21990"), "a whole number is left: {text}");
    ensure!(status["prune"]["floor"] == "v2/1", "the floor outlives the operator");
    Ok(())
}
