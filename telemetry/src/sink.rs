//! Where the sums go. One file below for each kind of place.

pub mod prometheus;
