//! Filter chains, their matches, and the network filters.

// Older fields, which configurations still use, are read too.
#![allow(deprecated)]

use std::{mem::take, sync::Arc, time::Duration};

use bytes::Bytes;
use mesh_proto::{
    envoy::{
        config::listener::v3 as pb,
        extensions::filters::network::{
            direct_response::v3::Config as DirectResponse,
            echo::v3::Echo,
            http_connection_manager::v3::HttpConnectionManager,
            rbac::v3::Rbac,
            tcp_proxy::v3::{self as tcp, TcpProxy as TcpProxyPb, tcp_proxy},
        },
        r#type::v3::hash_policy,
    },
    pb::google::protobuf::Any,
};

use super::{
    At, Result, access_log, done, each, hcm, number, open, opt_duration, rbac, refuse, required,
    required_text, scalar, timeout, tls, unsupported,
};
use crate::config::{
    chain::{
        Chain, ChainMatch, NetworkFilter, ServerName, SourceType, TcpClusters, TcpProxy, Terminal, Transport,
        Tunnel,
    },
    secret::Source,
};

const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

pub fn chain(mut value: pb::FilterChain) -> Result<Chain> {
    let mut filters = Vec::new();
    let mut terminal = None;
    let list = take(&mut value.filters);
    let last = list.len().saturating_sub(1);
    for (n, filter) in list.into_iter().enumerate() {
        match network_filter(filter).nth("filters", n)? {
            Network::Terminal(found) if n == last => terminal = Some(found),
            Network::Terminal(_) => return refuse("ends the chain, but others follow it").nth("filters", n),
            Network::Filter(filter) => filters.push(filter),
        }
    }
    let Some(terminal) = terminal else {
        return refuse("must end with a filter that takes the connection, such as tcp_proxy").at("filters");
    };
    let chain = Chain {
        name: take(&mut value.name).into(),
        matches: take(&mut value.filter_chain_match)
            .map_or(Ok(ChainMatch::default()), chain_match)
            .at("filter_chain_match")?,
        tls: take(&mut value.transport_socket)
            .map_or(Ok(None), tls::downstream)
            .at("transport_socket")?
            .map(Arc::new),
        handshake_timeout: timeout(
            take(&mut value.transport_socket_connect_timeout),
            None,
            "transport_socket_connect_timeout",
        )?,
        filters,
        terminal,
    };
    value.metadata = None;
    done(&value)?;
    Ok(chain)
}

fn chain_match(mut value: pb::FilterChainMatch) -> Result<ChainMatch> {
    use pb::filter_chain_match::ConnectionSourceType as Kind;
    let port = |port: u32| u16::try_from(port).or_else(|_| refuse(format!("{port} is not a port")));
    let rules = ChainMatch {
        destination_port: number(&mut value.destination_port)
            .map(port)
            .transpose()
            .at("destination_port")?,
        destination: each(take(&mut value.prefix_ranges), "prefix_ranges", scalar::network)?,
        server_names: each(take(&mut value.server_names), "server_names", |name| {
            server_name(&name)
        })?,
        transport: match take(&mut value.transport_protocol).as_str() {
            "" => None,
            "raw_buffer" => Some(Transport::Raw),
            "tls" => Some(Transport::Tls),
            other => return refuse(format!("{other:?} is not known here")).at("transport_protocol"),
        },
        application_protocols: take(&mut value.application_protocols)
            .into_iter()
            .map(|text| text.into_bytes().into())
            .collect(),
        direct_source: each(
            take(&mut value.direct_source_prefix_ranges),
            "direct_source_prefix_ranges",
            scalar::network,
        )?,
        source_type: match Kind::try_from(take(&mut value.source_type)) {
            Ok(Kind::Any) => SourceType::Any,
            Ok(Kind::SameIpOrLoopback) => SourceType::SameIpOrLoopback,
            Ok(Kind::External) => SourceType::External,
            Err(_) => return refuse("is not known").at("source_type"),
        },
        source: each(
            take(&mut value.source_prefix_ranges),
            "source_prefix_ranges",
            scalar::network,
        )?,
        source_ports: each(take(&mut value.source_ports), "source_ports", port)?,
    };
    done(&value)?;
    Ok(rules)
}

fn server_name(name: &str) -> Result<ServerName> {
    let name = name.to_ascii_lowercase();
    match name.strip_prefix('*') {
        Some(tail) if tail.starts_with('.') && !tail.contains('*') => Ok(ServerName::Suffix(tail.into())),
        None if !name.contains('*') && !name.is_empty() => Ok(ServerName::Exact(name.into())),
        _ => refuse(format!(
            "{name:?} is not a server name; a * may only stand for its first part"
        )),
    }
}

enum Network {
    Filter(NetworkFilter),
    Terminal(Terminal),
}

fn network_filter(value: pb::Filter) -> Result<Network> {
    let any = match value.config_type {
        Some(pb::filter::ConfigType::TypedConfig(any)) => any,
        Some(_) => return unsupported("config_discovery"),
        None => return refuse("is missing").at("typed_config"),
    };
    by_type(&any).at("typed_config")
}

fn by_type(any: &Any) -> Result<Network> {
    if let Some(value) = open::<HttpConnectionManager>(any)? {
        return Ok(Network::Terminal(Terminal::Http(Arc::new(hcm::hcm(value)?))));
    }
    if let Some(value) = open::<TcpProxyPb>(any)? {
        return Ok(Network::Terminal(Terminal::Tcp(Arc::new(tcp_proxy(value)?))));
    }
    if let Some(value) = open::<Rbac>(any)? {
        return Ok(Network::Filter(NetworkFilter::Rbac(Arc::new(rbac::network(
            value,
        )?))));
    }
    if open::<Echo>(any)?.is_some() {
        return Ok(Network::Terminal(Terminal::Echo));
    }
    if let Some(value) = open::<DirectResponse>(any)? {
        return match value
            .response
            .map(scalar::data_source)
            .transpose()
            .at("response")?
        {
            None => Ok(Network::Terminal(Terminal::Direct(Bytes::new()))),
            Some(Source::Inline(bytes)) => Ok(Network::Terminal(Terminal::Direct(bytes))),
            Some(_) => refuse("only inline data is supported by this proxy").at("response"),
        };
    }
    refuse(format!("{} is not supported by this proxy", any.type_url)).at("@type")
}

fn tcp_proxy(mut value: TcpProxyPb) -> Result<TcpProxy> {
    let options = take(&mut value.access_log_options).unwrap_or_default();
    let (old_interval, old_connect) = (
        take(&mut value.access_log_flush_interval),
        take(&mut value.flush_access_log_on_connected),
    );
    let hash_source_ip = !take(&mut value.hash_policy)
        .into_iter()
        .map(|policy| match policy.policy_specifier {
            Some(hash_policy::PolicySpecifier::SourceIp(_)) => Ok(()),
            _ => unsupported("hash_policy"),
        })
        .collect::<Result<Vec<()>>>()?
        .is_empty();
    let proxy = TcpProxy {
        stat_prefix: take(&mut value.stat_prefix).into(),
        clusters: clusters(required(take(&mut value.cluster_specifier), "cluster")?)?,
        idle_timeout: timeout(take(&mut value.idle_timeout), Some(IDLE_TIMEOUT), "idle_timeout")?,
        max_duration: timeout(
            take(&mut value.max_downstream_connection_duration),
            None,
            "max_downstream_connection_duration",
        )?,
        connect_attempts: number(&mut value.max_connect_attempts).unwrap_or(1).max(1),
        hash_source_ip,
        tunnel: take(&mut value.tunneling_config)
            .map(tunnel)
            .transpose()
            .at("tunneling_config")?,
        access_log: access_log::access_logs(take(&mut value.access_log), "access_log")?,
        log_on_connect: options.flush_access_log_on_connected || old_connect,
        log_interval: opt_duration(
            options.access_log_flush_interval.or(old_interval),
            "access_log_flush_interval",
        )?,
    };
    // When the upstream connection is made changes no byte that passes.
    value.max_early_data_bytes = None;
    value.check_drain_close = None;
    if value.upstream_connect_mode == tcp::UpstreamConnectMode::Immediate as i32 {
        value.upstream_connect_mode = 0;
    }
    done(&value)?;
    Ok(proxy)
}

fn tunnel(mut value: tcp_proxy::TunnelingConfig) -> Result<Tunnel> {
    let authority = required_text(&mut value.hostname, "hostname")?;
    if authority.parse::<http::uri::Authority>().is_err() {
        return refuse(format!(
            "{authority:?} is not a host and port; formats are not supported by this proxy"
        ))
        .at("hostname");
    }
    let path = take(&mut value.post_path);
    let tunnel = Tunnel {
        authority: authority.into(),
        post: take(&mut value.use_post),
        path: if path.is_empty() { "/".into() } else { path.into() },
    };
    if !tunnel.post && &*tunnel.path != "/" {
        return refuse("is for POST only (use_post)").at("post_path");
    }
    if tunnel.path.parse::<http::uri::PathAndQuery>().is_err() {
        return refuse("is not a path").at("post_path");
    }
    done(&value)?;
    Ok(tunnel)
}

fn clusters(value: tcp_proxy::ClusterSpecifier) -> Result<TcpClusters> {
    match value {
        tcp_proxy::ClusterSpecifier::Cluster(name) if name.is_empty() => refuse("is missing").at("cluster"),
        tcp_proxy::ClusterSpecifier::Cluster(name) => Ok(TcpClusters::Single(name.into())),
        tcp_proxy::ClusterSpecifier::WeightedClusters(weighted) => {
            let choices = each(weighted.clusters, "clusters", |cluster| {
                match cluster.metadata_match {
                    Some(_) => unsupported("metadata_match"),
                    None => Ok((Arc::from(cluster.name), cluster.weight)),
                }
            })
            .at("weighted_clusters")?;
            let total = choices.iter().map(|(_, weight)| u64::from(*weight)).sum();
            if total == 0 {
                return refuse("the weights sum up to 0").at("weighted_clusters.clusters");
            }
            Ok(TcpClusters::Weighted { choices, total })
        }
    }
}
