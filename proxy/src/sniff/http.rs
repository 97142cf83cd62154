//! Is it HTTP, and which? HTTP/2 by its preface (RFC 9113, 3.4), HTTP/1.x by its request line, as soon as it can be
//! nothing else: a server-first or a binary protocol is told apart by its first byte.

use super::Sniff;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    Http10,
    Http11,
    Http2,
}

impl Version {
    /// The name that filter chains match on.
    pub fn application_protocol(self) -> &'static [u8] {
        match self {
            Self::Http10 => b"http/1.0",
            Self::Http11 => b"http/1.1",
            Self::Http2 => b"h2c",
        }
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A longer request line is not looked through.
const MAX_LINE: usize = 8 << 10;
/// More line ends before a request line are no request.
const MAX_EMPTY: usize = 64;
const MAX_METHOD: usize = 32;

/// Which HTTP these bytes begin.
pub fn detect(bytes: &[u8]) -> Sniff<Version> {
    if bytes.starts_with(PREFACE) {
        return Sniff::Found(Version::Http2);
    }
    if PREFACE.starts_with(bytes) {
        return Sniff::NeedMore;
    }
    // Empty lines before a request line are allowed (RFC 9112, 2.2).
    let start = bytes
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count();
    if start > MAX_EMPTY {
        return Sniff::Not;
    }
    request_line(&bytes[start..])
}

fn request_line(bytes: &[u8]) -> Sniff<Version> {
    let method = bytes.iter().take_while(|byte| is_token(**byte)).count();
    if method > MAX_METHOD {
        return Sniff::Not;
    }
    match bytes.get(method) {
        None => return Sniff::NeedMore,
        Some(b' ') if method > 0 => {}
        Some(_) => return Sniff::Not,
    }
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let line = &bytes[..end.unwrap_or(bytes.len())];
    // The same for a part of the line as for all of it, so that no verdict depends on how the bytes come.
    if line.len() > MAX_LINE || line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\r') {
        return Sniff::Not;
    }
    if end.is_none() {
        return Sniff::NeedMore;
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.rsplit(|byte| *byte == b' ').next() {
        Some(b"HTTP/1.1") => Sniff::Found(Version::Http11),
        Some(b"HTTP/1.0") => Sniff::Found(Version::Http10),
        _ => Sniff::Not,
    }
}

/// RFC 9110, 5.6.2
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        for (bytes, expect) in [
            (
                &b"GET / HTTP/1.1\r\nhost: a\r\n"[..],
                Sniff::Found(Version::Http11),
            ),
            (b"GET / HTTP/1.0\r\n", Sniff::Found(Version::Http10)),
            (b"\r\nPOST /x HTTP/1.1\n", Sniff::Found(Version::Http11)),
            (b"M-SEARCH * HTTP/1.1\r\n", Sniff::Found(Version::Http11)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Sniff::Found(Version::Http2)),
            (b"PRI * HTTP/2", Sniff::NeedMore),
            (b"P", Sniff::NeedMore),
            (b"", Sniff::NeedMore),
            (b"GET /", Sniff::NeedMore),
            (b"*1\r\n$4\r\nPING\r\n", Sniff::Not),
            (b"PING\r\n", Sniff::Not),
            (b"\x16\x03\x01", Sniff::Not),
            (b"GET / HTTP/0.9\r\n", Sniff::Not),
            (b"hello world\r\n", Sniff::Not),
        ] {
            assert_eq!(detect(bytes), expect, "{bytes:?}");
        }
    }

    #[test]
    fn verdicts_over_damaged_lines_hold() {
        let corpus: [&[u8]; 5] = [
            b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            b"\r\nPOST /x HTTP/1.0\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"M-SEARCH * HTTP/1.1\r\n",
            b"*1\r\n$4\r\nPING\r\n",
        ];
        crate::testing::damaged(&corpus, 10_000, |bytes| {
            crate::testing::verdicts_hold(bytes, detect)
        });
    }

    #[test]
    fn long_lines_end() {
        let long = [b"GET /".as_slice(), &vec![b'a'; MAX_LINE]].concat();
        assert_eq!(detect(&long), Sniff::Not);
        assert_eq!(detect(&[b'A'; 40]), Sniff::Not);
        assert_eq!(detect(&b"\r\n".repeat(100)), Sniff::Not);
    }
}
