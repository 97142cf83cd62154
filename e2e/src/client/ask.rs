//! A list of different requests, one after the other, each on a connection of its own; of each everything that came back. The
//! list comes as JSON on standard input.
//!
//! Bounds: [`MAX_ASKS`] requests, [`MAX_BODY`] of an answer, [`PATIENCE`] each.

use super::grpc;
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
};

const MAX_ASKS: usize = 10_000;
const MAX_BODY: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(15);

/// What to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ask {
    /// Comes back with the outcome.
    pub id: String,
    /// host:port
    pub target: String,
    pub what: What,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    Http {
        method: String,
        path: String,
        headers: Vec<(String, String)>,
        /// The server name: over TLS, whoever answers.
        tls: Option<String>,
    },
    /// One line over TCP, and the one that comes back.
    Line(String),
    /// Calls of all kinds.
    Grpc,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub id: String,
    /// 0 where there is none.
    pub status: u16,
    pub headers: BTreeMap<String, Vec<String>>,
    /// As JSON if it is, else as text.
    pub body: Value,
    pub error: Option<String>,
    pub ms: f64,
}

pub async fn run() -> anyhow::Result<Vec<Outcome>> {
    let mut text = String::new();
    tokio::io::stdin().read_to_string(&mut text).await?;
    let asks: Vec<Ask> = serde_json::from_str(&text).context("standard input is no list of requests")?;
    ensure!(asks.len() <= MAX_ASKS, "at most {MAX_ASKS} requests");
    let mut outcomes = Vec::new();
    for ask in asks {
        let begin = Instant::now();
        let mut outcome = match tokio::time::timeout(PATIENCE, one(&ask)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome {
                error: Some(format!("{error:#}")),
                ..Outcome::default()
            },
            Err(_) => Outcome {
                error: Some(format!("nothing within {PATIENCE:?}")),
                ..Outcome::default()
            },
        };
        outcome.id = ask.id;
        outcome.ms = begin.elapsed().as_secs_f64() * 1000.0;
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

async fn one(ask: &Ask) -> anyhow::Result<Outcome> {
    match &ask.what {
        What::Http {
            method,
            path,
            headers,
            tls,
        } => {
            let request = request(ask, method, path, headers)?;
            let tcp = connect(&ask.target).await?;
            match tls {
                None => exchange(tcp, request).await,
                Some(name) => {
                    let name = ServerName::try_from(name.clone())?;
                    let connector = tokio_rustls::TlsConnector::from(unverified()?);
                    exchange(connector.connect(name, tcp).await.context("TLS")?, request).await
                }
            }
        }
        What::Line(line) => {
            let mut stream = BufReader::new(connect(&ask.target).await?);
            stream.write_all(format!("{line}\n").as_bytes()).await?;
            let mut answer = String::new();
            (&mut stream).take(MAX_BODY as u64).read_line(&mut answer).await?;
            if answer.is_empty() {
                bail!("the connection was closed before an answer");
            }
            Ok(Outcome {
                body: answer.trim_end().into(),
                ..Outcome::default()
            })
        }
        What::Grpc => {
            let settings = grpc::Settings {
                target: ask.target.clone(),
                unary: 3,
                answers: 10,
                talk: 3,
            };
            let report = grpc::run(&settings).await?;
            Ok(Outcome {
                body: json!({
                    "unary": report.unary,
                    "answers": report.answers,
                    "talk": report.talk,
                    "failed": json!([report.failed_code, report.failed_message, report.failed_trailer]),
                    "stream_failed": report.stream_failed_code,
                }),
                ..Outcome::default()
            })
        }
    }
}

async fn connect(target: &str) -> anyhow::Result<TcpStream> {
    let tcp = TcpStream::connect(target)
        .await
        .with_context(|| format!("no connection to {target}"))?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

fn request(
    ask: &Ask,
    method: &str,
    path: &str,
    headers: &[(String, String)],
) -> anyhow::Result<Request<Full<Bytes>>> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .body(Full::new(Bytes::new()))?;
    let own = request.headers_mut();
    for (name, value) in headers {
        own.append(name.parse::<HeaderName>()?, HeaderValue::from_str(value)?);
    }
    if !own.contains_key(header::HOST) {
        own.insert(header::HOST, HeaderValue::from_str(&ask.target)?);
    }
    // By this it is found again in the proxies' access logs.
    own.insert(header::USER_AGENT, HeaderValue::from_str(&ask.id)?);
    Ok(request)
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<Outcome>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let (head, body) = response.into_parts();
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in &head.headers {
        headers
            .entry(name.as_str().to_owned())
            .or_default()
            .push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    let body = Limited::new(body, MAX_BODY)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("{} and then, reading the body: {error}", head.status))?
        .to_bytes();
    connection.abort();
    let text = || Value::from(String::from_utf8_lossy(&body).into_owned());
    Ok(Outcome {
        status: head.status.as_u16(),
        headers,
        body: serde_json::from_slice(&body).unwrap_or_else(|_| text()),
        ..Outcome::default()
    })
}

/// Trusts everybody: who answers is what the tests ask, not whether one should believe it.
fn unverified() -> anyhow::Result<Arc<ClientConfig>> {
    let provider = mesh_runtime::tls::provider();
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
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
