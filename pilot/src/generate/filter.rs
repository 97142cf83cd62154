//! The filters of a connection and of a request: one file each.

pub mod access_log;
pub mod cors;
pub mod fault;
pub mod hcm;
pub mod jwt;
pub mod rbac;
pub mod tcp;
pub mod tracing;
