//! `fence publish` and `probe`: what a person does to a root by hand.

use super::Folder;

fn publish<'a>(version: &'a str, holder: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["--version", version, "--holder", holder], more].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fence_rises_by_hand_and_never_falls() {
    let folder = Folder::filled().await;
    let json = folder.run(&["fence", "publish"], &publish("7", "worker-1", &["-o", "json"])).with(0).json();
    assert_eq!((&json["version"], &json["before"], &json["outcome"]), (&7.into(), &0.into(), &"Created".into()));
    let shown = folder.run(&["fence", "show"], &["-o", "json"]).with(0).json();
    assert_eq!((&shown["version"], &shown["holder"]), (&7.into(), &"worker-1".into()));
    assert_eq!((&shown["publisher"], &shown["lease"]), (&"epochwarden-cli".into(), &serde_json::Value::Null));

    let files = folder.files();
    let again = folder.run(&["fence", "publish"], &publish("7", "worker-1", &["-o", "json"])).with(0).json();
    assert_eq!(again["outcome"], "AlreadyThere");
    let lower = folder.run(&["fence", "publish"], &publish("6", "worker-1", &[])).with(4);
    assert!(lower.error().contains("stands at 7"), "{}", lower.stderr);
    let other = folder.run(&["fence", "publish"], &publish("7", "worker-2", &[])).with(4);
    assert!(other.error().contains("worker-1"), "{}", other.stderr);
    assert_eq!(folder.files(), files);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_that_may_be_a_typing_error_needs_a_word() {
    let folder = Folder::empty();
    folder.run(&["fence", "publish"], &publish("5", "worker-1", &[])).with(0);
    let files = folder.files();
    let jump = folder.run(&["fence", "publish"], &publish("1000006", "worker-1", &[])).with(2);
    assert!(jump.error().contains("--yes") && jump.stderr.contains("never be lowered"), "{}", jump.stderr);
    assert_eq!(folder.files(), files);
    folder.run(&["fence", "publish"], &publish("1000006", "worker-1", &["--yes"])).with(0);
    assert_eq!(folder.run(&["fence", "show"], &["-o", "json"]).with(0).json()["version"], 1_000_006);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_of_a_safe_store_says_so_and_leaves_nothing_behind() {
    let folder = Folder::filled().await;
    let before = folder.files();
    let json = folder.run(&["probe"], &["-o", "json"]).with(0).json();
    for capability in ["conditionalCreate", "consistentList"] {
        assert_eq!(json["capabilities"][capability], true, "{json:#}");
    }
    assert_eq!(json["capabilities"]["versioned"], false);
    assert!(json["requests"]["put"].as_u64().unwrap() >= 16, "{json:#}");
    let text = folder.run(&["probe"], &[]).with(0).stdout;
    assert!(text.contains("yes  conditionalCreate") && text.ends_with("\nsafe\n"), "{text}");
    assert_eq!(folder.files(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_fence_can_stand_at_is_wrong_usage() {
    let folder = Folder::empty();
    for line in [publish("0", "worker-1", &[]), publish("9007199254740992", "worker-1", &[]), publish("1", "", &[])] {
        folder.run(&["fence", "publish"], &line).with(2);
    }
    assert!(folder.files().is_empty());
}
