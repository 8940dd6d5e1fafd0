//! How epochs are numbered, which numbers a version may use, and how people see them.
//!
//! With [`Numbering::Versioned`] the version is the upper part of the number, so two terms never share an epoch: a leader that was
//! deposed without knowing can only write into a range that nobody reads from any more. That is decided from the number alone, without
//! a request.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::epoch::{Epoch, Version};

/// How many of an epoch's bits count within one version.
const SEQUENCE_BITS: u32 = 40;
/// The highest sequence, and the mask of it.
const LAST_SEQUENCE: u64 = (1 << SEQUENCE_BITS) - 1;
/// The highest version whose range ends below 2^63, so that every epoch fits a signed 64-bit number as well.
const LAST_VERSION: u64 = (1 << 23) - 1;

/// How a pipeline numbers its epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Numbering {
    /// By one rising number, whoever leads: any `u64`, written in decimal.
    #[default]
    Plain,
    /// By version * 2^40 + sequence, with a version of 1..=2^23-1 and a sequence of 0..=2^40-1: written `v7/12`.
    Versioned,
}

/// The two parts of an epoch of [`Numbering::Versioned`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Parts {
    /// The version whose leader may use it.
    pub version: Version,
    /// Its number within that version.
    pub sequence: u64,
}

/// An epoch that a version may not use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub struct EpochOutOfRange {
    /// The epoch.
    pub epoch: Epoch,
    /// The version.
    pub version: Version,
}

/// A version that a numbering has no epochs for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{version} is not a version of {numbering} numbering: versions are 1..={}", numbering.highest_version())]
pub struct VersionOutOfRange {
    /// The version.
    pub version: Version,
    /// The numbering.
    pub numbering: Numbering,
}

impl Numbering {
    /// The highest version that there are epochs for.
    #[must_use]
    pub const fn highest_version(self) -> Version {
        match self {
            Self::Plain => Version::MAX,
            Self::Versioned => Version::new(LAST_VERSION),
        }
    }

    /// Refuses a version that may not be published: 0, and what lies above [`Numbering::highest_version`].
    pub fn check_version(self, version: Version) -> Result<(), VersionOutOfRange> {
        if version.is_valid() && version <= self.highest_version() {
            return Ok(());
        }
        Err(VersionOutOfRange { version, numbering: self })
    }

    /// The epochs that a leader of `version` may write and seal.
    ///
    /// `None` where there are none: of [`Numbering::Versioned`] for a version above the highest, and for [`Version::OFF`]. Without a
    /// fence nothing keeps two writers from the same version, so there is no range that one of them could have for itself; and whoever
    /// forgot to say the version is to hear of it at the first write.
    #[must_use]
    pub fn range(self, version: Version) -> Option<RangeInclusive<Epoch>> {
        match self {
            Self::Plain => Some(Epoch::ZERO..=Epoch::new(u64::MAX)),
            Self::Versioned => {
                self.check_version(version).ok()?;
                let first = version.get() << SEQUENCE_BITS;
                Some(Epoch::new(first)..=Epoch::new(first | LAST_SEQUENCE))
            }
        }
    }

    /// Refuses an epoch that a leader of `version` may not write nor seal.
    pub fn check_epoch(self, epoch: Epoch, version: Version) -> Result<(), EpochOutOfRange> {
        match self.range(version) {
            Some(range) if range.contains(&epoch) => Ok(()),
            _ => Err(EpochOutOfRange { epoch, version }),
        }
    }

    /// The epoch that a leader of `version` begins with, where `highest` is the highest number, sealed or not, in the listing that it
    /// restored from: above all of them, and in its own range.
    ///
    /// `None` where there is no such number: the range is used up, or a higher version has written already.
    #[must_use]
    pub fn first_epoch(self, version: Version, highest: Option<Epoch>) -> Option<Epoch> {
        let range = self.range(version)?;
        let above = match highest {
            None => Epoch::ZERO,
            Some(highest) => highest.next()?,
        };
        let first = above.max(*range.start());
        range.contains(&first).then_some(first)
    }

    /// Takes an epoch apart. `None` where it has no parts: of [`Numbering::Plain`], and for a number that lies in no version's range,
    /// as those do that were written before a pipeline began to number by versions.
    #[must_use]
    pub fn parts(self, epoch: Epoch) -> Option<Parts> {
        let version = Version::new(epoch.get() >> SEQUENCE_BITS);
        let numbered = self == Self::Versioned && self.check_version(version).is_ok();
        numbered.then_some(Parts { version, sequence: epoch.get() & LAST_SEQUENCE })
    }

    /// The epoch as people and JSON see it: `v7/12`, or in decimal where it has no parts.
    #[must_use]
    pub fn show(self, epoch: Epoch) -> ShownEpoch {
        ShownEpoch { epoch, parted: self.parts(epoch).is_some() }
    }

    /// Reads an epoch as a person writes it: a canonical decimal, and with [`Numbering::Versioned`] `v7/12` too.
    pub fn parse(self, text: &str) -> Result<Epoch, ParseEpochError> {
        let error = |why| ParseEpochError { text: text.to_owned(), why };
        match (text.strip_prefix('v'), self) {
            (None, Self::Plain) => text.parse().map_err(|_| error(NoEpoch::Plain)),
            (None, Self::Versioned) => text.parse().map_err(|_| error(NoEpoch::Versioned)),
            (Some(parts), Self::Versioned) => parse_parts(parts).ok_or_else(|| error(NoEpoch::Versioned)),
            (Some(parts), Self::Plain) if parse_parts(parts).is_some() => Err(error(NoEpoch::OtherNumbering)),
            (Some(_), Self::Plain) => Err(error(NoEpoch::Plain)),
        }
    }
}

/// Reads `7/12`, both canonical decimals within their bounds.
fn parse_parts(text: &str) -> Option<Epoch> {
    let (version, sequence) = text.split_once('/')?;
    // A sequence is written as an epoch of its own would be.
    let (version, sequence) = (version.parse::<Version>().ok()?, sequence.parse::<Epoch>().ok()?.get());
    let range = Numbering::Versioned.range(version)?;
    (sequence <= LAST_SEQUENCE).then(|| Epoch::new(range.start().get() | sequence))
}

/// The names of the resource: `Plain` and `Versioned`.
impl fmt::Display for Numbering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "Plain",
            Self::Versioned => "Versioned",
        })
    }
}

impl fmt::Display for EpochOutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, version } = *self;
        let numbering = Numbering::Versioned;
        let shown = numbering.show(epoch);
        match numbering.range(version) {
            Some(range) => write!(
                f,
                "epoch {shown} ({epoch}) is not one of version {version}, which may use {} to {}: a leader numbers its epochs by \
                 version * 2^40 + sequence, with its own version",
                numbering.show(*range.start()),
                numbering.show(*range.end())
            ),
            None => write!(
                f,
                "epoch {shown} ({epoch}) cannot be written as version {version}: Versioned numbering has epochs for the versions 1..={} \
                 alone; write and seal with the version of the term",
                numbering.highest_version()
            ),
        }
    }
}

/// A text that names no epoch.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not an epoch: {why}")]
pub struct ParseEpochError {
    text: String,
    why: NoEpoch,
}

/// Why a text names no epoch, and what to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
enum NoEpoch {
    #[error("write a decimal number without sign or leading zeros, at most {}", u64::MAX)]
    Plain,
    #[error(
        "write v and the version, a slash and the sequence, such as v7/12 (versions 1 to {LAST_VERSION}, sequences 0 to \
         {LAST_SEQUENCE}, without leading zeros), or the whole number in decimal"
    )]
    Versioned,
    #[error(
        "this is how Versioned numbering writes one, and here the numbering is Plain; write it in decimal, or say Versioned"
    )]
    OtherNumbering,
}

/// An epoch as its root's numbering writes it: the form in which plans, reports, findings, the status and the errors of a pipeline's library
/// show epochs. Keys and records have the number.
///
/// It is read back from either form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShownEpoch {
    epoch: Epoch,
    parted: bool,
}

impl ShownEpoch {
    /// The epoch itself.
    #[must_use]
    pub const fn epoch(self) -> Epoch {
        self.epoch
    }

    /// The bare number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.epoch.get()
    }
}

impl fmt::Display for ShownEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.parted.then(|| Numbering::Versioned.parts(self.epoch)).flatten();
        match parts {
            Some(Parts { version, sequence }) => f.pad(&format!("v{version}/{sequence}")),
            None => self.epoch.fmt(f),
        }
    }
}

impl FromStr for ShownEpoch {
    type Err = ParseEpochError;

    fn from_str(text: &str) -> Result<Self, ParseEpochError> {
        let numbering = if text.starts_with('v') { Numbering::Versioned } else { Numbering::Plain };
        numbering.parse(text).map(|epoch| numbering.show(epoch))
    }
}

impl Serialize for ShownEpoch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ShownEpoch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VERSIONED: Numbering = Numbering::Versioned;
    /// `v1/0`, `v7/12` and the very last one, spelled out.
    const V1: u64 = 1_099_511_627_776;
    const V7_12: u64 = 7_696_581_394_444;
    const LAST: u64 = 9_223_372_036_854_775_807;

    fn version(number: u64) -> Version {
        Version::new(number)
    }

    fn epoch(number: u64) -> Epoch {
        Epoch::new(number)
    }

    #[test]
    fn a_version_has_a_range_of_its_own_and_no_version_has_none() {
        for (number, range) in [
            (0, None),
            (1, Some(V1..=2 * V1 - 1)),
            (7, Some(7 * V1..=8 * V1 - 1)),
            (8_388_607, Some(9_223_370_937_343_148_032..=LAST)),
            (8_388_608, None),
            (u64::MAX, None),
        ] {
            let expected = range.map(|range| epoch(*range.start())..=epoch(*range.end()));
            assert_eq!(VERSIONED.range(version(number)), expected, "{number}");
            assert_eq!(VERSIONED.check_version(version(number)).is_ok(), expected.is_some(), "{number}");
            assert_eq!(Numbering::Plain.range(version(number)), Some(Epoch::ZERO..=epoch(u64::MAX)));
        }
    }

    #[test]
    fn an_epoch_belongs_to_one_version_alone() {
        for (number, of, admitted) in [
            (V7_12, 7, true),
            (7 * V1, 7, true),
            (8 * V1 - 1, 7, true),
            (7 * V1 - 1, 7, false),
            (8 * V1, 7, false),
            (V7_12, 6, false),
            (V7_12, 8, false),
            (V7_12, 0, false),
            (12, 7, false),
            (12, 0, false),
            (0, 0, false),
            (LAST, 8_388_607, true),
            (LAST + 1, 8_388_608, false),
            (u64::MAX, u64::MAX, false),
        ] {
            let refused = EpochOutOfRange { epoch: epoch(number), version: version(of) };
            let expected = if admitted { Ok(()) } else { Err(refused) };
            assert_eq!(VERSIONED.check_epoch(epoch(number), version(of)), expected, "{number} of {of}");
            assert_eq!(Numbering::Plain.check_epoch(epoch(number), version(of)), Ok(()));
        }
    }

    #[test]
    fn plain_versions_end_with_the_versions_themselves() {
        for (number, versioned, plain) in [
            (0, false, false),
            (1, true, true),
            (1 << 23, false, true),
            ((1 << 53) - 1, false, true),
            (1 << 53, false, false),
        ] {
            assert_eq!(VERSIONED.check_version(version(number)).is_ok(), versioned, "{number}");
            assert_eq!(Numbering::Plain.check_version(version(number)).is_ok(), plain, "{number}");
        }
        let refused = VERSIONED.check_version(version(1 << 23)).unwrap_err().to_string();
        assert_eq!(refused, "8388608 is not a version of Versioned numbering: versions are 1..=8388607");
    }

    #[test]
    fn a_term_begins_above_everything_listed_and_in_its_own_range() {
        for (numbering, of, highest, first) in [
            (Numbering::Plain, 7, None, Some(0)),
            (Numbering::Plain, 7, Some(41), Some(42)),
            (Numbering::Plain, 0, Some(41), Some(42)),
            (Numbering::Plain, 7, Some(u64::MAX), None),
            (VERSIONED, 7, None, Some(7 * V1)),
            (VERSIONED, 7, Some(41), Some(7 * V1)),
            (VERSIONED, 7, Some(7 * V1 - 1), Some(7 * V1)),
            (VERSIONED, 7, Some(V7_12), Some(V7_12 + 1)),
            (VERSIONED, 7, Some(8 * V1 - 1), None),
            (VERSIONED, 7, Some(8 * V1), None),
            (VERSIONED, 7, Some(u64::MAX), None),
            (VERSIONED, 0, None, None),
        ] {
            let found = numbering.first_epoch(version(of), highest.map(epoch));
            assert_eq!(found, first.map(epoch), "{numbering} {of} above {highest:?}");
        }
    }

    #[test]
    fn people_see_the_parts_and_the_number_where_there_are_none() {
        for (number, versioned) in [
            (0, "0"),
            (V1 - 1, "1099511627775"),
            (V1, "v1/0"),
            (V7_12, "v7/12"),
            (LAST, "v8388607/1099511627775"),
            (LAST + 1, "9223372036854775808"),
            (u64::MAX, "18446744073709551615"),
        ] {
            assert_eq!(VERSIONED.show(epoch(number)).to_string(), versioned);
            assert_eq!(Numbering::Plain.show(epoch(number)).to_string(), number.to_string());
        }
        assert_eq!(format!("[{:>7}]", VERSIONED.show(epoch(V7_12))), "[  v7/12]");
    }

    #[test]
    fn an_epoch_is_read_as_it_is_shown_and_in_decimal() {
        for text in ["v7/12", "7696581394444"] {
            assert_eq!(VERSIONED.parse(text), Ok(epoch(V7_12)));
        }
        assert_eq!(VERSIONED.parse("v8388607/1099511627775"), Ok(epoch(LAST)));
        assert_eq!(VERSIONED.parse("18446744073709551615"), Ok(epoch(u64::MAX)));
        for text in [
            "",
            "v",
            "v7",
            "v7/",
            "v/12",
            "7/12",
            "V7/12",
            "v7/12/1",
            "v0/12",
            "v07/12",
            "v7/012",
            "v+7/12",
            "v7/-1",
            " v7/12",
            "v7/12 ",
            "v8388608/0",
            "v7/1099511627776",
            "v7/18446744073709551615",
            "007",
        ] {
            let message = VERSIONED.parse(text).unwrap_err().to_string();
            assert!(message.contains("such as v7/12"), "{text:?}: {message}");
            let message = Numbering::Plain.parse(text).unwrap_err().to_string();
            assert!(message.contains("write a decimal number"), "{text:?}: {message}");
        }
        let message = Numbering::Plain.parse("v7/12").unwrap_err().to_string();
        assert!(message.contains("\"v7/12\"") && message.contains("the numbering is Plain"), "{message}");
    }

    #[test]
    fn a_shown_epoch_is_a_json_string_that_is_read_back() {
        for (numbering, number, json) in [
            (VERSIONED, V7_12, r#""v7/12""#),
            (VERSIONED, 12, r#""12""#),
            (Numbering::Plain, V7_12, r#""7696581394444""#),
        ] {
            let shown = numbering.show(epoch(number));
            assert_eq!(serde_json::to_string(&shown).unwrap(), json);
            let read: ShownEpoch = serde_json::from_str(json).unwrap();
            assert_eq!((read, read.epoch()), (shown, epoch(number)));
        }
        assert!(serde_json::from_str::<ShownEpoch>(r#""v0/1""#).is_err());
        assert!(serde_json::from_str::<ShownEpoch>("12").is_err());
    }

    #[test]
    fn a_refusal_names_the_range_in_both_forms() {
        for (number, of, words) in [
            (V7_12, 6, &["v7/12", "7696581394444", "version 6", "v6/0 to v6/1099511627775"][..]),
            (12, 6, &["epoch 12 (12)", "v6/0"]),
            (12, 0, &["version 0", "1..=8388607"]),
        ] {
            let message = VERSIONED.check_epoch(epoch(number), version(of)).unwrap_err().to_string();
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
        }
    }

    proptest! {
        /// Every number is in the range of the version that it is shown with, in no other's, and read back from its text.
        #[test]
        fn showing_and_parting_and_reading_agree(number in prop_oneof![any::<u64>(), 0..(4 * V1)], other in 0..=Version::MAX.get()) {
            let epoch = epoch(number);
            prop_assert_eq!(VERSIONED.parse(&VERSIONED.show(epoch).to_string()), Ok(epoch));
            if let Some(Parts { version: of, sequence }) = VERSIONED.parts(epoch) {
                prop_assert_eq!(of.get() * (1 << 40) + sequence, number);
                prop_assert!(VERSIONED.check_epoch(epoch, of).is_ok());
                prop_assert_eq!(VERSIONED.check_epoch(epoch, version(other)).is_ok(), version(other) == of);
            } else {
                prop_assert!(!(V1..=LAST).contains(&number));
                prop_assert!(VERSIONED.check_epoch(epoch, version(other)).is_err());
            }
        }
    }
}
