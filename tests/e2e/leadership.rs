//! Several operators of which one works: who that is, and how another follows.
//!
//! That two which both work do no harm is shown where operators die: `crashes::two_operators_at_once_do_no_harm_and_come_to_rest`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use epochwarden_core::election::{LASTS, LOOK_EVERY, RENEW_AFTER};
use epochwarden_testkit::apiserver::Cluster;
use epochwarden_testkit::proxy::Proxy;
use epochwarden_testkit::wait::until;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::away::own_cluster;
use crate::support::bucket::Bucket;
use crate::support::lease::Leader;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::scene::Scene;
use crate::support::{SOON, cluster, say, secret};

/// The Lease of the operators.
const ELECTION: &str = "epochwarden";

/// What a standby may need after a clean stop, from the end of the process to the durable fence.
const AFTER_A_STOP: Duration = Duration::from_secs(3);

/// What it may need to work once it leads, on a busy machine.
const TO_WORK: Duration = Duration::from_secs(2);

/// A policy whose pipeline fails over while operators come and go.
struct Stage {
    cluster: &'static Cluster,
    namespace: String,
    bucket: Bucket,
    leader: Leader,
}

impl Stage {
    async fn set(prefix: &str) -> Result<Self> {
        let cluster = cluster().await?;
        let namespace = cluster.namespace(prefix).await?;
        let bucket = Bucket::s3(&namespace).await?;
        secret(cluster, &namespace, "orders-state", &bucket).await?;
        let leader = Leader::new(cluster.client().await?, &namespace, "orders-leader");
        leader.lead("pod-1", 0).await?;
        Ok(Self { cluster, namespace, bucket, leader })
    }

    async fn replica(&self, environment: &[(&str, &str)]) -> Result<Operator> {
        Operator::replica(self.cluster, &self.namespace, &[], ELECTION, environment).await
    }

    /// A replica that reaches the API server through `proxy`.
    async fn replica_behind(&self, proxy: &Proxy) -> Result<Operator> {
        let name = format!("{}-proxied", self.namespace);
        let kubeconfig = self.cluster.kubeconfig_at(&name, self.cluster.admin_token(), &proxy.url())?;
        self.replica(&[("KUBECONFIG", kubeconfig.to_str().unwrap_or_default())]).await
    }

    fn proxy(&self) -> Result<Proxy> {
        Proxy::to_tls(&self.cluster.url(), &std::fs::read_to_string(self.cluster.certificate())?)
    }

    async fn policy(&self) -> Result<Policy<'static>> {
        let spec = json!({
            "store": self.bucket.store(Some("orders-state")),
            "vnodes": 2,
            "fence": { "leaseRef": { "name": "orders-leader" } },
        });
        Policy::apply(self.cluster, &self.namespace, "orders", spec).await
    }

    /// Changes the pipeline's leader and waits until the bucket fences the one before. Gives how long that took.
    async fn fail_over_to(&self, version: u64) -> Result<Duration> {
        let changed = Instant::now();
        self.leader.lead(&format!("pod-{version}"), i32::try_from(version - 1)?).await?;
        self.fenced_at(version).await?;
        Ok(changed.elapsed())
    }

    async fn fenced_at(&self, version: u64) -> Result<()> {
        until(&format!("the fence of version {version}"), SOON, async || {
            (self.bucket.fence().await.ok()? == version).then_some(())
        })
        .await
    }

    /// The Lease of the operators: the holder, and how often it changed hands.
    async fn election(&self) -> Result<(Option<String>, i32)> {
        let api = Api::<Lease>::namespaced(self.cluster.client().await?, &self.namespace);
        let spec = api.get(ELECTION).await?.spec.unwrap_or_default();
        Ok((spec.holder_identity.filter(|holder| !holder.is_empty()), spec.lease_transitions.unwrap_or_default()))
    }
}

#[tokio::test]
async fn of_two_operators_one_works_and_the_other_is_ready_and_asks_for_nothing_but_the_lease() -> Result<()> {
    let stage = Stage::set("replicas").await?;
    let one = stage.replica(&[("POD_NAME", "operator-1")]).await?;
    one.wait_to_lead().await?;
    let proxy = stage.proxy()?;
    let other = stage.replica_behind(&proxy).await?;
    let policy = stage.policy().await?;
    policy.wait_for("FenceCurrent", "Published").await?;
    stage.fail_over_to(2).await?;

    for path in ["/livez", "/readyz"] {
        let (status, body) = other.get(path).await?;
        ensure!(status == 200, "{path} of the standby: {status} {body}");
    }
    ensure!(one.leads().await? && !other.leads().await?);
    let (_, metrics) = other.get("/metrics").await?;
    ensure!(metrics.contains("\nepochwarden_leader 0.0\n") && !metrics.contains("policy="), "{metrics}");
    // Long enough for whoever works to have made its status, its Events and its next look at the Lease.
    let looks = proxy.requests("GET", "*/leases/epochwarden");
    until("further looks at the Lease", SOON, async || {
        (proxy.requests("GET", "*/leases/epochwarden") >= looks + 3).then_some(())
    })
    .await?;
    // Counted in this order, since it goes on looking.
    let all = proxy.requests("*", "*");
    let looks = proxy.requests("GET", "*/leases/epochwarden");
    ensure!(all <= looks, "the standby asked {all} times, and {looks} times for the Lease");
    ensure!(!other.log().contains("working for the policy"), "{}", other.log());
    let (holder, transitions) = stage.election().await?;
    let holder = holder.context("nobody holds the Lease")?;
    ensure!(holder.starts_with("operator-1-") && transitions == 0, "{holder} {transitions}");
    Ok(())
}

#[tokio::test]
async fn an_operator_that_stands_alone_leads_without_an_election() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("alone").await?;
    let operator = Operator::start(cluster, &namespace, &[]).await?;
    ensure!(operator.leads().await?);
    let api = Api::<Lease>::namespaced(cluster.client().await?, &namespace);
    ensure!(api.get_opt(ELECTION).await?.is_none(), "a Lease that nobody asked for");
    Ok(())
}

#[tokio::test]
async fn after_a_clean_stop_the_standby_moves_the_fence_within_three_seconds() -> Result<()> {
    let stage = Stage::set("stopped").await?;
    let one = stage.replica(&[]).await?;
    one.wait_to_lead().await?;
    let other = stage.replica(&[]).await?;
    let policy = stage.policy().await?;
    policy.wait_for("FenceCurrent", "Published").await?;

    let told = Instant::now();
    let status = one.terminate(SOON).await?;
    ensure!(status.success(), "{status}");
    let ended = told.elapsed();
    let took = stage.fail_over_to(2).await?;
    say(&format!("the leader ended {ended:?} after SIGTERM, and {took:?} later the standby had moved the fence"))?;
    ensure!(took <= AFTER_A_STOP, "{took:?} after the clean stop\n{}", other.log());
    ensure!(other.leads().await? && stage.election().await?.1 == 1);
    policy.wait_until("the fence in the status", |status| (status["fence"]["version"] == 2).then_some(())).await?;

    // The last one leaves the Lease free behind it.
    let status = other.terminate(SOON).await?;
    ensure!(status.success() && stage.election().await?.0.is_none(), "{status} {:?}", stage.election().await?);
    Ok(())
}

#[tokio::test]
async fn the_lease_is_given_back_when_the_work_has_ended_and_the_next_leader_finishes_it() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("handed-over").await?;
    let bucket = Bucket::folder()?;
    bucket.fill(100, 50)?;
    let root = bucket.path()?.display().to_string();
    let flags = ["--allow-file-root", root.as_str()];
    let proxy = Proxy::to_tls(&cluster.url(), &std::fs::read_to_string(cluster.certificate())?)?;
    let kubeconfig = cluster.kubeconfig_at(&namespace, cluster.admin_token(), &proxy.url())?;
    let proxied = [("KUBECONFIG", kubeconfig.to_str().unwrap_or_default())];
    let one = Operator::replica(cluster, &namespace, &flags, ELECTION, &proxied).await?;
    one.wait_to_lead().await?;
    let _other = Operator::replica(cluster, &namespace, &flags, ELECTION, &[]).await?;
    let spec = json!({ "store": bucket.store(None), "vnodes": 50, "retention": { "keepLast": 2 }, "prune": { "minAge": "0s", "maxKeysPerSecond": 500 } });
    let policy = Policy::apply(cluster, &namespace, "orders", spec).await?;
    policy.wait_for("Ready", "Reachable").await?;
    policy.ask("prune").await?;
    let deleting = |status: &Value| (status["prune"]["progress"]["done"].as_u64()? > 0).then_some(());
    policy.wait_until("the prune to delete", deleting).await?;

    let leases = proxy.journal("PUT", "*/leases/epochwarden*");
    let statuses = proxy.journal("PATCH", "*/stateepochpolicies/*/status*");
    let status = one.terminate(SOON).await?;
    ensure!(status.success(), "{status}");
    let (leases, statuses) = (leases.passages(), statuses.passages());
    let back = leases.last().context("the Lease was not given back")?.arrived;
    let told = statuses.last().and_then(|last| last.answered).context("the end of the prune was not told")?;
    ensure!(told <= back, "the Lease was given back before the work had ended");

    until("the rest is pruned", SOON, async || (bucket.epochs().await.ok()? == [99, 100]).then_some(())).await?;
    policy.wait_for("PruneHealthy", "Succeeded").await?;
    Ok(())
}

#[tokio::test]
async fn after_a_kill_the_standby_moves_the_fence_within_the_lease_time_and_not_before() -> Result<()> {
    let stage = Stage::set("killed").await?;
    let mut one = stage.replica(&[]).await?;
    one.wait_to_lead().await?;
    let other = stage.replica(&[]).await?;
    let policy = stage.policy().await?;
    policy.wait_for("FenceCurrent", "Published").await?;

    let killed = Instant::now();
    one.process.kill()?;
    stage.fail_over_to(2).await?;
    let took = killed.elapsed();
    say(&format!("{took:?} after the leader was killed the standby had moved the fence"))?;
    // The last renewal was up to its interval before the kill, and seen up to a look later.
    ensure!(took <= LASTS + LOOK_EVERY + TO_WORK, "{took:?} after the kill\n{}", other.log());
    ensure!(took >= LASTS.saturating_sub(2 * RENEW_AFTER), "{took:?}: the Lease had not expired\n{}", other.log());
    ensure!(stage.election().await?.1 == 1);
    Ok(())
}

#[tokio::test]
async fn a_leader_that_hears_nothing_from_the_api_server_ends_before_the_standby_leads() -> Result<()> {
    let stage = Stage::set("silent").await?;
    let proxy = stage.proxy()?;
    let mut one = stage.replica_behind(&proxy).await?;
    one.wait_to_lead().await?;
    let other = stage.replica(&[]).await?;
    let policy = stage.policy().await?;
    policy.wait_for("FenceCurrent", "Published").await?;

    let began = Instant::now();
    proxy.silence();
    let ends = async {
        let status = one.process.wait_exit(SOON).await?;
        anyhow::Ok((status, began.elapsed()))
    };
    let follows = async {
        other.wait_to_lead().await?;
        anyhow::Ok(began.elapsed())
    };
    let ((status, ended), followed) = tokio::try_join!(ends, follows)?;
    say(&format!("without its API server the leader ended after {ended:?}, and the standby led after {followed:?}"))?;
    ensure!(ended < followed, "both led: {ended:?} {followed:?}");
    let log = one.log();
    ensure!(status.code() == Some(1), "{status}\n{log}");
    ensure!(log.contains("it leads no more") && log.contains("no renewal was acknowledged"), "{log}");
    stage.fail_over_to(2).await?;
    Ok(())
}

#[tokio::test]
async fn operators_that_stand_by_wait_for_an_api_server_that_is_away_and_one_leads_when_it_is_back() -> Result<()> {
    let cluster = own_cluster().await?;
    let namespace = cluster.namespace("away").await?;
    let bucket = Bucket::folder()?;
    let root = bucket.path()?.display().to_string();
    let flags = ["--allow-file-root", root.as_str()];
    let leader = Leader::new(cluster.client().await?, &namespace, "orders-leader");
    leader.lead("pod-1", 0).await?;
    let mut one = Operator::replica(&cluster, &namespace, &flags, ELECTION, &[]).await?;
    one.wait_to_lead().await?;
    let other = Operator::replica(&cluster, &namespace, &flags, ELECTION, &[]).await?;
    let spec =
        json!({ "store": bucket.store(None), "vnodes": 2, "fence": { "leaseRef": { "name": "orders-leader" } } });
    let policy = Policy::apply(&cluster, &namespace, "orders", spec).await?;
    policy.wait_for("FenceCurrent", "Published").await?;

    cluster.stop_apiserver()?;
    let status = one.process.wait_exit(SOON).await?;
    ensure!(status.code() == Some(1), "{status}\n{}", one.log());
    ensure!(other.get("/readyz").await?.0 == 200 && !other.leads().await?);
    // Started again while nothing can be asked, it has to wait like the other.
    let again = Operator::replica(&cluster, &namespace, &flags, ELECTION, &[]);
    let (again, back) = tokio::join!(again, cluster.start_apiserver());
    let again = again?;
    back?;
    let began = Instant::now();
    leader.lead("pod-2", 1).await?;
    until("the fence of the new leader", SOON, async || (bucket.fence().await.ok()? == 2).then_some(())).await?;
    say(&format!("the fence followed {:?} after the API server was back", began.elapsed()))?;
    ensure!(again.leads().await? != other.leads().await?, "one of the two leads");
    Ok(())
}

#[tokio::test]
async fn a_leader_whose_renewals_are_lost_for_a_moment_goes_on_leading() -> Result<()> {
    let stage = Stage::set("moment").await?;
    let proxy = stage.proxy()?;
    let one = stage.replica_behind(&proxy).await?;
    one.wait_to_lead().await?;
    let other = stage.replica(&[]).await?;
    let policy = stage.policy().await?;
    policy.wait_for("FenceCurrent", "Published").await?;
    // Written, and not answered: the next write meets the one before it.
    let lost = proxy.on("PUT", "*/leases/epochwarden*").once().close_after();
    let refused = proxy.on("PUT", "*/leases/epochwarden*").times(2).close_before();
    let renewed = proxy.requests("PUT", "*/leases/epochwarden*");
    until("renewals to be lost, and others to come through", SOON, async || {
        (proxy.requests("PUT", "*/leases/epochwarden*") >= renewed + 7).then_some(())
    })
    .await?;
    ensure!((lost.count(), refused.count()) == (1, 2));
    ensure!(one.leads().await? && !other.leads().await?);
    ensure!(stage.election().await?.1 == 0, "the Lease changed hands");
    stage.fail_over_to(2).await?;
    Ok(())
}

#[tokio::test]
async fn a_leader_whose_lease_is_taken_away_ends_at_once() -> Result<()> {
    let stage = Stage::set("deposed").await?;
    let mut one = stage.replica(&[]).await?;
    one.wait_to_lead().await?;
    let thief = Leader::new(stage.cluster.client().await?, &stage.namespace, ELECTION);
    thief.lead("somebody-else", 7).await?;
    let status = one.process.wait_exit(SOON).await?;
    let log = one.log();
    ensure!(status.code() == Some(1) && log.contains("held by \"somebody-else\""), "{status}\n{log}");
    ensure!(stage.election().await? == (Some("somebody-else".into()), 7), "what is another's was written to");
    Ok(())
}

#[tokio::test]
async fn a_leader_that_was_paused_past_its_lease_ends_when_it_goes_on_and_nothing_is_lost() -> Result<()> {
    let mut scene = Scene::on_s3(cluster().await?, "paused").await?;
    let mut one = scene.replica().await?;
    one.wait_to_lead().await?;
    let other = scene.replica().await?;
    scene.act().await?;
    scene.settled().await?;
    let witness = scene.watch();
    scene.ask("prune").await?;
    scene.taken_up().await?;
    one.process.signal("STOP")?;
    let log = || format!("the log of the standby:\n{}", other.log());
    let (acted, led) = tokio::join!(scene.act(), other.wait_to_lead());
    acted.and(led).with_context(log)?;
    // It goes on in the middle of what the next one does.
    let again = Instant::now();
    one.process.signal("CONT")?;
    let status = one.process.wait_exit(SOON).await?;
    let ended = again.elapsed();
    ensure!(status.code() == Some(1) && one.log().contains("it leads no more"), "{status}\n{}", one.log());
    scene.settled().await.with_context(log)?;
    let looks = witness.asked().await?;
    let curtain = scene.finish().await.with_context(log)?;
    say(&format!(
        "the leader that was paused ended {ended:?} after it went on; {curtain}, the status was true at {looks} looks"
    ))?;
    ensure!(!other.log().contains("panicked"), "{}", other.log());
    Ok(())
}

/// Whether the operator works for the policy of this name, by its log.
fn works_for(operator: &Operator, policy: &str) -> bool {
    let worked = format!("policy=\"{policy}\"");
    operator.log().lines().any(|line| line.contains("working for the policy") && line.contains(&worked))
}

#[tokio::test]
async fn two_releases_in_one_cluster_split_by_label_act_on_their_own_policies_alone() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("releases").await?;
    let teams = ["orders", "clicks"];
    let bucket = Bucket::s3(&namespace).await?;
    secret(cluster, &namespace, "state", &bucket).await?;
    let leader = Leader::new(cluster.client().await?, &namespace, "leader");
    leader.lead("pod-1", 0).await?;
    let mut operators = Vec::new();
    for team in teams {
        let selector = format!("team={team}");
        let flags = ["--policy-selector", selector.as_str()];
        operators.push(Operator::replica(cluster, &namespace, &flags, &format!("release-{team}"), &[]).await?);
    }
    for operator in &operators {
        operator.wait_to_lead().await?;
    }
    let spec = |name: &str| -> Result<Value> {
        let store = bucket.below(name)?.store(Some("state"));
        Ok(json!({ "store": store, "vnodes": 2, "fence": { "leaseRef": { "name": "leader" } } }))
    };
    let nobodys = Policy::apply(cluster, &namespace, "nobodys", spec("nobodys")?).await?;
    let mut policies = Vec::new();
    for team in teams {
        let policy = Policy::apply(cluster, &namespace, team, spec(team)?).await?;
        policy.kubectl(&["label", "sep", team, &format!("team={team}")]).await?;
        policies.push(policy);
    }
    for policy in &policies {
        policy.wait_for("FenceCurrent", "Published").await?;
    }
    for (operator, (own, others)) in operators.iter().zip([("orders", "clicks"), ("clicks", "orders")]) {
        ensure!(works_for(operator, own), "{}", operator.log());
        ensure!(!works_for(operator, others) && !works_for(operator, "nobodys"), "{}", operator.log());
        let (_, metrics) = operator.get("/metrics").await?;
        ensure!(metrics.contains(&format!("policy=\"{own}\"")) && !metrics.contains(&format!("policy=\"{others}\"")));
        ensure!(operator.leads().await?, "the other release's leader is none of its business");
    }
    ensure!(nobodys.status().await?.is_null());

    // A policy that is moved over is let go of by the one, and its root taken on by the other.
    let [of_orders, of_clicks] = operators.as_slice() else { anyhow::bail!("two were started") };
    policies[0].kubectl(&["label", "--overwrite", "sep", "orders", "team=clicks"]).await?;
    until("the other release to take it on", SOON, async || works_for(of_clicks, "orders").then_some(())).await?;
    until("the first to let go of it", SOON, async || {
        let (_, metrics) = of_orders.get("/metrics").await.ok()?;
        (!metrics.contains("policy=\"")).then_some(())
    })
    .await?;
    leader.lead("pod-2", 1).await?;
    for policy in &policies {
        policy.wait_until("the fence in the status", |status| (status["fence"]["version"] == 2).then_some(())).await?;
    }
    Ok(())
}
