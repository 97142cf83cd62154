//! gRPC calls of all kinds, and what came of them: answers, statuses and trailers.

use crate::app::grpc::{
    TRAILER,
    echo::{Ping, echo_client::EchoClient},
};
use anyhow::{Context, ensure};
use clap::Args;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tonic::{Status, transport::Channel};

#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// host:port
    #[arg(long)]
    pub target: String,
    #[arg(long, default_value_t = 10)]
    pub unary: u32,
    /// Answers to ask for in one server stream.
    #[arg(long, default_value_t = 100)]
    pub answers: u32,
    /// Questions and answers in one stream of both.
    #[arg(long, default_value_t = 100)]
    pub talk: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub unary: u32,
    pub answers: u32,
    pub talk: u32,
    pub pods: BTreeMap<String, u32>,
    /// The status and the trailer of a call that was asked to fail, and of a stream that was asked to fail at its end.
    pub failed_code: i32,
    pub failed_message: String,
    pub failed_trailer: Option<String>,
    pub stream_failed_code: i32,
    /// In the stream of both kinds each answer came before the next question: the longest time between, in milliseconds.
    pub slowest_turn_ms: f64,
}

fn ping(text: &str, count: u32, fail_with: u32) -> Ping {
    Ping {
        text: text.to_owned(),
        count,
        fail_with,
    }
}

pub async fn run(settings: &Settings) -> anyhow::Result<Report> {
    let channel = Channel::from_shared(format!("http://{}", settings.target))?
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(60))
        .connect()
        .await
        .with_context(|| format!("no connection to {}", settings.target))?;
    let mut client = EchoClient::new(channel);
    let mut report = Report::default();
    for i in 0..settings.unary {
        let text = format!("ping {i}");
        let pong = client.unary(ping(&text, 0, 0)).await?.into_inner();
        ensure!(pong.text == text, "asked {text:?}, answered {:?}", pong.text);
        *report.pods.entry(pong.pod).or_default() += 1;
        report.unary += 1;
    }
    let mut answers = client
        .answers(ping("many", settings.answers, 0))
        .await?
        .into_inner();
    while let Some(pong) = answers.message().await? {
        ensure!(
            pong.index == report.answers,
            "answer {} came as number {}",
            pong.index,
            report.answers
        );
        report.answers += 1;
    }
    talk(&mut client, settings.talk, &mut report).await?;
    failures(&mut client, &mut report).await?;
    Ok(report)
}

/// Asks the next question only when the last was answered: nothing on the way may hold a message back.
async fn talk(client: &mut EchoClient<Channel>, turns: u32, report: &mut Report) -> anyhow::Result<()> {
    let (ask, questions) = tokio::sync::mpsc::channel(1);
    let mut answers = client
        .talk(tokio_stream::wrappers::ReceiverStream::new(questions))
        .await?
        .into_inner();
    for i in 0..turns {
        let begin = Instant::now();
        ask.send(ping(&i.to_string(), 0, 0))
            .await
            .context("the stream ended early")?;
        let pong = answers
            .next()
            .await
            .context("the stream ended before its answer")??;
        ensure!(
            pong.text == i.to_string() && pong.index == i,
            "question {i} was answered {pong:?}"
        );
        report.slowest_turn_ms = report.slowest_turn_ms.max(begin.elapsed().as_secs_f64() * 1000.0);
        report.talk += 1;
    }
    drop(ask);
    ensure!(answers.next().await.is_none(), "an answer without a question");
    Ok(())
}

async fn failures(client: &mut EchoClient<Channel>, report: &mut Report) -> anyhow::Result<()> {
    let status: Status = client
        .unary(ping("no", 0, 9))
        .await
        .err()
        .context("a call asked to fail succeeded")?;
    report.failed_code = status.code() as i32;
    report.failed_message = status.message().to_owned();
    report.failed_trailer = status
        .metadata()
        .get(TRAILER)
        .and_then(|v| v.to_str().ok())
        .map(str::to_owned);
    let mut answers = client.answers(ping("three, then no", 3, 10)).await?.into_inner();
    let mut count = 0;
    let end = loop {
        match answers.message().await {
            Ok(Some(_)) => count += 1,
            Ok(None) => break None,
            Err(status) => break Some(status),
        }
    };
    ensure!(count == 3, "{count} answers of 3 before the failure");
    report.stream_failed_code = end.context("a stream asked to fail ended well")?.code() as i32;
    Ok(())
}
