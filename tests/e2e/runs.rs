//! Prunes and audits: on schedule and on request, what they delete and find, and what they must not touch.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use epochwarden_testkit::wait::until;
use serde_json::{Value, json};

use crate::support::bucket::Bucket;
use crate::support::lease::Leader;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{SOON, cluster, secret};

fn spec(bucket: &Bucket, secret: Option<&str>) -> Value {
    json!({
        "store": bucket.store(secret),
        "vnodes": 4,
        "retention": { "keepLast": 3, "pinned": [{ "epoch": "2" }] },
        "prune": { "minAge": "0s" },
    })
}

fn root_flag(bucket: &Bucket) -> Result<String> {
    Ok(bucket.path()?.display().to_string())
}

#[tokio::test]
async fn a_prune_on_request_keeps_what_retention_keeps_and_nothing_else() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("prune").await?;
    let bucket = Bucket::folder()?;
    bucket.seal(1..=9, 4).await?;
    std::fs::write(bucket.path()?.join("README"), "not ours")?;
    let operator = Operator::start(cluster, &namespace, &["--allow-file-root", &root_flag(&bucket)?]).await?;
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket, None)).await?;
    policy.wait_for("PruneHealthy", "NotScheduled").await?;

    policy.ask("prune@1").await?;
    let (status, message) = policy.wait_for("PruneHealthy", "Succeeded").await?;
    ensure!(status == "True", "{message}");
    ensure!(bucket.sealed().await? == [2, 7, 8, 9]);
    ensure!(bucket.path()?.join("README").exists(), "a foreign key is never deleted");

    let status = policy.status().await?;
    let prune = &status["prune"];
    ensure!(
        prune["phase"] == "Succeeded" && prune["epochs"] == 5 && prune["objects"] == 25 && prune["failed"] == 0,
        "{prune:#}"
    );
    ensure!(prune["floor"] == "7", "{prune:#}");
    let plan = &status["plan"];
    ensure!(plan["before"] == "7" && plan["epochs"] == 5, "{plan:#}");
    ensure!(
        plan["keep"]
            == json!([
                { "from": "2", "to": "2", "reason": "Pinned" },
                { "from": "7", "to": "8", "reason": "KeepLast" },
                { "from": "9", "to": "9", "reason": "Latest" },
            ]),
        "{plan:#}"
    );
    ensure!(status["epochs"]["latestCommitted"] == "9", "{:#}", status["epochs"]);
    ensure!(
        status["history"][0]["kind"] == "Prune" && status["history"][0]["result"] == "Succeeded",
        "{:#}",
        status["history"]
    );
    ensure!(status["lastRunRequest"] == "prune@1");
    for event in ["PruneStarted", "PruneCompleted"] {
        policy.wait_for_event(event).await?;
    }

    // The same request never runs again; another one does, and finds nothing to do.
    policy.ask("prune@2").await?;
    policy.wait_until("a second prune", |status| (status["history"].as_array()?.len() == 2).then_some(())).await?;
    ensure!(bucket.sealed().await? == [2, 7, 8, 9]);
    let (_, metrics) = operator.get("/metrics").await?;
    ensure!(
        metrics.contains(&format!(
            "epochwarden_prune_deleted_objects_total{{namespace=\"{namespace}\",policy=\"orders\"}} 25"
        )),
        "{metrics}"
    );
    Ok(())
}

#[tokio::test]
async fn prune_and_audit_run_on_schedule_on_s3() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("schedule").await?;
    let bucket = Bucket::s3(&namespace).await?;
    bucket.seal((1..=5).map(|n| 1_700_000_000_000 + n * 1000), 4).await?;
    secret(cluster, &namespace, "orders-state", &bucket).await?;
    let _operator = Operator::start(cluster, &namespace, &[]).await?;
    let mut scheduled = spec(&bucket, Some("orders-state"));
    scheduled["retention"] = json!({ "keepLast": 2 });
    scheduled["prune"]["schedule"] = json!("* * * * *");
    scheduled["audit"] = json!({ "schedule": "* * * * *", "timeZone": "Europe/Berlin" });
    let policy = Policy::apply(cluster, &namespace, "orders", scheduled).await?;
    policy
        .wait_until("the next runs", |status| {
            (status["prune"]["nextRunAt"].is_string() && status["audit"]["nextRunAt"].is_string()).then_some(())
        })
        .await?;
    // The slot is at most a minute away.
    until("a scheduled prune and audit", Duration::from_mins(2), async || {
        let status = policy.status().await.ok()?;
        (status["prune"]["phase"] == "Succeeded" && status["audit"]["phase"] == "Succeeded").then_some(())
    })
    .await?;
    ensure!(bucket.sealed().await? == [1_700_000_004_000, 1_700_000_005_000]);
    policy.wait_for("AuditClean", "Clean").await?;
    let columns = policy.kubectl(&["get", "sep", "-o", "wide"]).await?;
    for text in ["Reachable", "1700000005000", "Clean", "True", "s3://"] {
        ensure!(columns.contains(text), "{text} is not in\n{columns}");
    }
    Ok(())
}

#[tokio::test]
async fn an_audit_names_the_partial_that_was_deleted_behind_everybodys_back() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("audit").await?;
    let bucket = Bucket::folder()?;
    bucket.seal(1..=4, 4).await?;
    let _operator = Operator::start(cluster, &namespace, &["--allow-file-root", &root_flag(&bucket)?]).await?;
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket, None)).await?;
    policy.wait_for("AuditClean", "NotScheduled").await?;
    policy.ask("audit@1").await?;
    policy.wait_for("AuditClean", "Clean").await?;

    bucket.lose_partial(3, 2).await?;
    policy.ask("audit@2").await?;
    let (status, message) = policy.wait_for("AuditClean", "Findings").await?;
    ensure!(status == "False" && message.contains('3'), "{message}");
    let status = policy.status().await?;
    let finding = &status["audit"]["findings"][0];
    ensure!(
        finding["kind"] == "SealedIncomplete"
            && finding["severity"] == "critical"
            && finding["epoch"] == "3"
            && finding["vnode"] == 2,
        "{finding:#}"
    );
    ensure!(
        status["audit"]["verdict"] == "Critical" && status["audit"]["counts"]["SealedIncomplete"] == 1,
        "{:#}",
        status["audit"]
    );
    policy.wait_for_event("AuditFinding").await?;
    // Findings are about the pipeline's data; the policy does its work all the same.
    policy.wait_for("Ready", "Reachable").await?;
    Ok(())
}

#[tokio::test]
async fn a_dry_run_plans_and_deletes_nothing() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("dry-run").await?;
    let bucket = Bucket::folder()?;
    bucket.seal(1..=9, 4).await?;
    let _operator = Operator::start(cluster, &namespace, &["--allow-file-root", &root_flag(&bucket)?]).await?;
    let mut dry = spec(&bucket, None);
    dry["prune"]["dryRun"] = json!(true);
    let policy = Policy::apply(cluster, &namespace, "orders", dry).await?;
    policy.wait_for("Ready", "Reachable").await?;
    policy.ask("prune").await?;
    policy.wait_for("PruneHealthy", "DryRun").await?;
    let status = policy.status().await?;
    ensure!(status["plan"]["epochs"] == 5, "{:#}", status["plan"]);
    ensure!(
        bucket.sealed().await?.len() == 9 && !bucket.path()?.join("_epochwarden").exists(),
        "a dry run writes nothing at all"
    );
    policy.wait_for_event("PrunePlanned").await
}

#[tokio::test]
async fn a_retention_of_pins_alone_keeps_everything() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("keeps").await?;
    let bucket = Bucket::folder()?;
    bucket.seal(1..=3, 4).await?;
    let _operator = Operator::start(cluster, &namespace, &["--allow-file-root", &root_flag(&bucket)?]).await?;
    let mut pins = spec(&bucket, None);
    pins["retention"] = json!({ "pinned": [{ "epoch": "1" }] });
    let policy = Policy::apply(cluster, &namespace, "orders", pins).await?;
    policy.wait_for("Ready", "Reachable").await?;
    policy.ask("prune").await?;
    policy.wait_for("PruneHealthy", "KeepsEverything").await?;
    ensure!(bucket.sealed().await? == [1, 2, 3]);
    Ok(())
}

#[tokio::test]
async fn where_no_sealed_epoch_is_complete_prune_holds_and_deletes_nothing() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("none").await?;
    let bucket = Bucket::folder()?;
    bucket.seal(1..=5, 4).await?;
    for epoch in 1..=5 {
        bucket.lose_partial(epoch, 1).await?;
    }
    let _operator = Operator::start(cluster, &namespace, &["--allow-file-root", &root_flag(&bucket)?]).await?;
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket, None)).await?;
    policy.wait_for("Ready", "Reachable").await?;
    policy.ask("prune").await?;
    let (status, message) = policy.wait_for("PruneHealthy", "Held").await?;
    ensure!(status == "False" && message.contains("5 sealed epochs"), "{message}");
    policy.wait_for_event("PruneHeld").await?;
    ensure!(bucket.sealed().await? == [1, 2, 3, 4, 5]);
    Ok(())
}

#[tokio::test]
async fn a_prune_of_a_hundred_thousand_objects_does_not_delay_a_fence() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("busy").await?;
    let bucket = Bucket::folder()?;
    bucket.fill(1002, 100)?;
    let leader = Leader::new(cluster.client().await?, &namespace, "orders-leader");
    leader.lead("pod-a", 0).await?;
    let _operator = Operator::start(cluster, &namespace, &["--allow-file-root", &root_flag(&bucket)?]).await?;
    let mut busy = spec(&bucket, None);
    busy["vnodes"] = json!(100);
    busy["retention"] = json!({ "keepLast": 2 });
    busy["fence"] = json!({ "leaseRef": { "name": "orders-leader" } });
    let policy = Policy::apply(cluster, &namespace, "orders", busy).await?;
    policy.wait_for("FenceCurrent", "Published").await?;
    policy.ask("prune").await?;
    policy
        .wait_until("the prune to delete", |status| (status["prune"]["progress"]["done"].as_u64()? > 0).then_some(()))
        .await?;

    // By order of events: the fence stands while objects of the plan are still there.
    leader.lead("pod-b", 1).await?;
    until("the fence at 2", SOON, async || (bucket.fence().await.ok()? == 2).then_some(())).await?;
    let last = bucket.path()?.join("epoch=1000/vnode=99/partial.bin");
    ensure!(last.exists(), "the prune was over before the fence moved, so this shows nothing");
    until("the end of the prune", Duration::from_mins(5), async || {
        (policy.status().await.ok()?["prune"]["phase"] == "Succeeded").then_some(())
    })
    .await?;
    ensure!(bucket.sealed().await? == [1001, 1002]);
    let status = policy.status().await?;
    ensure!(status["prune"]["objects"] == 101_000, "{:#}", status["prune"]);
    Ok(())
}

#[tokio::test]
async fn what_the_annotation_says_when_a_policy_is_first_seen_is_recorded_and_not_run() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("first").await?;
    let bucket = Bucket::folder()?;
    bucket.seal(1..=9, 4).await?;
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket, None)).await?;
    policy.ask("prune@old").await?;
    let _operator = Operator::start(cluster, &namespace, &["--allow-file-root", &root_flag(&bucket)?]).await?;
    policy
        .wait_until("the request is recorded", |status| (status["lastRunRequest"] == "prune@old").then_some(()))
        .await?;
    policy.wait_for("Ready", "Reachable").await?;
    policy.ask("dance").await?;
    policy
        .wait_until("an unknown request is recorded", |status| (status["lastRunRequest"] == "dance").then_some(()))
        .await?;
    policy.wait_for_event("PruneFailed").await?;
    policy.ask("audit").await?;
    policy.wait_for("AuditClean", "Clean").await?;
    ensure!(bucket.sealed().await?.len() == 9);
    Ok(())
}

#[tokio::test]
async fn slots_that_passed_while_no_operator_ran_are_made_up_by_one_run() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("missed").await?;
    let bucket = Bucket::folder()?;
    bucket.seal(1..=6, 4).await?;
    let root = root_flag(&bucket)?;
    let first = Operator::start(cluster, &namespace, &["--allow-file-root", &root]).await?;
    let mut daily = spec(&bucket, None);
    daily["prune"]["schedule"] = json!("@daily");
    let policy = Policy::apply(cluster, &namespace, "orders", daily).await?;
    let next = policy
        .wait_until("the promise of a slot", |status| status["prune"]["nextRunAt"].as_str().map(str::to_owned))
        .await?;
    first.terminate(Duration::from_secs(10)).await?;

    // As if three days had gone by.
    let promised = next.parse::<jiff::Timestamp>()? - jiff::SignedDuration::from_hours(72);
    let patch = json!({ "status": { "prune": { "nextRunAt": promised } } }).to_string();
    policy.kubectl(&["patch", "sep", "orders", "--subresource=status", "--type=merge", "-p", &patch]).await?;
    let _next = Operator::start(cluster, &namespace, &["--allow-file-root", &root]).await?;
    policy.wait_for("PruneHealthy", "Succeeded").await?;
    ensure!(bucket.sealed().await? == [2, 4, 5, 6]);
    let status = policy.status().await?;
    ensure!(status["prune"]["nextRunAt"].as_str().context("no promise")?.parse::<jiff::Timestamp>()? > promised);
    // Were there another run to come for the other slots, this one would come after it.
    policy.ask("audit").await?;
    policy.wait_for("AuditClean", "Clean").await?;
    let kinds: Vec<Value> =
        policy.status().await?["history"].as_array().into_iter().flatten().map(|run| run["kind"].clone()).collect();
    ensure!(kinds == ["Audit", "Prune"], "{kinds:?}");
    Ok(())
}

#[tokio::test]
async fn a_slow_prune_keeps_the_prunes_of_others_waiting_for_its_permit_and_no_audit() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("permits").await?;
    let (slow, quick) = (Bucket::folder()?, Bucket::folder()?);
    slow.fill(2_000, 1)?;
    quick.seal(1..=6, 4).await?;
    let roots = [root_flag(&slow)?, root_flag(&quick)?];
    let [of_slow, of_quick] = &roots;
    let flags = ["--allow-file-root", of_slow, "--allow-file-root", of_quick, "--max-concurrent-runs", "1"];
    let _operator = Operator::start(cluster, &namespace, &flags).await?;
    let mut spec_of_slow = spec(&slow, None);
    spec_of_slow["vnodes"] = json!(1);
    // It takes more than an hour.
    spec_of_slow["prune"] =
        json!({ "minAge": "0s", "maxKeysPerSecond": 1, "holdAbove": { "epochs": 1_000_000 }, "deadline": "2h" });
    let of_slow = Policy::apply(cluster, &namespace, "slow", spec_of_slow.clone()).await?;
    let of_quick = Policy::apply(cluster, &namespace, "quick", spec(&quick, None)).await?;
    for policy in [&of_slow, &of_quick] {
        policy.wait_for("Ready", "Reachable").await?;
    }
    of_slow.ask("prune").await?;
    of_slow
        .wait_until("the prune to delete", |status| (status["prune"]["progress"]["done"].as_u64()? > 0).then_some(()))
        .await?;

    of_quick.ask("audit@1").await?;
    of_quick.wait_for("AuditClean", "Clean").await?;
    of_quick.ask("prune@2").await?;
    of_quick
        .wait_until("its prune to wait", |status| {
            (status["lastRunRequest"] == "prune@2" && status["prune"]["phase"] == "Pending").then_some(())
        })
        .await?;
    let (_, message) = of_quick.wait_for("PruneHealthy", "Running").await?;
    ensure!(message.contains("waits for its turn"), "{message}");
    ensure!(of_slow.status().await?["prune"]["phase"] == "Running", "it was over before this, so this shows nothing");
    ensure!(quick.sealed().await?.len() == 6, "two prunes have run at once");

    spec_of_slow["prune"]["suspend"] = json!(true);
    of_slow.update(spec_of_slow).await?;
    of_quick.wait_for("PruneHealthy", "Succeeded").await?;
    ensure!(quick.sealed().await? == [2, 4, 5, 6]);
    Ok(())
}

#[tokio::test]
async fn what_is_suspended_does_not_run_until_it_is_resumed() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("suspend").await?;
    let bucket = Bucket::folder()?;
    bucket.seal(1..=6, 4).await?;
    let _operator = Operator::start(cluster, &namespace, &["--allow-file-root", &root_flag(&bucket)?]).await?;
    let suspended = |policy: bool, prune: bool, audit: bool| {
        let mut spec = spec(&bucket, None);
        (spec["suspend"], spec["prune"]["suspend"]) = (json!(policy), json!(prune));
        spec["audit"] = json!({ "suspend": audit });
        spec
    };
    let policy = Policy::apply(cluster, &namespace, "orders", suspended(false, true, false)).await?;
    policy.wait_for("Ready", "Reachable").await?;
    policy.wait_for("PruneHealthy", "Suspended").await?;

    // Only the prune: an audit that is asked for later runs first.
    policy.ask("prune@1").await?;
    policy.ask("audit@1").await?;
    policy.wait_for("AuditClean", "Clean").await?;
    ensure!(bucket.sealed().await?.len() == 6, "a suspended prune has deleted something");

    // Only the audit.
    policy.update(suspended(false, false, true)).await?;
    policy.wait_for("AuditClean", "Suspended").await?;
    policy.ask("audit@2").await?;
    policy.ask("prune@2").await?;
    until("the prune", SOON, async || (bucket.sealed().await.ok()? == [2, 4, 5, 6]).then_some(())).await?;
    policy.wait_until("its end", |status| (status["prune"]["phase"] == "Succeeded").then_some(())).await?;

    // All of it.
    policy.update(suspended(true, false, false)).await?;
    policy.wait_for("PruneHealthy", "Suspended").await?;
    bucket.seal(7..=9, 4).await?;
    policy.ask("prune@3").await?;
    policy.update(suspended(true, false, true)).await?;
    policy.wait_until("another look", |status| (status["observedGeneration"] == 4).then_some(())).await?;
    ensure!(bucket.sealed().await? == [2, 4, 5, 6, 7, 8, 9], "a suspended policy has deleted something");
    policy.update(suspended(false, false, false)).await?;
    until("the prune after all", SOON, async || (bucket.sealed().await.ok()? == [2, 7, 8, 9]).then_some(())).await
}

#[tokio::test]
async fn of_a_hundred_findings_twenty_are_listed_and_all_are_counted() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("hundred").await?;
    let bucket = Bucket::folder()?;
    // Each of them has a vnode more than the policy knows of.
    bucket.fill(100, 5)?;
    let _operator = Operator::start(cluster, &namespace, &["--allow-file-root", &root_flag(&bucket)?]).await?;
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket, None)).await?;
    policy.wait_for("Ready", "Reachable").await?;
    policy.ask("audit@1").await?;
    let (status, message) = policy.wait_for("AuditClean", "Warnings").await?;
    ensure!(status == "True" && message.contains("100"), "{message}");
    let audit = &policy.status().await?["audit"];
    ensure!(audit["findings"].as_array().map(Vec::len) == Some(20), "{audit:#}");
    ensure!(audit["counts"] == json!({ "VnodeOutOfRange": 100 }), "{audit:#}");
    policy.wait_for_event("AuditFinding").await?;
    let columns = policy.kubectl(&["get", "sep", "orders"]).await?;
    ensure!(columns.contains("Warning"), "{columns}");

    // What is worse is not crowded out.
    bucket.lose_partial(3, 1).await?;
    policy.ask("audit@2").await?;
    policy.wait_for("AuditClean", "Findings").await?;
    let audit = &policy.status().await?["audit"];
    ensure!(audit["findings"].as_array().map(Vec::len) == Some(20), "{audit:#}");
    ensure!(audit["findings"][0]["kind"] == "SealedIncomplete" && audit["findings"][0]["epoch"] == "3", "{audit:#}");
    ensure!(audit["counts"] == json!({ "VnodeOutOfRange": 100, "SealedIncomplete": 1 }), "{audit:#}");
    Ok(())
}

#[tokio::test]
async fn a_prune_that_loses_its_secret_has_failed_and_says_which() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("loses").await?;
    let bucket = Bucket::s3(&namespace).await?;
    bucket.seal(1..=6, 4).await?;
    secret(cluster, &namespace, "orders-state", &bucket).await?;
    let _operator = Operator::start(cluster, &namespace, &[]).await?;
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket, Some("orders-state"))).await?;
    policy.wait_for("Ready", "Reachable").await?;
    policy.kubectl(&["delete", "secret", "orders-state"]).await?;
    policy.ask("prune").await?;
    let (status, message) = policy.wait_for("PruneHealthy", "Failed").await?;
    ensure!(status == "False" && message.contains("orders-state"), "{message}");
    policy.wait_for_event("PruneFailed").await?;
    ensure!(bucket.sealed().await?.len() == 6);
    Ok(())
}

#[tokio::test]
async fn a_hundred_damaged_epochs_are_counted_and_twenty_of_them_listed() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("damaged").await?;
    let bucket = Bucket::s3(&namespace).await?;
    // One vnode of four.
    bucket.seal(1..=100, 1).await?;
    secret(cluster, &namespace, "orders-state", &bucket).await?;
    let _operator = Operator::start(cluster, &namespace, &[]).await?;
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket, Some("orders-state"))).await?;
    policy.wait_for("Ready", "Reachable").await?;
    policy.ask("audit").await?;
    let (status, message) = policy.wait_for("AuditClean", "Findings").await?;
    ensure!(status == "False" && message.contains("100"), "{message}");
    let audit = &policy.status().await?["audit"];
    ensure!(audit["counts"] == json!({ "SealedIncomplete": 100 }), "{audit:#}");
    let listed: Vec<&str> =
        audit["findings"].as_array().into_iter().flatten().filter_map(|finding| finding["epoch"].as_str()).collect();
    let newest: Vec<String> = (81..=100).rev().map(|epoch| epoch.to_string()).collect();
    ensure!(listed == newest, "{audit:#}");
    Ok(())
}
