//! `meshctl check`: whether the mesh is well, point by point. First the facts are gathered ([`facts`]), each part on its
//! own, so that one that cannot be had does not hide the others; then every row of the table judges them. Judging is pure.
//!
//! A row has an anchor: its heading on the page `docs/reference/checks.md`, which is generated from this table and says
//! what the point means and what to do.

pub mod control_plane;
pub mod data_plane;
pub mod facts;
pub mod identity;
pub mod platform;

pub use facts::Facts;

/// How bad it is when a point fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Works, but not as well as it should.
    Warning,
    /// Something does not work.
    Error,
}

/// What became of a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// Why not, with the objects that are meant.
    Failed(String),
    /// It cannot be told, or means nothing here.
    Skipped(String),
}

impl Outcome {
    /// Passed when there is nothing to complain about; more than a few complaints are counted.
    fn of(complaints: Vec<String>) -> Self {
        const SHOWN: usize = 5;
        if complaints.is_empty() {
            return Self::Passed;
        }
        let more = complaints.len().saturating_sub(SHOWN);
        let shown: Vec<String> = complaints.into_iter().take(SHOWN).collect();
        let text = shown.join("; ");
        Self::Failed(match more {
            0 => text,
            more => format!("{text}; and {more} more"),
        })
    }
}

/// One point.
#[derive(Clone, Copy)]
pub struct Check {
    pub category: &'static str,
    /// Its heading on the page.
    pub anchor: &'static str,
    pub text: &'static str,
    pub level: Level,
    /// For the page: what it means when this fails.
    pub meaning: &'static str,
    /// For the page: what to do.
    pub remedy: &'static str,
    pub judge: fn(&Facts) -> Outcome,
}

/// Every point, in the order in which they are shown.
pub fn all() -> Vec<Check> {
    [
        platform::CHECKS,
        control_plane::CHECKS,
        identity::CHECKS,
        data_plane::CHECKS,
    ]
    .into_iter()
    .flatten()
    .copied()
    .collect()
}

/// The page behind the anchors.
pub const PAGE: &str = "docs/reference/checks.md";

#[cfg(test)]
mod tests;
