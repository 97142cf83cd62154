//! Serves requests that come on a downstream connection, one after the other. A request that is not understood is answered
//! with what is wrong with it and ends the connection.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};
use http_body::Body as _;
use tokio::time::timeout;

use super::{
    Error,
    encode::{self, Encoder},
    head::{self, BadHead, RequestHead},
    wire::{Body, HIGH, Wire},
};
use crate::{
    config::hcm::Hcm,
    conn::io::Io,
    http::{
        End, FIRST_BYTES, HttpConn,
        body::{Incoming, Limited as _, ResponseBody},
        date::date,
        exchange::{self, Arrived},
    },
};

/// What may still come of a request that was answered already, before the connection is given up.
const DISCARD: u64 = 1 << 20;
/// How long that may take, and how long a closed connection waits for its peer to close too.
const LINGER: Duration = Duration::from_secs(2);

/// What the answer depends on.
struct Asked {
    method: Method,
    version: Version,
    persistent: bool,
}

/// Serves a connection until it ends.
pub async fn serve(http: Rc<HttpConn>, hcm: &Hcm, io: Io) -> Result<(), Error> {
    let wire = Wire::new(io);
    loop {
        let head = match next(&http, &wire, hcm).await {
            Ok(Some(head)) => head,
            Ok(None) => return close(&wire).await,
            Err(Error::Head(bad)) => {
                refuse(&http, &wire, hcm, bad).await?;
                return Err(bad.into());
            }
            Err(error) => return Err(error),
        };
        let asked = Asked {
            method: head.parts.method.clone(),
            version: head.parts.version,
            persistent: head.persistent,
        };
        wire.begin_body(head.body);
        wire.owes_continue.set(head.expects_continue);
        let response = answer(&http, &wire, head).await?;
        let (persistent, switched) = respond(&http, &wire, hcm, asked, response).await?;
        if let Some(switched) = switched {
            if let Some(io) = wire.into_io() {
                switched.run(io).await;
            }
            return Ok(());
        }
        wire.owes_continue.set(false);
        if !persistent || !rest_discarded(&wire).await {
            return close(&wire).await;
        }
    }
}

/// What has come of a head.
enum Come {
    Head(Bytes),
    /// Some of it.
    Part,
    /// Nothing, and nothing will.
    Nothing,
}

fn poll_head(
    cx: &mut std::task::Context<'_>,
    wire: &Wire,
    limit: usize,
    stop_at_part: bool,
) -> Poll<Result<Come, Error>> {
    loop {
        if let Some(head) = wire.take_head(limit)? {
            return Poll::Ready(Ok(Come::Head(head)));
        }
        match wire.poll_fill(cx) {
            Poll::Pending if stop_at_part && wire.has_input() => return Poll::Ready(Ok(Come::Part)),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(true)) => {}
            Poll::Ready(Ok(false)) if wire.has_input() => return Poll::Ready(Err(Error::Closed)),
            Poll::Ready(Ok(false)) => return Poll::Ready(Ok(Come::Nothing)),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
        }
    }
}

/// The next request's head; `None`: there is none, the peer has closed in order.
async fn next(http: &HttpConn, wire: &Wire, hcm: &Hcm) -> Result<Option<RequestHead>, Error> {
    let limit = hcm.limits.max_request_headers_bytes;
    let come = poll_fn(|cx| match poll_head(cx, wire, limit, true) {
        // HTTP/1.1 has no way to say "no more" but in an answer; a draining process waits for that.
        Poll::Pending => match http.poll_end(cx) {
            Poll::Ready(End::Idle | End::Old) => Poll::Ready(Ok(Come::Nothing)),
            Poll::Ready(End::Drain) | Poll::Pending => Poll::Pending,
        },
        come => come,
    });
    let head = match come.await? {
        Come::Head(head) => head,
        Come::Nothing => return Ok(None),
        // Only a head that comes in pieces needs a timer.
        Come::Part => {
            let rest = poll_fn(|cx| poll_head(cx, wire, limit, false));
            let limit = hcm.timeouts.request_headers.unwrap_or(FIRST_BYTES);
            let come = timeout(limit, rest).await.unwrap_or(Err(BadHead::Late.into()));
            match come? {
                Come::Head(head) => head,
                Come::Nothing | Come::Part => return Ok(None),
            }
        }
    };
    let max = hcm.limits.max_headers_count;
    Ok(Some(head::request(&head, max, &mut wire.known.borrow_mut())?))
}

/// Has the exchange answer, while the peer is watched.
async fn answer(
    http: &Rc<HttpConn>,
    wire: &Rc<Wire>,
    head: RequestHead,
) -> Result<Response<ResponseBody>, Error> {
    let arrived = Arrived {
        parts: head.parts,
        spelling: head.spelling,
        body: Incoming::Http1(Body(wire.clone())),
    };
    // The exchange is large and short-lived: a waiting connection should not have room for one.
    let mut exchange: Pin<Box<dyn Future<Output = _>>> = Box::pin(exchange::run(http.clone(), arrived));
    poll_fn(|cx| {
        if let Poll::Ready(response) = exchange.as_mut().poll(cx) {
            return Poll::Ready(Ok(response));
        }
        // While its body is read, reading is the reader's.
        if wire.body_is_done()
            && let Poll::Ready(error) = wire.poll_gone(cx)
        {
            return Poll::Ready(Err(error));
        }
        Poll::Pending
    })
    .await
}

/// Writes the answer. Says whether another request may follow, or what follows instead.
async fn respond(
    http: &HttpConn,
    wire: &Wire,
    hcm: &Hcm,
    asked: Asked,
    response: Response<ResponseBody>,
) -> Result<(bool, Option<crate::http::upgrade::Switched>), Error> {
    let (mut parts, mut body) = response.into_parts();
    let manner = body.manner();
    let switched = match body {
        ResponseBody::Switched(switched) => {
            body = ResponseBody::nothing();
            Some(*switched)
        }
        _ => None,
    };
    let (mut encoder, persistent) = plan(&asked, &mut parts.headers, parts.status, &body);
    let leave = http.is_leaving() || head::has_token(&parts.headers, &header::CONNECTION, "close");
    // A body that could not be understood has left the connection where nobody knows what comes next.
    let persistent = persistent && !leave && wire.persistent.get();
    if switched.is_none() {
        say_persistence(&asked, persistent, &mut parts.headers);
    }
    if !parts.headers.contains_key(header::DATE) && switched.is_none() {
        parts.headers.insert(header::DATE, date());
    }
    let version = match asked.version {
        Version::HTTP_10 => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    wire.write(|out| {
        encode::response(
            out.tail(),
            version,
            parts.status,
            &parts.headers,
            &manner,
            encoder,
            hcm.http1.proper_case,
        );
    });
    poll_fn(|cx| poll_body(cx, wire, &mut body, &mut encoder)).await?;
    Ok((persistent, switched))
}

/// How the answer's body is framed, and whether the connection can go on after it.
fn plan(asked: &Asked, headers: &mut HeaderMap, status: StatusCode, body: &ResponseBody) -> (Encoder, bool) {
    let bodiless = status.is_informational() || status == StatusCode::NO_CONTENT;
    if asked.method == Method::HEAD || status == StatusCode::NOT_MODIFIED || bodiless {
        return (Encoder::None, asked.persistent);
    }
    if let Some(length) = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| head::number(value).ok())
    {
        return (Encoder::Length(length), asked.persistent);
    }
    headers.remove(header::CONTENT_LENGTH);
    if let Some(length) = body.size_hint().exact() {
        headers.insert(header::CONTENT_LENGTH, length.into());
        return (Encoder::Length(length), asked.persistent);
    }
    match asked.version {
        Version::HTTP_10 => (Encoder::UntilClose, false),
        _ => (Encoder::Chunked, asked.persistent),
    }
}

/// In HTTP/1.1 connections go on unless somebody says otherwise, in HTTP/1.0 it is the other way round.
fn say_persistence(asked: &Asked, persistent: bool, headers: &mut HeaderMap) {
    match (persistent, asked.version) {
        (false, Version::HTTP_11) => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        (true, Version::HTTP_10) => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
        }
        _ => {}
    }
}

/// Passes the answer's body on, and lets everything leave before more is asked for than is good.
fn poll_body(
    cx: &mut std::task::Context<'_>,
    wire: &Wire,
    body: &mut ResponseBody,
    encoder: &mut Encoder,
) -> Poll<Result<(), Error>> {
    let mut body = Pin::new(body);
    loop {
        if wire.write(|out| out.len()) >= HIGH && wire.poll_flush(cx)?.is_pending() {
            // A peer that does not read is not waited for any longer than one that sends nothing.
            std::task::ready!(body.as_mut().get_mut().poll_overdue(cx));
            return Poll::Ready(Err(Error::Source));
        }
        if body.is_end_stream() {
            wire.write(|out| encoder.end(out, None))?;
            return wire.poll_flush(cx).map_err(Error::from);
        }
        match body.as_mut().poll_frame(cx) {
            Poll::Pending => {
                std::task::ready!(wire.poll_flush(cx))?;
                if wire.body_is_done()
                    && let Poll::Ready(error) = wire.poll_gone(cx)
                {
                    return Poll::Ready(Err(error));
                }
                return Poll::Pending;
            }
            Poll::Ready(None) => {
                wire.write(|out| encoder.end(out, None))?;
                return wire.poll_flush(cx).map_err(Error::from);
            }
            // An answer that breaks off must not look complete; what there is of it goes out.
            Poll::Ready(Some(Err(_))) => {
                let _late = wire.poll_flush(cx)?;
                return Poll::Ready(Err(Error::Source));
            }
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => wire.write(|out| encoder.data(out, data))?,
                Err(frame) => wire.write(|out| encoder.end(out, frame.trailers_ref()))?,
            },
        }
    }
}

/// Reads what is left of a request that was answered without it; false: it is too much, or too slow.
async fn rest_discarded(wire: &Rc<Wire>) -> bool {
    if wire.body_is_done() {
        return true;
    }
    let mut body = Body(wire.clone());
    let mut count = 0;
    let rest = poll_fn(|cx| {
        loop {
            match std::task::ready!(Pin::new(&mut body).poll_frame(cx)) {
                None => return Poll::Ready(true),
                Some(Err(_)) => return Poll::Ready(false),
                Some(Ok(frame)) => {
                    count += frame.data_ref().map_or(0, Bytes::len) as u64;
                    if count > DISCARD {
                        return Poll::Ready(false);
                    }
                }
            }
        }
    });
    timeout(LINGER, rest).await.unwrap_or(false)
}

/// Answers a request that is not understood, and counts and logs it as any other.
async fn refuse(http: &Rc<HttpConn>, wire: &Wire, hcm: &Hcm, bad: BadHead) -> Result<(), Error> {
    match bad {
        BadHead::Late => http.stats.downstream_rq_header_timeout.inc(),
        BadHead::TooLarge(_) | BadHead::TooMany(_) => {
            http.conn.worker.stats.counter("http1.header_overflow").inc();
        }
        _ => {}
    }
    let asked = Asked {
        method: Method::GET,
        version: Version::HTTP_11,
        persistent: false,
    };
    let response = exchange::refuse(http.clone(), bad);
    respond(http, wire, hcm, asked, response).await?;
    close(wire).await
}

/// Closes so that the peer gets to read what was written: a socket that is closed with bytes unread resets.
async fn close(wire: &Wire) -> Result<(), Error> {
    poll_fn(|cx| wire.poll_close(cx)).await?;
    let mut count = 0;
    let rest = poll_fn(|cx| {
        loop {
            wire.discard_input();
            match std::task::ready!(wire.poll_fill(cx)) {
                Ok(true) if count < DISCARD => count += 1,
                _ => return Poll::Ready(()),
            }
        }
    });
    // The peer that does not close in time is left to the kernel.
    let _late = timeout(LINGER, rest).await;
    Ok(())
}
