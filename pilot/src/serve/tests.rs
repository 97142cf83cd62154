//! Who is let in, over real mutual TLS.

use std::{net::SocketAddr, time::SystemTime};

use mesh_proto::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
    node::NodeMetadata,
    xds::Type,
};
use mesh_runtime::{
    drain,
    tls::{self, ClientAuth, Identity, IdentityCell, PeerNames},
};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;

use super::*;
use crate::{
    metrics::Metrics,
    testing::{SERVICES, changes},
};

struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    Authority {
        certificate,
        issuer: Issuer::new(params, key),
    }
}

fn cell(authority: &Authority, name: &str) -> IdentityCell {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
    params.not_after = (SystemTime::now() + Duration::from_secs(3600)).into();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority.issuer).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let roots = vec![authority.certificate.clone()];
    let cell = IdentityCell::new();
    cell.set(Identity::new(vec![certificate.der().clone()], key, roots).unwrap())
        .unwrap();
    cell
}

const PILOT: &str = "spiffe://cluster.local/ns/istio-system/sa/pilot";

async fn pilot(authority: &Authority) -> (Arc<Hub>, SocketAddr, drain::Trigger) {
    let hub = Arc::new(Hub::new(0, Metrics::default()));
    hub.apply(changes(SERVICES));
    let (trigger, drain) = drain::channel();
    let trust = Trust {
        domain: TrustDomain::default(),
    };
    let service = Service::new(hub.clone(), Arc::new(Limits::new(10, 100)), Some(trust), drain);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let own = cell(authority, PILOT);
    let config = tls::server_config(&own, ClientAuth::Required, PeerNames::Any, &["h2"]).unwrap();
    let connections = grpc::incoming(listener, Arc::new(config), Duration::from_secs(5), 10);
    let server = tonic::transport::Server::builder().add_service(service.into_server());
    tokio::spawn(server.serve_with_incoming(connections));
    (hub, address, trigger)
}

/// The first thing that a proxy is told: which type it gets, or why it is refused.
async fn ask(address: SocketAddr, own: &IdentityCell, node: &str, account: &str) -> Result<String, Status> {
    let config = tls::client_config(own, PeerNames::Exact(vec![PILOT.to_owned()]), &["h2"]).unwrap();
    let channel = grpc::connect(&address.to_string(), Some(Arc::new(config))).unwrap();
    let metadata = NodeMetadata {
        service_account: account.to_owned(),
        ..NodeMetadata::default()
    };
    let node = Node {
        id: node.to_owned(),
        metadata: Some(metadata.to_struct()),
        ..Node::default()
    };
    let request = DeltaDiscoveryRequest {
        node: Some(node),
        type_url: Type::Cluster.url().to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    let requests = StreamExt::chain(tokio_stream::iter([request]), tokio_stream::pending());
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let response = client
        .delta_aggregated_resources(requests)
        .await?
        .into_inner()
        .message()
        .await?;
    Ok(response.map(|response| response.type_url).unwrap_or_default())
}

const NODE: &str = "sidecar~10.0.0.1~a-0.shop~shop.svc.cluster.local";

#[tokio::test]
async fn a_proxy_is_who_its_certificate_says() {
    let authority = authority();
    let (hub, address, _trigger) = pilot(&authority).await;
    let own = cell(&authority, "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(
        ask(address, &own, NODE, "cart").await.unwrap(),
        Type::Cluster.url()
    );
    assert_eq!(
        ask(address, &own, NODE, "").await.unwrap(),
        Type::Cluster.url(),
        "what is not claimed is proven"
    );

    let stranger = cell(&authority, "spiffe://cluster.local/ns/other/sa/cart");
    let refused = ask(address, &stranger, NODE, "cart").await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    assert!(
        refused.message().contains("\"shop\"") && refused.message().contains("\"other\""),
        "{refused}"
    );
    assert_eq!(
        ask(address, &own, NODE, "admin").await.unwrap_err().code(),
        tonic::Code::PermissionDenied
    );
    let elsewhere = cell(&authority, "spiffe://other.mesh/ns/shop/sa/cart");
    assert_eq!(
        ask(address, &elsewhere, NODE, "cart").await.unwrap_err().code(),
        tonic::Code::Unauthenticated
    );
    assert_eq!(hub.metrics.refused("identity").get(), 3);
}

#[tokio::test]
async fn a_certificate_of_another_authority_opens_nothing() {
    let (_hub, address, _trigger) = pilot(&authority()).await;
    let foreign = authority();
    let own = cell(&foreign, "spiffe://cluster.local/ns/shop/sa/cart");
    assert!(ask(address, &own, NODE, "cart").await.is_err());
}
