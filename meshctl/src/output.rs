//! How answers are printed: tables whose columns are as wide as their widest cell, JSON, YAML. Writing stops silently when
//! nobody reads on (`| head`).

use std::io::Write;

use clap::ValueEnum;
use serde_json::Value;

use crate::local::manifest::to_yaml;

/// `-o`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table
    #[default]
    #[value(alias = "short")]
    Table,
    /// A table with more columns
    Wide,
    Json,
    Yaml,
    /// `kind/name` lines
    Name,
}

/// Rows under a heading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(heading: &[&str]) -> Self {
        Self {
            heading: heading.iter().map(ToString::to_string).collect(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn sort(&mut self) {
        self.rows.sort();
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = || std::iter::once(&self.heading).chain(&self.rows);
        let mut widths = vec![0; self.heading.len()];
        for row in all() {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in all() {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                line.push_str(&format!("{cell:<width$}   "));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Prints; a reader that has gone is no error.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

pub fn line(text: &str) {
    print(&format!("{text}\n"));
}

pub fn json(value: &Value) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?);
    Ok(())
}

pub fn yaml(value: &Value) -> anyhow::Result<()> {
    line(to_yaml(value)?.trim_end());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["NAME", "AGE"]);
        table.row(vec!["reviews".into(), "5s".into()]);
        table.row(vec!["a".into(), "10m".into()]);
        assert_eq!(table.to_string(), "NAME      AGE\nreviews   5s\na         10m\n");
    }
}
