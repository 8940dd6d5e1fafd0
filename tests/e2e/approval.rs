//! Plans that wait for a person: what is approved is what was read, however long that takes and whatever happens meanwhile.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use epochwarden_store::{ObjectStoreBackend, Root, StateBackend};
use epochwarden_testkit::wait::until;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::support::bucket::Bucket;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{SOON, cluster};

const VNODES: u32 = 4;

/// The time between two epochs of the pipeline.
const PACE: Duration = Duration::from_millis(250);

fn spec(bucket: &Bucket, prune: &Value) -> Value {
    let mut spec = json!({
        "store": bucket.store(None),
        "vnodes": VNODES,
        "retention": { "keepLast": 3 },
        "prune": { "minAge": "0s" },
        "audit": { "sealCheckEvery": "0s" },
    });
    for (field, value) in prune.as_object().into_iter().flatten() {
        spec["prune"][field] = value.clone();
    }
    spec
}

async fn operator(bucket: &Bucket, namespace: &str) -> Result<Operator> {
    let root = bucket.path()?.display().to_string();
    Operator::start(cluster().await?, namespace, &["--allow-file-root", &root]).await
}

/// A pipeline that seals an epoch whenever it is time, with the library.
struct Sealing {
    sealed: watch::Receiver<u64>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<()>>,
}

impl Sealing {
    fn from(first: u64, root: &Root) -> Self {
        let (tell, sealed) = watch::channel(first - 1);
        let (stop, stopped) = watch::channel(false);
        let backend = ObjectStoreBackend::new(root.prefixed_store(), "pipeline-1", VNODES);
        let task = tokio::spawn(async move {
            let all: Vec<u32> = (0..VNODES).collect();
            let mut ticks = interval(PACE);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for epoch in first.. {
                ticks.tick().await;
                if *stopped.borrow() {
                    break;
                }
                for vnode in &all {
                    backend.write_partial(*vnode, epoch, 0, Bytes::from_static(b"state")).await?;
                }
                ensure!(backend.epoch_complete(epoch, &all).await?, "epoch {epoch} was not sealed");
                tell.send_replace(epoch);
            }
            Ok(())
        });
        Self { sealed, stop, task }
    }

    /// Waits until it has sealed so many more, and says which was the last.
    async fn goes_on_by(&mut self, more: u64) -> Result<u64> {
        let until = *self.sealed.borrow() + more;
        let sealed = timeout(SOON, self.sealed.wait_for(|epoch| *epoch >= until)).await;
        sealed.context("the pipeline seals no more")?.map(|epoch| *epoch).context("the pipeline has ended")
    }

    /// Ends it, and says which was the last.
    async fn end(self) -> Result<u64> {
        self.stop.send_replace(true);
        timeout(SOON, self.task).await.context("the pipeline does not end")???;
        Ok(*self.sealed.borrow())
    }
}

/// The plan in the status.
async fn plan(policy: &Policy<'_>) -> Result<Value> {
    Ok(policy.status().await?["plan"].clone())
}

/// Has the prune looked at by a run of its own, and gives the plan that it left.
async fn looked_at(policy: &Policy<'_>, request: &str) -> Result<Value> {
    policy.ask(request).await?;
    policy
        .wait_until("a look at the plan", |status| {
            let over = !matches!(status["prune"]["phase"].as_str()?, "Running" | "Pending");
            (status["lastRunRequest"] == request && over).then(|| status["plan"].clone())
        })
        .await
}

/// Does what the condition says, to the letter.
async fn do_as_it_says(policy: &Policy<'_>, message: &str) -> Result<()> {
    let command = message.split('`').nth(1).with_context(|| format!("no command in {message}"))?;
    let args: Vec<&str> = command.split_whitespace().skip(1).collect();
    ensure!(command.starts_with("kubectl ") && args.contains(&policy.name.as_str()), "{command}");
    let done = cluster().await?.kubectl(&args).await?;
    ensure!(done.status.success(), "{command}: {}", done.stderr);
    Ok(())
}

async fn approve(policy: &Policy<'_>, word: &str) -> Result<()> {
    let annotation = format!("epochwarden.io/approve-plan={word}");
    policy.kubectl(&["annotate", "--overwrite", "sep", &policy.name, &annotation]).await.map(drop)
}

fn runs(status: &Value) -> usize {
    status["history"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn what_was_read_is_what_goes_whatever_the_pipeline_the_operator_and_gitops_do_meanwhile() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("approval").await?;
    let bucket = Bucket::folder()?;
    bucket.seal(1..=8, VNODES).await?;
    let first = operator(&bucket, &namespace).await?;
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket, &json!({ "approval": "Manual" }))).await?;
    policy.wait_for("Ready", "Reachable").await?;
    policy.ask("prune@1").await?;
    let (status, message) = policy.wait_for("PruneHealthy", "AwaitingApproval").await?;
    ensure!(status == "True" && message.contains("5 epochs with 25 objects"), "{message}");
    policy.wait_for_event("PrunePlanned").await?;
    let read = plan(&policy).await?;
    let digest = read["digest"].as_str().context("no digest")?.to_owned();
    ensure!(message.contains(&digest) && read["approvedAt"].is_null(), "{message} {read:#}");
    ensure!(read["delete"] == json!([{ "from": "1", "to": "5", "reason": "Expired" }]), "{read:#}");
    let waiting = policy.status().await?;
    ensure!(waiting["prune"]["phase"] == "AwaitingApproval" && runs(&waiting) == 1, "{waiting:#}");

    // The pipeline goes on, and later runs find more and more that retention would let go.
    let mut sealing = Sealing::from(9, &bucket.root);
    sealing.goes_on_by(4).await?;
    ensure!(looked_at(&policy, "prune@2").await? == read, "the plan has changed: {:#}", plan(&policy).await?);

    // So it does while no operator runs, and while the next one does.
    let Operator { mut process, .. } = first;
    process.signal("KILL")?;
    process.wait_exit(SOON).await?;
    sealing.goes_on_by(4).await?;
    let _next = operator(&bucket, &namespace).await?;
    let newest = sealing.goes_on_by(4).await?;
    ensure!(looked_at(&policy, "prune@3").await? == read, "the plan has changed: {:#}", plan(&policy).await?);
    let later = policy.status().await?;
    let latest: u64 = later["epochs"]["latestCommitted"].as_str().context("no epochs")?.parse()?;
    ensure!(latest >= newest, "the runs have not even looked: {latest} {newest}");
    ensure!(later["history"] == waiting["history"], "{:#}", later["history"]);
    ensure!(later["conditions"] == waiting["conditions"], "{:#}", later["conditions"]);
    policy.kubectl(&["wait", "--for=condition=Ready", "sep/orders", "--timeout=60s"]).await?;
    ensure!(bucket.sealed().await?.starts_with(&[1, 2, 3, 4, 5, 6]), "something went without approval");

    // Somebody approves it, and a GitOps tool takes the annotation away again.
    do_as_it_says(&policy, &message).await?;
    let approved = policy
        .wait_until("the approval to be taken", |status| status["plan"]["approvedAt"].as_str().map(str::to_owned))
        .await?;
    policy.kubectl(&["annotate", "sep", "orders", "epochwarden.io/approve-plan-"]).await?;
    let (_, message) = policy.wait_for("PruneHealthy", "Succeeded").await?;
    ensure!(message.contains("5 epochs with 25 objects") && message.contains("approved"), "{message}");
    let last = sealing.end().await?;
    ensure!(bucket.epochs().await? == (6..=last).collect::<Vec<_>>(), "{:?}", bucket.epochs().await?);
    let done = policy.status().await?;
    ensure!(done["prune"]["floor"] == "6" && done["prune"]["epochs"] == 5 && runs(&done) == 2, "{done:#}");
    ensure!(
        done["plan"]["digest"] == json!(digest) && done["plan"]["approvedAt"] == json!(approved),
        "{:#}",
        done["plan"]
    );

    // What has become due meanwhile is another plan, and the word for the last one is none for this.
    approve(&policy, &digest).await?;
    let fresh = looked_at(&policy, "prune@4").await?;
    ensure!(fresh["digest"] != json!(digest) && fresh["approvedAt"].is_null(), "{fresh:#}");
    policy.wait_for("PruneHealthy", "AwaitingApproval").await?;
    ensure!(bucket.epochs().await? == (6..=last).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn a_plan_that_deletes_very_much_waits_for_a_word_which_may_come_while_no_operator_runs() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("mass").await?;
    let bucket = Bucket::folder()?;
    bucket.seal(1..=9, VNODES).await?;
    let first = operator(&bucket, &namespace).await?;
    let careful = json!({ "holdAbove": { "epochs": 3, "percent": 50 } });
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket, &careful)).await?;
    policy.wait_for("Ready", "Reachable").await?;
    policy.ask("prune@1").await?;
    let (status, message) = policy.wait_for("PruneHealthy", "MassDeletion").await?;
    ensure!(status == "False" && message.contains("6 of 9") && message.contains("holdAbove"), "{message}");
    let (_, metrics) = first.get("/metrics").await?;
    let series =
        format!("epochwarden_prune_held{{namespace=\"{namespace}\",policy=\"orders\",reason=\"MassDeletion\"}} 1");
    ensure!(metrics.contains(&series), "{metrics}");
    ensure!(bucket.sealed().await?.len() == 9);
    // Whose data is safe is not the store's trouble.
    policy.kubectl(&["wait", "--for=condition=Ready", "sep/orders", "--timeout=60s"]).await?;

    first.terminate(Duration::from_secs(10)).await?;
    do_as_it_says(&policy, &message).await?;
    let _next = operator(&bucket, &namespace).await?;
    policy.wait_for("PruneHealthy", "Succeeded").await?;
    ensure!(bucket.sealed().await? == [7, 8, 9]);

    // A plan of the usual size needs nobody.
    bucket.seal(10..=12, VNODES).await?;
    policy.ask("prune@2").await?;
    until("the usual prune", SOON, async || (bucket.sealed().await.ok()? == [10, 11, 12]).then_some(())).await
}

#[tokio::test]
async fn the_word_for_another_plan_is_named_and_a_changed_spec_makes_another_plan() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("void").await?;
    let bucket = Bucket::folder()?;
    bucket.seal(1..=8, VNODES).await?;
    let _operator = operator(&bucket, &namespace).await?;
    let manual = json!({ "approval": "Manual" });
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket, &manual)).await?;
    policy.wait_for("Ready", "Reachable").await?;
    policy.ask("prune@1").await?;
    policy.wait_for("PruneHealthy", "AwaitingApproval").await?;
    let old = plan(&policy).await?["digest"].as_str().context("no digest")?.to_owned();

    approve(&policy, "0123456789abcdef").await?;
    until("the condition to name the wrong word", SOON, async || {
        let (_, message) = policy.wait_for("PruneHealthy", "AwaitingApproval").await.ok()?;
        (message.contains("0123456789abcdef") && message.contains(&old)).then_some(())
    })
    .await?;
    ensure!(plan(&policy).await?["approvedAt"].is_null());

    // The right word comes too late.
    let mut changed = spec(&bucket, &manual);
    changed["retention"]["keepLast"] = json!(6);
    policy.update(changed).await?;
    // Without a schedule nothing makes another by itself.
    let (_, message) = policy.wait_for("PruneHealthy", "NotScheduled").await?;
    ensure!(message.contains("void") && message.contains("epochwarden.io/run=prune@"), "{message}");
    ensure!(plan(&policy).await?.is_null(), "a void plan is shown");
    approve(&policy, &old).await?;
    let new = looked_at(&policy, "prune@2").await?;
    ensure!(new["digest"] != json!(old) && new["approvedAt"].is_null(), "{new:#}");
    ensure!(new["delete"] == json!([{ "from": "1", "to": "2", "reason": "Expired" }]), "{new:#}");
    ensure!(bucket.sealed().await?.len() == 8);

    approve(&policy, new["digest"].as_str().context("no digest")?).await?;
    policy.wait_for("PruneHealthy", "Succeeded").await?;
    ensure!(bucket.sealed().await? == [3, 4, 5, 6, 7, 8]);
    Ok(())
}

#[tokio::test]
async fn a_plan_that_would_delete_what_is_kept_by_now_gives_way_to_another() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("gives-way").await?;
    let bucket = Bucket::folder()?;
    bucket.seal(1..=8, VNODES).await?;
    let _operator = operator(&bucket, &namespace).await?;
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket, &json!({ "approval": "Manual" }))).await?;
    policy.wait_for("Ready", "Reachable").await?;
    policy.ask("prune@1").await?;
    policy.wait_for("PruneHealthy", "AwaitingApproval").await?;
    let old = plan(&policy).await?["digest"].as_str().context("no digest")?.to_owned();

    // Somebody deletes the newest epochs: those below are the last three now.
    for epoch in 7..=8 {
        std::fs::remove_dir_all(bucket.path()?.join(format!("epoch={epoch}")))?;
    }
    let new = looked_at(&policy, "prune@2").await?;
    ensure!(new["digest"] != json!(old), "{new:#}");
    ensure!(new["delete"] == json!([{ "from": "1", "to": "3", "reason": "Expired" }]), "{new:#}");
    let (_, message) = policy.wait_for("PruneHealthy", "AwaitingApproval").await?;
    ensure!(
        message.contains(&old) && message.contains("epoch 4"),
        "it does not say what became of the old plan: {message}"
    );

    // Nobody has approved this one.
    approve(&policy, &old).await?;
    looked_at(&policy, "prune@3").await?;
    ensure!(bucket.sealed().await? == [1, 2, 3, 4, 5, 6]);
    ensure!(plan(&policy).await? == new);
    Ok(())
}

#[tokio::test]
async fn an_approved_plan_that_comes_to_a_limit_stays_approved_over_a_restart_until_all_of_it_is_gone() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("rest").await?;
    let bucket = Bucket::folder()?;
    bucket.seal(1..=8, VNODES).await?;
    let first = operator(&bucket, &namespace).await?;
    // Whose schedule does not come: here it is the restart, and then somebody's request.
    let limited = json!({ "approval": "Manual", "maxObjects": 10, "schedule": "0 0 1 1 *" });
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket, &limited)).await?;
    policy.wait_for("Ready", "Reachable").await?;
    policy.ask("prune@1").await?;
    let (_, message) = policy.wait_for("PruneHealthy", "AwaitingApproval").await?;
    do_as_it_says(&policy, &message).await?;
    policy.wait_for("PruneHealthy", "Succeeded").await?;
    ensure!(bucket.sealed().await? == [3, 4, 5, 6, 7, 8]);
    policy.kubectl(&["annotate", "sep", "orders", "epochwarden.io/approve-plan-"]).await?;
    bucket.seal(9..=11, VNODES).await?;

    first.terminate(Duration::from_secs(10)).await?;
    let _next = operator(&bucket, &namespace).await?;
    until("the next operator to go on", SOON, async || {
        (bucket.sealed().await.ok()? == [5, 6, 7, 8, 9, 10, 11]).then_some(())
    })
    .await?;
    policy
        .wait_until("the end of that run", |status| {
            (status["prune"]["phase"] == "Stopped" && runs(status) == 3).then_some(())
        })
        .await?;
    policy.ask("prune@2").await?;
    until("the last of it", SOON, async || (bucket.sealed().await.ok()? == [6, 7, 8, 9, 10, 11]).then_some(())).await?;
    policy.wait_until("its end", |status| (status["prune"]["phase"] == "Succeeded").then_some(())).await?;

    // What else is due is nobody's word yet.
    let fresh = looked_at(&policy, "prune@3").await?;
    ensure!(fresh["delete"] == json!([{ "from": "6", "to": "8", "reason": "Expired" }]), "{fresh:#}");
    ensure!(fresh["approvedAt"].is_null() && bucket.sealed().await? == [6, 7, 8, 9, 10, 11], "{fresh:#}");
    Ok(())
}

#[tokio::test]
async fn an_approved_plan_goes_on_from_limit_to_limit_without_a_schedule_until_all_of_it_is_gone() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("all-of-it").await?;
    let bucket = Bucket::folder()?;
    bucket.seal(1..=8, VNODES).await?;
    let _operator = operator(&bucket, &namespace).await?;
    let limited = json!({ "approval": "Manual", "maxObjects": 10 });
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket, &limited)).await?;
    policy.wait_for("Ready", "Reachable").await?;
    policy.ask("prune@1").await?;
    let (_, message) = policy.wait_for("PruneHealthy", "AwaitingApproval").await?;
    do_as_it_says(&policy, &message).await?;
    let stopped = policy
        .wait_until("the first limit", |status| (status["prune"]["phase"] == "Stopped").then(|| status.clone()))
        .await?;
    let message = stopped["prune"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("3 epochs are left; it goes on by itself"), "{message}");
    policy.kubectl(&["annotate", "sep", "orders", "epochwarden.io/approve-plan-"]).await?;
    bucket.seal(9..=11, VNODES).await?;

    let done = policy
        .wait_until("the last of it", |status| (status["prune"]["phase"] == "Succeeded").then(|| status.clone()))
        .await?;
    ensure!(bucket.sealed().await? == [6, 7, 8, 9, 10, 11], "what else is due is nobody's word");
    ensure!(runs(&done) == 4, "it waited, and went on twice: {:#}", done["history"]);
    Ok(())
}

#[tokio::test]
async fn an_annotation_that_is_left_standing_does_not_approve_what_has_the_same_numbers_again() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("standing").await?;
    let bucket = Bucket::folder()?;
    bucket.seal(1..=8, VNODES).await?;
    let first = operator(&bucket, &namespace).await?;
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket, &json!({ "approval": "Manual" }))).await?;
    policy.wait_for("Ready", "Reachable").await?;
    policy.ask("prune@1").await?;
    let (_, command) = policy.wait_for("PruneHealthy", "AwaitingApproval").await?;
    let digest = plan(&policy).await?["digest"].clone();
    do_as_it_says(&policy, &command).await?;
    policy.wait_for("PruneHealthy", "Succeeded").await?;

    // The epochs are wiped, and without a fence nobody keeps the pipeline from giving the same numbers again.
    for epoch in bucket.epochs().await? {
        std::fs::remove_dir_all(bucket.path()?.join(format!("epoch={epoch}")))?;
    }
    bucket.seal(1..=8, VNODES).await?;
    let again = looked_at(&policy, "prune@2").await?;
    ensure!(again["digest"] == digest && again["approvedAt"].is_null(), "{again:#}");
    let (_, message) = policy.wait_for("PruneHealthy", "AwaitingApproval").await?;
    ensure!(message.contains("take it away and set it again"), "{message}");

    // Nor does it to the next operator.
    first.terminate(Duration::from_secs(10)).await?;
    let _next = operator(&bucket, &namespace).await?;
    ensure!(looked_at(&policy, "prune@3").await? == again);
    ensure!(bucket.sealed().await? == [1, 2, 3, 4, 5, 6, 7, 8], "epochs went that nobody has looked at");

    policy.kubectl(&["annotate", "sep", "orders", "epochwarden.io/approve-plan-"]).await?;
    until("the condition to say nothing of the annotation", SOON, async || {
        let (_, message) = policy.wait_for("PruneHealthy", "AwaitingApproval").await.ok()?;
        (!message.contains("take it away")).then_some(())
    })
    .await?;
    do_as_it_says(&policy, &command).await?;
    policy.wait_for("PruneHealthy", "Succeeded").await?;
    ensure!(bucket.sealed().await? == [6, 7, 8]);
    Ok(())
}

#[tokio::test]
async fn a_prune_that_leaves_more_from_run_to_run_is_falling_behind_until_it_may_do_more() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("behind").await?;
    let bucket = Bucket::folder()?;
    bucket.seal(1..=6, VNODES).await?;
    let _operator = operator(&bucket, &namespace).await?;
    let limited = json!({ "maxObjects": 5 });
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket, &limited)).await?;
    policy.wait_for("Ready", "Reachable").await?;
    // An epoch goes and two come, from run to run.
    for (run, newest, left) in [(1, 8, 2), (2, 10, 3)] {
        looked_at(&policy, &format!("prune@{run}")).await?;
        let (status, message) = policy.wait_for("PruneHealthy", "Succeeded").await?;
        ensure!(status == "True" && message.contains(&format!("{left} epochs are left")), "{message}");
        bucket.seal(newest - 1..=newest, VNODES).await?;
    }
    policy.ask("prune@3").await?;
    let (status, message) = policy.wait_for("PruneHealthy", "FallingBehind").await?;
    ensure!(status == "False" && message.contains("10, 15, 20 objects") && message.contains("maxObjects"), "{message}");
    policy.wait_for_event("PruneFailed").await?;

    policy.update(spec(&bucket, &json!({ "maxObjects": 1000 }))).await?;
    policy.ask("prune@4").await?;
    policy.wait_for("PruneHealthy", "Succeeded").await?;
    ensure!(bucket.sealed().await? == [8, 9, 10]);
    Ok(())
}
