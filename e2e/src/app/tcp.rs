//! The TCP side of the server. Byte patterns are known to both ends, so that each end checks what it gets without keeping it.

use anyhow::{Context, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

/// What a server that speaks first says.
pub const GREETING: &str = "220 ready\r\n";
/// `bulk`: the client gives, or takes.
pub const GIVE: u8 = b'G';
pub const TAKE: u8 = b'T';

/// Heads of requests larger than this are refused.
const MAX_HEAD: usize = 64 * 1024;
const MAX_LINE: usize = 64 * 1024;

/// One period of the byte pattern: 64 KiB that repeat for as long as needed. 251 is prime to 65536, so a byte lost or doubled
/// shows within one period.
pub fn pattern() -> Vec<u8> {
    (0..65536_u32).map(|i| (i % 251) as u8 ^ (i >> 8) as u8).collect()
}

/// Sends back what comes, until the other side ends.
pub async fn echo(mut stream: TcpStream) -> anyhow::Result<()> {
    let _ = stream.set_nodelay(true);
    let (mut from, mut to) = stream.split();
    // Small on purpose: thousands of these are open at once.
    let mut buffer = vec![0; 4096];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return Ok(to.shutdown().await?);
        }
        to.write_all(&buffer[..n]).await?;
    }
}

/// Greets first; then answers each line with the line.
pub async fn greet(stream: TcpStream) -> anyhow::Result<()> {
    let _ = stream.set_nodelay(true);
    let mut stream = BufReader::new(stream);
    stream.write_all(GREETING.as_bytes()).await?;
    let mut line = String::new();
    loop {
        line.clear();
        if (&mut stream).take(MAX_LINE as u64).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        stream.write_all(format!("250 {line}").as_bytes()).await?;
    }
}

/// `G` or `T`, a length in 8 bytes, then that many bytes of the pattern; a giver is answered how many bytes came as they should.
pub async fn bulk(mut stream: TcpStream) -> anyhow::Result<()> {
    let what = stream.read_u8().await?;
    let length = stream.read_u64().await?;
    match what {
        GIVE => {
            let good = receive(&mut stream, length).await?;
            stream.write_u64(good).await?;
            stream.shutdown().await?;
        }
        TAKE => {
            send(&mut stream, length).await?;
            stream.shutdown().await?;
        }
        other => bail!("asked to {other}, expected {GIVE} (give) or {TAKE} (take)"),
    }
    Ok(())
}

/// Sends `length` bytes of the pattern.
pub async fn send(stream: &mut TcpStream, length: u64) -> std::io::Result<()> {
    let pattern = pattern();
    let mut left = length;
    while left > 0 {
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(pattern.len());
        stream.write_all(&pattern[..n]).await?;
        left -= n as u64;
    }
    stream.flush().await
}

/// Receives `length` bytes, comparing each with the pattern.
pub async fn receive(stream: &mut TcpStream, length: u64) -> anyhow::Result<u64> {
    let pattern = pattern();
    let mut buffer = vec![0; pattern.len()];
    let mut got = 0;
    while got < length {
        let at = (got % pattern.len() as u64) as usize;
        let want = usize::try_from(length - got)
            .unwrap_or(usize::MAX)
            .min(pattern.len() - at);
        let n = stream.read(&mut buffer[..want]).await?;
        ensure!(n > 0, "the stream ended after {got} of {length} bytes");
        ensure!(
            buffer[..n] == pattern[at..at + n],
            "a byte between {got} and {} is wrong",
            got + n as u64
        );
        got += n as u64;
    }
    Ok(got)
}

/// Answers each request with the bytes of its head, so that a test sees the case and the order of the headers.
pub async fn raw_http(stream: TcpStream) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let n = (&mut stream)
                .take(MAX_HEAD as u64)
                .read_until(b'\n', &mut head)
                .await?;
            if n == 0 && head.is_empty() {
                return Ok(());
            }
            ensure!(
                n > 0 && head.len() <= MAX_HEAD,
                "the head of the request is cut off or longer than {MAX_HEAD} bytes"
            );
        }
        let length = body_length(&head).context("reading content-length")?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let answer = format!(
            "HTTP/1.1 200 Fine So Far\r\nX-Mixed-CASE: Kept\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            head.len()
        );
        stream.write_all(answer.as_bytes()).await?;
        stream.write_all(&head).await?;
    }
}

fn body_length(head: &[u8]) -> anyhow::Result<usize> {
    let head = String::from_utf8_lossy(head);
    let line = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = line.map_or(Ok(0), |(_, value)| value.trim().parse::<usize>())?;
    ensure!(length <= MAX_HEAD, "the body is longer than {MAX_HEAD} bytes");
    Ok(length)
}
