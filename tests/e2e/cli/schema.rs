//! What `-o json` shows is a promise: the names and types of every verb, written down.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Folder, RULES, run};

/// Every path of a document with its type: `a.b[]: string`. Members of a map whose names are data are one path, `*`.
fn paths(document: &Value, maps: &[&str]) -> BTreeSet<String> {
    fn walk(path: &str, value: &Value, maps: &[&str], paths: &mut BTreeSet<String>) {
        let leaf = |type_: &str| format!("{}: {type_}", path.trim_start_matches('.'));
        match value {
            Value::Null => drop(paths.insert(leaf("null"))),
            Value::Bool(_) => drop(paths.insert(leaf("boolean"))),
            Value::Number(_) => drop(paths.insert(leaf("number"))),
            Value::String(_) => drop(paths.insert(leaf("string"))),
            Value::Array(items) => {
                if items.is_empty() {
                    paths.insert(leaf("array"));
                }
                for item in items {
                    walk(&format!("{path}[]"), item, maps, paths);
                }
            }
            Value::Object(fields) => {
                for (name, value) in fields {
                    let name = if maps.contains(&path.trim_start_matches('.')) { "*" } else { name };
                    walk(&format!("{path}.{name}"), value, maps, paths);
                }
            }
        }
    }
    let mut paths = BTreeSet::new();
    walk("", document, maps, &mut paths);
    paths
}

#[track_caller]
fn assert_schema(document: &Value, maps: &[&str], expected: &str) {
    let expected: BTreeSet<String> =
        expected.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let found = paths(document, maps);
    let more: Vec<_> = found.difference(&expected).collect();
    let less: Vec<_> = expected.difference(&found).collect();
    assert!(more.is_empty() && less.is_empty(), "not written down: {more:#?}\nnot there: {less:#?}");
}

const REQUESTS: &str = "
    requests.list: number
    requests.get: number
    requests.head: number
    requests.put: number
    requests.delete: number
";

#[tokio::test(flavor = "multi_thread")]
async fn epochs_and_latest() {
    let folder = Folder::filled().await;
    assert_schema(
        &folder.run(&["epochs"], &["-o", "json"]).with(0).json(),
        &[],
        &format!(
            "root: string
             summary.latestCommitted: string
             summary.latestCommittedAt: string
             summary.oldestSealed: string
             summary.sealed: number
             summary.unsealed: number
             summary.objects: number
             summary.bytes: number
             summary.observedAt: string
             epochs[].epoch: string
             epochs[].state: string
             epochs[].committer: string
             epochs[].committer: null
             epochs[].objects: number
             epochs[].bytes: number
             epochs[].modifiedAt: string
             epochs[].sealedAt: string
             epochs[].sealedAt: null
             foreignKeys: number
             {REQUESTS}"
        ),
    );
    assert_schema(&folder.run(&["latest"], &["-o", "json"]).with(0).json(), &[], "latestCommitted: string");
}

const PLAN: &str = "
    digest: string
    before: string
    through: string
    computedAt: string
    epochs: number
    objects: number
    bytes: number
    keep[].from: string
    keep[].to: string
    keep[].reason: string
    delete[].from: string
    delete[].to: string
    delete[].reason: string
";

#[tokio::test(flavor = "multi_thread")]
async fn plan_and_prune() {
    let folder = Folder::filled().await;
    let flags = [&RULES[..], &["-o", "json"]].concat();
    assert_schema(
        &folder.run(&["plan"], &flags).with(0).json(),
        &[],
        &format!(
            "root: string
             {PLAN}
             hold: null
             decisions[].epoch: string
             decisions[].action: string
             decisions[].reason: string
             decisions[].sealed: boolean
             decisions[].complete: boolean
             decisions[].objects: number
             decisions[].bytes: number
             decisions[].newest: string
             {REQUESTS}"
        ),
    );
    let plan: Vec<_> =
        PLAN.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| format!("plan.{line}")).collect();
    let plan = plan.join("\n");
    let prune = format!(
        "root: string
         startedAt: string
         finishedAt: string
         outcome: string
         {plan}
         plan.hold: null
         found.latestCommitted: string
         found.latestCommittedAt: string
         found.oldestSealed: string
         found.sealed: number
         found.unsealed: number
         found.objects: number
         found.bytes: number
         found.observedAt: string
         floor: string
         epochs: number
         objects: number
         bytes: number
         failed: number
         errors: array
         remainder.epochs: number
         remainder.objects: number
         {REQUESTS}"
    );
    let stopped = [&flags[..], &["--yes", "--max-objects", "3"]].concat();
    let document = folder.run(&["prune"], &stopped).with(0).json();
    assert_schema(&document, &[], &format!("{prune}\nstop.reason: string"));
    let document = folder.run(&["prune"], &[&flags[..], &["--yes"]].concat()).with(0).json();
    assert_schema(&document, &[], &prune);
}

#[tokio::test(flavor = "multi_thread")]
async fn audit() {
    let folder = Folder::filled().await;
    std::fs::remove_file(folder.folder.path().join("epoch=3/vnode=1/partial.bin")).unwrap();
    std::fs::write(folder.folder.path().join("README"), "not ours").unwrap();
    assert_schema(
        &folder.run(&["audit"], &["--vnodes", "2", "-o", "json"]).with(3).json(),
        &["counts"],
        &format!(
            "root: string
             startedAt: string
             finishedAt: string
             verdict: string
             coverage.epochs: number
             coverage.sealed: number
             coverage.objects: number
             coverage.markersRead: number
             coverage.recordsRead: number
             coverage.lookedAgain: number
             counts.*: number
             findings[].kind: string
             findings[].severity: string
             findings[].epoch: string
             findings[].epoch: null
             findings[].vnode: number
             findings[].vnode: null
             findings[].detail: string
             truncated: boolean
             latestCommitter: string
             epochs.latestCommitted: string
             epochs.latestCommittedAt: string
             epochs.oldestSealed: string
             epochs.sealed: number
             epochs.unsealed: number
             epochs.objects: number
             epochs.bytes: number
             epochs.observedAt: string
             {REQUESTS}"
        ),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn fence() {
    let folder = Folder::filled().await;
    let publish = ["--version", "7", "--holder", "worker-1", "-o", "json"];
    assert_schema(
        &folder.run(&["fence", "publish"], &publish).with(0).json(),
        &[],
        "root: string
         version: number
         holder: string
         outcome: string
         before: number",
    );
    assert_schema(
        &folder.run(&["fence", "show"], &["-o", "json"]).with(0).json(),
        &[],
        "root: string
         version: number
         holder: string
         lease: null
         publisher: string
         publishedAt: string
         records: number
         unreadable: null",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn probe() {
    let folder = Folder::filled().await;
    assert_schema(
        &folder.run(&["probe"], &["-o", "json"]).with(0).json(),
        &[],
        &format!(
            "root: string
             startedAt: string
             finishedAt: string
             capabilities.conditionalCreate: boolean
             capabilities.consistentList: boolean
             capabilities.bulkDelete: boolean
             capabilities.delimiterIndex: boolean
             capabilities.versioned: boolean
             capabilities.objectLock: boolean
             problems: array
             {REQUESTS}"
        ),
    );
}

#[test]
fn help_of_every_verb_names_what_it_does_its_flags_and_an_example() {
    for verb in [
        &["controller"][..],
        &["epochs"],
        &["latest"],
        &["plan"],
        &["prune"],
        &["audit"],
        &["fence", "show"],
        &["fence", "publish"],
        &["probe"],
        &["crd"],
    ] {
        let help = run(&[verb, &["--help"]].concat()).with(0).stdout;
        for part in ["Usage: epochwarden", "Example", "Options:"] {
            assert!(help.contains(part), "{verb:?} has no {part}: {help}");
        }
        assert!(help.lines().all(|line| line.chars().count() <= 110), "{verb:?} is too wide: {help}");
    }
    let all = run(&["--help"]).with(0).stdout;
    assert!(all.contains("Exit codes:") && all.contains("refused by a safety rule"), "{all}");
}
