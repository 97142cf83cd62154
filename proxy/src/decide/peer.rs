//! How is an upstream spoken to, and is it who it should be?

use super::{facts::PeerNames, matching};
use crate::config::{
    cluster::{Cluster, Protocol},
    transport::{SanKind, UpstreamTls, Validation},
};

/// The protocol of a new connection to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Speak {
    Http1,
    Http2,
    /// Whichever of the two the handshake agrees on.
    ByAlpn,
}

/// The protocol to speak with this cluster for a request that came by HTTP/2 or not, over TLS or not.
pub fn protocol(cluster: &Cluster, downstream_http2: bool, tls: Option<&UpstreamTls>) -> Speak {
    match cluster.http.protocol {
        Protocol::Http1 => Speak::Http1,
        Protocol::Http2 => Speak::Http2,
        Protocol::UseDownstream if downstream_http2 => Speak::Http2,
        Protocol::UseDownstream => Speak::Http1,
        Protocol::Auto if tls.is_some() => Speak::ByAlpn,
        // Without TLS there is nothing to agree by.
        Protocol::Auto => Speak::Http1,
    }
}

/// Do the peer's proven names satisfy the rules? No rule: any name does.
pub fn names_match(validation: &Validation, names: &PeerNames) -> bool {
    validation.names.is_empty()
        || validation.names.iter().any(|rule| {
            let candidates = match rule.kind {
                SanKind::Uri => &names.uris,
                SanKind::Dns => &names.dns,
                // rustls hands these two to nobody; a rule about them matches no peer.
                SanKind::Ip | SanKind::Email => return false,
            };
            candidates
                .iter()
                .any(|name| matching::string(&rule.rule, name.as_bytes()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{matcher::StringMatch, transport::SanMatch};

    #[test]
    fn names() {
        let rule = |kind, text: &str| Validation {
            names: vec![SanMatch {
                kind,
                rule: StringMatch::Exact {
                    value: text.as_bytes().into(),
                    ignore_case: false,
                },
            }],
            ..Validation::default()
        };
        let names = PeerNames {
            uris: vec!["spiffe://a/b".into()],
            dns: vec!["a.com".into()],
            ..PeerNames::default()
        };
        assert!(names_match(&rule(SanKind::Uri, "spiffe://a/b"), &names));
        assert!(!names_match(&rule(SanKind::Uri, "a.com"), &names));
        assert!(names_match(&rule(SanKind::Dns, "a.com"), &names));
        assert!(!names_match(
            &rule(SanKind::Uri, "spiffe://a/b"),
            &PeerNames::default()
        ));
        assert!(names_match(&Validation::default(), &PeerNames::default()));
    }
}
