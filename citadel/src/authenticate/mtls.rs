//! A caller by its current certificate: TLS has proven the chain and the key; what is left is the name and the time, as
//! a connection may outlive the certificate that opened it. Pure.

use std::time::SystemTime;

use mesh_proto::identity::SpiffeId;
use mesh_runtime::grpc::PeerCertificate;

use crate::{
    caller::{Caller, Proof},
    error::Refusal,
};

pub fn caller(peer: &PeerCertificate, now: SystemTime) -> Result<Caller, Refusal> {
    if let Some(ago) = peer.not_after.and_then(|end| now.duration_since(end).ok()) {
        return Err(Refusal::Certificate(format!(
            "ended {} s ago; use the platform's token",
            ago.as_secs()
        )));
    }
    let [uri] = &peer.uris[..] else {
        let text = format!(
            "names {:?}, expected exactly one SPIFFE id (X.509-SVID §2)",
            peer.uris
        );
        return Err(Refusal::Certificate(text));
    };
    let id: SpiffeId = uri
        .parse()
        .map_err(|error| Refusal::Certificate(format!("{error}")))?;
    Ok(Caller {
        id,
        proof: Proof::Certificate,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn names_and_time() {
        let now = SystemTime::now();
        let (soon, past) = (now + Duration::from_secs(9), now - Duration::from_secs(9));
        let good = "spiffe://cluster.local/ns/default/sa/a";
        for (uris, not_after, expect) in [
            (vec![good], soon, Ok(good)),
            (vec![good], past, Err("ended 9 s ago")),
            (vec![], soon, Err("expected exactly one")),
            (vec![good, good], soon, Err("expected exactly one")),
            (vec!["https://cluster.local/"], soon, Err("is not spiffe://")),
        ] {
            let uris: Vec<String> = uris.into_iter().map(str::to_owned).collect();
            let peer = PeerCertificate {
                uris,
                not_after: Some(not_after),
                address: None,
            };
            match (caller(&peer, now), expect) {
                (Ok(caller), Ok(id)) => assert_eq!(caller.id.to_string(), id),
                (Err(refusal), Err(text)) => assert!(refusal.to_string().contains(text), "{refusal}"),
                (result, expect) => panic!("{result:?}, expected {expect:?}"),
            }
        }
    }
}
