//! What is kept, and what an epoch is.

use std::time::Duration;

use clap::Args;
use epochwarden_core::Numbering;
use epochwarden_core::plan::{Rules, Subject};
use epochwarden_core::retention::{KeepEvery, Retention};
use epochwarden_store::Root;

use super::exit::CliError;
use super::values::{self, MAX_COUNT, MAX_VNODES};
use crate::api::{StateEpochPolicy, validate};

/// The flags of a plan's rules. Without `--keep-last`, `--keep-within` and `--keep-every` everything is kept. With the manifest of a
/// policy its rules count, and none of these flags may be given.
#[derive(Debug, Args)]
#[command(next_help_heading = "Retention")]
pub(super) struct RetentionFlags {
    /// How many vnodes the pipeline has: an epoch is complete with the partials of vnodes 0 to N-1
    #[arg(
        long,
        value_name = "N",
        required_unless_present = "policy",
        conflicts_with = "policy",
        value_parser = clap::value_parser!(u32).range(1..=MAX_VNODES)
    )]
    vnodes: Option<u32>,

    /// Keep the newest N sealed epochs
    #[arg(long, value_name = "N", conflicts_with = "policy", value_parser = clap::value_parser!(u32).range(1..=MAX_COUNT))]
    keep_last: Option<u32>,

    /// Keep what was sealed within D (90s, 10m, 24h, 7d, 1d12h) before the newest seal
    #[arg(long, value_name = "D", conflicts_with = "policy", value_parser = values::some_duration)]
    keep_within: Option<Duration>,

    /// Keep the newest seal of each window of E, for F back from the newest seal, such as 1h:7d; repeatable
    #[arg(long, value_name = "E:F", conflicts_with = "policy", value_parser = values::keep_every)]
    keep_every: Vec<KeepEvery>,

    /// Keep this epoch, such as 4711, or with `--numbering versioned` v7/12; repeatable
    #[arg(long = "pin", value_name = "EPOCH", conflicts_with = "policy")]
    pins: Vec<String>,

    /// Also keep N sealed epochs below each kept one, and everything between: for incremental state
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        conflicts_with = "policy",
        value_parser = clap::value_parser!(u32).range(0..=MAX_COUNT)
    )]
    incremental_depth: u32,

    /// Keep what is younger than D, or has no older seal above it: someone may be restoring it; 0s turns this off
    #[arg(long, value_name = "D", default_value = "10m", conflicts_with = "policy", value_parser = values::duration)]
    min_age: Duration,
}

impl RetentionFlags {
    /// The rules of the policy, where there is one, else of the flags.
    /// Pinned epochs are read as `numbering` writes them.
    pub(super) fn rules(&self, policy: Option<&StateEpochPolicy>, numbering: Numbering) -> Result<Rules, CliError> {
        match policy {
            Some(policy) => validate::rules(&policy.spec).map_err(|error| CliError::Usage(error.to_string())),
            None => self.own_rules(numbering),
        }
    }

    fn own_rules(&self, numbering: Numbering) -> Result<Rules, CliError> {
        let pinned = self.pins.iter().map(|pin| numbering.parse(pin)).collect::<Result<_, _>>();
        Ok(Rules {
            // Without a policy the flag is there.
            vnodes: self.vnodes.unwrap_or_default(),
            retention: Retention {
                keep_last: self.keep_last,
                keep_within: self.keep_within,
                keep_every: self.keep_every.clone(),
                pinned: pinned.map_err(|error| CliError::Usage(format!("--pin: {error}")))?,
                incremental_depth: self.incremental_depth,
            },
            min_age: self.min_age,
        })
    }
}

/// What a plan of the command line is about: a root, and no policy.
pub(super) fn subject(root: &Root) -> Subject {
    Subject { root: root.url().to_owned(), policy_uid: String::new() }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use epochwarden_core::Epoch;

    use super::*;

    use super::super::store_flags::StoreFlags;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        store: StoreFlags,
        #[command(flatten)]
        retention: RetentionFlags,
    }

    fn rules(line: &str) -> Rules {
        parse(&format!("--store s3://state {line}")).unwrap().retention.rules(None, Numbering::Plain).unwrap()
    }

    fn parse(line: &str) -> Result<Line, clap::Error> {
        Line::try_parse_from(["line"].into_iter().chain(line.split_whitespace()))
    }

    #[test]
    fn a_policy_takes_the_place_of_every_flag_that_it_has_a_field_for() {
        assert!(parse("--policy orders.yaml").is_ok());
        for flag in [
            "--store s3://state",
            "--vnodes 4",
            "--keep-last 1",
            "--keep-within 1h",
            "--keep-every 1h:7d",
            "--pin 5",
            "--numbering versioned",
            "--incremental-depth 0",
            "--min-age 10m",
        ] {
            let error = parse(&format!("--policy orders.yaml {flag}")).unwrap_err();
            assert_eq!(error.kind(), clap::error::ErrorKind::ArgumentConflict, "{flag}");
        }
        assert!(parse("--vnodes 4").is_err(), "nothing names a root");
        assert!(parse("--store s3://state").is_err(), "nothing says how many vnodes there are");
    }

    #[test]
    fn the_rules_of_a_policy_are_those_that_the_operator_takes() {
        let policy = crate::api::parse_manifest(include_str!("../../examples/policies/full.yaml")).unwrap();
        let line = parse("--policy orders.yaml").unwrap();
        assert_eq!(
            line.retention.rules(Some(&policy), Numbering::Plain).unwrap(),
            validate::rules(&policy.spec).unwrap()
        );
        assert!(format!("{:?}", line.store).contains("orders.yaml"));
    }

    #[test]
    fn without_flags_everything_is_kept_and_young_epochs_are_those_of_the_last_ten_minutes() {
        let rules = rules("--vnodes 256");
        let expected = Rules { vnodes: 256, retention: Retention::default(), min_age: Duration::from_mins(10) };
        assert_eq!(rules, expected);
        assert!(rules.retention.keeps_everything());
    }

    #[test]
    fn every_flag_is_one_rule() {
        let rules = rules(
            "--vnodes 4 --keep-last 3 --keep-within 24h --keep-every 1h:7d --keep-every 1d:30d --pin 5 --pin 18446744073709551615 \
             --incremental-depth 2 --min-age 0s",
        );
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let expected = Retention {
            keep_last: Some(3),
            keep_within: Some(hours(24)),
            keep_every: vec![
                KeepEvery { every: hours(1), for_: hours(7 * 24) },
                KeepEvery { every: hours(24), for_: hours(30 * 24) },
            ],
            pinned: [Epoch::new(5), Epoch::new(u64::MAX)].into(),
            incremental_depth: 2,
        };
        assert_eq!(rules, Rules { vnodes: 4, retention: expected, min_age: Duration::ZERO });
    }

    #[test]
    fn a_pin_is_read_as_the_numbering_writes_it() {
        let pinned = |line: &str, numbering| {
            let line = parse(&format!("--store s3://state --vnodes 4 {line}")).unwrap();
            line.retention.rules(None, numbering).map(|rules| rules.retention.pinned)
        };
        let v7_12 = Epoch::new(7_696_581_394_444);
        for text in ["--pin v7/12", "--pin 7696581394444"] {
            assert_eq!(pinned(text, Numbering::Versioned).unwrap(), [v7_12].into());
        }
        for (text, numbering, words) in [
            ("--pin v7/12", Numbering::Plain, "the numbering is Plain"),
            ("--pin v0/12", Numbering::Versioned, "such as v7/12"),
            ("--pin 007", Numbering::Plain, "without sign or leading zeros"),
        ] {
            let error = pinned(text, numbering).unwrap_err();
            assert!(error.exit() as i32 == 2 && error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn the_numbering_is_said_in_lower_case_and_is_plain_where_it_is_not() {
        for (line, numbering) in [
            ("", Numbering::Plain),
            ("--numbering plain", Numbering::Plain),
            ("--numbering versioned", Numbering::Versioned),
        ] {
            let line = parse(&format!("--store file:///tmp --vnodes 4 {line}")).unwrap();
            assert_eq!(line.store.open().unwrap().root.numbering(), numbering);
        }
        assert!(parse("--store s3://state --vnodes 4 --numbering Versioned").is_err());
    }
}
