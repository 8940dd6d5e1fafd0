//! One field of a cron expression: what may stand in it, and what an `H` in it becomes.

use std::fmt;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use sha2::{Digest, Sha256};

/// A field of a schedule, in the order in which it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// The first field, 0-59.
    Minute,
    /// The second field, 0-23.
    Hour,
    /// The third field, 1-31.
    DayOfMonth,
    /// The fourth field, 1-12 or JAN-DEC.
    Month,
    /// The fifth field, 0-7 or SUN-SAT; 0 and 7 are Sunday.
    DayOfWeek,
}

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

impl Field {
    /// All fields, in the order in which they are written.
    pub const ALL: [Self; 5] = [Self::Minute, Self::Hour, Self::DayOfMonth, Self::Month, Self::DayOfWeek];

    /// The numbers that an explicit `H(a-b)` may name.
    const fn bounds(self) -> (u32, u32) {
        match self {
            Self::Minute => (0, 59),
            Self::Hour => (0, 23),
            Self::DayOfMonth => (1, 31),
            Self::Month => (1, 12),
            Self::DayOfWeek => (0, 6),
        }
    }

    /// The numbers that a bare `H` picks from: days end at the 28th, so that every month has the one that is picked.
    const fn hashed(self) -> (u32, u32) {
        match self {
            Self::DayOfMonth => (1, 28),
            _ => self.bounds(),
        }
    }

    /// What may be written, for an error's last words.
    pub(super) const fn hint(self) -> &'static str {
        match self {
            Self::Minute => "0-59, *, */15, 0-29, 0-59/10, a list of these with commas, H, H/15 or H(0-29)/10",
            Self::Hour => "0-23, *, */6, 8-17, 0-23/4, a list of these with commas, H, H/6 or H(0-7)",
            Self::DayOfMonth => {
                "1-31, *, */2, 1-15, L (the last day), 15W (the nearest weekday), a list of these with commas, H or H(1-15)"
            }
            Self::Month => "1-12, JAN-DEC, *, */3, a list of these with commas, H or H/3",
            Self::DayOfWeek => {
                "0-7, SUN-SAT, *, MON-FRI, FRIL (the last Friday), MON#1 (the first Monday), a list of these with commas, or H"
            }
        }
    }

    const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Month => &MONTHS,
            Self::DayOfWeek => &DAYS,
            _ => &[],
        }
    }

    /// Whether `item` is one of the two-letter extensions that this field knows. Only whole items are: what the parser of the expression
    /// would ignore in a longer one must not be accepted.
    fn is_extension(self, item: &str) -> bool {
        match self {
            Self::DayOfMonth => matches!(item, "L" | "LW") || item.strip_suffix('W').is_some_and(is_number),
            Self::DayOfWeek => {
                let day = |text: &str| is_number(text) || DAYS.contains(&text);
                item.strip_suffix('L').is_some_and(day)
                    || item.split_once('#').is_some_and(|(name, nth)| day(name) && is_number(nth))
            }
            _ => false,
        }
    }

    /// This field alone in an expression that leaves the others open, so that an error is known to be this field's.
    fn alone(self, text: &str) -> String {
        let parts = Self::ALL.map(|field| if field == self { text } else { "*" });
        parts.join(" ")
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::DayOfMonth => "day-of-month",
            Self::Month => "month",
            Self::DayOfWeek => "day-of-week",
        })
    }
}

/// Parses five fields without `H`, in upper case. Seconds and years are not part of a schedule.
pub(super) fn parse_cron(expression: &str) -> Result<Cron, String> {
    CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build()
        .parse(expression)
        .map_err(|error| error.to_string())
}

/// Resolves every `H` of a field in upper case and checks the field, or says what is wrong with it.
pub(super) fn resolve(field: Field, text: &str, seed: &str) -> Result<String, String> {
    let items: Vec<&str> = text.split(',').collect();
    if items.contains(&"L") && items.contains(&"LW") {
        return Err("the last day and the last weekday cannot be asked for together".to_owned());
    }
    let resolved =
        items.into_iter().map(|item| resolve_item(field, item, seed)).collect::<Result<Vec<_>, _>>()?.join(",");
    parse_cron(&field.alone(&resolved)).map_err(|problem| {
        // What the parser calls its parts means nothing to who wrote the field.
        problem.trim_start_matches("Component error: ").trim_end_matches('.').to_owned()
    })?;
    Ok(resolved)
}

fn resolve_item(field: Field, item: &str, seed: &str) -> Result<String, String> {
    if item.is_empty() {
        return Err("a list has an empty item".to_owned());
    }
    if let Some(rest) = item.strip_prefix('H') {
        // THU does not start with H, and no other name does.
        return resolve_hashed(field, rest, seed);
    }
    if field.is_extension(item) {
        return Ok(item.to_owned());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '*' | '/' | '-' | '?');
    if let Some(bad) = item.chars().find(|c| !allowed(*c)) {
        return Err(format!("{bad:?} has no meaning here"));
    }
    for word in item.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty()) {
        if !field.names().contains(&word) {
            return Err(format!("{word} is not a name that this field knows"));
        }
    }
    Ok(item.to_owned())
}

/// What follows an `H`: nothing, a range in parentheses, a step, or both.
fn resolve_hashed(field: Field, rest: &str, seed: &str) -> Result<String, String> {
    let (range, step) = match rest.split_once('/') {
        Some((range, step)) => (range, Some(step)),
        None => (rest, None),
    };
    let (first, last) = if range.is_empty() { field.hashed() } else { hashed_range(field, range)? };
    let width = last - first + 1;
    match step {
        None => Ok((first + offset(seed, field, width)).to_string()),
        Some(step) => {
            let step = number(step).ok_or_else(|| format!("the step {step:?} after H is not a number"))?;
            if step < 2 || step > width {
                return Err(format!(
                    "the step {step} after H is not within 2-{width}: H alone picks one value, and * is every value"
                ));
            }
            let values =
                (first + offset(seed, field, step)..=last).step_by(usize::try_from(step).unwrap_or(usize::MAX));
            Ok(values.map(|value| value.to_string()).collect::<Vec<_>>().join(","))
        }
    }
}

fn hashed_range(field: Field, range: &str) -> Result<(u32, u32), String> {
    let (lowest, highest) = field.bounds();
    range
        .strip_prefix('(')
        .and_then(|range| range.strip_suffix(')'))
        .and_then(|range| range.split_once('-'))
        .and_then(|(first, last)| Some((number(first)?, number(last)?)))
        .filter(|(first, last)| lowest <= *first && first <= last && *last <= highest)
        .ok_or_else(|| format!("after H, {range:?} is not a range in parentheses within {lowest}-{highest}"))
}

fn is_number(text: &str) -> bool {
    number(text).is_some()
}

fn number(text: &str) -> Option<u32> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// A number below `width` that depends on the seed and the field alone, in every process and version: it must not move a policy's runs
/// when the operator restarts or is rebuilt, so it comes from a hash that is specified.
fn offset(seed: &str, field: Field, width: u32) -> u32 {
    let digest = Sha256::new().chain_update(seed).chain_update([0, field as u8]).finalize();
    let hash = digest.iter().take(8).fold(0_u64, |hash, byte| hash << 8 | u64::from(*byte));
    u32::try_from(hash % u64::from(width.max(1))).unwrap_or_default()
}
