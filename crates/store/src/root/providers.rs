//! The concrete clients, one function for each provider.

use std::path::PathBuf;
use std::sync::Arc;

use epochwarden_core::key::REGISTERS;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, Checksum};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::list::PaginatedListStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, RetryConfig, StaticCredentialProvider};

use super::options::{Options, invalid};
use super::url::Location;
use crate::error::StoreError;
use crate::http::Connector;

/// What a root's requests go through.
#[derive(Clone)]
pub(super) struct Clients {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) paginated: Option<Arc<dyn PaginatedListStore>>,
    /// A client that deletes keys one by one, where the usual one deletes many by one request and can do without.
    pub(super) one_by_one: Option<Arc<dyn ObjectStore>>,
}

impl Clients {
    fn of<T: ObjectStore + PaginatedListStore>(store: T) -> Self {
        let store = Arc::new(store);
        Self { store: Arc::clone(&store) as Arc<dyn ObjectStore>, paginated: Some(store), one_by_one: None }
    }
}

/// What every cloud client is made with.
pub(super) struct Wiring<'a> {
    pub(super) location: &'a Location,
    pub(super) options: &'a Options,
    pub(super) connector: Connector,
    pub(super) retry: RetryConfig,
    /// Whether the environment may be read, and metadata services asked.
    pub(super) ambient: bool,
}

impl Wiring<'_> {
    fn no_credentials(&self, needed: &'static str) -> StoreError {
        StoreError::CredentialsNotAllowed { url: self.location.text.clone(), needed }
    }

    fn client_error(&self, source: object_store::Error) -> StoreError {
        StoreError::Client { url: self.location.text.clone(), source }
    }
}

pub(super) fn s3(wiring: &Wiring<'_>) -> Result<Clients, StoreError> {
    let options = wiring.options;
    options.check_endpoint("aws_endpoint")?;
    let mut builder = if wiring.ambient { AmazonS3Builder::from_env() } else { AmazonS3Builder::new() };
    for (key, value) in options.for_builder() {
        let known: AmazonS3ConfigKey = key.parse().map_err(|_| invalid(key, "this client does not know it"))?;
        builder = builder.with_config(known, value);
    }
    let keys = options.all_or_none(&["aws_access_key_id", "aws_secret_access_key"])?;
    if !keys && options.flag("aws_skip_signature")? {
        // Without any, the builder would make a client for the metadata service.
        let none = AwsCredential { key_id: String::new(), secret_key: String::new(), token: None };
        builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(none)));
    } else if !keys && !wiring.ambient {
        return Err(wiring.no_credentials("aws_access_key_id and aws_secret_access_key, or aws_skip_signature"));
    }
    let builder = builder
        .with_bucket_name(&wiring.location.bucket)
        .with_retry(wiring.retry.clone())
        // A bucket whose objects are locked by default takes no write without one.
        .with_checksum_algorithm(Checksum::SHA256);
    let build = |builder: AmazonS3Builder| builder.build().map_err(|source| wiring.client_error(source));
    let store = build(builder.clone().with_http_connector(wiring.connector.clone()))?;
    let one_by_one = build(builder.with_http_connector(wiring.connector.another()).with_disable_bulk_delete(true))?;
    Ok(Clients { one_by_one: Some(Arc::new(one_by_one)), ..Clients::of(store) })
}

pub(super) fn gcs(wiring: &Wiring<'_>) -> Result<Clients, StoreError> {
    let options = wiring.options;
    options.check_endpoint("google_base_url")?;
    let mut builder =
        if wiring.ambient { GoogleCloudStorageBuilder::from_env() } else { GoogleCloudStorageBuilder::new() };
    for (key, value) in options.for_builder() {
        let known: GoogleConfigKey = key.parse().map_err(|_| invalid(key, "this client does not know it"))?;
        builder = builder.with_config(known, value);
    }
    if !options.has("google_service_account_key") && options.flag("google_skip_signature")? {
        // Without any, the builder would read a credentials file in the home directory, or ask the metadata service.
        let none = GcpCredential { bearer: String::new() };
        builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(none)));
    } else if !options.has("google_service_account_key") && !wiring.ambient {
        return Err(wiring.no_credentials("google_service_account_key, or google_skip_signature"));
    }
    let store = builder
        .with_bucket_name(&wiring.location.bucket)
        .with_retry(wiring.retry.clone())
        .with_http_connector(wiring.connector.clone())
        .build()
        .map_err(|source| wiring.client_error(source))?;
    Ok(Clients::of(store))
}

pub(super) fn azure(wiring: &Wiring<'_>) -> Result<Clients, StoreError> {
    let options = wiring.options;
    options.check_endpoint("azure_storage_endpoint")?;
    let mut builder = if wiring.ambient { MicrosoftAzureBuilder::from_env() } else { MicrosoftAzureBuilder::new() };
    for (key, value) in options.for_builder() {
        let known: AzureConfigKey = key.parse().map_err(|_| invalid(key, "this client does not know it"))?;
        builder = builder.with_config(known, value);
    }
    match (&wiring.location.account, options.get("azure_storage_account_name")) {
        (Some(account), Some(option)) if account != option => {
            return Err(invalid("azure_storage_account_name", "it differs from the account of the URL: remove it"));
        }
        (Some(account), _) => builder = builder.with_account(account),
        (None, None) if !wiring.ambient => {
            return Err(invalid(
                "azure_storage_account_name",
                "it is missing: name the account that holds the container",
            ));
        }
        (None, _) => {}
    }
    let principal =
        options.all_or_none(&["azure_storage_client_id", "azure_storage_client_secret", "azure_storage_tenant_id"])?;
    let given = principal || options.has("azure_storage_account_key") || options.has("azure_storage_sas_token");
    if !given && !wiring.ambient {
        return Err(wiring.no_credentials(
            "azure_storage_account_key, azure_storage_sas_token, or azure_storage_client_id with its secret and tenant",
        ));
    }
    let store = builder
        .with_container_name(&wiring.location.bucket)
        .with_retry(wiring.retry.clone())
        .with_http_connector(wiring.connector.clone())
        .build()
        .map_err(|source| wiring.client_error(source))?;
    Ok(Clients::of(store))
}

/// A folder, which must be there, and where it is: the client follows the links that lead to it once, now. Writes reach the disk before
/// they are acknowledged; a folder that becomes empty goes.
pub(super) fn local(location: &Location) -> Result<(Arc<dyn ObjectStore>, PathBuf), StoreError> {
    let failed = |source| StoreError::Client { url: location.text.clone(), source };
    check_folder(location.path.as_ref(), &location.text)?;
    let store = LocalFileSystem::new_with_prefix(&location.path).map_err(failed)?;
    // The client tells of files only.
    let file = store.path_to_filesystem(&Path::from(REGISTERS)).map_err(failed)?;
    let folder = file.parent().map(PathBuf::from).unwrap_or_default();
    Ok((Arc::new(store.with_fsync(true).with_automatic_cleanup(true)), folder))
}

/// Fails unless the folder is there and can be read: a listing of a missing one would come out empty.
pub(super) fn check_folder(folder: &std::path::Path, url: &str) -> Result<(), StoreError> {
    std::fs::read_dir(folder).map(drop).map_err(|source| StoreError::Folder { url: url.to_owned(), source })
}
