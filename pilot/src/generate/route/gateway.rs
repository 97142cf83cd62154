//! A gateway's servers, its listeners' chains, and the route tables behind them. Servers of one port are put together:
//! plain HTTP of a port is one table (`http.<port>`), each HTTPS server has one of its own.

use std::{collections::BTreeMap, sync::Arc};

use super::{Input, Rest, Rule, VirtualHost, retry, rule, sidecar};
use crate::{
    generate::own,
    model::{Gateway, Host, Server, gateway::ServerTlsMode, route::HttpMatch},
    view::View,
};

/// One server, and the port that its workload listens on.
#[derive(Clone, Debug)]
pub struct Bound<'a> {
    pub gateway: &'a Arc<Gateway>,
    pub server: &'a Server,
    pub port: u16,
    /// The name of its route table; `None` when it looks into no HTTP.
    pub table: Option<String>,
}

/// By address and port; in one group, the older gateway first.
pub fn servers<'a>(view: &View<'a>) -> BTreeMap<(String, u16), Vec<Bound<'a>>> {
    let mut groups: BTreeMap<(String, u16), Vec<Bound<'a>>> = BTreeMap::new();
    for gateway in view.gateways() {
        for (index, server) in gateway.servers.iter().enumerate() {
            let port = own::behind(view, server.port);
            let bind = server
                .bind
                .map_or_else(|| "0.0.0.0".to_owned(), |bind| bind.to_string());
            let table = server.is_http().then(|| {
                if server.terminates_tls() {
                    let name = if server.port_name.is_empty() {
                        &server.name
                    } else {
                        &server.port_name
                    };
                    format!(
                        "https.{port}.{name}.{index}.{}.{}",
                        gateway.origin.name, gateway.origin.namespace
                    )
                } else {
                    format!("http.{port}")
                }
            });
            groups.entry((bind, port)).or_default().push(Bound {
                gateway,
                server,
                port,
                table,
            });
        }
    }
    groups
}

pub fn inputs(view: &View<'_>) -> Vec<Input> {
    let mut tables: BTreeMap<String, Vec<Bound<'_>>> = BTreeMap::new();
    for bound in servers(view).into_values().flatten() {
        if let Some(table) = bound.table.clone() {
            tables.entry(table).or_default().push(bound);
        }
    }
    let retries = retry::default(view.mesh());
    tables
        .into_iter()
        .map(|(name, servers)| Input {
            name,
            hosts: hosts(view, &servers),
            rest: Rest::NotFound,
            retries: retries.clone(),
        })
        .collect()
}

/// The virtual hosts of one table. Rules of several VirtualServices for one host stand one after another, the oldest
/// object's first.
fn hosts(view: &View<'_>, servers: &[Bound<'_>]) -> Vec<VirtualHost> {
    let mut merged: BTreeMap<Host, (Vec<Rule>, bool, u16)> = BTreeMap::new();
    for bound in servers {
        let redirect = bound.server.tls.as_ref().is_some_and(|tls| tls.https_redirect);
        let reference = bound.gateway.reference();
        for source in view.routes_at(&reference) {
            for host in &source.hosts {
                let namespace = &source.origin.namespace;
                for admitted in bound
                    .server
                    .admits(namespace, &bound.gateway.origin.namespace, host)
                {
                    let (rules, tls, _) =
                        merged
                            .entry(admitted.clone())
                            .or_insert((Vec::new(), false, bound.server.port));
                    *tls |= redirect;
                    for route in &source.http {
                        let counts = |wanted: &&HttpMatch| {
                            sidecar::applies(view, wanted, &reference, bound.server.port)
                        };
                        let matches: Vec<HttpMatch> = route.matches.iter().filter(counts).cloned().collect();
                        if matches.is_empty() && !route.matches.is_empty() {
                            continue;
                        }
                        let rule = sidecar::resolve(view, source, route, matches, bound.server.port, host);
                        if !rules.contains(&rule) {
                            rules.push(rule);
                        }
                    }
                }
            }
        }
        if redirect {
            for host in &bound.server.hosts {
                let (_, tls, _) =
                    merged
                        .entry(host.host.clone())
                        .or_insert((Vec::new(), true, bound.server.port));
                *tls = true;
            }
        }
    }
    let mut domains = sidecar::Domains::default();
    merged
        .into_iter()
        .filter_map(|(host, (mut rules, require_tls, port))| {
            // Nothing after a rule that takes everything is ever asked.
            if let Some(last) = rules.iter().position(rule::takes_everything) {
                rules.truncate(last + 1);
            }
            let mut names = vec![host.as_str().to_owned()];
            if host.as_str() != "*" {
                names.push(format!("{host}:*"));
            }
            let domains = domains.take(names);
            (!domains.is_empty()).then(|| VirtualHost {
                name: format!("{host}:{port}"),
                domains,
                rules,
                require_tls,
            })
        })
        .collect()
}

/// Whether a server takes TLS, ended there or not.
pub fn over_tls(server: &Server) -> bool {
    server.protocol.is_tls()
        || server
            .tls
            .as_ref()
            .is_some_and(|tls| tls.mode != ServerTlsMode::None)
}
