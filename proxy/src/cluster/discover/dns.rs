//! Looks up the names of clusters of type STRICT_DNS and LOGICAL_DNS, now and at each refresh interval, and fills the
//! clusters' endpoint cells. A failed look-up keeps the last answer. One task per cluster; it ends with the cluster.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mesh_runtime::drain::Drain;
use tokio::task::JoinHandle;

use crate::{
    balance::Set,
    config::{
        cluster::{Cluster, Dns, Family, Kind},
        scalar::Address,
    },
    store::Store,
};

/// A look-up that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Between look-ups that fail.
const RETRY: Duration = Duration::from_millis(500);

/// Follows the configuration until the process drains.
pub async fn follow(store: Store, drain: Drain) {
    let mut changes = store.changes();
    let mut tasks: HashMap<Arc<str>, (Arc<Cluster>, JoinHandle<()>)> = HashMap::new();
    loop {
        let snapshot = store.snapshot();
        tasks.retain(|name, (cluster, task)| {
            let keep = snapshot
                .clusters
                .get(name)
                .is_some_and(|now| Arc::ptr_eq(now, cluster));
            if !keep {
                task.abort();
            }
            keep
        });
        for (name, cluster) in &snapshot.clusters {
            let (Kind::StrictDns(dns) | Kind::LogicalDns(dns)) = &cluster.kind else {
                continue;
            };
            if !tasks.contains_key(name) {
                let task = tokio::spawn(look_up(store.clone(), cluster.clone(), *dns));
                tasks.insert(name.clone(), (cluster.clone(), task));
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = drain.drained() => return,
        }
    }
}

async fn look_up(store: Store, cluster: Arc<Cluster>, dns: Dns) {
    let mut known: HashMap<Address, Vec<SocketAddr>> = HashMap::new();
    loop {
        let mut failed = false;
        for endpoint in cluster.assignment.endpoints() {
            let Address::Name { host, port } = &endpoint.address else {
                continue;
            };
            match resolve(host, *port, dns.family).await {
                Ok(addresses) => {
                    known.insert(endpoint.address.clone(), addresses);
                }
                Err(why) => {
                    tracing::warn!(cluster = %cluster.name, %host, %why, "cannot look up an endpoint's name");
                    failed = true;
                }
            }
        }
        let first_only = matches!(cluster.kind, Kind::LogicalDns(_));
        let set = Set::build(&cluster, &cluster.assignment, |address| match address {
            Address::Socket(address) => vec![*address],
            Address::Name { .. } => {
                let mut found = known.get(address).cloned().unwrap_or_default();
                if first_only {
                    found.truncate(1);
                }
                found
            }
        });
        store.set_endpoints(&cluster, set);
        tokio::time::sleep(if failed { RETRY } else { dns.refresh }).await;
    }
}

/// The addresses of a name, those of the wanted family.
async fn resolve(host: &str, port: u16, family: Family) -> Result<Vec<SocketAddr>, String> {
    let found = match tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    };
    let mut all: Vec<SocketAddr> = found.collect();
    all.sort_unstable();
    all.dedup();
    let (v4, v6): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|address| matches!(address.ip(), IpAddr::V4(_)));
    let chosen = match family {
        Family::V4Only => v4,
        Family::V6Only => v6,
        Family::V4Preferred if !v4.is_empty() => v4,
        Family::V4Preferred => v6,
        Family::Auto if !v6.is_empty() => v6,
        Family::Auto => v4,
        Family::All => [v4, v6].concat(),
    };
    if chosen.is_empty() {
        Err("no address of the wanted family".into())
    } else {
        Ok(chosen)
    }
}
