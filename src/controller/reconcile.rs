//! Decides what is due for one policy, starts it, and says when to look again. It waits for nothing.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};

use super::backoff::jitter;
use super::context::Context;
use super::notices::Reason;
use super::observed::{Observed, Said};
use super::policies::Stored;
use super::registry::{Handle, Registry};
use super::schedules::{KINDS, Look, Missed, Request, request, until};
use super::supervise::{self, FAULT};
use super::{fence, runs, seal_check, status_task, stores};
use crate::api::condition::{FenceCurrent, StoreReady};
use crate::api::status::{Phase, RunKind};
use crate::api::{RUN_ANNOTATION, StateEpochPolicy, validate};
use crate::server::PolicyName;

/// The longest time between two looks at a policy.
const LONGEST: Duration = Duration::from_mins(1);

/// What a reconciliation can fail with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// A version of the resource that this operator does not know has stored it.
    #[error("the policy cannot be read, so nothing is done for it: {reason}; correct it, or upgrade the operator")]
    Unreadable {
        /// What cannot be read.
        reason: String,
    },
    /// The API server always gives one.
    #[error("the policy has no uid: it was not read from an API server")]
    NoUid,
}

/// Everything a reconciliation works with.
#[derive(Debug)]
pub(super) struct Reconciler {
    pub(super) context: Arc<Context>,
    pub(super) registry: Arc<Registry>,
    pub(super) shutdown: tokio_util::sync::CancellationToken,
}

impl Reconciler {
    /// One look at one policy.
    pub(super) fn reconcile(&self, stored: &Stored) -> Result<Action, ReconcileError> {
        let uid = stored.uid().unwrap_or_default();
        // A policy that is being deleted has a finalizer of somebody else's; its work has ended as far as we are concerned.
        if stored.meta().deletion_timestamp.is_some() {
            self.registry.remove(&uid);
            return Ok(Action::await_change());
        }
        let policy = match &stored.0 {
            Ok(policy) => Arc::new(policy.clone()),
            // What it wants is not known, and what it wanted before is not wanted any more.
            Err(invalid) => {
                self.registry.remove(&uid);
                return Err(ReconcileError::Unreadable { reason: invalid.error.clone() });
            }
        };
        let policy = &policy;
        if uid.is_empty() {
            return Err(ReconcileError::NoUid);
        }
        let (handle, new) = self.registry.ensure(policy, &self.shutdown);
        if new {
            self.start(&handle);
        }
        if handle.is_outdated_by(policy) {
            handle.policy.send_replace(Arc::clone(policy));
        }
        Ok(Action::requeue(jitter_towards_later(self.look(&handle, new))))
    }

    /// The tasks that belong to a policy for as long as it is there.
    fn start(&self, handle: &Arc<Handle>) {
        tracing::info!(
            namespace = handle.name.namespace,
            policy = handle.name.name,
            reason = "Started",
            uid = handle.uid,
            "working for the policy"
        );
        // What is left of a namesake that is just ending says nothing about this policy.
        self.context.metrics.forget(&handle.name);
        runs::show(&self.context, handle, &handle.observed.borrow());
        self.keep(handle, "the task of the store", stores::run, |observed| {
            observed.store = Said::new(StoreReady::Pending, format!("{FAULT}; the store is being opened again"));
        });
        self.keep(handle, "the task of the fence", fence::run, |observed| {
            observed.fence = Said::new(FenceCurrent::PublishFailed, format!("{FAULT}; it is being tried again"));
        });
        self.keep(handle, "the seal check", seal_check::run, |_| ());
        let (context, of_task, registry) = (Arc::clone(&self.context), Arc::clone(handle), Arc::clone(&self.registry));
        handle.farewell.spawn(async move {
            let write = || status_task::run(Arc::clone(&context), Arc::clone(&of_task));
            let report = supervise::keep("the task of the status", &of_task, write, |_| ());
            let end = async {
                of_task.cancel.cancelled().await;
                of_task.tasks.close();
                of_task.tasks.wait().await;
                of_task.ended.cancel();
            };
            tokio::join!(report, end);
            // Series go only when nobody is left who could make them again, nor a namesake whose they are by now.
            registry.unless_named(&of_task.name, || context.metrics.forget(&of_task.name));
            // With no policy left, what is alive is the operator's own: a number that grows shows a task that was left behind.
            let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
            let (namespace, policy) = (&of_task.name.namespace, &of_task.name.name);
            tracing::debug!(namespace, policy, uid = of_task.uid, tasks, "the work for the policy has ended");
        });
        handle.farewell.close();
    }

    /// Starts a task of a policy, and keeps it going.
    fn keep<F>(
        &self,
        handle: &Arc<Handle>,
        what: &'static str,
        task: impl Fn(Arc<Context>, Arc<Handle>) -> F + Send + Sync + 'static,
        fallen: impl Fn(&mut Observed) + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (context, of_task) = (Arc::clone(&self.context), Arc::clone(handle));
        handle.tasks.spawn(async move {
            let make = || task(Arc::clone(&context), Arc::clone(&of_task));
            supervise::keep(what, &of_task, make, fallen).await;
        });
    }

    /// Looks at request and schedules, and starts what is due. Gives the time until the next look.
    fn look(&self, handle: &Arc<Handle>, new: bool) -> Duration {
        let policy = handle.current();
        let now = self.context.clock.now();
        let mut schedules = handle.schedules.lock().unwrap_or_else(PoisonError::into_inner);
        if new {
            *schedules = handle.observed.borrow().schedules();
        }
        let request = self.requested(handle, &policy);
        if let Some((kind, _)) = &request {
            schedules.slot(*kind).requested = true;
        }
        if self.approved(handle, &policy, new) {
            schedules.slot(RunKind::Prune).requested = true;
        }
        let uptime = self.context.monotonic.now();
        if schedules.running.is_none()
            && schedules.prune.again.take_due(uptime, handle.observed.borrow().goes_on(&policy))
        {
            schedules.prune.requested = true;
        }
        let mut next = Vec::new();
        let mut due = None;
        for kind in KINDS {
            let (parsed, written, suspended) = match kind {
                RunKind::Prune => {
                    let prune = &policy.spec.prune;
                    (
                        validate::prune_schedule(&policy),
                        prune.schedule.clone().zip(Some(prune.time_zone.clone())),
                        prune.suspend,
                    )
                }
                RunKind::Audit => {
                    let audit = &policy.spec.audit;
                    (
                        validate::audit_schedule(&policy),
                        audit.schedule.clone().zip(Some(audit.time_zone.clone())),
                        audit.suspend,
                    )
                }
            };
            // A schedule that means nothing is a condition of the status; no run comes of it.
            let schedule = parsed.ok().flatten();
            let look = if schedules.running == Some(kind) {
                Look { due: false, next: schedules.slot(kind).remembered.promised, missed: None }
            } else {
                schedules.slot(kind).look(schedule.as_ref(), written, now, policy.spec.suspend || suspended)
            };
            if look.due && due.is_none() && schedules.running.is_none() && handle.may_run() {
                if let Some(Missed { slot, count }) = look.missed {
                    let PolicyName { namespace, name } = &handle.name;
                    tracing::info!(
                        namespace,
                        policy = name,
                        reason = "SlotsMissed",
                        run = kind.as_str(),
                        %slot,
                        missed = count,
                        "one run stands for the slots that were missed"
                    );
                }
                schedules.slot(kind).started(schedule.as_ref(), now);
                schedules.running = Some(kind);
                due = Some(kind);
            }
            let promised = schedules.slot(kind).remembered.promised;
            next.extend(promised);
            // The next slot, the start and the request that it answers are one value, and so one write of the status: whenever this
            // process ends, the next one owes the run or knows that it is over.
            handle.observed.send_if_modified(|observed| {
                let mut begun = false;
                let asked = request.as_ref().filter(|(asked, _)| *asked == kind).map(|(_, text)| text);
                // A slot that finds a plan waiting only looks whether it still may: that is no run to tell of, nor one to owe. And one
                // that was owed before still is, and says when it begins.
                let waiting = observed.waiting_plan(&policy).is_some() || observed.is_owed();
                let only_looks = kind == RunKind::Prune && asked.is_none() && waiting;
                if due == Some(kind) && !only_looks {
                    let at_once = self.context.permits(kind).available_permits() > 0;
                    let phase = if at_once { Phase::Running } else { Phase::Pending };
                    begun = observed.begins(kind, phase, now);
                    if let Some(text) = asked {
                        observed.last_run_request = Some(text.clone());
                        begun = true;
                    }
                }
                let written = match kind {
                    RunKind::Prune => &mut observed.prune.next_run_at,
                    RunKind::Audit => &mut observed.audit.next_run_at,
                };
                let changed = *written != promised;
                *written = promised;
                changed || begun
            });
        }
        // Whatever runs now asks for a look at its end.
        let again = schedules.prune.again.wait(uptime).filter(|_| schedules.running.is_none()).unwrap_or(LONGEST);
        drop(schedules);
        if let Some(kind) = due {
            runs::start(&self.context, handle, kind);
        }
        until(next, now, LONGEST).min(again)
    }

    /// Lets go of a plan that the policy has outgrown, and takes a person's word for the one that waits. Whether a prune is due by it: at
    /// once, and also where an earlier operator was told and did not come to its end.
    fn approved(&self, handle: &Handle, policy: &StateEpochPolicy, new: bool) -> bool {
        let mut approved = false;
        handle.observed.send_if_modified(|observed| {
            let void = observed.void_plan(policy);
            approved = observed.approve(policy, self.context.clock.now());
            void || approved
        });
        if approved {
            let (namespace, name) = (&handle.name.namespace, &handle.name.name);
            tracing::info!(namespace, policy = name, reason = "Approved", "the plan that waits was approved");
        }
        approved || (new && handle.observed.borrow().approved_plan(policy).is_some())
    }

    /// What the annotation asks for and was not begun yet, with its text. What is not to be run is recorded at once.
    fn requested(&self, handle: &Handle, policy: &StateEpochPolicy) -> Option<(RunKind, String)> {
        let annotation = policy.annotations().get(RUN_ANNOTATION).map(String::as_str);
        let (last, first_seen) = {
            let observed = handle.observed.borrow();
            (observed.last_run_request.clone(), observed.first_seen)
        };
        let (run, record) = match request(annotation, last.as_deref(), first_seen) {
            Request::None => (None, None),
            Request::Record(text) => (None, Some(text)),
            Request::Run(kind, text) => (Some((kind, text)), None),
            Request::Probe => {
                handle.probe_requested.notify_one();
                (None, None)
            }
            Request::Unknown(text) => {
                let note = format!(
                    "{RUN_ANNOTATION}: {text:?} is not known: write prune, audit or probe, and @ and anything behind it to ask again"
                );
                self.context.notices.send(&handle.reference, Reason::PruneFailed, note);
                (None, Some(text))
            }
        };
        handle.observed.send_if_modified(|observed| {
            observed.first_seen = false;
            let recorded = record.is_some();
            observed.last_run_request = record.or(observed.last_run_request.take());
            recorded
        });
        run
    }
}

/// A slot is never looked at before its time: a look that comes early would only have to wait again. Nor much after it.
fn jitter_towards_later(wait: Duration) -> Duration {
    if wait >= LONGEST {
        LONGEST.mul_f64(0.75 + fastrand::f64() / 4.0)
    } else {
        wait + jitter(Duration::from_millis(20))
    }
}

#[cfg(test)]
mod clock_tests;
#[cfg(test)]
mod tests;
