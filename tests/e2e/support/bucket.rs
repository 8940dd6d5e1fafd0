//! The store of a test: a folder or a bucket of the S3 server, and what pipelines left in it.

use std::path::PathBuf;

use anyhow::Context;
use bytes::Bytes;
use epochwarden_core::key::partial;
use epochwarden_core::{Epoch, Vnode};
use epochwarden_store::{ObjectStoreBackend, Root, RootSettings, StateBackend};
use epochwarden_testkit::s3server::S3Server;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A root of a test's own.
pub(crate) struct Bucket {
    pub(crate) url: String,
    pub(crate) options: Vec<(String, String)>,
    pub(crate) root: Root,
    folder: Option<TempDir>,
}

impl Bucket {
    /// A folder.
    pub(crate) fn folder() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let url = format!("file://{}", folder.path().display());
        let root = Root::open(&url, [], &RootSettings::default())?;
        Ok(Self { url, options: Vec::new(), root, folder: Some(folder) })
    }

    /// A folder that somebody else removes.
    pub(crate) fn at_folder(folder: &std::path::Path) -> anyhow::Result<Self> {
        let url = format!("file://{}", folder.display());
        let root = Root::open(&url, [], &RootSettings::default())?;
        Ok(Self { url, options: Vec::new(), root, folder: None })
    }

    /// A bucket of the shared S3 server.
    pub(crate) async fn s3(name: &str) -> anyhow::Result<Self> {
        Self::on(S3Server::shared().await?, name)
    }

    /// A bucket of this S3 server.
    pub(crate) fn on(server: &S3Server, name: &str) -> anyhow::Result<Self> {
        server.create_bucket(name)?;
        let url = format!("s3://{name}/state");
        let ca = server.ca().map(str::to_owned).into_iter().collect();
        let root = Root::open(&url, server.options(), &RootSettings { ca, ..RootSettings::default() })?;
        Ok(Self { url, options: server.options(), root, folder: None })
    }

    /// A root that somebody else keeps.
    pub(crate) fn at(url: &str, options: Vec<(String, String)>) -> anyhow::Result<Self> {
        let root = Root::open(url, options.clone(), &RootSettings::default())?;
        Ok(Self { url: url.into(), options, root, folder: None })
    }

    /// The root below this one at `name`. It ends with this one.
    pub(crate) fn below(&self, name: &str) -> anyhow::Result<Self> {
        let url = format!("{}/{name}", self.url);
        if let Some(folder) = &self.folder {
            std::fs::create_dir(folder.path().join(name))?;
        }
        let root = Root::open(&url, self.options.clone(), &RootSettings::default())?;
        Ok(Self { url, options: self.options.clone(), root, folder: None })
    }

    /// The keys of the registers and of probes, ascending.
    pub(crate) async fn own_keys(&self) -> anyhow::Result<Vec<String>> {
        let objects: Vec<_> =
            epochwarden_store::listing::objects(&self.root, Some("_epochwarden")).try_collect().await?;
        let mut keys: Vec<String> =
            objects.iter().filter_map(|object| self.root.relative(&object.location).map(str::to_owned)).collect();
        keys.sort();
        Ok(keys)
    }

    /// Where the folder is.
    pub(crate) fn path(&self) -> anyhow::Result<PathBuf> {
        Ok(self.folder.as_ref().context("a bucket has no folder")?.path().to_owned())
    }

    /// `spec.store` for this root. The credentials are in the Secret `name`, where there is one.
    pub(crate) fn store(&self, secret: Option<&str>) -> Value {
        let options: serde_json::Map<_, _> = self
            .options
            .iter()
            .filter(|(key, _)| !key.contains("access_key"))
            .map(|(key, value)| (key.clone(), Value::from(value.clone())))
            .collect();
        let mut store = json!({ "url": self.url });
        if !options.is_empty() {
            store["options"] = Value::Object(options);
        }
        if let Some(secret) = secret {
            store["credentials"] = json!({ "secretRef": { "name": secret } });
        }
        store
    }

    /// Seals epochs as a pipeline without a fence does.
    pub(crate) async fn seal(&self, epochs: impl IntoIterator<Item = u64>, vnodes: u32) -> anyhow::Result<()> {
        let all: Vec<u32> = (0..vnodes).collect();
        let backend = ObjectStoreBackend::new(self.root.prefixed_store(), "pipeline-1", vnodes);
        for epoch in epochs {
            for vnode in &all {
                backend.write_partial(*vnode, epoch, 0, Bytes::from_static(b"state")).await?;
            }
            anyhow::ensure!(backend.epoch_complete(epoch, &all).await?, "epoch {epoch} was not sealed");
        }
        Ok(())
    }

    /// Fills a folder with sealed epochs from 1 on, past the store's client: its fsyncs would take minutes.
    pub(crate) fn fill(&self, epochs: u64, vnodes: u32) -> anyhow::Result<()> {
        for epoch in 1..=epochs {
            let folder = self.path()?.join(format!("epoch={epoch}"));
            for vnode in 0..vnodes {
                let vnode = folder.join(format!("vnode={vnode}"));
                std::fs::create_dir_all(&vnode)?;
                std::fs::write(vnode.join("partial.bin"), b"x")?;
            }
            std::fs::write(folder.join("_COMMIT"), b"pipeline-1")?;
        }
        Ok(())
    }

    /// Deletes a partial behind everybody's back.
    pub(crate) async fn lose_partial(&self, epoch: u64, vnode: u32) -> anyhow::Result<()> {
        let path = self.root.path(&partial(Epoch::new(epoch), Vnode::new(vnode)))?;
        self.root.store().delete(&path).await?;
        Ok(())
    }

    /// The sealed epochs that are there, ascending.
    pub(crate) async fn sealed(&self) -> anyhow::Result<Vec<u64>> {
        let inventory = epochwarden_store::list_inventory(&self.root, None).await?;
        Ok(inventory.epochs().filter(|(_, entry)| entry.is_sealed()).map(|(epoch, _)| epoch.get()).collect())
    }

    /// All epochs that are there, sealed or not, ascending.
    pub(crate) async fn epochs(&self) -> anyhow::Result<Vec<u64>> {
        Ok(epochwarden_store::list_epochs(&self.root).await?.into_iter().map(Epoch::get).collect())
    }

    /// The fence that stands; 0 when there is none.
    pub(crate) async fn fence(&self) -> anyhow::Result<u64> {
        Ok(epochwarden_store::list_registers(&self.root).await?.reading().fence.get())
    }
}
