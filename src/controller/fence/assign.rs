//! Publishing the fence where the operator gives the version.

use std::sync::Arc;

use epochwarden_core::Numbering;
use epochwarden_core::lease::{self, FenceDecision, VersionFrom};
use epochwarden_store::registers::{AssignError, Assigned};

use super::again::{Stopped, contested};
use super::{FenceTask, stands_at};
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
        let (context, handle) = (&self.context, &self.handle);
        let Some(seen) = self.lease.as_ref().map(|lease| lease.seen.clone()) else { return Ok(()) };
        let look = |reading, fence| {
            let seen = seen.clone();
            async move {
                if !handle.saw(&reading) {
                    return Err(NoLook::Contested);
                }
                context.leases.fetch(&context.client, key).await.map_err(NoLook::Lease)?;
                let seen = seen.borrow().clone();
                let lease = seen.lease.as_ref().map_or(
                    lease::LeaseSeen::Missing { namespace: &key.namespace, name: &key.name },
                    lease::LeaseSeen::Found,
                );
                let now = context.monotonic.now();
                Ok::<_, NoLook>(lease::decide(lease, VersionFrom::Assigned, numbering, &fence, now))
            }
        };
        let assigned = registers.assign_fence(look).await;
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
                return Err(self.store_failed("publishing the fence", &error));
            }
        };
        if let Some(known) = &mut self.known {
            known.fence = fence;
        }
        Ok(())
    }
}
