//! One request and its answer on an upstream connection. The whole exchange runs in the task that asked for it: the
//! request's body is sent while the answer is awaited and, if it is long, while the answer's body is being read.

use std::{future::poll_fn, rc::Rc, task::Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::Body as _;

use super::{
    Error, Manner,
    encode::{self, Encoder, RequestLine},
    head::{self, BadHead},
    spelling::Spelling,
    wire::{Body, Wire},
};
use crate::http::body::RequestBody;

/// The largest head of an answer.
const HEAD: usize = 64 * 1024;
/// Interim answers (RFC 9110 §15.2) that one request may get.
const INTERIM: usize = 16;

/// What is asked.
pub struct Ask<'a> {
    pub line: RequestLine<'a>,
    pub headers: &'a HeaderMap,
    pub spelling: Option<&'a Spelling>,
    /// The request asks to switch protocols.
    pub upgrade: bool,
    /// The most headers that an answer may have.
    pub max_headers: usize,
}

/// Sends a request and waits for the head of its answer.
pub async fn send(
    wire: &Rc<Wire>,
    ask: Ask<'_>,
    body: RequestBody,
) -> Result<(Response<Body>, Manner), Error> {
    wire.flushed.set(0);
    let encoder = if !body.is_end_stream() {
        Encoder::for_headers(ask.headers)?
    } else {
        Encoder::None
    };
    wire.write(|out| encode::request(out.tail(), &ask.line, ask.headers, ask.spelling, encoder));
    if encoder != Encoder::None {
        wire.begin_upload(body, encoder);
    }
    let (method, upgrade, max) = (ask.line.method, ask.upgrade, ask.max_headers);
    let mut interim = 0;
    let mut unsent = None;
    poll_fn(|cx| {
        if unsent.is_none()
            && let Poll::Ready(Err(error)) = wire.poll_upload(cx)
        {
            if matches!(error, Error::Source | Error::Length) {
                return Poll::Ready(Err(error));
            }
            // The peer may have answered before it stopped listening.
            unsent = Some(error);
        }
        loop {
            while let Some(head) = wire.take_head(HEAD)? {
                if let Some(answer) = read(wire, &head, method, upgrade, max)? {
                    return Poll::Ready(Ok(answer));
                }
                interim += 1;
                if interim > INTERIM {
                    return Poll::Ready(Err(BadHead::Status.into()));
                }
            }
            match wire.poll_fill(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return Poll::Ready(Err(unsent.take().unwrap_or(Error::Closed))),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(unsent.take().unwrap_or(error.into()))),
            }
        }
    })
    .await
}

/// Reads an answer's head; an interim one is nothing.
fn read(
    wire: &Rc<Wire>,
    head: &Bytes,
    method: &Method,
    upgrade: bool,
    max_headers: usize,
) -> Result<Option<(Response<Body>, Manner)>, Error> {
    let head = head::response(head, method, max_headers, &mut wire.known.borrow_mut())?;
    let switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
    if switched && !upgrade {
        return Err(BadHead::Status.into());
    }
    if head.status.is_informational() && !switched {
        return Ok(None);
    }
    wire.begin_body(head.body);
    if !head.persistent || switched {
        wire.persistent.set(false);
    }
    let mut response = Response::new(Body(wire.clone()));
    *response.status_mut() = head.status;
    *response.version_mut() = head.version;
    *response.headers_mut() = head.headers;
    Ok(Some((response, head.manner)))
}
