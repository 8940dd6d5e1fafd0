//! One root, the processes that worked in it one after the other, and what has to be true of it after each.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use epochwarden_core::Numbering;
use epochwarden_core::finding::FindingKind;
use epochwarden_core::key::Key;
use epochwarden_core::register::Reading;
use epochwarden_store::{Root, SystemClock, audit, crash, list_registers};
use epochwarden_testkit::process::Process;
use epochwarden_testkit::s3server::S3Server;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::part::{self, KEPT, Part, SEALED, State, Told, VNODES};

/// The longest that a process is waited for.
const SOON: Duration = Duration::from_mins(2);

const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;

#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Folder,
    S3,
}

/// How a process ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Well,
    Died,
}

pub(super) struct Scene {
    test: String,
    /// That of the last process.
    part: Part,
    /// Where it was to die.
    point: Option<String>,
    root: Root,
    /// What the registers stood at when they were looked at last.
    seen: Reading,
    folder: TempDir,
}

impl Scene {
    pub(super) async fn new(test: &str, place: Place, numbering: Numbering) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (url, options) = match place {
            Place::Folder => {
                let state = folder.path().join("state");
                std::fs::create_dir(&state).unwrap();
                (format!("file://{}", state.display()), Vec::new())
            }
            Place::S3 => {
                let server = S3Server::shared().await.unwrap();
                let name = uuid::Uuid::new_v4().to_string();
                server.create_bucket(&name).unwrap();
                (format!("s3://{name}/state"), server.options())
            }
        };
        let part = Part {
            url,
            options,
            versioned: numbering == Numbering::Versioned,
            version: 0,
            instance: String::new(),
            journal: folder.path().join("journal"),
        };
        Self { test: test.to_owned(), root: part.root(), part, point: None, seen: Reading::default(), folder }
    }

    /// A process of this name leads the next version. It dies at `point`, if it comes there.
    pub(super) async fn play(&mut self, instance: &str, point: Option<&str>) -> Ended {
        let mut process = self.start(instance, point);
        let status = process.wait_exit(SOON).await.unwrap();
        match status.signal() {
            None if status.success() => Ended::Well,
            Some(SIGABRT) if point.is_some() => Ended::Died,
            _ => panic!("{}: it ended with {status}:\n{}", self.who(), process.log()),
        }
    }

    /// A process of this name leads the next version, and is killed after this time wherever it is.
    pub(super) async fn play_for(&mut self, instance: &str, alive: Duration) -> Ended {
        let mut process = self.start(instance, None);
        // That it has not ended yet is no error here.
        let _ = process.wait_exit(alive).await;
        process.kill().unwrap();
        let status = process.status().unwrap().unwrap();
        match status.signal() {
            None if status.success() => Ended::Well,
            Some(SIGKILL) => Ended::Died,
            _ => panic!("{}: it ended with {status}:\n{}", self.who(), process.log()),
        }
    }

    fn start(&mut self, instance: &str, point: Option<&str>) -> Process {
        self.part.version += 1;
        instance.clone_into(&mut self.part.instance);
        self.point = point.map(str::to_owned);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", &self.test, "--nocapture", "--test-threads=1"])
            .env(part::VARIABLE, serde_json::to_string(&self.part).unwrap())
            .env_remove(crash::VARIABLE)
            .env_remove(crash::PANIC_VARIABLE);
        if let Some(point) = point {
            command.env(crash::VARIABLE, point);
        }
        Process::spawn("a pipeline", &mut command, &self.folder.path().join("log")).unwrap()
    }

    /// The process that was the last one, for messages.
    fn who(&self) -> String {
        let Part { url, version, instance, versioned, .. } = &self.part;
        let numbers = if *versioned { "versioned" } else { "plain" };
        let point = self.point.as_deref().unwrap_or("no point");
        format!("{instance}, which led {version} with {numbers} numbers in {url} and died at {point}")
    }

    /// What has to be true whoever died where. What an audit finds besides is returned.
    pub(super) async fn look(&mut self) -> Vec<FindingKind> {
        let who = self.who();
        let acknowledged = self.acknowledged();
        let sealed = self.sealed().await;
        let newest = sealed.last_key_value();
        assert!(newest.is_some() || acknowledged.is_empty(), "{who}: nothing is sealed any more");
        if let Some((_, line)) = newest {
            assert!(acknowledged.is_subset(line), "{who}: of {acknowledged:?} the newest state is {line:?}");
        }

        let reading = list_registers(&self.root).await.unwrap().reading();
        reading.check(&self.seen).unwrap();
        self.seen = reading;
        assert!(reading.fence.get() <= self.part.version, "{who}: the fence is at {}", reading.fence);
        let gone = acknowledged.iter().find(|epoch| !sealed.contains_key(epoch) && **epoch >= reading.floor.get());
        assert_eq!(gone, None, "{who}: it is gone, and the floor does not say so");
        let newest = newest.map_or(0, |(epoch, _)| *epoch);
        assert!(reading.floor.get() <= newest, "{who}: the floor is {}, above {newest}", reading.floor);

        let cancel = CancellationToken::new();
        let audit = audit::run(&self.root, &part::audit_rules(), &SystemClock, &cancel, &|_| ()).await.unwrap().audit;
        audit.counts.iter().filter(|(_, count)| **count > 0).map(|(kind, _)| *kind).collect()
    }

    /// What is left when a process has come to its end: the epochs that its prune keeps, and nothing of any other. Whoever comes next
    /// gets the last of them.
    pub(super) async fn is_at_rest(&self) {
        let who = self.who();
        let sealed: BTreeSet<u64> = self.sealed().await.into_keys().collect();
        let own: BTreeSet<u64> = self.last_acknowledged(SEALED);
        assert_eq!((own.len(), &sealed), (SEALED, &self.last_acknowledged(KEPT)), "{who}");
        let mut left = BTreeSet::new();
        for key in self.keys().await {
            if let Some(epoch) = epoch_of(&key) {
                left.insert(epoch);
            }
        }
        assert_eq!(left, sealed, "{who}: of others something is left");
        let (epoch, states, highest) = part::restored(&self.part.backend(&self.root), None).await.unwrap();
        assert_eq!((Some(&epoch), highest), (sealed.last(), epoch), "{who}");
        self.is_whole(epoch, &states);
    }

    /// All sealed epochs, with what they descend from. Each of them is whole, and no mixture.
    async fn sealed(&self) -> BTreeMap<u64, BTreeSet<u64>> {
        let mut sealed = BTreeMap::new();
        let keys = self.keys().await;
        let seals = keys.iter().filter_map(|key| match Key::parse(key) {
            Key::Commit { epoch } => Some(epoch.get()),
            _ => None,
        });
        for epoch in seals {
            let mut states = Vec::new();
            for vnode in VNODES {
                let key = format!("epoch={epoch}/vnode={vnode}/partial.bin");
                assert!(keys.contains(&key), "{}: {key} of a sealed epoch is not there", self.who());
                let object = self.root.prefixed_store().get(&key.into()).await.unwrap();
                states.push(serde_json::from_slice(&object.bytes().await.unwrap()).unwrap());
            }
            sealed.insert(epoch, self.is_whole(epoch, &states));
        }
        sealed
    }

    /// The epochs that a state descends from, which is this one of one process.
    fn is_whole(&self, epoch: u64, states: &[State]) -> BTreeSet<u64> {
        let line = &states[0].line;
        assert_eq!(line.last().unwrap().1, epoch, "{}: the state of another epoch", self.who());
        for (vnode, state) in VNODES.iter().zip(states) {
            assert_eq!((state.vnode, &state.line), (*vnode, line), "{}: epoch {epoch} is mixed", self.who());
        }
        assert_eq!(states.len(), VNODES.len());
        line.iter().map(|(_, epoch)| *epoch).collect()
    }

    /// All epochs that a process was told to be durable. What was restored meanwhile descends from each of them that came before.
    fn acknowledged(&self) -> BTreeSet<u64> {
        let mut acknowledged = BTreeSet::new();
        for told in self.told() {
            match told {
                Told::NothingToRestore => assert!(acknowledged.is_empty(), "{}: {acknowledged:?} is lost", self.who()),
                Told::Restored { epoch, states } => {
                    let line = self.is_whole(epoch, &states);
                    assert!(acknowledged.is_subset(&line), "{}: {line:?} restored of {acknowledged:?}", self.who());
                }
                Told::Sealed { epoch } => assert!(acknowledged.insert(epoch), "{}: {epoch} twice", self.who()),
            }
        }
        acknowledged
    }

    /// The files of writes that were under way when their process was killed: the store's client shows them to nobody.
    pub(super) fn half_written(&self) -> usize {
        let mut half_written = 0;
        let mut folders = vec![self.folder.path().join("state")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                half_written += usize::from(path.to_string_lossy().contains('#'));
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        half_written
    }

    fn last_acknowledged(&self, count: usize) -> BTreeSet<u64> {
        self.acknowledged().into_iter().rev().take(count).collect()
    }

    fn told(&self) -> Vec<Told> {
        let journal: &Path = &self.part.journal;
        let journal = std::fs::read_to_string(journal).unwrap_or_default();
        journal.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn keys(&self) -> BTreeSet<String> {
        let store = self.root.prefixed_store();
        store.list(None).map_ok(|object| object.location.to_string()).try_collect().await.unwrap()
    }
}

fn epoch_of(key: &str) -> Option<u64> {
    key.strip_prefix("epoch=")?.split_once('/')?.0.parse().ok()
}
