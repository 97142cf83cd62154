//! `meshctl`: everything an operator does with the mesh, and the mesh on one machine.
//!
//! | Module | What it holds |
//! | --- | --- |
//! | [`cli`] | the commands and flags, as clap sees them |
//! | [`context`] | which mesh a command speaks to |
//! | [`reach`] | requests to a port inside a pod |
//! | [`output`] | tables, JSON, YAML |
//! | [`command`] | one file for each command |
//! | [`show`] | what a proxy's own pages say, as tables |
//! | [`local`] | the mesh on one machine: its supervisor and everything in it |

pub mod cli;
pub mod command;
pub mod context;
pub mod local;
pub mod output;
pub mod reach;
pub mod show;
