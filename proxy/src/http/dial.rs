//! How to connect to a chosen endpoint: address, TLS, source address, deadline.

use std::time::Duration;

use rustls_pki_types::ServerName;
use socket2::TcpKeepalive;

use crate::{
    cluster::{Picked, Upstream, connect::Dial},
    config::{scalar::Keepalive, transport::UpstreamTls},
    sniff::proxy_protocol,
    tls::{SetupError, client::Purpose},
    worker::Worker,
};

/// A connection for this purpose.
pub fn dial(
    worker: &Worker,
    upstream: &Upstream,
    picked: &Picked,
    purpose: Purpose,
) -> Result<Dial, SetupError> {
    let cluster = &upstream.cluster;
    let tls = match &picked.tls {
        None => None,
        Some(settings) => {
            let snapshot = worker.store.snapshot();
            let config = worker
                .tls
                .client(settings, purpose, &snapshot.secrets, &worker.identity)?;
            Some((config, server_name(settings, picked)?))
        }
    };
    Ok(Dial {
        address: picked.host.address,
        source: cluster.bind_source,
        tls,
        timeout: cluster.connect_timeout,
        keepalive: cluster.keepalive.as_ref().map(keepalive),
        preface: cluster
            .proxy_protocol
            .map(|version| proxy_protocol::written(version, picked.host.client).into()),
    })
}

/// The name to ask the server for; without one the address stands in and no name is sent.
fn server_name(tls: &UpstreamTls, picked: &Picked) -> Result<ServerName<'static>, SetupError> {
    let hostname = picked
        .endpoint
        .as_ref()
        .map(|endpoint| endpoint.hostname.clone())
        .unwrap_or_default();
    let name = if tls.auto_host_sni && !hostname.is_empty() {
        &hostname
    } else {
        &tls.sni
    };
    if name.is_empty() {
        return Ok(ServerName::IpAddress(picked.host.address.ip().into()));
    }
    ServerName::try_from(name.to_string())
        .map_err(|error| SetupError::Settings(format!("server name {name:?}: {error}")))
}

fn keepalive(settings: &Keepalive) -> TcpKeepalive {
    let mut keepalive = TcpKeepalive::new();
    if let Some(time) = settings.time_seconds {
        keepalive = keepalive.with_time(Duration::from_secs(time.into()));
    }
    if let Some(interval) = settings.interval_seconds {
        keepalive = keepalive.with_interval(Duration::from_secs(interval.into()));
    }
    if let Some(probes) = settings.probes {
        keepalive = keepalive.with_retries(probes);
    }
    keepalive
}
