//! Bytes → the head of a request or a response, and how its body is framed (RFC 9112 §2–6). Strict where two parsers could
//! disagree, because a proxy and a server that disagree on where a message ends can be made to see different requests:
//! lines end in CR LF, no folding, one `content-length` of digits, `transfer-encoding` is `chunked` and comes without a
//! `content-length`, in HTTP/1.1 only.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header, request};

use super::{
    Manner,
    chunk::Decoder,
    spelling::{Known, Spelling},
};

/// Headers that are parsed without another allocation.
const USUAL: usize = 100;

/// A head that is not understood, or must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHead {
    #[error("a line of the head does not end in CR LF")]
    LineEnd,
    #[error("the first line is malformed")]
    FirstLine,
    #[error("a header's name is malformed")]
    Name,
    #[error("a header's value has a character that is not allowed")]
    Value,
    #[error("the target is not a valid URI")]
    Target,
    #[error("the target has a fragment (#), which is the client's own affair")]
    Fragment,
    #[error("the HTTP version is not 1.0 or 1.1")]
    Version,
    #[error("the head is larger than {0} bytes (max_request_headers_kb)")]
    TooLarge(usize),
    #[error("there are more than {0} headers (max_headers_count)")]
    TooMany(usize),
    #[error("content-length is not one number")]
    ContentLength,
    #[error("both content-length and transfer-encoding are there")]
    BothLengths,
    #[error("transfer-encoding is not \"chunked\", or not in HTTP/1.1")]
    TransferEncoding,
    #[error("the status is not valid here")]
    Status,
    #[error("the head did not come within its time (request_headers_timeout)")]
    Late,
}

impl BadHead {
    /// What the sender of such a request is answered.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLarge(_) | Self::TooMany(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Late => StatusCode::REQUEST_TIMEOUT,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::TransferEncoding => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// What the access log calls it, in Envoy's words where it has them.
    pub fn details(self) -> &'static str {
        match self {
            Self::TooLarge(_) => "http1.headers_too_large",
            Self::TooMany(_) => "http1.too_many_headers",
            Self::Late => "request_header_timeout",
            Self::Target | Self::Fragment => "http1.invalid_url",
            Self::TransferEncoding => "http1.invalid_transfer_encoding",
            Self::BothLengths => "http1.content_length_and_chunked_not_allowed",
            Self::Name | Self::Value => "http1.invalid_characters",
            _ => "http1.codec_error",
        }
    }
}

/// A request's head.
#[derive(Debug)]
pub struct RequestHead {
    pub parts: request::Parts,
    pub spelling: Option<std::rc::Rc<Spelling>>,
    pub body: Decoder,
    /// The sender wants to go on using the connection.
    pub persistent: bool,
    /// The sender waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// A response's head.
#[derive(Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub version: Version,
    pub headers: HeaderMap,
    pub manner: Manner,
    pub body: Decoder,
    pub persistent: bool,
}

/// Where a head ends, if it is complete; `searched` bytes are known not to have the end. Empty lines before a head are
/// allowed (RFC 9112 §2.2) and belong to it.
pub fn end(input: &[u8], searched: usize) -> Result<Option<usize>, BadHead> {
    let mut blank = true;
    let mut from = 0;
    if searched > 3 {
        blank = input[..searched].iter().all(|byte| b"\r\n".contains(byte));
        from = searched;
    }
    while let Some(at) = memchr::memchr(b'\n', &input[from..]) {
        let at = from + at;
        if at == 0 || input[at - 1] != b'\r' {
            return Err(BadHead::LineEnd);
        }
        let empty = at == 1 || input[at - 2] == b'\n';
        if empty && !blank {
            return Ok(Some(at + 1));
        }
        blank = blank && empty;
        from = at + 1;
    }
    Ok(None)
}

/// Is there a line end that is not CR LF?
pub fn has_bare_line_end(text: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', text).any(|at| at == 0 || text[at - 1] != b'\r')
}

/// Reads a complete request head.
pub fn request(head: &Bytes, max_headers: usize, known: &mut Known) -> Result<RequestHead, BadHead> {
    let mut usual = [const { MaybeUninit::uninit() }; USUAL];
    let mut many = Vec::new();
    let room = room(&mut usual, &mut many, max_headers);
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(head, room) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(BadHead::FirstLine),
        Err(error) => return Err(because(error, max_headers)),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(BadHead::FirstLine);
    };
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = Method::from_bytes(method.as_bytes()).map_err(|_| BadHead::FirstLine)?;
    // Two parsers could disagree on whether it belongs to the path.
    if memchr::memchr(b'#', target.as_bytes()).is_some() {
        return Err(BadHead::Fragment);
    }
    parts.uri = Uri::from_maybe_shared(head.slice_ref(target.as_bytes())).map_err(|_| BadHead::Target)?;
    // Without a path it is the form of CONNECT (RFC 9112, 3.2.3).
    if parts.uri.path_and_query().is_none() && parts.method != Method::CONNECT {
        return Err(BadHead::Target);
    }
    parts.version = version(minor);
    let spelling;
    (parts.headers, spelling) = headers(head, parsed.headers, known)?;
    let body = match framing(&parts.headers, parts.version)? {
        None => Decoder::Done,
        Some(body) => body,
    };
    let expects_continue = parts.version == Version::HTTP_11
        && !body.is_done()
        && parts
            .headers
            .get(header::EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    Ok(RequestHead {
        persistent: persistent(&parts.headers, parts.version),
        parts,
        spelling,
        body,
        expects_continue,
    })
}

/// Reads a complete response head; `method` is the request's.
pub fn response(
    head: &Bytes,
    method: &Method,
    max_headers: usize,
    known: &mut Known,
) -> Result<ResponseHead, BadHead> {
    let mut usual = [const { MaybeUninit::uninit() }; USUAL];
    let mut many = Vec::new();
    let room = room(&mut usual, &mut many, max_headers);
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut parsed, head, room) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(BadHead::FirstLine),
        Err(error) => return Err(because(error, max_headers)),
    }
    let (Some(code), Some(minor)) = (parsed.code, parsed.version) else {
        return Err(BadHead::FirstLine);
    };
    let status = StatusCode::from_u16(code).map_err(|_| BadHead::Status)?;
    let reason = parsed
        .reason
        .filter(|reason| status.canonical_reason() != Some(reason))
        .and_then(|reason| HeaderValue::from_maybe_shared(head.slice_ref(reason.as_bytes())).ok());
    let version = version(minor);
    let (headers, spelling) = headers(head, parsed.headers, known)?;
    let bodiless = method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    let framed = framing(&headers, version)?;
    let body = if bodiless {
        Decoder::Done
    } else {
        framed.unwrap_or(Decoder::UntilClose)
    };
    Ok(ResponseHead {
        status,
        version,
        persistent: persistent(&headers, version) && body != Decoder::UntilClose,
        headers,
        manner: Manner { spelling, reason },
        body,
    })
}

type Room<'a, 'b> = &'a mut [MaybeUninit<httparse::Header<'b>>];

fn room<'a, 'b>(
    usual: Room<'a, 'b>,
    many: &'a mut Vec<MaybeUninit<httparse::Header<'b>>>,
    max: usize,
) -> Room<'a, 'b> {
    if max <= USUAL {
        return &mut usual[..max];
    }
    many.resize_with(max, MaybeUninit::uninit);
    many
}

fn because(error: httparse::Error, max_headers: usize) -> BadHead {
    match error {
        httparse::Error::HeaderName => BadHead::Name,
        httparse::Error::HeaderValue => BadHead::Value,
        httparse::Error::NewLine => BadHead::LineEnd,
        httparse::Error::Status => BadHead::Status,
        httparse::Error::Token => BadHead::FirstLine,
        httparse::Error::TooManyHeaders => BadHead::TooMany(max_headers),
        httparse::Error::Version => BadHead::Version,
    }
}

fn version(minor: u8) -> Version {
    if minor == 0 {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    }
}

/// The headers as a map, and how they were written.
fn headers(
    head: &Bytes,
    fields: &[httparse::Header<'_>],
    known: &mut Known,
) -> Result<(HeaderMap, Option<std::rc::Rc<Spelling>>), BadHead> {
    let spelling = known.of_names(fields.iter().map(|field| field.name.as_bytes()));
    let mut map = HeaderMap::with_capacity(fields.len() + 8);
    let mut written = spelling.iter().flat_map(|spelling| spelling.iter());
    for field in fields {
        let name = match written.next() {
            Some(written) => written.name.clone(),
            None => HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| BadHead::Name)?,
        };
        let value =
            HeaderValue::from_maybe_shared(head.slice_ref(field.value)).map_err(|_| BadHead::Value)?;
        map.append(name, value);
    }
    drop(written);
    Ok((map, spelling))
}

/// How a body is framed; `None`: the headers do not say.
fn framing(headers: &HeaderMap, version: Version) -> Result<Option<Decoder>, BadHead> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(BadHead::ContentLength);
    }
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(encoding) = encodings.next() {
        if length.is_some() {
            return Err(BadHead::BothLengths);
        }
        let chunked = encoding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !chunked || encodings.next().is_some() || version != Version::HTTP_11 {
            return Err(BadHead::TransferEncoding);
        }
        return Ok(Some(Decoder::chunked()));
    }
    length.map(|value| number(value).map(Decoder::length)).transpose()
}

/// The number in a `content-length`.
pub fn number(value: &HeaderValue) -> Result<u64, BadHead> {
    let text = value.as_bytes();
    if text.is_empty() || text.len() > 18 || !text.iter().all(u8::is_ascii_digit) {
        return Err(BadHead::ContentLength);
    }
    Ok(text
        .iter()
        .fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

fn persistent(headers: &HeaderMap, version: Version) -> bool {
    if version == Version::HTTP_11 {
        !has_token(headers, &header::CONNECTION, "close")
    } else {
        has_token(headers, &header::CONNECTION, "keep-alive")
    }
}

/// Is a word in a header that is a list of words?
pub fn has_token(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: &str) -> Result<RequestHead, BadHead> {
        let head = Bytes::copy_from_slice(text.as_bytes());
        let end = end(&head, 0)?.expect("a whole head");
        assert_eq!(end, head.len());
        request(&head, 100, &mut Known::default())
    }

    fn answer(text: &str, method: Method) -> Result<ResponseHead, BadHead> {
        let head = Bytes::copy_from_slice(text.as_bytes());
        assert_eq!(end(&head, 0)?, Some(head.len()));
        response(&head, &method, 100, &mut Known::default())
    }

    #[test]
    fn a_request_is_read() {
        let head = ask(
            "\r\nPOST /a?b=c HTTP/1.1\r\nHost: x\r\nX-ODD: 1\r\nContent-Length: 7\r\nExpect: 100-Continue\r\n\r\n",
        );
        let head = head.unwrap();
        assert_eq!(head.parts.method, Method::POST);
        assert_eq!(head.parts.uri, "/a?b=c");
        assert_eq!(head.parts.headers["x-odd"], "1");
        assert_eq!(head.body, Decoder::Length(7));
        assert!(head.persistent && head.expects_continue);
        let spelling = head.spelling.unwrap().value().unwrap();
        assert_eq!(spelling, "Host,X-ODD,Content-Length,Expect");
    }

    #[test]
    fn the_end_of_a_head_is_found_however_it_comes() {
        let text = b"\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\nrest";
        let whole = text.len() - 4;
        for cut in 0..text.len() {
            let expect = (cut >= whole).then_some(whole);
            assert_eq!(end(&text[..cut], 0), Ok(expect), "{cut} bytes");
            // Searching goes on where it stopped, less what may be a part of the end.
            let searched = cut.saturating_sub(3);
            let expect = Ok(Some(whole));
            if cut < whole {
                assert_eq!(end(text, searched), expect, "after {cut} bytes");
            }
        }
        assert_eq!(end(b"GET / HTTP/1.1\nhost: x\n\n", 0), Err(BadHead::LineEnd));
        assert_eq!(end(b"\n", 0), Err(BadHead::LineEnd));
    }

    #[test]
    fn odd_requests_are_refused() {
        let check = |head: &str, why: BadHead| {
            let error = ask(&format!("{head}\r\n\r\n")).expect_err(head);
            assert_eq!(error, why, "{head:?}");
        };
        check("GET / HTTP/1.1\r\na: 1\n b: 2", BadHead::LineEnd);
        check("GET / HTTP/1.1\r\na: 1\r\n folded", BadHead::Name);
        check("GET / HTTP/1.1\r\na : 1", BadHead::Name);
        check("GET / HTTP/1.1\r\n: 1", BadHead::Name);
        check("GET / HTTP/1.1\r\na: 1\0", BadHead::Value);
        check("GET / HTTP/1.1\r\na: 1\rb", BadHead::Value);
        check("GET / HTTP/2.0", BadHead::Version);
        check("GET / HTTP/1.2", BadHead::Version);
        check("GET /", BadHead::FirstLine);
        check("GET  / HTTP/1.1", BadHead::FirstLine);
        check("GE(T / HTTP/1.1", BadHead::FirstLine);
        check("GET productpage HTTP/1.1", BadHead::Target);
        check("GET a.b:80 HTTP/1.1", BadHead::Target);
        let body = |headers: &str, why: BadHead| check(&format!("POST / HTTP/1.1\r\n{headers}"), why);
        body("content-length: 1\r\ncontent-length: 1", BadHead::ContentLength);
        body("content-length: 1, 1", BadHead::ContentLength);
        body("content-length: +1", BadHead::ContentLength);
        body("content-length: 0x1", BadHead::ContentLength);
        body("content-length: -1", BadHead::ContentLength);
        body("content-length:", BadHead::ContentLength);
        body("content-length: 9999999999999999999", BadHead::ContentLength);
        body(
            "content-length: 1\r\ntransfer-encoding: chunked",
            BadHead::BothLengths,
        );
        body("transfer-encoding: gzip, chunked", BadHead::TransferEncoding);
        body("transfer-encoding: xchunked", BadHead::TransferEncoding);
        body(
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
            BadHead::TransferEncoding,
        );
        check(
            "POST / HTTP/1.0\r\ntransfer-encoding: chunked",
            BadHead::TransferEncoding,
        );
        assert_eq!(BadHead::TransferEncoding.status(), 501);
    }

    #[test]
    fn the_number_of_headers_is_bounded() {
        let text = format!("GET / HTTP/1.1\r\n{}\r\n", "a: 1\r\n".repeat(101));
        assert_eq!(ask(&text).unwrap_err(), BadHead::TooMany(100));
        let head = Bytes::from(text);
        let read = request(&head, 200, &mut Known::default()).unwrap();
        assert_eq!(read.parts.headers.get_all("a").iter().count(), 101);
    }

    #[test]
    fn connections_persist() {
        let check = |text: &str, expect: bool| {
            assert_eq!(ask(text).unwrap().persistent, expect, "{text:?}");
        };
        check("GET / HTTP/1.1\r\n\r\n", true);
        check("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n", false);
        check("GET / HTTP/1.0\r\n\r\n", false);
        check("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n", true);
    }

    #[test]
    fn responses_and_their_bodies() {
        let check = |headers: &str, method: Method, body: Decoder| {
            let head = answer(&format!("HTTP/1.1 {headers}\r\n\r\n"), method).unwrap();
            assert_eq!(head.body, body, "{headers:?}");
        };
        check("200 OK\r\ncontent-length: 3", Method::GET, Decoder::Length(3));
        check("200 OK\r\ncontent-length: 3", Method::HEAD, Decoder::Done);
        check(
            "304 Not Modified\r\ncontent-length: 3",
            Method::GET,
            Decoder::Done,
        );
        check("204 No Content", Method::GET, Decoder::Done);
        check(
            "200 OK\r\ntransfer-encoding: chunked",
            Method::GET,
            Decoder::chunked(),
        );
        check("200 OK", Method::GET, Decoder::UntilClose);
        let head = answer("HTTP/1.1 200 Very Well\r\nX-Mixed-CASE: 1\r\n\r\n", Method::GET).unwrap();
        assert_eq!(head.manner.reason.unwrap(), "Very Well");
        assert_eq!(head.manner.spelling.unwrap().value().unwrap(), "X-Mixed-CASE");
        let usual = answer("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n\r\n", Method::GET).unwrap();
        assert!(usual.manner.reason.is_none());
        assert!(!usual.persistent, "its body ends with the connection");
        let error = answer(
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            Method::GET,
        );
        assert_eq!(error.unwrap_err(), BadHead::ContentLength);
    }
}
