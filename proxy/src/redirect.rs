//! Redirection: netfilter rules in a pod's network namespace that lead the application's traffic through the proxy.
//!
//! [`plan`] is pure: settings in, an nftables ruleset out, printable with `--dry-run`. [`apply`] hands it to `nft` as one
//! transaction: either all of it is in force or nothing changed. The rules live in a table of their own, `inet
//! gossamer`, replaced as a whole; nothing else in the namespace is touched, and `--clean` removes the table.
//!
//! The command line is that of Istio's `istio-iptables`, so an injection template that calls it keeps its arguments.

pub mod apply;
pub mod plan;

#[cfg(test)]
mod tests;

use std::{net::IpAddr, path::PathBuf, process::ExitCode, str::FromStr};

use clap::Args;
use ipnet::IpNet;
use mesh_proto::names;

pub use apply::{ApplyError, apply, clean};
pub use plan::{Ranges, Selection, Settings, plan};

/// `mesh-proxy redirect`
#[derive(Args, Clone, Debug)]
pub struct RedirectArgs {
    /// Port of the proxy that outbound connections are led to.
    #[arg(short = 'p', long = "envoy-port", default_value_t = names::port::OUTBOUND)]
    pub outbound_port: u16,
    /// Port of the proxy that inbound connections are led to.
    #[arg(short = 'z', long = "inbound-capture-port", default_value_t = names::port::INBOUND)]
    pub inbound_port: u16,
    /// Port of the tunnel (HBONE), never redirected.
    #[arg(short = 'e', long = "inbound-tunnel-port", default_value_t = names::port::HBONE)]
    pub tunnel_port: u16,
    /// Users whose traffic is never redirected: the proxy's own. Comma-separated.
    #[arg(
        short = 'u',
        long = "proxy-uid",
        value_delimiter = ',',
        default_value = "1337"
    )]
    pub uids: Vec<u32>,
    /// Groups whose traffic is never redirected. Comma-separated.
    #[arg(
        short = 'g',
        long = "proxy-gid",
        value_delimiter = ',',
        default_value = "1337"
    )]
    pub gids: Vec<u32>,
    /// How inbound connections are led to the proxy; only REDIRECT is supported.
    #[arg(
        short = 'm',
        long = "istio-inbound-interception-mode",
        default_value = "REDIRECT"
    )]
    pub mode: String,
    /// Inbound ports to redirect: "*" for all, or a comma-separated list; empty for none.
    #[arg(short = 'b', long = "istio-inbound-ports", default_value = "*")]
    pub inbound_ports: String,
    /// Inbound ports left alone. Comma-separated.
    #[arg(
        short = 'd',
        long = "istio-local-exclude-ports",
        default_value = "15090,15021,15020"
    )]
    pub exclude_inbound_ports: String,
    /// Outbound ranges to redirect: "*" for all, or comma-separated CIDRs; empty for none.
    #[arg(short = 'i', long = "istio-service-cidr", default_value = "*")]
    pub outbound_ranges: String,
    /// Outbound ranges left alone. Comma-separated CIDRs.
    #[arg(short = 'x', long = "istio-service-exclude-cidr", default_value = "")]
    pub exclude_outbound_ranges: String,
    /// Outbound ports to redirect whatever their address. Comma-separated.
    #[arg(short = 'q', long = "istio-outbound-ports", default_value = "")]
    pub outbound_ports: String,
    /// Outbound ports left alone. Comma-separated.
    #[arg(short = 'o', long = "istio-local-outbound-ports-exclude", default_value = "")]
    pub exclude_outbound_ports: String,
    /// Interfaces whose traffic is left alone. Comma-separated.
    #[arg(short = 'c', long = "istio-exclude-interfaces", default_value = "")]
    pub exclude_interfaces: String,
    /// Lead the application's DNS queries to the proxy.
    #[arg(long)]
    pub redirect_dns: bool,
    /// Lead all DNS queries to the proxy, not only those to the pod's own resolvers.
    #[arg(long)]
    pub capture_all_dns: bool,
    /// Port of the proxy's DNS server.
    #[arg(long, default_value_t = names::port::DNS)]
    pub dns_port: u16,
    /// Where the pod's own resolvers are listed.
    #[arg(long, default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
    /// Print the rules, change nothing.
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Remove the rules.
    #[arg(long)]
    pub clean: bool,
}

/// What is wrong with the arguments.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    #[error("{flag}: {item:?} is not {what}")]
    Item {
        flag: &'static str,
        item: String,
        what: &'static str,
    },
    #[error(
        "interception mode {0:?} is not supported: use REDIRECT (TPROXY would need the capability NET_ADMIN in the proxy)"
    )]
    Mode(String),
    #[error(
        "{path} names no resolver, so there is no DNS to redirect: use --capture-all-dns to redirect every query"
    )]
    NoResolver { path: String },
}

/// Does what the arguments say; with `--dry-run` it prints the rules.
pub fn run(args: &RedirectArgs) -> anyhow::Result<ExitCode> {
    let ruleset = if args.clean {
        plan::removal()
    } else {
        plan(&args.settings(|| std::fs::read_to_string(&args.resolv_conf).unwrap_or_default())?)
    };
    if args.dry_run {
        print!("{ruleset}");
    } else {
        apply(&ruleset)?;
    }
    Ok(ExitCode::SUCCESS)
}

impl RedirectArgs {
    /// Checks the arguments. `resolv_conf` is the text of the file of that name; it is asked for only when needed.
    pub fn settings(&self, resolv_conf: impl FnOnce() -> String) -> Result<Settings, ArgsError> {
        if self.mode != "REDIRECT" {
            return Err(ArgsError::Mode(self.mode.clone()));
        }
        let dns = match (self.redirect_dns || self.capture_all_dns, self.capture_all_dns) {
            (false, _) => None,
            (true, true) => Some(Vec::new()),
            (true, false) => {
                let resolvers = crate::dns::resolv_conf::parse(&resolv_conf()).servers;
                if resolvers.is_empty() {
                    return Err(ArgsError::NoResolver {
                        path: self.resolv_conf.display().to_string(),
                    });
                }
                Some(resolvers)
            }
        };
        Ok(Settings {
            outbound_port: self.outbound_port,
            inbound_port: self.inbound_port,
            tunnel_port: self.tunnel_port,
            uids: self.uids.clone(),
            gids: self.gids.clone(),
            inbound_ports: match self.inbound_ports.trim() {
                "*" => Selection::All,
                text => Selection::Only(list("-b", text, PORT)?),
            },
            exclude_inbound_ports: list("-d", &self.exclude_inbound_ports, PORT)?,
            outbound_ranges: match self.outbound_ranges.trim() {
                "*" => Ranges::All,
                text => Ranges::Only(ranges("-i", text)?),
            },
            exclude_outbound_ranges: ranges("-x", &self.exclude_outbound_ranges)?,
            outbound_ports: list("-q", &self.outbound_ports, PORT)?,
            exclude_outbound_ports: list("-o", &self.exclude_outbound_ports, PORT)?,
            exclude_interfaces: interfaces(&self.exclude_interfaces)?,
            dns,
            dns_port: self.dns_port,
        })
    }
}

const PORT: &str = "a port number";

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn list<T: FromStr>(flag: &'static str, text: &str, what: &'static str) -> Result<Vec<T>, ArgsError> {
    let parse = |item: &str| {
        item.parse().map_err(|_| ArgsError::Item {
            flag,
            item: item.to_owned(),
            what,
        })
    };
    items(text).map(parse).collect()
}

/// CIDRs; a bare address counts as itself alone, and host bits are cut off.
fn ranges(flag: &'static str, text: &str) -> Result<Vec<IpNet>, ArgsError> {
    let parse = |item: &str| {
        let net = item
            .parse::<IpNet>()
            .or_else(|_| item.parse::<IpAddr>().map(IpNet::from));
        net.map(|net| net.trunc()).map_err(|_| ArgsError::Item {
            flag,
            item: item.to_owned(),
            what: "an address range such as 10.0.0.0/8",
        })
    };
    items(text).map(parse).collect()
}

/// Names go into the ruleset's text, so only what the kernel and nft both take plainly is accepted.
fn interfaces(text: &str) -> Result<Vec<String>, ArgsError> {
    let check = |item: &str| {
        let plain = item.len() <= 15
            && item
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if plain {
            Ok(item.to_owned())
        } else {
            Err(ArgsError::Item {
                flag: "-c",
                item: item.to_owned(),
                what: "an interface's name",
            })
        }
    };
    items(text).map(check).collect()
}
