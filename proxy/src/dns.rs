//! The proxy's DNS server: redirected queries of the application are answered from the name table that pilot sends;
//! whatever the table does not know goes, byte for byte, to the pod's own resolvers.
//!
//! | Module | What it does |
//! | --- | --- |
//! | [`table`] | names to addresses, with wildcards and search domains (pure) |
//! | [`answer`] | query + table → an answer, or "forward it" (pure) |
//! | [`cache`] | negative answers of the resolvers, for a short while |
//! | [`forward`] | to the resolvers: timeouts, the next one, TCP |
//! | [`server`] | UDP and TCP on loopback |
//! | [`resolv_conf`] | the pod's resolvers and search domains (pure) |
//!
//! Bounds: [`server::MAX_QUERIES`] queries at once (more are answered with SERVFAIL), [`server::MAX_CONNECTIONS`] TCP
//! connections, [`cache::ENTRIES`] negative answers.

pub mod answer;
pub mod cache;
pub mod forward;
pub mod resolv_conf;
pub mod server;
pub mod table;

use std::sync::Arc;

use arc_swap::ArcSwap;

pub use server::{Settings, serve};
pub use table::Table;

/// The table in force. Written by `xds`, read by the server.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<ArcSwap<Table>>);

impl Names {
    /// Before the first table nothing is known, and every query is forwarded.
    pub fn new() -> Self {
        Self::default()
    }

    pub fn set(&self, table: Table) {
        self.0.store(Arc::new(table));
    }

    pub fn get(&self) -> Arc<Table> {
        self.0.load_full()
    }
}
