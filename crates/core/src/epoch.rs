//! The numbers everything is about: epochs, vnodes, versions, and the names of those who write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A text that is not the canonical form of the number it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not {what}: write a decimal number without sign or leading zeros, at most {max}")]
pub struct ParseError {
    text: String,
    what: &'static str,
    max: u64,
}

/// Parses a canonical decimal: what [`u64`]'s `Display` would print, and nothing else.
fn canonical(text: &str, what: &'static str, max: u64) -> Result<u64, ParseError> {
    let error = || ParseError { text: text.to_owned(), what, max };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return Err(error());
    }
    text.parse::<u64>().ok().filter(|number| *number <= max).ok_or_else(error)
}

/// The number of a checkpoint. Any `u64`; sparse numbers (timestamps) are normal.
///
/// Its text form is canonical decimal, and it serialises as a string, because a `u64` does not fit a JSON number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(u64);

impl Epoch {
    /// The lowest epoch there can be.
    pub const ZERO: Self = Self(0);

    /// An epoch from its number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The bare number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The epoch number right above this one; `None` above the highest `u64`.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Epoch {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        canonical(text, "an epoch", u64::MAX).map(Self)
    }
}

impl Serialize for Epoch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The number of a slice of the key space whose state is one object per epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Vnode(u32);

impl Vnode {
    /// A vnode from its number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The bare number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vnode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Vnode {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let number = canonical(text, "a vnode", u64::from(u32::MAX))?;
        u32::try_from(number).map(Self).map_err(|_| ParseError {
            text: text.to_owned(),
            what: "a vnode",
            max: u64::from(u32::MAX),
        })
    }
}

/// The assignment version of a leader: which term of leadership a writer belongs to.
///
/// [`Version::OFF`] (0) means that the fence is off; it is never published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(u64);

impl Version {
    /// The fence is off: single-instance use.
    pub const OFF: Self = Self(0);

    /// The highest version there can be: 2^53-1, what every JSON reader keeps exactly.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// A version from its number. Whether it is in range is for [`Version::is_valid`] to say.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The bare number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether the fence is off for this version.
    #[must_use]
    pub const fn is_off(self) -> bool {
        self.0 == 0
    }

    /// Whether this version may be published: 1..=2^53-1.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 >= 1 && self.0 <= Self::MAX.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Version {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        canonical(text, "a version", Self::MAX.0).map(Self)
    }
}

/// The name of one process start of a pipeline: the body of the seals that it writes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(String);

impl InstanceId {
    /// An instance id from its text. Any text is a valid id; it should be new at every start of a process.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The id of one start of the process in the pod `pod_name`, where `start` is a number that no other start has, such as a random one.
    #[must_use]
    pub fn of_start(pod_name: &str, start: u64) -> Self {
        Self(format!("{pod_name}-{start:016x}"))
    }

    /// The bare text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_decimals_are_epochs() {
        for (text, number) in [("0", 0), ("7", 7), ("18446744073709551615", u64::MAX)] {
            assert_eq!(text.parse::<Epoch>(), Ok(Epoch::new(number)));
        }
        for text in ["", "007", "00", "+7", "-1", " 7", "7 ", "0x7", "7.0", "18446744073709551616", "٧"] {
            assert!(text.parse::<Epoch>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn vnodes_end_at_the_highest_u32() {
        assert_eq!("4294967295".parse::<Vnode>(), Ok(Vnode::new(u32::MAX)));
        assert!("4294967296".parse::<Vnode>().is_err());
    }

    #[test]
    fn versions_end_where_json_numbers_stop_being_exact() {
        assert_eq!("9007199254740991".parse::<Version>(), Ok(Version::MAX));
        assert!("9007199254740992".parse::<Version>().is_err());
        assert!(!Version::OFF.is_valid());
        assert!(Version::new(1).is_valid() && Version::MAX.is_valid());
        assert!(!Version::new(1 << 53).is_valid());
    }

    #[test]
    fn an_epoch_is_a_json_string() {
        let json = serde_json::to_string(&Epoch::new(u64::MAX)).unwrap();
        assert_eq!(json, r#""18446744073709551615""#);
        assert_eq!(serde_json::from_str::<Epoch>(&json).unwrap(), Epoch::new(u64::MAX));
    }

    #[test]
    fn an_instance_id_is_the_pods_name_and_its_start() {
        assert_eq!(InstanceId::of_start("orders-0", 0x3f2a).as_str(), "orders-0-0000000000003f2a");
        assert_ne!(InstanceId::of_start("orders-0", 1), InstanceId::of_start("orders-0", 2));
    }

    #[test]
    fn nothing_comes_after_the_highest_epoch() {
        assert_eq!(Epoch::ZERO.next(), Some(Epoch::new(1)));
        assert_eq!(Epoch::new(u64::MAX).next(), None);
    }
}
