//! A shared upstream connection, and one request and its answer on a stream of it.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Poll, ready},
};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Response};
use http_body::Body as _;

use super::{
    body::{Body, Sending, Unsent},
    ping,
};
use crate::{config::cluster::UpstreamHttp, conn::io::Io, http::body::RequestBody};

/// Streams that one connection carries at a time before another one is opened.
pub const STREAMS: u32 = 512;

/// The largest head of an answer.
const HEAD: u32 = 128 * 1024;

/// The way into a connection.
pub struct Sender {
    requests: SendRequest<Bytes>,
    closed: Rc<Cell<bool>>,
}

impl Sender {
    /// No further request can go this way.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }
}

/// Begins HTTP/2 on a connection. Its frames are read and written by a task of its own.
pub async fn begin(io: Io, http: &UpstreamHttp, address: SocketAddr) -> Result<Sender, h2::Error> {
    let (requests, mut connection) = h2::client::Builder::new()
        .initial_window_size(http.http2.initial_stream_window)
        .initial_connection_window_size(http.http2.initial_connection_window)
        .initial_max_send_streams(STREAMS as usize)
        .enable_push(false)
        .max_header_list_size(HEAD)
        .handshake(io)
        .await?;
    let closed = Rc::new(Cell::new(false));
    let close = closed.clone();
    let patience = http.http2.keepalive_timeout;
    let lost = http
        .http2
        .keepalive_interval
        .map(|interval| ping::lost(connection.ping_pong(), interval, patience));
    tokio::task::spawn_local(async move {
        tokio::select! {
            result = Pin::new(&mut connection) => if let Err(error) = result {
                tracing::debug!(%address, %error, "upstream HTTP/2 connection ended");
            },
            () = unless_none(lost) => {
                tracing::debug!(%address, "upstream HTTP/2 connection does not answer pings");
            }
        }
        close.set(true);
    });
    Ok(Sender { requests, closed })
}

async fn unless_none(future: Option<impl Future<Output = ()>>) {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Nothing of the request has left; here it is.
    #[error("{0}")]
    Unsent(h2::Error, Box<Request<()>>),
    #[error("{0}")]
    Stream(#[from] h2::Error),
    /// The request's body broke off.
    #[error("the body to be sent broke off")]
    Source,
}

/// Sends a request and waits for the head of its answer.
pub async fn send(
    sender: &Sender,
    request: Request<()>,
    body: RequestBody,
) -> Result<Response<Body>, SendError> {
    let mut requests = sender.requests.clone();
    if let Err(error) = poll_fn(|cx| requests.poll_ready(cx)).await {
        // After GOAWAY, or an error, nothing new can go this way.
        sender.closed.set(true);
        return Err(SendError::Unsent(error, Box::new(request)));
    }
    let bodiless = body.is_end_stream();
    let (answer, stream) = requests.send_request(request, bodiless)?;
    let mut upload = (!bodiless).then(|| Sending::new(body, stream));
    let mut answer = answer;
    poll_fn(|cx| {
        if let Some(sending) = &mut upload {
            match sending.poll(cx) {
                Poll::Pending => {}
                Poll::Ready(Err(Unsent::Source(_))) => return Poll::Ready(Err(SendError::Source)),
                // If the stream was reset the answer says so, or is there all the same.
                Poll::Ready(Ok(()) | Err(Unsent::Stream(_))) => upload = None,
            }
        }
        let response = ready!(Pin::new(&mut answer).poll(cx))?;
        Poll::Ready(Ok(response.map(|stream| Body::new(stream, upload.take()))))
    })
    .await
}
