//! `networking.istio.io`: VirtualService, DestinationRule, Gateway, ServiceEntry, WorkloadEntry, WorkloadGroup, Sidecar,
//! ProxyConfig, EnvoyFilter (<https://istio.io/latest/docs/reference/config/networking/>). Every field of the API is here,
//! also those that have no effect yet: `support` says which, and `validate` tells it where one is used.

mod destination_rule;
mod envoy_filter;
mod gateway;
mod proxy_config;
mod service_entry;
mod sidecar;
mod virtual_service;
mod workload;

pub use destination_rule::*;
pub use envoy_filter::*;
pub use gateway::*;
pub use proxy_config::*;
pub use service_entry::*;
pub use sidecar::*;
pub use virtual_service::*;
pub use workload::*;
