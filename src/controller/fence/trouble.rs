//! What keeps the fence from being current: what is said of it, who is told, and when it is tried again.

use std::time::Duration;

use epochwarden_core::lease::{self, FenceDecision, FenceRefusal, Term};
use epochwarden_store::{ErrorClass, StoreError};

use super::again::{Again, Stopped};
use super::told::{term_not_durable, unanswered, worded_once};
use super::{FenceTask, UNANSWERED, stands_at};
use crate::api::condition::{FenceCurrent, Reason as _};
use crate::controller::notices::Reason;
use crate::controller::observed::Said;

impl FenceTask {
    /// A Lease that is gone or silent is looked at again by events and polls; so is every other refusal, for it hangs on the Lease.
    pub(super) fn refused(&self, refusal: FenceRefusal) -> Stopped {
        let duration = self.lease.as_ref().and_then(|lease| lease.peek().lease?.duration);
        let refusal = worded_once(refusal, duration);
        Stopped { reason: FenceCurrent::from(&refusal), message: refusal.to_string(), again: Again::InTime }
    }

    pub(super) fn store_failed(&mut self, doing: &str, error: &StoreError) -> Stopped {
        // What was known may be wrong after a failure: read it again.
        self.known = None;
        let first = self.handle.observed.borrow().fence.reason != FenceCurrent::PublishFailed;
        let look_again = match error.class() {
            // A look is told of another key, and of a bucket that is back. Where it may do what this may not, it finds nothing wrong.
            ErrorClass::AccessDenied | ErrorClass::BucketNotFound => {
                let now = self.context.monotonic.now();
                let due = now >= self.look_again_due;
                if due {
                    self.look_again_due = now + self.refusals.next();
                }
                due
            }
            // The store task tries again by itself from then on, and less often than this one does.
            ErrorClass::Unreachable => first,
            _ => false,
        };
        if look_again {
            self.handle.look_again.notify_one();
        }
        self.failed(&format!("{doing}: {error}"))
    }

    /// Waits for the store. When it leaves a request unanswered, which is tried for some time yet, what stands in the status is not true any
    /// more: `FenceCurrent` says so meanwhile.
    pub(super) async fn patiently<T>(&mut self, doing: &str, asked: impl Future<Output = T>) -> T {
        let mut asked = std::pin::pin!(asked);
        if let Ok(answer) = tokio::time::timeout(UNANSWERED, asked.as_mut()).await {
            return answer;
        }
        let before = self.handle.observed.borrow().fence.clone();
        let wanted = self.not_durable();
        // Said before, and in the words of the last answer, which are better.
        if before.reason != FenceCurrent::PublishFailed || !before.message.starts_with(&wanted) {
            self.decided = true;
            self.say(FenceCurrent::PublishFailed, format!("{wanted}{}", unanswered(doing)));
        }
        asked.await
    }

    /// The term that the Lease gives, where the fence does not stand there.
    fn wanted(&self) -> Option<Term> {
        let seen = self.lease.as_ref()?.peek();
        let fence = stands_at(self.handle.observed.borrow().seen.fence);
        let found = lease::LeaseSeen::Found(seen.lease.as_ref()?);
        let policy = self.handle.current();
        let now = self.context.monotonic.now();
        match lease::decide(found, policy.version_from(), policy.spec.numbering, &fence, now) {
            FenceDecision::Publish(term) => Some(term),
            _ => None,
        }
    }

    /// Which version waits for the end of a problem, to begin a message with; empty where none does.
    fn not_durable(&self) -> String {
        self.wanted().map(|term| term_not_durable(&term)).unwrap_or_default()
    }

    pub(super) fn failed(&mut self, problem: &str) -> Stopped {
        let message = format!("{}{problem}", self.not_durable());
        Stopped { reason: FenceCurrent::PublishFailed, message, again: Again::After(self.backoff.next()) }
    }

    pub(super) fn stopped(&mut self, stopped: Stopped) -> Duration {
        let Stopped { reason, message, again } = stopped;
        self.decided |= reason != FenceCurrent::Pending;
        self.say(reason, message);
        self.wait(again)
    }

    fn say(&self, reason: FenceCurrent, message: String) {
        let decided = self.decided;
        let mut transition = false;
        self.handle.observed.send_if_modified(|observed| {
            // What an earlier life found out stands until this one has found out something.
            if !decided && observed.fence.reason != reason {
                return false;
            }
            transition = observed.fence.reason != reason;
            observed.fence.replace(Said::new(reason, message.clone()))
        });
        if transition {
            if let Some(notice) = Reason::of_fence(reason) {
                self.context.notices.send(&self.handle.reference, notice, message);
            } else {
                let (namespace, policy) = (&self.handle.name.namespace, &self.handle.name.name);
                tracing::info!(namespace, policy, reason = reason.as_str(), "{message}");
            }
        }
    }
}
