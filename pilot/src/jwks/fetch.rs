//! One question for an issuer's public keys: a plain GET of the key set (RFC 7517), or first of the issuer's description
//! that says where it is (OpenID Connect Discovery 1.0, §4).
//!
//! Only the key set goes on from here, whatever else an answer holds. Bounds: [`CALL`] for everything, [`MAX_BYTES`] of
//! answer, no redirects. Trust: the system's certificates, or those of `SSL_CERT_FILE`.

use std::{error::Error as _, pin::Pin, sync::Arc, time::Duration};

use http::{Request, Uri, header, uri::Scheme};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::keys;
use crate::model::authn::KeySource;

/// How long one question may take.
pub const CALL: Duration = Duration::from_secs(5);
/// Bytes of an answer.
pub const MAX_BYTES: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error("{0} is not a URL")]
    Url(String),
    #[error("{url}: no answer within {CALL:?}")]
    Timeout { url: String },
    #[error("{url}: {reason}")]
    Transport { url: String, reason: String },
    #[error("{url}: answers {status}{hint}")]
    Status {
        url: String,
        status: u16,
        hint: &'static str,
    },
    #[error("{url}: {reason}")]
    Form { url: String, reason: String },
}

/// Gets key sets.
pub trait Fetch: Send + Sync + 'static {
    fn keys<'a>(
        &'a self,
        source: &'a KeySource,
    ) -> Pin<Box<dyn Future<Output = Result<Arc<str>, FetchError>> + Send + 'a>>;
}

/// From servers.
pub struct Web {
    tls: TlsConnector,
    roots: usize,
}

impl Web {
    /// Reads the system's trusted certificates once.
    pub fn new() -> Self {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::debug!(%error, "trusted certificates of this system");
        }
        let (added, _) = roots.add_parsable_certificates(found.certs);
        let config = ClientConfig::builder_with_provider(mesh_runtime::tls::provider())
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_root_certificates(roots).with_no_client_auth());
        let tls = match config {
            Ok(config) => TlsConnector::from(Arc::new(config)),
            // The provider is our own and has these versions.
            Err(_) => TlsConnector::from(Arc::new(
                ClientConfig::builder()
                    .with_root_certificates(RootCertStore::empty())
                    .with_no_client_auth(),
            )),
        };
        Self { tls, roots: added }
    }

    async fn source(&self, source: &KeySource) -> Result<Arc<str>, FetchError> {
        let url = match source {
            KeySource::Inline(keys) => return key_set(keys.as_bytes(), "the object itself"),
            KeySource::Uri(url) => url.clone(),
            KeySource::Issuer(issuer) => {
                let url = format!(
                    "{}/.well-known/openid-configuration",
                    issuer.trim_end_matches('/')
                );
                location(&self.get(&url).await?, &url)?
            }
        };
        key_set(&self.get(&url).await?, &url)
    }

    async fn get(&self, url: &str) -> Result<Bytes, FetchError> {
        let failed = |reason: String| FetchError::Transport {
            url: url.to_owned(),
            reason,
        };
        let uri: Uri = url.parse().map_err(|_| FetchError::Url(url.to_owned()))?;
        let (Some(scheme), Some(host)) = (uri.scheme(), uri.host()) else {
            return Err(FetchError::Url(url.to_owned()));
        };
        let secure = *scheme == Scheme::HTTPS;
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let tcp = TcpStream::connect((bare, port))
            .await
            .map_err(|error| failed(format!("no connection to {host}:{port}: {error}")))?;
        if !secure {
            return ask(tcp, &uri, host, url).await;
        }
        let name = ServerName::try_from(bare.to_owned()).map_err(|error| failed(error.to_string()))?;
        let tls = self.tls.connect(name, tcp).await.map_err(|error| {
            let hint = if self.roots == 0 {
                "; this system has no trusted certificates: name a file with some in SSL_CERT_FILE"
            } else {
                ""
            };
            failed(format!("TLS: {error}{hint}"))
        })?;
        ask(tls, &uri, host, url).await
    }
}

impl Default for Web {
    fn default() -> Self {
        Self::new()
    }
}

impl Fetch for Web {
    fn keys<'a>(
        &'a self,
        source: &'a KeySource,
    ) -> Pin<Box<dyn Future<Output = Result<Arc<str>, FetchError>> + Send + 'a>> {
        Box::pin(async move {
            match tokio::time::timeout(CALL, self.source(source)).await {
                Ok(result) => result,
                Err(_) => Err(FetchError::Timeout {
                    url: source.to_string(),
                }),
            }
        })
    }
}

/// One GET over an open connection.
async fn ask<S>(stream: S, uri: &Uri, host: &str, url: &str) -> Result<Bytes, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: &hyper::Error| {
        let below = error
            .source()
            .map(|source| format!(": {source}"))
            .unwrap_or_default();
        FetchError::Transport {
            url: url.to_owned(),
            reason: format!("{error}{below}"),
        }
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    let connection = tokio::spawn(connection);
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority.rsplit('@').next().unwrap_or(host))
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "mesh-pilot")
        .body(Empty::<Bytes>::new())
        .map_err(|error| FetchError::Form {
            url: url.to_owned(),
            reason: error.to_string(),
        })?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| failed(&error))?;
    let status = response.status();
    if !status.is_success() {
        let hint = if status.is_redirection() {
            "; redirects are not followed: write the place itself"
        } else {
            ""
        };
        return Err(FetchError::Status {
            url: url.to_owned(),
            status: status.as_u16(),
            hint,
        });
    }
    let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
    connection.abort();
    body.map(|body| body.to_bytes())
        .map_err(|error| FetchError::Form {
            url: url.to_owned(),
            reason: format!("the answer cannot be read, or has more than {MAX_BYTES} bytes: {error}"),
        })
}

/// Where an issuer's description says that its keys are.
fn location(text: &[u8], url: &str) -> Result<String, FetchError> {
    let form = |reason: String| FetchError::Form {
        url: url.to_owned(),
        reason,
    };
    let value: Value = serde_json::from_slice(text).map_err(|error| form(format!("not JSON: {error}")))?;
    match value.get("jwks_uri").and_then(Value::as_str) {
        Some(place) if !place.is_empty() => Ok(place.to_owned()),
        _ => Err(form("an OpenID configuration without jwks_uri".into())),
    }
}

/// The key set of an answer, and nothing else of it.
fn key_set(text: &[u8], url: &str) -> Result<Arc<str>, FetchError> {
    keys::usable(text).map_err(|reason| FetchError::Form {
        url: url.to_owned(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions() {
        assert_eq!(
            location(br#"{"jwks_uri": "https://a/k"}"#, "u").unwrap(),
            "https://a/k"
        );
        for text in ["{}", "x", r#"{"jwks_uri": ""}"#] {
            assert!(location(text.as_bytes(), "u").is_err(), "{text}");
        }
        let error = key_set(b"{}", "http://x").unwrap_err().to_string();
        assert!(error.contains("http://x"), "{error}");
    }
}
