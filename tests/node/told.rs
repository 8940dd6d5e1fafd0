//! What the pods of the pipeline were told: each commit that was acknowledged to one of them, in its own words.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use epochwarden_testkit::node::Node;

/// The logs of a namespace, also of pods that have gone: a file that is open outlives its name.
pub(crate) struct Told {
    namespace: &'static str,
    logs: BTreeMap<PathBuf, Log>,
    /// The events that the state of an epoch holds, by each epoch of which a pod said that it is sealed.
    sealed: BTreeMap<u64, u64>,
}

struct Log {
    file: File,
    /// The beginning of a line that is still being written.
    rest: Vec<u8>,
}

impl Told {
    pub(crate) fn of(namespace: &'static str) -> Self {
        Self { namespace, logs: BTreeMap::new(), sealed: BTreeMap::new() }
    }

    /// Reads what is new, in new files as well.
    pub(crate) fn listen(&mut self, node: &Node) -> Result<&BTreeMap<u64, u64>> {
        for path in node.logs(self.namespace)? {
            if self.logs.contains_key(&path) {
                continue;
            }
            // One that has gone since belonged to a pod that had been there, and read, before.
            if let Ok(file) = File::open(&path) {
                self.logs.insert(path, Log { file, rest: Vec::new() });
            }
        }
        for log in self.logs.values_mut() {
            for line in log.lines()? {
                let Some((epoch, events)) = commit(&line).with_context(|| format!("a pod said {line:?}"))? else {
                    continue;
                };
                let before = self.sealed.insert(epoch, events);
                ensure!(before.is_none(), "two were told that they sealed epoch {epoch}");
            }
        }
        Ok(&self.sealed)
    }
}

impl Log {
    /// The whole lines that are new.
    fn lines(&mut self) -> Result<Vec<String>> {
        self.file.read_to_end(&mut self.rest)?;
        let end = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let whole: Vec<u8> = self.rest.drain(..end).collect();
        Ok(String::from_utf8(whole)?.lines().map(str::to_owned).collect())
    }
}

/// The epoch and its events, of a line such as `2026-01-01T00:00:00Z stdout F sealed 7: 2800 events so far`.
fn commit(line: &str) -> Result<Option<(u64, u64)>> {
    let words: Vec<&str> = line.split(' ').collect();
    let [_, "stdout", "F", "sealed", epoch, events, "events", "so", "far"] = words[..] else {
        ensure!(!line.contains(" F sealed "), "a commit in words that are not understood");
        return Ok(None);
    };
    Ok(Some((epoch.trim_end_matches(':').parse()?, events.parse()?)))
}
