//! Copies bytes both ways between two streams until both directions have ended.
//!
//! An idle connection holds no buffer: bytes are read into a scratch buffer of the thread and written at once; only
//! what the other side does not take at that moment is kept, at most [`SCRATCH`] bytes a direction, and nothing more is
//! read until it is gone. The end of one direction is passed on as a half-close, the other direction goes on.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// Bytes read at a time, and the most that is kept for a slow reader.
const SCRATCH: usize = 64 * 1024;
/// Reads of one direction before others get their turn.
const TURN: usize = 16;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// What went through, kept where a log can see it while the copy runs.
#[derive(Default)]
pub struct Traffic {
    /// Bytes from the downstream to the upstream.
    pub received: Cell<u64>,
    /// Bytes from the upstream to the downstream.
    pub sent: Cell<u64>,
    /// Told the first byte from the downstream.
    pub first: Cell<Option<First>>,
}

/// Who wants to know a first byte.
pub type First = Box<dyn FnOnce(u8)>;

/// Why the copy ended.
#[derive(Debug)]
pub enum End {
    /// Both sides closed in order.
    Closed,
    /// Nothing moved for the idle timeout.
    Idle,
    Downstream(io::Error),
    Upstream(io::Error),
}

/// One direction.
#[derive(Default)]
struct Lane {
    kept: Vec<u8>,
    offset: usize,
    /// The first byte, until somebody has taken note of it.
    first: Option<u8>,
    eof: bool,
    flush: bool,
    done: bool,
}

/// Which side of a lane failed.
enum Fault {
    Read(io::Error),
    Write(io::Error),
}

impl Lane {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        count: &Cell<u64>,
    ) -> Poll<Result<(), Fault>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..TURN {
            while self.offset < self.kept.len() {
                let written = ready!(Pin::new(&mut *writer).poll_write(cx, &self.kept[self.offset..]))
                    .map_err(Fault::Write)?;
                if written == 0 {
                    return Poll::Ready(Err(Fault::Write(io::ErrorKind::WriteZero.into())));
                }
                self.offset += written;
            }
            if !self.kept.is_empty() {
                self.kept = Vec::new();
                self.offset = 0;
            }
            if self.eof {
                ready!(Pin::new(&mut *writer).poll_shutdown(cx)).map_err(Fault::Write)?;
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            match self.step(cx, reader, writer, count)? {
                Poll::Ready(()) => {}
                Poll::Pending => {
                    if self.flush {
                        ready!(Pin::new(&mut *writer).poll_flush(cx)).map_err(Fault::Write)?;
                        self.flush = false;
                    }
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once into the thread's buffer and writes what the other side takes.
    fn step<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        count: &Cell<u64>,
    ) -> Result<Poll<()>, Fault>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        BUFFER.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            match Pin::new(&mut *reader).poll_read(cx, &mut buf) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(result) => result.map_err(Fault::Read)?,
            }
            let bytes = buf.filled();
            if bytes.is_empty() {
                self.eof = true;
                return Ok(Poll::Ready(()));
            }
            if count.get() == 0 {
                self.first = bytes.first().copied();
            }
            count.set(count.get() + bytes.len() as u64);
            self.flush = true;
            let mut offset = 0;
            while offset < bytes.len() {
                match Pin::new(&mut *writer).poll_write(cx, &bytes[offset..]) {
                    Poll::Ready(Ok(0)) => return Err(Fault::Write(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(written)) => offset += written,
                    Poll::Ready(Err(error)) => return Err(Fault::Write(error)),
                    Poll::Pending => {
                        self.kept = bytes[offset..].to_vec();
                        self.offset = 0;
                        break;
                    }
                }
            }
            Ok(Poll::Ready(()))
        })
    }
}

/// Copies until both directions ended, one failed, or nothing moved for `idle` (`None`: forever).
pub async fn copy<D, U>(
    downstream: &mut D,
    upstream: &mut U,
    idle: Option<Duration>,
    traffic: &Traffic,
) -> End
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Lane::default(), Lane::default());
    let moving = poll_fn(|cx| {
        let polled = (!up.done).then(|| up.poll(cx, downstream, upstream, &traffic.received));
        if let Some(first) = up.first.take()
            && let Some(tell) = traffic.first.take()
        {
            tell(first);
        }
        if let Some(Poll::Ready(Err(fault))) = polled {
            return Poll::Ready(match fault {
                Fault::Read(error) => End::Downstream(error),
                Fault::Write(error) => End::Upstream(error),
            });
        }
        if !down.done
            && let Poll::Ready(Err(fault)) = down.poll(cx, upstream, downstream, &traffic.sent)
        {
            return Poll::Ready(match fault {
                Fault::Read(error) => End::Upstream(error),
                Fault::Write(error) => End::Downstream(error),
            });
        }
        if up.done && down.done {
            Poll::Ready(End::Closed)
        } else {
            Poll::Pending
        }
    });
    match idle {
        None => moving.await,
        Some(limit) => {
            tokio::pin!(moving);
            tokio::select! {
                end = &mut moving => end,
                () = quiet(limit, traffic) => End::Idle,
            }
        }
    }
}

/// Ends when nothing moved for `limit`. Looks only that often: no timer is touched per byte.
async fn quiet(limit: Duration, traffic: &Traffic) {
    let seen = || traffic.received.get() + traffic.sent.get();
    let mut last = seen();
    let mut since = Instant::now();
    loop {
        tokio::time::sleep_until(since + limit).await;
        let now = seen();
        if now == last {
            return;
        }
        (last, since) = (now, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn passes_both_ways_and_half_closes() {
        let (mut client, mut downstream) = duplex(1000);
        let (mut upstream, mut server) = duplex(1000);
        let traffic = Traffic::default();
        let first = std::rc::Rc::new(Cell::new(0));
        let told = first.clone();
        traffic.first.set(Some(Box::new(move |byte| told.set(byte))));
        let body = vec![7u8; 300_000];
        let (end, (), ()) = tokio::join!(
            copy(&mut downstream, &mut upstream, None, &traffic),
            async {
                client.write_all(&body).await.unwrap();
                client.shutdown().await.unwrap();
                let mut got = Vec::new();
                client.read_to_end(&mut got).await.unwrap();
                assert_eq!(got, b"after the half-close");
            },
            async {
                let mut got = Vec::new();
                server.read_to_end(&mut got).await.unwrap();
                assert_eq!(got.len(), 300_000);
                server.write_all(b"after the half-close").await.unwrap();
                server.shutdown().await.unwrap();
            }
        );
        assert!(matches!(end, End::Closed), "{end:?}");
        assert_eq!((traffic.received.get(), traffic.sent.get()), (300_000, 20));
        assert_eq!(first.get(), 7);
    }

    #[tokio::test]
    async fn ends_when_idle() {
        let (mut client, mut downstream) = duplex(1000);
        let (mut upstream, _server) = duplex(1000);
        let traffic = Traffic::default();
        let limit = Duration::from_millis(200);
        let start = Instant::now();
        let (end, ()) = tokio::join!(
            copy(&mut downstream, &mut upstream, Some(limit), &traffic),
            async {
                tokio::time::sleep(limit / 2).await;
                client.write_all(b"x").await.unwrap();
            }
        );
        assert!(matches!(end, End::Idle), "{end:?}");
        // The byte in the middle was noticed: the first look after it waited once more.
        assert!(start.elapsed() >= limit * 2, "{:?}", start.elapsed());
    }
}
