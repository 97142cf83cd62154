//! The other end of [`super::control`]: how commands talk to the supervisor. Every error says whether there is a mesh at
//! all and what to do.

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::net::UnixStream;

use super::{
    control::{Applied, ApplyRequest, ExecAnswer, ExecQuery, PatchRequest, Selection, Status},
    images::Table,
    platform::Layout,
};

const TIMEOUT: Duration = Duration::from_secs(60);
const MAX_ANSWER: usize = 256 << 20;

/// A way to one supervisor.
#[derive(Clone, Debug)]
pub struct Client {
    pub layout: Layout,
}

impl Client {
    pub fn new(layout: Layout) -> Self {
        Self { layout }
    }

    pub async fn status(&self) -> anyhow::Result<Status> {
        self.get("/v1/status").await
    }

    pub async fn apply(&self, request: &ApplyRequest) -> anyhow::Result<Vec<Applied>> {
        self.post("/v1/apply", request).await
    }

    pub async fn objects(&self, selection: &Selection) -> anyhow::Result<Vec<Value>> {
        self.get(&format!("/v1/objects?{}", query(selection)?)).await
    }

    pub async fn delete(&self, selection: &Selection) -> anyhow::Result<Value> {
        self.post("/v1/delete", selection).await
    }

    pub async fn patch(&self, request: &PatchRequest) -> anyhow::Result<Value> {
        self.post("/v1/patch", request).await
    }

    pub async fn add_images(&self, rows: &Table) -> anyhow::Result<Value> {
        self.post("/v1/images", rows).await
    }

    pub async fn exec(&self, which: &ExecQuery) -> anyhow::Result<ExecAnswer> {
        self.get(&format!("/v1/exec?{}", query(which)?)).await
    }

    pub async fn shutdown(&self) -> anyhow::Result<Value> {
        self.post("/v1/shutdown", &Value::Null).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.send(Method::GET, path, Bytes::new()).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        self.send(Method::POST, path, serde_json::to_vec(body)?.into())
            .await
    }

    async fn send<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<T> {
        let stream = connect(&self.layout.socket(), &self.layout).await?;
        let work = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", "node")
                .header("content-type", "application/json")
                .body(Full::new(body))?;
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let bytes = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
            anyhow::Ok((status, bytes))
        };
        let result = tokio::time::timeout(TIMEOUT, work).await;
        let (status, bytes) = result.context("the mesh does not answer (see its log: run/node.log)")??;
        if status != StatusCode::OK {
            let told: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let text = told["error"]
                .as_str()
                .map_or_else(|| String::from_utf8_lossy(&bytes).into_owned(), Into::into);
            bail!(text);
        }
        serde_json::from_slice(&bytes).context("the mesh answers in a way this meshctl does not understand")
    }
}

async fn connect(socket: &Path, layout: &Layout) -> anyhow::Result<UnixStream> {
    match UnixStream::connect(socket).await {
        Ok(stream) => Ok(stream),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            bail!(
                "{}: only root may talk to the mesh; run it with sudo",
                socket.display()
            )
        }
        Err(_) => bail!(
            "no local mesh is running in {}; start one with `meshctl local up`, or name another with --dir or GOSSAMER_DIR",
            layout.dir.display()
        ),
    }
}

/// The fields of a flat value as a query string.
fn query(value: &impl Serialize) -> anyhow::Result<String> {
    let value = serde_json::to_value(value)?;
    let fields = value.as_object().into_iter().flatten();
    let pairs: Vec<String> = fields
        .filter_map(|(name, value)| Some(format!("{name}={}", escape(value.as_str()?))))
        .collect();
    Ok(pairs.join("&"))
}

fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let which = ExecQuery {
            namespace: "default".into(),
            pod: "a b&c".into(),
            container: String::new(),
        };
        let text = query(&which).unwrap();
        assert!(
            text.contains("namespace=default") && text.contains("pod=a%20b%26c"),
            "{text}"
        );
    }
}
