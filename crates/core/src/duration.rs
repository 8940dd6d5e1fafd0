//! Spans of time as people write them in a policy: `90s`, `10m`, `24h`, `7d`, `1d12h`.

use std::fmt::Write as _;
use std::time::Duration;

use thiserror::Error;

/// The form of a duration as a regular expression: what [`parse_duration`] takes, and nothing else.
///
/// It stays within what RE2 supports, so that the schema of the policy can carry it. It bounds each number to nine digits, which is why
/// no sum overflows.
pub const DURATION_PATTERN: &str = concat!(
    "^([0-9]{1,9}d([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?",
    "|[0-9]{1,9}h([0-9]{1,9}m)?([0-9]{1,9}s)?",
    "|[0-9]{1,9}m([0-9]{1,9}s)?",
    "|[0-9]{1,9}s)$"
);

/// The units in the order in which they are written, with their length in seconds. A day is 24 hours.
const UNITS: [(u8, u64); 4] = [(b'd', 24 * 60 * 60), (b'h', 60 * 60), (b'm', 60), (b's', 1)];

/// The highest count of one unit: nine digits.
const HIGHEST_COUNT: u64 = 999_999_999;

/// A text that is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{text:?} is not a duration: write days, hours, minutes and seconds in this order, each at most once and of at most nine digits, \
     such as 90s, 10m, 24h, 7d or 1d12h"
)]
pub struct DurationError {
    text: String,
}

/// Parses a duration: a sum of days (of 24 hours), hours, minutes and seconds in this order, each at most once.
///
/// `0s` is a valid duration of no length; an empty text, a bare number, a fraction, a sign or a space is none.
///
/// ```
/// use std::time::Duration;
/// use epochwarden_core::duration::parse_duration;
///
/// assert_eq!(parse_duration("1d12h")?, Duration::from_secs(36 * 60 * 60));
/// # Ok::<(), epochwarden_core::duration::DurationError>(())
/// ```
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    parse_seconds(text).map(Duration::from_secs).ok_or_else(|| DurationError { text: text.to_owned() })
}

fn parse_seconds(text: &str) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let mut units = UNITS.iter();
    let mut rest = text;
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count = rest.get(..digits)?.parse::<u64>().ok().filter(|_| digits <= 9)?;
        let unit = *rest.as_bytes().get(digits)?;
        // The units that this skips are spent: each comes at most once, and never after a smaller one.
        let (_, seconds) = units.find(|(name, _)| *name == unit)?;
        total = total.checked_add(count.checked_mul(*seconds)?)?;
        rest = rest.get(digits + 1..)?;
    }
    Some(total)
}

/// Writes a duration in the fewest units: `90s` becomes `1m30s`.
///
/// [`parse_duration`] reads it back unchanged, for every whole number of seconds that it can return; a fraction of a second is cut off,
/// and what is longer than nine digits of each unit is written as that.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let mut rest = duration.as_secs();
    let mut text = String::new();
    for (unit, seconds) in UNITS {
        let count = (rest / seconds).min(HIGHEST_COUNT);
        rest -= count * seconds;
        if count > 0 || unit == b's' && text.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{count}{}", char::from(unit));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    #[test]
    fn a_duration_is_a_sum_of_descending_units_and_the_pattern_agrees() {
        let pattern = Regex::new(DURATION_PATTERN).unwrap();
        for (text, seconds) in [
            ("0s", 0),
            ("0d", 0),
            ("0d0h0m0s", 0),
            ("90s", 90),
            ("10m", 600),
            ("24h", 86_400),
            ("7d", 604_800),
            ("1d12h", 129_600),
            ("1d1s", 86_401),
            ("1h30m", 5_400),
            ("1d2h3m4s", 93_784),
            ("007m", 420),
            ("999999999d999999999h999999999m999999999s", 90_061 * 999_999_999),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text:?}");
            assert!(pattern.is_match(text), "{text:?}");
        }
        for text in [
            "",
            "0",
            "7",
            "d",
            "s",
            "1",
            "1x",
            "1D",
            "1w",
            "-1s",
            "+1s",
            "1.5h",
            "1,5h",
            " 1s",
            "1s ",
            "1d 12h",
            "1s\n",
            "1m1h",
            "1s1m",
            "1d1d",
            "1h1h",
            "1s1s",
            "d1",
            "1d12",
            "1dh",
            "1ms",
            "PT1H",
            "1000000000s",
            "0000000001s",
            "٧s",
            "1ѕ",
            "99999999999999999999999d",
        ] {
            assert!(parse_duration(text).is_err(), "{text:?}");
            assert!(!pattern.is_match(text), "{text:?}");
        }
    }

    #[test]
    fn an_error_names_the_text_and_says_what_to_write() {
        let message = parse_duration("5 minutes").unwrap_err().to_string();
        assert!(message.contains("\"5 minutes\"") && message.contains("such as 90s, 10m"), "{message}");
    }

    #[test]
    fn a_duration_is_written_in_the_fewest_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (90, "1m30s"),
            (86_400, "1d"),
            (129_600, "1d12h"),
            (93_784, "1d2h3m4s"),
        ] {
            assert_eq!(format_duration(Duration::from_secs(seconds)), text);
        }
        assert_eq!(format_duration(Duration::from_millis(1_999)), "1s");
    }

    #[test]
    fn the_longest_duration_is_written_as_the_longest_that_can_be_read() {
        let text = format_duration(Duration::MAX);
        assert_eq!(text, "999999999d999999999h999999999m999999999s");
        assert!(parse_duration(&text).is_ok());
    }

    proptest! {
        #[test]
        fn whatever_the_pattern_takes_is_read_and_written_back_to_the_same_length(
            text in proptest::string::string_regex(DURATION_PATTERN.trim_matches(['^', '$'])).unwrap()
        ) {
            let duration = parse_duration(&text).unwrap();
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn the_pattern_and_the_parser_agree_on_near_misses(text in "[0-9]{0,2}[dhmsx]?[0-9]{0,2}[dhms]?[0-9]{0,2}[dhms ]?") {
            let pattern = Regex::new(DURATION_PATTERN).unwrap();
            prop_assert_eq!(parse_duration(&text).is_ok(), pattern.is_match(&text));
        }
    }
}
