//! What every daemon of the mesh shares: logs, metrics, readiness, drain, the small admin server, TLS by mesh identity,
//! the certificate's life, gRPC over it. It knows no daemon.
//!
//! | Module | What it holds |
//! | --- | --- |
//! | [`log`] | structured logs whose level changes while running |
//! | [`metrics`] | the registry of one process, and its own process metrics |
//! | [`ready`] | named gates; ready when all are open |
//! | [`drain`] | one signal that tells every task to finish |
//! | [`http`] | the admin server: a table of pages |
//! | [`backoff`] | how long to wait before the next try (pure) |
//! | [`tls`] | the identity cell and rustls configurations that follow it |
//! | [`identity`] | obtains and renews the certificate from citadel |
//! | [`grpc`] | channels and incoming connections over that TLS |
//! | [`settings`] | values of flags: durations |
//! | [`build`] | version |
//! | `apiserver` | feature `kube`: a client of the Kubernetes API, and what its errors mean |
//! | `leader` | feature `kube`: one leader among the replicas of a daemon, by a Lease |

#[cfg(feature = "kube")]
pub mod apiserver;
pub mod backoff;
pub mod build;
pub mod drain;
pub mod grpc;
pub mod http;
pub mod identity;
#[cfg(feature = "kube")]
pub mod leader;
pub mod log;
pub mod metrics;
pub mod ready;
pub mod settings;
pub mod tls;
