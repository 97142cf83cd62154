//! What really is on the wire: tcpdump in a network namespace, and a small reader of its file (the classic libpcap format).

use crate::{
    need,
    process::{Background, command, eventually},
};
use anyhow::{Context, bail, ensure};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

/// A capture that is going on.
pub struct Capture {
    tcpdump: Background,
    file: PathBuf,
}

/// Addresses and ports of one direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    pub source: ([u8; 4], u16),
    pub destination: ([u8; 4], u16),
}

impl Capture {
    /// Captures what matches `filter` on the interfaces of a network namespace.
    pub fn start(namespace: &str, filter: &str, file: &Path) -> anyhow::Result<Self> {
        let tcpdump = need::program("tcpdump", "tcpdump")?;
        let nsenter = need::program("nsenter", "util-linux")?;
        let _ = std::fs::remove_file(file);
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let net = format!("--net=/run/netns/{namespace}");
        let (tcpdump, output) = (tcpdump.display().to_string(), file.display().to_string());
        // The bridge inside the namespace; `any` would have another link type. Each packet comes in and goes out again on it.
        let arguments = [
            &net,
            &tcpdump,
            "-i",
            "gossamer0",
            "-Q",
            "in",
            "--immediate-mode",
            "-s",
            "0",
            "-U",
            "-Z",
            "root",
            "-w",
            &output,
            filter,
        ];
        let tcpdump = Background::start(command(nsenter, arguments))?;
        eventually(Duration::from_secs(10), "tcpdump listening", || {
            ensure!(
                file.metadata().is_ok_and(|file| file.len() >= 24),
                "{} is not there yet",
                file.display()
            );
            Ok(())
        })?;
        // The file's header is written before the first packet can be.
        std::thread::sleep(Duration::from_millis(300));
        Ok(Self {
            tcpdump,
            file: file.to_owned(),
        })
    }

    /// Ends the capture and reads the TCP payload of each direction of each connection, in the order it was seen.
    pub fn finish(self) -> anyhow::Result<BTreeMap<Flow, Vec<u8>>> {
        std::thread::sleep(Duration::from_millis(1000));
        self.tcpdump.terminate(Duration::from_secs(10))?;
        let bytes =
            std::fs::read(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        payloads(&bytes)
    }
}

fn number(bytes: &[u8], at: usize) -> anyhow::Result<usize> {
    let four = bytes.get(at..at + 4).context("the capture is cut off")?;
    Ok(four.iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte)))
}

fn payloads(bytes: &[u8]) -> anyhow::Result<BTreeMap<Flow, Vec<u8>>> {
    ensure!(
        number(bytes, 0)? == 0xa1b2_c3d4,
        "no capture in this machine's byte order"
    );
    let link = number(bytes, 20)?;
    if link != 1 {
        bail!("link type {link}, expected Ethernet");
    }
    let mut flows: BTreeMap<Flow, Vec<u8>> = BTreeMap::new();
    let mut at = 24;
    while at < bytes.len() {
        let length = number(bytes, at + 8)?;
        let packet = bytes
            .get(at + 16..at + 16 + length)
            .context("a packet is cut off")?;
        if let Some((flow, payload)) = segment(packet) {
            flows.entry(flow).or_default().extend_from_slice(payload);
        }
        at += 16 + length;
    }
    Ok(flows)
}

/// Ethernet, IPv4 (RFC 791), TCP (RFC 9293); anything else is not for us.
fn segment(packet: &[u8]) -> Option<(Flow, &[u8])> {
    if packet.get(12..14)? != [0x08, 0x00] {
        return None;
    }
    let ip = packet.get(14..)?;
    if *ip.get(9)? != 6 {
        return None;
    }
    let total = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
    let tcp = ip.get(usize::from(ip[0] & 15) * 4..total.min(ip.len()))?;
    let port = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
    let address = |at: usize| ip.get(at..at + 4)?.try_into().ok();
    let flow = Flow {
        source: (address(12)?, port(0)?),
        destination: (address(16)?, port(2)?),
    };
    let payload = tcp.get(usize::from(*tcp.get(12)? >> 4) * 4..)?;
    (!payload.is_empty()).then_some((flow, payload))
}

/// Does a direction of a connection begin with a TLS handshake record (RFC 8446, 5.1)?
pub fn begins_with_tls(payload: &[u8]) -> bool {
    payload.len() > 5 && payload[0] == 22 && payload[1] == 3
}

pub fn contains(payload: &[u8], text: &str) -> bool {
    payload
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_found_in_its_packet() {
        let mut packet = vec![0; 12];
        packet.extend([0x08, 0x00]);
        let mut ip = vec![0x45, 0, 0, 43, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let mut tcp = vec![0; 20];
        tcp[..4].copy_from_slice(&[0x1f, 0x90, 0x23, 0x78]);
        tcp[12] = 5 << 4;
        tcp.extend(b"abc");
        ip.extend(tcp);
        packet.extend(ip);
        // Ethernet fills short packets up; that is no payload.
        packet.extend([0; 6]);
        let (flow, payload) = segment(&packet).unwrap();
        assert_eq!(payload, b"abc");
        assert_eq!(flow.destination, ([10, 0, 0, 2], 9080));
        let mut file = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
        file.extend([0; 16]);
        file.extend(1_u32.to_le_bytes());
        for _ in 0..2 {
            file.extend([0; 8]);
            file.extend((packet.len() as u32).to_le_bytes());
            file.extend((packet.len() as u32).to_le_bytes());
            file.extend(&packet);
        }
        assert_eq!(payloads(&file).unwrap()[&flow], b"abcabc");
    }

    #[test]
    fn tls_is_told_from_http() {
        assert!(begins_with_tls(&[22, 3, 1, 2, 0, 1]));
        assert!(!begins_with_tls(b"GET / HTTP/1.1"));
        assert!(contains(b"GET / HTTP/1.1", "HTTP"));
    }
}
