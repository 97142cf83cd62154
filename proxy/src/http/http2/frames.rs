//! Walks over the bytes of an HTTP/2 connection from frame header to frame header (RFC 9113 §4.1), in whatever pieces they come.
//! A frame's content is stepped over, so the cost is that of its nine bytes.

/// The client's first 24 bytes, before any frame (RFC 9113 §3.4).
pub const PREFACE: usize = 24;

const HEADER: usize = 9;

/// Kinds of frames (RFC 9113 §6).
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const PUSH_PROMISE: u8 = 5;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// What a frame's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub length: u32,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl Frame {
    const END_STREAM: u8 = 1;
    const ACK: u8 = 1;

    fn read(header: [u8; HEADER]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = header;
        Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        }
    }

    /// The last frame of its stream, in its direction.
    pub fn ends_stream(self) -> bool {
        matches!(self.kind, kind::DATA | kind::HEADERS) && self.flags & Self::END_STREAM != 0
    }

    /// Of SETTINGS and PING: the answer to one.
    pub fn is_ack(self) -> bool {
        self.flags & Self::ACK != 0
    }
}

/// Where in the stream of frames one direction is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Walk {
    /// So many bytes are not a frame's header.
    skip: usize,
    header: [u8; HEADER],
    /// Of the header so many bytes are there.
    have: usize,
}

impl Walk {
    /// The first header comes after so many bytes.
    pub fn after(skip: usize) -> Self {
        Self {
            skip,
            ..Self::default()
        }
    }

    /// Goes on over these bytes; tells of each frame whose header is complete with them.
    pub fn over(&mut self, mut bytes: &[u8], mut found: impl FnMut(Frame)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let count = (HEADER - self.have).min(bytes.len());
            self.header[self.have..self.have + count].copy_from_slice(&bytes[..count]);
            self.have += count;
            bytes = &bytes[count..];
            if self.have == HEADER {
                let frame = Frame::read(self.header);
                self.have = 0;
                self.skip = frame.length as usize;
                found(frame);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_the_bytes_come() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 5]);
        bytes.extend([0, 0, 0, 4, 1, 0, 0, 0, 0]);
        bytes.extend([0, 0, 3, 0, 1, 0x80, 0, 0, 7, b'a', b'b', b'c']);
        for step in [1, 2, 8, 9, 10, 1000] {
            let mut walk = Walk::after(PREFACE);
            let mut found = Vec::new();
            for piece in bytes.chunks(step) {
                walk.over(piece, |frame| found.push(frame));
            }
            let seen: Vec<_> = found
                .iter()
                .map(|frame| (frame.kind, frame.length, frame.stream))
                .collect();
            assert_eq!(seen, [(4, 6, 0), (4, 0, 0), (0, 3, 7)], "in steps of {step}");
            assert!(found[1].is_ack() && found[2].ends_stream() && !found[0].is_ack());
        }
    }
}
