//! `/clusters`: every cluster with its limits, its endpoints and their numbers, in Envoy's text
//! (`cluster::address::stat::value`) and JSON.

use std::fmt::Write;

use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{Admin, Query};
use crate::{
    balance::Host,
    config::{
        cluster::{Cluster, Thresholds},
        endpoint::{Health, Locality},
    },
};

pub async fn page(admin: &Admin, query: Query) -> Response {
    let snapshot = admin.store.snapshot();
    let mut clusters: Vec<_> = snapshot.clusters.values().collect();
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    if query.wants_json() {
        let statuses: Vec<Value> = clusters
            .into_iter()
            .map(|cluster| status(admin, cluster))
            .collect();
        return super::json(&json!({"cluster_statuses": statuses}));
    }
    let mut out = String::new();
    for cluster in clusters {
        text(admin, cluster, &mut out);
    }
    out.into_response()
}

/// The endpoints with the locality of each.
fn hosts(admin: &Admin, cluster: &Cluster) -> Vec<(Host, Locality)> {
    let Some(cell) = admin.store.endpoints(&cluster.name) else {
        return Vec::new();
    };
    let set = cell.load();
    let locality = |host: &Host| {
        set.localities
            .get(host.locality as usize)
            .map(|l| l.locality.clone())
            .unwrap_or_default()
    };
    set.hosts
        .iter()
        .map(|host| (host.clone(), locality(host)))
        .collect()
}

/// Numbers in Envoy's order; a host that no worker has used yet has zeros.
fn numbers(admin: &Admin, cluster: &Cluster, host: &Host) -> Vec<(&'static str, u64)> {
    const NAMES: [&str; 8] = [
        "cx_active",
        "cx_connect_fail",
        "cx_total",
        "rq_active",
        "rq_error",
        "rq_success",
        "rq_timeout",
        "rq_total",
    ];
    let known = admin.stats.host_values(&cluster.name, host.address);
    let value = |name: &str| {
        known
            .iter()
            .find(|(other, _)| *other == name)
            .map_or(0, |(_, value)| *value)
    };
    NAMES.into_iter().map(|name| (name, value(name))).collect()
}

fn flags(health: Health) -> &'static str {
    match health {
        Health::Healthy => "healthy",
        Health::Degraded => "/eds_status_degraded",
        Health::Unhealthy => "/failed_eds_health",
        Health::Draining => "/eds_status_draining",
    }
}

fn text(admin: &Admin, cluster: &Cluster, out: &mut String) {
    let name = &cluster.name;
    // Writing to a String cannot fail.
    let mut line = |rest: std::fmt::Arguments<'_>| {
        let _ = writeln!(out, "{name}::{rest}");
    };
    line(format_args!("observability_name::{name}"));
    for (priority, limits) in [
        ("default_priority", cluster.breakers.default),
        ("high_priority", cluster.breakers.high),
    ] {
        let Thresholds {
            connections,
            pending,
            requests,
            retries,
            ..
        } = limits;
        line(format_args!("{priority}::max_connections::{connections}"));
        line(format_args!("{priority}::max_pending_requests::{pending}"));
        line(format_args!("{priority}::max_requests::{requests}"));
        line(format_args!("{priority}::max_retries::{retries}"));
    }
    line(format_args!("added_via_api::{}", is_dynamic(admin, name)));
    for (host, locality) in hosts(admin, cluster) {
        let address = host.address;
        for (stat, value) in numbers(admin, cluster, &host) {
            line(format_args!("{address}::{stat}::{value}"));
        }
        line(format_args!("{address}::hostname::{}", host.endpoint.hostname));
        line(format_args!(
            "{address}::health_flags::{}",
            flags(host.endpoint.health)
        ));
        line(format_args!("{address}::weight::{}", host.weight));
        line(format_args!("{address}::region::{}", locality.region));
        line(format_args!("{address}::zone::{}", locality.zone));
        line(format_args!("{address}::sub_zone::{}", locality.sub_zone));
        line(format_args!("{address}::canary::false"));
        line(format_args!("{address}::priority::{}", host.priority));
        line(format_args!("{address}::success_rate::-1"));
        line(format_args!("{address}::local_origin_success_rate::-1"));
    }
}

fn is_dynamic(admin: &Admin, name: &str) -> bool {
    use mesh_proto::xds::Type;
    admin.store.ledger(|ledger| {
        ledger
            .get(Type::Cluster, name)
            .is_some_and(|row| row.state != crate::store::State::Static)
    })
}

fn status(admin: &Admin, cluster: &Cluster) -> Value {
    let thresholds: Vec<Value> = [("DEFAULT", cluster.breakers.default), ("HIGH", cluster.breakers.high)]
        .into_iter()
        .map(|(priority, limits)| {
            json!({"priority": priority, "max_connections": limits.connections, "max_pending_requests": limits.pending,
                "max_requests": limits.requests, "max_retries": limits.retries})
        })
        .collect();
    let hosts: Vec<Value> = hosts(admin, cluster)
        .iter()
        .map(|(host, locality)| host_status(admin, cluster, host, locality))
        .collect();
    json!({
        "name": *cluster.name,
        "observability_name": *cluster.name,
        "added_via_api": is_dynamic(admin, &cluster.name),
        "circuit_breakers": {"thresholds": thresholds},
        "host_statuses": hosts,
    })
}

fn host_status(admin: &Admin, cluster: &Cluster, host: &Host, locality: &Locality) -> Value {
    let stats: Vec<Value> = numbers(admin, cluster, host)
        .into_iter()
        .map(|(name, value)| match name {
            "cx_active" | "rq_active" => json!({"name": name, "type": "GAUGE", "value": value.to_string()}),
            _ => json!({"name": name, "value": value.to_string()}),
        })
        .collect();
    let health = match host.endpoint.health {
        Health::Healthy => "HEALTHY",
        Health::Degraded => "DEGRADED",
        Health::Unhealthy => "UNHEALTHY",
        Health::Draining => "DRAINING",
    };
    json!({
        "address": {"socket_address": {"address": host.address.ip().to_string(), "port_value": host.address.port()}},
        "stats": stats,
        "health_status": {"eds_health_status": health},
        "weight": host.weight,
        "hostname": *host.endpoint.hostname,
        "priority": host.priority,
        "locality": {"region": *locality.region, "zone": *locality.zone, "sub_zone": *locality.sub_zone},
    })
}
