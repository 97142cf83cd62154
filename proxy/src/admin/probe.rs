//! The application's probes, asked on behalf of the kubelet (15020, `/app-health/<container>/…`): it has no certificate of
//! the mesh, so where mutual TLS is required it could not ask the application itself. The injector has pointed the pod's
//! probes here, and says in `ISTIO_KUBE_APP_PROBERS` how each was written.
//!
//! The application is asked on 127.0.0.1, else on the pod's own address from 127.0.0.6: both pass redirection. The answer
//! is the application's status for HTTP; 200 or 503 for TCP and gRPC. Bounds: one question per question, `timeoutSeconds`
//! in time, [`MOST`] bytes of the answer are read.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
};

/// Of an answer, this much counts.
const MOST: usize = 64 << 10;
/// From here the proxy's own calls pass redirection.
const OWN: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
/// The method of gRPC's health protocol (<https://grpc.io/docs/guides/health-checking/>), and its good answer: field 1 is 1.
const CHECK: &str = "/grpc.health.v1.Health/Check";
const SERVING: [u8; 2] = [0x08, 0x01];

/// How one probe was written.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Question {
    http_get: Option<Http>,
    tcp_socket: Option<Tcp>,
    grpc: Option<Grpc>,
    #[serde(default = "one")]
    timeout_seconds: u64,
}

fn one() -> u64 {
    1
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Http {
    #[serde(default)]
    path: String,
    port: u16,
    #[serde(default)]
    scheme: String,
    #[serde(default)]
    http_headers: Vec<Header>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Header {
    name: String,
    value: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Tcp {
    port: u16,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Grpc {
    port: u16,
    #[serde(default)]
    service: String,
}

/// All probes of the pod, by the paths at which they are asked for. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Probes(Arc<BTreeMap<String, Probe>>);

#[derive(Clone, Debug)]
pub struct Probe {
    question: Question,
    /// The pod's own, if known.
    address: Option<IpAddr>,
}

impl Probes {
    /// From what the injector has written.
    pub fn read(text: &str, address: Option<IpAddr>) -> Result<Self, String> {
        let questions: BTreeMap<String, Question> = serde_json::from_str(text)
            .map_err(|error| format!("is not JSON as the injector writes it: {error}"))?;
        let probe = |question| Probe { question, address };
        let all = questions
            .into_iter()
            .filter(|(path, _)| path.starts_with("/app-"));
        Ok(Self(Arc::new(
            all.map(|(path, question)| (path, probe(question))).collect(),
        )))
    }

    pub fn all(&self) -> impl Iterator<Item = (&String, &Probe)> {
        self.0.iter()
    }
}

impl Probe {
    /// The application's answer, as the kubelet wants it.
    pub async fn ask(&self) -> Response {
        let limit = Duration::from_secs(self.question.timeout_seconds.clamp(1, 3600));
        let answer = match tokio::time::timeout(limit, self.question()).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
        };
        match answer {
            Ok(status) => status.into_response(),
            Err(why) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("the application: {why}\n"),
            )
                .into_response(),
        }
    }

    async fn question(&self) -> Result<StatusCode, String> {
        let text = |error: io::Error| error.to_string();
        let Question {
            http_get,
            tcp_socket,
            grpc,
            ..
        } = &self.question;
        if let Some(http) = http_get {
            let stream = self.connect(http.port).await.map_err(text)?;
            return if http.scheme.eq_ignore_ascii_case("https") {
                let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
                let tls = tokio_rustls::TlsConnector::from(unverified()?);
                get(http, tls.connect(name, stream).await.map_err(text)?).await
            } else {
                get(http, stream).await
            };
        }
        if let Some(tcp) = tcp_socket {
            return self.connect(tcp.port).await.map(|_| StatusCode::OK).map_err(text);
        }
        let grpc = grpc.as_ref().ok_or("the probe asks for nothing")?;
        check(grpc, self.connect(grpc.port).await.map_err(text)?).await
    }

    async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let first = match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        // It may listen on the pod's address only.
        match self.address {
            Some(IpAddr::V4(own)) => {
                let socket = TcpSocket::new_v4()?;
                socket.bind(SocketAddr::from((OWN, 0)))?;
                socket.connect(SocketAddr::from((own, port))).await
            }
            Some(IpAddr::V6(_)) => {
                TcpStream::connect((IpAddr::from(std::net::Ipv6Addr::LOCALHOST), port)).await
            }
            None => Err(first),
        }
    }
}

async fn get<S>(http: &Http, stream: S) -> Result<StatusCode, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| text(&error))?;
    let connection = tokio::spawn(connection);
    let path = if http.path.starts_with('/') {
        http.path.clone()
    } else {
        format!("/{}", http.path)
    };
    let mut request = Request::get(path)
        .body(Empty::<Bytes>::new())
        .map_err(|error| text(&error))?;
    *request.headers_mut() = headers(http)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| text(&error))?;
        let status = response.status();
        // What is longer is cut off: only the status counts.
        drop(Limited::new(response.into_body(), MOST).collect().await);
        Ok(status)
    };
    let answer = answer.await;
    connection.abort();
    answer
}

/// The probe's own, with those that a kubelet sends where it says nothing.
fn headers(http: &Http) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for Header { name, value } in &http.http_headers {
        let name = HeaderName::try_from(name).map_err(|error| format!("header {name:?}: {error}"))?;
        let value = HeaderValue::try_from(value).map_err(|error| format!("header {name}: {error}"))?;
        headers.append(name, value);
    }
    let host =
        HeaderValue::try_from(format!("localhost:{}", http.port)).map_err(|error| error.to_string())?;
    headers.entry(header::HOST).or_insert(host);
    headers
        .entry(header::USER_AGENT)
        .or_insert(HeaderValue::from_static("kube-probe/mesh"));
    headers
        .entry(header::ACCEPT)
        .or_insert(HeaderValue::from_static("*/*"));
    Ok(headers)
}

async fn check(grpc: &Grpc, stream: TcpStream) -> Result<StatusCode, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| text(&error))?;
    let connection = tokio::spawn(connection);
    let request = Request::post(format!("http://localhost:{}{CHECK}", grpc.port))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(message(&grpc.service)))
        .map_err(|error| text(&error))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| text(&error))?;
        let body = Limited::new(response.into_body(), MOST).collect().await;
        let body = body.map_err(|error| text(&error))?;
        let status = body
            .trailers()
            .and_then(|trailers| trailers.get("grpc-status"))
            .cloned();
        let bytes = body.to_bytes();
        match status {
            Some(status) if status != "0" => Err(format!("grpc-status {}", status.to_str().unwrap_or("?"))),
            _ if bytes.get(5..) == Some(&SERVING) => Ok(StatusCode::OK),
            _ => Err("it does not say SERVING".to_owned()),
        }
    };
    let answer = answer.await;
    connection.abort();
    answer
}

/// HealthCheckRequest: `service` is field 1; with gRPC's head of five bytes.
fn message(service: &str) -> Bytes {
    // A name that is longer than Kubernetes allows is cut: the application does not know it anyway.
    let name = &service.as_bytes()[..service.len().min(127)];
    let mut message = Vec::new();
    if let (false, Ok(length)) = (name.is_empty(), u8::try_from(name.len())) {
        message.extend([0x0a, length]);
        message.extend(name);
    }
    let length = u32::try_from(message.len()).unwrap_or(0).to_be_bytes();
    let mut frame = vec![0];
    frame.extend(length);
    frame.append(&mut message);
    frame.into()
}

/// As the kubelet does: whoever answers on the pod's own loopback is believed.
fn unverified() -> Result<Arc<ClientConfig>, String> {
    let provider = mesh_runtime::tls::provider();
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(schemes)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Anybody(Vec<SignatureScheme>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, routing::get};
    use tokio::net::TcpListener;

    async fn status(question: &str) -> u16 {
        let text = format!("{{\"/app-health/a/livez\": {question}, \"/quitquitquit\": {question}}}");
        let probes = Probes::read(&text, None).unwrap();
        let (path, probe) = probes.all().next().unwrap();
        assert_eq!((path.as_str(), probes.all().count()), ("/app-health/a/livez", 1));
        probe.ask().await.status().as_u16()
    }

    #[tokio::test]
    async fn probes() {
        let page = |headers: HeaderMap| async move {
            let known = headers.get("x").is_some_and(|x| x == "y");
            if known {
                StatusCode::OK
            } else {
                StatusCode::IM_A_TEAPOT
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new()
            .route("/h", get(page))
            .route("/slow", get(std::future::pending::<StatusCode>));
        tokio::spawn(axum::serve(listener, router).into_future());
        // Bound and not listening: the port is nobody else's, and refuses.
        let closed = TcpSocket::new_v4().unwrap();
        closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let closed_port = closed.local_addr().unwrap().port();
        for (question, expect) in [
            (
                format!(
                    "{{\"httpGet\": {{\"path\": \"h\", \"port\": {port}, \"httpHeaders\": [{{\"name\": \"X\", \"value\": \"y\"}}]}}}}"
                ),
                200,
            ),
            (
                format!("{{\"httpGet\": {{\"path\": \"/h\", \"port\": {port}, \"scheme\": \"HTTP\"}}}}"),
                418,
            ),
            (
                format!("{{\"httpGet\": {{\"path\": \"/slow\", \"port\": {port}}}, \"timeoutSeconds\": 1}}"),
                503,
            ),
            (
                format!("{{\"httpGet\": {{\"path\": \"/\", \"port\": {closed_port}}}}}"),
                503,
            ),
            (format!("{{\"tcpSocket\": {{\"port\": {port}}}}}"), 200),
            (format!("{{\"tcpSocket\": {{\"port\": {closed_port}}}}}"), 503),
            ("{}".to_owned(), 503),
        ] {
            assert_eq!(status(&question).await, expect, "{question}");
        }
        assert!(Probes::read("x", None).is_err());
    }

    #[test]
    fn health_requests() {
        assert_eq!(&message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&message("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
    }
}
