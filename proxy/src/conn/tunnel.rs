//! TCP through an HTTP proxy: the endpoint is asked for a tunnel to somewhere else (CONNECT, RFC 9110 §9.3.6, RFC 9113
//! §8.5; or a POST whose two bodies are the two directions), and when it agrees, the connection's bytes go that way.
//!
//! Bounds: what waits in a POST tunnel is at most [`WAITING`] in each direction.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri, Version, header};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf};

use crate::{
    cluster::connect::{ConnectError, Connected},
    config::chain::Tunnel,
    conn::io::Io,
    http::exec::LocalExec,
};

const WAITING: usize = 64 * 1024;
/// The most that is read at once for a POST.
const PIECE: usize = 16 * 1024;

/// Asks for the tunnel on a new connection; what comes back leads to the tunnel's other end.
pub async fn open(
    connected: Connected,
    tunnel: &Tunnel,
    http2: bool,
    limit: Duration,
) -> Result<Connected, ConnectError> {
    let Connected {
        io,
        alpn,
        tls,
        address,
        local,
    } = connected;
    let asked = tokio::time::timeout(limit, ask(io, tunnel, http2)).await;
    let io = match asked {
        Err(_) => return Err(ConnectError::Timeout { address, limit }),
        Ok(Err(error)) => return Err(ConnectError::Http { address, error }),
        Ok(Ok(io)) => io,
    };
    Ok(Connected {
        io,
        alpn,
        tls,
        address,
        local,
    })
}

async fn ask(io: Io, tunnel: &Tunnel, http2: bool) -> Result<Io, String> {
    let (near, upload, download) = if tunnel.post {
        let (near, far) = tokio::io::duplex(WAITING);
        let (upload, download) = tokio::io::split(far);
        (Some(near), Some(upload), Some(download))
    } else {
        (None, None, None)
    };
    let request = request(tunnel, http2, Upload(upload)).map_err(|error| error.to_string())?;
    let response = send(io, request, http2)
        .await
        .map_err(|error| error.to_string())?;
    if !response.status().is_success() {
        let (target, status) = (&tunnel.authority, response.status().as_u16());
        return Err(format!("the tunnel to {target} was refused with {status}"));
    }
    let (Some(near), Some(download)) = (near, download) else {
        let upgraded = hyper::upgrade::on(response)
            .await
            .map_err(|error| error.to_string())?;
        return Ok(Io::tunnel(TokioIo::new(upgraded)));
    };
    tokio::task::spawn_local(pass_on(response, download));
    Ok(Io::tunnel(near))
}

fn request(tunnel: &Tunnel, http2: bool, body: Upload) -> http::Result<Request<Upload>> {
    let authority = &*tunnel.authority;
    let (method, uri) = match (tunnel.post, http2) {
        (false, _) => (Method::CONNECT, authority.parse::<Uri>()?),
        (true, false) => (Method::POST, tunnel.path.parse::<Uri>()?),
        (true, true) => {
            let uri = Uri::builder()
                .scheme("http")
                .authority(authority)
                .path_and_query(&*tunnel.path);
            (Method::POST, uri.build()?)
        }
    };
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    if http2 {
        *request.version_mut() = Version::HTTP_2;
    } else {
        let host = HeaderValue::from_str(authority)?;
        request.headers_mut().insert(header::HOST, host);
    }
    Ok(request)
}

async fn send(io: Io, request: Request<Upload>, http2: bool) -> hyper::Result<Response<Incoming>> {
    let io = TokioIo::new(io);
    if http2 {
        let (mut sender, connection) = http2::Builder::new(LocalExec)
            .timer(TokioTimer::new())
            .handshake(io)
            .await?;
        tokio::task::spawn_local(connection);
        return sender.send_request(request).await;
    }
    let (mut sender, connection) = http1::Builder::new().handshake(io).await?;
    tokio::task::spawn_local(connection.with_upgrades());
    sender.send_request(request).await
}

/// The answer's body is what the other end says.
async fn pass_on(response: Response<Incoming>, mut to: WriteHalf<DuplexStream>) {
    let mut body = response.into_body();
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data()
            && to.write_all(&data).await.is_err()
        {
            return;
        }
    }
    // Nobody reads any more, or now knows that nothing more comes.
    let _ = to.shutdown().await;
}

/// What this end says, as the body of a POST; CONNECT has none.
struct Upload(Option<ReadHalf<DuplexStream>>);

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some(from) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let mut piece = vec![0; PIECE];
        let mut buffer = ReadBuf::new(&mut piece);
        ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
        let count = buffer.filled().len();
        if count == 0 {
            self.0 = None;
            return Poll::Ready(None);
        }
        piece.truncate(count);
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}
