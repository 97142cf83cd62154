//! The trusted roots, for everybody who must trust citadel before having a certificate: in a file, or in a ConfigMap of
//! every namespace.

pub mod config_map;
pub mod file;
pub mod plan;
