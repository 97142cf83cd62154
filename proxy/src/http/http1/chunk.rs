//! Takes a body's bytes out of its framing (RFC 9112 §6, §7.1). A state machine over the bytes that have come so far; strict:
//! lines end in CR LF, a chunk's size is hexadecimal digits and nothing else.
//!
//! Bounds: a size line with its extensions [`LINE`] bytes, all trailers together [`TRAILERS`] bytes.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The longest line with a chunk's size and extensions.
const LINE: usize = 512;
/// The most that trailers may take, and how many there may be.
const TRAILERS: usize = 8 * 1024;
const TRAILER_COUNT: usize = 64;

/// Where a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoder {
    /// There is none, or it is over.
    Done,
    /// So many bytes are still to come.
    Length(u64),
    Chunked(Chunk),
    /// Everything until the peer closes.
    UntilClose,
}

/// Where a chunked body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    Size,
    Data(u64),
    /// The line's end after a chunk's data.
    AfterData,
    Trailers,
}

/// What came out.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    /// More bytes are needed.
    More,
}

/// A body that must not be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBody {
    #[error("a chunk's size is not a hexadecimal number on a line of its own")]
    Size,
    #[error("a chunk does not end where its size says")]
    End,
    #[error("the trailers are malformed")]
    Trailers,
    #[error("the trailers are larger than {TRAILERS} bytes, or more than {TRAILER_COUNT}")]
    TrailersTooLarge,
    #[error("the connection was closed before the end of the body")]
    Incomplete,
}

impl Decoder {
    pub fn length(length: u64) -> Self {
        if length == 0 {
            Self::Done
        } else {
            Self::Length(length)
        }
    }

    pub fn chunked() -> Self {
        Self::Chunked(Chunk::Size)
    }

    pub fn is_done(self) -> bool {
        self == Self::Done
    }

    /// How many bytes of the body are known to be still to come, to choose how to read them.
    pub fn expected(self) -> u64 {
        match self {
            Self::Length(left) | Self::Chunked(Chunk::Data(left)) => left,
            Self::UntilClose => u64::MAX,
            Self::Done | Self::Chunked(_) => 0,
        }
    }

    /// The next piece of the body; `closed`: nothing more will come than what is in `input`.
    pub fn decode(&mut self, input: &mut BytesMut, closed: bool) -> Result<Decoded, BadBody> {
        loop {
            match self {
                Self::Done => return Ok(Decoded::End),
                Self::Length(left) => {
                    let Some(data) = take(input, left) else { break };
                    if *left == 0 {
                        *self = Self::Done;
                    }
                    return Ok(Decoded::Data(data));
                }
                Self::UntilClose => {
                    if !input.is_empty() {
                        return Ok(Decoded::Data(input.split().freeze()));
                    }
                    if !closed {
                        return Ok(Decoded::More);
                    }
                    *self = Self::Done;
                }
                Self::Chunked(Chunk::Size) => {
                    let Some((size, line)) = size(input)? else { break };
                    input.advance(line);
                    *self = Self::Chunked(if size == 0 {
                        Chunk::Trailers
                    } else {
                        Chunk::Data(size)
                    });
                }
                Self::Chunked(Chunk::Data(left)) => {
                    let Some(data) = take(input, left) else { break };
                    if *left == 0 {
                        *self = Self::Chunked(Chunk::AfterData);
                    }
                    return Ok(Decoded::Data(data));
                }
                Self::Chunked(Chunk::AfterData) => {
                    if input.len() < 2 {
                        break;
                    }
                    if &input[..2] != b"\r\n" {
                        return Err(BadBody::End);
                    }
                    input.advance(2);
                    *self = Self::Chunked(Chunk::Size);
                }
                Self::Chunked(Chunk::Trailers) => {
                    let Some(trailers) = trailers(input)? else { break };
                    *self = Self::Done;
                    if !trailers.is_empty() {
                        return Ok(Decoded::Trailers(trailers));
                    }
                }
            }
        }
        if closed {
            return Err(BadBody::Incomplete);
        }
        Ok(Decoded::More)
    }
}

fn take(input: &mut BytesMut, left: &mut u64) -> Option<Bytes> {
    if input.is_empty() {
        return None;
    }
    let count = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    *left -= count as u64;
    Some(input.split_to(count).freeze())
}

/// A chunk's size, and how long its line is with its end.
fn size(input: &[u8]) -> Result<Option<(u64, usize)>, BadBody> {
    let Some(end) = input.iter().take(LINE).position(|&byte| byte == b'\n') else {
        return if input.len() >= LINE {
            Err(BadBody::Size)
        } else {
            Ok(None)
        };
    };
    let line = input[..end].strip_suffix(b"\r").ok_or(BadBody::Size)?;
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    // An extension (`;name=value`) is read over; it must not hide a line's end.
    let extension = &line[digits..];
    let spoiled = extension.iter().any(|&byte| byte == b'\r' || byte == 0);
    if digits == 0 || digits > 15 || spoiled || extension.first().is_some_and(|&byte| byte != b';') {
        return Err(BadBody::Size);
    }
    let size = line[..digits].iter().fold(0, |size, &digit| {
        size << 4 | u64::from(char::from(digit).to_digit(16).unwrap_or(0))
    });
    Ok(Some((size, end + 1)))
}

/// The trailers, and they are taken off the input.
fn trailers(input: &mut BytesMut) -> Result<Option<HeaderMap>, BadBody> {
    if input.starts_with(b"\r\n") {
        input.advance(2);
        return Ok(Some(HeaderMap::new()));
    }
    let Some(end) = input
        .windows(4)
        .take(TRAILERS)
        .position(|bytes| bytes == b"\r\n\r\n")
    else {
        return if input.len() >= TRAILERS {
            Err(BadBody::TrailersTooLarge)
        } else {
            Ok(None)
        };
    };
    let text = input.split_to(end + 4).freeze();
    if super::head::has_bare_line_end(&text) {
        return Err(BadBody::Trailers);
    }
    let mut parsed = [httparse::EMPTY_HEADER; TRAILER_COUNT];
    let (_, fields) = match httparse::parse_headers(&text, &mut parsed) {
        Ok(httparse::Status::Complete(complete)) => complete,
        Err(httparse::Error::TooManyHeaders) => return Err(BadBody::TrailersTooLarge),
        Ok(httparse::Status::Partial) | Err(_) => return Err(BadBody::Trailers),
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| BadBody::Trailers)?;
        let value = HeaderValue::from_maybe_shared(text.slice_ref(field.value));
        trailers.append(name, value.map_err(|_| BadBody::Trailers)?);
    }
    Ok(Some(trailers))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes bytes that come in pieces of `step`.
    fn read(mut decoder: Decoder, text: &[u8], step: usize) -> Result<(Vec<u8>, usize, usize), BadBody> {
        let (mut input, mut body, mut trailers, mut given) = (BytesMut::new(), Vec::new(), 0, 0);
        loop {
            match decoder.decode(&mut input, given == text.len())? {
                Decoded::Data(data) => body.extend_from_slice(&data),
                Decoded::Trailers(map) => trailers += map.len(),
                Decoded::End => return Ok((body, trailers, input.len() + text.len() - given)),
                Decoded::More => {
                    let next = (given + step).min(text.len());
                    input.extend_from_slice(&text[given..next]);
                    given = next;
                }
            }
        }
    }

    fn check(text: &[u8], expect: Result<(&[u8], usize, usize), BadBody>) {
        for step in [1, 2, 7, 4096] {
            let got = read(Decoder::chunked(), text, step);
            let got = got
                .as_ref()
                .map(|(body, trailers, left)| (&**body, *trailers, *left));
            let shown = String::from_utf8_lossy(text);
            assert_eq!(got, expect.as_ref().copied(), "{shown:?} in steps of {step}");
        }
    }

    #[test]
    fn chunks() {
        check(b"5\r\nhello\r\n0\r\n\r\n", Ok((b"hello", 0, 0)));
        check(
            b"5;a=b\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n",
            Ok((b"hello0123456789", 0, 0)),
        );
        check(b"0\r\nx-sum: 1\r\nx-more: 2\r\n\r\nGET /", Ok((b"", 2, 5)));
        check(b"00000\r\n\r\n", Ok((b"", 0, 0)));
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for text in [
            &b"5\nhello\r\n0\r\n\r\n"[..],
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"-1\r\n\r\n",
            b"\r\n\r\n",
            b"5;a\rb\r\nhello\r\n0\r\n\r\n",
            b"10000000000000000\r\n",
        ] {
            check(text, Err(BadBody::Size));
        }
        check(b"5\r\nhello0\r\n\r\n", Err(BadBody::End));
        check(b"5\r\nhello\n0\r\n\r\n", Err(BadBody::End));
        check(b"0\r\nbad name: 1\r\n\r\n", Err(BadBody::Trailers));
        check(b"0\r\na: 1\nb: 2\r\n\r\n", Err(BadBody::Trailers));
        check(b"5\r\nhel", Err(BadBody::Incomplete));
        check(b"5\r\nhello\r\n", Err(BadBody::Incomplete));
    }

    #[test]
    fn everything_has_a_bound() {
        let mut text = b"5;".to_vec();
        text.resize(LINE + 10, b'a');
        check(&text, Err(BadBody::Size));
        let mut text = b"0\r\na: ".to_vec();
        text.resize(2 * TRAILERS, b'a');
        check(&text, Err(BadBody::TrailersTooLarge));
        let many = format!("0\r\n{}\r\n", "a: 1\r\n".repeat(TRAILER_COUNT + 1));
        check(many.as_bytes(), Err(BadBody::TrailersTooLarge));
    }

    #[test]
    fn lengths() {
        assert_eq!(
            read(Decoder::length(5), b"helloGET", 3),
            Ok((b"hello".to_vec(), 0, 3))
        );
        assert_eq!(read(Decoder::length(5), b"hel", 1), Err(BadBody::Incomplete));
        assert_eq!(read(Decoder::UntilClose, b"all", 2), Ok((b"all".to_vec(), 0, 0)));
        assert!(Decoder::length(0).is_done());
    }
}
