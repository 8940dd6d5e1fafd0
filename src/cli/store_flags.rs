//! Which root a verb is about: named by its URL, or by the manifest of a policy.

use std::fmt;
use std::path::PathBuf;

use clap::Args;
use epochwarden_core::Numbering;
use epochwarden_store::{Root, RootSettings};

use super::exit::CliError;
use super::values;
use crate::api::{StateEpochPolicy, parse_manifest};

/// The longest manifest that is read, in bytes. The API server takes none that is longer.
const LONGEST_MANIFEST: u64 = 3 * 1024 * 1024;

/// The flags that name a root and say how to reach it.
#[derive(Args)]
#[command(next_help_heading = "Store")]
pub(super) struct StoreFlags {
    /// The store root: `s3://BUCKET/PREFIX`, `gs://…`, `az://…`, `abfs://…` or `file:///FOLDER`
    #[arg(long, value_name = "URL", required_unless_present = "policy")]
    store: Option<String>,

    /// The manifest of a `StateEpochPolicy`, instead of `--store` and of the flags that the policy has fields for. Its Secrets are not
    /// read: credentials come from the environment or from `--store-option`
    #[arg(long, value_name = "FILE", conflicts_with = "store")]
    policy: Option<PathBuf>,

    /// An option of the store or a credential, such as `aws_region=eu-west-1`; repeatable. The usual `AWS_*`, `GOOGLE_*` and `AZURE_*`
    /// environment variables count where no option says otherwise
    #[arg(long = "store-option", value_name = "KEY=VALUE", value_parser = values::key_value)]
    options: Vec<(String, String)>,

    /// How the pipeline numbers its epochs: `plain`, or `versioned`, which shows and takes them as v7/12
    #[arg(long, value_name = "NUMBERING", default_value = "plain", conflicts_with = "policy", value_parser = values::numbering)]
    numbering: Numbering,
}

/// What the flags name.
#[derive(Debug)]
pub(super) struct Source {
    /// The root.
    pub(super) root: Root,
    /// The policy, where a file was named.
    pub(super) policy: Option<StateEpochPolicy>,
}

impl StoreFlags {
    /// Reads the manifest, where there is one, and opens the root. Makes no request.
    pub(super) fn open(&self) -> Result<Source, CliError> {
        self.open_with(RootSettings::default())
    }

    /// The same, with clients that behave as `settings` say. The credentials of the environment count in any case.
    pub(super) fn open_with(&self, settings: RootSettings) -> Result<Source, CliError> {
        let policy = self.policy.as_ref().map(read).transpose()?;
        let (url, mut options) = match (&policy, &self.store) {
            (Some(policy), _) => {
                let store = &policy.spec.store;
                (store.url.clone(), store.options.clone().into_iter().collect())
            }
            (None, store) => (store.clone().unwrap_or_default(), Vec::new()),
        };
        // What is said here is nearer than what the file says.
        options.retain(|(key, _): &(String, String)| !self.options.iter().any(|(here, _)| here == key));
        options.extend(self.options.iter().cloned());
        let settings = RootSettings { ambient_credentials: true, ..settings };
        let numbering = policy.as_ref().map_or(self.numbering, |policy| policy.spec.numbering);
        Ok(Source { root: Root::open(&url, options, &settings)?.numbered(numbering), policy })
    }
}

fn read(file: &PathBuf) -> Result<StateEpochPolicy, CliError> {
    let unreadable = |source| CliError::Manifest { file: file.clone(), source };
    let length = std::fs::metadata(file).map_err(unreadable)?.len();
    if length > LONGEST_MANIFEST {
        let reason = format!("it has {length} bytes, more than any policy: name the manifest of one policy");
        return Err(CliError::Policy { file: file.clone(), reason });
    }
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    parse_manifest(&text).map_err(|error| CliError::Policy { file: file.clone(), reason: error.to_string() })
}

impl fmt::Debug for StoreFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The values may be secrets, and a wrong URL may hold a password.
        let keys: Vec<_> = self.options.iter().map(|(key, _)| key).collect();
        f.debug_struct("StoreFlags").field("policy", &self.policy).field("options", &keys).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use epochwarden_store::StoreError;

    use super::*;

    fn folder() -> String {
        format!("file://{}", std::env::temp_dir().display())
    }

    #[test]
    fn no_value_of_an_option_is_ever_shown() {
        let flags = StoreFlags {
            store: Some("s3://user:hunter2@state".to_owned()),
            policy: None,
            options: vec![("aws_secret_access_key".to_owned(), "hunter2".to_owned())],
            numbering: Numbering::Plain,
        };
        let shown = format!("{flags:?}");
        assert!(shown.contains("aws_secret_access_key") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn an_option_that_the_store_does_not_have_is_refused_by_name() {
        let options = vec![("aws_regoin".to_owned(), "x".to_owned())];
        let flags = StoreFlags { store: Some(folder()), policy: None, options, numbering: Numbering::Plain };
        let error = flags.open().unwrap_err();
        assert!(matches!(error, CliError::Store(StoreError::UnknownOption { key, .. }) if key == "aws_regoin"));
    }

    #[test]
    fn a_manifest_names_the_root_and_a_flag_is_nearer_than_its_options() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let manifest = "apiVersion: epochwarden.io/v1alpha1\nkind: StateEpochPolicy\nmetadata: {name: orders}\nspec:\n  vnodes: 4\n  \
                        store:\n    url: s3://state/orders\n    options: {aws_region: eu-west-1, aws_skip_signature: \"true\"}\n";
        std::fs::write(file.path(), manifest).unwrap();
        let region = ("aws_region".to_owned(), "nowhere".to_owned());
        let flags = StoreFlags {
            store: None,
            policy: Some(file.path().to_owned()),
            options: vec![region],
            numbering: Numbering::Plain,
        };
        let source = flags.open().unwrap();
        assert_eq!(source.root.url(), "s3://state/orders");
        assert_eq!(source.policy.unwrap().spec.vnodes, 4);
    }

    #[test]
    fn a_file_that_is_no_policy_is_wrong_usage_and_one_that_is_not_there_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "kind: Secret\n").unwrap();
        let open = |policy| {
            let flags =
                StoreFlags { store: None, policy: Some(policy), options: Vec::new(), numbering: Numbering::Plain };
            flags.open().unwrap_err()
        };
        let error = open(file.path().to_owned());
        assert!(matches!(error, CliError::Policy { .. }) && error.exit() as i32 == 2, "{error}");
        assert!(error.to_string().contains(&file.path().display().to_string()), "{error}");
        let error = open(PathBuf::from("/nowhere/policy.yaml"));
        assert!(error.to_string().contains("/nowhere/policy.yaml") && error.exit() as i32 == 2, "{error}");
    }
}
