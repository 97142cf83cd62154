//! What citadel takes from its platform: who checks tokens, where the authority is kept, how its roots are published.
//! A folder and a file of keys on one machine; the API server on Kubernetes.

use std::{sync::Arc, time::Duration, time::SystemTime};

use anyhow::Context;
use mesh_runtime::{
    apiserver,
    drain::Drain,
    leader::{self, Leadership},
    ready::{Gate, Gates},
};

use crate::{
    authenticate::{Tokens, claims::Expected, jwks::JwksFile, jwt::Jwt, kube::Kube},
    authority::{
        Authority,
        secrets::{Keeper, Lives},
        self_signed,
    },
    metrics::Metrics,
    publish,
    rotate::Times,
    settings::Settings,
    store::{file::Files, secret::Secrets},
};

/// The Lease of the replica that publishes and rotates.
const LEASE: &str = "citadel-leader";

pub struct Platform {
    pub authority: Arc<Authority>,
    pub tokens: Tokens,
    /// Among replicas; to be waited for before the process ends.
    pub election: Option<Leadership>,
}

/// Starts everything that goes on beside the service. None: drained before there was an authority.
pub async fn start(
    settings: &Settings,
    gates: &Gates,
    metrics: &Metrics,
    drain: &Drain,
) -> anyhow::Result<Option<Platform>> {
    let platform = if settings.kube {
        kubernetes(settings, gates, metrics, drain).await?
    } else {
        Some(folder(settings, gates, drain)?)
    };
    if let (Some(platform), Some(path)) = (&platform, settings.publish_root.clone()) {
        let published = gates.gate("published root");
        tokio::spawn(publish::file::run(
            path,
            platform.authority.clone(),
            published,
            drain.clone(),
        ));
    }
    Ok(platform)
}

fn folder(settings: &Settings, gates: &Gates, drain: &Drain) -> anyhow::Result<Platform> {
    let jwks = settings
        .jwks_file
        .as_ref()
        .context("--jwks-file is needed without --kube")?;
    let expected = Expected {
        issuer: settings.jwt_issuer.clone(),
        audience: settings.jwt_audience.clone(),
    };
    let jwt = Arc::new(Jwt::new(JwksFile::new(jwks), expected));
    tokio::spawn(wait_for_keys(
        jwt.clone(),
        gates.gate("issuer keys"),
        drain.clone(),
    ));
    let store = Files::open(&settings.state_dir)?;
    let authority = self_signed::open(&store, &settings.trust_domain, SystemTime::now())?;
    Ok(Platform {
        authority: Arc::new(authority),
        tokens: Tokens::Jwt(jwt),
        election: None,
    })
}

async fn kubernetes(
    settings: &Settings,
    gates: &Gates,
    metrics: &Metrics,
    drain: &Drain,
) -> anyhow::Result<Option<Platform>> {
    let opened = gates.gate("certificate authority");
    let client = apiserver::client(settings.kubeconfig.as_deref()).await?;
    let secrets = Secrets::new(client.clone(), &settings.namespace);
    let lives = Lives {
        trust_domain: settings.trust_domain.clone(),
        root: settings.root_ttl,
        times: Times {
            before: settings.root_rotate_before.min(settings.root_ttl / 2),
            announce: settings.root_announce,
            retire: settings.max_ttl,
        },
    };
    let mut keeper = Keeper::new(secrets, lives);
    let known = publish::config_map::published(&client, &settings.namespace).await;
    let Some(authority) = keeper.open(&known, drain).await else {
        return Ok(None);
    };
    opened.open();
    let lease = leader::Settings::new(&settings.namespace, LEASE);
    let leadership = leader::elect(client.clone(), lease, drain.clone());
    tokio::spawn(keeper.follow(authority.clone(), leadership.clone(), drain.clone()));
    tokio::spawn(publish::config_map::run(
        client.clone(),
        authority.clone(),
        leadership.clone(),
        metrics.clone(),
        drain.clone(),
    ));
    let tokens = Tokens::Kube(Arc::new(Kube::new(client, settings.jwt_audience.clone())));
    Ok(Some(Platform {
        authority,
        tokens,
        election: Some(leadership),
    }))
}

/// Ready only when tokens can be checked: before, every workload would be refused.
async fn wait_for_keys(jwt: Arc<Jwt>, gate: Gate, drain: Drain) {
    let mut said = false;
    loop {
        match jwt.check() {
            Ok(()) => return gate.open(),
            Err(error) if !said => {
                said = true;
                tracing::warn!(%error, "waiting for the keys of the token issuer");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
            () = drain.drained() => return,
        }
    }
}
