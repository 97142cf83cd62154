//! Sums: what many records are together. Everything here merges, and nothing knows the time by itself. Pure.

pub mod cardinality;
pub mod counter;
pub mod edge;
pub mod histogram;
pub mod window;

/// Things that can be added up in any order.
pub trait Merge {
    fn merge(&mut self, other: &Self);
}
