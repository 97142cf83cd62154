//! Where endpoints come from, when not from pilot: names that are looked up (`dns`). Runs on the control thread; the
//! workers see the result in the cluster's endpoint cell.

pub mod dns;
