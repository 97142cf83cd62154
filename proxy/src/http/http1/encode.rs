//! Heads and bodies → bytes. Headers are written as their sender spelled them and in the sender's order; what the mesh
//! added follows in lower case.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

use super::{Error, Manner, spelling::Spelling, wire::Out};

/// How the body that follows a head is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoder {
    /// There is none; what comes is dropped (the answer to a HEAD).
    None,
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
    /// Until this side closes.
    UntilClose,
}

/// What a request begins with.
pub struct RequestLine<'a> {
    pub method: &'a Method,
    pub target: &'a str,
    pub version: Version,
    pub authority: &'a HeaderValue,
}

/// Writes a request's head.
pub fn request(
    out: &mut BytesMut,
    line: &RequestLine<'_>,
    headers: &HeaderMap,
    spelling: Option<&Spelling>,
    body: Encoder,
) {
    out.reserve(estimate(headers) + line.target.len());
    out.put_slice(line.method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(line.target.as_bytes());
    out.put_slice(match line.version {
        Version::HTTP_10 => b" HTTP/1.0\r\n",
        _ => b" HTTP/1.1\r\n",
    });
    let fixed = Fixed {
        authority: Some(line.authority),
        chunked: body == Encoder::Chunked,
    };
    fields(out, headers, spelling, &fixed, false);
    out.put_slice(b"\r\n");
}

/// Writes a response's head; names that nobody spelled are written in Proper-Case if `proper_case`.
pub fn response(
    out: &mut BytesMut,
    version: Version,
    status: StatusCode,
    headers: &HeaderMap,
    manner: &Manner,
    body: Encoder,
    proper_case: bool,
) {
    out.reserve(estimate(headers));
    out.put_slice(match version {
        Version::HTTP_10 => b"HTTP/1.0 ",
        _ => b"HTTP/1.1 ",
    });
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    match &manner.reason {
        Some(reason) => out.put_slice(reason.as_bytes()),
        None => out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes()),
    }
    out.put_slice(b"\r\n");
    let fixed = Fixed {
        authority: None,
        chunked: body == Encoder::Chunked,
    };
    fields(out, headers, manner.spelling.as_deref(), &fixed, proper_case);
    out.put_slice(b"\r\n");
}

/// Headers that are not in the map: their values are this side's to say, their place is the sender's.
struct Fixed<'a> {
    authority: Option<&'a HeaderValue>,
    chunked: bool,
}

fn estimate(headers: &HeaderMap) -> usize {
    128 + headers.len() * 48
}

fn fields(
    out: &mut BytesMut,
    headers: &HeaderMap,
    spelling: Option<&Spelling>,
    fixed: &Fixed<'_>,
    proper_case: bool,
) {
    let (mut authority, mut chunked) = (fixed.authority, fixed.chunked);
    if let Some(value) = authority
        && spelling.is_none_or(|spelling| spelling.count(&header::HOST) == 0)
    {
        field(out, b"host", value);
        authority = None;
    }
    let mut written = 0;
    if let Some(spelling) = spelling {
        for header in spelling.iter() {
            if *header.name == header::HOST {
                if let Some(value) = authority.take() {
                    field(out, header.text, value);
                }
            } else if *header.name == header::TRANSFER_ENCODING {
                if std::mem::take(&mut chunked) {
                    field(out, header.text, &CHUNKED);
                }
            } else if let Some(value) = value(headers, header.name, header.nth) {
                field(out, header.text, value);
                written += 1;
            }
        }
    }
    if chunked {
        field(out, b"transfer-encoding", &CHUNKED);
    }
    if written == headers.len() {
        return;
    }
    for name in headers.keys() {
        let done = spelling.map_or(0, |spelling| spelling.count(name));
        for value in headers.get_all(name).iter().skip(done) {
            if proper_case {
                field(out, &proper(name), value);
            } else {
                field(out, name.as_str().as_bytes(), value);
            }
        }
    }
}

const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");

fn value<'a>(headers: &'a HeaderMap, name: &HeaderName, nth: usize) -> Option<&'a HeaderValue> {
    if nth == 0 {
        headers.get(name)
    } else {
        headers.get_all(name).iter().nth(nth)
    }
}

fn field(out: &mut BytesMut, name: &[u8], value: &HeaderValue) {
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value.as_bytes());
    out.put_slice(b"\r\n");
}

fn proper(name: &HeaderName) -> Vec<u8> {
    let mut begins = true;
    let proper = |&byte: &u8| {
        let upper = std::mem::replace(&mut begins, !byte.is_ascii_alphanumeric());
        if upper { byte.to_ascii_uppercase() } else { byte }
    };
    name.as_str().as_bytes().iter().map(proper).collect()
}

impl Encoder {
    /// For a body whose headers are these: by their length if they say one, else in chunks.
    pub fn for_headers(headers: &HeaderMap) -> Result<Self, Error> {
        match headers.get(header::CONTENT_LENGTH) {
            Some(value) => Ok(Self::Length(super::head::number(value)?)),
            None => Ok(Self::Chunked),
        }
    }

    /// Writes a piece of the body.
    pub fn data(&mut self, out: &mut Out, data: Bytes) -> Result<(), Error> {
        if data.is_empty() {
            return Ok(());
        }
        match self {
            Self::None => {}
            Self::UntilClose => out.push(data),
            Self::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Error::Length)?;
                out.push(data);
            }
            Self::Chunked => {
                let mut size = [0_u8; 18];
                out.tail().put_slice(size_line(data.len(), &mut size));
                out.push(data);
                out.tail().put_slice(b"\r\n");
            }
        }
        Ok(())
    }

    /// Writes the end of the body.
    pub fn end(&mut self, out: &mut Out, trailers: Option<&HeaderMap>) -> Result<(), Error> {
        match self {
            Self::None | Self::UntilClose | Self::Length(0) => {}
            Self::Length(_) => return Err(Error::Length),
            Self::Chunked => {
                let out = out.tail();
                out.put_slice(b"0\r\n");
                for (name, value) in trailers.into_iter().flatten() {
                    field(out, name.as_str().as_bytes(), value);
                }
                out.put_slice(b"\r\n");
            }
        }
        *self = Self::None;
        Ok(())
    }
}

/// A chunk's size in hexadecimal, with its line end.
fn size_line(mut size: usize, room: &mut [u8; 18]) -> &[u8] {
    let mut at = 16;
    room[16..].copy_from_slice(b"\r\n");
    loop {
        at -= 1;
        room[at] = b"0123456789abcdef"[size & 15];
        size >>= 4;
        if size == 0 {
            return &room[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::http1::spelling::Known;

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn check(headers: &[(&'static str, &'static str)], names: &str, body: Encoder, expect: &str) {
        let line = RequestLine {
            method: &Method::GET,
            target: "/a",
            version: Version::HTTP_11,
            authority: &HeaderValue::from_static("x"),
        };
        let spelling = Known::default().of_text(names.as_bytes()).unwrap();
        let mut out = BytesMut::new();
        request(&mut out, &line, &map(headers), Some(&spelling), body);
        let text = String::from_utf8(out.to_vec()).unwrap();
        assert_eq!(text, format!("GET /a HTTP/1.1\r\n{expect}\r\n"));
    }

    #[test]
    fn headers_are_written_as_they_came() {
        check(
            &[("x-odd-case", "Kept"), ("accept", "*/*"), ("x-added", "1")],
            "Accept,Host,X-ODD-Case,Connection",
            Encoder::None,
            "Accept: */*\r\nHost: x\r\nX-ODD-Case: Kept\r\nx-added: 1\r\n",
        );
        check(&[("b", "1")], "", Encoder::None, "host: x\r\nb: 1\r\n");
        check(
            &[("cookie", "1"), ("cookie", "2"), ("cookie", "3")],
            "cookie,HOST,Cookie",
            Encoder::None,
            "cookie: 1\r\nHOST: x\r\nCookie: 2\r\ncookie: 3\r\n",
        );
    }

    #[test]
    fn the_framing_keeps_its_place() {
        check(
            &[("a", "1")],
            "Transfer-Encoding,A",
            Encoder::Chunked,
            "host: x\r\nTransfer-Encoding: chunked\r\nA: 1\r\n",
        );
        check(
            &[],
            "Host",
            Encoder::Chunked,
            "Host: x\r\ntransfer-encoding: chunked\r\n",
        );
    }

    #[test]
    fn a_response_with_its_own_reason() {
        let manner = Manner {
            spelling: None,
            reason: Some(HeaderValue::from_static("Very Well")),
        };
        let mut out = BytesMut::new();
        let headers = map(&[("x-b-c", "1"), ("etag", "2")]);
        let ok = StatusCode::OK;
        response(
            &mut out,
            Version::HTTP_11,
            ok,
            &headers,
            &manner,
            Encoder::None,
            true,
        );
        assert_eq!(&*out, b"HTTP/1.1 200 Very Well\r\nX-B-C: 1\r\nEtag: 2\r\n\r\n");
    }

    #[test]
    fn bodies() {
        let mut out = Out::default();
        let mut encoder = Encoder::Chunked;
        encoder.data(&mut out, Bytes::from_static(b"hello")).unwrap();
        encoder.data(&mut out, Bytes::from(vec![b'a'; 0x1234])).unwrap();
        encoder.end(&mut out, Some(&map(&[("x-sum", "1")]))).unwrap();
        let text = out.take_all();
        assert!(text.starts_with(b"5\r\nhello\r\n1234\r\naaa"));
        assert!(text.ends_with(b"a\r\n0\r\nx-sum: 1\r\n\r\n"));
        let mut encoder = Encoder::Length(3);
        encoder.data(&mut out, Bytes::from_static(b"ab")).unwrap();
        assert!(matches!(encoder.end(&mut out, None), Err(Error::Length)));
        let more = encoder.data(&mut out, Bytes::from_static(b"cd"));
        assert!(matches!(more, Err(Error::Length)));
    }

    #[test]
    fn sizes() {
        for size in [1, 15, 16, 255, 4096, usize::MAX] {
            let mut room = [0; 18];
            assert_eq!(size_line(size, &mut room), format!("{size:x}\r\n").as_bytes());
        }
    }
}
