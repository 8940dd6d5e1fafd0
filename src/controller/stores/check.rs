//! What the registers say before a store is handed out: whether one is lost, and whose the root is.

use std::sync::atomic::Ordering;

use epochwarden_core::register::{OwnerRecord, Reading, Refusal, RegisterKind, Word};
use epochwarden_store::registers::{Claimed, Conflict};
use epochwarden_store::{ErrorClass, Registers, StoreError, check_layout, list_index};
use kube::ResourceExt;

use super::keeper::Keeper;
use super::open::Opener;
use super::{StoreProblem, Stores};
use crate::api::condition::StoreReady;
use crate::api::{StateEpochPolicy, TAKE_OVER_ANNOTATION};
use crate::server::PolicyName;

impl Keeper {
    /// Reads the registers; claims the root, and probes the store, before anything else is written to it. Two LISTs where all is as it was.
    pub(super) async fn check(
        &mut self,
        policy: &StateEpochPolicy,
        mut stores: Stores,
        opener: &Opener,
    ) -> Result<Stores, StoreProblem> {
        // The client of the fence path gives up soon, and this is about the same registers.
        let registers = Registers::new(stores.fence.clone(), self.context.publisher.clone());
        registers.remember(&self.handle.observed.borrow().seen);
        let reading = match registers.read().await {
            Ok(reading) => reading,
            // The store is there, only not as it was: reading goes on, writing does not.
            Err(StoreError::RegisterLost(lost)) => {
                self.remember(|observed| observed.lost = Some(lost));
                stores.owner = None;
                return Ok(stores);
            }
            Err(error) => return Err(StoreProblem::from(&error)),
        };
        self.remember(|observed| {
            observed.seen = observed.seen.max(reading);
            observed.lost = None;
        });
        self.check_layout(&stores).await?;
        if !self.writes(policy) {
            stores.owner = None;
            return Ok(stores);
        }
        // A record never changes: while the highest one is the one that these clients have claimed with, the root is this policy's.
        let owner = match stores.owner.filter(|number| *number == reading.owner) {
            Some(number) => Some(number),
            None => self.claim(policy, &registers, &reading).await?,
        };
        stores.owner = None;
        let mut stores = self.trusted(stores, opener).await?;
        // Where whether a record was written is not known, the store is fit for it by now: the next look finds out.
        let Some(owner) = owner else {
            let message = "whether the owner record was written is not known: looking again".to_owned();
            return Err(StoreProblem { reason: StoreReady::Unreachable, message, lasting: false });
        };
        stores.owner = Some(owner);
        Ok(stores)
    }

    /// Refuses a root that shows a newer layout: at its top, or, where a run has said so, in one of its epochs.
    async fn check_layout(&self, stores: &Stores) -> Result<(), StoreProblem> {
        check_layout(&stores.fence).await.map_err(|error| StoreProblem::from(&error))?;
        let known = self.handle.observed.borrow().store.reason == StoreReady::UnknownLayout;
        if !self.handle.layout_doubted.load(Ordering::Relaxed) && !known {
            return Ok(());
        }
        // The doubt stays until something has answered it.
        let index = list_index(&stores.runs).await;
        if !matches!(&index, Err(error) if error.class() != ErrorClass::UnknownLayout) {
            self.handle.layout_doubted.store(false, Ordering::Relaxed);
        }
        match index {
            Err(error) if matches!(error.class(), ErrorClass::UnknownLayout | ErrorClass::Unreachable) => {
                Err(StoreProblem::from(&error))
            }
            // Whatever else is wrong with its epochs is for the runs to say.
            _ => Ok(()),
        }
    }

    /// Claims the root. `None`: no answer settles whether that succeeded, which may be the store's own fault.
    async fn claim(
        &self,
        policy: &StateEpochPolicy,
        registers: &Registers,
        reading: &Reading,
    ) -> Result<Option<u64>, StoreProblem> {
        let claimant = self.handle.owner_record(&self.context);
        let given = policy.annotations().get(TAKE_OVER_ANNOTATION).map(|uid| uid.trim()).filter(|uid| !uid.is_empty());
        let honoured = self.handle.observed.borrow().last_take_over.clone();
        let word = Word { given, honoured: honoured.as_deref() };
        match registers.claim_owner_asking(reading, &claimant, word, || self.is_live()).await {
            Ok(Err(problem)) => Err(problem),
            Ok(Ok(Claimed::Owned { owned, record })) => {
                self.honoured(record.take_over, owned.created);
                if owned.created {
                    registers.trim(RegisterKind::Owner).await;
                }
                self.remember(|observed| observed.seen.owner = observed.seen.owner.max(owned.number));
                Ok(Some(owned.number))
            }
            Ok(Ok(Claimed::Refused(conflict))) => {
                if let (Some(word), Conflict::Another { refusal: Refusal::Spent, .. }) = (given, &conflict) {
                    // It may be known by the record alone.
                    self.honoured(Some(word.to_owned()), false);
                }
                let message = in_words(&conflict, &self.handle.name);
                Err(StoreProblem { reason: StoreReady::RootConflict, message, lasting: true })
            }
            Err(error) if error.class() == ErrorClass::OutcomeUnknown => Ok(None),
            Err(error) => Err(StoreProblem::from(&error)),
        }
    }

    /// Refuses unless this is the policy that has the name now, before the record of a namesake is followed. An operator that has not heard
    /// for a while that the policy was recreated believes in the old one: two would take the root from each other by turns.
    async fn is_live(&self) -> Result<(), StoreProblem> {
        let now = self.handle.read_again(&self.context).await.map_err(|error| StoreProblem {
            reason: StoreReady::Unreachable,
            message: format!(
                "a policy of this name and another uid owns the root, and the API server does not say which of the two there is now: \
                 {error}; trying again"
            ),
            lasting: false,
        })?;
        let live = now.and_then(|policy| policy.uid());
        let uid = &self.handle.uid;
        if live.as_deref() == Some(uid.as_str()) {
            return Ok(());
        }
        let message = match live {
            Some(live) => format!(
                "the policy was recreated, and its root is that of uid {live}: nothing more is written for uid {uid}"
            ),
            None => format!("the policy was deleted: nothing more is written for uid {uid}"),
        };
        Err(StoreProblem { reason: StoreReady::RootConflict, message, lasting: true })
    }

    /// The root was taken over on this word, now or earlier. The record says so for good: where the operator ended before it was written
    /// down in the status, it is now.
    fn honoured(&self, word: Option<String>, now: bool) {
        let Some(word) = word else { return };
        if now {
            let (namespace, policy) = (&self.handle.name.namespace, &self.handle.name.name);
            tracing::warn!(
                namespace,
                policy,
                reason = "TakenOver",
                from = word,
                "the root was taken over from another policy, as {TAKE_OVER_ANNOTATION} says"
            );
        }
        self.handle.observed.send_if_modified(|observed| {
            let news = observed.last_take_over.as_ref() != Some(&word);
            observed.last_take_over = Some(word);
            news
        });
    }
}

/// Whose the root is, and what a person may do about it.
fn in_words(conflict: &Conflict, policy: &PolicyName) -> String {
    let owned = format!("this root is owned by {conflict}: nothing is written to it");
    let PolicyName { namespace, name } = policy;
    let take_over = |owner: &OwnerRecord| {
        format!("kubectl -n {namespace} annotate --overwrite sep {name} {TAKE_OVER_ANNOTATION}={}", owner.uid)
    };
    match conflict {
        Conflict::Another { owner, refusal: Refusal::NoWord } => format!(
            "{owned}; give every policy a root of its own or, where that policy shall not write to it any more, take it over: {}",
            take_over(owner)
        ),
        Conflict::Another { owner, refusal: refusal @ Refusal::NamesAnother { .. } } => {
            format!("{owned}; {refusal}; to take it over from its owner: {}", take_over(owner))
        }
        Conflict::Another { refusal, .. } => format!("{owned}; {refusal}"),
        _ => format!("{owned}; restore that record, or give the policy a root of its own"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(refusal: Refusal) -> Conflict {
        let owner = OwnerRecord {
            cluster: "c1".into(),
            namespace: "billing".into(),
            name: "invoices".into(),
            uid: "u2".into(),
            take_over: None,
        };
        Conflict::Another { owner, refusal }
    }

    #[test]
    fn a_conflict_names_the_owner_and_the_command_that_takes_the_root_over() {
        let policy = PolicyName { namespace: "streaming".into(), name: "orders".into() };
        let command = "kubectl -n streaming annotate --overwrite sep orders epochwarden.io/take-over=u2";
        for (refusal, helps, also) in [
            (Refusal::NoWord, true, "a root of its own"),
            (Refusal::NamesAnother { given: "u9".into() }, true, "u9"),
            (Refusal::Spent, false, "counts once"),
        ] {
            let message = in_words(&conflict(refusal), &policy);
            assert!(message.contains("policy billing/invoices (uid u2) of cluster c1"), "{message}");
            assert!(message.contains(also), "{message}");
            assert_eq!(message.contains(command), helps, "{message}");
        }
        let unreadable = Conflict::Unreadable { number: 7, reason: "EOF".into() };
        let message = in_words(&unreadable, &policy);
        assert!(message.contains("record 7") && !message.contains("take-over"), "{message}");
    }
}
