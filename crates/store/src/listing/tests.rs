use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use epochwarden_core::epoch::Vnode;
use epochwarden_core::inventory::EpochIndex;
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ListResult, ObjectStore, ObjectStoreExt};

use super::*;
use crate::observe::RequestCounts;
use crate::root::{Capabilities, RootSettings};

/// How a store's pages come back.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Paging {
    Right,
    /// Every page is the first, and its token too.
    SameToken,
    /// Every page is the first, with a new token each time.
    SamePage,
    /// No keys, and two tokens in turn.
    EmptyCircle,
}

/// Pages over a store in memory, with raw prefixes as S3 has them.
struct Paged {
    store: Arc<InMemory>,
    size: usize,
    paging: Paging,
    asked: AtomicUsize,
}

#[async_trait]
impl PaginatedListStore for Paged {
    async fn list_paginated(
        &self,
        prefix: Option<&str>,
        options: PaginatedListOptions,
    ) -> object_store::Result<PaginatedListResult> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        assert!(asked < 1000, "the listing does not end");
        let prefix = prefix.unwrap_or_default();
        let mut rows: Vec<(String, Option<ObjectMeta>)> = Vec::new();
        let mut objects: Vec<ObjectMeta> = self.store.list(None).try_collect().await?;
        objects.sort_by(|a, b| a.location.cmp(&b.location));
        for object in objects {
            let key = object.location.as_ref().to_owned();
            let Some(rest) = key.strip_prefix(prefix) else { continue };
            let folder = options.delimiter.as_deref().and_then(|delimiter| {
                let (folder, _) = rest.split_once(delimiter)?;
                Some(format!("{prefix}{folder}{delimiter}"))
            });
            let row = folder.map_or((key.clone(), Some(object.clone())), |folder| (folder, None));
            if rows.last().is_none_or(|last| last.0 != row.0) {
                rows.push(row);
            }
        }
        let start = match (self.paging, options.page_token) {
            (Paging::Right, Some(token)) => token.parse().unwrap(),
            _ => 0,
        };
        let end = (start + self.size).min(rows.len());
        let page_token = match self.paging {
            Paging::Right => (end < rows.len()).then(|| end.to_string()),
            Paging::SameToken => Some("again".to_owned()),
            Paging::SamePage => Some(format!("token {asked}")),
            Paging::EmptyCircle => Some(format!("token {}", asked % 2)),
        };
        let shown = if self.paging == Paging::EmptyCircle { &[] } else { &rows[start..end] };
        let result = ListResult {
            objects: shown.iter().filter_map(|row| row.1.clone()).collect(),
            common_prefixes: shown
                .iter()
                .filter(|row| row.1.is_none())
                .map(|row| Path::parse(&row.0).unwrap())
                .collect(),
            extensions: object_store::Extensions::new(),
        };
        Ok(PaginatedListResult { result, page_token })
    }
}

const KEYS: [&str; 12] = [
    "epoch=9/vnode=0/partial.bin",
    "epoch=9/vnode=1/partial.bin",
    "epoch=9/_COMMIT",
    "epoch=10/vnode=0/partial.bin",
    "epoch=10/notes.txt",
    "epoch=100/vnode=0/partial.bin",
    "epoch=007/_COMMIT",
    "epoch=18446744073709551615/_COMMIT",
    "_epochwarden/fence/00000000000000000003",
    "_epochwarden/fence/00000000000000000012",
    "_epochwarden/floor/00000000000000000009",
    "lost+found",
];

async fn fill(root: &Root) {
    for key in KEYS {
        root.store().put(&root.path(key).unwrap(), "abc".into()).await.unwrap();
    }
}

/// The same content in memory, in a folder, below a prefix with a neighbour, and behind pages.
async fn roots(folder: &std::path::Path) -> Vec<(&'static str, Root)> {
    let mut roots = Vec::new();
    roots.push(("memory", Root::from_store(Arc::new(InMemory::new()))));
    let url = format!("file://{}", folder.display());
    roots.push(("folder", Root::open(&url, [], &RootSettings::default()).unwrap()));
    for (name, size, prefix) in
        [("prefix", None, "a/b"), ("pages", Some(2), ""), ("pages below a prefix", Some(3), "a/b")]
    {
        let store = Arc::new(InMemory::new());
        for outside in ["a/bc/epoch=77/_COMMIT", "a/bc/_epochwarden/fence/00000000000000000099"] {
            if !prefix.is_empty() {
                store.put(&Path::parse(outside).unwrap(), "x".into()).await.unwrap();
            }
        }
        let mut root = Root::from_store(Arc::clone(&store) as Arc<dyn ObjectStore>);
        if let Some(size) = size {
            root = root.with_paginated(paged(&store, size, Paging::Right));
        }
        roots.push((name, if prefix.is_empty() { root } else { root.with_prefix(prefix).unwrap() }));
    }
    for (_, root) in &roots {
        fill(root).await;
    }
    roots
}

fn paged(store: &Arc<InMemory>, size: usize, paging: Paging) -> Arc<Paged> {
    Arc::new(Paged { store: Arc::clone(store), size, paging, asked: AtomicUsize::new(0) })
}

fn epochs(inventory: &Inventory) -> Vec<u64> {
    inventory.epochs().map(|(epoch, _)| epoch.get()).collect()
}

#[tokio::test]
async fn a_root_lists_the_same_wherever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    for (name, root) in roots(folder.path()).await {
        let mut told = Vec::new();
        let inventory = list_inventory_with(&root, Some(2), |count| told.push(count)).await.unwrap();
        assert_eq!(epochs(&inventory), [9, 10, 100, u64::MAX], "{name}");
        let nine = inventory.get(Epoch::new(9)).unwrap();
        assert!(nine.is_sealed() && nine.is_complete(), "{name}");
        assert_eq!((nine.objects(), nine.bytes()), (3, 9), "{name}");
        assert!(!inventory.get(Epoch::new(10)).unwrap().is_sealed(), "{name}");
        let foreign: Vec<_> = inventory.foreign().examples().collect();
        assert_eq!(foreign, ["epoch=007/_COMMIT", "lost+found"], "{name}");
        assert_eq!((inventory.reading().fence.get(), inventory.reading().floor.get()), (12, 9), "{name}");
        assert_eq!(told.last(), Some(&12), "{name}");
    }
}

#[tokio::test]
async fn one_epoch_is_listed_without_those_whose_numbers_begin_alike() {
    let folder = tempfile::tempdir().unwrap();
    for (name, root) in roots(folder.path()).await {
        let inventory = list_epoch(&root, Epoch::new(10), Some(2)).await.unwrap();
        assert_eq!(epochs(&inventory), [10], "{name}");
        assert_eq!(inventory.get(Epoch::new(10)).unwrap().objects(), 2, "{name}");
        assert!(list_epoch(&root, Epoch::new(1), Some(2)).await.unwrap().is_empty(), "{name}");
    }
}

#[tokio::test]
async fn the_epochs_are_found_by_their_folders_in_numeric_order() {
    let folder = tempfile::tempdir().unwrap();
    for (name, root) in roots(folder.path()).await {
        let found: Vec<u64> = list_epochs(&root).await.unwrap().into_iter().map(Epoch::get).collect();
        assert_eq!(found, [9, 10, 100, u64::MAX], "{name}");
    }
}

#[tokio::test]
async fn the_registers_are_read_by_one_request() {
    let folder = tempfile::tempdir().unwrap();
    for (name, root) in roots(folder.path()).await {
        let before = root.requests();
        let listing = list_registers(&root).await.unwrap();
        assert_eq!((listing.reading().fence.get(), listing.reading().floor.get(), listing.reading().owner), (12, 9, 0));
        let fences: Vec<_> = listing.records(RegisterKind::Fence).map(Record::key).collect();
        assert_eq!(fences, ["_epochwarden/fence/00000000000000000003", "_epochwarden/fence/00000000000000000012"]);
        assert_eq!(listing.records(RegisterKind::Owner).count(), 0);
        let pages = if name == "pages" { 2 } else { 1 };
        assert_eq!(root.requests() - before, RequestCounts { list: pages, ..RequestCounts::default() }, "{name}");
    }
}

#[test]
fn of_too_many_records_the_newest_are_kept() {
    let mut listing = RegisterListing::default();
    let many = u64::try_from(RECORDS_LISTED).unwrap() + 10;
    for number in (1..=many).rev() {
        listing.observe(RegisterKind::Floor, number);
    }
    assert_eq!(listing.reading().floor.get(), many);
    let kept: Vec<u64> = listing.records(RegisterKind::Floor).map(|record| record.number).collect();
    assert_eq!((kept.first(), kept.last(), kept.len()), (Some(&11), Some(&many), RECORDS_LISTED));
}

#[tokio::test]
async fn pages_that_repeat_end_in_an_error_and_the_listing_is_done_without_them() {
    for paging in [Paging::SameToken, Paging::SamePage, Paging::EmptyCircle] {
        let store = Arc::new(InMemory::new());
        let client = paged(&store, 2, paging);
        let root = Root::from_store(Arc::clone(&store) as Arc<dyn ObjectStore>).with_paginated(client);
        fill(&root).await;

        let error = objects(&root, None).try_collect::<Vec<_>>().await.unwrap_err();
        assert!(matches!(error, StoreError::ListingLoops { .. }), "{paging:?}: {error:?}");
        assert_eq!(error.class(), crate::ErrorClass::UnsafeStore);

        let inventory = list_inventory(&root, Some(2)).await.unwrap();
        assert_eq!(epochs(&inventory), [9, 10, 100, u64::MAX], "{paging:?}");
        assert_eq!(
            (inventory.totals().objects, inventory.foreign().count()),
            (7, 2),
            "{paging:?}: nothing counts twice"
        );
        let found: Vec<u64> = list_epochs(&root).await.unwrap().into_iter().map(Epoch::get).collect();
        assert_eq!(found, [9, 10, 100, u64::MAX], "{paging:?}");
        let reading = list_registers(&root).await.map(|listing| listing.reading().fence.get());
        assert_eq!(reading.unwrap(), 12, "{paging:?}");
    }
}

#[test]
fn every_circle_is_noticed_and_no_straight_line_is() {
    for start in 0..20_u32 {
        for length in 1..20_u32 {
            let mut repeats = Repeats::default();
            let walk = (0..).map(|step| if step < start { step } else { start + (step - start) % length });
            let steps = walk.take_while(|element: &u32| !repeats.observe(&element.to_string())).count();
            let bound = 4 * usize::try_from(start + length).unwrap();
            assert!(steps <= bound.max(4), "start {start}, length {length}: {steps}");
        }
    }
    let mut repeats = Repeats::default();
    assert!((0..10_000).all(|element| !repeats.observe(&element.to_string())));
}

/// Cuts listings at the next slash, whatever is asked for, as some servers do.
struct CutsElsewhere(Arc<Paged>);

#[async_trait]
impl PaginatedListStore for CutsElsewhere {
    async fn list_paginated(
        &self,
        prefix: Option<&str>,
        options: PaginatedListOptions,
    ) -> object_store::Result<PaginatedListResult> {
        let delimiter = options.delimiter.as_ref().map(|_| "/".into());
        self.0.list_paginated(prefix, PaginatedListOptions { delimiter, ..options }).await
    }
}

/// Ends the names of folders with the delimiter's first character.
struct CutsShort(Arc<Paged>);

#[async_trait]
impl PaginatedListStore for CutsShort {
    async fn list_paginated(
        &self,
        prefix: Option<&str>,
        options: PaginatedListOptions,
    ) -> object_store::Result<PaginatedListResult> {
        let mut answer = self.0.list_paginated(prefix, options).await?;
        for folder in &mut answer.result.common_prefixes {
            *folder = Path::parse(folder.as_ref().strip_suffix("/vnode=").unwrap()).unwrap();
        }
        Ok(answer)
    }
}

#[tokio::test]
async fn an_index_takes_folders_with_short_names_once_a_probe_saw_the_seals_beside_them() {
    let store = Arc::new(InMemory::new());
    let pages = paged(&store, 100, Paging::Right);
    let root = Root::from_store(Arc::clone(&store) as Arc<dyn ObjectStore>)
        .with_paginated(Arc::new(CutsShort(Arc::clone(&pages))));
    fill(&root).await;
    let known = root.clone().with_capabilities(Capabilities::GOOD);
    for (root, pages_asked) in [(known, 1), (root, 2)] {
        let before = pages.asked.load(Ordering::Relaxed);
        let index = list_index(&root).await.unwrap();
        assert_eq!(sealed(&index), (vec![9, 10, 100, u64::MAX], 2, Some(9), Some(u64::MAX)));
        assert_eq!(pages.asked.load(Ordering::Relaxed) - before, pages_asked);
    }
}

fn sealed(index: &EpochIndex) -> (Vec<u64>, usize, Option<u64>, Option<u64>) {
    let newest = index.newest_sealed().map(|(epoch, _)| epoch.get());
    (index.epochs().map(Epoch::get).collect(), index.sealed(), index.oldest_sealed().map(Epoch::get), newest)
}

#[tokio::test]
async fn an_index_names_every_epoch_and_every_seal_wherever_the_root_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut roots = roots(folder.path()).await;
    let store = Arc::new(InMemory::new());
    let cut = Root::from_store(Arc::clone(&store) as Arc<dyn ObjectStore>)
        .with_paginated(Arc::new(CutsElsewhere(paged(&store, 100, Paging::Right))));
    fill(&cut).await;
    roots.push(("cut at other places", cut));
    let unable = Capabilities {
        conditional_create: true,
        consistent_list: true,
        bulk_delete: true,
        delimiter_index: false,
        versioned: false,
        object_lock: false,
    };
    let store = Arc::new(InMemory::new());
    let known = Root::from_store(Arc::clone(&store) as Arc<dyn ObjectStore>)
        .with_paginated(paged(&store, 100, Paging::Right))
        .with_capabilities(unable);
    fill(&known).await;
    roots.push(("known not to cut", known));
    for (name, root) in roots {
        let index = list_index(&root).await.unwrap();
        assert_eq!(sealed(&index), (vec![9, 10, 100, u64::MAX], 2, Some(9), Some(u64::MAX)), "{name}");
        let seal = index.newest_sealed().unwrap().1;
        let path = root.path(&key::commit(Epoch::new(u64::MAX))).unwrap();
        let object = root.store().head(&path).await.unwrap();
        assert_eq!((seal.modified, seal.size, seal.etag.as_deref()), (modified(&object), 3, object.e_tag.as_deref()));
        let inventory = list_inventory(&root, None).await.unwrap();
        assert_eq!(index.sealing(), inventory.sealing(), "{name}");
    }
}

#[tokio::test]
async fn an_index_costs_two_rows_of_an_epoch_however_many_objects_it_holds() {
    let store = Arc::new(InMemory::new());
    for epoch in 1..=10 {
        for vnode in 0..50 {
            let partial = key::partial(Epoch::new(epoch), Vnode::new(vnode));
            store.put(&Path::parse(partial).unwrap(), "x".into()).await.unwrap();
        }
        store.put(&Path::parse(key::commit(Epoch::new(epoch))).unwrap(), "a".into()).await.unwrap();
    }
    let pages = paged(&store, 5, Paging::Right);
    let root = Root::from_store(Arc::clone(&store) as Arc<dyn ObjectStore>).with_paginated(Arc::clone(&pages) as _);
    assert_eq!(list_index(&root).await.unwrap().sealed(), 10);
    assert_eq!(pages.asked.load(Ordering::Relaxed), 20 / 5);
}

#[tokio::test]
async fn where_nothing_was_sealed_the_index_says_since_when_a_seal_is_waited_for() {
    for paginated in [false, true] {
        let store = Arc::new(InMemory::new());
        let mut root = Root::from_store(Arc::clone(&store) as Arc<dyn ObjectStore>);
        if paginated {
            root = root.with_paginated(paged(&store, 2, Paging::Right));
        }
        assert_eq!(list_index(&root).await.unwrap(), EpochIndex::default(), "an empty root");
        for key in ["epoch=4/vnode=0/partial.bin", "epoch=3/vnode=0/partial.bin", "epoch=3/vnode=1/partial.bin"] {
            store.put(&Path::parse(key).unwrap(), "x".into()).await.unwrap();
        }
        let last = store.head(&Path::parse("epoch=3/vnode=1/partial.bin").unwrap()).await.unwrap();
        let sealing = list_index(&root).await.unwrap().sealing();
        assert_eq!((sealing.first_above, sealing.above), (Some(Epoch::new(3)), 2));
        assert_eq!(sealing.begun, Some(modified(&last)));
    }
}

#[tokio::test]
async fn an_index_of_pages_that_repeat_or_of_a_newer_layout_is_not_believed() {
    for paging in [Paging::SameToken, Paging::SamePage, Paging::EmptyCircle] {
        let store = Arc::new(InMemory::new());
        let root =
            Root::from_store(Arc::clone(&store) as Arc<dyn ObjectStore>).with_paginated(paged(&store, 2, paging));
        fill(&root).await;
        let index = list_index(&root).await.unwrap();
        assert_eq!(sealed(&index).0, [9, 10, 100, u64::MAX], "{paging:?}");
    }
    let store = Arc::new(InMemory::new());
    store.put(&Path::parse("epoch=5/_SEAL").unwrap(), "x".into()).await.unwrap();
    let root =
        Root::from_store(Arc::clone(&store) as Arc<dyn ObjectStore>).with_paginated(paged(&store, 9, Paging::Right));
    let error = list_index(&root).await.unwrap_err();
    assert!(matches!(error, StoreError::NewerLayout { key } if key == "epoch=5/_SEAL"));
}
