//! Serves the streams of a downstream connection, each in a task of its own. When the connection should end, the peer is told
//! (GOAWAY), and the streams that run are finished.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Poll, ready},
};

use bytes::Bytes;
use h2::{
    RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::{Method, Request, Response, header};
use http_body::Body as _;

use super::{
    body::{Body, Sending},
    ping,
};
use crate::{
    config::{hcm::Hcm, scalar::Http2},
    conn::io::Io,
    http::{
        HttpConn,
        body::{Incoming, ResponseBody},
        date::date,
        exchange::{self, Arrived},
    },
};

/// Serves a connection until it ends. When it should, for whatever reason, the peer is told.
pub async fn serve(http: &Rc<HttpConn>, hcm: &Hcm, io: Io) -> Result<(), h2::Error> {
    let mut builder = Builder::new();
    builder
        .initial_window_size(hcm.http2.initial_stream_window)
        .initial_connection_window_size(hcm.http2.initial_connection_window)
        .max_concurrent_streams(hcm.http2.max_concurrent_streams)
        .max_header_list_size(u32::try_from(hcm.limits.max_request_headers_bytes).unwrap_or(u32::MAX));
    if hcm.http2.allow_connect {
        builder.enable_connect_protocol();
    }
    let mut connection: Connection<Io, Bytes> = builder.handshake(io).await?;
    let Http2 {
        keepalive_interval: interval,
        keepalive_timeout: patience,
        ..
    } = hcm.http2;
    // What is not configured costs nothing.
    let mut lost = interval.map(|interval| Box::pin(ping::lost(connection.ping_pong(), interval, patience)));
    let mut leaving = false;
    poll_fn(|cx| {
        if !leaving && http.poll_end(cx).is_ready() {
            connection.graceful_shutdown();
            leaving = true;
        }
        if lost
            .as_mut()
            .is_some_and(|lost| lost.as_mut().poll(cx).is_ready())
        {
            return Poll::Ready(Ok(()));
        }
        while let Some(accepted) = ready!(connection.poll_accept(cx)) {
            let (request, respond) = accepted?;
            tokio::task::spawn_local(stream(http.clone(), request, respond));
        }
        Poll::Ready(Ok(()))
    })
    .await
}

/// One request and its answer. What goes wrong here is the stream's own end.
async fn stream(http: Rc<HttpConn>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (parts, recv) = request.into_parts();
    let head = parts.method == Method::HEAD;
    let arrived = Arrived {
        parts,
        spelling: None,
        body: Incoming::Http2(Body::new(recv, None)),
    };
    let response = {
        let mut exchange = pin!(exchange::run(http, arrived));
        poll_fn(|cx| {
            if let Poll::Ready(response) = exchange.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            // The peer no longer wants the answer.
            respond.poll_reset(cx).map(|_| None)
        })
        .await
    };
    let Some(response) = response else { return };
    if let Err(error) = answer(&mut respond, response, head).await {
        tracing::debug!(%error, "an HTTP/2 stream ended early");
    }
}

async fn answer(
    respond: &mut SendResponse<Bytes>,
    response: Response<ResponseBody>,
    head: bool,
) -> Result<(), h2::Error> {
    let (mut parts, mut body) = response.into_parts();
    if head {
        // The answer to a HEAD has no body, whatever it could have been.
        while poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.is_some() {}
    }
    if !parts.headers.contains_key(header::DATE) {
        parts.headers.insert(header::DATE, date());
    }
    let bodiless = head || body.is_end_stream();
    let stream = respond.send_response(Response::from_parts(parts, ()), bodiless)?;
    if bodiless {
        return Ok(());
    }
    let mut sending = Sending::new(body, stream);
    // A body that breaks off has reset the stream already, or the peer has.
    let _broken = poll_fn(|cx| sending.poll(cx)).await;
    Ok(())
}
