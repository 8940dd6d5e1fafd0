//! Epochs drawn as a strip, oldest first.

use std::fmt::Write as _;

use epochwarden_core::{Epoch, Numbering};

/// How many lines a strip takes at most. Beyond that a mark stands for several epochs.
const LINES: usize = 40;

/// The narrowest strip.
const NARROWEST: usize = 10;

/// What a mark shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Sealed,
    Unsealed,
    Gap,
}

impl Mark {
    const fn draw(self) -> char {
        match self {
            Self::Sealed => '█',
            Self::Unsealed => '░',
            Self::Gap => '·',
        }
    }
}

/// Draws epochs, given ascending with whether they are sealed, as lines of at most `width` characters, with a legend.
///
/// Numbers may be sparse, as timestamps are: a gap is where the distance is at least twice the usual one, and takes one mark whatever its
/// length. Where one mark stands for several epochs, it shows a gap before an unsealed epoch, and an unsealed epoch before sealed ones.
pub(super) fn draw(epochs: &[(Epoch, bool)], numbering: Numbering, width: usize) -> String {
    if epochs.is_empty() {
        return "no epochs\n".to_owned();
    }
    let longest = |label: usize, (epoch, _): &(Epoch, bool)| label.max(numbering.show(*epoch).to_string().len());
    let label = epochs.iter().fold(0, longest);
    let strip = width.saturating_sub(label + 2).max(NARROWEST);
    let marks = marks(epochs);
    let per_mark = marks.len().div_ceil(strip * LINES).max(1);
    let mut text = String::new();
    for line in marks.chunks(strip * per_mark) {
        let Some((first, _)) = line.first() else { continue };
        let drawn: String = line.chunks(per_mark).map(|group| worst(group).draw()).collect();
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "{:>label$}  {drawn}", numbering.show(*first));
    }
    let count = |wanted: Mark| marks.iter().filter(|(_, mark)| *mark == wanted).count();
    let _ = writeln!(
        text,
        "\n{} {} sealed   {} {} unsealed   {} {} {}",
        Mark::Sealed.draw(),
        count(Mark::Sealed),
        Mark::Unsealed.draw(),
        count(Mark::Unsealed),
        Mark::Gap.draw(),
        count(Mark::Gap),
        if count(Mark::Gap) == 1 { "gap" } else { "gaps" },
    );
    if per_mark > 1 {
        let _ = writeln!(text, "each mark stands for {per_mark} epochs");
    }
    text
}

/// One mark per epoch and per gap, with the number of the epoch that it is, or that it comes before.
fn marks(epochs: &[(Epoch, bool)]) -> Vec<(Epoch, Mark)> {
    let distances = || epochs.iter().zip(epochs.iter().skip(1)).map(|((a, _), (b, _))| b.get().saturating_sub(a.get()));
    let mut sorted: Vec<u64> = distances().collect();
    sorted.sort_unstable();
    let usual = sorted.get(sorted.len() / 2).copied().unwrap_or(1).max(1);
    let mut marks = Vec::with_capacity(epochs.len());
    for ((epoch, sealed), distance) in epochs.iter().zip(std::iter::once(0).chain(distances())) {
        if distance >= usual.saturating_mul(2) {
            marks.push((*epoch, Mark::Gap));
        }
        marks.push((*epoch, if *sealed { Mark::Sealed } else { Mark::Unsealed }));
    }
    marks
}

fn worst(group: &[(Epoch, Mark)]) -> Mark {
    let any = |wanted: Mark| group.iter().any(|(_, mark)| *mark == wanted);
    if any(Mark::Gap) {
        Mark::Gap
    } else if any(Mark::Unsealed) {
        Mark::Unsealed
    } else {
        Mark::Sealed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(numbers: impl IntoIterator<Item = u64>) -> Vec<(Epoch, bool)> {
        numbers.into_iter().map(|number| (Epoch::new(number), true)).collect()
    }

    #[test]
    fn sealed_unsealed_and_gaps_have_marks_of_their_own() {
        let mut epochs = sealed([1, 2, 3, 7, 8]);
        epochs.push((Epoch::new(9), false));
        assert_eq!(draw(&epochs, Numbering::Plain, 80), "1  ███·██░\n\n█ 5 sealed   ░ 1 unsealed   · 1 gap\n");
    }

    #[test]
    fn lines_are_as_wide_as_the_terminal_and_begin_with_their_first_epoch() {
        let text = draw(&sealed(90..115), Numbering::Plain, 15);
        let lines: Vec<_> = text.lines().take(3).collect();
        assert_eq!(lines, [" 90  ██████████", "100  ██████████", "110  █████"]);
    }

    #[test]
    fn numbers_that_are_timestamps_have_gaps_where_the_rhythm_breaks() {
        let text = draw(&sealed([1_000, 1_029, 1_061, 1_090, 1_500, 1_531, u64::MAX]), Numbering::Plain, 80);
        assert!(text.contains("████·██·█\n"), "{text}");
    }

    #[test]
    fn many_epochs_share_marks_and_the_worst_of_each_is_shown() {
        let mut epochs = sealed(0..100_000);
        epochs[50_000].1 = false;
        let text = draw(&epochs, Numbering::Plain, 80);
        assert!(text.lines().count() <= LINES + 3, "{}", text.lines().count());
        assert!(text.lines().all(|line| line.chars().count() <= 80));
        assert_eq!(text.lines().take(LINES).collect::<String>().matches('░').count(), 1, "{text}");
        assert!(text.contains("99999 sealed") && text.contains("each mark stands for 35 epochs"), "{text}");
    }

    #[test]
    fn nothing_is_said_to_be_nothing_and_a_narrow_terminal_is_no_trouble() {
        assert_eq!(draw(&[], Numbering::Plain, 80), "no epochs\n");
        assert!(draw(&sealed([u64::MAX]), Numbering::Plain, 0).starts_with("18446744073709551615  █\n"));
    }
}
