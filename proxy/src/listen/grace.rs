//! How long a silent client is waited for, where TLS may come, before the server behind gets its chance to speak first.
//!
//! Both mistakes cost something. Too short: a server that speaks first has spoken into a connection on which a proxy of the
//! mesh was about to begin TLS, and that connection fails. Too long: every plaintext client of such a server waits that
//! long. (Where the server does not speak first nothing is lost either way: `conn::tcp` looks at the first bytes whenever
//! they come.) So a worker remembers, for each source address, how it began lately:
//!
//! | The source | is given |
//! | --- | --- |
//! | always began with TLS | [`LONG`]: its proxy may be on a busy machine, but it will speak |
//! | never did | twice the round trip, [`SHORT`] |
//! | is new here, or did both (many clients behind one address) | four times the round trip, [`UNKNOWN`] |
//!
//! The round trip is the kernel's own measurement from the handshake of this connection (`TCP_INFO`, tcp(7)).
//!
//! Bound: two generations of [`GENERATION`] addresses. The older one is dropped when the younger is full, or after
//! [`TURN`], so that an address that changed hands (a pod's address does) is soon new again.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::IpAddr,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use nix::{getsockopt_impl, libc, sockopt_impl, sys::socket::getsockopt};
use tokio::net::TcpStream;

/// For a source that begins with TLS.
pub const LONG: Duration = Duration::from_millis(500);
/// For a source that nobody knows.
pub const UNKNOWN: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_millis(100);
/// For a source that begins without TLS.
pub const SHORT: RangeInclusive<Duration> = Duration::from_millis(2)..=Duration::from_millis(20);

const GENERATION: usize = 2048;
const TURN: Duration = Duration::from_secs(600);

/// How connections from an address begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Tls,
    Plain,
    Both,
}

impl Manner {
    fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::Both }
    }

    /// By the first byte: a TLS record that carries a handshake (RFC 8446 §5.1) begins with 22.
    pub fn of(first: u8) -> Self {
        if first == 22 { Self::Tls } else { Self::Plain }
    }
}

/// What one worker knows of the sources of its connections.
#[derive(Debug, Default)]
pub struct Sources {
    young: RefCell<HashMap<IpAddr, Manner>>,
    old: RefCell<HashMap<IpAddr, Manner>>,
    turned: Cell<Option<Instant>>,
}

impl Sources {
    /// A connection from there began so.
    pub fn learn(&self, source: IpAddr, manner: Manner, now: Instant) {
        let mut young = self.young.borrow_mut();
        let known = young.get(&source).copied();
        if known == Some(manner) {
            return;
        }
        let turned = self.turned.get().unwrap_or_else(|| {
            self.turned.set(Some(now));
            now
        });
        if young.len() >= GENERATION || now.saturating_duration_since(turned) >= TURN {
            *self.old.borrow_mut() = std::mem::take(&mut *young);
            self.turned.set(Some(now));
        }
        let known = known.or_else(|| self.old.borrow().get(&source).copied());
        young.insert(source, known.map_or(manner, |known| known.and(manner)));
    }

    fn manner(&self, source: IpAddr, now: Instant) -> Option<Manner> {
        let turned = self.turned.get()?;
        let age = now.saturating_duration_since(turned);
        // Nobody has turned the generations since: what is here is older than it may be.
        if age >= 2 * TURN {
            return None;
        }
        let young = self.young.borrow().get(&source).copied();
        young.or_else(|| {
            let old = self.old.borrow();
            old.get(&source).copied().filter(|_| age < TURN)
        })
    }

    /// How long a silent client from there is waited for; `round_trip` is asked where it matters.
    pub fn grace(
        &self,
        source: IpAddr,
        now: Instant,
        round_trip: impl FnOnce() -> Option<Duration>,
    ) -> Duration {
        let within = |times: u32, range: RangeInclusive<Duration>| {
            round_trip()
                .unwrap_or_default()
                .saturating_mul(times)
                .clamp(*range.start(), *range.end())
        };
        match self.manner(source, now) {
            Some(Manner::Tls) => LONG,
            Some(Manner::Plain) => within(2, SHORT),
            Some(Manner::Both) | None => within(4, UNKNOWN),
        }
    }
}

sockopt_impl!(
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    libc::tcp_info
);

/// The round trip that the kernel has measured on this connection.
pub fn round_trip(tcp: &TcpStream) -> Option<Duration> {
    let info = getsockopt(tcp, TcpInfo).ok()?;
    (info.tcpi_rtt > 0).then(|| Duration::from_micros(info.tcpi_rtt.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(7);

    fn ip(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from(n).into()
    }

    #[test]
    fn sources_are_known_by_what_they_did() {
        let (sources, now) = (Sources::default(), Instant::now());
        let grace = |n| sources.grace(ip(n), now, || Some(ROUND_TRIP));
        assert_eq!(grace(1), 4 * ROUND_TRIP);
        sources.learn(ip(1), Manner::Tls, now);
        sources.learn(ip(2), Manner::Plain, now);
        assert_eq!((grace(1), grace(2)), (LONG, 2 * ROUND_TRIP));
        sources.learn(ip(2), Manner::of(22), now);
        assert_eq!(grace(2), 4 * ROUND_TRIP, "both manners: as if it were new");
        sources.learn(ip(2), Manner::of(b'G'), now);
        assert_eq!(grace(2), 4 * ROUND_TRIP);
        // Bounds hold whatever the round trip is.
        for (trip, wanted) in [(0, 20), (1, 20), (1000, 100)] {
            let grace = sources.grace(ip(3), now, || Some(Duration::from_millis(trip)));
            assert_eq!(grace, Duration::from_millis(wanted));
        }
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let (sources, start) = (Sources::default(), Instant::now());
        let known = |n, at| sources.manner(ip(n), at);
        sources.learn(ip(1), Manner::Plain, start);
        assert_eq!(known(1, start + TURN), Some(Manner::Plain));
        sources.learn(ip(2), Manner::Plain, start + TURN);
        assert_eq!(
            known(1, start + TURN),
            Some(Manner::Plain),
            "in the older generation"
        );
        assert_eq!(known(1, start + 2 * TURN), None);
        assert_eq!(known(2, start + 3 * TURN), None);
        for n in 0..100_000 {
            sources.learn(ip(n), Manner::Tls, start + 3 * TURN);
        }
        assert!(sources.young.borrow().len() + sources.old.borrow().len() <= 2 * GENERATION);
    }

    #[tokio::test]
    async fn the_kernel_knows_the_round_trip() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, accepted) = tokio::join!(
            TcpStream::connect(listener.local_addr().unwrap()),
            listener.accept()
        );
        let (server, _) = accepted.unwrap();
        let trip = round_trip(&server).unwrap();
        assert!(trip < Duration::from_secs(1), "{trip:?}");
        drop(client);
    }
}
