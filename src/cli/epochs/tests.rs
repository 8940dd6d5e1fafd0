use std::sync::Arc;

use epochwarden_core::inventory::InventoryBuilder;
use epochwarden_store::list_inventory;
use object_store::memory::InMemory;

use super::*;

const NAME: &str = "worker-1";

async fn root(seals: &[(u64, Vec<u8>)]) -> Root {
    let root = Root::from_store(Arc::new(InMemory::new()));
    for (epoch, body) in seals {
        let path = root.path(&key::commit(Epoch::new(*epoch))).unwrap();
        root.store().put(&path, body.clone().into()).await.unwrap();
    }
    root
}

fn named(name: &str) -> Committer {
    Committer::Named(name.to_owned())
}

#[tokio::test]
async fn a_seal_names_its_committer_or_is_malformed() {
    let long = "x".repeat(1025).into_bytes();
    let root = root(&[(1, b"a".to_vec()), (2, Vec::new()), (3, vec![0xff]), (4, long), (5, b"b".to_vec())]).await;
    let inventory = list_inventory(&root, None).await.unwrap();
    let expected = [named("a"), Committer::Malformed, Committer::Malformed, Committer::Malformed, named("b")];
    let committers = committers(&root, &inventory).await.unwrap();
    assert_eq!(committers, (1..).map(Epoch::new).zip(expected).collect());
    // A body whose size alone is wrong is not fetched.
    assert_eq!(root.requests().get, 3);
}

#[tokio::test]
async fn seals_with_the_same_digest_are_read_once_and_other_etags_say_nothing() {
    let bodies: Vec<_> = (1..=6).map(|epoch| (epoch, NAME.as_bytes().to_vec())).collect();
    let root = root(&bodies).await;
    let digest = format!("\"{}\"", "0a".repeat(16));
    let mut builder = InventoryBuilder::without_vnodes();
    for (epoch, etag) in [(1, digest.as_str()), (2, &digest), (3, &digest), (4, "\"8d1f\""), (5, "\"8d1f\"")] {
        let size = NAME.len() as u64;
        builder.observe(&key::commit(Epoch::new(epoch)), size, Timestamp::UNIX_EPOCH, Some(etag));
    }
    let committers = committers(&root, &builder.finish()).await.unwrap();
    assert_eq!(committers, (1..=5).map(|epoch| (Epoch::new(epoch), named(NAME))).collect());
    assert_eq!(root.requests().get, 3, "one for the digest, two for the rest");
}

#[tokio::test]
async fn a_seal_that_a_prune_took_away_meanwhile_is_gone_and_no_failure() {
    let mut builder = InventoryBuilder::without_vnodes();
    builder.observe("epoch=1/_COMMIT", 8, Timestamp::UNIX_EPOCH, None);
    let committers = committers(&root(&[]).await, &builder.finish()).await.unwrap();
    assert_eq!(committers, BTreeMap::from([(Epoch::new(1), Committer::Gone)]));
}

#[test]
fn the_table_shows_state_committer_objects_bytes_and_age() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let mut builder = InventoryBuilder::without_vnodes();
    builder.observe("epoch=9/vnode=0/partial.bin", 2048, at(1000), None);
    builder.observe("epoch=9/_COMMIT", 8, at(1010), None);
    builder.observe("epoch=10/vnode=0/partial.bin", 100, at(1100), None);
    builder.observe("readme.txt", 1, at(1), None);
    let root = Root::from_store(Arc::new(InMemory::new()));
    let committers = BTreeMap::from([(Epoch::new(9), named(NAME))]);
    let shown = show(&root, &builder.finish(), committers, at(1130));
    let expected = "\
EPOCH   STATE      COMMITTER   OBJECTS     BYTES   AGE
    9   sealed     worker-1          2   2.0 KiB    2m
   10   unsealed   -                 1     100 B   30s

1 sealed, 1 unsealed, 3 objects, 2.1 KiB
1 key belongs to no epoch
";
    assert_eq!(text(&shown, at(1130)), expected);
    let json = serde_json::to_value(&shown).unwrap();
    assert_eq!(json["epochs"][0]["epoch"], "9");
    assert_eq!(json["epochs"][0]["committer"], NAME);
    assert_eq!(json["epochs"][0]["sealedAt"], "1970-01-01T00:16:50Z");
    assert!(json["epochs"][1]["committer"].is_null() && json["epochs"][1]["sealedAt"].is_null());
    assert_eq!(json["epochs"][1]["state"], "unsealed");
    assert_eq!(json["summary"]["latestCommitted"], "9");
}
