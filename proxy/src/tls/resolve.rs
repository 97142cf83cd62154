//! Keeps the rustls configurations of one worker. An entry lives as long as the settings it was built from are used; the
//! next handshake after a change of a secret or a certificate file builds it anew.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{Arc, Weak},
    time::SystemTime,
};

use mesh_runtime::tls::IdentityCell;
use rustls::{ClientConfig, ServerConfig};

use super::{
    SetupError,
    client::{self, Purpose},
    material::{Material, Secrets, changed, modified},
    server,
};
use crate::config::{
    secret::Secret,
    transport::{DownstreamTls, SecretRef, UpstreamTls, Validation},
};

/// What an entry was built from.
#[derive(PartialEq)]
struct Stamp(Vec<(Option<usize>, Option<SystemTime>)>);

struct Entry<S, C> {
    settings: Weak<S>,
    stamp: Stamp,
    config: Arc<C>,
}

/// The configurations of one worker, by the address of their settings.
#[derive(Default)]
pub struct Resolver {
    servers: RefCell<HashMap<usize, Entry<DownstreamTls, ServerConfig>>>,
    clients: RefCell<HashMap<(usize, Purpose), Entry<UpstreamTls, ClientConfig>>>,
}

impl Resolver {
    /// The server side of a filter chain.
    pub fn server(
        &self,
        tls: &Arc<DownstreamTls>,
        secrets: &Secrets,
        own: &IdentityCell,
    ) -> Result<Arc<ServerConfig>, SetupError> {
        let stamp = stamp(&tls.certificates, tls.validation.as_ref(), secrets);
        let key = Arc::as_ptr(tls) as usize;
        let mut servers = self.servers.borrow_mut();
        if let Some(entry) = servers.get(&key)
            && entry.stamp == stamp
            && entry.settings.ptr_eq(&Arc::downgrade(tls))
        {
            return Ok(entry.config.clone());
        }
        servers.retain(|_, entry| entry.settings.strong_count() > 0);
        let config = server::build(tls, &Material { own, secrets })?;
        servers.insert(
            key,
            Entry {
                settings: Arc::downgrade(tls),
                stamp,
                config: config.clone(),
            },
        );
        Ok(config)
    }

    /// The client side of a cluster.
    pub fn client(
        &self,
        tls: &Arc<UpstreamTls>,
        purpose: Purpose,
        secrets: &Secrets,
        own: &IdentityCell,
    ) -> Result<Arc<ClientConfig>, SetupError> {
        let stamp = stamp(&tls.certificates, tls.validation.as_ref(), secrets);
        let key = (Arc::as_ptr(tls) as usize, purpose);
        let mut clients = self.clients.borrow_mut();
        if let Some(entry) = clients.get(&key)
            && entry.stamp == stamp
            && entry.settings.ptr_eq(&Arc::downgrade(tls))
        {
            return Ok(entry.config.clone());
        }
        clients.retain(|_, entry| entry.settings.strong_count() > 0);
        let config = client::build(tls, &Material { own, secrets }, purpose)?;
        clients.insert(
            key,
            Entry {
                settings: Arc::downgrade(tls),
                stamp,
                config: config.clone(),
            },
        );
        Ok(config)
    }
}

/// Identifies the certificates behind some settings, without reading them.
fn stamp(certificates: &[SecretRef], validation: Option<&Validation>, secrets: &Secrets) -> Stamp {
    let roots = validation.and_then(|validation| validation.trusted.as_ref());
    let revoked = validation.and_then(|validation| validation.revoked.as_ref());
    let pointer = |secret: &Arc<Secret>| Arc::as_ptr(secret) as usize;
    Stamp(
        certificates
            .iter()
            .chain(roots)
            .map(|reference| {
                let secret = reference.name().and_then(|name| secrets.get(name)).map(pointer);
                (secret, modified(reference))
            })
            .chain(revoked.map(|source| (None, changed(source))))
            .collect(),
    )
}
