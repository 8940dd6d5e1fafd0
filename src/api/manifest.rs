//! A policy from a file, for the command line.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, JSONSchemaPropsOrArray};
use kube::Resource;
use serde_json::Value;
use thiserror::Error;

use super::crd::crd;
use super::spec::StateEpochPolicy;
use super::validate::{self, Invalid};

/// Why a text is no policy.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// It is no YAML, or more than one document.
    #[error("this is not a StateEpochPolicy: {0}; write one document, as for kubectl apply")]
    Yaml(#[from] serde_saphyr::Error),
    /// A field has another type than it should, or is missing.
    #[error("this is not a StateEpochPolicy: {0}; write it as for kubectl apply")]
    Shape(#[from] serde_json::Error),
    /// It is another resource.
    #[error("{field} is {found:?}: write {expected}")]
    Kind {
        /// `apiVersion` or `kind`.
        field: &'static str,
        /// What it says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// It has a field that there is not: it would be ignored, and whoever wrote it would not know.
    #[error("unknown field {0:?}: remove it, or correct its name")]
    UnknownField(String),
    /// A field says something that cannot be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// Reads a manifest of one policy, as strictly as the API server reads it: what there is not is refused, what is left out gets its
/// default.
pub fn parse_manifest(text: &str) -> Result<StateEpochPolicy, ManifestError> {
    let value: Value = serde_saphyr::from_str(text)?;
    for (field, expected) in [("apiVersion", StateEpochPolicy::api_version(&())), ("kind", StateEpochPolicy::kind(&()))]
    {
        let found = value.get(field).and_then(Value::as_str).unwrap_or_default();
        if found != expected {
            return Err(ManifestError::Kind { field, found: found.to_owned(), expected: expected.into_owned() });
        }
    }
    let known = ["apiVersion", "kind", "metadata", "spec", "status"];
    if let Some(field) =
        value.as_object().into_iter().flatten().map(|(field, _)| field).find(|field| !known.contains(&field.as_str()))
    {
        return Err(ManifestError::UnknownField(field.clone()));
    }
    let crd = crd();
    let schema = crd.spec.versions.first().and_then(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref());
    let schema = schema.and_then(|schema| schema.properties.as_ref()?.get("spec"));
    if let (Some(schema), Some(spec)) = (schema, value.get("spec"))
        && let Some(field) = unknown_field("spec", schema, spec)
    {
        return Err(ManifestError::UnknownField(field));
    }
    let policy: StateEpochPolicy = serde_json::from_value(value)?;
    validate::check(&policy.spec)?;
    Ok(policy)
}

/// The path of the first field that the schema does not know.
fn unknown_field(path: &str, schema: &JSONSchemaProps, value: &Value) -> Option<String> {
    match value {
        // A map from any key has no properties of its own.
        Value::Object(_) if schema.additional_properties.is_some() => None,
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            let path = format!("{path}.{name}");
            match schema.properties.as_ref().and_then(|properties| properties.get(name)) {
                Some(schema) => unknown_field(&path, schema, value),
                None => Some(path),
            }
        }),
        Value::Array(values) => {
            let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items else { return None };
            values
                .iter()
                .enumerate()
                .find_map(|(index, value)| unknown_field(&format!("{path}[{index}]"), items, value))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = include_str!("../../examples/policies/minimal.yaml");
    const FULL: &str = include_str!("../../examples/policies/full.yaml");

    #[test]
    fn the_example_policies_are_read() {
        let minimal = parse_manifest(MINIMAL).unwrap();
        assert_eq!((minimal.spec.store.url.as_str(), minimal.spec.vnodes), ("file:///var/lib/epochwarden/minimal", 4));
        let full = parse_manifest(FULL).unwrap();
        assert_eq!(full.spec.retention.keep_last, Some(3));
        assert_eq!(full.spec.store.options["aws_region"], "us-east-1");
        assert_eq!(full.spec.retention.pinned[0].epoch, "1");
    }

    #[test]
    fn a_field_that_there_is_not_is_refused_by_its_path() {
        for (from, to, field) in [
            ("  vnodes: 16", "  vnodes: 16\n  vnode: 16", "spec.vnode"),
            ("  retention:", "  store2:\n    url: x\n  retention:", "spec.store2"),
            ("    keepLast: 3", "    keepFirst: 3", "spec.retention.keepFirst"),
            ("        for: 1d", "        for: 1d\n        until: 1d", "spec.retention.keepEvery[0].until"),
            ("        note:", "        why:", "spec.retention.pinned[0].why"),
            ("    minAge:", "    holdBelow: {epochs: 1}\n    minAge:", "spec.prune.holdBelow"),
            ("spec:", "data: {}\nspec:", "data"),
        ] {
            assert!(FULL.contains(from), "{from}");
            let error = parse_manifest(&FULL.replacen(from, to, 1)).unwrap_err();
            assert!(matches!(&error, ManifestError::UnknownField(found) if found == field), "{field}: {error}");
        }
    }

    #[test]
    fn what_is_no_policy_is_refused_with_what_to_write() {
        for (text, words) in [
            ("", "apiVersion is \"\": write epochwarden.io/v1alpha1"),
            ("apiVersion: v1\nkind: Secret\n", "apiVersion is \"v1\": write epochwarden.io/v1alpha1"),
            ("apiVersion: epochwarden.io/v1alpha1\nkind: Policy\n", "kind is \"Policy\": write StateEpochPolicy"),
            ("- a\n- b\n", "write epochwarden.io/v1alpha1"),
            ("a: [", "not a StateEpochPolicy"),
        ] {
            let message = parse_manifest(text).unwrap_err().to_string();
            assert!(message.contains(words), "{text:?}: {message}");
        }
        for (from, to, words) in [
            ("vnodes: 4", "vnodes: four", "four"),
            ("vnodes: 4", "vnodes: 0", "spec.vnodes: 0 is out of range"),
            ("  vnodes: 4", "", "vnodes"),
            ("  vnodes: 4", "  vnodes: 4\n  numbering: Hexadecimal", "Hexadecimal"),
            (
                "  vnodes: 4",
                "  vnodes: 4\n  retention: {pinned: [{epoch: v7/12}]}",
                "spec.retention.pinned[0].epoch: \"v7/12\" is not an epoch: this is how Versioned numbering writes one",
            ),
        ] {
            let message = parse_manifest(&MINIMAL.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(message.contains(words), "{to:?}: {message}");
        }
    }

    #[test]
    fn a_pin_is_read_as_the_numbering_writes_it() {
        let text = MINIMAL.replacen(
            "  vnodes: 4",
            "  vnodes: 4\n  numbering: Versioned\n  retention: {pinned: [{epoch: v7/12}, {epoch: \"4711\"}]}",
            1,
        );
        let policy = parse_manifest(&text).unwrap();
        let pinned = validate::rules(&policy.spec).unwrap().retention.pinned;
        let numbers: Vec<_> = pinned.into_iter().map(epochwarden_core::Epoch::get).collect();
        assert_eq!(numbers, [4711, 7_696_581_394_444]);
    }

    #[test]
    fn two_documents_are_not_one_policy() {
        assert!(parse_manifest(&format!("{MINIMAL}---\n{MINIMAL}")).is_err());
    }
}
