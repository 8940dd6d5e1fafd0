//! docs/operations.md against the program: every reason is there, with its status, and the test that it names exists.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use epochwarden::api::condition::{AuditClean, FenceCurrent, PruneHealthy, Ready, Reason, StoreReady};
use epochwarden_core::finding::FindingKind;

const OPERATIONS: &str = include_str!("../../docs/operations.md");

/// The sources of this binary by module: `runs`, `bucket::writes`.
fn sources() -> Result<BTreeMap<String, String>> {
    let mut sources = BTreeMap::new();
    read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e")), "", &mut sources)?;
    Ok(sources)
}

/// The sources in a folder and below it, by module after the prefix.
pub(crate) fn read(folder: &Path, prefix: &str, sources: &mut BTreeMap<String, String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        if path.is_dir() {
            read(&path, &format!("{prefix}{stem}::"), sources)?;
        } else {
            sources.insert(format!("{prefix}{stem}"), std::fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

/// The cells of the table below a heading of any level, by the word in the first column.
pub(crate) fn table(heading: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let (_, section) = OPERATIONS.split_once(&format!("# {heading}\n")).context(heading.to_owned())?;
    let section = section.split("\n#").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let cells: Vec<String> = line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
        (cells.first().map(|cell| cell.trim_matches('`').to_owned()).unwrap_or_default(), cells)
    });
    Ok(rows.collect())
}

fn check<R: Reason>(sources: &BTreeMap<String, String>) -> Result<()> {
    let rows = table(R::TYPE)?;
    let reasons: Vec<&str> = R::ALL.iter().map(|reason| reason.as_str()).collect();
    for word in rows.keys() {
        ensure!(reasons.contains(&word.as_str()), "{}: {word} is no reason", R::TYPE);
    }
    for reason in R::ALL {
        let name = format!("{} {}", R::TYPE, reason.as_str());
        let row = rows.get(reason.as_str()).with_context(|| format!("{name} is not in docs/operations.md"))?;
        let [_, status, means, action, test] = row.as_slice() else { anyhow::bail!("{name}: {row:?}") };
        ensure!(status == reason.status().as_str(), "{name}: {status}");
        ensure!(!means.is_empty() && !action.is_empty(), "{name} says nothing");
        let test = test.trim_matches('`');
        let (module, function) = test.rsplit_once("::").with_context(|| format!("{name} names no test: {test}"))?;
        let source = sources.get(module).with_context(|| format!("{name}: there is no {module}.rs"))?;
        let (_, body) =
            source.split_once(&format!("fn {function}(")).with_context(|| format!("{name}: there is no {test}"))?;
        let body = body.split("\n}\n").next().unwrap_or_default();
        let said = format!("\"{}\"", reason.as_str());
        ensure!(body.contains(&said), "{name}: {test} does not speak of {said}");
    }
    Ok(())
}

#[test]
fn every_reason_is_explained_and_reached_by_the_test_that_is_named() -> Result<()> {
    let sources = sources()?;
    check::<Ready>(&sources)?;
    check::<StoreReady>(&sources)?;
    check::<FenceCurrent>(&sources)?;
    check::<PruneHealthy>(&sources)?;
    check::<AuditClean>(&sources)
}

#[test]
fn every_finding_says_what_to_do() -> Result<()> {
    let rows = table("An audit found something")?;
    for kind in FindingKind::ALL {
        ensure!(rows.contains_key(kind.as_str()), "{} is not in docs/operations.md", kind.as_str());
    }
    ensure!(rows.len() == FindingKind::ALL.len());
    Ok(())
}
