//! What the chart makes, against the schemas that an API server has of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use epochwarden_testkit::apiserver::Cluster;
use serde_json::{Map, Value, json};

use super::helm::{CHART, Helm, only, rendered, said, tool};
use super::values::EVERY;
use crate::support::cluster;

/// The kinds of the Prometheus operator, of which an API server without it has no schema. What is in them is looked at elsewhere.
const NOT_OF_THE_CLUSTER: [&str; 3] = ["ServiceMonitor", "PodMonitor", "PrometheusRule"];

/// Nothing beside what a schema names is allowed, so that a misspelt field is found.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(strict);
            // A property may itself be called `properties`; then what is there is no schema of an object.
            let is_schema = fields.get("type").is_some_and(|type_| type_ == "object");
            let open = fields.contains_key("additionalProperties")
                || fields.contains_key("x-kubernetes-preserve-unknown-fields")
                || fields.contains_key("x-kubernetes-embedded-resource");
            if is_schema && !open && fields.get("properties").is_some_and(Value::is_object) {
                fields.insert("additionalProperties".into(), false.into());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(strict),
        _ => {}
    }
}

/// Writes what the API server publishes about these kinds to a folder, as kubeconform reads it.
async fn schemas(cluster: &Cluster, kinds: &BTreeSet<(String, String)>, folder: &Path) -> Result<()> {
    let mut documents: BTreeMap<String, Value> = BTreeMap::new();
    for (api_version, kind) in kinds {
        let path = if api_version.contains('/') { format!("apis/{api_version}") } else { format!("api/{api_version}") };
        if !documents.contains_key(api_version) {
            let raw = cluster.kubectl(&["get", "--raw", &format!("/openapi/v3/{path}")]).await?;
            ensure!(raw.status.success(), "{path}: {}", raw.stderr);
            documents.insert(api_version.clone(), serde_json::from_str(&raw.stdout)?);
        }
        let all = &documents[api_version]["components"]["schemas"];
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let this = json!({ "group": group, "version": version, "kind": kind });
        let (name, _) = all
            .as_object()
            .and_then(|all| {
                all.iter().find(|(_, schema)| {
                    let kinds = schema["x-kubernetes-group-version-kind"].as_array();
                    kinds.is_some_and(|kinds| kinds.contains(&this))
                })
            })
            .with_context(|| format!("the API server has no schema of {kind} {api_version}"))?;
        let mut schema = Map::new();
        schema.insert("$ref".into(), format!("#/components/schemas/{name}").into());
        let mut all = all.clone();
        strict(&mut all);
        schema.insert("components".into(), json!({ "schemas": all }));
        // Without a group, kubeconform takes the version for one.
        let group = if group.is_empty() { version } else { group };
        let file = format!("{group}_{}_{version}.json", kind.to_lowercase());
        fs::write(folder.join(file), Value::Object(schema).to_string())?;
    }
    Ok(())
}

/// What kubeconform says of these documents.
async fn conforms(cluster: &Cluster, documents: &[Value]) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let of_cluster: Vec<&Value> =
        documents.iter().filter(|document| NOT_OF_THE_CLUSTER.iter().all(|kind| document["kind"] != *kind)).collect();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kinds: BTreeSet<_> =
        of_cluster.iter().map(|document| (text(&document["apiVersion"]), text(&document["kind"]))).collect();
    schemas(cluster, &kinds, folder.path()).await?;
    // JSON is YAML.
    let manifests: Vec<String> = of_cluster.iter().map(|document| format!("---\n{document}\n")).collect();
    let file = folder.path().join("manifests.yaml");
    fs::write(&file, manifests.concat())?;
    let location = folder.path().join("{{ .Group }}_{{ .ResourceKind }}_{{ .ResourceAPIVersion }}.json");
    let mut command = tool("kubeconform")?;
    command.args(["-strict", "-output", "json", "-summary", "-schema-location"]).arg(&location).arg(&file);
    let said = said(command).await?;
    let answer: Value =
        serde_json::from_str(&said.stdout).with_context(|| format!("{}{}", said.stdout, said.stderr))?;
    let seen = answer["summary"]["valid"].as_u64().unwrap_or(0) + answer["summary"]["invalid"].as_u64().unwrap_or(0);
    ensure!(seen == of_cluster.len() as u64, "of {} documents {answer:#}", of_cluster.len());
    Ok(answer)
}

#[tokio::test]
async fn helm_finds_nothing_to_say_against_the_chart() -> Result<()> {
    let helm = Helm::alone()?;
    for args in [&["lint", "--strict", CHART][..], &["lint", "--strict", CHART, "--values", EVERY]] {
        helm.done(args).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_the_chart_makes_conforms_to_the_schemas_of_the_api_server() -> Result<()> {
    let cluster = cluster().await?;
    for args in [
        &[][..],
        &["--values", EVERY],
        &["--set", "replicaCount=1,watchNamespaces={a,b}"],
        &["--set", "serviceAccount.create=false,rbac.create=false,podDisruptionBudget.enabled=false"],
    ] {
        let answer = conforms(cluster, &rendered(args).await?).await?;
        ensure!(answer["summary"]["invalid"] == 0 && answer["summary"]["errors"] == 0, "{args:?}: {answer:#}");
    }
    // And that is no empty word.
    let mut documents = rendered(&[]).await?;
    for document in &mut documents {
        if document["kind"] == "Deployment" {
            document["spec"]["template"]["spec"]["containers"][0]["livenessprobe"] = json!({});
        }
    }
    let answer = conforms(cluster, &documents).await?;
    ensure!(answer["summary"]["invalid"] == 1, "a misspelt field was not found: {answer:#}");
    Ok(())
}

#[tokio::test]
async fn the_resource_in_the_chart_is_the_one_in_the_folder_and_stays_when_the_release_goes() -> Result<()> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/stateepochpolicies.epochwarden.io.yaml");
    let plain: Value = serde_saphyr::from_str(&fs::read_to_string(folder)?)?;
    let documents = rendered(&[]).await?;
    let mut templated = only(&documents, "CustomResourceDefinition")?.clone();
    ensure!(templated["metadata"]["annotations"] == json!({ "helm.sh/resource-policy": "keep" }));
    let metadata = templated["metadata"].as_object_mut().context("metadata")?;
    ensure!(metadata.remove("labels").is_some() && metadata.remove("annotations").is_some());
    ensure!(templated == plain);
    let without = rendered(&["--set", "crds.enabled=false"]).await?;
    ensure!(only(&without, "CustomResourceDefinition").is_err());
    Ok(())
}

#[tokio::test]
async fn two_operators_are_elected_spread_and_guarded_from_evictions_and_one_is_not_guarded() -> Result<()> {
    let documents = rendered(&[]).await?;
    let deployment = only(&documents, "Deployment")?;
    let pod = &deployment["spec"]["template"];
    ensure!(deployment["spec"]["replicas"] == 2);
    let args = pod["spec"]["containers"][0]["args"].as_array().context("args")?;
    ensure!(args.contains(&json!("--leader-elect=guard-epochwarden")) && args.contains(&json!("--log-format=json")));
    ensure!(only(&documents, "PodDisruptionBudget")?["spec"]["selector"] == deployment["spec"]["selector"]);
    for constraint in pod["spec"]["topologySpreadConstraints"].as_array().context("constraints")? {
        ensure!(constraint["labelSelector"] == deployment["spec"]["selector"], "{constraint}");
    }
    let labels = pod["metadata"]["labels"].as_object().context("labels")?;
    for (key, value) in deployment["spec"]["selector"]["matchLabels"].as_object().context("selector")? {
        ensure!(labels.get(key) == Some(value), "{key}");
    }
    let single = rendered(&["--set", "replicaCount=1"]).await?;
    ensure!(only(&single, "PodDisruptionBudget").is_err(), "it would keep the only operator on its node for ever");
    Ok(())
}

#[tokio::test]
async fn monitors_find_the_service_and_keep_the_labels_of_the_metrics() -> Result<()> {
    let documents = rendered(&["--set", "serviceMonitor.enabled=true,podMonitor.enabled=true"]).await?;
    let (service, deployment) = (only(&documents, "Service")?, only(&documents, "Deployment")?);
    let pod = &deployment["spec"]["template"];
    for (kind, endpoints, target, ports) in [
        ("ServiceMonitor", "endpoints", &service["metadata"]["labels"], &service["spec"]["ports"]),
        ("PodMonitor", "podMetricsEndpoints", &pod["metadata"]["labels"], &pod["spec"]["containers"][0]["ports"]),
    ] {
        let monitor = only(&documents, kind)?;
        let selector = monitor["spec"]["selector"]["matchLabels"].as_object().context("selector")?;
        ensure!(!selector.is_empty() && selector.iter().all(|(key, value)| target[key] == *value), "{kind}");
        let [endpoint] = monitor["spec"][endpoints].as_array().context("endpoints")?.as_slice() else {
            anyhow::bail!("{kind} has not one endpoint");
        };
        ensure!(endpoint["honorLabels"] == true, "{kind}");
        ensure!(endpoint["path"] == "/metrics", "{kind}");
        ensure!(ports.as_array().context("ports")?.iter().any(|port| port["name"] == endpoint["port"]), "{kind}");
    }
    let selector = service["spec"]["selector"].as_object().context("selector")?;
    ensure!(selector.iter().all(|(key, value)| pod["metadata"]["labels"][key] == *value));
    ensure!(service["spec"]["ports"][0]["targetPort"] == pod["spec"]["containers"][0]["ports"][0]["name"]);
    Ok(())
}

#[tokio::test]
async fn releases_of_one_name_in_two_namespaces_share_nothing_that_belongs_to_the_cluster() -> Result<()> {
    let helm = Helm::alone()?;
    let everything = "admission.storeUrls.enabled=true,admission.approvals.enabled=true,crds.enabled=false";
    let mut names = Vec::new();
    for namespace in ["one", "two"] {
        let printed =
            helm.done(&["template", "epochwarden", CHART, "--namespace", namespace, "--set", everything]).await?;
        let documents = super::helm::documents(&printed)?;
        let of_cluster = documents.into_iter().filter(|document| document["metadata"]["namespace"].is_null());
        names.push(of_cluster.map(|document| document["metadata"]["name"].to_string()).collect::<BTreeSet<_>>());
    }
    ensure!(!names[0].is_empty() && names[0].is_disjoint(&names[1]), "{names:?}");
    Ok(())
}
