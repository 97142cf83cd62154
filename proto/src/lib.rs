//! The contracts of the mesh: wire protocols, the resource API, identity and names. Everything here is data and pure
//! functions; nothing here opens a socket, reads a clock or knows a daemon.
//!
//! | Module | What it holds |
//! | --- | --- |
//! | [`envoy`] | Envoy's API types (xDS v3), from the `envoy-types` crate |
//! | [`ca`], [`nds`] | the certificate service and the name table, compiled from `proto/istio` |
//! | [`otlp`] | spans over OTLP, compiled from `proto/opentelemetry` |
//! | [`envoy_json`] | Envoy's JSON and YAML, to messages and back |
//! | [`identity`] | SPIFFE identities and trust domains |
//! | [`node`] | who a proxy says it is: node id and metadata |
//! | [`kube`] | the resource API: the objects users write |
//! | [`validate`], [`finding`] | what is wrong with one object, and how that is told |
//! | [`mesh`] | settings of the whole mesh |
//! | [`scalar`] | durations and percentages as users write them |
//! | [`names`] | labels, annotations, ports, headers: every magic string |
//! | [`xds`] | xDS v3: type URLs, and both sides of the protocol as state machines without I/O |

pub use envoy_types::pb;
pub use envoy_types::pb::envoy;

pub mod envoy_json;
pub mod finding;
pub mod identity;
pub mod kube;
pub mod mesh;
pub mod names;
pub mod node;
pub mod scalar;
pub mod validate;
pub mod xds;

/// `istio.v1.auth`: the certificate service.
#[allow(clippy::all, clippy::unwrap_used, missing_docs, unused_qualifications)]
pub mod ca {
    tonic::include_proto!("istio.v1.auth");
}

/// `istio.networking.nds.v1`: the name table.
#[allow(clippy::all, missing_docs, unused_qualifications)]
pub mod nds {
    tonic::include_proto!("istio.networking.nds.v1");
}

/// `opentelemetry.proto.collector.trace.v1`: spans over OTLP, reduced to what the mesh writes and reads.
#[allow(clippy::all, clippy::unwrap_used, missing_docs, unused_qualifications)]
pub mod otlp {
    tonic::include_proto!("opentelemetry.proto.collector.trace.v1");
}
