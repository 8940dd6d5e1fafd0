//! Epoch numbers that go backwards: a straggler, or a numbering that restarted. And a pipeline that seals no more.

use std::fs::{self, File};
use std::time::Duration;

use anyhow::{Result, ensure};
use epochwarden_testkit::wait::until;
use serde_json::{Value, json};

use crate::support::bucket::Bucket;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{SOON, cluster};

const HOUR: Duration = Duration::from_hours(1);

/// Dates everything that epochs hold so far back by so much.
fn backdate(bucket: &Bucket, by: Duration) -> Result<()> {
    let mut folders = vec![bucket.path()?];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let file = File::options().append(true).open(&path)?;
                file.set_modified(file.metadata()?.modified()? - by)?;
            }
        }
    }
    Ok(())
}

/// The partial of an epoch, as a worker writes it.
fn write(bucket: &Bucket, epoch: u64) -> Result<()> {
    let folder = bucket.path()?.join(format!("epoch={epoch}/vnode=0"));
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("partial.bin"), b"state")?;
    Ok(())
}

fn spec(bucket: &Bucket, audit: &Value) -> Value {
    json!({
        "store": bucket.store(None),
        "vnodes": 1,
        "retention": { "keepLast": 3 },
        "prune": { "minAge": "0s" },
        "audit": audit,
    })
}

/// Asks for a run and waits until it has ended: the history is longer then.
async fn run(policy: &Policy<'_>, request: &str) -> Result<Value> {
    let length = |status: &Value| status["history"].as_array().map_or(0, Vec::len);
    let before = length(&policy.status().await?);
    policy.ask(request).await?;
    policy.wait_until(request, |status| (length(status) > before).then(|| status.clone())).await
}

async fn held(operator: &Operator) -> Result<bool> {
    let (_, metrics) = operator.get("/metrics").await?;
    Ok(metrics.contains("reason=\"EpochRegression\"} 1"))
}

#[tokio::test]
async fn a_straggler_holds_prune_is_critical_once_the_newest_seal_is_old_and_clears_with_the_next_seal() -> Result<()> {
    let bucket = Bucket::folder()?;
    bucket.seal((1..=3).chain(5..=9), 1).await?;
    backdate(&bucket, HOUR)?;
    // A worker that was paused for an hour writes to an epoch that nobody sealed.
    write(&bucket, 4)?;
    let (namespace, operator) = Operator::on(&bucket, "straggler").await?;
    let patient = json!({ "stalledAfter": "2h", "sealCheckEvery": "0s" });
    let policy = Policy::apply(cluster().await?, &namespace, "orders", spec(&bucket, &patient)).await?;
    policy.wait_for("Ready", "Reachable").await?;

    run(&policy, "prune@1").await?;
    let (status, message) = policy.wait_for("PruneHealthy", "Held").await?;
    ensure!(
        status == "False" && message.contains("epoch 4 ") && message.contains("newest sealed epoch 9"),
        "{message}"
    );
    policy.wait_for_event("PruneHeld").await?;
    ensure!(held(&operator).await?);
    ensure!(bucket.epochs().await? == (1..=9).collect::<Vec<_>>(), "nothing is deleted");

    // The newest seal is an hour old, and less than stalledAfter.
    let status = run(&policy, "audit@1").await?;
    let finding = &status["audit"]["findings"][0];
    ensure!(finding["kind"] == "EpochRegression" && finding["severity"] == "warning", "{finding:#}");
    policy.wait_for("AuditClean", "Warnings").await?;
    policy.update(spec(&bucket, &json!({ "stalledAfter": "30m", "sealCheckEvery": "0s" }))).await?;
    let status = run(&policy, "audit@2").await?;
    let finding = &status["audit"]["findings"][0];
    ensure!(finding["kind"] == "EpochRegression" && finding["severity"] == "critical", "{finding:#}");
    ensure!(finding["epoch"] == "4", "{finding:#}");
    let (_, message) = policy.wait_for("AuditClean", "Findings").await?;
    ensure!(message.contains("prune holds"), "{message}");

    bucket.seal([10], 1).await?;
    run(&policy, "prune@2").await?;
    policy.wait_for("PruneHealthy", "Succeeded").await?;
    ensure!(!held(&operator).await?);
    ensure!(bucket.epochs().await? == [8, 9, 10], "and the straggler's epoch is gone with the rest");
    run(&policy, "audit@3").await?;
    policy.wait_for("AuditClean", "Clean").await?;
    Ok(())
}

#[tokio::test]
async fn a_numbering_that_restarted_is_held_until_the_pipeline_goes_on_above_the_old_one() -> Result<()> {
    let bucket = Bucket::folder()?;
    bucket.seal(101..=109, 1).await?;
    backdate(&bucket, HOUR)?;
    bucket.seal(1..=2, 1).await?;
    let (namespace, operator) = Operator::on(&bucket, "restarted").await?;
    let quiet = json!({ "sealCheckEvery": "0s" });
    let policy = Policy::apply(cluster().await?, &namespace, "orders", spec(&bucket, &quiet)).await?;
    policy.wait_for("Ready", "Reachable").await?;
    run(&policy, "prune@1").await?;
    policy.wait_for("PruneHealthy", "Held").await?;
    let all = bucket.epochs().await?;

    // Another seal of the new numbering changes nothing: it is no straggler.
    bucket.seal([3], 1).await?;
    let status = run(&policy, "prune@2").await?;
    ensure!(status["prune"]["phase"] == "Held", "{:#}", status["prune"]);
    ensure!(held(&operator).await?);
    ensure!(bucket.sealed().await?.len() == all.len() + 1);
    let status = run(&policy, "audit@1").await?;
    ensure!(status["audit"]["verdict"] == "Critical", "{:#}", status["audit"]);
    ensure!(status["audit"]["counts"]["EpochRegression"] == 3, "{:#}", status["audit"]["counts"]);
    let detail = status["audit"]["findings"][0]["detail"].as_str().unwrap_or_default();
    ensure!(detail.contains("3 lower epochs") && detail.contains("newest sealed epoch 109"), "{detail}");
    // Held again and again is one Event, and the status says it all the time.
    ensure!(policy.events().await?.iter().filter(|event| *event == "PruneHeld").count() == 1);

    bucket.seal([110], 1).await?;
    run(&policy, "prune@3").await?;
    policy.wait_for("PruneHealthy", "Succeeded").await?;
    ensure!(bucket.epochs().await? == [108, 109, 110]);
    run(&policy, "audit@2").await?;
    policy.wait_for("AuditClean", "Clean").await?;
    Ok(())
}

#[tokio::test]
async fn a_pipeline_that_seals_no_more_is_told_without_any_audit_and_clears_with_its_next_seal() -> Result<()> {
    let bucket = Bucket::folder()?;
    bucket.seal(1..=3, 1).await?;
    backdate(&bucket, HOUR)?;
    write(&bucket, 4)?;
    let (namespace, operator) = Operator::on(&bucket, "stalled").await?;
    let checked = json!({ "sealCheckEvery": "1s" });
    let policy = Policy::apply(cluster().await?, &namespace, "orders", spec(&bucket, &checked)).await?;
    let (status, message) = policy.wait_for("AuditClean", "Warnings").await?;
    ensure!(status == "True" && message.contains("StalledSealing") && message.contains("since 3 at"), "{message}");
    policy.wait_for_event("AuditFinding").await?;
    let seen = policy.status().await?;
    let epochs = &seen["epochs"];
    ensure!(epochs["latestCommitted"] == "3" && epochs["sealed"] == 3 && epochs["unsealed"] == 1, "{epochs:#}");
    ensure!(epochs["oldestSealed"] == "1" && epochs["objects"].is_null() && epochs["bytes"].is_null(), "{epochs:#}");
    ensure!(seen["audit"]["verdict"].is_null(), "there was no audit: {:#}", seen["audit"]);
    let (_, metrics) = operator.get("/metrics").await?;
    ensure!(metrics.contains("kind=\"StalledSealing\"} 1"), "{metrics}");

    // A restart says the same again, and nothing anew.
    ensure!(operator.terminate(SOON).await?.success());
    let root = bucket.path()?.display().to_string();
    let operator = Operator::start(cluster().await?, &namespace, &["--allow-file-root", &root]).await?;
    until("a check of the new operator", SOON, async || {
        operator.get("/metrics").await.ok()?.1.contains("kind=\"StalledSealing\"} 1").then_some(())
    })
    .await?;
    let (_, again) = policy.wait_for("AuditClean", "Warnings").await?;
    ensure!(again == message, "{again}");

    bucket.seal([4], 1).await?;
    policy.wait_for("AuditClean", "NotScheduled").await?;
    policy.wait_for_event("AuditClean").await?;
    let events = policy.events().await?;
    ensure!(events.iter().filter(|event| *event == "AuditFinding").count() == 1, "{events:?}");
    policy.wait_until("the new seal", |status| (status["epochs"]["latestCommitted"] == "4").then_some(())).await?;
    Ok(())
}
