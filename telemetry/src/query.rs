//! Questions about what is known, answered as plain data for JSON. Pure: each takes views of edges and returns a page.

use std::sync::Arc;

use crate::{aggregate::edge::Slot, record::EdgeKey};

pub mod graph;
pub mod prom;
pub mod top;
pub mod traces;

/// What happened on one edge during the window that is asked about.
#[derive(Clone, Debug)]
pub struct View {
    pub key: Arc<EdgeKey>,
    pub slot: Slot,
    /// How long the window really was.
    pub seconds: f64,
}

impl View {
    pub fn rate(&self) -> f64 {
        self.slot.counts.requests as f64 / self.seconds
    }
}

/// For JSON: three digits behind the point are enough for people and for tests.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
