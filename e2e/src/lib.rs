//! The end-to-end side of the project: nobody depends on it, and it uses the mesh only from the outside, as processes and over
//! the wire.
//!
//! - `app`: the test application, a server that speaks every protocol that a mesh must carry, and its clients;
//! - `client`: those clients, also used by the harness itself;
//! - `run`, `mesh`, `expect`, `need`, `browser`, `capture`, `peers`: the harness of `tests/local.rs`;
//! - `cluster`: a real Kubernetes cluster of two nodes on this machine, behind `make cluster` and `tests/kubernetes.rs`, and images;
//! - `bench`: the side-by-side comparison behind `make bench`.

pub mod app;
pub mod bench;
pub mod browser;
pub mod capture;
pub mod client;
pub mod cluster;
pub mod expect;
pub mod mesh;
pub mod need;
pub mod peers;
pub mod process;
pub mod run;
