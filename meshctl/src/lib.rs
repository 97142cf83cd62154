//! `meshctl`: everything an operator does with the mesh, and the mesh on one machine.
//!
//! | Module | What it holds |
//! | --- | --- |
//! | [`cli`] | the commands and flags, as clap sees them |
//! | [`context`] | which mesh a command speaks to: the one on this machine, or one on Kubernetes |
//! | [`install`] | the charts into a cluster, and out of it again |
//! | [`kube_cluster`] | the way to a Kubernetes cluster |
//! | [`reach`] | requests to a port inside a pod |
//! | [`world`] | all objects of a mesh, with pilot's understanding of them |
//! | [`check`] | the points of `meshctl check` |
//! | [`describe`] | what the mesh does with a pod or a service |
//! | [`report`] | what a bug report holds, and what it must not hold |
//! | [`output`] | tables, JSON, YAML |
//! | [`command`] | one file for each command |
//! | [`show`] | what a proxy's own pages say, as tables |
//! | [`local`] | the mesh on one machine: its supervisor and everything in it |

pub mod check;
pub mod cli;
pub mod command;
pub mod context;
pub mod describe;
pub mod install;
pub mod kube_cluster;
pub mod local;
pub mod output;
pub mod reach;
pub mod report;
pub mod show;
pub mod world;
