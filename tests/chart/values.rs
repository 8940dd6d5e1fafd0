//! The values: what there is, what is refused, and what is written about them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::helm::{CHART, Helm, file, only, rendered};

/// The values that set every value.
pub(super) const EVERY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chart/every-value.yaml");

fn read(text: &str) -> Result<Value> {
    Ok(serde_saphyr::from_str(text)?)
}

/// The rows of the README's table: value and default.
fn rows() -> Result<BTreeMap<String, String>> {
    let readme = file("README.md")?;
    let rows = readme.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let mut cells = line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned());
        let name = cells.next().context("a row without cells")?.trim_matches('`').to_owned();
        let default = cells.last().context("a row without a default")?.trim_matches('`').to_owned();
        Ok((name, default))
    });
    rows.collect()
}

fn at<'a>(values: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(values, |value, key| &value[key])
}

/// The leaves that no row is about, itself or above it.
fn undocumented(values: &Value, path: &str, rows: &BTreeMap<String, String>, missing: &mut Vec<String>) {
    let Some(fields) = values.as_object() else {
        missing.push(path.to_owned());
        return;
    };
    for (name, value) in fields {
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if !rows.contains_key(&below) {
            undocumented(value, &below, rows, missing);
        }
    }
}

#[test]
fn the_readme_has_a_row_with_its_default_for_every_value() -> Result<()> {
    let (values, rows) = (read(&file("values.yaml")?)?, rows()?);
    let mut missing = Vec::new();
    undocumented(&values, "", &rows, &mut missing);
    ensure!(missing.is_empty(), "the README says nothing of {missing:?}");
    for (name, default) in &rows {
        let value = at(&values, name);
        ensure!(!value.is_null(), "the README names {name}, which values.yaml does not have");
        ensure!(
            default == "see values.yaml" || read(default)? == *value,
            "{name} is {value}, the README says {default}"
        );
    }
    Ok(())
}

#[test]
fn the_chart_installs_the_operator_of_this_version() -> Result<()> {
    let chart = read(&file("Chart.yaml")?)?;
    for version in ["version", "appVersion"] {
        ensure!(chart[version] == env!("CARGO_PKG_VERSION"), "{version} is {}", chart[version]);
    }
    Ok(())
}

#[test]
fn the_values_that_set_every_value_do() -> Result<()> {
    let (values, every, rows) = (read(&file("values.yaml")?)?, read(&std::fs::read_to_string(EVERY)?)?, rows()?);
    // What the tests need as it is: another value would leave out what they look at.
    let same = BTreeSet::from(["serviceAccount.create", "rbac.create", "crds.enabled", "podDisruptionBudget.enabled"]);
    for name in rows.keys() {
        let set = at(&every, name);
        ensure!(!set.is_null(), "{name} is not set");
        ensure!((set == at(&values, name)) == same.contains(name.as_str()), "{name} is {set}");
    }
    Ok(())
}

#[tokio::test]
async fn what_the_schema_does_not_know_or_allow_is_refused_and_named() -> Result<()> {
    let helm = Helm::alone()?;
    for (set, named) in [
        ("replicas=3", "replicas"),
        ("image.registry=x", "registry"),
        ("allow.ambientCredential={s3://state}", "ambientCredential"),
        ("serviceMonitor.honorLabels=false", "honorLabels"),
        ("admission.storeUrls.rules[0].namespace=a", "namespace"),
        ("replicaCount=-1", "replicaCount"),
        ("replicaCount=two", "replicaCount"),
        ("image.digest=latest", "digest"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("watchNamespaces={Streaming}", "watchNamespaces"),
        ("allow.ambientCredentials={https://state}", "ambientCredentials"),
        ("allow.fileRoots={state}", "fileRoots"),
        ("allow.endpoints={http://minio}", "endpoints"),
        ("log.format=xml", "format"),
        ("prometheusRule.disabled={Watchdog}", "disabled"),
        ("admission.validationActions={Allow}", "validationActions"),
        // The API server takes no binding that both refuses and warns.
        ("admission.validationActions={Deny,Audit,Warn}", "validationActions"),
    ] {
        let said = helm.run(&["template", "guard", CHART, "--set", set]).await?;
        ensure!(!said.success, "{set} was accepted");
        ensure!(said.stderr.contains(named), "{set}: {}", said.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn the_values_that_belong_to_a_chart_around_this_one_are_accepted() -> Result<()> {
    let around = ["--set", "global.region=eu,enabled=true"];
    let (plain, within) = (rendered(&[]).await?, rendered(&around).await?);
    ensure!(plain == within);
    Ok(())
}

#[tokio::test]
async fn the_operator_takes_the_arguments_that_every_value_gives_it() -> Result<()> {
    let documents = rendered(&["--values", EVERY]).await?;
    let deployment = only(&documents, "Deployment")?;
    let args = deployment["spec"]["template"]["spec"]["containers"][0]["args"].as_array().context("no arguments")?;
    let args: Vec<&str> = args.iter().filter_map(Value::as_str).collect();
    ensure!(args.iter().filter(|arg| arg.starts_with("--max-concurrent-runs=")).count() == 2, "{args:?}");
    // What is asked for last is heard only when all before it was understood.
    let asked = Command::new(env!("CARGO_BIN_EXE_epochwarden")).args(&args).arg("--help").output()?;
    ensure!(asked.status.success(), "{args:?}: {}", String::from_utf8_lossy(&asked.stderr));
    Ok(())
}

#[tokio::test]
async fn what_the_chart_is_told_not_to_create_is_not_there() -> Result<()> {
    let nothing = "serviceAccount.create=false,rbac.create=false,podDisruptionBudget.enabled=false";
    let documents = rendered(&["--set", nothing]).await?;
    for document in &documents {
        let kind = document["kind"].as_str().unwrap_or_default();
        ensure!(
            !["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "PodDisruptionBudget"]
                .contains(&kind),
            "{document:#}"
        );
    }
    let pod = &only(&documents, "Deployment")?["spec"]["template"]["spec"];
    ensure!(pod["serviceAccountName"] == "default", "{}", pod["serviceAccountName"]);
    // Rights without an account of its own are the namespace's default account's.
    let documents = rendered(&["--set", "serviceAccount.create=false"]).await?;
    let bindings = documents
        .iter()
        .filter(|document| document["kind"] == "ClusterRoleBinding" || document["kind"] == "RoleBinding");
    let accounts: Vec<&Value> = bindings.map(|binding| &binding["subjects"][0]["name"]).collect();
    ensure!(!accounts.is_empty() && accounts.iter().all(|account| **account == "default"), "{accounts:?}");
    Ok(())
}

#[tokio::test]
async fn every_value_reaches_what_it_is_about() -> Result<()> {
    let documents = rendered(&["--values", EVERY]).await?;
    let of = |kind: &'static str| only(&documents, kind);
    let deployment = of("Deployment")?;
    let pod = &deployment["spec"]["template"];
    let container = &pod["spec"]["containers"][0];
    let digest = format!("registry.example/guard/epochwarden@sha256:{}", "0".repeat(64));
    let expected_args = json!([
        "controller",
        "--log-format=text",
        "--http=0.0.0.0:8080",
        "--max-concurrent-runs=9",
        "--lease-poll=30s",
        "--watch-namespace=streaming",
        "--watch-namespace=billing",
        "--policy-selector=team=orders",
        "--allow-ambient-credentials=s3://state/",
        "--allow-ambient-credentials=gs://state/orders",
        "--allow-file-root=/var/lib/state",
        "--allow-endpoint=minio.storage.svc",
        "--allow-endpoint=10.0.0.7",
        "--max-concurrent-runs=2",
    ]);
    let monitor = |kind: &'static str, endpoints: &str| Ok::<_, anyhow::Error>(of(kind)?["spec"][endpoints][0].clone());
    for (what, found, expected) in [
        ("name", &deployment["metadata"]["name"], json!("guard-of-state")),
        ("name label", &deployment["metadata"]["labels"]["app.kubernetes.io/name"], json!("warden")),
        ("common label", &deployment["metadata"]["labels"]["team"], json!("platform")),
        ("replicas", &deployment["spec"]["replicas"], json!(3)),
        ("strategy", &deployment["spec"]["strategy"], json!({ "type": "Recreate" })),
        ("annotation", &deployment["metadata"]["annotations"]["example.com/note"], json!("deployment")),
        ("image", &container["image"], json!(digest)),
        ("pull policy", &container["imagePullPolicy"], json!("Always")),
        ("pull secrets", &pod["spec"]["imagePullSecrets"], json!([{ "name": "registry" }])),
        ("arguments", &container["args"], expected_args),
        ("filter", &container["env"][2]["value"], json!("warn,epochwarden=debug")),
        ("environment", &container["env"][3]["value"], json!("eu-west-1")),
        ("mounts", &container["volumeMounts"][0]["mountPath"], json!("/var/lib/state")),
        ("volumes", &pod["spec"]["volumes"][0]["name"], json!("state")),
        ("resources", &container["resources"]["limits"]["memory"], json!("2Gi")),
        ("security", &container["securityContext"]["privileged"], json!(false)),
        ("liveness", &container["livenessProbe"]["initialDelaySeconds"], json!(3)),
        ("readiness", &container["readinessProbe"]["initialDelaySeconds"], json!(4)),
        ("account", &pod["spec"]["serviceAccountName"], json!("guard")),
        ("priority", &pod["spec"]["priorityClassName"], json!("system-cluster-critical")),
        ("node selector", &pod["spec"]["nodeSelector"]["kubernetes.io/os"], json!("linux")),
        ("tolerations", &pod["spec"]["tolerations"][0]["key"], json!("dedicated")),
        ("affinity", &pod["spec"]["affinity"]["nodeAffinity"].is_object().into(), json!(true)),
        (
            "spread",
            &pod["spec"]["topologySpreadConstraints"][0]["labelSelector"],
            json!({ "matchLabels": { "team": "platform" } }),
        ),
        ("grace", &pod["spec"]["terminationGracePeriodSeconds"], json!(60)),
        ("pod security", &pod["spec"]["securityContext"]["supplementalGroups"], json!([7])),
        ("pod label", &pod["metadata"]["labels"]["azure.workload.identity/use"], json!("true")),
        ("pod annotation", &pod["metadata"]["annotations"]["example.com/note"], json!("pods")),
        ("budget", &of("PodDisruptionBudget")?["spec"]["maxUnavailable"], json!("50%")),
        ("service", &of("Service")?["spec"]["type"], json!("NodePort")),
        ("port", &of("Service")?["spec"]["ports"][0]["port"], json!(9090)),
        ("service annotation", &of("Service")?["metadata"]["annotations"]["example.com/note"], json!("service")),
        (
            "role",
            &of("ServiceAccount")?["metadata"]["annotations"]["eks.amazonaws.com/role-arn"],
            json!("arn:aws:iam::111122223333:role/epochwarden"),
        ),
        ("account label", &of("ServiceAccount")?["metadata"]["labels"]["tier"], json!("infrastructure")),
        ("interval", &monitor("ServiceMonitor", "endpoints")?["interval"], json!("15s")),
        ("time-out", &monitor("PodMonitor", "podMetricsEndpoints")?["scrapeTimeout"], json!("5s")),
        ("relabelings", &monitor("ServiceMonitor", "endpoints")?["relabelings"][0]["regex"], json!("container")),
        (
            "metric relabelings",
            &monitor("PodMonitor", "podMetricsEndpoints")?["metricRelabelings"][0]["action"],
            json!("drop"),
        ),
        ("monitor label", &of("ServiceMonitor")?["metadata"]["labels"]["release"], json!("prometheus")),
        ("rule label", &of("PrometheusRule")?["metadata"]["labels"]["release"], json!("prometheus")),
        ("dashboard", &of("ConfigMap")?["metadata"]["namespace"], json!("grafana")),
        ("dashboard label", &of("ConfigMap")?["metadata"]["labels"]["dashboards"], json!("yes")),
        ("folder", &of("ConfigMap")?["metadata"]["annotations"]["folder"], json!("Streams")),
        ("network", &of("NetworkPolicy")?["spec"]["egress"][1]["ports"][1]["port"], json!(6443)),
        ("from", &of("NetworkPolicy")?["spec"]["ingress"][0]["from"][0].is_object().into(), json!(true)),
        ("resource", &of("CustomResourceDefinition")?["metadata"]["annotations"], json!(null)),
    ] {
        ensure!(*found == expected, "{what} is {found}, not {expected}");
    }
    let rules = of("PrometheusRule")?["spec"]["groups"][0]["rules"].as_array().context("rules")?;
    ensure!(rules.iter().all(|rule| rule["labels"]["team"] == "platform"));
    ensure!(rules.iter().all(|rule| rule["alert"] != "EpochwardenPruneFallingBehind"));
    ensure!(rules.iter().any(|rule| rule["expr"].as_str().is_some_and(|expr| expr.contains("> 2.5"))));
    let bindings = documents.iter().filter(|document| document["kind"] == "ValidatingAdmissionPolicyBinding");
    let actions: Vec<&Value> = bindings.map(|binding| &binding["spec"]["validationActions"]).collect();
    ensure!(actions == [&json!(["Warn", "Audit"]); 2], "{actions:?}");
    let granted = documents.iter().filter(|document| document["kind"] == "Role");
    let namespaces: Vec<&Value> = granted.map(|role| &role["metadata"]["namespace"]).collect();
    ensure!(namespaces == ["streaming", "billing"], "{namespaces:?}");
    Ok(())
}
