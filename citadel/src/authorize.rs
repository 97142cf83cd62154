//! Whether a proven caller may have a certificate in its name. Pure.

use mesh_proto::{
    identity::{SpiffeId, TrustDomain},
    names,
};

use crate::{caller::Caller, error::Refusal};

/// The name that citadel itself serves under. Clients trust it to sign, so nobody else gets it.
pub fn own_name(trust_domain: &TrustDomain) -> SpiffeId {
    SpiffeId {
        trust_domain: trust_domain.clone(),
        namespace: names::SYSTEM_NAMESPACE.to_owned(),
        service_account: "citadel".to_owned(),
    }
}

pub fn authorize(caller: &Caller, trust_domain: &TrustDomain) -> Result<(), Refusal> {
    if caller.id.trust_domain != *trust_domain {
        let text = format!(
            "{} is not of this mesh, whose trust domain is {trust_domain}",
            caller.id
        );
        return Err(Refusal::NotAllowed(text));
    }
    if caller.id == own_name(trust_domain) {
        return Err(Refusal::NotAllowed(format!(
            "{} is the name of the authority itself",
            caller.id
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::Proof;

    #[test]
    fn who_may() {
        let ours = TrustDomain::default();
        for (id, allowed) in [
            ("spiffe://cluster.local/ns/default/sa/reviews", true),
            ("spiffe://cluster.local/ns/istio-system/sa/pilot", true),
            ("spiffe://cluster.local/ns/default/sa/citadel", true),
            ("spiffe://cluster.local/ns/istio-system/sa/citadel", false),
            ("spiffe://other.mesh/ns/default/sa/reviews", false),
        ] {
            let caller = Caller {
                id: id.parse().unwrap(),
                proof: Proof::Certificate,
            };
            assert_eq!(authorize(&caller, &ours).is_ok(), allowed, "{id}");
        }
    }
}
