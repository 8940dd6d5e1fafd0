use serde_json::json;

use super::super::spec::{AuditSpec, PruneSpec, StateEpochPolicySpec};
use super::*;

/// The schema of the resource as JSON.
fn schema() -> Value {
    serde_json::to_value(crd()).unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Calls `look` with every schema below `path`.
fn each(path: &str, schema: &Value, look: &mut dyn FnMut(&str, &Value)) {
    look(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        each(&format!("{path}.{name}"), property, look);
    }
    for (suffix, key) in [("[]", "items"), (".*", "additionalProperties")] {
        if schema[key].is_object() {
            each(&format!("{path}{suffix}"), &schema[key], look);
        }
    }
}

#[test]
fn no_number_has_a_format_that_kubernetes_does_not_know() {
    each("", &schema(), &mut |path, schema| {
        if let Some(format) = schema["format"].as_str() {
            assert!(["int32", "int64", "date-time"].contains(&format), "{path}: {format}");
        }
    });
    let raw = serde_json::to_string(&StateEpochPolicy::crd()).unwrap();
    assert!(raw.contains("\"uint32\""), "nothing had to be removed: is this test still needed?");
}

#[test]
fn everything_that_a_user_writes_is_bounded() {
    each("spec", &schema()["properties"]["spec"], &mut |path, schema| {
        let bounds: &[&str] = match schema["type"].as_str().unwrap() {
            "string" if schema["enum"].is_array() => &[],
            "string" => &["maxLength"],
            "integer" => &["minimum", "maximum"],
            "array" => &["maxItems"],
            "object" if schema["additionalProperties"].is_object() => &["maxProperties"],
            "object" | "boolean" => &[],
            other => panic!("{path}: {other}"),
        };
        for bound in bounds {
            assert!(schema[*bound].is_number(), "{path} has no {bound}");
        }
    });
}

#[test]
fn every_list_and_map_of_the_status_is_bounded_and_its_numbers_are_not_negative() {
    each("status", &schema()["properties"]["status"], &mut |path, schema| match schema["type"].as_str().unwrap() {
        "array" => assert!(schema["maxItems"].is_number() && schema["x-kubernetes-list-type"].is_string(), "{path}"),
        "object" if schema["additionalProperties"].is_object() => {
            assert!(schema["maxProperties"].is_number(), "{path}");
        }
        "integer" if path.ends_with("observedGeneration") || path.ends_with("leaseTransitions") => {}
        "integer" => assert!(schema["minimum"].as_f64().unwrap() >= 0.0, "{path}"),
        _ => {}
    });
    let status = &schema()["properties"]["status"]["properties"];
    let most = |list: &Value| usize::try_from(list["maxItems"].as_u64().unwrap()).unwrap();
    assert_eq!(most(&status["history"]), super::super::status::MAX_HISTORY);
    assert_eq!(most(&status["audit"]["properties"]["findings"]), super::super::status::MAX_FINDINGS);
    for list in ["keep", "delete"] {
        assert_eq!(most(&status["plan"]["properties"][list]), super::super::status::MAX_RANGES);
    }
    assert_eq!(status["conditions"]["x-kubernetes-list-map-keys"], json!(["type"]));
}

#[test]
fn the_schema_is_closed_and_nothing_may_be_null() {
    each("", &schema(), &mut |path, schema| {
        for key in ["nullable", "x-kubernetes-preserve-unknown-fields", "anyOf", "oneOf", "allOf"] {
            assert!(schema[key].is_null(), "{path} has {key}");
        }
    });
}

#[test]
fn every_field_is_explained_in_plain_words() {
    each("", &schema(), &mut |path, schema| {
        if path.ends_with("[]") || path.ends_with(".*") {
            return;
        }
        let text = schema["description"].as_str().unwrap_or_default();
        assert!(text.ends_with('.'), "{path}: {text:?}");
        assert!(!text.contains(['\n', '`', '[']), "{path}: {text:?}");
    });
}

#[test]
fn every_rule_has_a_message_that_begins_with_its_field() {
    each("", &schema(), &mut |path, schema| {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let message = rule["message"].as_str().unwrap_or_default();
            let (field, what_to_write) = message.split_once(": ").unwrap_or_default();
            assert!(
                field.starts_with(path.trim_start_matches('.')) && !what_to_write.is_empty(),
                "{path}: {message:?}"
            );
        }
    });
}

#[test]
fn the_defaults_of_the_schema_are_those_of_the_types() {
    let schema = schema();
    let spec = &schema["properties"]["spec"]["properties"];
    let defaults = |object: &Value| {
        let properties = object["properties"].as_object().unwrap().iter();
        let given = properties.filter(|(_, field)| !field["default"].is_null());
        given.map(|(name, field)| (name.clone(), field["default"].clone())).collect::<serde_json::Map<_, _>>()
    };
    assert_eq!(
        Value::from(defaults(&spec["prune"])),
        json!({
            "timeZone": "Etc/UTC",
            "suspend": false,
            "dryRun": false,
            "approval": "Automatic",
            "holdAbove": { "epochs": 1000, "percent": 50 },
            "minAge": "10m",
            "maxObjects": 1_000_000,
            "maxKeysPerSecond": 2000,
            "deadline": "30m",
        })
    );
    assert_eq!(Value::from(defaults(&spec["prune"])), serde_json::to_value(PruneSpec::default()).unwrap());
    assert_eq!(
        Value::from(defaults(&spec["audit"])),
        json!({
            "timeZone": "Etc/UTC",
            "suspend": false,
            "sealCheckEvery": "5m",
            "stalledAfter": "30m",
            "deadline": "30m",
        })
    );
    assert_eq!(Value::from(defaults(&spec["audit"])), serde_json::to_value(AuditSpec::default()).unwrap());
    for section in ["prune", "audit"] {
        assert_eq!(spec[section]["default"], json!({}));
    }

    let minimal = json!({ "store": { "url": "s3://state" }, "vnodes": 1 });
    let minimal: StateEpochPolicySpec = serde_json::from_value(minimal).unwrap();
    assert_eq!((minimal.prune, minimal.audit), (PruneSpec::default(), AuditSpec::default()));
}

#[test]
fn the_columns_are_strings_but_for_the_fence_and_the_age() {
    let crd = crd();
    let columns = crd.spec.versions[0].additional_printer_columns.clone().unwrap();
    let shown = |wide: bool| {
        let of = columns.iter().filter(|column| (column.priority == Some(1)) == wide);
        of.map(|column| column.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(shown(false), ["STORE", "FENCE", "LEADER", "LATEST", "SEALED", "AUDIT", "READY", "AGE"]);
    assert_eq!(shown(true), ["NEXT-PRUNE", "NEXT-AUDIT", "URL"]);
    let others = |column: &&CustomResourceColumnDefinition| column.type_ != "string";
    let others: Vec<_> =
        columns.iter().filter(others).map(|column| (column.name.as_str(), column.type_.as_str())).collect();
    assert_eq!(others, [("FENCE", "integer"), ("AGE", "date")]);
}

#[test]
fn the_names_are_those_of_the_documentation() {
    let crd = crd();
    assert_eq!(crd.metadata.name.as_deref(), Some("stateepochpolicies.epochwarden.io"));
    assert_eq!(crd.spec.names.short_names, Some(vec!["sep".to_owned()]));
    assert_eq!((crd.spec.scope.as_str(), crd.spec.versions[0].name.as_str()), ("Namespaced", "v1alpha1"));
}

#[test]
fn the_yaml_says_the_same_as_the_json_and_the_same_every_time() {
    let yaml = crd_yaml().unwrap();
    assert_eq!(yaml, crd_yaml().unwrap());
    assert!(yaml.starts_with("apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n"));
    assert!(yaml.ends_with('\n') && !yaml.contains(".0\n"), "whole numbers are written as such");
    let read: CustomResourceDefinition = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(read, crd());
}
