//! What the `ServiceAccount` of the chart may do: all that the operator does, and nothing else.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use epochwarden_testkit::apiserver::Cluster;
use epochwarden_testkit::wait::until;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::helm::{CHART, Helm, documents, only};
use crate::support::lease::Leader;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::users::Users;
use crate::support::{SOON, cluster, secret_of};

/// What the operator does in a namespace whose policies it works for.
const WORK: [&str; 10] = [
    "get epochwarden.io/stateepochpolicies",
    "list epochwarden.io/stateepochpolicies",
    "watch epochwarden.io/stateepochpolicies",
    "patch epochwarden.io/stateepochpolicies/status",
    "get coordination.k8s.io/leases",
    "list coordination.k8s.io/leases",
    "watch coordination.k8s.io/leases",
    "get /secrets",
    "create events.k8s.io/events",
    "patch events.k8s.io/events",
];

/// What it does in its own namespace as a candidate, beside what concerns its own Lease by name.
const CANDIDATE: &str = "create coordination.k8s.io/leases";

/// A release of the chart in the shared cluster, which has the resource already.
struct Release {
    namespace: String,
    name: &'static str,
    deployment: Value,
    account: String,
}

impl Release {
    async fn install(cluster: &Cluster, prefix: &str, values: &str) -> Result<Self> {
        let (namespace, name) = (cluster.namespace(prefix).await?, "guard-epochwarden");
        let values = format!("crds.enabled=false,{values}");
        let helm = Helm::of(cluster)?;
        helm.done(&["install", "guard", CHART, "--namespace", &namespace, "--set", &values]).await?;
        let manifest = documents(&helm.done(&["get", "manifest", "guard", "--namespace", &namespace]).await?)?;
        ensure!(only(&manifest, "ServiceAccount")?["metadata"]["name"] == name);
        // As the API server has it: what it does not know is not there.
        let deployment = cluster.kubectl(&["-n", &namespace, "get", "deployment", name, "-o", "json"]).await?;
        ensure!(deployment.status.success(), "{}", deployment.stderr);
        let deployment: Value = serde_json::from_str(&deployment.stdout)?;
        let account =
            deployment["spec"]["template"]["spec"]["serviceAccountName"].as_str().context("account")?.to_owned();
        Ok(Self { namespace, name, deployment, account })
    }

    fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.account)
    }

    /// Starts what the Deployment's container starts, with a token of its `ServiceAccount`.
    async fn start(&self, cluster: &Cluster, pod: &str) -> Result<Operator> {
        let token = cluster.kubectl(&["-n", &self.namespace, "create", "token", &self.account]).await?;
        ensure!(token.status.success(), "{}", token.stderr);
        let kubeconfig = cluster.kubeconfig_for(&format!("{}-{pod}", self.namespace), token.stdout.trim_end())?;
        let container = &self.deployment["spec"]["template"]["spec"]["containers"][0];
        let mut command = Command::new(env!("CARGO_BIN_EXE_epochwarden"));
        for argument in container["args"].as_array().context("args")? {
            let argument = argument.as_str().context("an argument")?;
            // The pod has an address of its own; here it is one of many.
            if argument != "--http=0.0.0.0:8080" {
                command.arg(argument);
            }
        }
        command.env_clear().env("KUBECONFIG", kubeconfig);
        for variable in container["env"].as_array().context("env")? {
            let name = variable["name"].as_str().context("a variable")?;
            match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                Some("metadata.name") => command.env(name, pod),
                Some("metadata.namespace") => command.env(name, &self.namespace),
                Some(path) => anyhow::bail!("{name} is {path}"),
                None => command.env(name, variable["value"].as_str().context("a value")?),
            };
        }
        Operator::start_command(command).await
    }
}

/// Fails where the API server refused something.
fn nothing_was_refused(operator: &Operator) -> Result<()> {
    let log = operator.log();
    ensure!(log.lines().count() > 3, "there is no log to look into: {log}");
    let refused: Vec<_> = log
        .lines()
        .filter(|line| ["system:serviceaccount:", "is forbidden", "code: 403"].iter().any(|word| line.contains(word)))
        .collect();
    ensure!(refused.is_empty(), "{refused:#?}");
    Ok(())
}

/// Stops it as a pod is stopped, and fails where something was refused until its end.
async fn stop(mut operator: Operator) -> Result<()> {
    operator.process.signal("TERM")?;
    let status = operator.process.wait_exit(SOON).await?;
    ensure!(status.success(), "{status}\n{}", operator.log());
    nothing_was_refused(&operator)
}

/// All that the operator does, with two of them of which the one that works is stopped in between.
async fn full_scenario(cluster: &Cluster, release: &Release, namespace: &str) -> Result<()> {
    let users = Users::start().await?;
    let bucket = users.bucket("state")?;
    bucket.seal(1..=9, 4).await?;
    secret_of(cluster, namespace, "orders-state", &users.add("first")?).await?;
    let (one, other) = (release.start(cluster, "pod-1").await?, release.start(cluster, "pod-2").await?);
    let mut spec = json!({
        "store": bucket.store(Some("orders-state")),
        "vnodes": 4,
        "fence": { "leaseRef": { "name": "leader" } },
        "retention": { "keepLast": 3 },
        "prune": { "minAge": "0s" },
    });
    let policy = Policy::apply(cluster, namespace, "orders", spec.clone()).await?;
    policy.kubectl(&["label", "sep", "orders", &format!("release={}", release.namespace)]).await?;
    policy.wait_for("Ready", "Reachable").await?;
    let leader = Leader::new(cluster.client().await?, namespace, "leader");
    let mut last = 0;
    for transitions in [3, 4] {
        leader.lead(&format!("leader-{transitions}"), transitions).await?;
        last = policy
            .wait_until("the fence to move", |status| {
                status["fence"]["version"].as_u64().filter(|version| *version > last)
            })
            .await?;
    }
    policy.ask("prune").await?;
    policy.wait_for("PruneHealthy", "Succeeded").await?;
    ensure!(bucket.sealed().await? == [7, 8, 9]);
    policy.ask("audit@1").await?;
    policy.wait_for("AuditClean", "Clean").await?;
    for event in ["FencePublished", "PruneCompleted"] {
        policy.wait_for_event(event).await?;
    }
    policy.ask("probe@1").await?;
    policy.wait_until("the probe", |status| (status["lastRunRequest"] == "probe@1").then_some(())).await?;

    // A plan that waits for a person, and gets the word.
    spec["retention"]["keepLast"] = json!(1);
    spec["prune"]["holdAbove"] = json!({ "epochs": 1 });
    policy.update(spec).await?;
    policy.ask("prune@2").await?;
    policy.wait_for("PruneHealthy", "MassDeletion").await?;
    let digest = policy.wait_until("the plan", |status| status["plan"]["digest"].as_str().map(str::to_owned)).await?;
    policy.kubectl(&["annotate", "sep", "orders", &format!("epochwarden.io/approve-plan={digest}")]).await?;
    until("the approved plan", SOON, async || (bucket.sealed().await.ok()? == [9]).then_some(())).await?;
    policy.wait_for("PruneHealthy", "Succeeded").await?;

    // The one that works goes, and with it the key that the Secret held.
    let first_leads = one.leads().await?;
    ensure!(first_leads != other.leads().await?, "not one of the two works");
    let (works, stands_by) = if first_leads { (one, other) } else { (other, one) };
    stop(works).await?;
    let entries: serde_json::Map<_, _> =
        users.add("second")?.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect();
    policy.kubectl(&["patch", "secret", "orders-state", "-p", &json!({ "stringData": entries }).to_string()]).await?;
    users.revoke("first")?;
    stands_by.wait_to_lead().await?;
    leader.lead("leader-5", 5).await?;
    policy
        .wait_until("the fence to move once more", |status| {
            status["fence"]["version"].as_u64().filter(|version| *version > last)
        })
        .await?;
    policy.ask("audit@2").await?;
    policy
        .wait_until("an audit with the new key", |status| {
            (status["lastRunRequest"] == "audit@2" && status["audit"]["phase"] == "Succeeded").then_some(())
        })
        .await?;
    policy.delete().await?;
    stop(stands_by).await
}

#[tokio::test]
async fn in_all_namespaces_the_operator_needs_no_right_that_the_chart_does_not_give() -> Result<()> {
    let cluster = cluster().await?;
    // Other tests have policies in this cluster, too.
    let namespace = cluster.namespace("rights-all").await?;
    let mine = "log.filter=info\\,epochwarden=debug";
    let release = Release::install(cluster, "guard-all", &format!("policySelector=release=will-be-set,{mine}")).await?;
    let selector = format!("policySelector=release={},crds.enabled=false,{mine}", release.namespace);
    let helm = Helm::of(cluster)?;
    helm.done(&["upgrade", "guard", CHART, "--namespace", &release.namespace, "--set", &selector]).await?;
    let release = Release { deployment: read(cluster, &release).await?, ..release };
    full_scenario(cluster, &release, &namespace).await
}

async fn read(cluster: &Cluster, release: &Release) -> Result<Value> {
    let read = cluster.kubectl(&["-n", &release.namespace, "get", "deployment", release.name, "-o", "json"]).await?;
    ensure!(read.status.success(), "{}", read.stderr);
    Ok(serde_json::from_str(&read.stdout)?)
}

#[tokio::test]
async fn in_named_namespaces_the_operator_needs_no_right_that_the_chart_does_not_give() -> Result<()> {
    let cluster = cluster().await?;
    let (namespace, second) = (cluster.namespace("rights-named").await?, cluster.namespace("rights-named").await?);
    let values = format!("watchNamespaces={{{namespace},{second}}},log.filter=info\\,epochwarden=debug");
    let release = Release::install(cluster, "guard-named", &values).await?;
    full_scenario(cluster, &release, &namespace).await
}

/// Asks the API server what a user may do.
struct Judge {
    api: Api<SubjectAccessReview>,
    resources: Vec<Resource>,
}

struct Resource {
    group: String,
    name: String,
    namespaced: bool,
}

impl Judge {
    /// Knows every resource and subresource that the cluster has, and the wildcard.
    async fn of(client: &Client) -> Result<Self> {
        let mut lists = vec![(String::new(), client.list_core_api_resources("v1").await?)];
        for group in client.list_api_groups().await?.groups {
            for version in group.versions {
                let list = client.list_api_group_resources(&version.group_version).await?;
                lists.push((group.name.clone(), list));
            }
        }
        let mut resources = vec![Resource { group: "*".into(), name: "*".into(), namespaced: true }];
        for (group, list) in lists {
            for resource in list.resources {
                resources.push(Resource { group: group.clone(), name: resource.name, namespaced: resource.namespaced });
            }
        }
        resources.sort_by(|a, b| (&a.group, &a.name).cmp(&(&b.group, &b.name)));
        resources.dedup_by(|a, b| (&a.group, &a.name) == (&b.group, &b.name));
        Ok(Self { api: Api::all(client.clone()), resources })
    }

    /// Whether a `ServiceAccount` may do something, written as in [`WORK`]; `name` is one object, or any.
    async fn allows(&self, user: &str, namespace: Option<&str>, what: &str, name: Option<&str>) -> Result<bool> {
        let (verb, resource) = what.split_once(' ').context("a verb and a resource")?;
        let (group, resource) = resource.split_once('/').context("a group and a resource")?;
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let home = user.split(':').nth(2).context("the namespace of the user")?;
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.to_owned()),
                groups: Some(vec![
                    "system:serviceaccounts".into(),
                    format!("system:serviceaccounts:{home}"),
                    "system:authenticated".into(),
                ]),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.into()),
                    group: text(group),
                    resource: Some(resource.into()),
                    subresource: text(subresource),
                    namespace: namespace.map(str::to_owned),
                    name: name.map(str::to_owned),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = self.api.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// All that a `ServiceAccount` may do with no matter which object, in a namespace or in all, that any other could not.
    async fn rights(&self, user: &str, namespace: Option<&str>) -> Result<BTreeSet<String>> {
        let verbs = [
            "get",
            "list",
            "watch",
            "create",
            "update",
            "patch",
            "delete",
            "deletecollection",
            "approve",
            "impersonate",
            "bind",
            "escalate",
            "*",
        ];
        let scope = |resource: &&Resource| resource.namespaced || namespace.is_none();
        let questions = self
            .resources
            .iter()
            .filter(scope)
            .flat_map(|resource| verbs.map(|verb| format!("{verb} {}/{}", resource.group, resource.name)));
        let questions: Vec<String> = questions.collect();
        ensure!(questions.len() > 500, "the API server has few resources");
        let home = user.rsplit_once(':').context("a user")?.0;
        let nobody = format!("{home}:nobody");
        futures::stream::iter(questions)
            .map(|what| {
                let nobody = &nobody;
                async move {
                    let may = self.allows(user, namespace, &what, None).await?
                        && !self.allows(nobody, namespace, &what, None).await?;
                    Ok::<_, anyhow::Error>(may.then_some(what))
                }
            })
            .buffer_unordered(16)
            .try_filter_map(|may| async { Ok(may) })
            .try_collect()
            .await
    }
}

fn set<'a>(rights: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    rights.into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_account_of_the_chart_may_do_what_the_operator_does_and_nothing_else() -> Result<()> {
    let cluster = cluster().await?;
    let judge = Judge::of(&cluster.client().await?).await?;
    let (watched, elsewhere) = (cluster.namespace("judged").await?, cluster.namespace("judged").await?);
    let named = Release::install(cluster, "guard-few", &format!("watchNamespaces={{{watched}}}")).await?;
    let all = Release::install(cluster, "guard-many", "policySelector=nobody=here").await?;
    let single =
        Release::install(cluster, "guard-one", "leaderElection.enabled=false,policySelector=nobody=here").await?;
    for release in [&named, &all, &single] {
        until("the rights to be known", SOON, async || {
            judge.allows(&release.user(), Some(&watched), WORK[0], None).await.ok()?.then_some(())
        })
        .await?;
    }
    let with_election = || WORK.into_iter().chain([CANDIDATE]);
    for (release, namespace, expected) in [
        (&named, Some(watched.as_str()), set(WORK)),
        (&named, Some(named.namespace.as_str()), set([CANDIDATE])),
        (&named, Some(elsewhere.as_str()), set([])),
        (&named, None, set([])),
        (&all, Some(all.namespace.as_str()), set(with_election())),
        (&all, None, set(WORK)),
        (&single, Some(single.namespace.as_str()), set(WORK)),
    ] {
        let rights = judge.rights(&release.user(), namespace).await?;
        ensure!(rights == expected, "{} in {namespace:?}: {rights:#?}", release.namespace);
    }

    let lease = "coordination.k8s.io/leases";
    for (release, namespace, what, name, may) in [
        (&named, Some(&named.namespace), format!("get {lease}"), named.name, true),
        (&named, Some(&named.namespace), format!("update {lease}"), named.name, true),
        (&named, Some(&named.namespace), format!("update {lease}"), "another", false),
        (&named, Some(&named.namespace), format!("delete {lease}"), named.name, false),
        (&named, Some(&watched), format!("update {lease}"), named.name, false),
        (&all, Some(&all.namespace), format!("update {lease}"), all.name, true),
        (&all, Some(&watched), format!("update {lease}"), all.name, false),
        (&single, Some(&single.namespace), format!("update {lease}"), single.name, false),
        (&named, None, "get /namespaces".to_owned(), "kube-system", true),
        (&named, None, "get /namespaces".to_owned(), "default", false),
        (&all, None, "get /namespaces".to_owned(), "kube-system", true),
        (&all, None, "get /namespaces".to_owned(), "default", false),
    ] {
        let allowed = judge.allows(&release.user(), namespace.map(String::as_str), &what, Some(name)).await?;
        ensure!(allowed == may, "{} {what} {name} in {namespace:?}", release.namespace);
    }
    Ok(())
}
