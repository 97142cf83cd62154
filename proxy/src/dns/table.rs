//! The name table: hosts of the mesh and their addresses. Pure, immutable, replaced as a whole.
//!
//! Applications ask with their search domains appended (`httpbin.org.default.svc.cluster.local`) before they ask for the
//! name itself; the table answers the first of those, with a CNAME to the host, so a lookup takes one query, not four.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use mesh_proto::nds::NameTable;

/// Hosts beyond this are not taken: at a hundred bytes each the table stays within a few megabytes.
const MAX_NAMES: usize = 50_000;

/// Addresses of one host, by family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    pub v4: Vec<Ipv4Addr>,
    pub v6: Vec<Ipv6Addr>,
}

/// Names in lower case, without the trailing dot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Every name, and the host it stands for.
    hosts: Vec<Addresses>,
    exact: HashMap<Box<str>, u32>,
    /// `*.example.com` as `example.com`.
    wildcard: HashMap<Box<str>, u32>,
    search: Vec<String>,
    /// Names that were left out because of the bound.
    skipped: usize,
}

/// What the table says to a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    pub addresses: &'a Addresses,
    /// The question had a search domain appended; this is the host that was meant.
    pub alias_of: Option<&'a str>,
}

impl Table {
    /// From pilot's resource and the pod's search domains.
    pub fn build(resource: &NameTable, search: &[String]) -> Self {
        let mut table = Self {
            search: search.to_vec(),
            ..Self::default()
        };
        for (host, info) in &resource.table {
            let addresses = addresses(&info.ips);
            // A host without addresses is not ours to answer for: DNS may know it.
            if addresses == Addresses::default() {
                continue;
            }
            let Ok(index) = u32::try_from(table.hosts.len()) else {
                break;
            };
            table.hosts.push(addresses);
            for name in std::iter::once(host).chain(&info.alt_hosts) {
                table.insert(name, index);
            }
        }
        table
    }

    fn insert(&mut self, name: &str, index: u32) {
        if self.len() >= MAX_NAMES {
            self.skipped += 1;
            return;
        }
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        match name.strip_prefix("*.") {
            Some(suffix) => self.wildcard.entry(suffix.into()).or_insert(index),
            None => self.exact.entry(name.into()).or_insert(index),
        };
    }

    /// How many names it has.
    pub fn len(&self) -> usize {
        self.exact.len() + self.wildcard.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many names did not fit.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// Looks a name up: lower-case, without the trailing dot.
    pub fn find<'a>(&'a self, name: &'a str) -> Option<Found<'a>> {
        if let Some(addresses) = self.host(name) {
            return Some(Found {
                addresses,
                alias_of: None,
            });
        }
        self.search.iter().find_map(|domain| {
            let meant = name.strip_suffix(domain.as_str())?.strip_suffix('.')?;
            Some(Found {
                addresses: self.host(meant)?,
                alias_of: Some(meant),
            })
        })
    }

    fn host(&self, name: &str) -> Option<&Addresses> {
        let index = self.exact.get(name).or_else(|| self.wildcard(name))?;
        self.hosts.get(*index as usize)
    }

    /// The longest wildcard that covers the name. A wildcard covers one or more labels, as it does in Istio's hosts.
    fn wildcard(&self, name: &str) -> Option<&u32> {
        if self.wildcard.is_empty() {
            return None;
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(index) = self.wildcard.get(parent) {
                return Some(index);
            }
            rest = parent;
        }
        None
    }
}

fn addresses(texts: &[String]) -> Addresses {
    let mut addresses = Addresses::default();
    for text in texts {
        match text.parse() {
            Ok(IpAddr::V4(address)) => addresses.v4.push(address),
            Ok(IpAddr::V6(address)) => addresses.v6.push(address),
            Err(_) => tracing::debug!(address = %text, "the name table has an address that is none"),
        }
    }
    addresses
}

#[cfg(test)]
pub(super) mod tests {
    use mesh_proto::nds::name_table::NameInfo;

    use super::*;

    pub fn example() -> Table {
        let info = |ips: &[&str], alt: &[&str]| NameInfo {
            ips: ips.iter().map(ToString::to_string).collect(),
            alt_hosts: alt.iter().map(ToString::to_string).collect(),
            ..NameInfo::default()
        };
        let table = [
            (
                "reviews.default.svc.cluster.local",
                info(
                    &["10.96.0.5"],
                    &["reviews", "reviews.default", "reviews.default.svc"],
                ),
            ),
            (
                "dual.default.svc.cluster.local",
                info(&["10.96.0.6", "fd00::6"], &[]),
            ),
            ("*.wild.example.com", info(&["240.240.0.1"], &[])),
            ("httpbin.org", info(&["240.240.0.2"], &[])),
            ("empty.example.com", info(&[], &[])),
        ];
        let table = table
            .into_iter()
            .map(|(name, info)| (name.to_owned(), info))
            .collect();
        let search = [
            "default.svc.cluster.local".to_owned(),
            "svc.cluster.local".to_owned(),
        ];
        Table::build(&NameTable { table }, &search)
    }

    #[test]
    fn finds() {
        let table = example();
        for (name, expect) in [
            (
                "reviews.default.svc.cluster.local",
                Some((Some("10.96.0.5"), None)),
            ),
            ("reviews", Some((Some("10.96.0.5"), None))),
            ("a.wild.example.com", Some((Some("240.240.0.1"), None))),
            ("a.b.wild.example.com", Some((Some("240.240.0.1"), None))),
            ("wild.example.com", None),
            (
                "httpbin.org.default.svc.cluster.local",
                Some((Some("240.240.0.2"), Some("httpbin.org"))),
            ),
            ("httpbin.orgdefault.svc.cluster.local", None),
            ("empty.example.com", None),
            ("nowhere.example", None),
        ] {
            let found = table
                .find(name)
                .map(|f| (f.addresses.v4.first().map(ToString::to_string), f.alias_of));
            let expect = expect.map(|(address, alias)| (address.map(str::to_owned), alias));
            assert_eq!(found, expect, "{name}");
        }
    }
}
