//! Seeing what happens: numbers, access log, traces, reports. A worker only adds to its own cells and pushes finished
//! records into its own ring; formatting, writing and sending happen on the control thread, and may be lost there but
//! never waited for.
//!
//! | Module | What it does |
//! | --- | --- |
//! | [`labels`] | the standard metrics' labels: who, to whom, how it went |
//! | [`stats`] | cells, shards, the scrape, the pages |
//! | [`record`] | what happened to one request or connection |
//! | [`access_log`] | which records are wanted, and how they become lines |
//! | [`report`] | records to the access-log service, spans to the collector |
//! | [`trace`] | trace context and spans |
//! | [`outlet`] | from the workers' rings to files, reports and collectors |

pub mod access_log;
pub mod labels;
pub mod outlet;
pub mod record;
pub mod report;
pub mod ring;
pub mod stats;
pub mod trace;

pub use crate::config::flag::{Flag, Flags};
pub use labels::{EdgeKey, Outcome, Reporter, RequestProtocol, Security, Service, Workload};
pub use record::AccessRecord;
pub use stats::{Shard, Stats};
