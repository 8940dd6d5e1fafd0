//! Epochs that are numbered by version, on the command line: shown as v7/12, and taken so.

use epochwarden_store::Numbering;
use serde_json::json;

use super::*;

const VERSIONED: [&str; 2] = ["--numbering", "versioned"];

/// The whole number of `v{version}/{sequence}`.
const fn whole(version: u64, sequence: u64) -> u64 {
    (version << 40) + sequence
}

/// `v1/0` to `v1/3`, `v2/0` and `v2/1`, sealed by their leaders.
async fn filled() -> Folder {
    let folder = Folder::empty();
    for (version, holder, sequences) in [(1, "orders-a", 0..4), (2, "orders-b", 0..2)] {
        let backend = ObjectStoreBackend::builder(folder.root.store().clone())
            .instance_id(holder)
            .vnode_capacity(VNODES)
            .leading(version)
            .numbering(Numbering::Versioned)
            .build();
        backend.publish_fence(version, None).await.unwrap();
        for sequence in sequences {
            let epoch = whole(version, sequence);
            for vnode in 0..VNODES {
                backend.write_partial(vnode, epoch, version, Bytes::from_static(b"state")).await.unwrap();
            }
            assert!(backend.epoch_complete(epoch, &[0, 1]).await.unwrap());
        }
    }
    folder
}

fn with<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    VERSIONED.iter().chain(&["--vnodes", "2", "--keep-last", "1", "--min-age", "0s"]).chain(flags).copied().collect()
}

#[tokio::test]
async fn epochs_are_shown_and_pinned_by_version_and_sequence() {
    let folder = filled().await;
    assert_eq!(folder.run(&["latest"], &VERSIONED).with(0).stdout, "v2/1\n");
    assert_eq!(folder.run(&["latest"], &[]).with(0).stdout, "2199023255553\n");
    let shown = folder.run(&["latest"], &[&VERSIONED[..], &["-o", "json"]].concat()).with(0).stdout;
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), json!({ "latestCommitted": "v2/1" }));

    let table = folder.run(&["epochs"], &VERSIONED).with(0).stdout;
    assert!(table.contains("\n v1/3   sealed   orders-a") || table.contains("\nv1/3   sealed   orders-a"), "{table}");
    let drawn = folder.run(&["epochs", "--timeline"], &VERSIONED).with(0).stdout;
    assert!(drawn.starts_with("v1/0  ████·██"), "{drawn}");
    for shown in [&table, &drawn] {
        assert!(!shown.contains("10995") && !shown.contains("21990"), "{shown}");
    }

    let plan = folder.run(&["plan"], &with(&["--pin", "v1/0"])).with(0).stdout;
    assert!(plan.contains("v1/1 .. v2/0       4   delete   Expired"), "{plan}");
    assert!(plan.contains("floor   v2/1:"), "{plan}");
    let json = folder.run(&["plan"], &with(&["--pin", "v1/0", "-o", "json"])).with(0).stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["before"], &json["through"]), (&json!("v2/1"), &json!("v2/1")));
    assert_eq!(json["delete"], json!([{ "from": "v1/1", "to": "v2/0", "reason": "Expired" }]));
    assert_eq!(json["decisions"][0]["epoch"], "v1/0");
    assert_eq!(json["decisions"][0]["reason"], "Pinned");

    for (flags, words) in [
        (["--vnodes", "2", "--pin", "v1/0"], "the numbering is Plain"),
        (["--vnodes", "2", "--pin", "v1"], "write a decimal number"),
    ] {
        let refused = folder.run(&["plan"], &flags).with(2).stderr;
        assert!(refused.contains(words), "{refused}");
    }

    let pruned = folder.run(&["prune"], &with(&["--pin", "v1/0", "--yes"])).with(0).stdout;
    assert!(pruned.contains("floor v2/1:"), "{pruned}");
    assert_eq!(folder.epochs(), BTreeSet::from([whole(1, 0), whole(2, 1)]));
}

#[tokio::test]
async fn findings_name_epochs_by_version_and_sequence() {
    let folder = filled().await;
    std::fs::remove_file(folder.folder.path().join(format!("epoch={}/vnode=1/partial.bin", whole(1, 2)))).unwrap();
    let flags = [&VERSIONED[..], &["--vnodes", "2"]].concat();
    let text = folder.run(&["audit"], &flags).with(3).stdout;
    assert!(text.contains("critical   SealedIncomplete    v1/2\n"), "{text}");
    assert!(text.contains("epoch v1/2 cannot be restored") && !text.contains("10995"), "{text}");
    let json = folder.run(&["audit"], &[&flags[..], &["-o", "json"]].concat()).with(3).stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["findings"][0]["epoch"], "v1/2");
    assert_eq!(json["epochs"]["latestCommitted"], "v2/1");
}

#[tokio::test]
async fn a_version_without_epochs_is_not_published_by_hand() {
    let folder = Folder::empty();
    let publish = |version| folder.run(&["fence", "publish"], &["--version", version, "--holder", "a", "--yes"]);
    publish("8388607").with(0);
    let flags = ["--version", "8388608", "--holder", "a", "--numbering", "versioned"];
    let refused = folder.run(&["fence", "publish"], &flags).with(2).stderr;
    assert!(refused.contains("versions are 1..=8388607"), "{refused}");
    publish("8388608").with(0);
}

#[tokio::test]
async fn the_numbering_of_a_policy_counts() {
    let folder = filled().await;
    let manifest = format!(
        "apiVersion: epochwarden.io/v1alpha1\nkind: StateEpochPolicy\nmetadata: {{name: orders}}\nspec:\n  store: {{url: \"{}\"}}\n  \
         vnodes: 2\n  numbering: Versioned\n  retention: {{keepLast: 1, pinned: [{{epoch: v1/0}}]}}\n  prune: {{minAge: 0s}}\n",
        folder.root.url()
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), manifest).unwrap();
    let policy = file.path().to_str().unwrap();
    assert_eq!(run(["latest", "--policy", policy].iter()).with(0).stdout, "v2/1\n");
    let plan = run(["plan", "--policy", policy].iter()).with(0).stdout;
    assert!(plan.contains("v1/1 .. v2/0       4   delete   Expired") && plan.contains("Pinned"), "{plan}");
    let refused = run(["latest", "--policy", policy, "--numbering", "plain"].iter()).with(2).stderr;
    assert!(refused.contains("--numbering"), "{refused}");
}
