//! A pod's port through the API server: the port-forward that kubectl uses, one WebSocket for each connection. The kubelet
//! connects to the pod's own loopback, which is why pages that answer only there can be read. Bound: 15 s until it stands.

use std::{future, time::Duration};

use anyhow::{Context as _, anyhow};
use k8s_openapi::api::core::v1;
use kube::{Api, Client};

use super::Link;
use crate::kube_cluster::explain;

const TIMEOUT: Duration = Duration::from_secs(15);

/// A pod of a cluster.
#[derive(Clone)]
pub struct Pod {
    client: Client,
    namespace: String,
    name: String,
}

impl Pod {
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    pub async fn connect(&self, port: u16) -> anyhow::Result<Link> {
        let api: Api<v1::Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let doing = format!(
            "forwarding to port {port} of pod {}/{}",
            self.namespace, self.name
        );
        let ports = [port];
        let asked = tokio::time::timeout(TIMEOUT, api.portforward(&self.name, &ports));
        let mut forwarder = asked
            .await
            .with_context(|| {
                format!(
                    "{doing}: the API server does not answer within {} s",
                    TIMEOUT.as_secs()
                )
            })?
            .map_err(|error| explain(&error, &doing))?;
        let stream = forwarder
            .take_stream(port)
            .ok_or_else(|| anyhow!("{doing}: the API server opened no stream"))?;
        let trouble = forwarder.take_error(port);
        Ok(Link {
            stream: Box::new(stream),
            trouble: match trouble {
                Some(trouble) => Box::pin(trouble),
                None => Box::pin(future::ready(None)),
            },
        })
    }
}
