//! What cleans up when this process ends, however it ends.
//!
//! A value in a static is never dropped, and a process that is killed drops nothing. So everything that must not outlive this
//! process is told to a small shell that reads from a pipe only this process holds open: when the pipe closes, it kills the
//! servers and removes their folders. (Linux's parent-death signal would not do: it fires when the *thread* that started the
//! server ends, and each test has a thread of its own.)

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::Context;
use tempfile::TempDir;

/// Every server leads a process group of its own, so a group is what is ended. The folders go last, and more than once: a
/// server that is being killed may still write a file into a folder that is being emptied.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
cd /
processes=' '
while read -r verb what; do
  case $verb in
    process) processes="$processes$what " ;;
    forget)
      case $processes in
        *" $what "*) processes="${processes%% "$what" *} ${processes#* "$what" }" ;;
      esac
      ;;
    folder) set -- "$@" "$what" ;;
  esac
done
for process in $processes; do
  kill -s KILL -- "-$process"
done
for attempt in 1 2 3 4 5 6 7 8 9 10; do
  rm -rf "$@" && break
  sleep 0.2
done
"#;

struct Watchdog {
    orders: Mutex<ChildStdin>,
}

/// From now on the process group `id` ends with this process.
pub(crate) fn watch_process(id: u32) -> anyhow::Result<()> {
    tell(&format!("process {id}"))
}

/// The process `id` is about to be reaped, after which the number may become somebody else's.
pub(crate) fn forget_process(id: u32) -> anyhow::Result<()> {
    tell(&format!("forget {id}"))
}

/// A new empty folder, removed when the value is dropped, or at the latest when this process ends.
pub fn temp_dir() -> anyhow::Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("epochwarden-").tempdir().context("making a temporary folder")?;
    let path = folder.path().to_str().filter(|path| !path.contains('\n'));
    tell(&format!("folder {}", path.context("the temporary folder's name is not one line of text")?))?;
    Ok(folder)
}

fn tell(order: &str) -> anyhow::Result<()> {
    static WATCHDOG: OnceLock<Result<Watchdog, String>> = OnceLock::new();
    let watchdog = WATCHDOG.get_or_init(|| start().map_err(|error| format!("{error:#}")));
    let watchdog = watchdog.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut orders = watchdog.orders.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(orders, "{order}").context("telling the watchdog")
}

fn start() -> anyhow::Result<Watchdog> {
    let mut child = Command::new("sh")
        .args(["-c", SCRIPT, "watchdog"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("starting the watchdog (sh)")?;
    let orders = child.stdin.take().context("the watchdog has no standard input")?;
    Ok(Watchdog { orders: Mutex::new(orders) })
}
