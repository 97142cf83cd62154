//! Citadel: who is who in the mesh. A caller proves itself, citadel signs its key under the proven name.
//!
//! The way of a certificate: [`serve`] → [`authenticate`] (kube, jwt, mtls) → [`caller`] → [`authorize`] → [`csr`] →
//! [`authority`] (signer → [`issue`]) → back. The authority is read from a folder ([`root`]) or from Secrets, where its
//! root is replaced in time ([`rotate`]). Beside it [`publish`] keeps the [`bundle`] of roots in a file or in ConfigMaps,
//! for everybody who has to trust citadel before having a certificate.
//!
//! Pure: [`caller`], [`authorize`], [`csr`], [`issue`], [`root`], [`rotate`], [`bundle`], [`limit`],
//! `authenticate::claims`, `authority::{signer, intermediate, choice}`, `publish::plan`.
//!
//! On Kubernetes it needs these rights, and says which one is missing:
//!
//! | Resource | Verbs | Scope | For |
//! | --- | --- | --- | --- |
//! | `authentication.k8s.io/tokenreviews` | create | cluster | proving callers |
//! | `namespaces` | list, watch | cluster | publishing the roots |
//! | `configmaps` named `istio-ca-root-cert` | get, list, watch, patch | cluster | the same |
//! | `configmaps` | create | cluster | the same |
//! | `secrets` named `cacerts`, `istio-ca-secret` | get, list, watch | own namespace | the authority |
//! | `secrets` named `istio-ca-secret` | update | own namespace | rotation of the root |
//! | `secrets` | create | own namespace | the first root |
//! | `coordination.k8s.io/leases` named `citadel-leader` | get, update | own namespace | one replica publishes and rotates |
//! | `coordination.k8s.io/leases` | create | own namespace | the same |

pub mod admin;
pub mod app;
pub mod authenticate;
pub mod authority;
pub mod authorize;
pub mod bundle;
pub mod caller;
pub mod csr;
pub mod error;
pub mod issue;
pub mod limit;
pub mod metrics;
pub mod publish;
pub mod root;
pub mod rotate;
pub mod serve;
pub mod settings;
pub mod store;
pub mod testing;
