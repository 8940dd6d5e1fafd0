//! The bucket that the epochs go to.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use epochwarden_store::{Root, RootSettings, SECRET_KEYS};
use epochwarden_testkit::s3server::S3Server;
use serde_json::{Map, Value, json};

const BUCKET: &str = "state";
const SECRET: &str = "orders-state";

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum StoreKind {
    /// A local folder
    File,
    /// An S3 server
    S3,
}

/// A store root, empty at the beginning.
pub(crate) struct Store {
    root: Root,
    options: Vec<(String, String)>,
    /// The credentials, which the policy names by a Secret and the pipeline takes from its environment.
    credentials: Vec<(String, String)>,
    folder: Option<PathBuf>,
    server: Option<S3Server>,
}

impl Store {
    pub(crate) async fn create(kind: StoreKind, folder: &Path) -> anyhow::Result<Self> {
        match kind {
            StoreKind::File => Self::in_folder(folder),
            StoreKind::S3 => Self::on_server(S3Server::start().await?),
        }
    }

    fn in_folder(parent: &Path) -> anyhow::Result<Self> {
        // The operator compares folders by their real names.
        let folder = fs::canonicalize(parent)?.join("state");
        fs::create_dir(&folder)?;
        let url = format!("file://{}", folder.to_str().context("the temporary folder has a name that is no text")?);
        let root = Root::open(&url, [], &RootSettings::default())?;
        Ok(Self { root, options: Vec::new(), credentials: Vec::new(), folder: Some(folder), server: None })
    }

    fn on_server(server: S3Server) -> anyhow::Result<Self> {
        server.create_bucket(BUCKET)?;
        let root = Root::open(&format!("s3://{BUCKET}/orders"), server.options(), &RootSettings::default())?;
        let (credentials, options) =
            server.options().into_iter().partition(|(key, _)| SECRET_KEYS.contains(&key.as_str()));
        Ok(Self { root, options, credentials, folder: None, server: Some(server) })
    }

    /// The demo's own client, with which it looks, and meddles.
    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    /// The folder, where it is one.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    pub(crate) fn options(&self) -> &[(String, String)] {
        &self.options
    }

    pub(crate) fn credentials(&self) -> &[(String, String)] {
        &self.credentials
    }

    pub(crate) fn description(&self) -> String {
        match &self.server {
            Some(server) => format!("{}, on an S3 server at {}", self.root.url(), server.endpoint()),
            None => format!("{}, a local folder", self.root.url()),
        }
    }

    /// The policy's `spec.store`.
    pub(crate) fn spec(&self) -> Value {
        let mut spec = Map::from_iter([("url".to_owned(), json!(self.root.url()))]);
        if !self.options.is_empty() {
            spec.insert("options".to_owned(), object(&self.options));
        }
        if !self.credentials.is_empty() {
            spec.insert("credentials".to_owned(), json!({ "secretRef": { "name": SECRET } }));
        }
        Value::Object(spec)
    }

    /// The manifest of the Secret that the policy names, if it names one.
    pub(crate) fn secret(&self) -> Option<String> {
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": SECRET },
            "stringData": object(&self.credentials),
        });
        (!self.credentials.is_empty()).then(|| secret.to_string())
    }
}

fn object(pairs: &[(String, String)]) -> Value {
    pairs.iter().map(|(key, value)| (key.clone(), json!(value))).collect::<Map<_, _>>().into()
}
