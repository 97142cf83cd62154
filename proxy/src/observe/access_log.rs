//! The access log: which records somebody wants, and how a record becomes a line.
//!
//! A [`Plan`] is compiled once per connection manager or TCP proxy from its configured logs. The worker asks it whether
//! anything is wanted at all and which headers to keep ([`Wanted`]); filters and formats run later, on the control
//! thread, from the record alone.

mod certificate;
mod filter;
mod format;
mod operator;
mod time_format;
mod writer;

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use crate::config::log::{AccessLog, Sink};

pub use filter::passes;
pub use format::{Host, line};
pub use writer::{WriteError, Writer};

/// The headers that the formats and filters of one plan mention; records carry their values in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub request: Vec<HeaderName>,
    pub response: Vec<HeaderName>,
    pub trailers: Vec<HeaderName>,
}

/// The logs of one connection manager or TCP proxy, ready to use.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    wanted: Wanted,
    logs: Vec<Arc<AccessLog>>,
}

impl Plan {
    pub fn compile(logs: &[Arc<AccessLog>]) -> Self {
        let mut wanted = Wanted::default();
        for log in logs {
            if let Some(rule) = &log.filter {
                filter::wanted(rule, &mut wanted);
            }
            match &log.sink {
                Sink::File { format, .. } | Sink::Stdout(format) | Sink::Stderr(format) => {
                    format::wanted(format, &mut wanted);
                }
                Sink::HttpGrpc(sink) | Sink::TcpGrpc(sink) => {
                    wanted.add_request(&super::report::STANDARD_REQUEST_HEADERS);
                    wanted.add_request(&sink.request_headers);
                    sink.response_headers
                        .iter()
                        .for_each(|name| add(&mut wanted.response, name));
                    sink.response_trailers
                        .iter()
                        .for_each(|name| add(&mut wanted.trailers, name));
                }
            }
        }
        Self {
            wanted,
            logs: logs.to_vec(),
        }
    }

    /// Nothing is logged: no record need be made.
    pub fn is_empty(&self) -> bool {
        self.logs.is_empty()
    }

    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    pub fn logs(&self) -> &[Arc<AccessLog>] {
        &self.logs
    }
}

impl Wanted {
    /// The wanted request headers' values, for the record.
    pub fn of_request(&self, headers: &HeaderMap) -> Vec<Option<Box<str>>> {
        values(&self.request, headers)
    }

    /// The wanted response headers' values, for the record.
    pub fn of_response(&self, headers: &HeaderMap) -> Vec<Option<Box<str>>> {
        values(&self.response, headers)
    }

    /// The wanted trailers' values, for the record.
    pub fn of_trailers(&self, headers: &HeaderMap) -> Vec<Option<Box<str>>> {
        values(&self.trailers, headers)
    }

    fn add_request(&mut self, names: &[HeaderName]) {
        names.iter().for_each(|name| add(&mut self.request, name));
    }
}

fn add(names: &mut Vec<HeaderName>, name: &HeaderName) {
    if !names.contains(name) {
        names.push(name.clone());
    }
}

/// Several lines of one header are joined by commas, as RFC 9110 §5.3 allows.
fn values(names: &[HeaderName], headers: &HeaderMap) -> Vec<Option<Box<str>>> {
    let value = |name: &HeaderName| {
        let mut lines = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()));
        let first = lines.next()?;
        let mut text = first.into_owned();
        for line in lines {
            text.push(',');
            text.push_str(&line);
        }
        Some(text.into_boxed_str())
    };
    names.iter().map(value).collect()
}
