//! Bodies on an HTTP/2 stream. What was taken from a stream is given back to its window at once, so the peer may send as
//! fast as the other side of the proxy takes it, and not faster.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::http::body::{Limited, RequestBody};

/// A body that is coming in.
pub struct Body {
    stream: RecvStream,
    /// Only trailers can follow.
    data_ended: bool,
    /// The rest of the request, where the answer began before its end.
    upload: Option<Sending<RequestBody>>,
}

impl Body {
    pub fn new(stream: RecvStream, upload: Option<Sending<RequestBody>>) -> Self {
        Self {
            stream,
            data_ended: false,
            upload,
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = self.get_mut();
        if let Some(upload) = &mut this.upload
            && upload.poll(cx).is_ready()
        {
            // An upload that failed has reset the stream: reading says so.
            this.upload = None;
        }
        if !this.data_ended {
            match ready!(this.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    this.stream.flow_control().release_capacity(data.len())?;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // The peer needs no more of the request; its answer is whole (RFC 9113 §8.1).
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => this.data_ended = true,
            }
        }
        match ready!(this.stream.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
            Err(error) if error.reason() == Some(Reason::NO_ERROR) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() {
            SizeHint::with_exact(0)
        } else {
            SizeHint::default()
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Body").field(&self.stream).finish()
    }
}

/// Why a body did not leave whole.
#[derive(Debug)]
pub enum Unsent<E> {
    /// Where it comes from broke off.
    Source(E),
    Stream(h2::Error),
}

/// A body that is going out.
pub struct Sending<B> {
    body: B,
    stream: SendStream<Bytes>,
}

impl<B: HttpBody<Data = Bytes> + Limited + Unpin> Sending<B> {
    pub fn new(body: B, stream: SendStream<Bytes>) -> Self {
        Self { body, stream }
    }

    /// Sends what there is and what the peer's window takes. Ready when all has been sent, or cannot be.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unsent<B::Error>>> {
        loop {
            // Nothing is taken from the source before there is room for some of it.
            self.stream.reserve_capacity(1);
            if self.stream.capacity() == 0 {
                let capacity = match self.stream.poll_capacity(cx) {
                    Poll::Ready(capacity) => capacity,
                    Poll::Pending => {
                        // A peer that opens no window is not waited for any longer than one that sends nothing.
                        ready!(self.body.poll_overdue(cx));
                        self.stream.send_reset(Reason::INTERNAL_ERROR);
                        return Poll::Ready(Err(Unsent::Stream(Reason::INTERNAL_ERROR.into())));
                    }
                };
                match capacity {
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => return Poll::Ready(Err(Unsent::Stream(error))),
                    None => return Poll::Ready(Err(Unsent::Stream(Reason::CANCEL.into()))),
                }
            } else if let Poll::Ready(reset) = self.stream.poll_reset(cx) {
                let error = reset.map_or_else(|error| error, h2::Error::from);
                return Poll::Ready(Err(Unsent::Stream(error)));
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            let (result, last) = match frame {
                None => (self.stream.send_data(Bytes::new(), true), true),
                Some(Err(error)) => {
                    self.stream.send_reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(Err(Unsent::Source(error)));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let last = self.body.is_end_stream();
                        (self.stream.send_data(data, last), last)
                    }
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        (self.stream.send_trailers(trailers), true)
                    }
                },
            };
            match result {
                Ok(()) if last => return Poll::Ready(Ok(())),
                Ok(()) => {}
                Err(error) => return Poll::Ready(Err(Unsent::Stream(error))),
            }
        }
    }
}
