//! Protobuf messages to configuration, one file per concern. A reader takes its message apart: each field that means
//! something here is taken out, and what is left must be empty, else the configuration is refused by the name of the
//! field that nobody here understands ([`done`]). Fields that are pure hints (names of statistics) are taken out and
//! dropped, and the reader says so where it does it.
//!
//! A [`Reject`] gets its path on the way up, so that nothing is spent on paths while all is well.

mod access_log;
mod action;
mod balance;
mod chain;
mod cluster;
mod cors;
mod endpoint;
mod filter;
mod format;
mod hcm;
mod http;
mod jwt;
mod listener;
mod matcher;
mod metadata;
mod mutation;
mod rbac;
mod retry;
mod route;
mod scalar;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
mod tls;

use std::{fmt::Display, mem::take, time::Duration};

use mesh_proto::pb::google::protobuf::{self as wkt, Any};
use prost::{Message, Name};

pub use self::{
    cluster::cluster,
    endpoint::assignment,
    format::{format, json_format},
    listener::listener,
    route::route_config,
    tls::secret,
};
pub(crate) use self::{scalar::listen_address, tls::grpc_cluster};
use super::Reject;

pub(crate) type Result<T> = std::result::Result<T, Reject>;

/// A refusal whose path is still to come.
pub(crate) fn refuse<T>(why: impl Display) -> Result<T> {
    Err(Reject::new("", why))
}

/// Puts field names in front of a refusal's path.
pub(crate) trait At: Sized {
    fn at(self, field: &str) -> Self;
    fn nth(self, field: &str, n: usize) -> Self;
}

impl<T> At for Result<T> {
    fn at(self, field: &str) -> Self {
        self.map_err(|reject| reject.under(field))
    }

    fn nth(self, field: &str, n: usize) -> Self {
        self.map_err(|reject| reject.under(&format!("{field}[{n}]")))
    }
}

impl Reject {
    /// The same, seen from the message that has `field`.
    pub fn under(self, field: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') {
            ""
        } else {
            "."
        };
        Self {
            path: format!("{field}{dot}{}", self.path),
            why: self.why,
        }
    }
}

/// Nothing may be left in this message.
pub(crate) fn done<M: Message + Name>(rest: &M) -> Result<()> {
    if rest.encoded_len() == 0 {
        return Ok(());
    }
    let bytes = rest.encode_to_vec();
    let number = prost::encoding::decode_key(&mut bytes.as_slice())
        .map(|(number, _)| number)
        .unwrap_or_default();
    let name =
        mesh_proto::envoy_json::field_name(&M::full_name(), number).unwrap_or_else(|| number.to_string());
    Err(Reject::new(name, "is not supported by this proxy"))
}

/// The same for one field of another message.
fn unsupported<T>(field: &str) -> Result<T> {
    Err(Reject::new(field, "is not supported by this proxy"))
}

/// The message in an `Any`, if it is of this type.
fn open<M: Message + Name + Default>(any: &Any) -> Result<Option<M>> {
    if mesh_proto::envoy_json::type_name(&any.type_url) != M::full_name() {
        return Ok(None);
    }
    match M::decode(any.value.as_slice()) {
        Ok(message) => Ok(Some(message)),
        Err(error) => refuse(format!("cannot be decoded as {}: {error}", M::full_name())),
    }
}

/// The message in an `Any` that must be of this type.
fn must_open<M: Message + Name + Default>(any: &Any) -> Result<M> {
    match open(any)? {
        Some(message) => Ok(message),
        None => refuse(format!(
            "is {}, where only {} is supported",
            any.type_url,
            M::full_name()
        )),
    }
}

/// A duration; negative ones are refused.
fn duration(value: &wkt::Duration) -> Result<Duration> {
    match (u64::try_from(value.seconds), u32::try_from(value.nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => refuse("must not be negative"),
    }
}

/// An optional duration.
fn opt_duration(value: Option<wkt::Duration>, field: &str) -> Result<Option<Duration>> {
    value.as_ref().map(duration).transpose().at(field)
}

/// A timeout: not given is the default, zero switches it off.
fn timeout(value: Option<wkt::Duration>, default: Option<Duration>, field: &str) -> Result<Option<Duration>> {
    Ok(match opt_duration(value, field)? {
        None => default,
        Some(time) if time.is_zero() => None,
        Some(time) => Some(time),
    })
}

/// Takes the value out of an optional wrapper message.
fn number(value: &mut Option<wkt::UInt32Value>) -> Option<u32> {
    take(value).map(|value| value.value)
}

fn boolean(value: &mut Option<wkt::BoolValue>, default: bool) -> bool {
    take(value).map_or(default, |value| value.value)
}

/// A required message field.
fn required<T>(value: Option<T>, field: &str) -> Result<T> {
    value.ok_or_else(|| Reject::new(field, "is missing"))
}

/// A required string.
fn required_text(value: &mut String, field: &str) -> Result<String> {
    if value.is_empty() {
        Err(Reject::new(field, "is missing"))
    } else {
        Ok(take(value))
    }
}

/// Reads each element of a repeated field. Not by `collect`, which would keep what is read in the memory of the messages, and
/// these are ten times as large and more.
pub(crate) fn each<A, B>(list: Vec<A>, field: &str, mut read: impl FnMut(A) -> Result<B>) -> Result<Vec<B>> {
    let mut all = Vec::with_capacity(list.len());
    for (n, item) in list.into_iter().enumerate() {
        all.push(read(item).nth(field, n)?);
    }
    Ok(all)
}
