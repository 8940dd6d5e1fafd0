//! Where the epochs are.

use std::collections::BTreeMap;

use epochwarden_core::duration::DURATION_PATTERN;
use epochwarden_store::OPTION_KEYS;
use kube::KubeSchema;
use kube::core::Rule;
use schemars::{Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::rule;

const URL: &str = "spec.store.url";
const OPTIONS: &str = "spec.store.options";

/// A bucket or a folder, and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = options_fit("aws_", "gs|az|abfs", "s3"),
    validation = options_fit("google_", "s3|az|abfs", "gs"),
    validation = options_fit("azure_", "s3|gs", "az and abfs"),
    validation = rule::rule(
        "!self.url.startsWith('file://') || !has(self.options) || self.options.size() == 0",
        OPTIONS,
        "a folder has no options: remove them",
    ),
    validation = rule::rule(
        "!self.url.startsWith('file://') || !has(self.credentials)",
        "spec.store.credentials",
        "a folder needs no credentials: remove them",
    ),
    validation = rule::rule(
        "!self.url.startsWith('file://') || !has(self.ca)",
        "spec.store.ca",
        "a folder has no certificate: remove it",
    )
)]
pub struct StoreSpec {
    /// The store root: `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`, `abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX`
    /// or `file:///ABSOLUTE/PATH`. Immutable.
    #[schemars(length(max = 1024))]
    #[x_kube(
        validation = rule::immutable(URL, "the policy's registers and history belong to this root"),
        validation = rule::rule(
            "self.matches('^(s3|gs|az|abfs|file)://')",
            URL,
            "write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX or \
             file:///ABSOLUTE/PATH",
        ),
        validation = rule::rule(
            "!self.matches('^(s3|gs|az|abfs)://') || self.matches('^[a-z0-9]+://[^/]')",
            URL,
            "name the bucket after ://, such as s3://BUCKET/PREFIX",
        ),
        validation = rule::rule(
            "!self.startsWith('file://') || self.matches('^file:///[^/]')",
            URL,
            "a folder has no host and is not the root folder: write file:///ABSOLUTE/PATH",
        ),
        validation = rule::rule(
            "!self.contains('?') && !self.contains('#')",
            URL,
            "remove the query and the fragment: settings go to spec.store.options, credentials to the Secret of spec.store.credentials",
        ),
        validation = rule::rule(
            "!self.matches('^(s3|gs|az|abfs)://[^/?#]*[@:]') || \
             self.matches('^abfs://[^/:@?#]+@[^/:@?#.]+[.](dfs|blob)[.]core[.]windows[.]net([/?#]|$)')",
            URL,
            "remove the user name, password or port: credentials go to the Secret of spec.store.credentials, an endpoint to \
             spec.store.options; only abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX has an @",
        ),
        validation = rule::rule(
            "!self.matches('^(az|abfs)://[^/?#@:]*[.][^/?#@:]*([/?#]|$)')",
            URL,
            "a container has no dot: write az://CONTAINER/PREFIX or abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX",
        ),
        validation = rule::rule(
            "!self.matches('/(epoch=[^/]*|_epochwarden)(/|$)')",
            URL,
            "write the folder above: epoch=… and _epochwarden lie below the store root",
        ),
        validation = rule::rule(
            "!self.matches('^([a-z0-9]+://|file:///)[^/].*//') && !self.matches('/[.][.]?(/|$)')",
            URL,
            "write no empty, . or .. segment: such keys cannot be addressed",
        ),
        validation = rule::rule(
            r"!self.matches(r'[\x00-\x1f\x7f\\%]') && !self.endsWith(' ')",
            URL,
            "write no control character, backslash or percent sign, and no space at the end: characters stand for themselves",
        )
    )]
    pub url: String,

    /// How to reach the store: `aws_region`, `aws_endpoint`, `aws_allow_http`, `aws_virtual_hosted_style_request`, `aws_skip_signature`,
    /// `aws_request_payer`, `aws_server_side_encryption`, `aws_sse_kms_key_id`, `aws_sse_bucket_key_enabled`, `google_base_url`,
    /// `google_skip_signature`, `azure_storage_account_name`, `azure_storage_endpoint`, `allow_http`, timeout, `connect_timeout`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "options")]
    #[x_kube(
        validation = known_options(),
        validation = each_option(
            &["aws_endpoint", "google_base_url", "azure_storage_endpoint"],
            "self[k].matches('^https?://[^/?#@]+(/[^?#@]*)?$')",
            "write an endpoint as http://HOST:PORT or https://HOST:PORT, without user name, query or fragment",
        ),
        validation = each_option(
            &["aws_endpoint", "google_base_url", "azure_storage_endpoint"],
            "!self[k].startsWith('http://') || ['allow_http', 'aws_allow_http'].exists(a, a in self && self[a] == 'true')",
            "write https:// for an endpoint, or allow what is not encrypted with allow_http: \"true\"",
        ),
        validation = each_option(
            &["aws_allow_http", "aws_virtual_hosted_style_request", "aws_skip_signature", "aws_request_payer",
              "aws_sse_bucket_key_enabled", "google_skip_signature", "allow_http"],
            "self[k] in ['true', 'false']",
            "write \"true\" or \"false\", in quotes, for what is on or off",
        ),
        validation = each_option(
            &["timeout", "connect_timeout"],
            format!("self[k].matches('{DURATION_PATTERN}') && self[k].matches('[1-9]')"),
            "write timeout and connect_timeout as durations longer than 0s, such as 10s or 1m",
        )
    )]
    pub options: BTreeMap<String, String>,

    /// Where the credentials come from. Without it the operator uses its own, where whoever runs it has allowed that for this URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialsSpec>,

    /// The certificate authority of an endpoint whose certificate no public one has signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaSpec>,
}

/// Where the credentials come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsSpec {
    /// A Secret in the policy's namespace. Its keys, in any case: `aws_access_key_id`, `aws_secret_access_key`, `aws_session_token`,
    /// `aws_sse_customer_key_base64`, `google_service_account_key`, `azure_storage_account_key`, `azure_storage_sas_token`,
    /// `azure_storage_client_id`, `azure_storage_client_secret`, `azure_storage_tenant_id`.
    pub secret_ref: SecretRef,
}

/// A Secret in the policy's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Its name.
    #[schemars(length(max = 253))]
    #[x_kube(validation = rule::object_name("spec.store.credentials.secretRef.name", "Secret"))]
    pub name: String,
}

/// The certificate authority of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaSpec {
    /// Where its certificate is.
    pub secret_ref: CaRef,
}

/// One key of a Secret in the policy's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaRef {
    /// The name of the Secret.
    #[schemars(length(max = 253))]
    #[x_kube(validation = rule::object_name("spec.store.ca.secretRef.name", "Secret"))]
    pub name: String,

    /// The key that holds one or more certificates in PEM form.
    #[serde(default = "ca_key")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rule::rule(
        "self.matches('^[-._a-zA-Z0-9]+$')",
        "spec.store.ca.secretRef.key",
        "write a key of the Secret, such as ca.crt",
    ))]
    pub key: String,
}

fn ca_key() -> String {
    "ca.crt".to_owned()
}

fn options(_: &mut SchemaGenerator) -> Schema {
    rule::bounded_map(32, 1024)
}

fn known_options() -> Rule {
    let list = OPTION_KEYS.map(|key| format!("'{key}'")).join(", ");
    let words = OPTION_KEYS.join(", ");
    rule::rule(format!("self.all(k, k in [{list}])"), OPTIONS, &format!("remove what is not one of {words}"))
}

/// Each of these options, where it is given, is as the expression says about `k`.
fn each_option(keys: &[&str], expression: impl std::fmt::Display, what_to_write: &str) -> Rule {
    let list = keys.iter().map(|key| format!("'{key}'")).collect::<Vec<_>>().join(", ");
    rule::rule(format!("[{list}].all(k, !(k in self) || ({expression}))"), OPTIONS, what_to_write)
}

/// Options of one provider beside a URL of another would be ignored. A URL of no known scheme has its own message.
fn options_fit(prefix: &str, others: &str, schemes: &str) -> Rule {
    rule::rule(
        format!(
            "!self.url.matches('^({others})://') || !has(self.options) || !self.options.exists(k, k.startsWith('{prefix}'))"
        ),
        OPTIONS,
        &format!("remove the {prefix}… options: they are for {schemes} URLs"),
    )
}
