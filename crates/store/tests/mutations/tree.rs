//! A copy of the sources that may be broken.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::table::Mutation;

/// The copy. It stays, so that the next run compiles less.
pub(crate) struct Tree {
    root: PathBuf,
    target: PathBuf,
}

/// Files of the copy that are broken; whole again when this is dropped.
pub(crate) struct Broken {
    whole: Vec<(PathBuf, String)>,
}

impl Tree {
    /// Copies every tracked file as it is now.
    pub(crate) fn copied() -> Self {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
        // Dependencies compiled for the workspace are compiled for the copy.
        let target = scratch.parent().unwrap().to_owned();
        let root = scratch.join("mutations");
        let listed = Command::new("git").arg("-C").arg(&sources).args(["ls-files", "-z"]).output().unwrap();
        assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
        for file in String::from_utf8(listed.stdout).unwrap().split('\0').filter(|file| !file.is_empty()) {
            let (from, to) = (sources.join(file), root.join(file));
            // A file that was deleted and not committed yet.
            let Ok(mut content) = std::fs::read(&from) else { continue };
            if file == "Cargo.toml" {
                content = renumbered(content);
            }
            // One that is the same keeps its time, and is not compiled again.
            if std::fs::read(&to).is_ok_and(|there| there == content) {
                continue;
            }
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::write(&to, content).unwrap();
        }
        Self { root, target }
    }

    /// Makes the edits of a mutation.
    pub(crate) fn broken_by(&self, mutation: &Mutation) -> Broken {
        let mut broken = Broken { whole: Vec::new() };
        for (file, old, new) in mutation.edits {
            let path = self.root.join(file);
            let text = std::fs::read_to_string(&path).unwrap();
            let found = text.matches(old).count();
            assert_eq!(found, 1, "{}: in {file} the text is there {found} times:\n{old}", mutation.name);
            broken.whole.push((path.clone(), text.clone()));
            std::fs::write(&path, text.replacen(old, new, 1)).unwrap();
        }
        broken
    }

    /// Builds the simulation and has it play these seeds of a scenario until one breaks a promise; empty: each seed its own. Returns
    /// what it says.
    pub(crate) fn hunt(&self, scenario: &str, seeds: Range<u64>) -> String {
        let mut hunt = self.test("simulation");
        hunt.args(["--exact", "tests::hunt", "--ignored", "--nocapture"])
            .env("EPOCHWARDEN_SEEDS", format!("{}..{}", seeds.start, seeds.end))
            .env("EPOCHWARDEN_SCENARIO", scenario);
        said(hunt, |line| line.starts_with("caught") || line.starts_with("not caught"))
    }

    /// Builds the conformance suite and runs one test of it: whether that fails, and in which words.
    pub(crate) fn conforms(&self, test: &str) -> (bool, String) {
        let mut suite = self.test("conformance");
        suite.arg(test);
        // Of that one test: another that fails as well proves nothing about it.
        let verdict = said(suite, |line| line.starts_with("test ") && line.contains(&format!("{test} ... ")));
        (verdict.ends_with("FAILED"), verdict)
    }

    /// A run of one test binary of the copy, with the features of the whole workspace, as its dependencies were compiled already.
    fn test(&self, binary: &str) -> Command {
        let mut run = Command::new("cargo");
        run.args(["test", "--workspace", "--offline", "--quiet", "--test", binary, "--", "--format=pretty"])
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target);
        run
    }
}

/// The first line of its output that counts.
fn said(mut run: Command, counts: impl Fn(&str) -> bool) -> String {
    let output = run.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let shown = || format!("{told}\n{}", String::from_utf8_lossy(&output.stderr));
    told.lines()
        .find(|line| counts(line))
        .unwrap_or_else(|| panic!("it did not come to its end:\n{}", shown()))
        .to_owned()
}

/// The workspace under another version: Cargo tells packages apart by it and not by where they lie, and what is compiled of the copy must
/// never be taken for what is compiled of the sources.
fn renumbered(manifest: Vec<u8>) -> Vec<u8> {
    let manifest = String::from_utf8(manifest).unwrap();
    let version = format!("\nversion = \"{}\"\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(manifest.matches(&version).count(), 1, "the version of the workspace is not found");
    manifest.replacen(&version, "\nversion = \"0.0.0-mutated\"\n", 1).into_bytes()
}

impl Drop for Broken {
    fn drop(&mut self) {
        // In reverse: a file that was edited twice was whole before the first edit.
        for (path, text) in self.whole.iter().rev() {
            std::fs::write(path, text).unwrap();
        }
    }
}
