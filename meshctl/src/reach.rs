//! Requests to a port on the loopback of a pod: the admin pages of proxies and daemons answer only there. `meshctl` enters
//! the pod's network namespace for the time it takes to make a socket. Bounds: 30 s and 256 MiB for an answer.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::local::netns;

const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_ANSWER: usize = 256 << 20;

/// GET from 127.0.0.1 inside the pod's network namespace.
pub async fn get(network: &str, port: u16, path: &str) -> anyhow::Result<Bytes> {
    let work = async {
        let stream = netns::connect(network, (Ipv4Addr::LOCALHOST, port).into()).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get(path)
            .header("host", format!("localhost:{port}"))
            .body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        anyhow::Ok((status, body.map_err(|error| anyhow::anyhow!(error))?.to_bytes()))
    };
    let result = tokio::time::timeout(TIMEOUT, work).await;
    let (status, body) = result.with_context(|| format!("port {port} of the pod does not answer"))??;
    if status != StatusCode::OK {
        bail!(
            "port {port} of the pod answers {path} with {status}: {}",
            String::from_utf8_lossy(&body).trim()
        );
    }
    Ok(body)
}

pub async fn get_json(network: &str, port: u16, path: &str) -> anyhow::Result<Value> {
    let body = get(network, port, path).await?;
    serde_json::from_slice(&body).with_context(|| format!("the answer to {path} is no JSON"))
}
