//! Fractions, addresses, networks, data sources and metadata.

use std::{
    mem::take,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use ipnet::IpNet;
use mesh_proto::{
    envoy::{config::core::v3 as core, r#type::v3 as kind},
    names,
    node::to_json,
    pb::google::protobuf::Struct,
};

use super::{At, Result, done, number, refuse, required, required_text, unsupported};
use crate::config::{
    scalar::{Address, Fraction, Keepalive, Object},
    secret::Source,
};

pub fn fraction(value: &kind::FractionalPercent) -> Result<Fraction> {
    let denominator = match value.denominator {
        0 => 100,
        1 => 10_000,
        2 => 1_000_000,
        other => return refuse(format!("denominator {other} is not known")),
    };
    Ok(Fraction {
        numerator: value.numerator.min(denominator),
        denominator,
    })
}

/// There is no runtime layer here: the key is dropped, the default value counts.
pub fn runtime_fraction(value: core::RuntimeFractionalPercent) -> Result<Fraction> {
    let default = required(value.default_value, "default_value")?;
    fraction(&default).at("default_value")
}

pub fn opt_runtime_fraction(
    value: Option<core::RuntimeFractionalPercent>,
    default: Fraction,
    field: &str,
) -> Result<Fraction> {
    value.map_or(Ok(default), |value| runtime_fraction(value).at(field))
}

pub fn percent(value: Option<kind::Percent>, default: Fraction) -> Fraction {
    value.map_or(default, |percent| Fraction::percent(percent.value))
}

/// An address to connect to.
pub fn address(value: core::Address) -> Result<Address> {
    let mut socket = socket_address(value)?;
    let port = port(&mut socket)?;
    let host = required_text(&mut socket.address, "address").at("socket_address")?;
    done(&socket).at("socket_address")?;
    Ok(match host.parse::<IpAddr>() {
        Ok(ip) => Address::Socket(SocketAddr::new(ip, port)),
        Err(_) => Address::Name {
            host: host.into(),
            port,
        },
    })
}

/// An address to listen on: never a name.
pub fn listen_address(value: core::Address) -> Result<SocketAddr> {
    let mut socket = socket_address(value)?;
    // A socket on an IPv6 address takes IPv4 here as the kernel is set.
    socket.ipv4_compat = false;
    match address(core::Address {
        address: Some(core::address::Address::SocketAddress(socket)),
    })? {
        Address::Socket(address) => Ok(address),
        Address::Name { host, .. } => {
            refuse(format!("{host:?} is not an IP address")).at("socket_address.address")
        }
    }
}

fn socket_address(value: core::Address) -> Result<core::SocketAddress> {
    match required(value.address, "socket_address")? {
        core::address::Address::SocketAddress(mut socket) => {
            if take(&mut socket.protocol) != core::socket_address::Protocol::Tcp as i32 {
                return refuse("only TCP is supported").at("socket_address.protocol");
            }
            Ok(socket)
        }
        core::address::Address::Pipe(_) => unsupported("pipe"),
        core::address::Address::EnvoyInternalAddress(_) => unsupported("envoy_internal_address"),
    }
}

fn port(socket: &mut core::SocketAddress) -> Result<u16> {
    use core::socket_address::PortSpecifier;
    match take(&mut socket.port_specifier) {
        Some(PortSpecifier::PortValue(port)) => u16::try_from(port)
            .or_else(|_| refuse(format!("{port} is not a port")).at("socket_address.port_value")),
        Some(PortSpecifier::NamedPort(_)) => unsupported("socket_address.named_port"),
        None => refuse("is missing").at("socket_address.port_value"),
    }
}

/// An IP address of a socket address whose port means nothing.
pub fn source_ip(mut socket: core::SocketAddress) -> Result<IpAddr> {
    socket.port_specifier = None;
    let text = required_text(&mut socket.address, "address")?;
    done(&socket)?;
    text.parse()
        .or_else(|_| refuse(format!("{text:?} is not an IP address")).at("address"))
}

pub fn network(mut range: core::CidrRange) -> Result<IpNet> {
    let text = required_text(&mut range.address_prefix, "address_prefix")?;
    let Ok(ip) = text.parse::<IpAddr>() else {
        return refuse(format!("{text:?} is not an IP address")).at("address_prefix");
    };
    let length = number(&mut range.prefix_len).unwrap_or(0);
    let network = u8::try_from(length)
        .ok()
        .and_then(|length| IpNet::new(ip, length).ok());
    match network {
        Some(network) => Ok(network.trunc()),
        None => refuse(format!("{length} is too long for {ip}")).at("prefix_len"),
    }
}

/// Bytes in place, or where they are.
pub fn data_source(value: core::DataSource) -> Result<Source> {
    use core::data_source::Specifier;
    // Files are watched by the directory they are in, whether asked or not.
    match value.specifier {
        Some(Specifier::InlineBytes(bytes)) => Ok(Source::Inline(bytes.into())),
        Some(Specifier::InlineString(text)) => Ok(Source::Inline(Bytes::from(text))),
        Some(Specifier::Filename(path)) if !path.is_empty() => Ok(Source::File(path.into())),
        Some(Specifier::EnvironmentVariable(name)) => Ok(Source::Environment(name.into())),
        _ => refuse("names no source"),
    }
}

pub fn keepalive(mut value: core::TcpKeepalive) -> Keepalive {
    Keepalive {
        probes: number(&mut value.keepalive_probes),
        time_seconds: number(&mut value.keepalive_time),
        interval_seconds: number(&mut value.keepalive_interval),
    }
}

/// The user's object, from `filter_metadata.gossamer` or, as Istio's pilot tells it, `filter_metadata.istio.config`.
pub fn object(metadata: Option<&core::Metadata>) -> Option<Arc<Object>> {
    let text = |name: &str, key: &str| {
        let value = metadata?.filter_metadata.get(name)?.fields.get(key)?;
        to_json(value)
            .as_str()
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    if let Some(object) = text(names::metadata::GOSSAMER, "object") {
        let version = text(names::metadata::GOSSAMER, "version").unwrap_or_default();
        return Some(Arc::new(Object {
            text: object.into(),
            version: version.into(),
        }));
    }
    let path = text(names::metadata::ISTIO, "config")?;
    let object = Object {
        text: config_path(&path).into(),
        version: "".into(),
    };
    Some(Arc::new(object))
}

/// `/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews` to `virtualservice default/reviews`
fn config_path(path: &str) -> String {
    match path.rsplit('/').collect::<Vec<_>>()[..] {
        [name, kind, namespace, "namespaces", ..] => format!("{} {namespace}/{name}", kind.replace('-', "")),
        _ => path.to_owned(),
    }
}

/// The string entries of a struct, and booleans and numbers as text.
pub fn labels(value: &Struct) -> impl Iterator<Item = (Arc<str>, Arc<str>)> {
    value.fields.iter().filter_map(|(key, value)| {
        let text = match to_json(value) {
            serde_json::Value::String(text) => text,
            other @ (serde_json::Value::Bool(_) | serde_json::Value::Number(_)) => other.to_string(),
            _ => return None,
        };
        Some((key.as_str().into(), text.into()))
    })
}

/// A header's name.
pub fn header_name(text: &str) -> Result<http::HeaderName> {
    text.parse()
        .or_else(|_| refuse(format!("{text:?} is not a header's name")))
}

/// A header's value.
pub fn header_value(text: &str) -> Result<http::HeaderValue> {
    text.parse()
        .or_else(|_| refuse(format!("{text:?} is not a header's value")))
}

/// A status that an answer may have.
pub fn status(code: u32) -> Result<http::StatusCode> {
    u16::try_from(code)
        .ok()
        .filter(|code| (200..600).contains(code))
        .and_then(|code| http::StatusCode::from_u16(code).ok())
        .map_or_else(|| refuse(format!("{code} is not a status of an answer")), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_paths_are_told_as_objects() {
        let path = "/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews";
        assert_eq!(config_path(path), "virtualservice default/reviews");
        assert_eq!(config_path("x"), "x");
    }

    #[test]
    fn networks_are_checked() {
        let range = |prefix: &str, length| core::CidrRange {
            address_prefix: prefix.into(),
            prefix_len: Some(mesh_proto::pb::google::protobuf::UInt32Value { value: length }),
        };
        assert_eq!(network(range("10.1.2.3", 8)).unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(network(range("10.1.2.3", 33)).unwrap_err().path, "prefix_len");
        assert_eq!(network(range("x", 8)).unwrap_err().path, "address_prefix");
    }
}
