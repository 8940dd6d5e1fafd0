//! A store's credentials: what of a Secret becomes an option of the client, and who may use the operator's own.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt};
use url::Url;

use super::answer::answer;
use super::stores::StoreProblem;
use crate::api::condition::StoreReady;
use crate::api::spec::SECRET_KEYS;

/// The options that a Secret gives, and which state of it they are from.
pub(super) struct Credentials {
    pub(super) options: Vec<(String, String)>,
    /// Uid and resourceVersion: the same pair has the same content.
    pub(super) identity: String,
}

/// Reads a policy's Secret. One GET; nothing of its values is in an error.
pub(super) async fn read(client: &Client, namespace: &str, name: &str) -> Result<Credentials, StoreProblem> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let secret = match answer(api.get_opt(name)).await {
        Ok(Some(secret)) => secret,
        Ok(None) => {
            let message = format!(
                "there is no Secret {namespace}/{name}: create it, or correct spec.store.credentials.secretRef"
            );
            return Err(StoreProblem { reason: StoreReady::SecretNotFound, message, lasting: true });
        }
        Err(error) => {
            // A refusal is somebody's will; any other failure says nothing of the Secret that was read before.
            let lasting = matches!(error.code(), Some(401 | 403));
            let message = format!("the Secret {namespace}/{name} could not be read: {error}; trying again");
            return Err(StoreProblem { reason: StoreReady::SecretNotFound, message, lasting });
        }
    };
    let identity = format!("{}/{}", secret.uid().unwrap_or_default(), secret.resource_version().unwrap_or_default());
    let options = options(secret.data.unwrap_or_default()).map_err(|problem| StoreProblem {
        reason: StoreReady::InvalidConfiguration,
        message: format!("the Secret {namespace}/{name}: {problem}"),
        lasting: true,
    })?;
    Ok(Credentials { options, identity })
}

fn options(data: BTreeMap<String, ByteString>) -> Result<Vec<(String, String)>, String> {
    let mut options: Vec<(String, String)> = Vec::with_capacity(data.len());
    for (key, ByteString(value)) in data {
        let lower = key.to_ascii_lowercase();
        if !SECRET_KEYS.contains(&lower.as_str()) {
            return Err(format!(
                "the key {key:?} is not allowed; remove it, the allowed keys are {}",
                SECRET_KEYS.join(", ")
            ));
        }
        if options.iter().any(|(known, _)| *known == lower) {
            return Err(format!("the key {lower:?} is there twice, in different case; remove one"));
        }
        let value =
            String::from_utf8(value).map_err(|_| format!("the value of {key:?} is not UTF-8; write it again"))?;
        // A newline at the end is what `echo` and editors leave behind; no credential ends in one.
        options.push((lower, value.trim_end_matches(['\r', '\n']).to_owned()));
    }
    Ok(options)
}

/// Whether `url` lies under one of the prefixes that the cluster's operator allowed, at a boundary of a path segment.
pub(super) fn is_under(url: &str, prefixes: &[String]) -> bool {
    prefixes.iter().any(|prefix| {
        let prefix = prefix.trim_end_matches('/');
        url.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Refuses a folder outside of the roots that the cluster's operator allowed. Symbolic links count as where they lead.
pub(super) fn check_file_root(url: &str, roots: &[std::path::PathBuf]) -> Result<(), StoreProblem> {
    let refuse = |message: String| StoreProblem { reason: StoreReady::InvalidConfiguration, message, lasting: true };
    let path = Url::parse(url)
        .ok()
        .and_then(|url| url.to_file_path().ok())
        .ok_or_else(|| refuse(format!("{url} is not the URL of a folder: write file:///absolute/path")))?;
    if roots.is_empty() {
        return Err(refuse(format!(
            "{url}: this operator allows no folders; start it with --allow-file-root, or use a bucket"
        )));
    }
    let resolved = path.canonicalize().map_err(|error| {
        refuse(format!("{url}: the folder cannot be opened ({error}); create it where the operator runs"))
    })?;
    let allowed = roots.iter().any(|root| root.canonicalize().is_ok_and(|root| resolved.starts_with(root)));
    if allowed {
        Ok(())
    } else {
        Err(refuse(format!("{url} lies outside of the folders that this operator allows (--allow-file-root)")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(entries: &[(&str, &str)]) -> BTreeMap<String, ByteString> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect()
    }

    #[test]
    fn keys_are_taken_in_any_case_and_values_without_the_newline_of_an_editor() {
        let options = options(data(&[("AWS_ACCESS_KEY_ID", "id\n"), ("aws_secret_access_key", "a b")])).unwrap();
        assert_eq!(
            options,
            [("aws_access_key_id".to_owned(), "id".to_owned()), ("aws_secret_access_key".to_owned(), "a b".to_owned())]
        );
    }

    #[test]
    fn a_key_outside_the_list_is_refused_by_name_and_without_its_value() {
        for key in
            ["aws_endpoint", "aws_bucket", "google_application_credentials", "aws_web_identity_token_file", "password"]
        {
            let error = options(data(&[(key, "hush")])).unwrap_err();
            assert!(error.contains(key) && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn the_same_key_in_two_cases_is_refused() {
        let error = options(data(&[("AWS_SESSION_TOKEN", "a"), ("aws_session_token", "b")])).unwrap_err();
        assert!(error.contains("twice"), "{error}");
    }

    #[test]
    fn a_prefix_allows_what_lies_below_it_and_not_what_only_begins_alike() {
        let prefixes = ["s3://state".to_owned(), "gs://a/b/".to_owned()];
        for (url, allowed) in [
            ("s3://state", true),
            ("s3://state/orders", true),
            ("s3://state-of-others", false),
            ("s3://stat", false),
            ("gs://a/b", true),
            ("gs://a/b/c", true),
            ("gs://a/bc", false),
            ("gs://a", false),
        ] {
            assert_eq!(is_under(url, &prefixes), allowed, "{url}");
        }
        assert!(!is_under("s3://state", &[]));
    }

    #[test]
    fn folders_are_refused_outside_of_the_allowed_roots_also_by_a_link() {
        let allowed = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let inside = allowed.path().join("orders");
        std::fs::create_dir(&inside).unwrap();
        let link = allowed.path().join("link");
        std::os::unix::fs::symlink(other.path(), &link).unwrap();
        let roots = [allowed.path().to_owned()];
        let check = |path: &std::path::Path, roots: &[std::path::PathBuf]| {
            check_file_root(Url::from_file_path(path).unwrap().as_str(), roots).map_err(|problem| problem.message)
        };
        assert_eq!(check(&inside, &roots), Ok(()));
        assert!(check(&inside, &[]).unwrap_err().contains("--allow-file-root"));
        assert!(check(other.path(), &roots).unwrap_err().contains("outside"));
        assert!(check(&link, &roots).unwrap_err().contains("outside"));
        assert!(check(&inside.join("absent"), &roots).unwrap_err().contains("cannot be opened"));
    }
}
