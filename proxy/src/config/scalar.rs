//! Small values that every part of the configuration uses.

use std::{fmt, net::SocketAddr, sync::Arc};

/// Why a piece of configuration was refused: the path of the field, and the reason in words for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {why}")]
pub struct Reject {
    /// Such as `filter_chains[1].filters[0].typed_config.route_config.virtual_hosts[0].domains[2]`.
    pub path: String,
    pub why: String,
}

impl Reject {
    pub fn new(path: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self {
            path: path.to_string(),
            why: why.to_string(),
        }
    }
}

/// A chance, as a fraction of 100, 10,000 or 1,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fraction {
    pub numerator: u32,
    /// Never 0.
    pub denominator: u32,
}

impl Fraction {
    pub const ALWAYS: Self = Self {
        numerator: 100,
        denominator: 100,
    };
    pub const NEVER: Self = Self {
        numerator: 0,
        denominator: 100,
    };

    /// From a percentage, in steps of a ten-thousandth of a percent.
    pub fn percent(percent: f64) -> Self {
        let numerator = (percent.clamp(0.0, 100.0) * 10_000.0).round() as u32;
        Self {
            numerator,
            denominator: 1_000_000,
        }
    }

    /// Does this random number fall into the chance?
    pub fn hit(self, random: u64) -> bool {
        self.numerator >= self.denominator || random % u64::from(self.denominator) < u64::from(self.numerator)
    }

    /// In percent.
    pub fn as_percent(self) -> f64 {
        f64::from(self.numerator) * 100.0 / f64::from(self.denominator)
    }
}

/// Where to connect to: known, or to be looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    Socket(SocketAddr),
    Name { host: Arc<str>, port: u16 },
}

impl Address {
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(address) => Some(*address),
            Self::Name { .. } => None,
        }
    }

    pub fn port(&self) -> u16 {
        match self {
            Self::Socket(address) => address.port(),
            Self::Name { port, .. } => *port,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// The user's object that a piece of configuration came from; local replies and explanations name it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Object {
    /// `virtualservice default/reviews`
    pub text: Arc<str>,
    /// Its resource version; empty where the source has none.
    pub version: Arc<str>,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.version {
            "" => f.write_str(&self.text),
            version => write!(f, "{}, version {version}", self.text),
        }
    }
}

/// TCP keep-alive; `None` leaves the kernel's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Keepalive {
    pub probes: Option<u32>,
    pub time_seconds: Option<u32>,
    pub interval_seconds: Option<u32>,
}

/// How HTTP/2 is spoken on one side, with Envoy's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Http2 {
    pub max_concurrent_streams: u32,
    pub initial_stream_window: u32,
    pub initial_connection_window: u32,
    /// Ask the peer with a PING after this idle time.
    pub keepalive_interval: Option<std::time::Duration>,
    pub keepalive_timeout: std::time::Duration,
    /// Extended CONNECT (RFC 8441): WebSocket over HTTP/2.
    pub allow_connect: bool,
    pub floods: Floods,
}

/// So much of what is correct HTTP/2 and no use, with Envoy's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Floods {
    /// Frames without content that do not end their stream.
    pub empty_in_a_row: u32,
    /// PRIORITY frames for each stream that was opened.
    pub priorities_per_stream: u32,
    /// WINDOW_UPDATE frames for each DATA frame that was sent.
    pub updates_per_data: u32,
}

impl Default for Floods {
    fn default() -> Self {
        Self {
            empty_in_a_row: 1,
            priorities_per_stream: 100,
            updates_per_data: 10,
        }
    }
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 1024,
            initial_stream_window: 16 << 20,
            initial_connection_window: 24 << 20,
            keepalive_interval: None,
            keepalive_timeout: std::time::Duration::from_secs(20),
            allow_connect: false,
            floods: Floods::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions() {
        assert!(Fraction::ALWAYS.hit(u64::MAX) && !Fraction::NEVER.hit(0));
        let tenth = Fraction::percent(10.0);
        assert_eq!((0..1_000_000u64).filter(|n| tenth.hit(*n)).count(), 100_000);
        assert_eq!(Fraction::percent(0.01).as_percent(), 0.01);
        assert!(Fraction::percent(250.0).hit(999_999));
    }

    #[test]
    fn an_object_names_its_version() {
        let object = Object {
            text: "virtualservice default/reviews".into(),
            version: "12".into(),
        };
        assert_eq!(object.to_string(), "virtualservice default/reviews, version 12");
    }
}
