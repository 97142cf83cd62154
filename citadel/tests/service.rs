//! The whole daemon in this process, called over real TLS: who gets a certificate, who is refused and how.

#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Parser;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use mesh_citadel::{app, settings::Settings, testing};
use mesh_proto::{
    ca::{IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient},
    identity::TrustDomain,
};
use mesh_runtime::{
    drain::{self, Trigger},
    grpc, identity,
    tls::{self, IdentityCell, Leaf, PeerNames},
};
use rcgen::{CertificateParams, KeyPair, SanType};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{Code, Request, Status};

const CITADEL: &str = "spiffe://cluster.local/ns/istio-system/sa/citadel";
const REVIEWS: &str = "spiffe://cluster.local/ns/default/sa/reviews";

struct Platform {
    key: KeyPair,
    dir: tempfile::TempDir,
    address: SocketAddr,
    admin: SocketAddr,
    trigger: Trigger,
    server: JoinHandle<anyhow::Result<()>>,
}

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

fn jwks(dir: &Path, key: &KeyPair) {
    let point = key.public_key_raw();
    let (x, y) = (
        URL_SAFE_NO_PAD.encode(&point[1..33]),
        URL_SAFE_NO_PAD.encode(&point[33..]),
    );
    let key = json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "k1", "x": x, "y": y});
    std::fs::write(dir.join("jwks.json"), json!({"keys": [key]}).to_string()).unwrap();
}

async fn platform(flags: &[&str]) -> Platform {
    let (key, dir) = (KeyPair::generate().unwrap(), tempfile::tempdir().unwrap());
    jwks(dir.path(), &key);
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (state, keys, root) = (path("state"), path("jwks.json"), path("root.pem"));
    let mut args = vec![
        "mesh-citadel",
        "--state-dir",
        &state,
        "--jwks-file",
        &keys,
        "--publish-root",
        &root,
    ];
    args.extend(flags);
    let settings = Settings::parse_from(args);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, admin) = (
        listener.local_addr().unwrap(),
        admin_listener.local_addr().unwrap(),
    );
    let (trigger, drain) = drain::channel();
    let server = tokio::spawn(app::serve(settings, listener, admin_listener, None, drain));
    while !dir.path().join("root.pem").exists() {
        assert!(!server.is_finished(), "citadel stopped");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Platform {
        key,
        dir,
        address,
        admin,
        trigger,
        server,
    }
}

impl Platform {
    fn token(&self, change: impl FnOnce(&mut Header, &mut Value)) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some("k1".into());
        let mut claims = json!({
            "iss": "https://kubernetes.default.svc.cluster.local", "aud": ["istio-ca"],
            "sub": "system:serviceaccount:default:reviews", "exp": now() + 600, "iat": now(), "nbf": now(),
            "kubernetes.io": {"namespace": "default", "serviceaccount": {"name": "reviews", "uid": "u"},
                "pod": {"name": "reviews-v1-0", "uid": "p"}},
        });
        change(&mut header, &mut claims);
        encode(
            &header,
            &claims,
            &EncodingKey::from_ec_der(&self.key.serialize_der()),
        )
        .unwrap()
    }

    fn bearer(&self, change: impl FnOnce(&mut Header, &mut Value)) -> String {
        format!("Bearer {}", self.token(change))
    }

    async fn call(
        &self,
        cell: Option<&IdentityCell>,
        token: Option<&str>,
        csr: &str,
        life: i64,
    ) -> Result<Vec<String>, Status> {
        let roots =
            tls::read_certificates(&std::fs::read(self.dir.path().join("root.pem")).unwrap()).unwrap();
        let peer = PeerNames::Exact(vec![CITADEL.into()]);
        let config = tls::client_config_with_roots(&roots, cell, peer, &["h2"]).unwrap();
        let channel = grpc::connect(&self.address.to_string(), Some(Arc::new(config))).unwrap();
        let mut request = Request::new(IstioCertificateRequest {
            csr: csr.into(),
            validity_duration: life,
            metadata: None,
        });
        if let Some(token) = token {
            request
                .metadata_mut()
                .insert("authorization", token.parse().unwrap());
        }
        let response = IstioCertificateServiceClient::new(channel)
            .create_certificate(request)
            .await?;
        Ok(response.into_inner().cert_chain)
    }

    fn agent(&self, ttl: Duration) -> identity::Agent {
        let root = self.dir.path().join("root.pem");
        let mut settings = identity::Settings::new(self.address.to_string(), root, TrustDomain::default());
        std::fs::write(self.dir.path().join("token"), self.token(|_, _| ())).unwrap();
        settings.token_file = Some(self.dir.path().join("token"));
        settings.ttl = ttl;
        identity::Agent::new(settings)
    }

    async fn stop(self) {
        self.trigger.drain();
        tokio::time::timeout(Duration::from_secs(10), self.server)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

fn leaf(chain: &[String]) -> Leaf {
    Leaf::read(&tls::read_certificates(chain[0].as_bytes()).unwrap()[0]).unwrap()
}

#[tokio::test]
async fn the_name_comes_from_the_token_never_from_the_request() {
    let platform = platform(&["--max-ttl", "1h"]).await;
    let mut params = CertificateParams::default();
    let claimed = "spiffe://cluster.local/ns/istio-system/sa/pilot";
    params.subject_alt_names = vec![SanType::URI(claimed.try_into().unwrap())];
    let key = KeyPair::generate().unwrap();
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let bearer = platform.bearer(|_, _| ());
    let chain = platform
        .call(None, Some(&bearer), &csr, 7 * 24 * 3600)
        .await
        .unwrap();
    assert_eq!(chain.len(), 2);
    let leaf = leaf(&chain);
    assert_eq!(leaf.uris, [REVIEWS]);
    let life = leaf
        .not_after
        .duration_since(std::time::SystemTime::now())
        .unwrap();
    assert!(
        life <= Duration::from_secs(3600),
        "{life:?} is cut to the longest allowed"
    );
    platform.stop().await;
}

#[tokio::test]
async fn refusals_are_clear() {
    let platform = platform(&[]).await;
    let csr = testing::request().1;
    let forged = {
        let stranger = self::platform(&[]).await;
        let token = stranger.bearer(|_, _| ());
        stranger.stop().await;
        token
    };
    let good = platform.bearer(|_, _| ());
    let cases: Vec<(Option<String>, &str, i64, Code, &str)> = vec![
        (None, &csr, 0, Code::Unauthenticated, "no credentials"),
        (
            Some("Basic abc".into()),
            &csr,
            0,
            Code::Unauthenticated,
            "not \"Bearer",
        ),
        (
            Some("Bearer abc".into()),
            &csr,
            0,
            Code::Unauthenticated,
            "not a JWT",
        ),
        (
            Some(platform.bearer(|_, c| c["exp"] = json!(now() - 30))),
            &csr,
            0,
            Code::Unauthenticated,
            "expired since 3",
        ),
        (
            Some(platform.bearer(|_, c| c["aud"] = json!(["vault"]))),
            &csr,
            0,
            Code::Unauthenticated,
            "audience is [\"vault\"]",
        ),
        (
            Some(platform.bearer(|_, c| c["iss"] = json!("x"))),
            &csr,
            0,
            Code::Unauthenticated,
            "issuer is \"x\"",
        ),
        (
            Some(platform.bearer(|h, _| h.kid = Some("k2".into()))),
            &csr,
            0,
            Code::Unauthenticated,
            "unknown key \"k2\"",
        ),
        (Some(forged), &csr, 0, Code::Unauthenticated, "signature is wrong"),
        (
            Some(platform.bearer(|_, c| {
                c["sub"] = json!("system:serviceaccount:istio-system:citadel");
                c["kubernetes.io"]["namespace"] = json!("istio-system");
                c["kubernetes.io"]["serviceaccount"]["name"] = json!("citadel");
            })),
            &csr,
            0,
            Code::PermissionDenied,
            "name of the authority itself",
        ),
        (
            Some(good.clone()),
            "nonsense",
            0,
            Code::InvalidArgument,
            "no PEM block",
        ),
        (
            Some(good.clone()),
            &csr,
            -5,
            Code::InvalidArgument,
            "-5 s is negative",
        ),
    ];
    for (token, csr, life, code, text) in cases {
        let status = platform
            .call(None, token.as_deref(), csr, life)
            .await
            .unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(
            status.message().contains(text),
            "{:?} lacks {text:?}",
            status.message()
        );
    }
    let long = "x".repeat(100_000);
    let status = platform.call(None, Some(&good), &long, 0).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    platform.stop().await;
}

#[tokio::test]
async fn renews_by_certificate_and_limits_the_rate() {
    let platform = platform(&[]).await;
    let (agent, cell) = (platform.agent(Duration::from_secs(600)), IdentityCell::new());
    agent.renew(&cell).await.unwrap();
    assert_eq!(cell.get().unwrap().uris(), [REVIEWS]);

    let chain = platform
        .call(Some(&cell), None, &testing::request().1, 60)
        .await
        .unwrap();
    assert_eq!(leaf(&chain).uris, [REVIEWS]);

    let mut limited = None;
    for _ in 0..40 {
        if let Err(status) = platform.call(Some(&cell), None, &testing::request().1, 60).await {
            limited = Some(status);
            break;
        }
    }
    let status = limited.expect("forty calls in a row are too many");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains(REVIEWS), "{status}");
    platform.stop().await;
}

#[tokio::test]
async fn an_agent_rotates_short_certificates() {
    let platform = platform(&[]).await;
    let (agent, cell) = (platform.agent(Duration::from_secs(2)), IdentityCell::new());
    let (trigger, drain) = drain::channel();
    let task = tokio::spawn({
        let (agent, cell) = (agent.clone(), cell.clone());
        async move { agent.run(cell, drain).await }
    });
    let first = cell.ready().await.serial.clone();
    let mut changes = cell.subscribe();
    let rotated = changes.wait_for(|identity| identity.as_ref().is_some_and(|i| i.serial != first));
    tokio::time::timeout(Duration::from_secs(10), rotated)
        .await
        .unwrap()
        .unwrap();
    trigger.drain();
    task.await.unwrap();
    platform.stop().await;
}

#[tokio::test]
async fn the_root_survives_a_restart_and_admin_shows_it() {
    let platform = platform(&[]).await;
    let published = std::fs::read_to_string(platform.dir.path().join("root.pem")).unwrap();
    assert!(
        !published.contains("PRIVATE"),
        "only the certificate is published"
    );
    let bearer = platform.bearer(|_, _| ());
    platform
        .call(None, Some(&bearer), &testing::request().1, 0)
        .await
        .unwrap();
    let page = get(platform.admin, "/debug/issued").await;
    assert!(page.contains(REVIEWS) && page.contains("reviews-v1-0"), "{page}");
    assert!(
        get(platform.admin, "/debug/roots")
            .await
            .contains("\"signing\":true")
    );
    let dir = platform.dir.path().to_owned();
    let state = dir.join("state").display().to_string();
    let store = mesh_citadel::store::file::Files::open(Path::new(&state)).unwrap();
    let now = std::time::SystemTime::now();
    let again = mesh_citadel::authority::self_signed::open(&store, &TrustDomain::default(), now).unwrap();
    let certificate = tls::read_certificates(published.as_bytes()).unwrap();
    assert_eq!(again.roots(now), certificate);
    platform.stop().await;
}

async fn get(address: SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}
