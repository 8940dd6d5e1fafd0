//! The resource as a `CustomResourceDefinition`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
    JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use serde_json::Value;

use super::spec::StateEpochPolicy;

/// The formats of numbers that Kubernetes knows. It warns about every other one, at every apply.
const NUMBER_FORMATS: [&str; 4] = ["int32", "int64", "float", "double"];

/// A column of `kubectl get`.
struct Column {
    name: &'static str,
    type_: &'static str,
    json_path: &'static str,
    description: &'static str,
    /// Only shown with `--output=wide`.
    wide: bool,
}

impl Column {
    const fn new(name: &'static str, type_: &'static str, json_path: &'static str, description: &'static str) -> Self {
        Self { name, type_, json_path, description, wide: false }
    }

    const fn wide(self) -> Self {
        Self { wide: true, ..self }
    }

    fn definition(&self) -> CustomResourceColumnDefinition {
        CustomResourceColumnDefinition {
            name: self.name.to_owned(),
            type_: self.type_.to_owned(),
            json_path: self.json_path.to_owned(),
            description: Some(self.description.to_owned()),
            priority: self.wide.then_some(1),
            format: None,
        }
    }
}

/// Times that lie ahead are strings: a date is shown as the time since.
const COLUMNS: [Column; 11] = [
    Column::new(
        "STORE",
        "string",
        ".status.conditions[?(@.type==\"StoreReady\")].reason",
        "Whether the store can be used, or why not.",
    ),
    Column::new("FENCE", "integer", ".status.fence.version", "The version at which the fence stands."),
    Column::new("LEADER", "string", ".status.fence.holder", "Who leads in that version."),
    Column::new("LATEST", "string", ".status.epochs.latestCommitted", "The newest sealed epoch."),
    Column::new("SEALED", "string", ".status.epochs.sealed", "How many sealed epochs there are."),
    Column::new("AUDIT", "string", ".status.audit.verdict", "The verdict of the last audit."),
    Column::new(
        "READY",
        "string",
        ".status.conditions[?(@.type==\"Ready\")].status",
        "Whether the policy does its work.",
    ),
    Column::new("AGE", "date", ".metadata.creationTimestamp", "When the policy was created."),
    Column::new("NEXT-PRUNE", "string", ".status.prune.nextRunAt", "When the next prune is due.").wide(),
    Column::new("NEXT-AUDIT", "string", ".status.audit.nextRunAt", "When the next audit is due.").wide(),
    Column::new("URL", "string", ".spec.store.url", "The store root.").wide(),
];

/// The `CustomResourceDefinition`, ready to be applied.
///
/// Take this one: what `StateEpochPolicy`'s derive gives is the raw material.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let mut crd = StateEpochPolicy::crd();
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|validation| validation.open_api_v3_schema.as_mut()) {
            schema.title = None;
            refine(schema);
        }
        version.additional_printer_columns = Some(COLUMNS.iter().map(Column::definition).collect());
    }
    crd
}

/// Why the resource could not be written as YAML.
#[derive(Debug, thiserror::Error)]
pub enum CrdError {
    /// It is no JSON.
    #[error("cannot write the CustomResourceDefinition as JSON")]
    Json(#[from] serde_json::Error),
    /// It is no YAML.
    #[error("cannot write the CustomResourceDefinition as YAML")]
    Yaml(#[from] serde_saphyr::ser_error::Error),
}

/// The same as YAML, one document. Every call and every build gives the same text.
pub fn crd_yaml() -> Result<String, CrdError> {
    let mut value = serde_json::to_value(crd())?;
    // The order of keys would otherwise follow a feature of serde_json that any other crate may turn on.
    value.sort_all_objects();
    whole_numbers(&mut value);
    Ok(serde_saphyr::to_string(&value)?)
}

/// Writes bounds as `1` where the schema's type, which knows only fractions, has `1.0`.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let text = number.to_string();
            if let Some(whole) = text.strip_suffix(".0").and_then(|digits| digits.parse::<i64>().ok()) {
                *number = whole.into();
            }
        }
        Value::Array(values) => values.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// Makes a schema what Kubernetes expects, throughout.
fn refine(schema: &mut JSONSchemaProps) {
    // An absent field is how nothing is said. A null beside it would be a second way, and one that CEL rules trip over.
    schema.nullable = None;
    let number = matches!(schema.type_.as_deref(), Some("integer" | "number"));
    if number && schema.format.as_deref().is_some_and(|format| !NUMBER_FORMATS.contains(&format)) {
        schema.format = None;
    }
    if let Some(description) = &mut schema.description {
        *description = plain(description);
    }
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(refine);
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => refine(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(refine),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        refine(values);
    }
}

/// A comment as plain text: without the marks of code, and each paragraph on one line, which the reader's terminal wraps.
fn plain(description: &str) -> String {
    let paragraphs =
        description.split("\n\n").map(|paragraph| paragraph.lines().map(str::trim).collect::<Vec<_>>().join(" "));
    paragraphs.collect::<Vec<_>>().join("\n\n").replace('`', "")
}

#[cfg(test)]
mod tests;
