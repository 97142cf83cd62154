//! Protobuf's small values, so that the generators read like the configuration they make.

use std::time::Duration;

use mesh_proto::{
    envoy::{
        config::core::v3 as core,
        r#type::{
            matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern},
            v3::{FractionalPercent, fractional_percent::DenominatorType},
        },
    },
    node,
    pb::google::protobuf as pb,
};
use prost::{Message, Name};

use crate::model::{Percent, StringMatch};

pub fn any<M: Message + Name>(message: &M) -> pb::Any {
    pb::Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}

pub fn duration(value: Duration) -> pb::Duration {
    pb::Duration {
        seconds: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(value.subsec_nanos()).unwrap_or(0),
    }
}

pub fn seconds(value: u64) -> pb::Duration {
    duration(Duration::from_secs(value))
}

pub fn boolean(value: bool) -> pb::BoolValue {
    pb::BoolValue { value }
}

pub fn uint(value: u32) -> pb::UInt32Value {
    pb::UInt32Value { value }
}

pub fn uint64(value: u64) -> pb::UInt64Value {
    pb::UInt64Value { value }
}

pub fn fraction(percent: Percent) -> FractionalPercent {
    FractionalPercent {
        numerator: percent.per_million(),
        denominator: DenominatorType::Million.into(),
    }
}

pub fn runtime_fraction(percent: Percent) -> core::RuntimeFractionalPercent {
    core::RuntimeFractionalPercent {
        default_value: Some(fraction(percent)),
        runtime_key: String::new(),
    }
}

pub fn matcher(pattern: MatchPattern) -> StringMatcher {
    StringMatcher {
        ignore_case: false,
        match_pattern: Some(pattern),
    }
}

pub fn exact(text: &str) -> StringMatcher {
    matcher(MatchPattern::Exact(text.to_owned()))
}

pub fn prefix(text: &str) -> StringMatcher {
    matcher(MatchPattern::Prefix(text.to_owned()))
}

pub fn suffix(text: &str) -> StringMatcher {
    matcher(MatchPattern::Suffix(text.to_owned()))
}

pub fn regex(pattern: &str) -> RegexMatcher {
    RegexMatcher {
        regex: pattern.to_owned(),
        ..RegexMatcher::default()
    }
}

pub fn safe_regex(pattern: &str) -> StringMatcher {
    matcher(MatchPattern::SafeRegex(regex(pattern)))
}

pub fn string_match(value: &StringMatch) -> StringMatcher {
    match value {
        StringMatch::Exact(text) => exact(text),
        StringMatch::Prefix(text) => prefix(text),
        StringMatch::Regex(pattern) => safe_regex(pattern),
    }
}

pub fn socket(address: &str, port: u16) -> core::Address {
    let socket = core::SocketAddress {
        address: address.to_owned(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(u32::from(port))),
        ..core::SocketAddress::default()
    };
    core::Address {
        address: Some(core::address::Address::SocketAddress(socket)),
    }
}

pub fn pipe(path: &str) -> core::Address {
    let pipe = core::Pipe {
        path: path.to_owned(),
        mode: 0,
    };
    core::Address {
        address: Some(core::address::Address::Pipe(pipe)),
    }
}

pub fn cidr(network: &ipnet::IpNet) -> core::CidrRange {
    core::CidrRange {
        address_prefix: network.network().to_string(),
        prefix_len: Some(uint(u32::from(network.prefix_len()))),
    }
}

pub fn file(path: &str) -> core::DataSource {
    core::DataSource {
        specifier: Some(core::data_source::Specifier::Filename(path.to_owned())),
        ..core::DataSource::default()
    }
}

pub fn inline_bytes(bytes: &[u8]) -> core::DataSource {
    core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineBytes(bytes.to_vec())),
        ..core::DataSource::default()
    }
}

pub fn inline_string(text: &str) -> core::DataSource {
    core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineString(text.to_owned())),
        ..core::DataSource::default()
    }
}

/// From the ADS stream on which this very resource travels.
pub fn ads() -> core::ConfigSource {
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource::default(),
        )),
        ..core::ConfigSource::default()
    }
}

/// To a cluster of the proxy, by gRPC.
pub fn grpc(cluster: &str) -> core::GrpcService {
    let envoy = core::grpc_service::EnvoyGrpc {
        cluster_name: cluster.to_owned(),
        ..Default::default()
    };
    core::GrpcService {
        target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(envoy)),
        ..core::GrpcService::default()
    }
}

/// Metadata from namespaces and JSON objects.
pub fn metadata<'a>(entries: impl IntoIterator<Item = (&'a str, serde_json::Value)>) -> core::Metadata {
    let entries = entries
        .into_iter()
        .filter_map(|(namespace, value)| match node::to_proto(value).kind {
            Some(pb::value::Kind::StructValue(object)) => Some((namespace.to_owned(), object)),
            _ => None,
        });
    core::Metadata {
        filter_metadata: entries.collect(),
        ..core::Metadata::default()
    }
}

/// A JSON object as a protobuf struct; anything else is an empty one.
pub fn object(value: serde_json::Value) -> pb::Struct {
    match node::to_proto(value).kind {
        Some(pb::value::Kind::StructValue(object)) => object,
        _ => pb::Struct::default(),
    }
}

pub fn transport_socket(name: &str, config: pb::Any) -> core::TransportSocket {
    core::TransportSocket {
        name: name.to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(config)),
    }
}
