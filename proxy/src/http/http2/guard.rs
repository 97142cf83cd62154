//! Floods that are correct HTTP/2 but no use to anybody: each frame is allowed, so many of them are not. The guard lies between
//! the library and the byte stream, looks at frame headers as they pass, and when a bound is broken gives the library nothing
//! more to read; the connection's task then says ENHANCE_YOUR_CALM and ends it.
//!
//! Bounds and their names are Envoy's (`http2_protocol_options`), but for [`CONTROL`]: Envoy bounds the answers to PING and
//! SETTINGS that wait to be written, while the library here does not read on before they are written, so that nothing piles up;
//! what is left is the work, and it is bounded by rate. What the library bounds itself: the size of header blocks, their
//! CONTINUATION frames, small DATA frames, streams that are reset before they are served.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{Frame, PREFACE, Walk, kind};
use crate::config::scalar::Floods;

/// Frames that need work but move nothing (PING, SETTINGS, GOAWAY, unknown kinds) that may come in a row, within [`WINDOW`].
const CONTROL: u32 = 1000;
const WINDOW: Duration = Duration::from_secs(10);
/// So many streams are looked at before resets are judged, and so young is a stream that was reset too early
/// (`overload.premature_reset_total_stream_count` and `..._min_stream_lifetime_seconds` in Envoy).
const RESETS: u32 = 500;
pub const PREMATURE: Duration = Duration::from_secs(1);

/// What a peer does too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    Empty,
    Priority,
    WindowUpdate,
    Control,
    Resets,
}

impl Flood {
    /// The counter.
    pub fn counter(self) -> &'static str {
        match self {
            Self::Empty => "http2.inbound_empty_frames_flood",
            Self::Priority => "http2.inbound_priority_frames_flood",
            Self::WindowUpdate => "http2.inbound_window_update_frames_flood",
            Self::Control => "http2.inbound_control_frames_flood",
            Self::Resets => "http2.premature_resets_flood",
        }
    }
}

/// The account of one connection.
#[derive(Debug)]
pub struct Watch {
    limits: Floods,
    flood: Cell<Option<Flood>>,
    /// The last stream that the peer opened, and how many.
    last: Cell<u32>,
    opened: Cell<u32>,
    data_sent: Cell<u32>,
    empty: Cell<u32>,
    priorities: Cell<u32>,
    updates: Cell<u32>,
    control: Cell<u32>,
    control_since: Cell<Option<Instant>>,
    closed: Cell<u32>,
    premature: Cell<u32>,
}

impl Watch {
    pub fn new(limits: Floods) -> Rc<Self> {
        Rc::new(Self {
            limits,
            flood: Cell::default(),
            last: Cell::default(),
            opened: Cell::default(),
            data_sent: Cell::default(),
            empty: Cell::default(),
            priorities: Cell::default(),
            updates: Cell::default(),
            control: Cell::default(),
            control_since: Cell::default(),
            closed: Cell::default(),
            premature: Cell::default(),
        })
    }

    /// The bound that was broken, if one was.
    pub fn flood(&self) -> Option<Flood> {
        self.flood.get()
    }

    fn broken(&self, flood: Flood) {
        if self.flood.get().is_none() {
            self.flood.set(Some(flood));
        }
    }

    /// A stream has ended; `reset`: by the peer, before its answer was complete, at this age.
    pub fn stream_ended(&self, reset: Option<Duration>) {
        self.closed.set(self.closed.get().saturating_add(1));
        if reset.is_some_and(|age| age < PREMATURE) {
            self.premature.set(self.premature.get().saturating_add(1));
            // Half of all, of which there are at least so many: what is still to come cannot make it good.
            if self.premature.get().saturating_mul(2) >= self.closed.get().max(RESETS) {
                self.broken(Flood::Resets);
            }
        }
    }

    fn came(&self, frame: Frame) {
        match frame.kind {
            kind::DATA | kind::HEADERS | kind::CONTINUATION => {
                self.control.set(0);
                if frame.length == 0 && !frame.ends_stream() {
                    if add(&self.empty) > self.limits.empty_in_a_row {
                        self.broken(Flood::Empty);
                    }
                } else {
                    self.empty.set(0);
                }
                if frame.kind == kind::HEADERS && frame.stream > self.last.get() {
                    self.last.set(frame.stream);
                    add(&self.opened);
                }
            }
            kind::PRIORITY => {
                let streams = self.opened.get().saturating_add(1);
                if add(&self.priorities) > self.limits.priorities_per_stream.saturating_mul(streams) {
                    self.broken(Flood::Priority);
                }
            }
            kind::WINDOW_UPDATE => {
                let data = self.limits.updates_per_data.saturating_mul(self.data_sent.get());
                let allowed = self.opened.get().saturating_add(data).saturating_mul(2);
                if add(&self.updates) > allowed.saturating_add(5) {
                    self.broken(Flood::WindowUpdate);
                }
            }
            // A stream that is reset was opened before, or the library says what is wrong.
            kind::RST_STREAM | kind::PUSH_PROMISE => {}
            _ if frame.is_ack() => {}
            _ => self.control_came(),
        }
    }

    fn control_came(&self) {
        if add(&self.control) == 1 || self.control.get() > CONTROL {
            let now = Instant::now();
            match self.control_since.get() {
                Some(since) if self.control.get() > 1 && now.duration_since(since) < WINDOW => {
                    self.broken(Flood::Control);
                }
                _ => {
                    self.control.set(1);
                    self.control_since.set(Some(now));
                }
            }
        }
    }

    fn went(&self, frame: Frame) {
        if matches!(frame.kind, kind::DATA | kind::HEADERS) {
            self.control.set(0);
            if frame.kind == kind::DATA {
                add(&self.data_sent);
            }
        }
    }
}

fn add(cell: &Cell<u32>) -> u32 {
    let sum = cell.get().saturating_add(1);
    cell.set(sum);
    sum
}

/// The byte stream, watched.
pub struct Guard<S> {
    io: S,
    watch: Rc<Watch>,
    inbound: Walk,
    outbound: Walk,
}

impl<S> Guard<S> {
    /// Of the server's side of a connection.
    pub fn new(io: S, watch: Rc<Watch>) -> Self {
        Self {
            io,
            watch,
            inbound: Walk::after(PREFACE),
            outbound: Walk::default(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.watch.flood().is_some() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let watch = &this.watch;
        this.inbound
            .over(&buf.filled()[before..], |frame| watch.came(frame));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.io).poll_write(cx, bytes))?;
        let watch = &this.watch;
        this.outbound.over(&bytes[..count], |frame| watch.went(frame));
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, bufs))?;
        let watch = &this.watch;
        let mut left = count;
        for piece in bufs {
            let part = left.min(piece.len());
            this.outbound.over(&piece[..part], |frame| watch.went(frame));
            left -= part;
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: u32, flags: u8, stream: u32) -> Frame {
        Frame {
            length,
            kind,
            flags,
            stream,
        }
    }

    /// How many of these frames come before the flood is noticed.
    fn until(watch: &Watch, one: impl Fn(u32) -> Frame) -> u32 {
        (1..100_000)
            .find(|n| {
                watch.came(one(*n));
                watch.flood().is_some()
            })
            .unwrap_or(0)
    }

    #[test]
    fn floods_are_noticed_where_envoy_notices_them() {
        let watch = || Watch::new(Floods::default());
        assert_eq!(until(&watch(), |_| frame(kind::PRIORITY, 5, 0, 1)), 101);
        assert_eq!(until(&watch(), |_| frame(kind::WINDOW_UPDATE, 4, 0, 0)), 6);
        assert_eq!(until(&watch(), |_| frame(kind::DATA, 0, 0, 1)), 2);
        assert_eq!(until(&watch(), |_| frame(6, 8, 0, 0)), CONTROL + 1);
        assert_eq!(until(&watch(), |_| frame(77, 0, 0, 0)), CONTROL + 1);
        let one = watch();
        one.came(frame(kind::HEADERS, 20, 4, 1));
        for _ in 0..10 {
            one.went(frame(kind::DATA, 100, 0, 1));
        }
        let updates = until(&one, |_| frame(kind::WINDOW_UPDATE, 4, 0, 0));
        assert_eq!(updates, 5 + 2 * (1 + 10 * 10) + 1);
        assert_eq!(one.flood(), Some(Flood::WindowUpdate));
    }

    #[test]
    fn what_moves_something_is_no_flood() {
        let watch = Watch::new(Floods::default());
        for stream in 0..5000 {
            watch.came(frame(kind::HEADERS, 20, 4, 2 * stream + 1));
            watch.came(frame(kind::DATA, 0, 0, 2 * stream + 1));
            watch.came(frame(kind::DATA, 0, 1, 2 * stream + 1));
            for _ in 0..3 {
                watch.came(frame(6, 8, 0, 0));
            }
            watch.came(frame(6, 8, 1, 0));
            watch.came(frame(kind::WINDOW_UPDATE, 4, 0, 0));
            watch.stream_ended(None);
        }
        assert_eq!(watch.flood(), None);
    }

    #[test]
    fn resets_are_judged_by_their_share() {
        let watch = Watch::new(Floods::default());
        for n in 0..2000u32 {
            watch.stream_ended((n % 5 < 2).then_some(Duration::from_millis(10)));
            watch.stream_ended(Some(Duration::from_secs(2)));
        }
        assert_eq!(watch.flood(), None);
        let watch = Watch::new(Floods::default());
        for _ in 0..RESETS / 2 - 1 {
            watch.stream_ended(Some(Duration::ZERO));
        }
        assert_eq!(watch.flood(), None);
        watch.stream_ended(Some(Duration::ZERO));
        assert_eq!(watch.flood(), Some(Flood::Resets));
    }
}
