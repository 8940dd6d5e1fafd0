//! Where runs run: on threads of their own, which give way to the others.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// How many of them. What runs wait for is the store; one thread is enough for what they calculate.
const THREADS: usize = 1;

/// Their nice value. Those that publish fences have 0, and get nine tenths of a core that both want.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// The threads of the runs, which end with this value: a run that is still on them comes no further than where it waits next.
///
/// A prune that deletes as fast as its store lets it keeps a core busy with requests, signatures and answers. On the threads of the
/// others it would keep fences waiting for their turn, by tens of milliseconds (docs/adr/0016).
#[derive(Debug)]
pub(in crate::controller) struct RunThreads {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl RunThreads {
    /// Starts them.
    ///
    /// # Errors
    ///
    /// When the system gives no more threads.
    pub(in crate::controller) fn start() -> io::Result<Self> {
        let mut threads = Builder::new_multi_thread();
        threads.worker_threads(THREADS).thread_name("runs").enable_all();
        // Elsewhere a thread has no priority of its own.
        #[cfg(target_os = "linux")]
        threads.on_thread_start(give_way);
        let runtime = threads.build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// To spawn runs on them.
    pub(in crate::controller) fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for RunThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting for them is not allowed where this is dropped.
            runtime.shutdown_background();
        }
    }
}

/// Makes the calling thread nice. One that is nice enough already, as its parent was, stays as it is.
#[cfg(target_os = "linux")]
fn give_way() {
    use rustix::process::{getpriority_process, setpriority_process};
    let nice =
        getpriority_process(None).and_then(|now| if now < NICE { setpriority_process(None, NICE) } else { Ok(()) });
    if let Err(error) = nice {
        tracing::warn!(%error, "runs keep the priority of fences: a prune may delay a fence by some 10 ms on a busy machine");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[tokio::test]
    async fn runs_and_what_they_block_on_give_way_to_the_others() {
        let before = getpriority_process(None).unwrap();
        let threads = RunThreads::start().unwrap();
        let nice =
            async || (getpriority_process(None), tokio::task::spawn_blocking(|| getpriority_process(None)).await);
        let (run, blocked) = threads.handle().spawn(async move { nice().await }).await.unwrap();
        assert_eq!(run.unwrap(), before.max(NICE));
        assert_eq!(blocked.unwrap().unwrap(), before.max(NICE));
        assert_eq!(getpriority_process(None).unwrap(), before);
    }

    #[tokio::test]
    async fn a_run_ends_with_its_threads() {
        let threads = RunThreads::start().unwrap();
        let endless = threads.handle().spawn(std::future::pending::<()>());
        drop(threads);
        assert!(endless.await.unwrap_err().is_cancelled());
    }
}
