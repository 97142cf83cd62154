//! Envoy's bootstrap file, YAML or JSON: who this proxy is, where its admin pages are, its static resources, and the
//! control plane if it has one. Pure: text in, values out. What the file asks for and this proxy does not know is
//! refused by the path of the field, as `static_resources.listeners[0].filter_chains[0]…`.
//!
//! See <https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/bootstrap/v3/bootstrap.proto>.

use std::{collections::HashMap, mem::take, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use mesh_proto::{
    envoy::config::{bootstrap::v3 as pb, core::v3 as core},
    envoy_json,
};
use prost::Message;

use crate::{
    config::{
        Reject,
        cluster::Cluster,
        listener::Listener,
        read::{self, At, Result, done, each, refuse},
        secret::Secret,
    },
    snapshot::{Snapshot, Table, check},
};

#[cfg(test)]
mod tests;

/// What the file says.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    pub node: core::Node,
    pub admin: Option<SocketAddr>,
    pub listeners: Vec<Arc<Listener>>,
    pub clusters: Vec<Arc<Cluster>>,
    pub secrets: Vec<Arc<Secret>>,
    pub dynamic: Option<Dynamic>,
    /// The whole, encoded, for the admin pages.
    pub message: Bytes,
}

/// Where the rest of the configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dynamic {
    /// The cluster of the control plane, one of the static ones.
    pub cluster: Arc<str>,
    pub delta: bool,
    pub listeners: bool,
    pub clusters: bool,
}

impl Bootstrap {
    /// The static resources as a snapshot.
    pub fn snapshot(&self) -> Snapshot {
        fn table<T>(list: &[Arc<T>], name: impl Fn(&T) -> &Arc<str>) -> Table<T> {
            list.iter().map(|one| (name(one).clone(), one.clone())).collect()
        }
        Snapshot::new(
            table(&self.listeners, |listener| &listener.name),
            table(&self.clusters, |cluster| &cluster.name),
            Table::new(),
            table(&self.secrets, |secret| &secret.name),
        )
    }
}

/// Reads a bootstrap file's text.
pub fn read(text: &str) -> Result<Bootstrap> {
    let message: pb::Bootstrap = envoy_json::from_text(text).map_err(|error| Reject {
        path: error.path,
        why: error.why,
    })?;
    from_message(message)
}

/// Reads a bootstrap message.
pub fn from_message(mut value: pb::Bootstrap) -> Result<Bootstrap> {
    let message = Bytes::from(value.encode_to_vec());
    let mut statics = take(&mut value.static_resources).unwrap_or_default();
    let at = "static_resources";
    let bootstrap = Bootstrap {
        node: take(&mut value.node).unwrap_or_default(),
        admin: take(&mut value.admin)
            .map(admin)
            .transpose()
            .at("admin")?
            .flatten(),
        clusters: each(take(&mut statics.clusters), "clusters", |one| {
            read::cluster(one).map(Arc::new)
        })
        .at(at)?,
        listeners: each(take(&mut statics.listeners), "listeners", |one| {
            read::listener(one).map(Arc::new)
        })
        .at(at)?,
        secrets: each(take(&mut statics.secrets), "secrets", |one| {
            read::secret(one).map(Arc::new)
        })
        .at(at)?,
        dynamic: take(&mut value.dynamic_resources)
            .map(dynamic)
            .transpose()
            .at("dynamic_resources")?
            .flatten(),
        message,
    };
    unique(bootstrap.clusters.iter().map(|cluster| &cluster.name), "clusters")?;
    unique(
        bootstrap.listeners.iter().map(|listener| &listener.name),
        "listeners",
    )?;
    let snapshot = bootstrap.snapshot();
    match &bootstrap.dynamic {
        None => check::complete(&snapshot)?,
        Some(dynamic) if !snapshot.clusters.contains_key(&dynamic.cluster) => {
            return refuse(format!("there is no static cluster {:?}", dynamic.cluster))
                .at("dynamic_resources.ads_config.grpc_services");
        }
        Some(_) => {}
    }
    drop_hints(&mut value);
    done(&value)?;
    Ok(bootstrap)
}

/// What says how Envoy's own process is to be run: watchdogs, its flags at run time (there is no runtime layer here),
/// how it keeps and names its statistics, which regex engine it uses (there is one here).
#[allow(deprecated)]
fn drop_hints(value: &mut pb::Bootstrap) {
    value.watchdog = None;
    value.watchdogs = None;
    value.layered_runtime = None;
    value.flags_path.clear();
    value.stats_config = None;
    value.stats_flush_interval = None;
    value.stats_flush = None;
    value.stats_eviction = None;
    value.deferred_stat_options = None;
    value.stats_server_version_override = None;
    value.enable_dispatcher_stats = false;
    value.node_context_params.clear();
    value.use_tcp_for_dns_lookups = false;
    value.dns_resolution_config = None;
    value.typed_dns_resolver_config = None;
    value.default_regex_engine = None;
    value.memory_allocator_manager = None;
    value.grpc_async_client_manager_config = None;
    value.application_log_config = None;
}

fn unique<'a>(names: impl Iterator<Item = &'a Arc<str>>, list: &str) -> Result<()> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (n, name) in names.enumerate() {
        if let Some(first) = seen.insert(name, n) {
            return refuse(format!("{name:?} is also the name of {list}[{first}]"))
                .nth(list, n)
                .at("static_resources");
        }
    }
    Ok(())
}

#[allow(deprecated)]
fn admin(mut value: pb::Admin) -> Result<Option<SocketAddr>> {
    let address = take(&mut value.address)
        .map(read::listen_address)
        .transpose()
        .at("address")?;
    // Where requests for admin pages are logged, and where profiles would go.
    value.access_log.clear();
    value.access_log_path.clear();
    value.profile_path.clear();
    value.ignore_global_conn_limit = false;
    done(&value)?;
    Ok(address)
}

fn dynamic(mut value: pb::bootstrap::DynamicResources) -> Result<Option<Dynamic>> {
    use core::api_config_source::ApiType;
    let listeners = by_ads(take(&mut value.lds_config)).at("lds_config")?;
    let clusters = by_ads(take(&mut value.cds_config)).at("cds_config")?;
    let Some(ads) = take(&mut value.ads_config) else {
        if listeners || clusters {
            return refuse("is missing, but others refer to it").at("ads_config");
        }
        done(&value)?;
        return Ok(None);
    };
    let delta = match ApiType::try_from(ads.api_type) {
        Ok(ApiType::Grpc) => false,
        Ok(ApiType::DeltaGrpc) => true,
        _ => return refuse("must be GRPC or DELTA_GRPC").at("ads_config.api_type"),
    };
    let cluster = read::grpc_cluster(ads.grpc_services).at("ads_config.grpc_services")?;
    done(&value)?;
    Ok(Some(Dynamic {
        cluster,
        delta,
        listeners,
        clusters,
    }))
}

fn by_ads(source: Option<core::ConfigSource>) -> Result<bool> {
    use core::config_source::ConfigSourceSpecifier as Specifier;
    let Some(source) = source else { return Ok(false) };
    match source.config_source_specifier {
        Some(Specifier::Ads(_)) => Ok(true),
        Some(Specifier::ApiConfigSource(_)) => {
            refuse("only ads is supported by this proxy").at("api_config_source")
        }
        _ => refuse("only ads is supported by this proxy"),
    }
}
