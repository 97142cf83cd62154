//! Delta streams on the wire: gRPC over HTTP/2, written and read here so that thousands of silent streams
//! cost little.
//!
//! A response is written piece by piece as the connection takes it, from bytes that all proxies share; a
//! general gRPC server would first copy it into a buffer of its own. And nothing is kept for a stream on
//! which nothing happens: no buffer that once held a long request. The variant for whole states, which only
//! foreign proxies speak, goes through the general server.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::future::{BoxFuture, FutureExt};
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use hyper::body::{Body as HttpBody, Frame};
use mesh_proto::{
    envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, aggregated_discovery_service_server::AggregatedDiscoveryServiceServer,
    },
    xds::server::{News, Pieces},
};
use prost::Message;
use tokio_stream::Stream;
use tonic::{Status, body::Body, metadata::MetadataMap, server::NamedService};
use tower_service::Service as TowerService;

use super::{MAX_REQUEST, Service, stream};

const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// Compressed or not, and the length.
const HEAD: usize = 5;

/// The discovery service as one puts it into a server.
#[derive(Clone, Debug)]
pub struct Wire {
    service: Service,
    others: AggregatedDiscoveryServiceServer<Service>,
}

impl Wire {
    pub fn new(service: Service, others: AggregatedDiscoveryServiceServer<Service>) -> Self {
        Self { service, others }
    }
}

impl NamedService for Wire {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl TowerService<http::Request<Body>> for Wire {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != DELTA {
            return TowerService::call(&mut self.others, request).boxed();
        }
        let service = self.service.clone();
        async move { Ok(delta(&service, request).await.unwrap_or_else(Status::into_http)) }.boxed()
    }
}

async fn delta(service: &Service, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
    let (parts, body) = request.into_parts();
    let metadata = MetadataMap::from_headers(parts.headers);
    let guest = service
        .admit(&tonic::Request::from_parts(metadata, parts.extensions, ()))
        .await?;
    let requests = Requests {
        body,
        buffer: BytesMut::new(),
    };
    let responses = stream::run::<stream::Delta>(service.hub.clone(), guest, requests, service.drain.clone());
    let mut response = http::Response::new(Body::new(Responses {
        news: responses,
        pieces: None,
        ended: false,
    }));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, grpc);
    Ok(response)
}

/// What the proxy says.
struct Requests {
    body: Body,
    buffer: BytesMut,
}

impl Requests {
    /// The next whole message.
    fn take(&mut self) -> Result<Option<DeltaDiscoveryRequest>, Status> {
        let Some(head) = self.buffer.first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let [compressed, length @ ..] = *head;
        if compressed != 0 {
            let text = "a compressed request; say grpc-encoding: identity";
            return Err(Status::unimplemented(text));
        }
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_REQUEST {
            let text = format!("a request of {length} bytes; it may have {MAX_REQUEST}");
            return Err(Status::resource_exhausted(text));
        }
        if self.buffer.len() < HEAD + length {
            return Ok(None);
        }
        self.buffer.advance(HEAD);
        let message = DeltaDiscoveryRequest::decode(self.buffer.split_to(length))
            .map_err(|error| Status::internal(format!("a request cannot be read: {error}")))?;
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        Ok(Some(message))
    }
}

impl Stream for Requests {
    type Item = Result<DeltaDiscoveryRequest, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(message) = self.take().transpose() {
                return Poll::Ready(Some(message));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None if self.buffer.is_empty() => return Poll::Ready(None),
                None => {
                    self.buffer.clear();
                    let text = "the stream ended in the middle of a request";
                    return Poll::Ready(Some(Err(Status::internal(text))));
                }
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// What it is told.
struct Responses<S> {
    news: S,
    /// What is left of the response that is being written.
    pieces: Option<Pieces>,
    ended: bool,
}

impl<S: Stream<Item = Result<News, Status>> + Unpin> HttpBody for Responses<S> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(piece) = self.pieces.as_mut().and_then(Iterator::next) {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        self.pieces = None;
        let status = match ready!(Pin::new(&mut self.news).poll_next(cx)) {
            Some(Ok(news)) => {
                let (head, first) = begin(&mut self.pieces, news);
                let mut piece = BytesMut::with_capacity(head.len() + first.len());
                piece.put_slice(&head);
                piece.put_slice(&first);
                return Poll::Ready(Some(Ok(Frame::data(piece.freeze()))));
            }
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.ended = true;
        Poll::Ready(Some(trailers(&status).map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// The head of a message, and its first piece, which is a small one.
fn begin(pieces: &mut Option<Pieces>, news: News) -> ([u8; HEAD], Bytes) {
    // A session sends no more than fits: see `mesh_proto::xds::server::RESPONSE_BYTES`.
    let length = u32::try_from(news.encoded_len()).unwrap_or(u32::MAX);
    let mut head = [0; HEAD];
    head[1..].copy_from_slice(&length.to_be_bytes());
    let mut rest = news.pieces();
    let first = rest.next().unwrap_or_default();
    *pieces = Some(rest);
    (head, first)
}

fn trailers(status: &Status) -> Result<HeaderMap, Status> {
    let mut headers = HeaderMap::new();
    status.add_header(&mut headers)?;
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::StreamExt;
    use http_body_util::BodyExt;
    use mesh_proto::{
        envoy::service::discovery::v3::DeltaDiscoveryResponse,
        xds::{Encoded, Type, Version},
    };

    use super::*;

    fn framed(message: &impl Message) -> Vec<u8> {
        let body = message.encode_to_vec();
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn requests(pieces: Vec<Vec<u8>>) -> Requests {
        let frames = pieces
            .into_iter()
            .map(|piece| Ok::<_, Status>(Frame::data(Bytes::from(piece))));
        Requests {
            body: Body::new(http_body_util::StreamBody::new(tokio_stream::iter(frames))),
            buffer: BytesMut::new(),
        }
    }

    #[tokio::test]
    async fn requests_are_read_wherever_they_are_cut() {
        let request = |url: &str| DeltaDiscoveryRequest {
            type_url: url.to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        let all = [
            framed(&request("a")),
            framed(&request("bb")),
            framed(&request("")),
        ]
        .concat();
        for size in [1, 3, all.len()] {
            let mut stream = requests(all.chunks(size).map(<[u8]>::to_vec).collect());
            for url in ["a", "bb", ""] {
                assert_eq!(stream.next().await.unwrap().unwrap(), request(url));
            }
            assert_eq!(stream.buffer.capacity(), 0, "nothing is kept");
            assert!(stream.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn what_is_no_request_ends_the_stream() {
        for (bytes, code) in [
            (vec![1, 0, 0, 0, 0], tonic::Code::Unimplemented),
            (vec![0, 255, 0, 0, 0], tonic::Code::ResourceExhausted),
            (vec![0, 0, 0, 0, 1, 255], tonic::Code::Internal),
            (vec![0, 0, 0, 0, 9, 1], tonic::Code::Internal),
        ] {
            let status = requests(vec![bytes]).next().await.unwrap().unwrap_err();
            assert_eq!(status.code(), code, "{status}");
        }
    }

    #[tokio::test]
    async fn responses_are_whole_messages_and_end_with_a_status() {
        let news = |number: u64, bytes: usize| News {
            kind: Type::Cluster,
            version: number.to_string(),
            resources: vec![Arc::new(Encoded {
                name: "c".into(),
                version: Version(number),
                kind: Type::Cluster,
                body: vec![7; bytes].into(),
            })],
            removed: Vec::new(),
            nonce: "n".to_owned(),
        };
        let all = [news(1, 10), news(2, 100_000), news(3, 0)];
        let items = all.iter().cloned().map(Ok);
        let ending = [Err(Status::unavailable("pilot is going away"))];
        let body = Responses {
            news: tokio_stream::iter(items.chain(ending)),
            pieces: None,
            ended: false,
        };
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().unwrap().clone();
        assert_eq!(trailers["grpc-status"], "14");
        let mut bytes = collected.to_bytes();
        for expect in &all {
            let head = bytes.split_to(HEAD);
            assert_eq!(head[0], 0);
            let length = u32::from_be_bytes(head[1..].try_into().unwrap());
            let message = bytes.split_to(usize::try_from(length).unwrap());
            assert_eq!(DeltaDiscoveryResponse::decode(message).unwrap(), expect.message());
        }
        assert!(bytes.is_empty());
    }
}
