//! Processes that stand still while time goes on, and that die in the middle of anything.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures::FutureExt as _;
use tokio::task::JoinHandle;

use crate::oracle::Promise;
use crate::world::{World, sleep};

/// Whether a process runs. Clones are the same process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Process {
    paused: Arc<Mutex<Paused>>,
}

#[derive(Debug, Default)]
struct Paused {
    now: bool,
    waiting: Vec<Waker>,
}

impl Process {
    /// Nothing of it is polled any more; what it has asked for goes on outside of it.
    pub(crate) fn pause(&self) {
        self.paused.lock().unwrap().now = true;
    }

    pub(crate) fn resume(&self) {
        let waiting = {
            let mut paused = self.paused.lock().unwrap();
            paused.now = false;
            std::mem::take(&mut paused.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Stands still, called from within: nothing of it goes on before the end.
    pub(crate) async fn pause_for(&self, milliseconds: u64) {
        self.pause();
        let process = self.clone();
        tokio::spawn(async move {
            sleep(milliseconds).await;
            process.resume();
        });
        tokio::task::yield_now().await;
    }

    /// Runs a task of this process, which dies with the returned guard.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(tokio::spawn(Pausable { process: self.clone(), task: Box::pin(task) }))
    }

    /// Runs a task of this process that nobody ends, and nobody waits for: what panics in it is told to the oracle.
    pub(crate) fn spawn_detached(&self, world: &World, task: impl Future<Output = ()> + Send + 'static) {
        let world = world.clone();
        let task = AssertUnwindSafe(task).catch_unwind().map(move |ended| {
            if let Err(panic) = ended {
                world.with(|state| state.oracle.object(Promise::NoPanic, words_of(panic.as_ref())));
            }
        });
        tokio::spawn(Pausable { process: self.clone(), task: Box::pin(task) });
    }
}

/// A task that is ended when this is dropped, wherever it stands.
#[derive(Debug)]
pub(crate) struct Task(JoinHandle<()>);

impl Task {
    /// A task of no process: what befalls processes.
    pub(crate) fn of(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }

    /// Until it has come to its end by itself. What goes wrong in it goes wrong here.
    pub(crate) async fn ended(&mut self) {
        if let Err(error) = (&mut self.0).await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a panic says.
pub(crate) fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
    words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without words".to_owned())
}

struct Pausable {
    process: Process,
    task: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Future for Pausable {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        {
            let mut paused = self.process.paused.lock().unwrap();
            if paused.now {
                paused.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
        }
        self.task.as_mut().poll(context)
    }
}
