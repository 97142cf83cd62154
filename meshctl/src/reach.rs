//! Requests to a port inside a pod: the admin pages of proxies and daemons answer only on the pod's own loopback. On this
//! machine `meshctl` enters the pod's network namespace for the time it takes to make a socket; on Kubernetes the API
//! server forwards ([`forward`]), so that no other network path is needed. Bounds: 30 s and 256 MiB for an answer.

use std::{future, net::Ipv4Addr, pin::Pin, time::Duration};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::local::netns;

pub mod forward;

const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_ANSWER: usize = 256 << 20;

/// How the ports of one pod are reached.
#[derive(Clone)]
pub enum Way {
    /// A network namespace of this machine.
    Network(String),
    /// Through the API server.
    Forward(forward::Pod),
}

/// Bytes to and from a port.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection, and what may go wrong with it on the way.
pub struct Link {
    pub stream: Box<dyn Stream>,
    /// Resolves to a sentence when the way breaks, to nothing when it ends well.
    pub trouble: Pin<Box<dyn Future<Output = Option<String>> + Send>>,
}

impl Way {
    pub fn forward(client: kube::Client, namespace: &str, name: &str) -> Self {
        Self::Forward(forward::Pod::new(client, namespace, name))
    }

    /// A connection to 127.0.0.1 inside the pod.
    pub async fn connect(&self, port: u16) -> anyhow::Result<Link> {
        match self {
            Self::Network(network) => {
                let stream = netns::connect(network, (Ipv4Addr::LOCALHOST, port).into()).await?;
                Ok(Link {
                    stream: Box::new(stream),
                    trouble: Box::pin(future::ready(None)),
                })
            }
            Self::Forward(pod) => pod.connect(port).await,
        }
    }
}

pub async fn get(way: &Way, port: u16, path: &str) -> anyhow::Result<Bytes> {
    request(way, Method::GET, port, path).await
}

/// For pages that change something.
pub async fn post(way: &Way, port: u16, path: &str) -> anyhow::Result<Bytes> {
    request(way, Method::POST, port, path).await
}

pub async fn get_json(way: &Way, port: u16, path: &str) -> anyhow::Result<Value> {
    let body = get(way, port, path).await?;
    serde_json::from_slice(&body).with_context(|| format!("the answer to {path} is no JSON"))
}

async fn request(way: &Way, method: Method, port: u16, path: &str) -> anyhow::Result<Bytes> {
    let work = async {
        let Link { stream, mut trouble } = way.connect(port).await?;
        let exchange = exchange(stream, method, port, path);
        tokio::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            Some(text) = &mut trouble => bail!("port {port} of the pod cannot be reached: {text}"),
        }
    };
    let (status, body) = tokio::time::timeout(TIMEOUT, work).await.with_context(|| {
        format!(
            "port {port} of the pod does not answer within {} s",
            TIMEOUT.as_secs()
        )
    })??;
    if status != StatusCode::OK {
        bail!(
            "port {port} of the pod answers {path} with {status}: {}",
            String::from_utf8_lossy(&body).trim()
        );
    }
    Ok(body)
}

async fn exchange(
    stream: Box<dyn Stream>,
    method: Method,
    port: u16,
    path: &str,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", format!("localhost:{port}"))
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    Ok((status, body.map_err(|error| anyhow::anyhow!(error))?.to_bytes()))
}
