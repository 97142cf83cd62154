//! xDS v3 without I/O: the names of the resource types, and the protocol's two sides as state machines.
//!
//! [`client`] is what a proxy runs (the delta variant), [`server`] is what pilot runs (delta and state-of-the-world).
//! Both take messages and give messages; who carries them, and when, is not known here. The rules are those of
//! <https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol>.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use bytes::Bytes;

use crate::pb::google::protobuf::Any;

pub mod client;
mod resources;
pub mod server;

pub use resources::Resources;

/// The subscription to everything.
pub const WILDCARD: &str = "*";

/// The resource types that travel on one ADS stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Type {
    Cluster,
    Endpoint,
    Listener,
    Route,
    Secret,
    NameTable,
}

impl Type {
    /// Make before break: what is referred to comes before what refers to it.
    pub const ALL: [Self; 6] = [
        Self::Cluster,
        Self::Endpoint,
        Self::Listener,
        Self::Route,
        Self::Secret,
        Self::NameTable,
    ];

    pub fn url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::NameTable => "type.googleapis.com/istio.networking.nds.v1.NameTable",
        }
    }

    /// As people say it: `CDS`.
    pub fn short(self) -> &'static str {
        match self {
            Self::Cluster => "CDS",
            Self::Endpoint => "EDS",
            Self::Listener => "LDS",
            Self::Route => "RDS",
            Self::Secret => "SDS",
            Self::NameTable => "NDS",
        }
    }

    pub fn from_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.url() == url)
    }

    /// Whether a client may ask for all resources of this type. The others are always asked for by name.
    pub fn allows_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener | Self::NameTable)
    }

    /// The place in [`Type::ALL`], for tables with one row per type.
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

/// The version of one resource: a digest of what it was made from, so the same resource has the same version in two
/// pilots and after a restart. On the wire it is 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(pub u64);

impl Version {
    /// The digest of a value. The salt names the build that encodes it.
    pub fn of(salt: u64, value: &impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        value.hash(&mut hasher);
        Self(hasher.finish())
    }

    /// What a client says it has. A text that we never write is a version that we never have.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 16)
            .then(|| u64::from_str_radix(text, 16).ok())
            .flatten()
            .map(Self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One encoded resource. All proxies that get it share the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    pub name: Arc<str>,
    pub version: Version,
    pub kind: Type,
    pub body: Bytes,
}

impl Encoded {
    pub fn any(&self) -> Any {
        Any {
            type_url: self.kind.url().to_owned(),
            value: self.body.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_told_apart_by_url() {
        for (index, kind) in Type::ALL.into_iter().enumerate() {
            assert_eq!(Type::from_url(kind.url()), Some(kind));
            assert_eq!(kind.index(), index);
        }
        assert_eq!(
            Type::from_url("type.googleapis.com/envoy.config.core.v3.Node"),
            None
        );
    }

    #[test]
    fn versions_read_what_they_write() {
        let version = Version::of(7, &("a", 1));
        assert_eq!(Version::parse(&version.to_string()), Some(version));
        assert_eq!(Version::of(7, &("a", 1)), version);
        assert_ne!(Version::of(8, &("a", 1)), version);
        for foreign in ["", "1", "zzzzzzzzzzzzzzzz", "00000000000000001"] {
            assert_eq!(Version::parse(foreign), None, "{foreign}");
        }
    }
}
