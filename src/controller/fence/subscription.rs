//! The Lease that a fence task follows, and what of it was acted upon.

use std::time::Duration;

use tokio::sync::watch;

use crate::controller::leases::{LeaseKey, LeaseSeen};

/// One Lease, as the fence task follows it.
pub(super) struct Subscription {
    pub(super) key: LeaseKey,
    /// When it began: what changed before was for nobody here.
    pub(super) since: Duration,
    pub(super) seen: watch::Receiver<LeaseSeen>,
}

impl Subscription {
    /// What is known, to be acted upon: only what comes later is news.
    pub(super) fn take(&mut self) -> LeaseSeen {
        self.seen.borrow_and_update().clone()
    }

    /// What is known, to reckon times with: what is news stays news.
    pub(super) fn peek(&self) -> LeaseSeen {
        self.seen.borrow().clone()
    }
}

/// Waits for news of the Lease, where one is followed. May be dropped at any point.
pub(super) async fn changed(lease: &mut Option<Subscription>) {
    let Some(lease) = lease else {
        return std::future::pending().await;
    };
    // The sender lives as long as its subscriber.
    if lease.seen.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
