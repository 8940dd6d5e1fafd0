//! Whose root it is: the highest owner record against the policy that would write.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The body of an owner record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerRecord {
    /// The uid of the cluster's kube-system namespace.
    pub cluster: String,
    /// The policy's namespace.
    pub namespace: String,
    /// The policy's name.
    pub name: String,
    /// The policy's uid.
    pub uid: String,
    /// The uid of the owner that this record takes over from, on a person's word.
    pub take_over: Option<String>,
}

/// How the owner of a root relates to a policy that would write to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// This very policy owns the root.
    Ours,
    /// A policy of the same cluster, namespace and name did: this one was recreated, and takes over by itself.
    Predecessor,
    /// Somebody else does: nothing may be written.
    Another,
}

/// A person's word on whose root may be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Word<'a> {
    /// The uid of the owner that may be taken over from.
    pub given: Option<&'a str>,
    /// The uid that was given and honoured last.
    pub honoured: Option<&'a str>,
}

/// What a policy may do about a root that has an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It owns the root: there is nothing to write.
    Stands,
    /// It was recreated: its own record follows its predecessor's.
    Succeeds,
    /// It takes over from another policy, on a person's word.
    TakesOver,
    /// The root is another's: nothing may be written.
    Refused(Refusal),
}

/// Why a root is not taken over from another policy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Nobody has said so.
    #[error("nobody has said that it may be taken over")]
    NoWord,
    /// The word was honoured before.
    #[error(
        "the word to take it over was honoured before and counts once: the owner has taken it back since; where that was a mistake, \
         have the owner's policy deleted, and recreate this one"
    )]
    Spent,
    /// The word is about somebody else.
    #[error("the word to take over names {given:?}, which does not own it")]
    NamesAnother {
        /// The uid that was given.
        given: String,
    },
}

impl OwnerRecord {
    /// How the policy `claimant` relates to the owner when this is the highest owner record.
    #[must_use]
    pub fn meets(&self, claimant: &Self) -> Ownership {
        let same_place =
            self.cluster == claimant.cluster && self.namespace == claimant.namespace && self.name == claimant.name;
        match (same_place, self.uid == claimant.uid) {
            (true, true) => Ownership::Ours,
            (true, false) => Ownership::Predecessor,
            (false, _) => Ownership::Another,
        }
    }

    /// What the policy `claimant` may do when this is the highest owner record and a person has given this word.
    #[must_use]
    pub fn claim(&self, claimant: &Self, word: Word<'_>) -> Claim {
        match self.meets(claimant) {
            Ownership::Ours => Claim::Stands,
            Ownership::Predecessor => Claim::Succeeds,
            Ownership::Another => match word.given {
                None => Claim::Refused(Refusal::NoWord),
                Some(given) if given != self.uid => Claim::Refused(Refusal::NamesAnother { given: given.to_owned() }),
                Some(given) if word.honoured == Some(given) => Claim::Refused(Refusal::Spent),
                Some(_) => Claim::TakesOver,
            },
        }
    }

    /// Whether this record shows that `claimant` has taken over from the owner `uid` before. A record outlives what the claimant may
    /// have failed to write down elsewhere.
    #[must_use]
    pub fn honours(&self, claimant: &Self, uid: &str) -> bool {
        self.meets(claimant) == Ownership::Ours && self.take_over.as_deref() == Some(uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(cluster: &str, namespace: &str, uid: &str) -> OwnerRecord {
        OwnerRecord {
            cluster: cluster.into(),
            namespace: namespace.into(),
            name: "orders".into(),
            uid: uid.into(),
            take_over: None,
        }
    }

    #[test]
    fn a_recreated_policy_is_the_successor_of_its_namesake_and_nobody_elses() {
        let ours = owner("c1", "streaming", "u1");
        for (highest, ownership) in [
            (owner("c1", "streaming", "u1"), Ownership::Ours),
            (owner("c1", "streaming", "u0"), Ownership::Predecessor),
            (owner("c1", "other", "u0"), Ownership::Another),
            (owner("c2", "streaming", "u1"), Ownership::Another),
            (owner("c2", "streaming", "u0"), Ownership::Another),
        ] {
            assert_eq!(highest.meets(&ours), ownership, "{highest:?}");
        }
    }

    #[test]
    fn a_root_is_taken_over_on_a_word_that_names_its_owner_and_was_not_honoured_before() {
        let ours = owner("c1", "streaming", "u1");
        let (mine, namesake) = (ours.clone(), owner("c1", "streaming", "u0"));
        let (neighbour, abroad) = (owner("c1", "billing", "u2"), owner("c2", "streaming", "u2"));
        let named = |given: &str| Claim::Refused(Refusal::NamesAnother { given: given.into() });
        for (highest, given, honoured, claim) in [
            (&mine, None, None, Claim::Stands),
            (&mine, Some("u2"), None, Claim::Stands),
            (&namesake, None, None, Claim::Succeeds),
            (&namesake, Some("u0"), Some("u0"), Claim::Succeeds),
            (&neighbour, None, None, Claim::Refused(Refusal::NoWord)),
            (&neighbour, None, Some("u2"), Claim::Refused(Refusal::NoWord)),
            (&neighbour, Some("u2"), None, Claim::TakesOver),
            (&abroad, Some("u2"), None, Claim::TakesOver),
            (&neighbour, Some("u2"), Some("u3"), Claim::TakesOver),
            (&neighbour, Some("u2"), Some("u2"), Claim::Refused(Refusal::Spent)),
            (&neighbour, Some("u3"), None, named("u3")),
            (&neighbour, Some("u3"), Some("u3"), named("u3")),
            (&neighbour, Some(""), None, named("")),
            (&neighbour, Some("U2"), None, named("U2")),
        ] {
            assert_eq!(highest.claim(&ours, Word { given, honoured }), claim, "{highest:?} {given:?} {honoured:?}");
        }
    }

    #[test]
    fn a_record_of_its_own_shows_which_word_a_policy_has_honoured() {
        let ours = owner("c1", "streaming", "u1");
        let record = OwnerRecord { take_over: Some("u2".into()), ..ours.clone() };
        assert!(record.honours(&ours, "u2"));
        assert!(!record.honours(&ours, "u3"));
        assert!(!ours.honours(&ours, "u2"), "it took over from nobody");
        assert!(!record.honours(&owner("c1", "streaming", "u9"), "u2"), "a recreated policy has honoured nothing");
    }

    #[test]
    fn an_owner_record_is_camel_case_json_and_says_also_that_nobody_was_taken_over() {
        let json = serde_json::to_value(owner("c1", "streaming", "u1")).unwrap();
        let expected = serde_json::json!({
            "cluster": "c1", "namespace": "streaming", "name": "orders", "uid": "u1", "takeOver": null,
        });
        assert_eq!(json, expected);
    }
}
