//! A server that runs beside a test.

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::{tools, wait, watchdog};

/// How much of a log an error shows.
const TAIL_LINES: usize = 30;

/// A child process that writes to a log file, is ended by its id, and outlives neither this value nor this process: not even
/// when this process is killed, or holds the value in a static.
///
/// It belongs to no async runtime, so one test may start it and others use it.
#[must_use = "dropping it ends the process"]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    ended: Option<ExitStatus>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.name)
            .field("id", &self.id())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Process {
    /// Starts `command` with both of its outputs appended to `log`, and nothing on its standard input. `name` is for messages.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        Self::start(name, command.stdin(Stdio::null()), log)
    }

    /// The same with a standard input: [`Process::tell`] writes to it.
    pub fn spawn_listening(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        Self::start(name, command.stdin(Stdio::piped()), log)
    }

    fn start(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let outputs = File::options().create(true).append(true).open(log);
        let outputs = outputs.with_context(|| format!("opening {}", log.display()))?;
        let child = command
            .stdout(outputs.try_clone()?)
            .stderr(outputs)
            // Ctrl-C on a terminal then ends the tests, and the tests end their servers, in that order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let process = Self { name: name.to_owned(), log: log.to_owned(), child, ended: None };
        watchdog::watch_process(process.id())?;
        Ok(process)
    }

    /// The id of the process, for as long as it has not been waited for.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to the standard input of one that was started by [`Process::spawn_listening`].
    pub fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        let input = self.child.stdin.as_mut().with_context(|| format!("{} has no standard input", self.name))?;
        writeln!(input, "{line}").with_context(|| format!("telling {} to {line}", self.name))
    }

    /// Everything it has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        read_log(&self.log)
    }

    /// Its exit status once it has ended, however it did.
    pub fn status(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().with_context(|| format!("asking after {}", self.name))?;
            if self.ended.is_some() {
                watchdog::forget_process(self.id())?;
            }
        }
        Ok(self.ended)
    }

    /// Waits until `probe` says yes. When the process ends before that, or `deadline` passes, the error shows the log's end.
    pub async fn wait_ready<P>(&mut self, deadline: Duration, mut probe: P) -> anyhow::Result<()>
    where
        P: AsyncFnMut() -> bool,
    {
        let ready = async {
            loop {
                if let Some(status) = self.status()? {
                    bail!("{} ended with {status} before it was ready:\n{}", self.name, self.tail());
                }
                if probe().await {
                    return Ok(());
                }
                wait::pause().await;
            }
        };
        match tokio::time::timeout(deadline, ready).await {
            Ok(ready) => ready,
            Err(_) => bail!("{} was not ready within {deadline:?}:\n{}", self.name, self.tail()),
        }
    }

    /// Waits for it to end by itself, or after [`Process::signal`].
    pub async fn wait_exit(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let exit = async {
            loop {
                if let Some(status) = self.status()? {
                    return Ok(status);
                }
                wait::pause().await;
            }
        };
        match tokio::time::timeout(deadline, exit).await {
            Ok(exit) => exit,
            Err(_) => bail!("{} has not ended within {deadline:?}:\n{}", self.name, self.tail()),
        }
    }

    /// Sends it a signal, by the name without `SIG`: `TERM`, `STOP`, `CONT`. Nothing when it is known to have ended.
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        if self.ended.is_some() {
            return Ok(());
        }
        let id = self.id().to_string();
        tools::output(Command::new("sh").args(["-c", r#"kill -s "$0" "$1""#, signal, &id])).map(drop)
    }

    /// Ends it at once, and waits until it is gone. A second call does nothing.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if self.ended.is_some() {
            return Ok(());
        }
        self.child.kill().with_context(|| format!("killing {}", self.name))?;
        // Not reaped yet, so the number is still its own while the watchdog strikes it out.
        watchdog::forget_process(self.id())?;
        self.ended = Some(self.child.wait().with_context(|| format!("waiting for {}", self.name))?);
        Ok(())
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines.split_at(lines.len().saturating_sub(TAIL_LINES)).1.join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Where this fails the process is gone already, or the watchdog ends it.
        let _ = self.kill();
    }
}

/// What has been written to a log so far; nothing while it does not exist.
pub(crate) fn read_log(log: &Path) -> String {
    fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
