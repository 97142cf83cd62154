//! Serves the streams of a downstream connection, each in a task of its own. When the connection should end, the peer is told
//! (GOAWAY), and the streams that run are finished.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::{Method, Request, Response, header};
use http_body::Body as _;

use super::{
    body::{Body, Sending, Unsent},
    guard::{Flood, Guard, Watch},
    ping,
};
use crate::{
    config::{hcm::Hcm, scalar::Http2},
    conn::io::Io,
    http::{
        FIRST_BYTES, HttpConn,
        body::{Incoming, ResponseBody},
        date::date,
        exchange::{self, Arrived},
    },
};

/// How long a peer that is told off has to hear it.
const LAST_WORD: Duration = Duration::from_secs(1);

type Streams = Connection<Guard<Io>, Bytes>;

/// Serves a connection until it ends. When it should, for whatever reason, the peer is told.
pub async fn serve(http: &Rc<HttpConn>, hcm: &Hcm, io: Io) -> Result<(), h2::Error> {
    let mut builder = Builder::new();
    builder
        .initial_window_size(hcm.http2.initial_stream_window)
        .initial_connection_window_size(hcm.http2.initial_connection_window)
        .max_concurrent_streams(hcm.http2.max_concurrent_streams)
        // The exchange answers what is larger than configured; what is larger than this is refused before it is put together.
        .max_header_list_size(u32::try_from(2 * hcm.limits.max_request_headers_bytes).unwrap_or(u32::MAX));
    if hcm.http2.allow_connect {
        builder.enable_connect_protocol();
    }
    let watch = Watch::new(hcm.http2.floods);
    let limit = hcm.timeouts.request_headers.unwrap_or(FIRST_BYTES);
    let handshake = builder.handshake(Guard::new(io, watch.clone()));
    let Ok(connection) = tokio::time::timeout(limit, handshake).await else {
        http.stats.downstream_cx_idle_timeout.inc();
        return Ok(());
    };
    let mut connection: Streams = connection?;
    follow(http, hcm, &watch, &mut connection).await?;
    let Some(flood) = watch.flood() else {
        return Ok(());
    };
    http.conn.worker.stats.counter(flood.counter()).inc();
    if flood == Flood::Resets {
        http.stats.downstream_rq_too_many_premature_resets.inc();
    }
    http.stats.downstream_cx_protocol_error.inc();
    tracing::info!(remote = %http.conn.facts.remote, ?flood, "ending an HTTP/2 connection: its peer floods it");
    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
    let last = poll_fn(|cx| connection.poll_closed(cx));
    // Whether the peer hears it is its own affair.
    let _heard = tokio::time::timeout(LAST_WORD, last).await;
    Ok(())
}

/// Takes streams until there are no more, or a bound is broken.
async fn follow(
    http: &Rc<HttpConn>,
    hcm: &Hcm,
    watch: &Rc<Watch>,
    connection: &mut Streams,
) -> Result<(), h2::Error> {
    let Http2 {
        keepalive_interval: interval,
        keepalive_timeout: patience,
        ..
    } = hcm.http2;
    // What is not configured costs nothing.
    let mut lost = interval.map(|interval| Box::pin(ping::lost(connection.ping_pong(), interval, patience)));
    let mut gone = None;
    poll_fn(|cx| {
        if gone.is_none() && http.poll_end(cx).is_ready() {
            connection.graceful_shutdown();
            gone = Some(Box::pin(unheard(http, hcm.timeouts.drain)));
        }
        if let Some(gone) = &mut gone
            && gone.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Ok(()));
        }
        if lost
            .as_mut()
            .is_some_and(|lost| lost.as_mut().poll(cx).is_ready())
        {
            http.conn.worker.stats.counter("http2.keepalive_timeout").inc();
            return Poll::Ready(Ok(()));
        }
        loop {
            let accepted = connection.poll_accept(cx);
            if watch.flood().is_some() {
                return Poll::Ready(Ok(()));
            }
            match accepted {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(accepted)) => {
                    let (request, respond) = accepted?;
                    let owner = Owner {
                        http: http.clone(),
                        watch: watch.clone(),
                        waker: cx.waker().clone(),
                    };
                    tokio::task::spawn_local(stream(owner, request, respond));
                }
            }
        }
    })
    .await
}

/// Returns when the peer that was told to go has nothing here any more and still has not gone: it may be half open.
async fn unheard(http: &HttpConn, patience: Duration) {
    loop {
        tokio::time::sleep(patience.max(LAST_WORD)).await;
        if http.in_flight.get() == 0 {
            return;
        }
    }
}

/// What a stream knows of its connection.
struct Owner {
    http: Rc<HttpConn>,
    watch: Rc<Watch>,
    /// Of the connection's task.
    waker: std::task::Waker,
}

impl Owner {
    /// The stream has ended; `reset`: by the peer, before the end of its answer.
    fn ended(&self, since: Instant, reset: bool) {
        if reset {
            self.http.stats.downstream_rq_rx_reset.inc();
        }
        // A proxy of the mesh hands on what its callers do, and many share its connection.
        let blame = reset && !self.http.carrier;
        self.watch.stream_ended(blame.then(|| since.elapsed()));
        if self.watch.flood().is_some() {
            self.waker.wake_by_ref();
        }
    }
}

/// One request and its answer. What goes wrong here is the stream's own end.
async fn stream(owner: Owner, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let since = Instant::now();
    let (parts, recv) = request.into_parts();
    let head = parts.method == Method::HEAD;
    let arrived = Arrived {
        parts,
        spelling: None,
        body: Incoming::Http2(Body::new(recv, None)),
    };
    let response = {
        let mut exchange = pin!(exchange::run(owner.http.clone(), arrived));
        poll_fn(|cx| {
            if let Poll::Ready(response) = exchange.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            // The peer no longer wants the answer.
            respond.poll_reset(cx).map(|_| None)
        })
        .await
    };
    let Some(response) = response else {
        return owner.ended(since, true);
    };
    let reset = match answer(&mut respond, response, head).await {
        Ok(reset) => reset,
        Err(error) => {
            tracing::debug!(%error, "an HTTP/2 stream ended early");
            error.is_reset() && error.is_remote()
        }
    };
    owner.ended(since, reset);
}

/// Sends the answer; says whether the peer reset the stream meanwhile.
async fn answer(
    respond: &mut SendResponse<Bytes>,
    response: Response<ResponseBody>,
    head: bool,
) -> Result<bool, h2::Error> {
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
        return Ok(false);
    }
    let mut sending = Sending::new(body, stream);
    // A body that breaks off has reset the stream already, or the peer has.
    let sent = poll_fn(|cx| sending.poll(cx)).await;
    Ok(matches!(sent, Err(Unsent::Stream(error)) if error.is_reset() && error.is_remote()))
}
