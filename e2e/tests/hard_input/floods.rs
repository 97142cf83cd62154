//! HTTP/2 that is correct frame by frame and abuse as a whole. Each flood ends its own connection, is counted, costs no memory
//! that stays, and nobody else's request.

use super::bench::{Kind, Proxy, read_until_quiet, server};
use anyhow::{Context, ensure};
use serde_json::json;
use std::{io::Write, time::Duration};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a flood may leave behind, in KiB.
const GROWTH: u64 = 24 << 10;

pub fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = (content.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(content);
    bytes
}

/// Preface and SETTINGS.
pub fn hello(settings: &[u8]) -> Vec<u8> {
    [PREFACE, &frame(4, 0, 0, settings)].concat()
}

/// `GET path` of the host `a`, in HPACK without any table (RFC 7541 §6.1, §6.2.2).
fn block(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x01, 1, b'a', 0x04];
    block.push(u8::try_from(path.len()).expect("a short path"));
    block.extend(path.bytes());
    block
}

pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(1, 0x4 | 0x1, stream, &block(path))
}

/// A header of so many bytes that stays out of the table.
fn header(name: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0, u8::try_from(name.len()).expect("a short name")];
    bytes.extend(name.bytes());
    bytes.push(0x7f);
    let mut rest = length - 0x7f;
    while rest >= 0x80 {
        bytes.push((rest % 0x80) as u8 | 0x80);
        rest /= 0x80;
    }
    bytes.push(rest as u8);
    bytes.extend(std::iter::repeat_n(b'x', length));
    bytes
}

/// The kinds of the frames in these bytes with the first four bytes of their content, or the last four for GOAWAY.
pub fn frames(mut bytes: &[u8]) -> Vec<(u8, u32, u32)> {
    let mut found = Vec::new();
    while let Some((header, rest)) = bytes.split_at_checked(9) {
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
        let content = &rest[..length.min(rest.len())];
        let at = if header[3] == 7 { 4 } else { 0 };
        let code = content.get(at..at + 4).and_then(|code| code.try_into().ok());
        found.push((header[3], stream, code.map_or(0, u32::from_be_bytes)));
        bytes = &rest[length.min(rest.len())..];
    }
    found
}

struct Flood {
    name: &'static str,
    /// Sent one after the other.
    pieces: Vec<Vec<u8>>,
    /// Of the GOAWAY that ends it; `None`: the connection goes on.
    goaway: Option<u32>,
    counter: &'static str,
}

fn flood(name: &'static str, bytes: Vec<u8>, goaway: Option<u32>, counter: &'static str) -> Flood {
    Flood {
        name,
        pieces: vec![hello(&[]), bytes],
        goaway,
        counter,
    }
}

/// ENHANCE_YOUR_CALM (RFC 9113 §7).
const CALM: Option<u32> = Some(11);

fn floods() -> Vec<Flood> {
    let reset = |n: u32| frame(3, 0, 2 * n + 1, &[0, 0, 0, 8]);
    let resets: Vec<u8> = (0..2000)
        .flat_map(|n| [get(2 * n + 1, "/reset"), reset(n)].concat())
        .collect();
    // Each when it is being served already.
    let served = (0..400).flat_map(|n| [get(2 * n + 1, "/hang"), reset(n)]);
    let first = frame(1, 0x1, 1, &block("/long"));
    let continuations = [first.clone(), frame(9, 0, 1, &header("x", 200)).repeat(5000)].concat();
    let nothing = [first, frame(9, 0, 1, &[]).repeat(5000)].concat();
    let large = [block("/large"), header("x", 15_000)].concat();
    let bomb = [
        frame(1, 0x1, 1, &large),
        frame(9, 0, 1, &header("y", 16_000)).repeat(3),
        frame(9, 0x4, 1, &header("z", 16_000)),
    ]
    .concat();
    let many = [block("/many"), header("x", 130).repeat(110)].concat();
    // One large entry of the table, and then a byte for each copy of it.
    let mut entry = header("x", 3500);
    entry[0] = 0x40;
    let table = [block("/table"), entry, vec![0xbe; 5000]].concat();
    let body = frame(1, 0x4, 1, &block("/body"));
    let protocol = "http.in.downstream_cx_protocol_error";
    vec![
        flood("rapid reset", resets, CALM, protocol),
        Flood {
            name: "reset of what is being served",
            pieces: std::iter::once(hello(&[])).chain(served).collect(),
            goaway: CALM,
            counter: "http.in.downstream_rq_too_many_premature_resets",
        },
        flood("CONTINUATION without end", continuations, CALM, protocol),
        flood(
            "empty CONTINUATION",
            nothing,
            CALM,
            "http2.inbound_empty_frames_flood",
        ),
        flood("a large head", bomb, None, "http2.header_overflow"),
        flood(
            "many headers",
            frame(1, 0x5, 1, &many),
            None,
            "http2.header_overflow",
        ),
        flood("a head that unpacks", frame(1, 0x5, 1, &table), CALM, protocol),
        flood(
            "PING",
            frame(6, 0, 0, &[0; 8]).repeat(5000),
            CALM,
            "http2.inbound_control_frames_flood",
        ),
        flood(
            "SETTINGS",
            frame(4, 0, 0, &[]).repeat(5000),
            CALM,
            "http2.inbound_control_frames_flood",
        ),
        flood(
            "unknown frames",
            frame(99, 0, 0, &[]).repeat(5000),
            CALM,
            "http2.inbound_control_frames_flood",
        ),
        flood(
            "PRIORITY",
            frame(2, 0, 3, &[0, 0, 0, 0, 1]).repeat(5000),
            CALM,
            "http2.inbound_priority_frames_flood",
        ),
        flood(
            "WINDOW_UPDATE",
            frame(8, 0, 0, &[0, 0, 0, 1]).repeat(5000),
            CALM,
            "http2.inbound_window_update_frames_flood",
        ),
        flood(
            "empty DATA",
            [body, frame(0, 0, 1, &[]).repeat(5000)].concat(),
            CALM,
            "http2.inbound_empty_frames_flood",
        ),
        flood(
            "a frame too large",
            frame(0, 0, 1, &[0; 20_000]),
            Some(6),
            protocol,
        ),
        flood(
            "a window beyond all bounds",
            frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            Some(3),
            protocol,
        ),
    ]
}

#[test]
fn floods_end_and_cost_nobody_else() -> anyhow::Result<()> {
    let proxy = Proxy::start(Kind::Ours, server()?, &[json!({})])?;
    for case in floods() {
        let name = case.name;
        proxy.serves(0)?;
        let (before, memory) = (proxy.counter(case.counter)?, proxy.memory()?);
        let mut stream = proxy.connect(0)?;
        for piece in &case.pieces {
            // The proxy may stop listening before all has been sent.
            if stream.write_all(piece).is_err() {
                break;
            }
            if case.pieces.len() > 2 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let (bytes, open) = read_until_quiet(&mut stream);
        let seen = frames(&bytes);
        let goaway = seen.iter().find(|(kind, ..)| *kind == 7).map(|(.., code)| *code);
        if case.goaway.is_none() {
            ensure!(open && goaway.is_none(), "{name}: should go on; frames {seen:?}");
        } else {
            // Where the peer's bytes were not all read the kernel may take the last word away with a reset.
            ensure!(
                !open && (goaway.is_none() || goaway == case.goaway),
                "{name}: open {open}, frames {seen:?}"
            );
        }
        proxy
            .grows(case.counter, before)
            .with_context(|| format!("{name} is counted"))?;
        proxy
            .serves(0)
            .with_context(|| format!("others are served after {name}"))?;
        let after = proxy.memory()?;
        ensure!(
            after < memory + GROWTH,
            "{name}: memory went from {memory} to {after} KiB"
        );
    }
    Ok(())
}
