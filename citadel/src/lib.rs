//! Citadel: who is who in the mesh. A caller proves itself, citadel signs its key under the proven name.
//!
//! The way of a certificate: [`serve`] → [`authenticate`] (jwt, mtls) → [`caller`] → [`authorize`] → [`csr`] →
//! [`authority`] (self_signed: [`root`] → [`issue`]) → back. Beside it [`publish`] keeps the [`bundle`] of roots in a
//! file for everybody who has to trust citadel before having a certificate.
//!
//! Pure: [`caller`], [`authorize`], [`csr`], [`issue`], [`root`], [`bundle`], [`limit`], `authenticate::claims`.

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
pub mod serve;
pub mod settings;
pub mod store;
pub mod testing;
