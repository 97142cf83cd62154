//! The gRPC service: one call of each kind. A call that is to fail ends with the status asked for, in trailers, with the trailer
//! `x-echo-trailer`.

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use std::pin::Pin;
use tonic::{Code, Status, Streaming, codegen::Service, metadata::MetadataMap};

pub mod echo {
    //! Generated from `proto/echo.proto`.
    #![allow(clippy::all, unused_qualifications)]
    tonic::include_proto!("gossamer.e2e");
}

use echo::{
    Ping, Pong,
    echo_server::{Echo, EchoServer},
};

pub const TRAILER: &str = "x-echo-trailer";
/// One call answers at most so often.
const MAX_ANSWERS: u32 = 1_000_000;

/// Serves one call.
pub async fn answer(request: Request<Incoming>, pod: String) -> Response<UnsyncBoxBody<Bytes, Status>> {
    let mut server = EchoServer::new(Voice { pod });
    match server.call(request).await {
        Ok(response) => response.map(|body| body.boxed_unsync()),
        Err(never) => match never {},
    }
}

struct Voice {
    pod: String,
}

type Answers = Pin<Box<dyn Stream<Item = Result<Pong, Status>> + Send>>;

fn failure(ping: &Ping) -> Option<Status> {
    (ping.fail_with != 0).then(|| {
        let mut trailers = MetadataMap::new();
        trailers.insert(TRAILER, tonic::metadata::MetadataValue::from_static("kept"));
        let code = Code::from_i32(i32::try_from(ping.fail_with).unwrap_or_default());
        Status::with_metadata(code, format!("as asked: {}", ping.text), trailers)
    })
}

#[tonic::async_trait]
impl Echo for Voice {
    type AnswersStream = Answers;
    type TalkStream = Answers;

    async fn unary(&self, request: tonic::Request<Ping>) -> Result<tonic::Response<Pong>, Status> {
        let ping = request.into_inner();
        match failure(&ping) {
            Some(status) => Err(status),
            None => Ok(tonic::Response::new(Pong {
                text: ping.text,
                index: 0,
                pod: self.pod.clone(),
            })),
        }
    }

    async fn answers(&self, request: tonic::Request<Ping>) -> Result<tonic::Response<Answers>, Status> {
        let ping = request.into_inner();
        let pod = self.pod.clone();
        let last = failure(&ping).map(Err);
        let text = ping.text;
        let pongs = (0..ping.count.min(MAX_ANSWERS)).map(move |index| {
            Ok(Pong {
                text: text.clone(),
                index,
                pod: pod.clone(),
            })
        });
        Ok(tonic::Response::new(Box::pin(stream::iter(pongs.chain(last)))))
    }

    async fn talk(
        &self,
        request: tonic::Request<Streaming<Ping>>,
    ) -> Result<tonic::Response<Answers>, Status> {
        let pod = self.pod.clone();
        let pongs = request.into_inner().enumerate().map(move |(index, ping)| {
            let ping = ping?;
            match failure(&ping) {
                Some(status) => Err(status),
                None => {
                    let index = u32::try_from(index).unwrap_or(u32::MAX);
                    Ok(Pong {
                        text: ping.text,
                        index,
                        pod: pod.clone(),
                    })
                }
            }
        });
        Ok(tonic::Response::new(Box::pin(pongs)))
    }
}
