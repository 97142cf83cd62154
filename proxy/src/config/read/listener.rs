//! Listeners.

// Older fields, which configurations still use, are read too.
#![allow(deprecated)]

use std::{mem::take, sync::Arc, time::Duration};

use mesh_proto::envoy::{
    config::{core::v3::TrafficDirection, listener::v3 as pb},
    extensions::filters::listener::{
        http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst, proxy_protocol::v3::ProxyProtocol,
        tls_inspector::v3::TlsInspector,
    },
};

use super::{
    At, Result, access_log, boolean, chain, done, each, number, open, refuse, required, scalar, timeout,
    unsupported,
};
use crate::config::listener::{Direction, Inspect, Listener};

const BUFFER_LIMIT: u32 = 1 << 20;
const BACKLOG: u32 = 4096;
const INSPECT_TIMEOUT: Duration = Duration::from_secs(15);

pub fn listener(mut value: pb::Listener) -> Result<Listener> {
    let address = scalar::listen_address(required(take(&mut value.address), "address")?).at("address")?;
    let mut name = take(&mut value.name);
    if name.is_empty() {
        name = address.to_string();
    }
    let inspect = inspect(take(&mut value.listener_filters))?;
    let listener = Listener {
        name: name.into(),
        address,
        bind: bind(&mut value),
        use_original_dst: boolean(&mut value.use_original_dst, false),
        direction: match TrafficDirection::try_from(take(&mut value.traffic_direction)) {
            Ok(TrafficDirection::Inbound) => Direction::Inbound,
            Ok(TrafficDirection::Outbound) => Direction::Outbound,
            _ => Direction::Unspecified,
        },
        inspect,
        inspect_timeout: timeout(
            take(&mut value.listener_filters_timeout),
            Some(INSPECT_TIMEOUT),
            "listener_filters_timeout",
        )?,
        continue_on_timeout: take(&mut value.continue_on_listener_filters_timeout),
        chains: each(take(&mut value.filter_chains), "filter_chains", |one| {
            chain::chain(one).map(Arc::new)
        })?,
        default_chain: take(&mut value.default_filter_chain)
            .map(|one| chain::chain(one).map(Arc::new).at("default_filter_chain"))
            .transpose()?,
        access_log: access_log::access_logs(take(&mut value.access_log), "access_log")?,
        buffer_limit: number(&mut value.per_connection_buffer_limit_bytes).unwrap_or(BUFFER_LIMIT) as usize,
        backlog: number(&mut value.tcp_backlog_size).unwrap_or(BACKLOG),
        transparent: boolean(&mut value.transparent, false),
        freebind: boolean(&mut value.freebind, false),
        keepalive: take(&mut value.tcp_keepalive).map(scalar::keepalive),
    };
    if listener.chains.is_empty() && listener.default_chain.is_none() {
        return refuse("is missing").at("filter_chains");
    }
    unique_matches(&listener)?;
    drop_hints(&mut value);
    done(&value)?;
    Ok(listener)
}

fn bind(value: &mut pb::Listener) -> bool {
    let old = take(&mut value.deprecated_v1)
        .and_then(|old| old.bind_to_port)
        .is_none_or(|bind| bind.value);
    boolean(&mut value.bind_to_port, true) && old
}

/// Names of statistics, how a drain is begun, how workers share connections (each worker has a socket of its own).
fn drop_hints(value: &mut pb::Listener) {
    value.stat_prefix.clear();
    value.metadata = None;
    value.drain_type = 0;
    value.reuse_port = false;
    value.enable_reuse_port = None;
    value.connection_balance_config = None;
    value.tcp_fast_open_queue_length = None;
    value.max_connections_to_accept_per_socket_event = None;
    value.ignore_global_conn_limit = false;
    value.bypass_overload_manager = false;
}

/// Two chains that match the same could not both be meant.
fn unique_matches(listener: &Listener) -> Result<()> {
    for (n, chain) in listener.chains.iter().enumerate() {
        let twin = listener.chains[..n]
            .iter()
            .position(|other| other.matches == chain.matches);
        if let Some(twin) = twin {
            let why = format!("matches the same connections as filter_chains[{twin}]");
            return refuse(why).at("filter_chain_match").nth("filter_chains", n);
        }
    }
    Ok(())
}

fn inspect(filters: Vec<pb::ListenerFilter>) -> Result<Inspect> {
    let mut inspect = Inspect::default();
    for (n, filter) in filters.into_iter().enumerate() {
        listener_filter(filter, &mut inspect).nth("listener_filters", n)?;
    }
    Ok(inspect)
}

fn listener_filter(mut value: pb::ListenerFilter, inspect: &mut Inspect) -> Result<()> {
    // Which connections are not looked into: looking costs them nothing but the wait, which ends by the timeout.
    value.filter_disabled = None;
    let any = match take(&mut value.config_type) {
        Some(pb::listener_filter::ConfigType::TypedConfig(any)) => any,
        Some(_) => return unsupported("config_discovery"),
        None => return refuse("is missing").at("typed_config"),
    };
    if open::<OriginalDst>(&any)?.is_some() {
        inspect.original_dst = true;
    } else if open::<HttpInspector>(&any)?.is_some() {
        inspect.http = true;
    } else if let Some(mut tls) = open::<TlsInspector>(&any)? {
        inspect.tls = true;
        // How much is read at once.
        tls.initial_read_buffer_size = None;
        tls.max_client_hello_size = None;
        tls.close_connection_on_client_hello_parsing_errors = false;
        done(&tls).at("typed_config")?;
    } else if let Some(mut proxy) = open::<ProxyProtocol>(&any)? {
        inspect.proxy_protocol = true;
        inspect.proxy_protocol_optional = take(&mut proxy.allow_requests_without_proxy_protocol);
        proxy.stat_prefix.clear();
        proxy.pass_through_tlvs = None;
        done(&proxy).at("typed_config")?;
    } else {
        return refuse(format!("{} is not supported by this proxy", any.type_url)).at("typed_config.@type");
    }
    Ok(())
}
