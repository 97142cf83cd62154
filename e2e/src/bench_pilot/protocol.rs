//! The wire as the simulated proxies read it: gRPC messages on HTTP/2 that are taken apart while they
//! arrive, resource by resource. So a proxy holds one resource at a time and not its whole configuration,
//! and thousands of them fit beside pilot.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use anyhow::{Context, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use mesh_proto::{
    envoy::{
        config::{
            cluster::v3::{
                Cluster,
                cluster::{ClusterDiscoveryType, DiscoveryType},
            },
            listener::v3::{Listener, filter::ConfigType},
        },
        extensions::filters::network::http_connection_manager::v3::{
            HttpConnectionManager, http_connection_manager::RouteSpecifier,
        },
        service::discovery::v3::DeltaDiscoveryRequest,
    },
    xds::Type,
};
use prost::{Message, Name, encoding::decode_varint};

use super::board::lock;

/// gRPC's frame: compressed or not, and the length.
const FRAME: usize = 5;
/// Tag and length of a field take no more than this.
const FIELD: usize = 20;
/// Larger fields are an error.
const MAX_FIELD: usize = 64 << 20;

/// A message with gRPC's frame.
pub fn frame(request: &DeltaDiscoveryRequest) -> Bytes {
    let length = request.encoded_len();
    let mut bytes = BytesMut::with_capacity(FRAME + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // The buffer grows by itself: this cannot fail.
    let _ = request.encode(&mut bytes);
    bytes.freeze()
}

#[derive(Clone, PartialEq, Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// A resource of a `DeltaDiscoveryResponse`; its body lies in the bytes that came.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    #[prost(string, tag = "1")]
    pub version: String,
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    #[prost(string, tag = "3")]
    pub name: String,
}

#[derive(Debug, PartialEq)]
pub enum Item {
    Resource(Resource),
    /// The response is over.
    End(End),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct End {
    pub type_url: String,
    pub nonce: String,
    pub removed: Vec<String>,
}

/// Takes responses apart.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: BytesMut,
    /// Of the message that is being read.
    left: Option<usize>,
    end: End,
}

impl Reader {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// `None`: more bytes are needed.
    pub fn next(&mut self) -> anyhow::Result<Option<Item>> {
        loop {
            let left = match self.left {
                Some(left) => left,
                None if self.buffer.len() < FRAME => return Ok(None),
                None => {
                    ensure!(
                        self.buffer.get_u8() == 0,
                        "a compressed message, which was not asked for"
                    );
                    usize::try_from(self.buffer.get_u32())?
                }
            };
            self.left = Some(left);
            if left == 0 {
                self.left = None;
                if self.buffer.is_empty() {
                    // Nothing is kept for a silent stream.
                    self.buffer = BytesMut::new();
                }
                return Ok(Some(Item::End(std::mem::take(&mut self.end))));
            }
            if self.buffer.len() < left.min(FIELD) {
                return Ok(None);
            }
            let mut head = &self.buffer[..];
            let key = decode_varint(&mut head)?;
            ensure!(
                key & 7 == 2,
                "field {} of a response is of no known form",
                key >> 3
            );
            let length = usize::try_from(decode_varint(&mut head)?)?;
            ensure!(length <= MAX_FIELD, "a field of {length} bytes");
            let skip = self.buffer.len() - head.len();
            if self.buffer.len() < skip + length {
                self.buffer.reserve(skip + length - self.buffer.len());
                return Ok(None);
            }
            self.left = Some(
                left.checked_sub(skip + length)
                    .context("a field leaves its message")?,
            );
            self.buffer.advance(skip);
            let body = self.buffer.split_to(length).freeze();
            let text = |body: Bytes| String::from_utf8(body.to_vec()).context("text is not UTF-8");
            match key >> 3 {
                2 => return Ok(Some(Item::Resource(Resource::decode(body)?))),
                4 => self.end.type_url = text(body)?,
                5 => self.end.nonce = text(body)?,
                6 => self.end.removed.push(text(body)?),
                1 | 7 => {}
                other => bail!("a response has a field {other}, which this bench does not know"),
            }
        }
    }
}

/// What a proxy must know of a resource, found out once for each version.
#[derive(Debug)]
pub struct Facts {
    pub name: Arc<str>,
    pub version: Arc<str>,
    /// The cluster has its endpoints by EDS under its own name.
    pub eds: bool,
    /// Route tables that the listener names.
    pub routes: Vec<Arc<str>>,
}

/// The facts of all resources that anybody was sent, by version: a version is a digest over the name too.
#[derive(Debug, Default)]
pub struct Library(Mutex<HashMap<(Type, String), Arc<Facts>>>);

impl Library {
    pub fn facts(&self, kind: Type, resource: &Resource, body: &Bytes) -> anyhow::Result<Arc<Facts>> {
        let key = (kind, resource.version.clone());
        if let Some(known) = lock(&self.0).get(&key) {
            ensure!(
                *known.name == resource.name,
                "two resources with one version {}",
                key.1
            );
            return Ok(known.clone());
        }
        let mut facts = Facts {
            name: resource.name.as_str().into(),
            version: resource.version.as_str().into(),
            eds: false,
            routes: Vec::new(),
        };
        match kind {
            Type::Cluster => {
                let cluster = Cluster::decode(body.clone())?;
                let eds = ClusterDiscoveryType::Type(DiscoveryType::Eds.into());
                facts.eds = cluster.cluster_discovery_type == Some(eds);
            }
            Type::Listener => facts.routes = routes(&Listener::decode(body.clone())?)?,
            _ => {}
        }
        Ok(lock(&self.0).entry(key).or_insert(Arc::new(facts)).clone())
    }
}

fn routes(listener: &Listener) -> anyhow::Result<Vec<Arc<str>>> {
    let chains = listener
        .filter_chains
        .iter()
        .chain(&listener.default_filter_chain);
    let mut names = Vec::new();
    for filter in chains.flat_map(|chain| &chain.filters) {
        let Some(ConfigType::TypedConfig(config)) = &filter.config_type else {
            continue;
        };
        if config.type_url != HttpConnectionManager::type_url() {
            continue;
        }
        if let Some(RouteSpecifier::Rds(rds)) =
            HttpConnectionManager::decode(config.value.as_slice())?.route_specifier
        {
            names.push(rds.route_config_name.as_str().into());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_proto::{
        envoy::service::discovery::v3::{self as discovery, DeltaDiscoveryResponse},
        pb::google::protobuf,
    };

    #[test]
    fn responses_are_taken_apart_wherever_they_are_cut() {
        let cluster = Cluster {
            name: "c".to_owned(),
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
            ..Cluster::default()
        };
        let response = DeltaDiscoveryResponse {
            system_version_info: "7".to_owned(),
            resources: vec![discovery::Resource {
                name: "c".to_owned(),
                version: "v".to_owned(),
                resource: Some(protobuf::Any {
                    type_url: Type::Cluster.url().to_owned(),
                    value: cluster.encode_to_vec(),
                }),
                ..discovery::Resource::default()
            }],
            type_url: Type::Cluster.url().to_owned(),
            removed_resources: vec!["gone".to_owned()],
            nonce: "n".to_owned(),
            ..DeltaDiscoveryResponse::default()
        };
        let message = response.encode_to_vec();
        let mut bytes = vec![0];
        bytes.put_u32(u32::try_from(message.len()).unwrap());
        bytes.extend_from_slice(&message);
        let twice = [bytes.clone(), bytes].concat();
        for size in [1, 7, 64, twice.len()] {
            let (mut reader, mut items) = (Reader::default(), Vec::new());
            for piece in twice.chunks(size) {
                reader.push(piece);
                while let Some(item) = reader.next().unwrap() {
                    items.push(item);
                }
            }
            assert_eq!(items.len(), 4, "in pieces of {size}");
            assert_eq!(items[..2], items[2..]);
            let Item::Resource(resource) = &items[0] else {
                panic!("{items:?}")
            };
            let body = &resource.resource.as_ref().unwrap().value;
            let facts = Library::default().facts(Type::Cluster, resource, body).unwrap();
            assert!(facts.eds && &*facts.name == "c" && &*facts.version == "v");
            let end = End {
                type_url: Type::Cluster.url().to_owned(),
                nonce: "n".to_owned(),
                removed: vec!["gone".to_owned()],
            };
            assert_eq!(items[1], Item::End(end));
        }
    }

    #[test]
    fn what_is_no_response_is_an_error() {
        let mut reader = Reader::default();
        reader.push(&[1, 0, 0, 0, 1, 0]);
        assert!(reader.next().is_err(), "compressed");
        let mut reader = Reader::default();
        reader.push(&[0, 0, 0, 0, 2, 0x08, 0x01]);
        assert!(reader.next().is_err(), "a number");
    }
}
