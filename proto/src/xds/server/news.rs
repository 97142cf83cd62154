//! A delta response before it is written. It refers to resources that many clients get; writing it out piece
//! by piece copies small resources once and large ones not at all.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{encode_key, encode_varint, encoded_len_varint, key_len};
use prost::{Message, encoding::WireType};

use super::{control_plane, delta_resource};
use crate::{
    envoy::service::discovery::v3::DeltaDiscoveryResponse,
    xds::{Encoded, Type},
};

/// A piece is not larger than this, unless it is one large resource: what one frame of HTTP/2 holds.
const PIECE: usize = 16 << 10;
/// Resources from this size on are not copied.
const LARGE: usize = 8 << 10;

/// Fields of `envoy.service.discovery.v3.DeltaDiscoveryResponse`, of `Resource` and of `google.protobuf.Any`.
const RESOURCES: u32 = 2;
const VERSION: u32 = 1;
const RESOURCE: u32 = 2;
const NAME: u32 = 3;
const TYPE_URL: u32 = 1;
const VALUE: u32 = 2;

/// What one client is told.
#[derive(Clone, Debug, PartialEq)]
pub struct News {
    pub kind: Type,
    /// Of the whole configuration, for the reader's eye only.
    pub version: String,
    pub resources: Vec<Arc<Encoded>>,
    pub removed: Vec<Arc<str>>,
    pub nonce: String,
}

impl News {
    /// As a message of its own.
    pub fn message(&self) -> DeltaDiscoveryResponse {
        DeltaDiscoveryResponse {
            resources: self.resources.iter().map(|own| delta_resource(own)).collect(),
            ..self.around()
        }
    }

    /// Everything but the resources.
    fn around(&self) -> DeltaDiscoveryResponse {
        DeltaDiscoveryResponse {
            system_version_info: self.version.clone(),
            type_url: self.kind.url().to_owned(),
            removed_resources: self.removed.iter().map(|name| name.to_string()).collect(),
            nonce: self.nonce.clone(),
            control_plane: Some(control_plane()),
            ..DeltaDiscoveryResponse::default()
        }
    }

    /// How many bytes the message has.
    pub fn encoded_len(&self) -> usize {
        let resources = self
            .resources
            .iter()
            .map(|own| field_len(RESOURCES, resource_len(own)));
        self.around().encoded_len() + resources.sum::<usize>()
    }

    /// The message in pieces. Each is made when it is asked for.
    pub fn pieces(self) -> Pieces {
        Pieces {
            around: Some(self.around()),
            resources: self.resources.into_iter(),
            large: None,
        }
    }
}

/// The rest of a message.
#[derive(Debug)]
pub struct Pieces {
    resources: std::vec::IntoIter<Arc<Encoded>>,
    /// A body that is a piece of its own, and what stands behind it in its resource.
    large: Option<(Bytes, Bytes)>,
    around: Option<DeltaDiscoveryResponse>,
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut piece = BytesMut::new();
        if let Some((body, rest)) = self.large.take() {
            if !body.is_empty() {
                self.large = Some((Bytes::new(), rest));
                return Some(body);
            }
            piece.put(rest);
        }
        while let Some(resource) = self.resources.next() {
            if piece.is_empty() && self.resources.len() > 0 {
                piece.reserve(PIECE);
            }
            begin(&resource, &mut piece);
            if resource.body.len() >= LARGE {
                let mut rest = BytesMut::new();
                text(NAME, &resource.name, &mut rest);
                self.large = Some((resource.body.clone(), rest.freeze()));
                return Some(piece.freeze());
            }
            piece.put_slice(&resource.body);
            text(NAME, &resource.name, &mut piece);
            if piece.len() + LARGE > PIECE {
                return Some(piece.freeze());
            }
        }
        // Protobuf has no order of fields: what stands around the resources stands behind them.
        if let Some(around) = self.around.take() {
            piece.put_slice(&around.encode_to_vec());
        }
        (!piece.is_empty()).then(|| piece.freeze())
    }
}

fn field_len(field: u32, length: usize) -> usize {
    key_len(field) + encoded_len_varint(length as u64) + length
}

fn any_len(resource: &Encoded) -> usize {
    let body = resource.body.len();
    // Protobuf leaves out what is empty.
    let value = if body == 0 { 0 } else { field_len(VALUE, body) };
    field_len(TYPE_URL, resource.kind.url().len()) + value
}

fn resource_len(resource: &Encoded) -> usize {
    field_len(VERSION, resource.version.to_string().len())
        + field_len(RESOURCE, any_len(resource))
        + field_len(NAME, resource.name.len())
}

fn begin_field(field: u32, length: usize, out: &mut BytesMut) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

fn text(field: u32, text: &str, out: &mut BytesMut) {
    begin_field(field, text.len(), out);
    out.put_slice(text.as_bytes());
}

/// A resource up to its body; its name comes behind.
fn begin(resource: &Encoded, out: &mut BytesMut) {
    begin_field(RESOURCES, resource_len(resource), out);
    text(VERSION, &resource.version.to_string(), out);
    begin_field(RESOURCE, any_len(resource), out);
    text(TYPE_URL, resource.kind.url(), out);
    if !resource.body.is_empty() {
        begin_field(VALUE, resource.body.len(), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xds::Version;

    fn resource(name: &str, bytes: usize) -> Arc<Encoded> {
        Arc::new(Encoded {
            name: name.into(),
            version: Version(7),
            kind: Type::Route,
            body: vec![0xab; bytes].into(),
        })
    }

    #[test]
    fn pieces_are_the_message() {
        for sizes in [
            &[][..],
            &[0],
            &[1, 100, 127, 128],
            &[LARGE - 1, LARGE, LARGE + 1],
            &[100_000, 3, 100_000],
            &[3000; 50],
        ] {
            let news = News {
                kind: Type::Route,
                version: "12".to_owned(),
                resources: sizes
                    .iter()
                    .enumerate()
                    .map(|(i, size)| resource(&format!("r{i}"), *size))
                    .collect(),
                removed: vec!["gone".into(), "gone too".into()],
                nonce: "1-2".to_owned(),
            };
            let expect = news.message();
            let length = news.encoded_len();
            let pieces: Vec<Bytes> = news.clone().pieces().collect();
            let large = sizes.iter().filter(|size| **size >= LARGE).count();
            let fits = |piece: &&Bytes| piece.len() > 2 * PIECE;
            assert!(pieces.iter().filter(fits).count() <= large, "{sizes:?}");
            let all = pieces.concat();
            assert_eq!((all.len(), length), (length, expect.encoded_len()), "{sizes:?}");
            assert_eq!(
                DeltaDiscoveryResponse::decode(&all[..]).unwrap(),
                expect,
                "{sizes:?}"
            );
        }
    }

    #[test]
    fn large_bodies_are_not_copied() {
        let own = resource("r", 50_000);
        let news = News {
            kind: Type::Route,
            version: String::new(),
            resources: vec![own.clone()],
            removed: Vec::new(),
            nonce: String::new(),
        };
        assert!(news.pieces().any(|piece| piece.as_ptr() == own.body.as_ptr()));
    }
}
