//! A tenant and two operators on a node, and what can be seen of them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use epochwarden_testkit::node::{NODE_ADDRESS, Node};
use epochwarden_testkit::{proxy::Proxy, s3server::S3Server, wait::until};
use serde_json::{Value, json};
use tokio::time::interval;

use crate::kept::{KEEP_LAST, Ledger, PINNED, Shelf};
use crate::release::{self, NAMESPACE};
use crate::tenant::{APP, BUCKET, import_pipeline, tenant};
use crate::told::Told;

/// Longer than a minute's schedule, a Lease of the operators and a prune take together.
const SOON: Duration = Duration::from_mins(4);

/// How often everything that must be there is looked for.
const LOOKS: Duration = Duration::from_millis(200);

pub(crate) struct Scene {
    pub(crate) node: Node,
    /// Between everybody and the store.
    pub(crate) proxy: Proxy,
    seen: Mutex<(Told, Ledger)>,
}

/// A pod of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operator {
    pub(crate) name: String,
    pub(crate) image: String,
    restarts: u64,
}

/// Who leads the pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Term {
    pub(crate) holder: String,
    pub(crate) version: u64,
}

impl Scene {
    pub(crate) async fn open() -> Result<(Self, S3Server)> {
        let node = Node::start().await?;
        let server = S3Server::start().await?;
        server.create_bucket(BUCKET)?;
        let proxy = Proxy::at(NODE_ADDRESS, &server.endpoint())?;
        node.import(&release::operator_image(&node)?)?;
        import_pipeline(&node)?;
        node.told(&["create", "-f", "-"], &release::namespace()).await?;
        let seen = Mutex::new((Told::of(APP), Ledger::of(Shelf::of(&server))));
        Ok((Self { node, proxy, seen }, server))
    }

    /// Two pods that seal twice a second, and a policy that prunes and audits each minute.
    pub(crate) async fn move_in(&self, server: &S3Server) -> Result<()> {
        let rules = json!({
            "retention": { "keepLast": KEEP_LAST, "pinned": [{ "epoch": PINNED.to_string(), "note": "the first ones" }] },
            // So slow that there is a middle.
            "prune": { "schedule": "* * * * *", "minAge": "0s", "maxKeysPerSecond": 50 },
            "audit": { "schedule": "* * * * *" },
        });
        let tenant = tenant(server, &self.proxy.url(), &rules, &["--interval-milliseconds=500"]);
        self.node.told(&["create", "-f", "-"], &tenant.to_string()).await.map(drop)
    }

    /// Ends with an error as soon as something is lost, and not before.
    pub(crate) async fn watch(&self) -> Result<()> {
        let mut looks = interval(LOOKS);
        loop {
            looks.tick().await;
            self.with(|told, ledger| ledger.look(told.listen(&self.node)?))?;
        }
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Told, &mut Ledger) -> Result<T>) -> Result<T> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (told, ledger) = &mut *seen;
        act(told, ledger)
    }

    /// Everything, when nobody writes any more.
    pub(crate) async fn settle(self, server: &S3Server) -> Result<String> {
        let (mut told, mut ledger) = self.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        ledger.settle(told.listen(&self.node)?, server).await
    }

    /// How many commits pods were told so far.
    pub(crate) fn commits(&self) -> Result<usize> {
        self.with(|told, _| Ok(told.listen(&self.node)?.len()))
    }

    /// Waits for some more commits.
    pub(crate) async fn more_commits(&self) -> Result<()> {
        let before = self.commits()?;
        let more = async || self.commits().ok().filter(|&commits| commits >= before + 3);
        until("further epochs are sealed", SOON, more).await.map(drop)
    }

    /// kubectl among what the tenant has.
    pub(crate) async fn tenant(&self, args: &[&str]) -> Result<String> {
        self.node.told(&[&["--namespace", APP], args].concat(), "").await
    }

    pub(crate) async fn status(&self) -> Result<Value> {
        let policy = self.tenant(&["get", "stateepochpolicy", APP, "-o", "json"]).await?;
        Ok(serde_json::from_str::<Value>(&policy)?["status"].take())
    }

    /// Waits until the policy's status has an answer.
    pub(crate) async fn until_status<T>(&self, what: &str, ask: impl Fn(&Value) -> Option<T>) -> Result<T> {
        until(what, SOON, async || ask(&self.status().await.ok()?)).await
    }

    /// The pipeline's term, by its Lease.
    pub(crate) async fn term(&self) -> Result<Term> {
        let lease: Value = serde_json::from_str(&self.tenant(&["get", "lease", APP, "-o", "json"]).await?)?;
        let holder = lease["spec"]["holderIdentity"].as_str().context("nobody holds the Lease")?.to_owned();
        let version = lease["spec"]["leaseTransitions"].as_u64().context("no transitions")? + 1;
        Ok(Term { holder, version })
    }

    /// Kills the pipeline's leader, and waits until its successor seals under a fence of its own.
    pub(crate) async fn fence_moves(&self) -> Result<()> {
        let before = self.term().await?;
        let names = self.tenant(&["get", "pods", "-o", "jsonpath={.items[*].metadata.name}"]).await?;
        let pod = names.split(' ').find(|name| before.holder.starts_with(name)).context("the leader has no pod")?;
        self.tenant(&["delete", "pod", pod, "--grace-period=0", "--force"]).await?;
        let moved = async || {
            let term = self.term().await.ok()?;
            (term.version > before.version && term.holder != before.holder).then_some(())
        };
        until("another pod leads the pipeline", SOON, moved).await?;
        self.fence_stands().await
    }

    /// Waits until the fence is that of the pipeline's term, and epochs are sealed under it.
    pub(crate) async fn fence_stands(&self) -> Result<()> {
        let stands = async || {
            let (term, status) = (self.term().await.ok()?, self.status().await.ok()?);
            let published = condition(&status, "FenceCurrent") == ("True", "Published");
            (published && status["fence"]["version"] == term.version && status["fence"]["holder"] == term.holder)
                .then_some(term.version)
        };
        let version = until("the policy shows the fence of the term", SOON, stands).await?;
        let durable = self.with(|_, ledger| ledger.shelf.register("fence"))?;
        ensure!(durable >= version, "the bucket has the fence of {durable}, not of {version}");
        self.more_commits().await
    }

    /// The operators that are Ready and not on their way out.
    pub(crate) async fn operators(&self) -> Result<Vec<Operator>> {
        let select = "app.kubernetes.io/name=epochwarden";
        let pods = ["--namespace", NAMESPACE, "get", "pods", "--selector", select, "-o", "json"];
        let pods: Value = serde_json::from_str(&self.node.told(&pods, "").await?)?;
        let pods = pods["items"].as_array().context("a list of pods")?;
        let pods = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let mut operators = Vec::new();
        for pod in pods {
            let container = &pod["status"]["containerStatuses"][0];
            if container["ready"] != true {
                continue;
            }
            operators.push(Operator {
                name: pod["metadata"]["name"].as_str().context("a pod has a name")?.to_owned(),
                image: pod["spec"]["containers"][0]["image"].as_str().context("and an image")?.to_owned(),
                restarts: container["restartCount"].as_u64().context("and a number of restarts")?,
            });
        }
        operators.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(operators)
    }

    /// The pod of the operator that leads, and of the one that waits.
    pub(crate) async fn pair(&self) -> Result<(String, String)> {
        let leader = until("an operator leads", SOON, async || release::leader(&self.node).await).await?;
        let operators = self.operators().await?;
        ensure!(operators.len() == 2, "there are not two operators: {operators:?}");
        let other = operators.into_iter().find(|operator| operator.name != leader).context("nobody waits")?;
        Ok((leader, other.name))
    }

    /// Whether a metric of an operator's pod has a series with this text in it, and a value above zero.
    pub(crate) async fn counts(&self, pod: &str, metric: &str, label: &str) -> Result<bool> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy/metrics");
        let metrics = self.node.told(&["get", "--raw", &path], "").await?;
        let mut lines = metrics.lines().filter(|line| line.starts_with(metric) && line.contains(label));
        Ok(lines
            .any(|line| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).is_some_and(|v| v > 0.0)))
    }

    /// What there is to read when it went wrong.
    pub(crate) async fn evidence(&self) -> String {
        let asked: [&[&str]; 4] = [
            &["--namespace", APP, "get", "stateepochpolicy,lease,pods", "-o", "wide"],
            &["--namespace", APP, "get", "stateepochpolicy", "-o", "jsonpath={.items[*].status}"],
            &["--namespace", APP, "logs", "--selector", "app=orders", "--tail=8", "--prefix"],
            &[
                "--namespace",
                NAMESPACE,
                "logs",
                "--selector",
                "app.kubernetes.io/name=epochwarden",
                "--tail=25",
                "--prefix",
            ],
        ];
        let mut all = String::new();
        for args in asked {
            let Ok(output) = self.node.kubectl(args, "").await else { continue };
            all = all + "\n" + &output.stdout + &output.stderr;
        }
        all
    }
}

/// The status and the reason of a condition.
pub(crate) fn condition<'s>(status: &'s Value, type_: &str) -> (&'s str, &'s str) {
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == type_);
    let text = |field: &str| found.and_then(|condition| condition[field].as_str()).unwrap_or_default();
    (text("status"), text("reason"))
}
