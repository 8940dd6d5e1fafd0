//! What the API server accepts as a policy, and what it answers to the rest.
//!
//! Each mistake gets one answer, on the field it was made in, that names the field and says what to write.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use epochwarden::api::{StateEpochPolicy, crd, crd_yaml};
use epochwarden_testkit::apiserver::{Cluster, Output};
use epochwarden_testkit::wait;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::response::StatusCause;
use serde_json::{Value, json};

use crate::support;

fn conditions(crd: &CustomResourceDefinition) -> Vec<(String, String)> {
    let conditions = crd.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.map(|condition| (condition.type_.clone(), condition.status.clone())).collect()
}

/// A namespace of a test, and what it says there.
struct Desk {
    cluster: &'static Cluster,
    namespace: String,
    policies: Api<DynamicObject>,
}

impl Desk {
    async fn new() -> Result<Self> {
        let cluster = support::cluster().await?;
        let client = cluster.client().await?;
        let namespace = cluster.namespace("cel").await?;
        let policies: Api<DynamicObject> =
            Api::namespaced_with(client, &namespace, &ApiResource::erase::<StateEpochPolicy>(&()));
        // The resource is established a moment before the API server answers under its names.
        let answered = async || policies.list(&ListParams::default()).await.ok().map(drop);
        wait::until("policies are served", support::SOON, answered).await?;
        Ok(Self { cluster, namespace, policies })
    }

    /// What the API server has against a policy, without storing it.
    async fn objections(&self, policy: &Value) -> Result<Vec<StatusCause>> {
        let object = serde_json::from_value(policy.clone())?;
        causes(self.policies.create(&PostParams { dry_run: true, ..PostParams::default() }, &object).await)
    }

    async fn kubectl(&self, args: &[&str], input: &str) -> Result<Output> {
        let args: Vec<&str> = [&["--namespace", self.namespace.as_str()], args].concat();
        self.cluster.kubectl_stdin(&args, input).await
    }
}

fn causes(answer: kube::Result<DynamicObject>) -> Result<Vec<StatusCause>> {
    match answer {
        Ok(_) => Ok(Vec::new()),
        Err(kube::Error::Api(status)) if status.reason == "Invalid" => {
            Ok(status.details.map(|details| details.causes).unwrap_or_default())
        }
        Err(error) => Err(error.into()),
    }
}

fn policy(spec: &Value) -> Value {
    json!({
        "apiVersion": "epochwarden.io/v1alpha1",
        "kind": "StateEpochPolicy",
        "metadata": { "name": "orders" },
        "spec": spec,
    })
}

fn valid() -> Value {
    policy(&json!({ "store": { "url": "s3://state/orders" }, "vnodes": 16 }))
}

/// The policy with one field set to something else; missing parents are made.
fn with(mut policy: Value, pointer: &str, value: Value) -> Value {
    let mut place = &mut policy;
    for key in pointer.trim_start_matches('/').split('/') {
        place = &mut place[key];
    }
    *place = value;
    policy
}

const URL: &str = "/spec/store/url";
const OPTIONS: &str = "/spec/store/options";

/// A mistake: where, what, and how the one answer to it begins.
type Mistake = (&'static str, Value, &'static str);

fn mistakes() -> Vec<Mistake> {
    [wrong_urls(), wrong_options(), wrong_names(), wrong_durations(), wrong_epochs(), wrong_schedules()].concat()
}

fn wrong_urls() -> Vec<Mistake> {
    let mut mistakes: Vec<Mistake> = Vec::new();
    for (urls, answer) in [
        (
            &[
                "",
                "state/orders",
                "/var/state",
                "http://state/orders",
                "S3://state",
                " s3://state",
                "s3:/state",
                "memory://x",
            ][..],
            "spec.store.url: write s3://BUCKET",
        ),
        (&["s3://", "gs:///orders", "az://", "abfs:///x"], "spec.store.url: name the bucket"),
        (
            &["file://", "file:///", "file://host/state", "file://state", "file:////state"],
            "spec.store.url: a folder has no host",
        ),
        (
            &["s3://state/orders?versionId=1", "s3://state#x", "file:///state?x", "s3://state?x=y@z:1"],
            "spec.store.url: remove the query",
        ),
        (
            &[
                "s3://key:secret@state/orders",
                "s3://user@state",
                "gs://state:9000/x",
                "abfs://c:secret@account.example/x",
                "abfs://c@a@b",
                "abfs://c@account.example/x",
            ],
            "spec.store.url: remove the user name",
        ),
        (&["az://account.blob.core.windows.net/x", "abfs://state.x"], "spec.store.url: a container has no dot"),
        (
            &[
                "s3://state/epoch=5",
                "s3://state/orders/epoch=/x",
                "s3://state/_epochwarden",
                "s3://state/_epochwarden/fence",
                "file:///state/epoch=1/",
            ],
            "spec.store.url: write the folder above",
        ),
        (
            &[
                "s3://state//orders",
                "s3://state/orders//",
                "s3://state/./orders",
                "s3://state/..",
                "file:///state//x",
                "file:///state/../x",
            ],
            "spec.store.url: write no empty",
        ),
        (
            &[
                "s3://state/or\nders",
                "s3://state/\u{7f}",
                "s3://state\\orders",
                "s3://state/epoch%3D5",
                "s3://state/orders ",
            ],
            "spec.store.url: write no control character",
        ),
    ] {
        mistakes.extend(urls.iter().map(|url| (URL, json!(url), answer)));
    }
    mistakes
}

fn wrong_options() -> Vec<Mistake> {
    let mut mistakes: Vec<Mistake> = Vec::new();
    for (options, answer) in [
        (json!({ "aws_regoin": "eu-west-1" }), "spec.store.options: remove what is not one of aws_region"),
        (json!({ "aws_bucket": "theirs" }), "spec.store.options: remove what is not one of"),
        (json!({ "aws_metadata_endpoint": "http://169.254.169.254" }), "spec.store.options: remove what is not one of"),
        (json!({ "proxy_url": "http://proxy" }), "spec.store.options: remove what is not one of"),
        (json!({ "AWS_REGION": "eu-west-1" }), "spec.store.options: remove what is not one of"),
        (json!({ "aws_endpoint": "127.0.0.1:9000" }), "spec.store.options: write an endpoint as http://HOST:PORT"),
        (json!({ "aws_endpoint": "https://key:secret@host" }), "spec.store.options: write an endpoint as"),
        (json!({ "aws_endpoint": "https://host/?token=secret" }), "spec.store.options: write an endpoint as"),
        (json!({ "aws_endpoint": "http://host" }), "spec.store.options: write https:// for an endpoint"),
        (
            json!({ "aws_endpoint": "http://host", "allow_http": "false" }),
            "spec.store.options: write https:// for an endpoint",
        ),
        (json!({ "aws_skip_signature": "yes" }), "spec.store.options: write \"true\" or \"false\""),
        (json!({ "allow_http": "1" }), "spec.store.options: write \"true\" or \"false\""),
        (json!({ "timeout": "30" }), "spec.store.options: write timeout and connect_timeout"),
        (json!({ "connect_timeout": "0s" }), "spec.store.options: write timeout and connect_timeout"),
        (json!({ "google_skip_signature": "true" }), "spec.store.options: remove the google_… options"),
        (json!({ "azure_storage_account_name": "a" }), "spec.store.options: remove the azure_… options"),
    ] {
        mistakes.push((OPTIONS, options, answer));
    }
    let gs = json!({ "url": "gs://state", "options": { "aws_region": "eu-west-1", "timeout": "10s" } });
    mistakes.push(("/spec/store", gs, "spec.store.options: remove the aws_… options"));
    let folder = json!({ "url": "file:///state", "options": { "timeout": "10s" } });
    mistakes.push(("/spec/store", folder, "spec.store.options: a folder has no options"));
    let folder = json!({ "url": "file:///state", "credentials": { "secretRef": { "name": "orders" } } });
    mistakes.push(("/spec/store", folder, "spec.store.credentials: a folder needs no credentials"));
    let folder = json!({ "url": "file:///state", "ca": { "secretRef": { "name": "ca" } } });
    mistakes.push(("/spec/store", folder, "spec.store.ca: a folder has no certificate"));
    mistakes
}

fn wrong_names() -> Vec<Mistake> {
    let mut mistakes: Vec<Mistake> = Vec::new();
    for name in ["", "Orders", "orders_state", "-orders", "orders.", "orders/state"] {
        mistakes.push((
            "/spec/store/credentials/secretRef/name",
            json!(name),
            "spec.store.credentials.secretRef.name: write the name of a Secret",
        ));
        mistakes.push((
            "/spec/fence/leaseRef/name",
            json!(name),
            "spec.fence.leaseRef.name: write the name of a Lease",
        ));
        mistakes.push((
            "/spec/store/ca/secretRef/name",
            json!(name),
            "spec.store.ca.secretRef.name: write the name of a Secret",
        ));
    }
    for key in ["", "ca crt", "certificates/ca.crt", "ca\n"] {
        mistakes.push((
            "/spec/store/ca/secretRef",
            json!({ "name": "ca", "key": key }),
            "spec.store.ca.secretRef.key: write a key of the Secret",
        ));
    }
    mistakes
}

fn wrong_durations() -> Vec<Mistake> {
    let mut mistakes: Vec<Mistake> = Vec::new();
    for wrong in ["", "10", "5 minutes", "1.5h", "-1s", "1s1m", "1h1h", "PT1H", "1w", "1000000000s", "0"] {
        mistakes.push(("/spec/retention/keepWithin", json!(wrong), "spec.retention.keepWithin: write days, hours"));
        mistakes.push((
            "/spec/retention/keepEvery",
            json!([{ "every": wrong, "for": "1d" }]),
            "spec.retention.keepEvery[].every: write days, hours",
        ));
        mistakes.push((
            "/spec/retention/keepEvery",
            json!([{ "every": "1d", "for": wrong }]),
            "spec.retention.keepEvery[].for: write days, hours",
        ));
        mistakes.push(("/spec/prune/minAge", json!(wrong), "spec.prune.minAge: write days, hours"));
        mistakes.push(("/spec/prune/deadline", json!(wrong), "spec.prune.deadline: write days, hours"));
        mistakes.push(("/spec/audit/stalledAfter", json!(wrong), "spec.audit.stalledAfter: write days, hours"));
        mistakes.push(("/spec/audit/sealCheckEvery", json!(wrong), "spec.audit.sealCheckEvery: write days, hours"));
        mistakes.push(("/spec/audit/deadline", json!(wrong), "spec.audit.deadline: write days, hours"));
    }
    for nothing in ["0s", "0d0h", "00m"] {
        mistakes.push((
            "/spec/retention/keepWithin",
            json!(nothing),
            "spec.retention.keepWithin: write a duration longer",
        ));
        mistakes.push((
            "/spec/retention/keepEvery",
            json!([{ "every": nothing, "for": "1d" }]),
            "spec.retention.keepEvery[].every: write a duration longer",
        ));
        mistakes.push((
            "/spec/retention/keepEvery",
            json!([{ "every": "1h", "for": nothing }]),
            "spec.retention.keepEvery[].for: write a duration longer",
        ));
        mistakes.push(("/spec/prune/deadline", json!(nothing), "spec.prune.deadline: write a duration longer"));
        mistakes.push(("/spec/audit/deadline", json!(nothing), "spec.audit.deadline: write a duration longer"));
    }
    mistakes
}

fn wrong_epochs() -> Vec<Mistake> {
    let mut mistakes: Vec<Mistake> = Vec::new();
    for epoch in [
        "",
        "007",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1e3",
        "9223372036854775808",
        "18446744073709551615",
        "10000000000000000000",
    ] {
        mistakes.push((
            "/spec/retention/pinned",
            json!([{ "epoch": epoch }]),
            "spec.retention.pinned[].epoch: write the epoch as decimal",
        ));
    }
    mistakes.push((
        "/spec/retention/pinned",
        json!([{ "epoch": "v7/12" }]),
        "spec.retention.pinned[].epoch: write it in decimal",
    ));
    mistakes
}

fn wrong_schedules() -> Vec<Mistake> {
    let mut mistakes: Vec<Mistake> = Vec::new();
    for schedule in ["", "hourly", "@fortnightly", "@every 5m", "* * * *", "0 */5 * * * *", "@"] {
        mistakes.push(("/spec/prune/schedule", json!(schedule), "spec.prune.schedule: write five fields"));
        mistakes.push(("/spec/audit/schedule", json!(schedule), "spec.audit.schedule: write five fields"));
    }
    for zone in ["", "Europe/", "/etc/localtime", "Europe Berlin", "../UTC", "+02:00"] {
        mistakes.push(("/spec/prune/timeZone", json!(zone), "spec.prune.timeZone: write a name of the IANA"));
        mistakes.push(("/spec/audit/timeZone", json!(zone), "spec.audit.timeZone: write a name of the IANA"));
    }
    mistakes
}

/// What cannot be changed: from what to what, and how the answer begins.
fn changes() -> [(&'static str, Value, &'static str); 4] {
    [
        (URL, json!("s3://state/others"), "spec.store.url: cannot be changed"),
        (URL, json!("s3://state/orders/"), "spec.store.url: cannot be changed"),
        ("/spec/vnodes", json!(17), "spec.vnodes: cannot be changed"),
        ("/spec/numbering", json!("Versioned"), "spec.numbering: cannot be changed"),
    ]
}

#[tokio::test]
async fn every_mistake_gets_one_answer_that_names_its_field_and_says_what_to_write() -> Result<()> {
    let desk = Desk::new().await?;
    for (pointer, value, answer) in mistakes() {
        let causes = desk.objections(&with(valid(), pointer, value.clone())).await?;
        let [cause] = causes.as_slice() else { bail!("{pointer} = {value}: not one answer but {causes:#?}") };
        ensure!(cause.message.contains(&format!(": {answer}")), "{pointer} = {value}: {}", cause.message);
        let field = answer.split(": ").next().unwrap_or_default();
        let holder = field.split("[].").next().unwrap_or_default();
        let in_place = cause.field.starts_with(holder) || holder.starts_with(&cause.field);
        ensure!(in_place, "{pointer} = {value}: the answer is about {}", cause.field);
    }
    Ok(())
}

#[tokio::test]
async fn what_a_store_or_a_number_of_vnodes_is_cannot_be_changed_and_the_rest_can() -> Result<()> {
    let desk = Desk::new().await?;
    desk.policies.create(&PostParams::default(), &serde_json::from_value(valid())?).await?;
    let update = async |changed: Value| {
        let spec = json!({ "spec": changed["spec"] });
        causes(desk.policies.patch("orders", &PatchParams::default(), &Patch::Merge(&spec)).await)
    };
    for (pointer, value, answer) in changes() {
        let causes = update(with(valid(), pointer, value.clone())).await?;
        let [cause] = causes.as_slice() else { bail!("{pointer} = {value}: not one answer but {causes:#?}") };
        ensure!(cause.message.contains(&format!(": {answer}")), "{pointer} = {value}: {}", cause.message);
    }
    for (pointer, value) in [
        ("/spec/store/options", json!({ "aws_region": "eu-west-1" })),
        ("/spec/store/credentials/secretRef/name", json!("orders-state")),
        ("/spec/fence/leaseRef/name", json!("orders-leader")),
        ("/spec/retention/keepLast", json!(3)),
        ("/spec/prune/schedule", json!("@hourly")),
        ("/spec/suspend", json!(true)),
    ] {
        let causes = update(with(valid(), pointer, value.clone())).await?;
        ensure!(causes.is_empty(), "{pointer} = {value}: {causes:#?}");
    }
    Ok(())
}

#[test]
fn every_rule_of_the_schema_is_broken_by_some_case() {
    let answers: BTreeSet<_> = mistakes().into_iter().chain(changes()).map(|(_, _, answer)| answer).collect();
    let mut rules = Vec::new();
    collect_rules(&serde_json::to_value(crd()).unwrap(), &mut rules);
    assert!(rules.len() > 30, "{rules:#?}");
    for message in rules {
        let broken = answers.iter().any(|answer| message.starts_with(answer));
        assert!(broken, "no case breaks: {message}");
    }
}

fn collect_rules(value: &Value, rules: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if key == "x-kubernetes-validations" {
                    let messages = value.as_array().into_iter().flatten().filter_map(|rule| rule["message"].as_str());
                    rules.extend(messages.map(str::to_owned));
                } else {
                    collect_rules(value, rules);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect_rules(value, rules)),
        _ => {}
    }
}

#[tokio::test]
async fn what_is_right_meets_no_objection() -> Result<()> {
    let desk = Desk::new().await?;
    let mut right: Vec<(&str, Value)> = Vec::new();
    for url in [
        "s3://state",
        "s3://state/",
        "s3://state/a/b.c/_x/epochs=1",
        "gs://state/orders",
        "az://container/orders",
        "abfs://container@account.dfs.core.windows.net/orders",
        "abfs://container/orders",
        "file:///var/lib/my state/ü",
        "s3://state/...",
    ] {
        right.push((URL, json!(url)));
    }
    right.push(("/spec/vnodes", json!(1)));
    right.push(("/spec/vnodes", json!(1_048_576)));
    right.push((OPTIONS, json!({ "aws_endpoint": "https://s3.example:9000/path", "timeout": "10s" })));
    right.push((OPTIONS, json!({ "aws_endpoint": "http://127.0.0.1:9000", "allow_http": "true" })));
    right.push((
        "/spec/store",
        json!({ "url": "gs://state", "options": { "google_base_url": "https://storage.example" } }),
    ));
    right.push(("/spec/store", json!({ "url": "az://state", "options": { "azure_storage_account_name": "orders" } })));
    right.push(("/spec/store", json!({ "url": "file:///state", "options": {} })));
    for name in ["orders", "orders-1.state", "0"] {
        right.push(("/spec/store/credentials/secretRef/name", json!(name)));
        right.push(("/spec/fence/leaseRef/name", json!(name)));
    }
    right.push(("/spec/store/credentials/secretRef/name", json!("a".repeat(253))));
    right.push(("/spec/fence", json!({ "leaseRef": { "name": "orders" }, "versionFrom": "Annotation" })));
    for duration in ["90s", "10m", "24h", "7d", "1d12h", "1d2h3m4s", "999999999d"] {
        right.push(("/spec/retention/keepWithin", json!(duration)));
        right.push(("/spec/retention/keepEvery", json!([{ "every": duration, "for": duration }])));
        right.push(("/spec/prune/deadline", json!(duration)));
    }
    right.push(("/spec/prune/minAge", json!("0s")));
    right.push(("/spec/prune/approval", json!("Manual")));
    right.push(("/spec/prune/holdAbove", json!({ "epochs": 0, "percent": 100 })));
    right.push(("/spec/audit/sealCheckEvery", json!("0s")));
    right.push(("/spec/store/ca", json!({ "secretRef": { "name": "minio-ca", "key": "tls.CA_1-2.crt" } })));
    right.push(("/spec/retention", json!({})));
    right.push(("/spec/retention/keepEvery", json!(vec![json!({ "every": "1h", "for": "7d" }); 8])));
    for epoch in ["0", "1", "4711", "999999999999999999", "1000000000000000000", "9223372036854775807"] {
        right.push(("/spec/retention/pinned", json!([{ "epoch": epoch }])));
    }
    let pins: Vec<_> = (0..256).map(|epoch| json!({ "epoch": epoch.to_string(), "note": "n".repeat(1024) })).collect();
    right.push(("/spec/retention/pinned", json!(pins)));
    for schedule in ["H/15 * * * *", "H H * * *", "@hourly", "@Daily", "0 3 * * MON-FRI", "0 3 L * ?", " 0  3 * * * "] {
        right.push(("/spec/prune/schedule", json!(schedule)));
        right.push(("/spec/audit/schedule", json!(schedule)));
    }
    for zone in
        ["Etc/UTC", "UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+2", "America/Port-au-Prince"]
    {
        right.push(("/spec/prune/timeZone", json!(zone)));
    }
    for (pointer, value) in right {
        let causes = desk.objections(&with(valid(), pointer, value.clone())).await?;
        ensure!(causes.is_empty(), "{pointer} = {value}: {causes:#?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_epoch_is_pinned_by_version_and_sequence_where_epochs_are_numbered_so() -> Result<()> {
    let desk = Desk::new().await?;
    let versioned = with(valid(), "/spec/numbering", json!("Versioned"));
    let objections = async |epoch: &str| {
        desk.objections(&with(versioned.clone(), "/spec/retention/pinned", json!([{ "epoch": epoch }]))).await
    };
    for epoch in ["v7/12", "v1/0", "v8388607/1099511627775", "4711", "9223372036854775807"] {
        let causes = objections(epoch).await?;
        ensure!(causes.is_empty(), "{epoch}: {causes:#?}");
    }
    for epoch in [
        "v0/12",
        "v07/12",
        "v7/012",
        "v7",
        "v7/",
        "7/12",
        "V7/12",
        "v7/12/1",
        "v8388608/0",
        "v7/1099511627776",
        "v99999999/1",
        "v7/99999999999999",
    ] {
        let causes = objections(epoch).await?;
        let told = causes.iter().filter(|cause| cause.message.contains("such as \"v7/12\"")).count();
        ensure!(causes.len() == 1 && told == 1, "{epoch}: {causes:#?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_too_much_or_of_another_kind_is_refused_on_its_field() -> Result<()> {
    let desk = Desk::new().await?;
    let many: serde_json::Map<String, Value> = (0..33).map(|n| (format!("timeout{n}"), json!("1s"))).collect();
    let pins: Vec<_> = (0..257).map(|epoch| json!({ "epoch": epoch.to_string() })).collect();
    for (pointer, value, field) in [
        (URL, json!(format!("s3://{}", "x".repeat(1020))), "spec.store.url"),
        (OPTIONS, json!(many), "spec.store.options"),
        (OPTIONS, json!({ "aws_region": "1".repeat(1025) }), "spec.store.options.aws_region"),
        ("/spec/store/credentials/secretRef/name", json!("a".repeat(254)), "spec.store.credentials.secretRef.name"),
        ("/spec/store/credentials", json!({}), "spec.store.credentials.secretRef"),
        ("/spec/fence/leaseRef/name", json!("a".repeat(254)), "spec.fence.leaseRef.name"),
        ("/spec/vnodes", json!(0), "spec.vnodes"),
        ("/spec/vnodes", json!(1_048_577), "spec.vnodes"),
        ("/spec/vnodes", json!("16"), "spec.vnodes"),
        ("/spec/numbering", json!("Hexadecimal"), "spec.numbering"),
        ("/spec/fence", json!({ "leaseRef": { "name": "a" }, "versionFrom": "Guessed" }), "spec.fence.versionFrom"),
        ("/spec/prune/approval", json!("Nobody"), "spec.prune.approval"),
        ("/spec/prune/holdAbove", json!({ "percent": 101 }), "spec.prune.holdAbove.percent"),
        ("/spec/prune/holdAbove", json!({ "epochs": -1 }), "spec.prune.holdAbove.epochs"),
        ("/spec/prune/maxKeysPerSecond", json!(0), "spec.prune.maxKeysPerSecond"),
        ("/spec/store/ca", json!({}), "spec.store.ca.secretRef"),
        ("/spec/store/ca", json!({ "secretRef": { "name": "a".repeat(254) } }), "spec.store.ca.secretRef.name"),
        ("/spec/prune/maxObjects", json!(0), "spec.prune.maxObjects"),
        ("/spec/prune/schedule", json!(format!("{} * * * *", "1,".repeat(50))), "spec.prune.schedule"),
        ("/spec/prune/timeZone", json!("A".repeat(65)), "spec.prune.timeZone"),
        ("/spec/retention/keepLast", json!(0), "spec.retention.keepLast"),
        ("/spec/retention/keepLast", json!(-1), "spec.retention.keepLast"),
        ("/spec/retention/incrementalDepth", json!(-1), "spec.retention.incrementalDepth"),
        ("/spec/retention/keepWithin", json!("1".repeat(33)), "spec.retention.keepWithin"),
        ("/spec/retention/keepEvery", json!([{ "every": "1h" }]), "spec.retention.keepEvery[0].for"),
        (
            "/spec/retention/keepEvery",
            json!(vec![json!({ "every": "1h", "for": "7d" }); 9]),
            "spec.retention.keepEvery",
        ),
        ("/spec/retention/pinned", json!([{ "epoch": 4711 }]), "spec.retention.pinned[0].epoch"),
        ("/spec/retention/pinned", json!([{ "epoch": "1" }, { "epoch": "1" }]), "spec.retention.pinned[1]"),
        ("/spec/retention/pinned", json!(pins), "spec.retention.pinned"),
    ] {
        let causes = desk.objections(&with(valid(), pointer, value.clone())).await?;
        ensure!(causes.iter().any(|cause| cause.field == field), "{pointer} = {value}: {causes:#?}");
    }
    for missing in ["store", "vnodes"] {
        let mut policy = valid();
        policy["spec"].as_object_mut().context("a spec")?.remove(missing);
        let causes = desk.objections(&policy).await?;
        ensure!(causes.iter().any(|cause| cause.field == format!("spec.{missing}")), "{missing}: {causes:#?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_field_that_does_not_exist_is_refused_and_not_ignored() -> Result<()> {
    let desk = Desk::new().await?;
    for (pointer, value) in [
        ("/spec/store/certificate", json!("ca.crt")),
        ("/spec/store/bucket", json!("state")),
        ("/spec/prune/holdAbove/bytes", json!(1000)),
        ("/spec/audit/sealCheck", json!("5m")),
        ("/spec/retention/keeplast", json!(3)),
        ("/spec/fence/lease", json!("orders")),
    ] {
        let policy = serde_json::to_string(&with(valid(), pointer, value))?;
        let output = desk.kubectl(&["create", "--dry-run=server", "--filename=-"], &policy).await?;
        let field = pointer.trim_start_matches('/').replace('/', ".");
        ensure!(!output.status.success(), "{field} was accepted: {}", output.stdout);
        ensure!(output.stderr.contains(&format!("unknown field \"{field}\"")), "{field}: {}", output.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn the_example_policies_apply_unchanged_and_without_a_warning() -> Result<()> {
    let desk = Desk::new().await?;
    for example in
        [include_str!("../../examples/policies/full.yaml"), include_str!("../../examples/policies/minimal.yaml")]
    {
        for server_side in ["--server-side=false", "--server-side=true"] {
            let apply = ["apply", "--dry-run=server", server_side, "--filename=-"];
            // They name their own namespace.
            let output = desk.cluster.kubectl_stdin(&apply, example).await?;
            ensure!(output.status.success() && output.stderr.is_empty(), "{server_side}: {}", output.stderr);
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_a_policy_leaves_out_gets_its_default() -> Result<()> {
    let desk = Desk::new().await?;
    let created = desk.policies.create(&PostParams::default(), &serde_json::from_value(valid())?).await?;
    let expected = json!({
        "store": { "url": "s3://state/orders" },
        "vnodes": 16,
        "numbering": "Plain",
        "prune": {
            "timeZone": "Etc/UTC",
            "suspend": false,
            "dryRun": false,
            "approval": "Automatic",
            "holdAbove": { "epochs": 1000, "percent": 50 },
            "minAge": "10m",
            "maxObjects": 1_000_000,
            "maxKeysPerSecond": 2000,
            "deadline": "30m",
        },
        "audit": {
            "timeZone": "Etc/UTC",
            "suspend": false,
            "sealCheckEvery": "5m",
            "stalledAfter": "30m",
            "deadline": "30m",
        },
        "suspend": false,
    });
    assert_eq!(created.data["spec"], expected);

    let fence = with(valid(), "/metadata/name", json!("fenced"));
    let fence = with(fence, "/spec/fence/leaseRef/name", json!("orders-leader"));
    let created = desk.policies.create(&PostParams::default(), &serde_json::from_value(fence)?).await?;
    assert_eq!(created.data["spec"]["fence"]["versionFrom"], "LeaseTransitions");

    let partly = with(valid(), "/metadata/name", json!("partly"));
    let partly = with(partly, "/spec/prune/holdAbove/epochs", json!(7));
    let partly = with(partly, "/spec/store/ca/secretRef/name", json!("ca"));
    let created = desk.policies.create(&PostParams::default(), &serde_json::from_value(partly)?).await?;
    let spec = &created.data["spec"];
    assert_eq!(spec["prune"]["holdAbove"], json!({ "epochs": 7, "percent": 50 }));
    assert_eq!(spec["store"]["ca"]["secretRef"]["key"], "ca.crt");
    Ok(())
}

#[tokio::test]
async fn the_resource_applies_without_a_warning_and_has_a_structural_schema() -> Result<()> {
    let desk = Desk::new().await?;
    let yaml = crd_yaml()?;
    for apply in [&["apply", "--filename=-"][..], &["apply", "--server-side", "--force-conflicts", "--filename=-"]] {
        let output = desk.kubectl(apply, &yaml).await?;
        // The resource is there already, applied from the server's side: the first apply from here says that it adopts it.
        let warnings: Vec<_> = output
            .stderr
            .lines()
            .filter(|line| !line.contains("kubectl.kubernetes.io/last-applied-configuration"))
            .collect();
        ensure!(output.status.success() && warnings.is_empty(), "{apply:?}: {}", output.stderr);
    }
    let crds: Api<CustomResourceDefinition> = Api::all(desk.cluster.client().await?);
    let conditions = conditions(&crds.get(StateEpochPolicy::crd_name()).await?);
    ensure!(
        !conditions.iter().any(|(type_, status)| type_ == "NonStructuralSchema" && status == "True"),
        "{conditions:?}"
    );
    Ok(())
}

#[tokio::test]
async fn kubectl_explains_the_fields_and_shows_the_columns() -> Result<()> {
    let desk = Desk::new().await?;
    let explained = desk.kubectl(&["explain", "sep.spec.prune.schedule"], "").await?;
    ensure!(explained.stdout.contains("five cron fields"), "{}{}", explained.stdout, explained.stderr);

    desk.policies.create(&PostParams::default(), &serde_json::from_value(valid())?).await?;
    let status = json!({ "status": {
        "fence": { "version": 7, "holder": "orders-0" },
        "epochs": { "latestCommitted": "18446744073709551615", "sealed": 12, "unsealed": 1, "objects": 208, "bytes": 4096 },
        "audit": { "verdict": "Clean", "nextRunAt": "2026-11-01T10:00:00Z" },
        "prune": { "nextRunAt": "2026-11-01T09:45:00Z" },
        "conditions": [
            condition("Ready", "True", "Reachable"),
            condition("StoreReady", "True", "Reachable"),
        ],
    }});
    desk.policies.patch_status("orders", &PatchParams::default(), &Patch::Merge(&status)).await?;
    let table = desk.kubectl(&["get", "sep", "--output=wide"], "").await?;
    let mut lines = table.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(
        lines.next().context("a header")?,
        [
            "NAME",
            "STORE",
            "FENCE",
            "LEADER",
            "LATEST",
            "SEALED",
            "AUDIT",
            "READY",
            "AGE",
            "NEXT-PRUNE",
            "NEXT-AUDIT",
            "URL"
        ]
    );
    let mut row = lines.next().context("a row")?;
    row.remove(8);
    assert_eq!(
        row,
        [
            "orders",
            "Reachable",
            "7",
            "orders-0",
            "18446744073709551615",
            "12",
            "Clean",
            "True",
            "2026-11-01T09:45:00Z",
            "2026-11-01T10:00:00Z",
            "s3://state/orders"
        ]
    );
    let narrow = desk.kubectl(&["get", "sep"], "").await?;
    ensure!(!narrow.stdout.contains("NEXT-PRUNE") && !narrow.stdout.contains("URL"), "{}", narrow.stdout);
    Ok(())
}

fn condition(type_: &str, status: &str, reason: &str) -> Value {
    json!({ "type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-11-01T09:00:00Z" })
}
