//! Numbers and times as people read them.

use jiff::Timestamp;

/// A number of bytes: `0 B`, `1.5 KiB`, `12 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // In tenths, so that rounding up to 1024 of a unit reaches the next one.
    let mut tenths = u128::from(bytes) * 10;
    for unit in UNITS {
        tenths = (tenths + 512) / 1024;
        match tenths {
            0..100 => return format!("{}.{} {unit}", tenths / 10, tenths % 10),
            100..10_235 => return format!("{} {unit}", (tenths + 5) / 10),
            _ => {}
        }
    }
    format!("{bytes} B")
}

/// A count with its digits in groups of three.
pub(super) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count and its noun.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// How long ago a time was, in its largest unit: `5s`, `10m`, `3h`, `12d`. A time to come is `0s`: clocks differ.
pub(super) fn age(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(time).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A text without what a terminal would obey: names in a bucket are other people's.
pub(super) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_one_digit_behind_the_point_while_they_are_few() {
        for (number, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10 * 1024, "10 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (1024 * 1024, "1.0 MiB"),
            (123 * 1024 * 1024 * 1024, "123 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(number), text, "{number}");
        }
    }

    #[test]
    fn counts_are_grouped_by_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
        assert_eq!(counted(1, "epoch", "epochs"), "1 epoch");
        assert_eq!(counted(0, "epoch", "epochs"), "0 epochs");
    }

    #[test]
    fn an_age_is_told_in_one_unit() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (ago, text) in
            [(-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172_800, "2d")]
        {
            assert_eq!(age(Timestamp::from_second(1_000_000 - ago).unwrap(), now), text, "{ago}");
        }
    }

    #[test]
    fn a_terminal_obeys_nothing_that_a_bucket_says() {
        assert_eq!(harmless("worker-1 ü"), "worker-1 ü");
        assert_eq!(harmless("\u{1b}[2Jx\n"), "\\u{1b}[2Jx\\n");
    }
}
