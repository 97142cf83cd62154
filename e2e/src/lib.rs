//! The end-to-end side of the project: nobody depends on it, and it uses the mesh only from the outside, as processes and over
//! the wire.
//!
//! - `app`: the test application, a server that speaks every protocol that a mesh must carry, and its clients;
//! - `client`: those clients, also used by the harness itself;
//! - `run`, `site`, `expect`, `need`, `browser`, `capture`, `peers`: the harness of both suites, with `mesh` and `settle` of
//!   `tests/local.rs`, and `installed` and `rights` of `tests/kubernetes.rs`;
//! - `cluster`: a real Kubernetes cluster of two nodes on this machine, and images, behind `make cluster` and `installed`;
//! - `bench`: the side-by-side comparison behind `make bench`;
//! - `bench_pilot`: pilot with many services and many simulated proxies, behind `make bench-pilot`.

pub mod app;
pub mod bench;
pub mod bench_pilot;
pub mod browser;
pub mod capture;
pub mod client;
pub mod cluster;
pub mod expect;
pub mod installed;
pub mod mesh;
pub mod need;
pub mod peers;
pub mod process;
pub mod rights;
pub mod run;
mod settle;
pub mod site;
