//! Header names as their sender wrote them, in the order they came. HTTP takes names in any case (RFC 9110 §5.1), but some
//! applications do not, and nothing may change for them. One text, `Host,User-Agent,X-Request-ID`, is the whole of it: it
//! is what travels between two of our proxies, too.
//!
//! The same sender writes the same names again and again, so each connection keeps the last few spellings it has seen
//! ([`Known`]) and a message usually shares one instead of making it.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

/// Spellings that a connection remembers.
const KEPT: usize = 4;
/// The longest text that travels; longer ones are not handed on, only the names' case and order is lost then.
pub const LONGEST: usize = 8 * 1024;

/// The names of one message's headers.
#[derive(Debug, PartialEq, Eq)]
pub struct Spelling {
    /// The names with commas between them.
    text: Bytes,
    names: Box<[Name]>,
}

#[derive(Debug, PartialEq, Eq)]
struct Name {
    name: HeaderName,
    start: u32,
    end: u32,
    /// How many headers of this name came before.
    nth: u16,
}

/// One header as it was written.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    pub name: &'a HeaderName,
    pub text: &'a [u8],
    pub nth: usize,
}

impl Spelling {
    /// Reads the text; `None` if it is not a list of header names.
    pub fn read(text: Bytes) -> Option<Self> {
        let mut names: Vec<Name> = Vec::with_capacity(16);
        if !text.is_empty() {
            let mut start = 0;
            for part in text.split(|&byte| byte == b',') {
                let name = HeaderName::from_bytes(part).ok()?;
                let nth = names.iter().filter(|known| known.name == name).count();
                let end = start + part.len();
                names.push(Name {
                    name,
                    start: u32::try_from(start).ok()?,
                    end: u32::try_from(end).ok()?,
                    nth: u16::try_from(nth).ok()?,
                });
                start = end + 1;
            }
        }
        Some(Self {
            text,
            names: names.into(),
        })
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Written<'_>> {
        self.names.iter().map(|name| Written {
            name: &name.name,
            text: &self.text[name.start as usize..name.end as usize],
            nth: usize::from(name.nth),
        })
    }

    /// How many headers of this name were written.
    pub fn count(&self, name: &HeaderName) -> usize {
        self.names.iter().filter(|known| known.name == *name).count()
    }

    /// As the value of a header, to travel.
    pub fn value(&self) -> Option<HeaderValue> {
        if self.text.len() > LONGEST {
            return None;
        }
        HeaderValue::from_maybe_shared(self.text.clone()).ok()
    }

    fn is<'a>(&self, mut names: impl ExactSizeIterator<Item = &'a [u8]>) -> bool {
        names.len() == self.names.len()
            && self
                .iter()
                .all(|written| names.next().is_some_and(|name| name == written.text))
    }
}

/// The spellings that a connection has seen last, the latest first.
#[derive(Debug, Default)]
pub struct Known(Vec<Rc<Spelling>>);

impl Known {
    /// The spelling of these names.
    pub fn of_names<'a>(
        &mut self,
        names: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
    ) -> Option<Rc<Spelling>> {
        if let Some(position) = self.0.iter().position(|known| known.is(names.clone())) {
            return Some(self.first(position));
        }
        let mut text = Vec::with_capacity(names.clone().map(|name| name.len() + 1).sum());
        for (index, name) in names.enumerate() {
            if index > 0 {
                text.push(b',');
            }
            text.extend_from_slice(name);
        }
        self.learn(Bytes::from(text))
    }

    /// The spelling that this text says.
    pub fn of_text(&mut self, text: &[u8]) -> Option<Rc<Spelling>> {
        if let Some(position) = self.0.iter().position(|known| known.text == text) {
            return Some(self.first(position));
        }
        self.learn(Bytes::copy_from_slice(text))
    }

    fn first(&mut self, position: usize) -> Rc<Spelling> {
        self.0[..=position].rotate_right(1);
        self.0[0].clone()
    }

    fn learn(&mut self, text: Bytes) -> Option<Rc<Spelling>> {
        let spelling = Rc::new(Spelling::read(text)?);
        self.0.truncate(KEPT - 1);
        self.0.insert(0, spelling.clone());
        Some(spelling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_text_and_text_becomes_names() {
        let mut known = Known::default();
        let names: [&[u8]; 4] = [b"Host", b"X-ODD-Case", b"set-cookie", b"Set-Cookie"];
        let spelling = known.of_names(names.into_iter()).unwrap();
        assert_eq!(spelling.value().unwrap(), "Host,X-ODD-Case,set-cookie,Set-Cookie");
        let written: Vec<_> = spelling
            .iter()
            .map(|written| (written.name.as_str(), written.text, written.nth))
            .collect();
        assert_eq!(
            written,
            [
                ("host", &b"Host"[..], 0),
                ("x-odd-case", b"X-ODD-Case", 0),
                ("set-cookie", b"set-cookie", 0),
                ("set-cookie", b"Set-Cookie", 1),
            ]
        );
        let again = Known::default()
            .of_text(b"Host,X-ODD-Case,set-cookie,Set-Cookie")
            .unwrap();
        assert_eq!(*spelling, *again);
    }

    #[test]
    fn the_same_names_share_one_spelling() {
        let mut known = Known::default();
        let names: [&[u8]; 2] = [b"Host", b"Accept"];
        let first = known.of_names(names.into_iter()).unwrap();
        for text in ["a", "b", "c"] {
            known.of_text(text.as_bytes()).unwrap();
        }
        assert!(Rc::ptr_eq(&first, &known.of_names(names.into_iter()).unwrap()));
        for text in ["d", "e", "f", "g"] {
            known.of_text(text.as_bytes()).unwrap();
        }
        assert!(!Rc::ptr_eq(&first, &known.of_names(names.into_iter()).unwrap()));
        assert_eq!(known.0.len(), KEPT);
    }

    #[test]
    fn what_is_no_list_of_names_is_nothing() {
        for text in ["Host,,Accept", "Host, Accept", "a:b", "a\r\nb"] {
            assert_eq!(
                Spelling::read(Bytes::copy_from_slice(text.as_bytes())),
                None,
                "{text:?}"
            );
        }
        assert_eq!(Spelling::read(Bytes::new()).unwrap().iter().len(), 0);
    }
}
