//! A server that speaks first behind a port that takes TLS and plaintext, over real connections.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    listen::grace::{LONG, UNKNOWN},
    testing::{Proxy, SOON},
};

/// A listener as a permissive sidecar has it: TLS is looked for, silence ends in a TCP proxy.
fn permissive(server: std::net::SocketAddr) -> String {
    let proxy = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    let inspector = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
    format!(
        "static_resources: {{clusters: [{{name: a, connect_timeout: 2s, load_assignment: {{cluster_name: a, endpoints: \
         [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}}}]}}]}}}}], \
         listeners: [{{name: in, address: {{socket_address: {{address: 127.0.0.1, port_value: PORT}}}}, \
         listener_filters_timeout: 15s, continue_on_listener_filters_timeout: true, listener_filters: [{{name: tls, \
         typed_config: {{'@type': {inspector}}}}}], filter_chains: [{{filter_chain_match: {{transport_protocol: tls}}, \
         filters: [{{name: direct, typed_config: {{'@type': {proxy}, stat_prefix: tls, cluster: a}}}}]}}, {{filters: \
         [{{name: tcp, typed_config: {{'@type': {proxy}, stat_prefix: plain, cluster: a}}}}]}}]}}]}}",
        server.port()
    )
}

/// Greets every connection, then sends back what it gets.
async fn greeter() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = tcp.write_all(b"hello").await;
                let (mut reader, mut writer) = tcp.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    address
}

/// How long a client that says nothing waits for the greeting; then it says `words` and reads them back.
async fn greeted(proxy: &Proxy, words: &[u8]) -> Duration {
    let start = Instant::now();
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    let mut greeting = [0; 5];
    tokio::time::timeout(SOON, client.read_exact(&mut greeting))
        .await
        .unwrap()
        .unwrap();
    let waited = start.elapsed();
    assert_eq!(&greeting, b"hello");
    client.write_all(words).await.unwrap();
    let mut back = vec![0; words.len()];
    client.read_exact(&mut back).await.unwrap();
    assert_eq!(back, words);
    waited
}

#[tokio::test]
async fn a_silent_client_waits_as_long_as_its_source_has_earned() {
    let proxy = Proxy::start(&permissive(greeter().await)).await;
    let first = greeted(&proxy, b"plain").await;
    assert!(
        first >= *UNKNOWN.start() && first < LONG,
        "{first:?}: nobody knows the source"
    );
    // Now it is known to speak in plaintext: times are not asserted, but it is far from the long grace.
    let known = greeted(&proxy, b"plain").await;
    assert!(known < LONG, "{known:?}");
    // A hello that comes at once is recognised, whatever the source did before.
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.write_all(&hello()).await.unwrap();
    let mut greeting = [0; 5];
    client.read_exact(&mut greeting).await.unwrap();
    assert_eq!(proxy.number("tcp.tls.downstream_cx_total"), 1);
    assert_eq!(proxy.number("tcp.plain.downstream_cx_total"), 2);
}

#[tokio::test]
async fn a_source_of_tls_is_waited_for() {
    let proxy = Proxy::start(&permissive(greeter().await)).await;
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.write_all(&hello()).await.unwrap();
    client.read_exact(&mut [0; 5]).await.unwrap();
    // Its next hello is late, later than anybody else's may be.
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    tokio::time::sleep(*UNKNOWN.end() + Duration::from_millis(100)).await;
    client.write_all(&hello()).await.unwrap();
    client.read_exact(&mut [0; 5]).await.unwrap();
    assert_eq!(proxy.number("tcp.tls.downstream_cx_total"), 2);
    assert_eq!(proxy.number("tcp.plain.downstream_cx_total"), 0);
}

#[tokio::test]
async fn a_late_hello_is_recognised_while_the_server_is_silent() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(&permissive(server.local_addr().unwrap())).await;
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    tokio::time::sleep(*UNKNOWN.end() + Duration::from_millis(100)).await;
    client.write_all(&hello()).await.unwrap();
    proxy.until("tcp.tls.downstream_cx_total", 1).await;
}

fn hello() -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls_pki_types::ServerName::try_from("a.test").unwrap();
    let mut connection = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}
