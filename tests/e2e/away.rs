//! The API server goes away, forgets what it had told, refuses, or does not know the resource any more.

use std::time::Duration;

use anyhow::{Result, ensure};
use epochwarden_testkit::proxy::{Answer, Proxy};
use epochwarden_testkit::wait::until;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::away::{catches_up_after, own_cluster};
use crate::support::bucket::Bucket;
use crate::support::census::{Census, Crowd};
use crate::support::lease::Leader;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{SOON, cluster, install, say};

fn spec(bucket: &Bucket) -> Value {
    json!({
        "store": bucket.store(None),
        "vnodes": 2,
        "fence": { "leaseRef": { "name": "orders-leader" } },
        "retention": { "keepLast": 2 },
        "prune": { "minAge": "0s" },
    })
}

#[tokio::test]
async fn while_the_api_server_is_away_nothing_more_is_deleted_and_then_all_is_caught_up_with() -> Result<()> {
    catches_up_after(Duration::from_secs(10)).await
}

#[tokio::test]
async fn what_changed_while_the_watches_expired_is_found_all_the_same() -> Result<()> {
    let cluster = own_cluster().await?;
    let namespace = cluster.namespace("expired").await?;
    let (stays, goes, comes) = (Bucket::folder()?, Bucket::folder()?, Bucket::folder()?);
    let folders = [stays.path()?, goes.path()?, comes.path()?].map(|path| path.display().to_string());
    let flags: Vec<&str> = folders.iter().flat_map(|folder| ["--allow-file-root", folder]).collect();
    let leader = Leader::new(cluster.client().await?, &namespace, "orders-leader");
    leader.lead("pod-a", 0).await?;
    let operator = Operator::start(&cluster, &namespace, &flags).await?;
    let of_stays = Policy::apply(&cluster, &namespace, "stays", spec(&stays)).await?;
    let of_goes = Policy::apply(&cluster, &namespace, "goes", spec(&goes)).await?;
    for policy in [&of_stays, &of_goes] {
        policy.wait_for("FenceCurrent", "Published").await?;
    }

    // A server that starts again knows nothing of what it had told before: who asks for it is too late.
    operator.process.signal("STOP")?;
    cluster.stop_apiserver()?;
    cluster.start_apiserver().await?;
    of_goes.delete().await?;
    let of_comes = Policy::apply(&cluster, &namespace, "comes", spec(&comes)).await?;
    leader.lead("pod-b", 1).await?;
    let began = Instant::now();
    operator.process.signal("CONT")?;

    for bucket in [&stays, &comes] {
        until("the fence of the new leader", SOON, async || (bucket.fence().await.ok()? == 2).then_some(())).await?;
    }
    let fenced = began.elapsed();
    for policy in [&of_stays, &of_comes] {
        policy.wait_until("the fence in the status", |status| (status["fence"]["version"] == 2).then_some(())).await?;
    }
    until("no metric of the one that went", SOON, async || {
        let (_, metrics) = operator.get("/metrics").await.ok()?;
        (metrics.contains("policy=\"comes\"") && !metrics.contains("policy=\"goes\"")).then_some(())
    })
    .await?;
    leader.lead("pod-c", 2).await?;
    for bucket in [&stays, &comes] {
        until("the fence of the last leader", SOON, async || (bucket.fence().await.ok()? == 3).then_some(())).await?;
    }
    ensure!(goes.fence().await? < 3, "a policy that was deleted is worked for");
    let log = operator.log();
    ensure!(log.contains("too old resource version"), "no watch has expired:\n{log}");
    ensure!(!log.contains("panicked"), "{log}");
    say(&format!("after its watches had expired, the operator fenced the new leader in {fenced:?}"))?;
    Ok(())
}

#[tokio::test]
async fn the_resource_is_deleted_with_its_policies_and_put_back_and_the_bucket_is_as_it_was() -> Result<()> {
    let cluster = own_cluster().await?;
    let namespace = cluster.namespace("definition").await?;
    let bucket = Bucket::folder()?;
    bucket.seal(1..=6, 2).await?;
    let root = bucket.path()?.display().to_string();
    let leader = Leader::new(cluster.client().await?, &namespace, "orders-leader");
    leader.lead("pod-a", 0).await?;
    let operator = Operator::start(&cluster, &namespace, &["--allow-file-root", &root]).await?;
    let policy = Policy::apply(&cluster, &namespace, "orders", spec(&bucket)).await?;
    policy.wait_for("FenceCurrent", "Published").await?;

    let deleted = cluster.kubectl(&["delete", "crd", "stateepochpolicies.epochwarden.io", "--timeout=60s"]).await?;
    ensure!(deleted.status.success(), "{}", deleted.stderr);
    until("no metric of the policy", SOON, async || {
        let (_, metrics) = operator.get("/metrics").await.ok()?;
        (!metrics.contains("policy=\"orders\"")).then_some(())
    })
    .await?;
    // Nobody's policy follows it any more.
    leader.lead("pod-b", 1).await?;
    let (livez, _) = operator.get("/livez").await?;
    ensure!(livez == 200, "without its resource the operator is not well itself");
    ensure!(bucket.sealed().await? == [1, 2, 3, 4, 5, 6] && bucket.fence().await? == 1);

    let began = Instant::now();
    install(&cluster).await?;
    let policy = Policy::apply(&cluster, &namespace, "orders", spec(&bucket)).await?;
    policy.wait_for("Ready", "Reachable").await?;
    policy.wait_until("the fence in the status", |status| (status["fence"]["version"] == 2).then_some(())).await?;
    let took = began.elapsed();
    policy.ask("prune").await?;
    policy.wait_for("PruneHealthy", "Succeeded").await?;
    ensure!(bucket.sealed().await? == [5, 6], "the policy that was created again has its root back");
    ensure!(!operator.log().contains("panicked"), "{}", operator.log());
    say(&format!("a policy was worked for {took:?} after its resource was put back"))?;
    Ok(())
}

#[tokio::test]
async fn an_api_server_that_refuses_for_a_while_delays_the_work_and_loses_none_of_it() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("refused").await?;
    let proxy = Proxy::to_tls(&cluster.url(), &std::fs::read_to_string(cluster.certificate())?)?;
    let kubeconfig = cluster.kubeconfig_at(&namespace, cluster.admin_token(), &proxy.url())?;
    let bucket = Bucket::folder()?;
    bucket.seal(1..=6, 2).await?;
    let root = bucket.path()?.display().to_string();
    let leader = Leader::new(cluster.client().await?, &namespace, "orders-leader");
    leader.lead("pod-a", 0).await?;
    let environment = [("KUBECONFIG", kubeconfig.to_str().unwrap_or_default())];
    let operator = Operator::start_with(cluster, &namespace, &["--allow-file-root", &root], &environment).await?;
    let conflict = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Conflict", "code": 409,
        "message": "the object has been modified; please apply your changes to the latest version and try again",
    });
    let conflict = Answer::new(409).header("Content-Type", "application/json").body(conflict.to_string());
    let conflicts = proxy.on("PATCH", "*/stateepochpolicies/*/status*").times(2).answer(conflict);
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket)).await?;
    policy.wait_for("FenceCurrent", "Published").await?;
    ensure!(conflicts.count() == 2, "{} conflicts", conflicts.count());

    // As its fairness answers: no watch, no reading, no writing, and then not for a while.
    let many = Answer::new(429).header("Retry-After", "1").body("Too many requests, please try again later.");
    let refusals = proxy.on("*", "*").times(12).answer(many);
    proxy.drop_connections();
    let began = Instant::now();
    leader.lead("pod-b", 1).await?;
    policy.ask("prune@1").await?;
    until("the fence of the new leader", SOON, async || (bucket.fence().await.ok()? == 2).then_some(())).await?;
    let fenced = began.elapsed();
    policy
        .wait_until("all to be done and told", |status| {
            let done = status["fence"]["version"] == 2
                && status["lastRunRequest"] == "prune@1"
                && status["prune"]["phase"] == "Succeeded";
            done.then_some(())
        })
        .await?;
    ensure!(bucket.sealed().await? == [5, 6]);
    ensure!(refusals.count() == 12, "only {} requests were refused", refusals.count());
    ensure!(!operator.log().contains("panicked"), "{}", operator.log());
    say(&format!(
        "through 2 conflicts and 12 refusals (429) a leader was fenced in {fenced:?}, all was done in {:?}",
        began.elapsed()
    ))?;
    Ok(())
}

#[tokio::test]
async fn two_hundred_policies_created_at_once_are_all_ready_soon_and_leave_nothing_behind() -> Result<()> {
    let crowd = Crowd::gather(cluster().await?, "crowd").await?;
    let operator = crowd.operator().await?;
    let before = crowd.census(&operator).await?;
    let ready = crowd.come(200, 2 * SOON).await?;
    let at_work = Census::of_now(&operator).await?;
    let gone = crowd.leave(&operator, SOON).await?;
    // A connection that is kept open for a while has a task of its own, and tasks and connections are not counted in the same moment.
    let left = |census: &Census| census.tasks.unwrap_or_default().saturating_sub(census.sockets);
    let mut last = None;
    let after = until("nothing to be left of them", 2 * SOON, async || {
        let now = crowd.census(&operator).await.ok()?;
        last = Some(now);
        let gone = left(&now) <= left(&before) && now.files <= before.files && now.series <= before.series;
        gone.then_some(now)
    });
    let after = after.await.map_err(|error| error.context(format!("before: {before}; at last: {last:?}")))?;
    say(&format!("none: {before}; 200 policies, Ready in {ready:?}: {at_work}; gone in {gone:?}: {after}"))?;
    ensure!(!operator.log().contains("panicked"), "{}", operator.log());
    Ok(())
}
