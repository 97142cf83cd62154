//! The byte stream of one connection, downstream or upstream: plain, TLS or in a tunnel, with room for bytes that were read ahead
//! while the protocol was being recognised. One type for all cases, so that the HTTP codecs are compiled once.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;

/// A TCP stream whose first bytes were already read.
#[derive(Debug)]
pub struct Prefixed {
    prefix: Bytes,
    tcp: TcpStream,
}

impl Prefixed {
    pub fn new(prefix: Bytes, tcp: TcpStream) -> Self {
        Self { prefix, tcp }
    }

    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }
}

impl From<TcpStream> for Prefixed {
    fn from(tcp: TcpStream) -> Self {
        Self::new(Bytes::new(), tcp)
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let count = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix[..count]);
            self.prefix.advance(count);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// Either kind of stream, again with room for bytes that were read ahead (after TLS was taken off).
#[derive(Debug)]
pub struct Io {
    ahead: Bytes,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Plain(Prefixed),
    Tls(Box<TlsStream<Prefixed>>),
    Tunnel(Box<dyn Stream>),
}

/// Bytes that go through something else's connection.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug> Stream for S {}

impl Io {
    pub fn plain(stream: Prefixed) -> Self {
        Self {
            ahead: Bytes::new(),
            kind: Kind::Plain(stream),
        }
    }

    pub fn tls(stream: TlsStream<Prefixed>) -> Self {
        Self {
            ahead: Bytes::new(),
            kind: Kind::Tls(Box::new(stream)),
        }
    }

    pub fn tunnel(stream: impl Stream + 'static) -> Self {
        Self {
            ahead: Bytes::new(),
            kind: Kind::Tunnel(Box::new(stream)),
        }
    }

    /// Puts bytes back that were read to recognise the protocol.
    pub fn unread(&mut self, bytes: Bytes) {
        self.ahead = bytes;
    }

    /// The plain stream with what was unread; `None` if TLS is on it.
    pub fn into_plain(self) -> Option<Prefixed> {
        match self.kind {
            Kind::Plain(stream) if stream.prefix.is_empty() => Some(Prefixed {
                prefix: self.ahead,
                ..stream
            }),
            Kind::Plain(stream) => Some(stream),
            Kind::Tls(_) | Kind::Tunnel(_) => None,
        }
    }

    /// The connection itself; `None`: it is not this stream's own.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match &self.kind {
            Kind::Plain(stream) => Some(stream.tcp()),
            Kind::Tls(stream) => Some(stream.get_ref().0.tcp()),
            Kind::Tunnel(_) => None,
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ahead.is_empty() {
            let count = this.ahead.len().min(buf.remaining());
            buf.put_slice(&this.ahead[..count]);
            this.ahead.advance(count);
            return Poll::Ready(Ok(()));
        }
        match &mut this.kind {
            Kind::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Kind::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Kind::Tunnel(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().kind {
            Kind::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Kind::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Kind::Tunnel(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().kind {
            Kind::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Kind::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Kind::Tunnel(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.kind {
            Kind::Plain(_) => true,
            Kind::Tls(stream) => stream.is_write_vectored(),
            Kind::Tunnel(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().kind {
            Kind::Plain(_) => Poll::Ready(Ok(())),
            Kind::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Kind::Tunnel(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().kind {
            Kind::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Kind::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Kind::Tunnel(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
