//! gRPC channels of the control thread to clusters of the configuration: the access-log service, trace collectors.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use mesh_runtime::{grpc, tls::IdentityCell};
use tonic::transport::Channel;

use crate::{
    config::transport::UpstreamTls,
    observe::report::Connect,
    store::Store,
    tls::{
        client::{self, Purpose},
        material::Material,
    },
};

/// Opens channels, and keeps one per cluster as long as its endpoint stays.
pub struct Channels {
    store: Store,
    identity: IdentityCell,
    open: Mutex<HashMap<String, (SocketAddr, Channel)>>,
}

impl Channels {
    pub fn new(store: Store, identity: IdentityCell) -> Self {
        Self {
            store,
            identity,
            open: Mutex::default(),
        }
    }

    fn tls(&self, settings: &Arc<UpstreamTls>) -> Result<Arc<rustls::ClientConfig>, String> {
        let snapshot = self.store.snapshot();
        let material = Material {
            own: &self.identity,
            secrets: &snapshot.secrets,
        };
        let config = client::build(settings, &material, Purpose::Http2).map_err(|error| error.to_string())?;
        // gRPC is HTTP/2, whatever else the cluster would offer.
        let mut config = Arc::unwrap_or_clone(config);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

impl Connect for Channels {
    fn channel(&self, cluster: &str) -> Result<Channel, String> {
        let cell = self
            .store
            .endpoints(cluster)
            .ok_or_else(|| format!("there is no cluster {cluster}"))?;
        let snapshot = self.store.snapshot();
        if snapshot
            .clusters
            .get(cluster)
            .is_some_and(|known| known.proxy_protocol.is_some())
        {
            return Err(format!(
                "cluster {cluster} wants the PROXY protocol, which is for requests only"
            ));
        }
        let set = cell.load();
        let host = set
            .hosts
            .first()
            .ok_or_else(|| format!("cluster {cluster} has no endpoint"))?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((address, channel)) = open.get(cluster)
            && *address == host.address
        {
            return Ok(channel.clone());
        }
        let tls = host
            .transport
            .as_ref()
            .map(|settings| self.tls(settings))
            .transpose()?;
        let channel = grpc::connect(&host.address.to_string(), tls).map_err(|error| error.to_string())?;
        open.insert(cluster.to_owned(), (host.address, channel.clone()));
        Ok(channel)
    }
}
