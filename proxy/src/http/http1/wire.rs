//! One HTTP/1.1 connection: its byte stream, what was read ahead, what is still to be written, and where the body that is
//! being read stands. The same for both sides; `server` and `client` are the two orders of events on it.
//!
//! A connection that waits holds no buffer: heads are read into a buffer of the thread, and what is written goes out at
//! once. Bounds: what is kept for a slow reader is at most [`HIGH`] and one frame; what is read ahead while an exchange runs is
//! at most [`AHEAD`].

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{self, IoSlice},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::{
    Error,
    chunk::{BadBody, Decoded, Decoder},
    encode::Encoder,
    head::{self, BadHead},
    spelling::Known,
};
use crate::{conn::io::Io, http::body::RequestBody};

/// What may wait to be written before its source is asked for more.
pub const HIGH: usize = 64 * 1024;
/// What is read ahead of the exchange that runs (pipelined requests).
const AHEAD: usize = 16 * 1024;
/// Read at once where little is expected, and where a body of at least that size is coming.
const SCRATCH: usize = 16 * 1024;
const BULK: usize = 64 * 1024;
/// Pieces up to this size are copied together, larger ones are written from where they are.
const COPY: usize = 4 * 1024;
/// Pieces in one write.
const PIECES: usize = 16;
/// Empty buffers that a worker keeps.
const SPARE: usize = 32;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
    static SPARES: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// What is to be written, in order.
#[derive(Debug, Default)]
pub struct Out {
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    waiting: usize,
}

impl Out {
    /// Where small things are put.
    pub fn tail(&mut self) -> &mut BytesMut {
        if self.tail.capacity() == 0 {
            self.tail = SPARES
                .with_borrow_mut(Vec::pop)
                .unwrap_or_else(|| BytesMut::with_capacity(2048));
        }
        &mut self.tail
    }

    pub fn push(&mut self, data: Bytes) {
        if data.len() <= COPY {
            self.tail().extend_from_slice(&data);
            return;
        }
        if !self.tail.is_empty() {
            let tail = self.tail.split().freeze();
            self.waiting += tail.len();
            self.pieces.push_back(tail);
        }
        self.waiting += data.len();
        self.pieces.push_back(data);
    }

    pub fn len(&self) -> usize {
        self.waiting + self.tail.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = if self.pieces.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, &self.tail))?
            } else {
                let mut slices = [IoSlice::new(&[]); PIECES];
                let mut count = 0;
                let rest = (!self.tail.is_empty()).then_some(&*self.tail);
                let all = self.pieces.iter().map(|piece| &**piece).chain(rest);
                for (slice, piece) in slices.iter_mut().zip(all) {
                    *slice = IoSlice::new(piece);
                    count += 1;
                }
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices[..count]))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written(written);
        }
        self.release();
        Poll::Ready(Ok(()))
    }

    fn written(&mut self, mut count: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            let part = count.min(piece.len());
            piece.advance(part);
            self.waiting -= part;
            count -= part;
            if !piece.is_empty() {
                return;
            }
            self.pieces.pop_front();
        }
        self.tail.advance(count);
    }

    /// Everything is written: the buffer is the next one's.
    fn release(&mut self) {
        let mut tail = std::mem::take(&mut self.tail);
        tail.clear();
        SPARES.with_borrow_mut(|spares| {
            if spares.len() < SPARE && (1..=HIGH).contains(&tail.capacity()) {
                spares.push(tail);
            }
        });
    }

    #[cfg(test)]
    pub fn take_all(&mut self) -> Vec<u8> {
        let mut all: Vec<u8> = self.pieces.drain(..).flatten().collect();
        all.extend_from_slice(&std::mem::take(&mut self.tail));
        self.waiting = 0;
        all
    }
}

/// A body that is being sent while the answer is awaited.
struct Upload {
    body: RequestBody,
    encoder: Encoder,
}

/// One connection.
pub struct Wire {
    /// `None` once it was handed over to something that is not HTTP.
    io: RefCell<Option<Io>>,
    input: RefCell<BytesMut>,
    /// So much of `input` has no end of a head in it.
    searched: Cell<usize>,
    /// The peer sends nothing more.
    ended: Cell<bool>,
    decoder: Cell<Decoder>,
    out: RefCell<Out>,
    upload: RefCell<Option<Upload>>,
    /// Bytes of the present message that have left.
    pub flushed: Cell<u64>,
    /// The reader of the body must first say `100 Continue`.
    pub owes_continue: Cell<bool>,
    /// Both sides want to use the connection again.
    pub persistent: Cell<bool>,
    pub known: RefCell<Known>,
}

impl Wire {
    pub fn new(io: Io) -> Rc<Self> {
        Rc::new(Self {
            io: RefCell::new(Some(io)),
            input: RefCell::default(),
            searched: Cell::new(0),
            ended: Cell::new(false),
            decoder: Cell::new(Decoder::Done),
            out: RefCell::default(),
            upload: RefCell::default(),
            flushed: Cell::new(0),
            owes_continue: Cell::new(false),
            persistent: Cell::new(true),
            known: RefCell::default(),
        })
    }

    /// Reads once. `Ok(false)`: the peer sends nothing more.
    pub fn poll_fill(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut io = self.io.borrow_mut();
        let Some(io) = io.as_mut().filter(|_| !self.ended.get()) else {
            return Poll::Ready(Ok(false));
        };
        let mut input = self.input.borrow_mut();
        let count = if self.decoder.get().expected() >= BULK as u64 {
            input.reserve(BULK);
            ready!(pin!(io.read_buf(&mut *input)).poll(cx))?
        } else {
            ready!(read_some(io, cx, &mut input))?
        };
        self.ended.set(count == 0);
        Poll::Ready(Ok(count > 0))
    }

    /// The bytes of the next head, if they are there.
    pub fn take_head(&self, limit: usize) -> Result<Option<Bytes>, BadHead> {
        let mut input = self.input.borrow_mut();
        if input.is_empty() {
            return Ok(None);
        }
        match head::end(&input, self.searched.get())? {
            Some(end) if end <= limit => {
                self.searched.set(0);
                let head = input.split_to(end).freeze();
                if input.is_empty() {
                    *input = BytesMut::new();
                }
                Ok(Some(head))
            }
            None if input.len() < limit => {
                // A part of the end may already be there.
                self.searched.set(input.len().saturating_sub(3));
                Ok(None)
            }
            Some(_) | None => Err(BadHead::TooLarge(limit)),
        }
    }

    /// Has anything come of a next message?
    pub fn has_input(&self) -> bool {
        !self.input.borrow().is_empty()
    }

    /// The head said how its body is framed.
    pub fn begin_body(&self, decoder: Decoder) {
        self.decoder.set(decoder);
    }

    pub fn body_is_done(&self) -> bool {
        self.decoder.get().is_done()
    }

    /// The next piece of the body that is being read.
    fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.owes_continue.take() {
            let say = Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n");
            self.out.borrow_mut().push(say);
        }
        if let Poll::Ready(Err(error)) = self.poll_upload(cx) {
            // The answer may be complete all the same; only the connection cannot be used again.
            tracing::debug!(%error, "the request's body could not be sent whole");
        }
        loop {
            let mut decoder = self.decoder.get();
            let decoded = decoder.decode(&mut self.input.borrow_mut(), self.ended.get());
            self.decoder.set(decoder);
            return Poll::Ready(match decoded {
                Ok(Decoded::Data(data)) => Some(Ok(Frame::data(data))),
                Ok(Decoded::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
                Ok(Decoded::End) => None,
                Ok(Decoded::More) => {
                    if let Err(error) = ready!(self.poll_fill(cx)) {
                        self.persistent.set(false);
                        Some(Err(error.into()))
                    } else {
                        continue;
                    }
                }
                Err(error) => {
                    self.persistent.set(false);
                    let closed = error == BadBody::Incomplete;
                    Some(Err(if closed { Error::Closed } else { error.into() }))
                }
            });
        }
    }

    /// Puts something into what is to be written.
    pub fn write<T>(&self, put: impl FnOnce(&mut Out) -> T) -> T {
        put(&mut self.out.borrow_mut())
    }

    /// Everything that is to be written has left.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut io = self.io.borrow_mut();
        let Some(io) = io.as_mut() else {
            return Poll::Ready(Ok(()));
        };
        let mut out = self.out.borrow_mut();
        let before = out.len();
        let result = out.poll_write(cx, io);
        self.flushed.set(self.flushed.get() + (before - out.len()) as u64);
        ready!(result)?;
        Pin::new(io).poll_flush(cx)
    }

    /// Begins to send a body beside whatever else happens.
    pub fn begin_upload(&self, body: RequestBody, encoder: Encoder) {
        *self.upload.borrow_mut() = Some(Upload { body, encoder });
    }

    pub fn is_uploading(&self) -> bool {
        self.upload.borrow().is_some()
    }

    /// Sends what there is of the body. Ready when all of it has left, or cannot.
    pub fn poll_upload(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            let mut slot = self.upload.borrow_mut();
            let Some(upload) = slot.as_mut() else { break };
            if self.out.borrow().len() >= HIGH {
                drop(slot);
                if let Err(error) = ready!(self.poll_flush(cx)) {
                    return Poll::Ready(Err(self.give_up_upload(error.into())));
                }
                continue;
            }
            let frame = match Pin::new(&mut upload.body).poll_frame(cx) {
                Poll::Pending => break,
                Poll::Ready(frame) => frame,
            };
            let mut out = self.out.borrow_mut();
            let done = match frame {
                None => upload.encoder.end(&mut out, None).map(|()| true),
                Some(Err(_)) => Err(Error::Source),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => upload.encoder.data(&mut out, data).map(|()| false),
                    Err(frame) => upload.encoder.end(&mut out, frame.trailers_ref()).map(|()| true),
                },
            };
            drop(out);
            match done {
                Ok(false) => {}
                Ok(true) => *slot = None,
                Err(error) => {
                    drop(slot);
                    return Poll::Ready(Err(self.give_up_upload(error)));
                }
            }
        }
        if !self.out.borrow().is_empty()
            && let Err(error) = ready!(self.poll_flush(cx))
        {
            return Poll::Ready(Err(self.give_up_upload(error.into())));
        }
        if self.is_uploading() {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn give_up_upload(&self, error: Error) -> Error {
        self.persistent.set(false);
        *self.upload.borrow_mut() = None;
        *self.out.borrow_mut() = Out::default();
        error
    }

    /// While nothing is expected of the peer: has it gone? One that only says that it will send no more counts as gone,
    /// as in Envoy. Bytes that come too early are kept, up to a bound.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<Error> {
        while self.input.borrow().len() < AHEAD {
            match ready!(self.poll_fill(cx)) {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(Error::Closed),
                Err(error) => return Poll::Ready(error.into()),
            }
        }
        Poll::Pending
    }

    /// Could another request go over this connection now?
    pub fn is_idle_and_open(&self) -> bool {
        self.is_reusable() && {
            let cx = &mut Context::from_waker(Waker::noop());
            let silent = match self.io.borrow().as_ref() {
                Some(io) => io.tcp().is_some_and(|tcp| tcp.poll_read_ready(cx).is_pending()),
                None => return false,
            };
            // Something came: with TLS it may be nothing for us, else it is the end, or nobody asked for it.
            silent || self.poll_fill(cx).is_pending()
        }
    }

    /// Did the last exchange end in order, on both sides?
    pub fn is_reusable(&self) -> bool {
        self.persistent.get()
            && self.body_is_done()
            && !self.ended.get()
            && !self.is_uploading()
            && !self.has_input()
            && self.out.borrow().is_empty()
    }

    /// Takes the byte stream, for what comes after HTTP; what was read ahead is put back.
    pub fn into_io(&self) -> Option<Io> {
        let mut io = self.io.borrow_mut().take()?;
        let ahead = self.input.borrow_mut().split().freeze();
        if !ahead.is_empty() {
            io.unread(ahead);
        }
        Some(io)
    }

    /// Says that nothing more will be written.
    pub fn poll_close(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        match self.io.borrow_mut().as_mut() {
            Some(io) => Pin::new(io).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Throws away what has come.
    pub fn discard_input(&self) {
        self.input.borrow_mut().clear();
    }
}

/// Reads what there is, by way of the thread's buffer.
fn read_some(io: &mut Io, cx: &mut Context<'_>, input: &mut BytesMut) -> Poll<io::Result<usize>> {
    READ.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(io).poll_read(cx, &mut buffer))?;
        input.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    })
}

/// The body that is being read from a connection.
pub struct Body(pub Rc<Wire>);

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.0.poll_body(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.body_is_done()
    }

    fn size_hint(&self) -> SizeHint {
        match self.0.decoder.get() {
            Decoder::Done => SizeHint::with_exact(0),
            Decoder::Length(left) => SizeHint::with_exact(left),
            Decoder::Chunked(_) | Decoder::UntilClose => SizeHint::default(),
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("Body")
            .field(&self.0.decoder.get())
            .finish()
    }
}
