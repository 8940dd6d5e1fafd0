//! The options of a root: which there are, and what they say.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use super::Provider;
use crate::error::StoreError;

/// The options that may stand in the open, such as in a policy.
pub const OPTION_KEYS: [&str; 16] = [
    "aws_region",
    "aws_endpoint",
    "aws_allow_http",
    "aws_virtual_hosted_style_request",
    "aws_skip_signature",
    "aws_request_payer",
    "aws_server_side_encryption",
    "aws_sse_kms_key_id",
    "aws_sse_bucket_key_enabled",
    "google_base_url",
    "google_skip_signature",
    "azure_storage_account_name",
    "azure_storage_endpoint",
    "allow_http",
    "timeout",
    "connect_timeout",
];

/// The options that are credentials and belong into a Secret. Their names are taken in any case.
pub const SECRET_KEYS: [&str; 10] = [
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    "aws_sse_customer_key_base64",
    "google_service_account_key",
    "azure_storage_account_key",
    "azure_storage_sas_token",
    "azure_storage_client_id",
    "azure_storage_client_secret",
    "azure_storage_tenant_id",
];

/// The options of one root, each known to its provider. Has no `Debug`: it holds credentials.
pub(super) struct Options {
    values: BTreeMap<&'static str, String>,
}

impl Options {
    pub(super) fn read(
        provider: Provider,
        options: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, StoreError> {
        let allowed: Vec<&'static str> =
            OPTION_KEYS.into_iter().chain(SECRET_KEYS).filter(|key| provider.takes(key)).collect();
        let mut values = BTreeMap::new();
        for (key, value) in options {
            let known = allowed.iter().find(|known| known.eq_ignore_ascii_case(&key));
            let Some(known) = known.copied() else {
                return Err(StoreError::UnknownOption { key, provider: provider.as_str(), allowed });
            };
            check_characters(known, &value)?;
            if values.insert(known, value).is_some() {
                return Err(invalid(known, "it is given twice: remove one"));
            }
        }
        Ok(Self { values })
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// All that are handed to the provider's own builder, in its own names.
    pub(super) fn for_builder(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let ours = |key: &str| matches!(key, "timeout" | "connect_timeout");
        self.values.iter().filter(move |(key, _)| !ours(key)).map(|(key, value)| (*key, value.as_str()))
    }

    /// The values that must never be shown, and the one part of a SAS token that gives access by itself.
    pub(super) fn secrets(&self) -> Vec<String> {
        let mut secrets: Vec<String> =
            SECRET_KEYS.into_iter().filter_map(|key| self.values.get(key).cloned()).collect();
        let token = self.get("azure_storage_sas_token").unwrap_or_default();
        for pair in token.trim_start_matches('?').split('&') {
            if let Some(signature) = pair.strip_prefix("sig=") {
                secrets.push(signature.to_owned());
                secrets.extend(url::form_urlencoded::parse(pair.as_bytes()).map(|(_, decoded)| decoded.into_owned()));
            }
        }
        secrets
    }

    pub(super) fn flag(&self, key: &'static str) -> Result<bool, StoreError> {
        match self.get(key) {
            None => Ok(false),
            Some(value) => bool::from_str(value).map_err(|_| invalid(key, "write true or false")),
        }
    }

    pub(super) fn duration(&self, key: &'static str) -> Result<Option<Duration>, StoreError> {
        let Some(text) = self.get(key) else {
            return Ok(None);
        };
        let duration =
            epochwarden_core::duration::parse_duration(text).map_err(|error| invalid(key, &error.to_string()))?;
        if duration.is_zero() {
            return Err(invalid(key, "it must be longer than 0s"));
        }
        Ok(Some(duration))
    }

    /// Whether plain HTTP is allowed.
    pub(super) fn allow_http(&self) -> Result<bool, StoreError> {
        Ok(self.flag("allow_http")? | self.flag("aws_allow_http")?)
    }

    /// Checks an endpoint's form before any request is made.
    pub(super) fn check_endpoint(&self, key: &'static str) -> Result<(), StoreError> {
        let Some(text) = self.get(key) else {
            return Ok(());
        };
        let url = url::Url::parse(text).map_err(|error| invalid(key, &format!("{error}; write https://host")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(invalid(key, "write https://host"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(invalid(key, "remove user, password, query and fragment; write https://host"));
        }
        if url.scheme() == "http" && !self.allow_http()? {
            return Err(invalid(key, "it is plain http://: write https://, or set allow_http to \"true\""));
        }
        Ok(())
    }

    /// Either all of these or none.
    pub(super) fn all_or_none(&self, keys: &[&'static str]) -> Result<bool, StoreError> {
        let given = keys.iter().filter(|key| self.has(key)).count();
        if given == 0 || given == keys.len() {
            return Ok(given > 0);
        }
        let missing = keys.iter().find(|key| !self.has(key)).copied().unwrap_or_default();
        Err(invalid(missing, &format!("it is missing: give all of {}", keys.join(", "))))
    }
}

/// Values become parts of headers and host names, where the clients take printable ASCII for granted.
fn check_characters(key: &'static str, value: &str) -> Result<(), StoreError> {
    let fits = match key {
        "google_service_account_key" => true,
        "aws_region" | "azure_storage_account_name" => {
            value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') && !value.is_empty()
        }
        _ => value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && !value.is_empty(),
    };
    if fits {
        return Ok(());
    }
    Err(invalid(
        key,
        "it is empty or holds a character that cannot be there; a line break at its end is a frequent cause",
    ))
}

/// An option whose value makes no sense. The value is not repeated: it may be a secret.
pub(super) fn invalid(key: &str, reason: &str) -> StoreError {
    StoreError::InvalidOption { key: key.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(provider: Provider, options: &[(&str, &str)]) -> Result<Options, StoreError> {
        Options::read(provider, options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn an_option_that_the_store_does_not_have_is_refused_by_name() {
        for (provider, key) in [
            (Provider::S3, "aws_profile"),
            (Provider::S3, "aws_bucket"),
            (Provider::S3, "aws_metadata_endpoint"),
            (Provider::S3, "aws_web_identity_token_file"),
            (Provider::S3, "proxy_url"),
            (Provider::S3, "google_base_url"),
            (Provider::Gcs, "google_service_account"),
            (Provider::Gcs, "aws_region"),
            (Provider::Azure, "azure_federated_token_file"),
            (Provider::Azure, "azure_storage_authority_host"),
            (Provider::Azure, "azure_msi_endpoint"),
            (Provider::Azure, "azure_use_azure_cli"),
            (Provider::Azure, "azure_container_name"),
            (Provider::Local, "timeout"),
        ] {
            match read(provider, &[(key, "x")]).map(|_| ()) {
                Err(StoreError::UnknownOption { key: named, .. }) => assert_eq!(named, key),
                other => panic!("{key}: {other:?}"),
            }
        }
    }

    #[test]
    fn every_documented_option_belongs_to_a_store_and_is_known_to_its_builder() {
        for key in OPTION_KEYS.into_iter().chain(SECRET_KEYS) {
            let takers: Vec<_> = Provider::ALL.into_iter().filter(|provider| provider.takes(key)).collect();
            assert!(!takers.is_empty(), "{key}");
            for provider in takers {
                let known = match provider {
                    Provider::S3 => key.parse::<object_store::aws::AmazonS3ConfigKey>().is_ok(),
                    Provider::Gcs => key.parse::<object_store::gcp::GoogleConfigKey>().is_ok(),
                    Provider::Azure => key.parse::<object_store::azure::AzureConfigKey>().is_ok(),
                    Provider::Local | Provider::Other => false,
                };
                assert!(known, "{key} for {provider:?}");
            }
        }
    }

    #[test]
    fn names_are_taken_in_any_case_and_never_twice() {
        let options = read(Provider::S3, &[("AWS_ACCESS_KEY_ID", "a"), ("Aws_Region", "r")]).unwrap();
        assert_eq!((options.get("aws_access_key_id"), options.get("aws_region")), (Some("a"), Some("r")));
        let error = read(Provider::S3, &[("aws_region", "a"), ("AWS_REGION", "b")]).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("twice"), "{error}");
    }

    #[test]
    fn a_value_that_makes_no_sense_is_refused_without_repeating_it() {
        type Check = fn(&Options) -> Result<(), StoreError>;
        let cases: [(&str, &str, Check); 7] = [
            ("timeout", "hunter2", |options| options.duration("timeout").map(drop)),
            ("timeout", "0s", |options| options.duration("timeout").map(drop)),
            ("allow_http", "hunter2", |options| options.allow_http().map(drop)),
            ("aws_endpoint", "localhost:9000", |options| options.check_endpoint("aws_endpoint")),
            ("aws_endpoint", "http://minio:9000", |options| options.check_endpoint("aws_endpoint")),
            ("aws_endpoint", "https://me:hunter2@minio", |options| options.check_endpoint("aws_endpoint")),
            ("aws_access_key_id", "hunter2", |options| {
                options.all_or_none(&["aws_access_key_id", "aws_secret_access_key"]).map(drop)
            }),
        ];
        for (key, value, check) in cases {
            let error = check(&read(Provider::S3, &[(key, value)]).unwrap()).unwrap_err();
            let StoreError::InvalidOption { key: named, .. } = &error else { panic!("{key}: {error:?}") };
            assert!(named == key || named == "aws_secret_access_key", "{named}");
            assert!(key == "timeout" || !error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_character_that_no_header_or_host_can_hold_is_refused() {
        for (provider, key, value) in [
            (Provider::S3, "aws_session_token", "hunter2\n"),
            (Provider::S3, "aws_access_key_id", ""),
            (Provider::S3, "aws_secret_access_key", "hunter2\u{e9}"),
            (Provider::S3, "aws_region", "eu.example.com/#"),
            (Provider::Azure, "azure_storage_account_name", "example.com/#"),
        ] {
            let error = read(provider, &[(key, value)]).map(|_| ()).unwrap_err();
            assert!(matches!(&error, StoreError::InvalidOption { key: named, .. } if named == key), "{error:?}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        read(Provider::Gcs, &[("google_service_account_key", "{\n}\n")]).unwrap();
    }

    #[test]
    fn the_signature_of_a_sas_token_is_a_secret_in_both_of_its_forms() {
        let options = read(Provider::Azure, &[("azure_storage_sas_token", "?sv=2026&sig=ab%2Bcd&se=x")]).unwrap();
        assert_eq!(options.secrets(), ["?sv=2026&sig=ab%2Bcd&se=x", "ab%2Bcd", "ab+cd"]);
    }

    #[test]
    fn a_plain_endpoint_is_taken_where_it_is_allowed() {
        for allow in ["allow_http", "aws_allow_http"] {
            let options = read(Provider::S3, &[("aws_endpoint", "http://minio:9000"), (allow, "true")]).unwrap();
            options.check_endpoint("aws_endpoint").unwrap();
        }
    }
}
