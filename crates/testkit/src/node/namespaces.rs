//! Where a node lives: namespaces of its own, with the test inside.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::process::Process;
use crate::{tools, watchdog};

/// The address of the node, at which servers of a test listen for pods.
pub const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The address of the API server.
pub(super) const SERVICE_ADDRESS: &str = "10.78.0.1";
/// Where control groups are.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Names, to the test inside, the folder that belongs to it.
const INSIDE: &str = "EPOCHWARDEN_NODE_FOLDER";
/// The file in it that names the node's control group.
const GROUP: &str = "control-group";
/// What the names of control groups of nodes begin with.
const PREFIX: &str = "epochwarden-node-";
const TOOLS: [&str; 4] = ["kubelet", "containerd", "runc", "bridge"];

/// Longer than any story takes.
const DEADLINE: Duration = Duration::from_mins(30);

/// The first process inside. The network is a bridge without ports, so that nothing leads out. What the kubelet sets for a whole machine it
/// sets in copies of the kernel's files.
const FIRST: &str = r#"
set -eu
folder=$1 node=$2 service=$3
shift 3
mount --make-rshared /
for place in run var/log; do
  mkdir -p "$folder/host/$place"
  mount --bind "$folder/host/$place" "/$place"
done
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  [ -e "/proc/sys/$setting" ] || continue
  mkdir -p "$folder/host/sys/${setting%/*}"
  cat "/proc/sys/$setting" >"$folder/host/sys/$setting"
  mount --bind "$folder/host/sys/$setting" "/proc/sys/$setting"
done
ip link set lo up
ip link add eth0 type bridge
ip address add "$node/24" dev eth0
ip address add "$service/32" dev eth0
ip link set eth0 up
ip route add default dev eth0
"$@" &
test=$!
status=0
wait "$test" || status=$?
exit "$status"
"#;

/// Runs `body` in namespaces of its own: a network, mounts, process ids. `test` is the full name of the calling test, which is run a second
/// time, in there: the same binary, that test alone. All processes and mounts go when it ends, also when it is killed.
///
/// Where no node can be, `body` is not run, and the reason is printed.
pub fn isolated<F>(test: &str, body: impl FnOnce() -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if std::env::var_os(INSIDE).is_some() {
        return runtime.block_on(body());
    }
    if let Err(reason) = possible() {
        println!("Skipped: {test}, because {reason:#}");
        return Ok(());
    }
    runtime.block_on(run_inside(test))
}

/// The folder of the test that runs inside.
pub(super) fn folder() -> anyhow::Result<PathBuf> {
    std::env::var_os(INSIDE).map(PathBuf::from).context("a node is started inside of `isolated` only")
}

/// The control group of everything that the kubelet starts, by its name in each hierarchy.
pub(super) fn cgroup() -> anyhow::Result<String> {
    fs::read_to_string(folder()?.join(GROUP)).context("reading the name of the control group")
}

fn possible() -> anyhow::Result<()> {
    ensure!(cfg!(target_os = "linux"), "pods run on Linux only");
    ensure!(tools::output(Command::new("id").arg("-u"))?.trim() == "0", "only root may make namespaces");
    for program in ["unshare", "ip", "mount", "tar"] {
        let found = tools::output(Command::new("sh").args(["-c", r#"command -v "$0""#, program]));
        found.with_context(|| format!("the command {program} is not there"))?;
    }
    for tool in TOOLS {
        tools::extra(tool).context("not all tools are there: run `tools/build.sh --node`")?;
    }
    Ok(())
}

async fn run_inside(test: &str) -> anyhow::Result<()> {
    let folder = watchdog::temp_dir()?;
    let groups = Groups::make()?;
    fs::write(folder.path().join(GROUP), &groups.name)?;
    let log = folder.path().join("test.log");
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", FIRST, "first"])
        .arg(folder.path())
        .args([&NODE_ADDRESS.to_string(), SERVICE_ADDRESS])
        .arg(std::env::current_exe()?)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, folder.path())
        // What is left in here goes with the folder.
        .env("TMPDIR", folder.path());
    let mut inside = Process::spawn(test, &mut command, &log)?;
    let status = inside.wait_exit(DEADLINE).await;
    let said = inside.log();
    inside.kill()?;
    drop(groups);
    let status = status?;
    // A name that no test has would be a success of nothing.
    if !status.success() || !said.contains("test result: ok. 1 passed") {
        bail!("inside, it ended with {status}: {}", said.replace('\n', "\n    "));
    }
    // Moved in, so that who counts the results of tests counts this one once.
    println!("    {}", said.replace('\n', "\n    "));
    Ok(())
}

/// The control groups of one node, removed when it has gone, together with those of nodes that were killed.
struct Groups {
    name: String,
}

impl Groups {
    fn make() -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let groups = Self { name: format!("{PREFIX}{number}-{}", std::process::id()) };
        for hierarchy in hierarchies()? {
            if let Ok(entries) = fs::read_dir(&hierarchy) {
                for left in entries.flatten().filter(|entry| is_left(&entry.path())) {
                    remove(&left.path());
                }
            }
            fs::create_dir(hierarchy.join(&groups.name)).context("making a control group")?;
        }
        Ok(groups)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for hierarchy in hierarchies().unwrap_or_default() {
            remove(&hierarchy.join(&self.name));
        }
    }
}

/// Whether it is the group of a node whose test has gone: its name ends in the number of that process.
fn is_left(group: &Path) -> bool {
    let name = group.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.rsplit('-').next());
    owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists())
}

/// All hierarchies of version 1, or the one of version 2.
fn hierarchies() -> anyhow::Result<Vec<PathBuf>> {
    let root = PathBuf::from(CGROUPS);
    if root.join("cgroup.procs").exists() {
        return Ok(vec![root]);
    }
    let entries = fs::read_dir(&root).context("there are no control groups")?;
    let paths = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(paths.map(|entry| entry.path()).filter(|path| path.join("cgroup.procs").exists()).collect())
}

/// Removes a group and those in it. One that still has a process stays: the kernel refuses.
fn remove(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}
