//! One empty bucket of each kind, and what tests do with it.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use epochwarden_core::Version;
use epochwarden_store::probe::ProblemKind;
use epochwarden_store::{ObjectStoreBackend, Registers, Root, RootSettings, StateBackend};
use epochwarden_testkit::azurite::Azurite;
use epochwarden_testkit::counter::CountingStore;
use epochwarden_testkit::fault::FaultStore;
use epochwarden_testkit::memory::MemoryServer;
use epochwarden_testkit::minio::Minio;
use epochwarden_testkit::s3server::S3Server;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutPayload};
use tempfile::TempDir;

/// Writes one test for each kind of store: `name::in_memory`, `name::in_a_folder`, `name::on_s3` and so on. Those whose server takes long
/// to build are `make conformance`'s.
macro_rules! on_every_store {
    ($(async fn $name:ident($bucket:ident: &Bucket) $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports, reason = "not every test needs everything")]
            use super::*;

            async fn test($bucket: &Bucket) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn in_memory() {
                test(&Bucket::in_memory()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn in_a_folder() {
                test(&Bucket::in_a_folder()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_s3() {
                test(&Bucket::on_s3().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_s3_in_memory() {
                test(&Bucket::on_s3_in_memory()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_gcs_as_documented() {
                test(&Bucket::on_gcs_as_documented()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "make conformance"]
            async fn on_minio() {
                test(&Bucket::on_minio().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "make conformance"]
            async fn on_azurite() {
                test(&Bucket::on_azurite().await).await;
            }
        }
    )*};
}

/// How many vnodes the pipelines of these tests have.
pub(crate) const VNODES: u32 = 4;
pub(crate) const ALL: [u32; VNODES as usize] = [0, 1, 2, 3];

pub(crate) struct Bucket {
    pub(crate) root: Root,
    /// What is known to be wrong with the store: the suite says so and expects the probe to.
    pub(crate) flaw: Option<ProblemKind>,
    _folder: Option<TempDir>,
}

impl Bucket {
    pub(crate) fn in_memory() -> Self {
        Self { root: Root::from_store(Arc::new(InMemory::new())), flaw: None, _folder: None }
    }

    pub(crate) fn in_a_folder() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().display());
        let root = Root::open(&url, [], &RootSettings::default()).unwrap();
        Self { root, flaw: None, _folder: Some(folder) }
    }

    pub(crate) async fn on_s3() -> Self {
        let server = S3Server::shared().await.unwrap();
        let name = uuid::Uuid::new_v4().to_string();
        server.create_bucket(&name).unwrap();
        Self::open("s3", &name, server.options())
    }

    pub(crate) fn on_s3_in_memory() -> Self {
        static SHARED: LazyLock<MemoryServer> = LazyLock::new(|| MemoryServer::s3().unwrap());
        Self::of_server(&SHARED, "s3")
    }

    pub(crate) fn on_gcs_as_documented() -> Self {
        static SHARED: LazyLock<MemoryServer> = LazyLock::new(|| MemoryServer::gcs().unwrap());
        Self::of_server(&SHARED, "gs")
    }

    fn of_server(server: &MemoryServer, scheme: &str) -> Self {
        let name = uuid::Uuid::new_v4().to_string();
        server.create_bucket(&name).unwrap();
        Self::open(scheme, &name, server.options())
    }

    pub(crate) async fn on_minio() -> Self {
        let server = Minio::shared().await.unwrap();
        let name = uuid::Uuid::new_v4().to_string();
        server.create_bucket(&name).unwrap();
        // Its second page of a listing with the delimiter `/vnode=` is the first again.
        Self { flaw: Some(ProblemKind::NoDelimiter), ..Self::open("s3", &name, server.options()) }
    }

    pub(crate) async fn on_azurite() -> Self {
        let server = Azurite::shared().await.unwrap();
        let name = uuid::Uuid::new_v4().to_string();
        server.create_container(&name).await.unwrap();
        Self::open("az", &name, server.options())
    }

    fn open(scheme: &str, name: &str, options: Vec<(String, String)>) -> Self {
        let root = Root::open(&format!("{scheme}://{name}"), options, &RootSettings::default()).unwrap();
        Self { root, flaw: None, _folder: None }
    }

    /// The same bucket by another of its roots, for as long as this one is there.
    pub(crate) fn by(&self, root: Root) -> Self {
        Self { root, flaw: self.flaw, _folder: None }
    }

    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(self.root.store())
    }

    /// This bucket behind hooks.
    pub(crate) fn faults(&self) -> FaultStore {
        FaultStore::new(self.store())
    }

    /// This bucket behind a counter of calls.
    pub(crate) fn counting(&self) -> CountingStore {
        CountingStore::new(self.store())
    }

    pub(crate) fn registers(&self) -> Registers {
        Registers::new(self.root.clone(), "test")
    }

    /// A person's or an operator's hand on the fence.
    pub(crate) async fn publish_fence(&self, version: u64, holder: &str) {
        self.registers().publish_fence(Version::new(version), holder, None).await.unwrap();
    }

    pub(crate) async fn publish_floor(&self, before: u64) {
        raise_floor(&self.store(), before).await;
    }

    pub(crate) async fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> =
            self.store().list(None).map_ok(|object| object.location.to_string()).try_collect().await.unwrap();
        keys.sort();
        keys
    }

    pub(crate) async fn has(&self, key: &str) -> bool {
        self.body(key).await.is_some()
    }

    pub(crate) async fn body(&self, key: &str) -> Option<Bytes> {
        match self.store().get(&Path::from(key)).await {
            Ok(object) => Some(object.bytes().await.unwrap()),
            Err(Error::NotFound { .. }) => None,
            Err(error) => panic!("{key}: {error}"),
        }
    }

    pub(crate) async fn put(&self, key: &str, body: &str) {
        put(&self.store(), key, body).await;
    }

    pub(crate) async fn delete(&self, key: &str) {
        self.store().delete(&Path::from(key)).await.unwrap();
    }

    /// The epochs that have any key, in no particular order.
    pub(crate) async fn epochs(&self) -> std::collections::BTreeSet<u64> {
        let keys = self.keys().await;
        let folders = keys.iter().filter_map(|key| key.strip_prefix("epoch=")?.split_once('/'));
        folders.map(|(number, _)| number.parse().unwrap()).collect()
    }
}

pub(crate) async fn put(store: &Arc<dyn ObjectStore>, key: &str, body: &str) {
    store.put(&Path::from(key), PutPayload::from(body.to_owned())).await.unwrap();
}

/// A floor as another pruner would leave it.
pub(crate) async fn raise_floor(store: &Arc<dyn ObjectStore>, before: u64) {
    let floor = epochwarden_core::register::FloorRecord {
        before: epochwarden_core::Epoch::new(before),
        policy: None,
        plan_digest: None,
        publisher: String::new(),
        published_at: jiff::Timestamp::UNIX_EPOCH,
    };
    Registers::new(Root::from_store(Arc::clone(store)), "pruner").publish_floor(floor).await.unwrap();
}

/// The classic backend.
pub(crate) fn classic(store: Arc<dyn ObjectStore>, instance: &str) -> ObjectStoreBackend {
    ObjectStoreBackend::new(store, instance, VNODES)
}

/// A backend that reads the registers and leads `version`.
pub(crate) fn leader(store: Arc<dyn ObjectStore>, instance: &str, version: u64) -> ObjectStoreBackend {
    ObjectStoreBackend::builder(store).instance_id(instance).vnode_capacity(VNODES).leading(version).build()
}

/// The same with the fence published.
pub(crate) async fn fenced(bucket: &Bucket, instance: &str, version: u64) -> ObjectStoreBackend {
    bucket.publish_fence(version, instance).await;
    leader(bucket.store(), instance, version)
}

/// Writes the state of every vnode.
pub(crate) async fn write(backend: &ObjectStoreBackend, epoch: u64) {
    for vnode in ALL {
        let state = Bytes::from(format!("{epoch}/{vnode}"));
        backend.write_partial(vnode, epoch, u64::MAX, state).await.unwrap();
    }
}

/// Writes and seals an epoch.
pub(crate) async fn seal(backend: &ObjectStoreBackend, epoch: u64) {
    write(backend, epoch).await;
    assert!(backend.epoch_complete(epoch, &ALL).await.unwrap());
}
