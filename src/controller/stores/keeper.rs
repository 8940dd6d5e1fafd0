//! The task's own state: what it holds, what it says of it, and when it looks again.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::open::Place;
use super::trust::Condemned;
use super::{REGISTERS_AGE, SECRETS_AGE, StoreProblem, Stores};
use crate::api::StateEpochPolicy;
use crate::api::condition::{Reason as _, StoreReady};
use crate::api::status::RunKind;
use crate::controller::backoff::{Backoff, jitter};
use crate::controller::context::Context;
use crate::controller::notices::Reason;
use crate::controller::observed::{Observed, Said};
use crate::controller::registry::Handle;

/// What to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Only whether a Secret has changed.
    Secrets,
    /// The store itself, too.
    Store,
}

/// What somebody has asked for, beyond what the policy says.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// A probe, whatever is known of the store.
    pub(super) probe: bool,
}

pub(super) struct Keeper {
    pub(super) context: Arc<Context>,
    pub(super) handle: Arc<Handle>,
    /// The clients that have reached the store.
    pub(super) checked: Option<Stores>,
    /// URL and options of the clients that were made last: a probe is about these.
    pub(super) made_for: Option<Place>,
    /// What a probe has found of a store that keeps the keys of every probe.
    pub(super) condemned: Option<Condemned>,
    /// Whether anything was looked at before: the first look of all takes no turn.
    looked: bool,
    /// When the registers are read again though nobody has asked for it.
    registers_due: Duration,
    /// Whether the last look failed, or found a register lost: only the store itself can show that it is well again.
    ill: bool,
    pub(super) asked: Asked,
    /// Whether a probe was begun and has told nothing yet.
    pub(super) probing: bool,
    backoff: Backoff,
    /// What only a person ends is looked at less and less often; whatever a person does to the policy wakes it at once.
    patience: Backoff,
    /// Every probe writes, also one that comes to nothing.
    hesitation: Backoff,
    /// A store that is unsafe is so until somebody does something about it, and every probe of it writes.
    distrust: Backoff,
}

impl Keeper {
    pub(super) fn new(context: Arc<Context>, handle: Arc<Handle>) -> Self {
        Self {
            context,
            handle,
            checked: None,
            made_for: None,
            condemned: None,
            looked: false,
            registers_due: Duration::ZERO,
            ill: false,
            asked: Asked::default(),
            probing: false,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_mins(1)),
            patience: Backoff::new(Duration::from_secs(1), Duration::from_mins(10)),
            hesitation: Backoff::new(Duration::from_secs(2), Duration::from_hours(1)),
            distrust: Backoff::new(Duration::from_mins(1), Duration::from_hours(1)),
        }
    }

    /// The store is to be probed again, whatever is known of it.
    pub(super) fn wants_probe(&mut self) {
        self.asked.probe = true;
    }

    /// Whether anything is written to the root of this policy, so that it has to be claimed and probed.
    pub(super) fn writes(&self, policy: &StateEpochPolicy) -> bool {
        let asked = self.asked.probe || self.handle.writers.load(Ordering::Relaxed) > 0;
        policy.writes() || (!policy.spec.suspend && asked)
    }

    /// What is due when nothing happened for as long as the last look said.
    pub(super) fn due(&self) -> Look {
        let owned = self.checked.as_ref().is_some_and(|stores| stores.owner.is_some());
        if self.ill || (owned && self.context.monotonic.now() >= self.registers_due) {
            Look::Store
        } else {
            Look::Secrets
        }
    }

    /// One look. Gives the time until the next one.
    pub(super) async fn look(&mut self, look: Look) -> Duration {
        let policy = self.handle.current();
        let store = &policy.spec.store;
        let names_a_secret = store.credentials.is_some() || store.ca.is_some();
        if look == Look::Secrets && !names_a_secret {
            return jitter(SECRETS_AGE);
        }
        if std::mem::replace(&mut self.looked, true) && names_a_secret {
            self.context.turn_to_read_a_secret().await;
        }
        match self.open(&policy, look).await {
            Ok(stores) => {
                if look == Look::Store {
                    self.registers_due = self.context.monotonic.now() + jitter(REGISTERS_AGE);
                }
                self.backoff.reset();
                self.patience.reset();
                self.hesitation.reset();
                self.distrust.reset();
                // A lost register may have been restored, which nothing else would show.
                self.ill = self.handle.observed.borrow().lost.is_some();
                let message = format!("{} can be used", store.url);
                self.observe(StoreReady::Reachable, message, Some(stores.runs.provider()));
                self.hand_out(stores);
                jitter(SECRETS_AGE)
            }
            Err(problem) => {
                self.ill = true;
                let begun = std::mem::take(&mut self.probing);
                let wait = match problem.reason {
                    StoreReady::UnsafeStore => self.distrust.next(),
                    StoreReady::RootConflict | StoreReady::UnknownLayout => self.patience.next(),
                    _ if begun => self.hesitation.next(),
                    _ => self.backoff.next(),
                };
                self.failed(problem);
                wait
            }
        }
    }

    fn hand_out(&mut self, stores: Stores) {
        self.checked = Some(stores.clone());
        let owed = self.handle.owed.take_due(&stores);
        if owed {
            let mut schedules = self.handle.schedules.lock().unwrap_or_else(PoisonError::into_inner);
            schedules.slot(RunKind::Prune).requested = true;
        }
        let news = self.handle.stores.send_if_modified(|held| {
            let news = !held.as_ref().is_some_and(|held| held.is_unchanged(&stores));
            if news {
                *held = Some(stores);
            }
            news
        });
        if news || owed {
            // What was due may have waited for this.
            self.handle.wake(&self.context);
        }
    }

    fn failed(&mut self, problem: StoreProblem) {
        let StoreProblem { reason, message, lasting } = problem;
        let held = self.handle.stores.borrow().is_some();
        if held && reason == StoreReady::SecretNotFound && !lasting {
            let (namespace, policy) = (&self.handle.name.namespace, &self.handle.name.name);
            tracing::warn!(
                namespace,
                policy,
                reason = reason.as_str(),
                "{message}; the credentials of before go on being used"
            );
            return;
        }
        self.observe(reason, message, None);
        if lasting {
            self.checked = None;
        }
        // Who waits for the first result is told of this one, too.
        self.handle.stores.send_if_modified(|stores| {
            if lasting {
                *stores = None;
            }
            stores.is_none()
        });
    }

    pub(super) fn remember(&self, change: impl FnOnce(&mut Observed)) {
        self.handle.observed.send_modify(change);
    }

    fn observe(&self, reason: StoreReady, message: String, provider: Option<&'static str>) {
        let mut before = StoreReady::Pending;
        self.handle.observed.send_if_modified(|observed| {
            before = observed.store.reason;
            observed.opened = true;
            if let Some(provider) = provider {
                observed.provider = Some(provider.to_owned());
            }
            observed.store.replace(Said::new(reason, message.clone()))
        });
        if before == reason {
            return;
        }
        let notice = match reason {
            StoreReady::Reachable => {
                let (namespace, policy) = (&self.handle.name.namespace, &self.handle.name.name);
                tracing::info!(namespace, policy, reason = reason.as_str(), "{message}");
                return;
            }
            StoreReady::RootConflict => Reason::RootConflict,
            _ => Reason::StoreUnreachable,
        };
        self.context.notices.send_for(&self.handle.reference, notice, reason.as_str(), message);
    }
}
