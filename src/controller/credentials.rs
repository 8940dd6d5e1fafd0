//! A store's credentials: what of a Secret becomes an option of the client, and who may use the operator's own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use epochwarden_store::AllowedHost;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use url::Url;

use super::context::Context;
use super::stores::StoreProblem;
use crate::api::condition::StoreReady;
use crate::api::spec::{CaRef, SECRET_KEYS, StoreSpec};

/// How a certificate in PEM form begins.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// What a policy's Secrets give, and which state of them it is from. Has no `Debug`: it holds credentials.
pub(super) struct Secrets {
    /// The credentials; `None` where the policy names none.
    pub(super) options: Option<Vec<(String, String)>>,
    /// The certificates of an authority of the store's own, in PEM form.
    pub(super) ca: Vec<String>,
    /// Uids and resourceVersions: the same ones have the same content.
    pub(super) identity: String,
}

/// Reads the Secrets that a policy's store names. One GET for each; nothing of their values is in an error.
pub(super) async fn read(context: &Context, namespace: &str, store: &StoreSpec) -> Result<Secrets, StoreProblem> {
    let mut secrets = Secrets { options: None, ca: Vec::new(), identity: String::new() };
    if let Some(credentials) = &store.credentials {
        let name = &credentials.secret_ref.name;
        let (identity, data) = get(context, namespace, name, "spec.store.credentials.secretRef").await?;
        let options = options(data).map_err(|problem| invalid(namespace, name, &problem))?;
        secrets.options = Some(options);
        secrets.identity = identity;
    }
    if let Some(ca) = &store.ca {
        let CaRef { name, key } = &ca.secret_ref;
        let (identity, mut data) = get(context, namespace, name, "spec.store.ca.secretRef").await?;
        let Some(ByteString(value)) = data.remove(key) else {
            let message = format!(
                "the Secret {namespace}/{name} has no key {key:?} for the certificate authority: add it, or correct \
                 spec.store.ca.secretRef.key"
            );
            return Err(StoreProblem { reason: StoreReady::SecretNotFound, message, lasting: true });
        };
        secrets.ca =
            vec![certificates(value).map_err(|problem| invalid(namespace, name, &format!("{key:?} {problem}")))?];
        secrets.identity = format!("{} {identity} {key}", secrets.identity);
    }
    Ok(secrets)
}

/// One Secret: which state of it, and its entries.
async fn get(
    context: &Context,
    namespace: &str,
    name: &str,
    field: &str,
) -> Result<(String, BTreeMap<String, ByteString>), StoreProblem> {
    let api = Api::<Secret>::namespaced(context.client.clone(), namespace);
    match context.secret_lane.answer(api.get_opt(name)).await {
        Ok(Some(secret)) => {
            let identity =
                format!("{}/{}", secret.uid().unwrap_or_default(), secret.resource_version().unwrap_or_default());
            Ok((identity, secret.data.unwrap_or_default()))
        }
        Ok(None) => {
            let message = format!("there is no Secret {namespace}/{name}: create it, or correct {field}");
            Err(StoreProblem { reason: StoreReady::SecretNotFound, message, lasting: true })
        }
        Err(error) => {
            // A refusal is somebody's will; any other failure says nothing of the Secret that was read before.
            let lasting = matches!(error.code(), Some(401 | 403));
            let message = format!("the Secret {namespace}/{name} could not be read: {error}; trying again");
            Err(StoreProblem { reason: StoreReady::SecretNotFound, message, lasting })
        }
    }
}

fn invalid(namespace: &str, name: &str, problem: &str) -> StoreProblem {
    let message = format!("the Secret {namespace}/{name}: {problem}");
    StoreProblem { reason: StoreReady::InvalidConfiguration, message, lasting: true }
}

/// Text with at least one certificate in it; what each says is read when the clients are made.
fn certificates(value: Vec<u8>) -> Result<String, &'static str> {
    let text = String::from_utf8(value).map_err(|_| "is not UTF-8: write the certificate in PEM form")?;
    if text.contains(CERTIFICATE) {
        Ok(text)
    } else {
        Err("holds no certificate in PEM form: write what begins with -----BEGIN CERTIFICATE-----")
    }
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

/// Refuses options that would lead the operator's own credentials to where a tenant says. The URL was allowed, and it does not say which
/// server answers for it: an endpoint has to be one that the cluster's operator names, too, and an account is for the URL to say.
pub(super) fn check_ambient(options: &[(String, String)], allowed: &[AllowedHost]) -> Result<(), StoreProblem> {
    let refuse = |message: String| StoreProblem { reason: StoreReady::CredentialsNotAllowed, message, lasting: true };
    for (key, value) in options {
        match key.to_ascii_lowercase().as_str() {
            "aws_endpoint" | "google_base_url" | "azure_storage_endpoint" => {
                let host = Url::parse(value).ok().and_then(|url| url.host_str()?.parse::<AllowedHost>().ok());
                if !host.is_some_and(|host| allowed.contains(&host)) {
                    return Err(refuse(format!(
                        "the option {key} would lead the operator's own credentials to another host: add \
                         spec.store.credentials, remove the option, or name the host where the operator is started, with \
                         --allow-endpoint"
                    )));
                }
            }
            "azure_storage_account_name" => {
                return Err(refuse(format!(
                    "the option {key} would lead the operator's own credentials to another account: add \
                     spec.store.credentials, or remove the option and write abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX"
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Refuses a folder outside of the roots that the cluster's operator allowed. Symbolic links count as where they lead, which is what this
/// gives.
pub(super) fn check_file_root(url: &str, roots: &[PathBuf]) -> Result<PathBuf, StoreProblem> {
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
        Ok(resolved)
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

    /// A service account's key as Google hands it out.
    fn service_account() -> String {
        let made = std::process::Command::new("openssl").args(["genrsa", "2048"]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        serde_json::json!({
            "type": "service_account",
            "private_key": String::from_utf8(made.stdout).unwrap(),
            "private_key_id": "k1",
            "client_email": "warden@example.iam.gserviceaccount.com",
        })
        .to_string()
    }

    #[test]
    fn credentials_of_each_kind_open_a_root_as_people_write_them_into_a_secret() {
        type Entries<'a> = Vec<(&'a str, &'a str)>;
        const ACCOUNT: (&str, &str) = ("azure_storage_account_name", "acct");
        let account = service_account();
        // 32 bytes.
        let base64 = "a2V5LW9mLXRoaXJ0eS10d28tYnl0ZXMtaW4tYmFzZTY0ISE=";
        let keys = [("AWS_ACCESS_KEY_ID", "AKID\n"), ("AWS_SECRET_ACCESS_KEY", "wJalr/+=")];
        let mut session = keys.to_vec();
        session.push(("aws_session_token", "IQoJ\r\n"));
        let mut customer = keys.to_vec();
        customer.push(("aws_sse_customer_key_base64", base64));
        let application = vec![
            ("AZURE_STORAGE_CLIENT_ID", "id"),
            ("AZURE_STORAGE_CLIENT_SECRET", "secret"),
            ("azure_storage_tenant_id", "tenant"),
        ];
        let kinds: [(&str, Entries<'_>, Entries<'_>); 7] = [
            ("s3://state/orders", vec![], keys.to_vec()),
            ("s3://state/orders", vec![], session),
            ("s3://state/orders", vec![("aws_server_side_encryption", "sse-c")], customer),
            ("gs://state/orders", vec![], vec![("google_service_account_key", &account)]),
            ("az://state/orders", vec![ACCOUNT], vec![("azure_storage_account_key", base64)]),
            ("az://state/orders", vec![ACCOUNT], vec![("azure_storage_sas_token", "sv=2024&sig=abc%3D\n")]),
            ("abfs://state@acct.dfs.core.windows.net/orders", vec![], application),
        ];
        let mut untried: std::collections::BTreeSet<&str> = SECRET_KEYS.into();
        for (url, given, secret) in kinds {
            let parsed = options(data(&secret)).unwrap();
            untried.retain(|key| !parsed.iter().any(|(known, _)| known == key));
            assert!(parsed.iter().all(|(_, value)| !value.ends_with(['\r', '\n'])));
            let given = given.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
            let opened =
                epochwarden_store::Root::open(url, given.chain(parsed), &epochwarden_store::RootSettings::default());
            assert_eq!(opened.unwrap().url(), url);
        }
        assert_eq!(
            untried,
            std::collections::BTreeSet::new(),
            "keys that a Secret may have and that nothing was opened with"
        );
    }

    #[test]
    fn a_certificate_is_text_in_pem_form() {
        let pem = format!("# our own\n{CERTIFICATE}\nMIIB\n-----END CERTIFICATE-----\n");
        assert_eq!(certificates(pem.clone().into_bytes()), Ok(pem));
        for (value, problem) in [
            (vec![0x30, 0x82, 0xff], "UTF-8"),
            (b"MIIB".to_vec(), "PEM"),
            (Vec::new(), "PEM"),
            (b"-----BEGIN PRIVATE KEY-----\n".to_vec(), "PEM"),
        ] {
            let error = certificates(value).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
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
    fn no_option_leads_the_operators_own_credentials_to_a_host_or_an_account_of_a_tenants_choice() {
        let allowed: [AllowedHost; 2] = ["minio.storage".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        for (key, value, refused) in [
            ("aws_region", "eu-west-1", false),
            ("aws_endpoint", "https://minio.storage:9000", false),
            ("aws_endpoint", "https://MinIO.storage.", false),
            ("aws_endpoint", "http://127.0.0.1:9000", false),
            ("aws_endpoint", "http://0x7f.1:9000", false),
            ("aws_endpoint", "https://tenant.example", true),
            ("aws_endpoint", "https://minio.storage.tenant.example", true),
            ("AWS_Endpoint", "https://tenant.example", true),
            ("aws_endpoint", "https://minio.storage@tenant.example", true),
            ("aws_endpoint", "no URL", true),
            ("google_base_url", "https://tenant.example", true),
            ("azure_storage_endpoint", "https://tenant.example", true),
            ("azure_storage_account_name", "anothers", true),
        ] {
            let found = check_ambient(&[(key.to_owned(), value.to_owned())], &allowed);
            assert_eq!(found.is_err(), refused, "{key} {value}");
            if let Err(problem) = found {
                assert_eq!(problem.reason, StoreReady::CredentialsNotAllowed);
                assert!(problem.message.contains(key), "{}", problem.message);
            }
        }
        assert!(check_ambient(&[("aws_endpoint".to_owned(), "https://minio.storage".to_owned())], &[]).is_err());
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
        let check = |path: &std::path::Path, roots: &[PathBuf]| {
            check_file_root(Url::from_file_path(path).unwrap().as_str(), roots).map_err(|problem| problem.message)
        };
        assert_eq!(check(&inside, &roots), Ok(inside.canonicalize().unwrap()));
        assert!(check(&inside, &[]).unwrap_err().contains("--allow-file-root"));
        assert!(check(other.path(), &roots).unwrap_err().contains("outside"));
        assert!(check(&link, &roots).unwrap_err().contains("outside"));
        assert!(check(&inside.join("absent"), &roots).unwrap_err().contains("cannot be opened"));
    }
}
