//! The mesh on one Linux machine, without Kubernetes and without containers. A pod is a network namespace, a container is
//! a process, an image is a name for a program.
//!
//! ```text
//!  meshctl local …  ──(client ⇄ control: a Unix socket)──►  the supervisor (node)
//!                                                            store ── files that pilot watches
//!                                                            controller ── Deployments, Services, EndpointSlices
//!                                                            kubelet ── pod ── container ── enter ── the program
//!                                                            netfilter, dns, publish ── what the network needs
//! ```

pub mod admission;
pub mod clean;
pub mod client;
pub mod control;
pub mod controller;
pub mod dns;
pub mod egress;
pub mod enter;
pub mod images;
pub mod injection;
pub mod install;
pub mod issuer;
pub mod kubelet;
pub mod manifest;
pub mod merge;
pub mod moment;
pub mod netfilter;
pub mod netns;
pub mod node;
pub mod object;
pub mod platform;
pub mod pod;
pub mod publish;
pub mod requirements;
pub mod store;
