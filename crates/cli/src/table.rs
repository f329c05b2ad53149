//! Text in aligned columns, and in labelled lines.

use std::collections::BTreeMap;
use std::fmt::Write;

/// A table: rows of cells, the first of which is the heading.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A text of labelled lines; writing to it does not fail.
#[derive(Debug, Default)]
pub(crate) struct Lines(String);

impl Lines {
    /// A line without a label; an empty one stays empty.
    pub(crate) fn title(&mut self, indent: usize, text: &str) {
        let indent = if text.is_empty() { 0 } else { indent };
        let _ = writeln!(self.0, "{:indent$}{text}", "");
    }

    /// A label and what belongs to it.
    pub(crate) fn line(&mut self, indent: usize, label: &str, text: &str) {
        let _ = writeln!(self.0, "{:indent$}{label:<24}{text}", "");
    }

    pub(crate) fn finish(self) -> String {
        self.0
    }
}

/// Counters that are not zero, or "none".
pub(crate) fn counts(counts: &BTreeMap<String, u64>) -> String {
    let some: Vec<_> =
        counts.iter().filter(|(_, count)| **count > 0).map(|(reason, count)| format!("{reason} {count}")).collect();
    if some.is_empty() { "none".to_owned() } else { some.join(", ") }
}

/// Bytes as people read them, in steps of 1,000.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["NAME".to_owned(), "STATE".to_owned()], vec!["Tunnel1".to_owned(), "up".to_owned()]];
        assert_eq!(aligned(&rows), "NAME     STATE\nTunnel1  up\n");
    }

    #[test]
    fn bytes_have_a_unit() {
        assert_eq!([0, 999, 1_000, 68_640, 999_999].map(bytes), ["0 B", "999 B", "1.0 kB", "68.6 kB", "1.0 MB"]);
    }
}
