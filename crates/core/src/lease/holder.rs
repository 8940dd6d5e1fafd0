//! What the name of a holder says about whether another process may have it, too.

use std::fmt;

/// A holder that is named as its pod alone. The container of a pod may be started again, and the pod of a `StatefulSet` be made again,
/// under the same name; election libraries keep `leaseTransitions` when the same name acquires again, so two processes would share a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarePodName {
    /// `name-0`, as the pods of a `StatefulSet` are named.
    OfStatefulSet,
    /// `name-7d4b9c6f58-x7k2p`, as the pods of a Deployment are named.
    OfDeployment,
}

/// The letters and digits of which Kubernetes makes random names.
const RANDOM: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

impl BarePodName {
    /// Whether `holder` looks like the name of a pod without anything that is new at every start. `None` where it does not: that proves
    /// nothing, and is what a good name looks like.
    #[must_use]
    pub fn of(holder: &str) -> Option<Self> {
        let (rest, last) = holder.rsplit_once('-').filter(|(rest, _)| !rest.is_empty())?;
        if is_ordinal(last) {
            return Some(Self::OfStatefulSet);
        }
        let (_, hash) = rest.rsplit_once('-').filter(|(name, _)| !name.is_empty())?;
        let of_deployment = (8..=10).contains(&hash.len()) && last.len() == 5;
        (of_deployment && is_random(hash) && is_random(last)).then_some(Self::OfDeployment)
    }
}

fn is_ordinal(text: &str) -> bool {
    let digits = (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits && (text.len() == 1 || !text.starts_with('0'))
}

fn is_random(text: &str) -> bool {
    text.bytes().all(|byte| RANDOM.contains(&byte))
}

impl fmt::Display for BarePodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = match self {
            Self::OfStatefulSet => "StatefulSet",
            Self::OfDeployment => "Deployment",
        };
        write!(
            f,
            "it looks like the bare name of a pod of a {owner}: let the leader add something to it that is new at every start, or two \
             processes may share a version"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_anything_new_is_known_by_its_form() {
        for (holder, expected) in [
            ("orders-0", Some(BarePodName::OfStatefulSet)),
            ("orders-leader-12", Some(BarePodName::OfStatefulSet)),
            ("orders-7d4b9c6f58-x7k2p", Some(BarePodName::OfDeployment)),
            ("a-b-6b7f8d9c4-zzxc2", Some(BarePodName::OfDeployment)),
            // With a part of their own.
            ("orders-0-3f2a9c41d07be6a2", None),
            ("orders-0-1234567890123456", None),
            ("orders-7d4b9c6f58-x7k2p-3f2a9c41d07be6a2", None),
            ("orders-0_8f14e45f-ceea-467f-ab1c-1d2c3b4a5968", None),
            // Other names.
            ("orders", None),
            ("orders-leader", None),
            ("orders-007", None),
            ("orders-", None),
            ("-0", None),
            ("0", None),
            ("", None),
            ("7d4b9c6f58-x7k2p", None),
            ("orders-7d4b9c6f58-x7k2", None),
            ("orders-leader-x7k2p", None),
            ("orders-7d4b9c6f5a-x7k2p", None),
        ] {
            assert_eq!(BarePodName::of(holder), expected, "{holder:?}");
        }
    }

    #[test]
    fn the_warning_says_what_to_do() {
        let words = BarePodName::OfStatefulSet.to_string();
        assert!(words.contains("StatefulSet") && words.contains("new at every start"), "{words}");
        assert!(BarePodName::OfDeployment.to_string().contains("Deployment"));
    }
}
