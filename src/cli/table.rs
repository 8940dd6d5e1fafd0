//! Columns of text.

use std::fmt;

use super::human::harmless;

/// Where the text of a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// A table with a heading. Its width is that of its widest cells; it is the terminal that wraps.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    columns: [(&'static str, Align); N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) const fn new(columns: [(&'static str, Align); N]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| harmless(&cell)));
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = self.columns.map(|(heading, _)| heading.chars().count());
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |f: &mut fmt::Formatter<'_>, cells: [&str; N]| {
            let padded =
                cells.into_iter().zip(widths).zip(self.columns).map(|((cell, width), (_, align))| match align {
                    Align::Left => format!("{cell:<width$}"),
                    Align::Right => format!("{cell:>width$}"),
                });
            writeln!(f, "{}", padded.collect::<Vec<_>>().join("   ").trim_end())
        };
        line(f, self.columns.map(|(heading, _)| heading))?;
        for row in &self.rows {
            line(f, row.each_ref().map(String::as_str))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_with_text() {
        let mut table = Table::new([("NAME", Align::Left), ("SIZE", Align::Right), ("NOTE", Align::Left)]);
        table.row(["a-long-name".into(), "7".into(), String::new()]);
        table.row(["ü".into(), "12345".into(), "x".into()]);
        let expected = "\
NAME           SIZE   NOTE
a-long-name       7
ü             12345   x
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn a_cell_stays_on_its_line() {
        let mut table = Table::new([("NAME", Align::Left)]);
        table.row(["a\nb".into()]);
        assert_eq!(table.to_string(), "NAME\na\\nb\n");
    }
}
