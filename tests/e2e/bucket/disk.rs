//! A folder on a disk that is full, or that may only be read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tempfile::TempDir;

use super::prune;
use crate::support::bucket::Bucket;
use crate::support::lease::Leader;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{cluster, say};

/// A small disk in memory, for as long as the value lives.
struct Disk {
    folder: TempDir,
}

impl Disk {
    /// `None`, with the reason printed, where mounting is not allowed: to most users it is not.
    fn mount() -> Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"]).arg(folder.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Some(Self { folder })),
            Ok(output) => {
                say(&format!("not shown here: {}", String::from_utf8_lossy(&output.stderr).trim_end()))?;
                Ok(None)
            }
            Err(error) => {
                say(&format!("not shown here: mount: {error}"))?;
                Ok(None)
            }
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn remount(&self, how: &str) -> Result<()> {
        let options = format!("remount,{how}");
        let output = Command::new("mount").args(["-o", &options]).arg(self.path()).output()?;
        ensure!(output.status.success(), "mount -o {options}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Leaves no room; gives the file that takes it.
    fn fill(&self) -> Result<PathBuf> {
        let ballast = self.path().join("ballast");
        let full = fs::write(&ballast, vec![0; 1024 * 1024]);
        ensure!(full.is_err(), "the disk is larger than it should be");
        Ok(ballast)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has a file open there does not keep the mount.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

/// A policy on a folder of the disk, with its fence at 1.
struct Stage {
    leader: Leader,
    bucket: Bucket,
    policy: Policy<'static>,
    _operator: Operator,
}

impl Stage {
    async fn set(disk: &Disk, prefix: &str) -> Result<Self> {
        let cluster = cluster().await?;
        let namespace = cluster.namespace(prefix).await?;
        let folder = disk.path().join("state");
        fs::create_dir(&folder)?;
        let bucket = Bucket::at_folder(&folder)?;
        bucket.seal(1..=3, 4).await?;
        let leader = Leader::new(cluster.client().await?, &namespace, "leader");
        leader.lead("pod-a", 0).await?;
        let root = folder.to_str().context("a folder's name")?;
        let operator = Operator::start(cluster, &namespace, &["--allow-file-root", root]).await?;
        let spec = json!({
            "store": bucket.store(None),
            "vnodes": 4,
            "retention": { "keepLast": 1 },
            "prune": { "minAge": "0s" },
            "fence": { "leaseRef": { "name": "leader" } },
        });
        let policy = Policy::apply(cluster, &namespace, "orders", spec).await?;
        policy.wait_for("FenceCurrent", "Published").await?;
        Ok(Self { leader, bucket, policy, _operator: operator })
    }

    /// Nothing can be written: the fence says so, a prune deletes nothing, and what only reads goes on.
    async fn cannot_write(&self, words: &[&str]) -> Result<()> {
        self.leader.lead("pod-b", 1).await?;
        let (status, fence) = self.policy.wait_for("FenceCurrent", "PublishFailed").await?;
        ensure!(status == "False");
        let (phase, reason, pruned) = prune(&self.policy, "prune@1").await?;
        ensure!(reason == "Failed", "{phase} {reason}: {pruned}");
        for words in words {
            ensure!(fence.contains(words), "{words:?} is not in: {fence}");
            ensure!(pruned.contains(words), "{words:?} is not in: {pruned}");
        }
        ensure!(self.bucket.sealed().await? == [1, 2, 3]);
        self.policy.ask("audit").await?;
        self.policy.wait_for("AuditClean", "Clean").await.map(drop)
    }

    async fn can_write_again(&self) -> Result<()> {
        self.policy.wait_for("FenceCurrent", "Published").await?;
        ensure!(self.bucket.fence().await? == 2);
        let (phase, reason, message) = prune(&self.policy, "prune@2").await?;
        ensure!(reason == "Succeeded", "{phase} {reason}: {message}");
        ensure!(self.bucket.sealed().await? == [3]);
        self.policy.wait_for("Ready", "Reachable").await.map(drop)
    }
}

#[tokio::test]
async fn a_full_disk_publishes_and_deletes_nothing_until_there_is_room() -> Result<()> {
    let Some(disk) = Disk::mount()? else { return Ok(()) };
    let stage = Stage::set(&disk, "full").await?;
    let ballast = disk.fill()?;
    stage.cannot_write(&["No space left on device", "make room"]).await?;
    fs::remove_file(ballast)?;
    stage.can_write_again().await
}

#[tokio::test]
async fn a_read_only_folder_publishes_and_deletes_nothing_until_it_is_writable() -> Result<()> {
    let Some(disk) = Disk::mount()? else { return Ok(()) };
    let stage = Stage::set(&disk, "readonly").await?;
    disk.remount("ro")?;
    stage.cannot_write(&["Read-only file system", "writable"]).await?;
    disk.remount("rw")?;
    stage.can_write_again().await
}
