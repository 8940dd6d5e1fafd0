//! `--policy FILE`: the manifest of a policy in the place of the single flags.

use std::path::PathBuf;

use super::{Folder, RULES, run};

/// The manifest of a policy with the rules of [`RULES`] for this folder.
fn manifest(folder: &Folder, prune: &str) -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("orders.yaml");
    let text = format!(
        "apiVersion: epochwarden.io/v1alpha1\nkind: StateEpochPolicy\nmetadata:\n  name: orders\nspec:\n  store:\n    url: {}\n  vnodes: 2\n  \
         retention:\n    keepLast: 2\n  prune:\n    minAge: 0s\n{prune}  audit:\n    stalledAfter: 1h\n",
        folder.root.url()
    );
    std::fs::write(&file, text).unwrap();
    (place, file)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_gives_the_same_plan_as_the_flags_that_say_the_same() {
    let folder = Folder::filled().await;
    let (_place, file) = manifest(&folder, "");
    let file = file.display().to_string();
    let by_flags = folder.run(&["plan"], &[&RULES[..], &["-o", "json"]].concat()).with(0).json();
    let by_file = run(&["plan", "--policy", &file, "-o", "json"]).with(0).json();
    assert_eq!(by_file["digest"], by_flags["digest"]);
    assert_eq!(by_file["decisions"], by_flags["decisions"]);
    for verb in [&["epochs"][..], &["latest"], &["audit"]] {
        let line: Vec<&str> = verb.iter().copied().chain(["--policy", &file]).collect();
        run(&line).with(0);
    }
    run(&["prune", "--policy", &file, "--yes"]).with(0);
    assert_eq!(folder.epochs(), [5, 7, 8].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_beside_the_policy_that_says_the_same_is_wrong_usage() {
    let folder = Folder::filled().await;
    let (_place, file) = manifest(&folder, "");
    let file = file.display().to_string();
    for flag in [["--keep-last", "1"], ["--vnodes", "2"], ["--store", "file:///tmp"], ["--min-age", "1s"]] {
        let line = [&["plan", "--policy", &file][..], &flag].concat();
        let ended = run(&line).with(2);
        assert!(ended.stderr.contains("--policy") && ended.stderr.contains(flag[0]), "{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yes_in_advance_opens_no_gate_of_the_policy_and_the_digest_does() {
    for gate in ["    approval: Manual\n", "    holdAbove:\n      epochs: 3\n      percent: 50\n"] {
        let folder = Folder::filled().await;
        let (_place, file) = manifest(&folder, gate);
        let file = file.display().to_string();
        let before = folder.files();
        let refused = run(&["prune", "--policy", &file, "--yes"]).with(4);
        assert!(refused.error().contains("--plan-digest"), "{}", refused.stderr);
        let report = run(&["prune", "--policy", &file, "--yes", "-o", "json"]).with(4).json();
        assert_eq!(report["outcome"], "AwaitingApproval");
        assert_eq!(folder.files(), before, "{gate}");

        let digest = report["plan"]["digest"].as_str().unwrap();
        run(&["prune", "--policy", &file, "--plan-digest", digest]).with(0);
        assert_eq!(folder.epochs(), [5, 7, 8].into(), "{gate}");
    }
    // Of the seven epochs four would go: not above both.
    let folder = Folder::filled().await;
    let (_place, file) = manifest(&folder, "    holdAbove:\n      epochs: 3\n      percent: 60\n");
    run(&["prune", "--policy", &file.display().to_string(), "--yes"]).with(0);
    assert_eq!(folder.epochs(), [5, 7, 8].into());
}

#[test]
fn a_file_that_is_no_policy_is_named_with_what_to_write() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("secret.yaml");
    for (text, words) in [
        ("apiVersion: v1\nkind: Secret\n", "write epochwarden.io/v1alpha1"),
        (
            "apiVersion: epochwarden.io/v1alpha1\nkind: StateEpochPolicy\nspec:\n  store: {url: 's3://state'}\n  vnodes: 4\n  shards: 4\n",
            "spec.shards",
        ),
        ("a: [", "not a StateEpochPolicy"),
    ] {
        std::fs::write(&file, text).unwrap();
        let ended = run(&["epochs", "--policy", &file.display().to_string()]).with(2);
        assert!(ended.error().contains(words) && ended.stderr.contains("secret.yaml"), "{}", ended.stderr);
    }
    let missing = place.path().join("missing.yaml").display().to_string();
    assert!(run(&["epochs", "--policy", &missing]).with(2).error().contains("missing.yaml"));
}
