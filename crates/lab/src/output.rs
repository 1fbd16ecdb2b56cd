//! Tables for people, JSON for machines.

use anyhow::Result;
use comfy_table::{CellAlignment, ContentArrangement, presets};
use serde::Serialize;
use std::fmt;

/// What is in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cells {
    /// Words, which begin at the left.
    Names,
    /// Figures, which end at the right.
    Numbers,
}

/// A table: printed by `{}`, and part of a [report](crate::report).
#[derive(Clone, Debug)]
pub struct Table {
    /// The heads of the columns, and what is in them.
    pub columns: Vec<(String, Cells)>,
    /// As many cells each as there are columns.
    pub rows: Vec<Vec<String>>,
    /// What is to be known to read it; said below it.
    pub note: String,
    /// It has sentences in it, which are broken into lines where there is no terminal, too.
    pub wraps: bool,
}

/// Columns of a terminal, where there is none.
pub const WIDTH: u16 = 120;

/// Columns of the terminal, if there is one.
pub fn terminal_width() -> Option<u16> {
    comfy_table::Table::new().width()
}

/// A table with these columns; those after the first `names` are numbers.
pub fn table(columns: &[&str], names: usize) -> Table {
    let cells = |i| if i < names { Cells::Names } else { Cells::Numbers };
    let columns = columns.iter().enumerate().map(|(i, column)| (column.to_string(), cells(i))).collect();
    Table { columns, rows: Vec::new(), note: String::new(), wraps: false }
}

impl Table {
    /// One more row.
    ///
    /// # Panics
    ///
    /// It has not as many cells as there are columns.
    pub fn add_row<T: ToString>(&mut self, cells: impl IntoIterator<Item = T>) {
        let row: Vec<_> = cells.into_iter().map(|cell| cell.to_string()).collect();
        assert_eq!(row.len(), self.columns.len(), "a cell for each column");
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut drawn = comfy_table::Table::new();
        drawn.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
        drawn.set_header(self.columns.iter().map(|(name, _)| name));
        for (column, _) in drawn.column_iter_mut().zip(&self.columns).filter(|(_, (_, cells))| *cells == Cells::Numbers) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        drawn.add_rows(&self.rows);
        if self.wraps && drawn.width().is_none() {
            drawn.set_width(WIDTH);
        }
        write!(f, "{drawn}")?;
        if self.note.is_empty() { Ok(()) } else { write!(f, "\n{}", self.note) }
    }
}

/// `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut groups: Vec<_> =
        digits.as_bytes()[first..].chunks(3).map(|group| String::from_utf8_lossy(group).into_owned()).collect();
    if first > 0 {
        groups.insert(0, digits[..first].to_string());
    }
    groups.join(",")
}

/// Prints `value`, readable.
///
/// # Errors
///
/// It cannot be written.
pub fn json(value: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_grouped() {
        let grouped = [0, 999, 1_000, 1_234_567].map(super::grouped);
        assert_eq!(grouped, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn notes_stand_below() {
        let mut table = super::table(&["who", "count"], 1);
        table.add_row(["a", "12"]);
        table.note = "Counted once.".into();
        let printed = table.to_string();
        assert!(printed.ends_with("Counted once.") && printed.contains("    12 │"), "{printed}");
    }
}
