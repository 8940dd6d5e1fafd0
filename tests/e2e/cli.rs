//! The command line as a shell meets it: the binary, a local folder, exit codes, and what is printed.

mod by_hand;
mod numbered;
mod policy_file;
mod schema;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bytes::Bytes;
use epochwarden_core::register::OwnerRecord;
use epochwarden_core::{Epoch, Version};
use epochwarden_store::{ObjectStoreBackend, Registers, Root, RootSettings, StateBackend};
use serde_json::Value;
use tempfile::TempDir;

const VNODES: u32 = 2;

/// Keeps the newest two of the six sealed epochs of [`Folder::filled`], and what is above them.
const RULES: [&str; 6] = ["--vnodes", "2", "--keep-last", "2", "--min-age", "0s"];

/// A folder that a pipeline writes to.
struct Folder {
    folder: TempDir,
    root: Root,
}

impl Folder {
    fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().display());
        let root = Root::open(&url, [], &RootSettings::default()).unwrap();
        Self { folder, root }
    }

    /// Sealed epochs 1 to 5 and 7, and epoch 8 in flight.
    async fn filled() -> Self {
        let folder = Self::empty();
        for epoch in [1, 2, 3, 4, 5, 7] {
            folder.write(epoch).await;
            assert!(folder.backend().epoch_complete(epoch, &[0, 1]).await.unwrap());
        }
        folder.write(8).await;
        folder
    }

    fn backend(&self) -> ObjectStoreBackend {
        ObjectStoreBackend::new(self.root.store().clone(), "worker-1", VNODES)
    }

    async fn write(&self, epoch: u64) {
        for vnode in 0..VNODES {
            self.backend().write_partial(vnode, epoch, 0, Bytes::from_static(b"state")).await.unwrap();
        }
    }

    async fn owned(self) -> Self {
        let owner = OwnerRecord {
            cluster: "c1".to_owned(),
            namespace: "streaming".to_owned(),
            name: "orders".to_owned(),
            uid: "u1".to_owned(),
            take_over: None,
        };
        Registers::new(self.root.clone(), "a test").claim_owner(&owner).await.unwrap();
        self
    }

    /// Runs a verb on this folder.
    fn run(&self, verb: &[&str], flags: &[&str]) -> Ended {
        run(verb.iter().chain(&["--store", self.root.url()]).chain(flags))
    }

    /// Every file, relative to the folder.
    fn files(&self) -> BTreeSet<PathBuf> {
        let mut files = BTreeSet::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.insert(path.strip_prefix(self.folder.path()).unwrap().to_owned());
                }
            }
        }
        files
    }

    /// The epochs that have files.
    fn epochs(&self) -> BTreeSet<u64> {
        let files = self.files();
        let folders = files.iter().filter_map(|file| file.iter().next()?.to_str()?.strip_prefix("epoch="));
        folders.map(|number| number.parse().unwrap()).collect()
    }
}

/// How the binary ended.
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ended {
    #[track_caller]
    fn with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    /// An error is one that says what happened, without the insides of the program.
    #[track_caller]
    fn error(&self) -> &str {
        let error = self.stderr.strip_prefix("error: ").unwrap_or_else(|| panic!("{}", self.stderr));
        assert!(!error.contains("backtrace") && !error.contains("panicked"), "{error}");
        assert!(self.stdout.is_empty(), "{}", self.stdout);
        error
    }
}

fn run<'a>(arguments: impl IntoIterator<Item = &'a &'a str>) -> Ended {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_epochwarden"))
        .args(arguments)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: status.code().unwrap(), stdout: text(stdout), stderr: text(stderr) }
}

fn flags<'a>(more: &[&'a str]) -> Vec<&'a str> {
    RULES.iter().chain(more).copied().collect()
}

/// The requests that a result carries; every operation is named.
#[track_caller]
fn requests(json: &Value) -> [u64; 5] {
    ["list", "get", "head", "put", "delete"].map(|operation| json["requests"][operation].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_are_listed_with_state_committer_objects_bytes_and_age() {
    let folder = Folder::filled().await;
    let table = folder.run(&["epochs"], &[]).with(0).stdout;
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["EPOCH", "STATE", "COMMITTER", "OBJECTS", "BYTES", "AGE"]);
    assert_eq!(lines[1][..6], ["1", "sealed", "worker-1", "3", "18", "B"]);
    assert_eq!(lines[7][..6], ["8", "unsealed", "-", "2", "10", "B"]);

    let json = folder.run(&["epochs"], &["-o", "json"]).with(0).json();
    assert_eq!(json["summary"]["latestCommitted"], "7");
    assert_eq!((&json["summary"]["sealed"], &json["summary"]["unsealed"]), (&6.into(), &1.into()));
    let epochs = json["epochs"].as_array().unwrap();
    assert_eq!(epochs.len(), 7);
    assert_eq!((&epochs[5]["epoch"], &epochs[5]["committer"]), (&"7".into(), &"worker-1".into()));
    assert!(epochs[6]["committer"].is_null() && epochs[6]["sealedAt"].is_null());

    let yaml = folder.run(&["epochs"], &["-o", "yaml"]).with(0).stdout;
    let from_yaml: Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(from_yaml["epochs"], json["epochs"]);

    let timeline = folder.run(&["epochs"], &["--timeline"]).with(0).stdout;
    assert_eq!(timeline, "1  █████·█░\n\n█ 6 sealed   ░ 1 unsealed   · 1 gap\n");
    folder.run(&["epochs"], &["--timeline", "-o", "json"]).with(2).error();
}

#[tokio::test(flavor = "multi_thread")]
async fn latest_is_a_number_alone_and_nothing_there_is_not_a_failure() {
    let folder = Folder::filled().await;
    assert_eq!(folder.run(&["latest"], &[]).with(0).stdout, "7\n");
    assert_eq!(folder.run(&["latest"], &["-o", "json"]).with(0).json()["latestCommitted"], "7");
    assert_eq!(Folder::empty().run(&["latest"], &[]).with(3).stdout, "");

    let missing = format!("file://{}/missing", folder.folder.path().display());
    assert!(run(&["latest", "--store", &missing]).with(1).error().contains("missing"));
    let unknown = folder.run(&["latest"], &["--store-option", "aws_regoin=x"]).with(2);
    assert!(unknown.error().contains("aws_regoin"));
    assert!(run(&["latest", "--store", "https://state"]).with(2).error().contains("https://state"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_has_a_reason_for_every_epoch_and_writes_nothing() {
    let folder = Folder::filled().await;
    let before = folder.files();
    let json = folder.run(&["plan"], &flags(&["-o", "json", "--pin", "2"])).with(0).json();
    let decisions: Vec<_> = json["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|planned| ["epoch", "action", "reason"].map(|field| planned[field].as_str().unwrap()))
        .collect();
    let expected = [
        ["1", "delete", "Expired"],
        ["2", "keep", "Pinned"],
        ["3", "delete", "Expired"],
        ["4", "delete", "Expired"],
        ["5", "keep", "KeepLast"],
        ["7", "keep", "Latest"],
        ["8", "keep", "Unsealed"],
    ];
    assert_eq!(decisions, expected);
    assert_eq!((&json["before"], &json["epochs"], &json["objects"]), (&"5".into(), &3.into(), &9.into()));
    let [list, get, head, put, delete] = requests(&json);
    assert!(list > 0 && [get, head, put, delete] == [0; 4], "{json}");

    let table = folder.run(&["plan"], &RULES).with(0).stdout;
    assert!(table.contains("1 .. 4") && table.contains("Expired"), "{table}");
    assert_eq!(folder.files(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_plan_is_shown_and_refused() {
    let folder = Folder::filled().await;
    // Someone writes below the newest seal again.
    folder.write(1).await;
    let held = folder.run(&["plan"], &flags(&["-o", "json"])).with(4).json();
    assert_eq!(held["hold"]["reason"], "EpochRegression");
    let before = folder.files();
    assert!(folder.run(&["prune"], &flags(&["--yes"])).with(4).error().contains("epoch 1"));
    let report = folder.run(&["prune"], &flags(&["--yes", "-o", "json"])).with(4).json();
    assert_eq!((&report["outcome"], &report["reason"]), (&"Held".into(), &"EpochRegression".into()));
    assert_eq!(folder.files(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_deletes_exactly_what_its_plan_says_and_publishes_the_floor() {
    let folder = Folder::filled().await;
    let kept: BTreeSet<PathBuf> = folder
        .files()
        .into_iter()
        .filter(|file| ["epoch=5", "epoch=7", "epoch=8"].iter().any(|epoch| file.starts_with(epoch)))
        .collect();
    let plan = folder.run(&["plan"], &flags(&["-o", "json"])).with(0).json();
    let json = folder.run(&["prune"], &flags(&["--yes", "-o", "json"])).with(0).json();
    assert_eq!(json["plan"]["digest"], plan["digest"]);
    assert_eq!((&json["epochs"], &json["objects"], &json["bytes"]), (&4.into(), &12.into(), &72.into()));
    assert_eq!((&json["outcome"], &json["failed"], &json["floor"]), (&"Succeeded".into(), &0.into(), &"5".into()));
    let [list, _, _, put, delete] = requests(&json);
    assert!(list > 0 && put == 1 && delete == 12, "{json}");

    let floor: BTreeSet<PathBuf> = [Path::new("_epochwarden/floor").join(format!("{:020}", 5))].into();
    assert_eq!(folder.files(), &kept | &floor);

    let again = folder.run(&["prune"], &flags(&["--yes", "-o", "json"])).with(0).json();
    assert_eq!((&again["outcome"], &again["epochs"], &again["objects"]), (&"Succeeded".into(), &0.into(), &0.into()));
    assert_eq!(requests(&again)[3..], [0, 0], "{again}");
    assert_eq!(folder.files(), &kept | &floor);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_that_nobody_can_be_asked_about_needs_a_word() {
    let folder = Folder::filled().await;
    let before = folder.files();
    assert!(folder.run(&["prune"], &RULES).with(2).error().contains("--yes"));
    let keeps = folder.run(&["prune"], &["--vnodes", "2", "--min-age", "0s", "--yes"]).with(0);
    assert!(keeps.stdout.starts_with("everything is kept"), "{}", keeps.stdout);
    assert_eq!(folder.files(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_of_a_digest_executes_that_plan_or_nothing() {
    let folder = Folder::filled().await;
    let before = folder.files();
    let wrong = "0".repeat(64);
    let refused = folder.run(&["prune"], &flags(&["--plan-digest", &wrong])).with(4);
    assert!(refused.error().contains(&wrong));
    assert_eq!(folder.files(), before);

    let plan = folder.run(&["plan"], &flags(&["-o", "json"])).with(0).json();
    let digest = plan["digest"].as_str().unwrap();
    // The word for one plan is none for another.
    let other = ["--vnodes", "2", "--keep-last", "1", "--min-age", "0s", "--plan-digest", digest];
    folder.run(&["prune"], &other).with(4);
    assert_eq!(folder.files(), before);
    folder.run(&["prune"], &flags(&["--plan-digest", digest])).with(0);
    assert_eq!(folder.epochs(), [5, 7, 8].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_stops_at_its_number_of_objects_and_the_next_one_goes_on() {
    let folder = Folder::filled().await;
    let json = folder.run(&["prune"], &flags(&["--yes", "--max-objects", "6", "-o", "json"])).with(0).json();
    assert_eq!((&json["outcome"], &json["stop"]["reason"]), (&"Stopped".into(), &"MaxObjects".into()));
    assert_eq!((&json["epochs"], &json["remainder"]["epochs"]), (&2.into(), &2.into()), "{json}");
    assert_eq!(folder.epochs(), [3, 4, 5, 7, 8].into());
    folder.run(&["prune"], &flags(&["--yes"])).with(0);
    assert_eq!(folder.epochs(), [5, 7, 8].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_of_a_policy_is_left_to_it_unless_its_owner_is_ignored() {
    let folder = Folder::filled().await.owned().await;
    let before = folder.files();
    let refused = folder.run(&["prune"], &flags(&["--yes"])).with(4);
    assert!(refused.error().contains("streaming/orders") && refused.stderr.contains("--ignore-owner"));
    assert_eq!(folder.files(), before);
    folder.run(&["prune"], &flags(&["--yes", "--ignore-owner"])).with(0);
    assert_eq!(folder.epochs(), [5, 7, 8].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_is_quiet_about_whole_epochs_and_ends_with_3_when_one_is_not() {
    let folder = Folder::filled().await;
    let before = folder.files();
    let clean = folder.run(&["audit"], &["--vnodes", "2", "-o", "json"]).with(0).json();
    assert_eq!((&clean["verdict"], &clean["coverage"]["sealed"]), (&"Clean".into(), &6.into()));
    assert_eq!(clean["findings"], serde_json::json!([]));
    let [list, _, _, put, delete] = requests(&clean);
    assert!(list > 0 && put == 0 && delete == 0, "{clean}");
    assert_eq!(folder.files(), before);

    std::fs::remove_file(folder.folder.path().join("epoch=3/vnode=1/partial.bin")).unwrap();
    let critical = folder.run(&["audit"], &["--vnodes", "2", "-o", "json"]).with(3).json();
    assert_eq!((&critical["verdict"], &critical["truncated"]), (&"Critical".into(), &false.into()));
    let finding = &critical["findings"][0];
    assert_eq!((&finding["kind"], &finding["severity"]), (&"SealedIncomplete".into(), &"critical".into()));
    assert_eq!((&finding["epoch"], &finding["vnode"]), (&"3".into(), &1.into()));
    assert_eq!(critical["counts"]["SealedIncomplete"], 1);
    let text = folder.run(&["audit"], &["--vnodes", "2"]).with(3).stdout;
    assert!(text.contains("SealedIncomplete") && text.contains("Critical"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fence_is_shown_with_its_holder_and_its_absence_is_nothing_there() {
    let folder = Folder::filled().await;
    assert_eq!(folder.run(&["fence", "show"], &[]).with(3).stdout, "");
    let registers = Registers::new(folder.root.clone(), "a test");
    for (version, holder) in [(3, "worker-1"), (4, "worker-2")] {
        registers.publish_fence(Version::new(version), holder, None).await.unwrap();
    }
    let json = folder.run(&["fence", "show"], &["-o", "json"]).with(0).json();
    assert_eq!((&json["version"], &json["holder"], &json["records"]), (&4.into(), &"worker-2".into(), &2.into()));
    assert!(json["lease"].is_null() && json["unreadable"].is_null());
    assert_eq!(json["publisher"], "a test");
    json["publishedAt"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let text = folder.run(&["fence", "show"], &[]).with(0).stdout;
    assert!(text.starts_with("version     4\nholder      worker-2\n"), "{text}");
}

#[test]
fn the_crd_is_yaml_that_names_the_resource() {
    let crd: Value = serde_saphyr::from_str(&run(&["crd"]).with(0).stdout).unwrap();
    assert_eq!(
        (&crd["kind"], &crd["metadata"]["name"]),
        (&"CustomResourceDefinition".into(), &"stateepochpolicies.epochwarden.io".into())
    );
}

#[test]
fn wrong_usage_ends_with_2_and_help_with_0() {
    run(&[]).with(2);
    run(&["plan", "--store", "file:///tmp"]).with(2);
    assert!(run(&["prune", "--help"]).with(0).stdout.contains("--ignore-owner"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_beyond_what_a_policy_can_pin_works_here() {
    let folder = Folder::empty();
    folder.write(u64::MAX).await;
    assert!(folder.backend().epoch_complete(u64::MAX, &[0, 1]).await.unwrap());
    assert_eq!(folder.run(&["latest"], &[]).with(0).stdout, format!("{}\n", Epoch::new(u64::MAX)));
}
