//! Publishing the fence where the operator gives the version.

use std::sync::Arc;

use epochwarden_core::Numbering;
use epochwarden_core::lease::{self, FenceDecision, VersionFrom};
use epochwarden_store::registers::{AssignError, Assigned};

use super::again::{Stopped, contested};
use super::{FenceTask, PUBLISHING, stands_at};
use crate::controller::answer::NoAnswer;
use crate::controller::leases::LeaseKey;

/// Why the Lease was not asked, or did not answer.
enum NoLook {
    /// Another owner record than this policy's is the highest.
    Contested,
    /// The API server.
    Lease(NoAnswer),
}

impl FenceTask {
    /// Gives the term that the Lease names now the next version, in the order that [`Registers::assign_fence`] keeps: the fence is listed,
    /// the Lease is fetched, and then the record is created. What is decided from it is decided in the next round.
    ///
    /// [`Registers::assign_fence`]: epochwarden_store::Registers::assign_fence
    pub(super) async fn assign(&mut self, key: &LeaseKey, numbering: Numbering) -> Result<(), Stopped> {
        let registers = Arc::clone(&self.known().await?.registers);
        let (context, handle) = (Arc::clone(&self.context), Arc::clone(&self.handle));
        let (context, handle) = (&context, &handle);
        let Some(seen) = self.lease.as_ref().map(|lease| lease.seen.clone()) else { return Ok(()) };
        let look = |reading, fence| {
            let seen = seen.clone();
            async move {
                if !handle.saw(&reading) {
                    return Err(NoLook::Contested);
                }
                context.leases.fetch(key).await.map_err(NoLook::Lease)?;
                let now = context.monotonic.now();
                let found = seen.borrow();
                Ok::<_, NoLook>(lease::decide(found.found(key), VersionFrom::Assigned, numbering, &fence, now))
            }
        };
        // Apart, so that the task of a policy that assigns nothing stays small.
        let assigned = Box::pin(registers.assign_fence(look));
        let assigned = self.patiently(PUBLISHING, assigned).await;
        let at = self.context.clock.now();
        let fence = match assigned {
            Ok(Assigned::Created(term)) => {
                self.count("created");
                let event = self.event(&self.peek());
                self.created(&term, event, at);
                self.trim_later(term.version);
                stands_at(term.version)
            }
            Ok(Assigned::Nothing { fence, decision }) => {
                if matches!(decision, FenceDecision::Current(_)) {
                    self.count("already_there");
                }
                fence
            }
            Err(AssignError::Lease(NoLook::Contested)) => {
                self.known = None;
                return Err(contested());
            }
            Err(AssignError::Lease(NoLook::Lease(error))) => return Err(self.unanswered(key, &error)),
            Err(AssignError::Store(error)) => {
                self.count("failed");
                return Err(self.store_failed(PUBLISHING, &error));
            }
        };
        if let Some(known) = &mut self.known {
            known.fence = fence;
        }
        Ok(())
    }
}
