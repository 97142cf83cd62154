//! A gateway's servers, its listeners' chains, and the route tables behind them. A server is bound to the port that the
//! gateway's Service leads to from the server's port, so servers of several ports can meet at one. They are put together:
//! plain HTTP of a port is one table (`http.<port>`), each HTTPS server has one of its own. Conditions on the port in a
//! VirtualService speak of the server's port, as do destinations without one.

use std::{collections::BTreeMap, sync::Arc};

use super::{Input, Rest, Rule, VirtualHost, retry, rule, sidecar};
use crate::{
    generate::own,
    model::{Gateway, Host, Server, VirtualService, gateway::ServerTlsMode, route::HttpMatch},
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

/// What a table says about one host.
struct Merged<'a> {
    port: u16,
    require_tls: bool,
    rules: Vec<Part<'a>>,
}

/// One rule, and where it stands.
struct Part<'a> {
    source: &'a Arc<VirtualService>,
    index: usize,
    rule: Rule,
}

impl<'a> Merged<'a> {
    fn new(port: u16) -> Self {
        Self {
            port,
            require_tls: false,
            rules: Vec::new(),
        }
    }

    /// The same rule can come by two servers, such as ports 80 and 8080 of one Gateway that are the same port of its
    /// pods: what either lets in, the rule takes.
    fn add(&mut self, part: Part<'a>) {
        let known = self
            .rules
            .iter_mut()
            .find(|known| known.index == part.index && known.source.origin == part.source.origin);
        let Some(known) = known else {
            self.rules.push(part);
            return;
        };
        let written = &part.source.http[part.index].matches;
        let either =
            |wanted: &&HttpMatch| known.rule.matches.contains(wanted) || part.rule.matches.contains(wanted);
        known.rule.matches = written.iter().filter(either).cloned().collect();
    }

    /// The oldest object's rules first; nothing after a rule that takes everything is ever asked.
    fn rules(mut self) -> Vec<Rule> {
        self.rules.sort_by(|a, b| {
            let order = a.source.origin.precedence().cmp(&b.source.origin.precedence());
            order.then(a.index.cmp(&b.index))
        });
        let mut rules: Vec<Rule> = self.rules.into_iter().map(|part| part.rule).collect();
        if let Some(last) = rules.iter().position(rule::takes_everything) {
            rules.truncate(last + 1);
        }
        rules
    }
}

/// The virtual hosts of one table. Rules of several VirtualServices for one host stand one after another.
fn hosts(view: &View<'_>, servers: &[Bound<'_>]) -> Vec<VirtualHost> {
    let mut merged: BTreeMap<Host, Merged<'_>> = BTreeMap::new();
    for bound in servers {
        let redirect = bound.server.tls.as_ref().is_some_and(|tls| tls.https_redirect);
        let (reference, port) = (bound.gateway.reference(), bound.server.port);
        for source in view.routes_at(&reference) {
            let namespaces = (
                source.origin.namespace.as_str(),
                bound.gateway.origin.namespace.as_str(),
            );
            for host in &source.hosts {
                for admitted in bound.server.admits(namespaces.0, namespaces.1, host) {
                    let own = merged
                        .entry(admitted.clone())
                        .or_insert_with(|| Merged::new(port));
                    own.require_tls |= redirect;
                    for (index, route) in source.http.iter().enumerate() {
                        let counts = |wanted: &&HttpMatch| sidecar::applies(view, wanted, &reference, port);
                        let matches: Vec<HttpMatch> = route.matches.iter().filter(counts).cloned().collect();
                        if matches.is_empty() && !route.matches.is_empty() {
                            continue;
                        }
                        let rule = sidecar::resolve(view, source, route, matches, port, host);
                        own.add(Part { source, index, rule });
                    }
                }
            }
        }
        for host in bound.server.hosts.iter().filter(|_| redirect) {
            let own = merged
                .entry(host.host.clone())
                .or_insert_with(|| Merged::new(port));
            own.require_tls = true;
        }
    }
    let mut domains = sidecar::Domains::default();
    merged
        .into_iter()
        .filter_map(|(host, own)| {
            let mut names = vec![host.as_str().to_owned()];
            if host.as_str() != "*" {
                names.push(format!("{host}:*"));
            }
            let domains = domains.take(names);
            (!domains.is_empty()).then(|| VirtualHost {
                name: format!("{host}:{}", own.port),
                domains,
                require_tls: own.require_tls,
                rules: own.rules(),
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

#[cfg(test)]
#[path = "gateway/tests.rs"]
mod tests;
