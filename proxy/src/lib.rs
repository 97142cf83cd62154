//! The data plane: an Envoy-like proxy. One binary, mode by configuration. Decisions are pure functions on an immutable
//! snapshot; the I/O around them runs on workers that share nothing on the request path.
//!
//! | Module | What it does |
//! | --- | --- |
//! | [`app`], [`settings`] | build, run, drain; the command line |
//! | [`worker`] | one thread: its runtime, sockets, pools, counters |
//! | [`listen`] → [`conn`] → [`http`] → [`cluster`] | the path of a connection and of a request |
//! | [`tls`] | both sides of TLS |
//! | [`config`] | protobuf to typed configuration, or why not |
//! | [`snapshot`], [`store`] | the configuration in force; what waits for what |
//! | [`decide`], [`balance`], [`sniff`] | what happens to this connection, this request |
//! | [`xds`] | the configuration from pilot |
//! | [`bootstrap`] | the configuration from an Envoy file |
//! | [`observe`] | numbers, access logs, traces, reports |
//! | [`admin`], [`dns`], [`redirect`] | pages, names, netfilter rules |
//! | [`agent`] | beside a stock Envoy, in our place |

pub mod admin;
pub mod agent;
pub mod app;
pub mod balance;
pub mod bootstrap;
pub mod cluster;
pub mod config;
pub mod conn;
pub mod decide;
pub mod dns;
pub mod http;
pub mod listen;
pub mod observe;
pub mod redirect;
pub mod settings;
pub mod snapshot;
pub mod sniff;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;
pub mod tls;
pub mod upstream_channel;
pub mod worker;
pub mod xds;
