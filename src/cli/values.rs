//! The values of flags, parsed at the edge.

use std::path::PathBuf;
use std::time::Duration;

use epochwarden_core::duration::parse_duration;
use epochwarden_core::retention::KeepEvery;
use epochwarden_core::{Numbering, ParseError, Version};

/// The most vnodes that there can be.
pub(super) const MAX_VNODES: i64 = 1_048_576;

/// The most epochs that a rule may count, as in a policy.
pub(super) const MAX_COUNT: i64 = 1_000_000;

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

pub(super) fn some_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be longer than nothing, such as 10m".to_owned()),
        some => Ok(some),
    }
}

/// `E:F`: the newest seal of each window of length E, for as long as F.
pub(super) fn keep_every(text: &str) -> Result<KeepEvery, String> {
    let (every, for_) =
        text.split_once(':').ok_or("write the length of a window and how far back windows reach, such as 1h:7d")?;
    Ok(KeepEvery { every: some_duration(every)?, for_: some_duration(for_)? })
}

/// `key=value`. A value may hold further equals signs; only the key may be shown, for the value may be a secret.
pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as key=value, such as aws_region=eu-west-1".to_owned()),
    }
}

/// The digest of a plan: 64 hexadecimal digits.
pub(super) fn digest(text: &str) -> Result<String, String> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err("write the 64 hexadecimal digits that `epochwarden plan` shows as the digest".to_owned())
}

/// How epochs are numbered, in lower case as flags are.
pub(super) fn numbering(text: &str) -> Result<Numbering, String> {
    match text {
        "plain" => Ok(Numbering::Plain),
        "versioned" => Ok(Numbering::Versioned),
        _ => Err("write plain or versioned".to_owned()),
    }
}

/// A version that may be published.
pub(super) fn version(text: &str) -> Result<Version, String> {
    let version: Version = text.parse().map_err(|error: ParseError| error.to_string())?;
    if version.is_valid() { Ok(version) } else { Err(format!("write a version from 1 to {}", Version::MAX)) }
}

/// The identity of a holder, as a Lease may name one.
pub(super) fn holder(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.chars().any(char::is_control) {
        return Err("write the holder's identity as its Lease names it".to_owned());
    }
    Ok(text.to_owned())
}

/// The name of an object of Kubernetes.
pub(super) fn object_name(text: &str) -> Result<String, String> {
    let part = |part: &str| {
        let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty() && part.bytes().all(inside) && !part.starts_with('-') && !part.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(part) {
        return Ok(text.to_owned());
    }
    Err("write a name of lower case letters, digits, - and ., such as epochwarden-orders".to_owned())
}

pub(super) fn url_prefix(text: &str) -> Result<String, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    if matches!(scheme, "s3" | "gs" | "az" | "abfs") && !rest.is_empty() {
        return Ok(text.to_owned());
    }
    Err("write the beginning of the roots' URLs, such as s3://state/ or gs://state/orders".to_owned())
}

pub(super) fn absolute_folder(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("write an absolute path, such as /var/lib/state".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn keep_every_is_a_window_and_how_far_back_windows_reach() {
        for (text, every, for_) in [("1h:7d", 3600, 604_800), ("90s:1d12h", 90, 129_600)] {
            assert_eq!(keep_every(text), Ok(KeepEvery { every: seconds(every), for_: seconds(for_) }), "{text}");
        }
        for text in ["", "1h", ":", "1h:", ":7d", "0s:7d", "1h:0s", "1h:7d:1d", "1h-7d", "7d 1h"] {
            assert!(keep_every(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_a_span_that_lasts_is_some_duration() {
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(some_duration("1s"), Ok(seconds(1)));
        for text in ["0s", "0d0h", "10", "-1s", ""] {
            assert!(some_duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_option_ends_its_key_at_the_first_equals_sign() {
        for (text, key, value) in [("a=b", "a", "b"), ("a=", "a", ""), ("a=b=c==", "a", "b=c==")] {
            assert_eq!(key_value(text), Ok((key.to_owned(), value.to_owned())));
        }
        for text in ["", "a", "=b"] {
            assert!(key_value(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_digest_is_64_hexadecimal_digits() {
        assert_eq!(digest(&"0aF9".repeat(16)), Ok("0af9".repeat(16)));
        for text in ["", "0af9", &"0".repeat(63), &"0".repeat(65), &"x".repeat(64)] {
            assert!(digest(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_version_is_one_that_may_be_published_and_a_holder_is_named() {
        assert_eq!(version("7"), Ok(Version::new(7)));
        for text in ["0", "", "-1", "007", "9007199254740992", "v7/12"] {
            assert!(version(text).is_err(), "{text:?}");
        }
        assert_eq!(holder("orders-1_x7"), Ok("orders-1_x7".to_owned()));
        for text in ["", " ", "a\nb"] {
            assert!(holder(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_name_is_one_that_an_object_may_have() {
        for text in ["epochwarden", "a", "orders-2.v1", &"x".repeat(253)] {
            assert_eq!(object_name(text).as_deref(), Ok(text));
        }
        for text in ["", "Orders", "-a", "a-", "a..b", ".a", "a_b", "a/b", "a b", &"x".repeat(254)] {
            assert!(object_name(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_prefix_of_urls_names_a_kind_of_store_that_takes_credentials() {
        for text in ["s3://state", "s3://state/orders/", "gs://x", "az://x", "abfs://x"] {
            assert_eq!(url_prefix(text).as_deref(), Ok(text));
        }
        for text in ["", "state", "s3://", "s3:state", "file:///var", "https://state"] {
            assert!(url_prefix(text).is_err(), "{text:?}");
        }
    }
}
