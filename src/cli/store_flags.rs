//! Which root a verb is about.

use std::fmt;

use clap::Args;
use epochwarden_store::{Root, RootSettings, StoreError};

use super::values;

/// The flags that name a root and say how to reach it.
#[derive(Args)]
#[command(next_help_heading = "Store")]
pub(super) struct StoreFlags {
    /// The store root: `s3://BUCKET/PREFIX`, `gs://…`, `az://…`, `abfs://…` or `file:///FOLDER`
    #[arg(long, value_name = "URL")]
    store: String,

    /// An option of the store or a credential, such as `aws_region=eu-west-1`; repeatable. The usual `AWS_*`, `GOOGLE_*` and `AZURE_*`
    /// environment variables count where no option says otherwise
    #[arg(long = "store-option", value_name = "KEY=VALUE", value_parser = values::key_value)]
    options: Vec<(String, String)>,
}

impl StoreFlags {
    /// Opens the root. Makes no request.
    pub(super) fn open(&self) -> Result<Root, StoreError> {
        let settings = RootSettings { ambient_credentials: true, ..RootSettings::default() };
        Root::open(&self.store, self.options.iter().cloned(), &settings)
    }
}

impl fmt::Debug for StoreFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The values may be secrets, and a wrong URL may hold a password.
        let keys: Vec<_> = self.options.iter().map(|(key, _)| key).collect();
        f.debug_struct("StoreFlags").field("options", &keys).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_of_an_option_is_ever_shown() {
        let flags = StoreFlags {
            store: "s3://user:hunter2@state".to_owned(),
            options: vec![("aws_secret_access_key".to_owned(), "hunter2".to_owned())],
        };
        let shown = format!("{flags:?}");
        assert!(shown.contains("aws_secret_access_key") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn an_option_that_the_store_does_not_have_is_refused_by_name() {
        let flags = StoreFlags {
            store: format!("file://{}", std::env::temp_dir().display()),
            options: vec![("aws_regoin".to_owned(), "x".to_owned())],
        };
        assert!(matches!(flags.open(), Err(StoreError::UnknownOption { key, .. }) if key == "aws_regoin"));
    }
}
