//! The agent against a small authority in this process, over real TLS.

use std::{
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use mesh_proto::ca::{
    IstioCertificateResponse,
    istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::net::TcpListener;
use tonic::{Response, Status as Refusal, transport::Server};

use super::*;
use crate::tls::{ClientAuth, Identity};

const NAME: &str = "spiffe://cluster.local/ns/default/sa/reviews";

struct Authority {
    root: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
    life: Duration,
    away: AtomicBool,
    tokens: AtomicUsize,
    certificates: AtomicUsize,
}

impl Authority {
    fn new(life: Duration) -> Arc<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        let (away, tokens, certificates) = Default::default();
        Arc::new(Self {
            root,
            issuer: Issuer::new(params, key),
            life,
            away,
            tokens,
            certificates,
        })
    }

    fn params(&self, name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.not_before = (SystemTime::now() - Duration::from_secs(5)).into();
        params.not_after = (SystemTime::now() + self.life).into();
        params
    }

    async fn serve(self: &Arc<Self>, name: &str) -> SocketAddr {
        let key = KeyPair::generate().unwrap();
        let leaf = self.params(name).signed_by(&key, &self.issuer).unwrap();
        let cell = IdentityCell::new();
        let der = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let roots = vec![self.root.der().clone()];
        cell.set(Identity::new(vec![leaf.der().clone()], der, roots).unwrap())
            .unwrap();
        let config = tls::server_config(&cell, ClientAuth::Optional, PeerNames::Any, &["h2"]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = grpc::incoming(listener, Arc::new(config), Duration::from_secs(5), 8);
        let service = IstioCertificateServiceServer::new(Shared(self.clone()));
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(stream));
        address
    }
}

struct Shared(Arc<Authority>);

#[tonic::async_trait]
impl IstioCertificateService for Shared {
    async fn create_certificate(
        &self,
        request: tonic::Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Refusal> {
        let this = &self.0;
        if this.away.load(Ordering::SeqCst) {
            return Err(Refusal::unavailable("away"));
        }
        let uris = grpc::peer(&request).unwrap().uris.clone();
        match request
            .metadata()
            .get("authorization")
            .map(|v| v.to_str().unwrap())
        {
            Some("Bearer good") => this.tokens.fetch_add(1, Ordering::SeqCst),
            Some(_) => return Err(Refusal::unauthenticated("token is not good")),
            None if uris == [NAME] => this.certificates.fetch_add(1, Ordering::SeqCst),
            None => return Err(Refusal::unauthenticated("no token, no certificate")),
        };
        let mut csr = CertificateSigningRequestParams::from_pem(&request.into_inner().csr).unwrap();
        csr.params = this.params(NAME);
        let leaf = csr.signed_by(&this.issuer).unwrap();
        Ok(Response::new(IstioCertificateResponse {
            cert_chain: vec![leaf.pem(), this.root.pem()],
        }))
    }
}

fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("mesh-identity-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn settings(address: SocketAddr, dir: &Path, authority: &Authority) -> Settings {
    std::fs::write(dir.join("root.pem"), authority.root.pem()).unwrap();
    std::fs::write(dir.join("token"), "good\n").unwrap();
    let mut settings = Settings::new(address.to_string(), dir.join("root.pem"), TrustDomain::default());
    settings.token_file = Some(dir.join("token"));
    settings
}

const CITADEL: &str = "spiffe://cluster.local/ns/istio-system/sa/citadel";

#[tokio::test]
async fn obtains_by_token_then_by_certificate() {
    let (authority, dir) = (Authority::new(Duration::from_secs(600)), scratch("obtain"));
    let agent = Agent::new(settings(authority.serve(CITADEL).await, &dir, &authority));
    let cell = IdentityCell::new();
    agent.renew(&cell).await.unwrap();
    let first = cell.get().unwrap();
    assert_eq!(first.uris(), [NAME]);
    assert_eq!(first.roots, [authority.root.der().clone()]);

    std::fs::remove_file(dir.join("token")).unwrap();
    agent.renew(&cell).await.unwrap();
    assert_ne!(cell.get().unwrap().serial, first.serial);
    let counts = (
        authority.tokens.load(Ordering::SeqCst),
        authority.certificates.load(Ordering::SeqCst),
    );
    assert_eq!(counts, (1, 1));
    assert_eq!(agent.status().issued, 2);
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn refusals_say_why() {
    let (authority, dir) = (Authority::new(Duration::from_secs(600)), scratch("refuse"));
    let good = settings(authority.serve(CITADEL).await, &dir, &authority);
    std::fs::write(dir.join("bad"), "forged").unwrap();
    std::fs::write(dir.join("empty"), " \n").unwrap();
    std::fs::write(
        dir.join("other-root.pem"),
        Authority::new(Duration::ZERO).root.pem(),
    )
    .unwrap();
    let impostor = authority.serve(NAME).await.to_string();
    let cell = IdentityCell::new();
    for (change, expect) in [
        (
            (|s, d| s.token_file = Some(d.join("bad"))) as fn(&mut Settings, &Path),
            "Unauthenticated: token is not good",
        ),
        (
            |s, d| s.token_file = Some(d.join("empty")),
            "holds no usable token",
        ),
        (|s, d| s.token_file = Some(d.join("missing")), "token file"),
        (|s, _| s.token_file = None, "no token file is set"),
        (|s, d| s.root_file = d.join("missing"), "root file"),
        (
            |s, d| s.root_file = d.join("other-root.pem"),
            "invalid peer certificate",
        ),
        (|s, d| s.root_file = d.join("token"), "no CERTIFICATE block"),
        (|s, _| s.ca_address = "127.0.0.1:1".into(), "refused"),
        (
            |s, _| s.trust_domain = TrustDomain::new("other.mesh").unwrap(),
            "trust domain other.mesh",
        ),
    ] {
        let mut settings = good.clone();
        change(&mut settings, &dir);
        let error = Agent::new(settings).renew(&cell).await.unwrap_err().to_string();
        assert!(error.contains(expect), "{error:?} lacks {expect:?}");
    }
    let settings = Settings {
        ca_address: impostor,
        ..good
    };
    let error = Agent::new(settings).renew(&cell).await.unwrap_err().to_string();
    assert!(error.contains(NAME) && error.contains(CITADEL), "{error}");
    assert!(cell.get().is_none());
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn rotates_and_survives_an_absent_authority() {
    let (authority, dir) = (Authority::new(Duration::from_secs(3)), scratch("rotate"));
    let agent = Agent::new(settings(authority.serve(CITADEL).await, &dir, &authority));
    let (cell, (trigger, drain)) = (IdentityCell::new(), crate::drain::channel());
    let mut changes = cell.subscribe();
    let task = tokio::spawn({
        let (agent, cell) = (agent.clone(), cell.clone());
        async move { agent.run(cell, drain).await }
    });
    let first = cell.ready().await.serial.clone();
    changes
        .wait_for(|identity| identity.as_ref().is_some_and(|i| i.serial != first))
        .await
        .unwrap();

    authority.away.store(true, Ordering::SeqCst);
    while agent.status().failed == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let kept = cell.get().unwrap();
    assert!(
        kept.is_valid_at(SystemTime::now()),
        "a failed renewal evicts nothing"
    );
    assert!(agent.status().last_error.unwrap().1.contains("away"));

    authority.away.store(false, Ordering::SeqCst);
    changes
        .wait_for(|identity| identity.as_ref().is_some_and(|i| i.serial != kept.serial))
        .await
        .unwrap();
    trigger.drain();
    task.await.unwrap();
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn follows_the_root_file() {
    let (authority, dir) = (Authority::new(Duration::from_secs(600)), scratch("roots"));
    let agent = Agent::new(settings(authority.serve(CITADEL).await, &dir, &authority));
    let (cell, (trigger, drain)) = (IdentityCell::new(), crate::drain::channel());
    let task = tokio::spawn({
        let (agent, cell) = (agent.clone(), cell.clone());
        async move { agent.run(cell, drain).await }
    });
    assert_eq!(cell.ready().await.roots.len(), 1);
    let more = format!(
        "{}{}",
        authority.root.pem(),
        Authority::new(Duration::ZERO).root.pem()
    );
    std::fs::write(dir.join("root.pem"), more).unwrap();
    let mut changes = cell.subscribe();
    let changed = changes.wait_for(|identity| identity.as_ref().is_some_and(|i| i.roots.len() == 2));
    tokio::time::timeout(Duration::from_secs(10), changed)
        .await
        .unwrap()
        .unwrap();
    trigger.drain();
    task.await.unwrap();
    std::fs::remove_dir_all(dir).unwrap();
}
