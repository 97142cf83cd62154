//! Bodies on their way through. A request's body is read from the downstream as the upstream takes it, and counted; where
//! a retry may need it again it is kept, up to a bound. A response's body is passed on as it comes; its end, or its
//! being dropped, is the end of the exchange.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use super::{
    exchange::Tail,
    http1::{self, Manner},
    http2, mirror,
    timeout::Clock,
    upgrade::Switched,
};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// A body that is coming in, from either codec.
#[derive(Debug)]
pub enum Incoming {
    Http1(http1::wire::Body),
    Http2(http2::body::Body),
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("{0}")]
    Http1(#[from] http1::Error),
    #[error("{0}")]
    Http2(#[from] h2::Error),
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(Broken::from))),
            Self::Http2(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(Broken::from))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

/// Where a request's body comes from; shared by the attempts of one exchange.
#[derive(Debug)]
pub struct Source {
    incoming: RefCell<Incoming>,
    kept: RefCell<Vec<Frame<Bytes>>>,
    /// How many more bytes may be kept; `None`: nothing is kept (any more).
    room: Cell<Option<usize>>,
    /// Bytes that came from the downstream.
    pub received: Cell<u64>,
    /// When the last byte came.
    pub ended: Cell<Option<Instant>>,
    /// The downstream failed while sending it.
    pub failed: Cell<bool>,
    /// What it sent is malformed.
    pub malformed: Cell<bool>,
    /// A copy goes to a mirror.
    pub tee: std::cell::OnceCell<mirror::Tee>,
    clock: Option<Rc<Clock>>,
}

impl Source {
    /// A body of which up to `keep` bytes stay available for further attempts.
    pub fn new(incoming: Incoming, keep: Option<usize>, clock: Option<Rc<Clock>>) -> Rc<Self> {
        Rc::new(Self {
            incoming: RefCell::new(incoming),
            kept: RefCell::default(),
            room: Cell::new(keep),
            received: Cell::new(0),
            ended: Cell::new(None),
            failed: Cell::new(false),
            malformed: Cell::new(false),
            tee: std::cell::OnceCell::new(),
            clock,
        })
    }

    /// Can another attempt read it from the start?
    pub fn can_replay(&self) -> bool {
        self.room.get().is_some() || self.received.get() == 0 && self.ended.get().is_none()
    }

    /// No further attempt will follow: what was kept can go.
    pub fn release(&self) {
        self.room.set(None);
        self.kept.borrow_mut().clear();
    }

    fn keep(&self, data: &Bytes) {
        let Some(room) = self.room.get() else { return };
        match room.checked_sub(data.len()) {
            Some(left) => {
                self.room.set(Some(left));
                self.kept.borrow_mut().push(Frame::data(data.clone()));
            }
            None => self.release(),
        }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let frame = ready!(Pin::new(&mut *self.incoming.borrow_mut()).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => match (frame.data_ref(), frame.trailers_ref()) {
                (Some(data), _) => {
                    self.received.set(self.received.get() + data.len() as u64);
                    self.keep(data);
                    if let Some(clock) = &self.clock {
                        clock.touch();
                    }
                    if let Some(tee) = self.tee.get() {
                        tee.data(data);
                    }
                }
                (None, Some(trailers)) if self.room.get().is_some() => {
                    self.kept.borrow_mut().push(Frame::trailers(trailers.clone()));
                }
                _ => {}
            },
            Some(Err(error)) => {
                self.failed.set(true);
                self.malformed
                    .set(matches!(error, Broken::Http1(http1::Error::Body(_))));
            }
            None => {}
        }
        if self.ended.get().is_none() && (frame.is_none() || self.incoming.borrow().is_end_stream()) {
            self.ended.set(Some(Instant::now()));
            if let Some(clock) = &self.clock {
                clock.request_read(Instant::now());
            }
            if let Some(tee) = self.tee.get() {
                tee.end();
            }
        }
        Poll::Ready(frame)
    }
}

/// A request's body as one attempt sends it.
#[derive(Debug)]
pub struct RequestBody {
    source: Option<Rc<Source>>,
    /// The next kept frame to send.
    position: usize,
}

impl RequestBody {
    pub fn empty() -> Self {
        Self {
            source: None,
            position: 0,
        }
    }

    pub fn of(source: Rc<Source>) -> Self {
        Self {
            source: Some(source),
            position: 0,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(source) = self.source.clone() else {
            return Poll::Ready(None);
        };
        let kept = source.kept.borrow().get(self.position).map(copy_of);
        if let Some(frame) = kept {
            self.position += 1;
            return Poll::Ready(Some(Ok(frame)));
        }
        let before = source.kept.borrow().len();
        let frame = ready!(source.poll(cx));
        if source.kept.borrow().len() > before {
            self.position += 1;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            None => true,
            Some(source) => {
                self.position >= source.kept.borrow().len() && source.incoming.borrow().is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            None => SizeHint::with_exact(0),
            Some(source) if source.received.get() == 0 => source.incoming.borrow().size_hint(),
            // Some of it was read by an earlier attempt; the headers say how long it is.
            Some(_) => SizeHint::default(),
        }
    }
}

fn copy_of(frame: &Frame<Bytes>) -> Frame<Bytes> {
    match (frame.data_ref(), frame.trailers_ref()) {
        (Some(data), _) => Frame::data(data.clone()),
        (None, Some(trailers)) => Frame::trailers(trailers.clone()),
        (None, None) => Frame::data(Bytes::new()),
    }
}

/// Why an answer broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the upstream broke off its answer: {0}")]
    Upstream(Broken),
    #[error("a limit of time passed before the answer was complete")]
    Overdue,
}

/// A response's body as the downstream gets it.
pub enum ResponseBody {
    /// Made here.
    Local {
        bytes: Option<Bytes>,
        tail: Option<Tail>,
    },
    /// From the upstream.
    Upstream {
        incoming: Incoming,
        tail: Tail,
        /// How it was written, for a downstream that speaks HTTP/1.x.
        manner: Manner,
    },
    /// The end of HTTP: what follows the head is another protocol's.
    Switched(Box<Switched>),
}

impl ResponseBody {
    pub fn nothing() -> Self {
        Self::Local {
            bytes: None,
            tail: None,
        }
    }

    /// How the answer's head is to be written.
    pub fn manner(&mut self) -> Manner {
        match self {
            Self::Upstream { manner, .. } => std::mem::take(manner),
            Self::Switched(switched) => std::mem::take(&mut switched.manner),
            Self::Local { .. } => Manner::default(),
        }
    }
}

/// Bodies that may take too long to be taken.
pub trait Limited {
    /// Ready when a limit has passed, after which nothing more of the body will come.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

impl Limited for RequestBody {
    /// Its exchange looks at the time.
    fn poll_overdue(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Limited for ResponseBody {
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Upstream { tail, .. } => match tail.overdue(cx) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            },
            Self::Local { .. } | Self::Switched(_) => Poll::Pending,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Local { bytes, tail } => {
                let data = bytes.take();
                if let Some(tail) = tail {
                    tail.sent(data.as_ref().map_or(0, Bytes::len));
                    tail.complete();
                }
                Poll::Ready(data.map(|data| Ok(Frame::data(data))))
            }
            Self::Switched(_) => Poll::Ready(None),
            Self::Upstream { incoming, tail, .. } => {
                if tail.overdue(cx) {
                    return Poll::Ready(Some(Err(BodyError::Overdue)));
                }
                let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
                match &frame {
                    Some(Ok(frame)) => {
                        if let Some(data) = frame.data_ref() {
                            tail.sent(data.len());
                        } else if let Some(trailers) = frame.trailers_ref() {
                            tail.trailers(trailers);
                        }
                        if incoming.is_end_stream() {
                            tail.complete();
                        }
                    }
                    Some(Err(error)) => tail.failed(error),
                    None => tail.complete(),
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Upstream)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local { bytes, .. } => bytes.is_none(),
            Self::Upstream { incoming, .. } => incoming.is_end_stream(),
            Self::Switched(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local { bytes, .. } => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Upstream { incoming, .. } => incoming.size_hint(),
            Self::Switched(_) => SizeHint::with_exact(0),
        }
    }
}
