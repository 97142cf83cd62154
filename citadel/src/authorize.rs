//! Whether a proven caller may have a certificate in its name. Pure.

use mesh_proto::{
    identity::{SpiffeId, TrustDomain},
    names,
};

use crate::{caller::Caller, error::Refusal};

/// Daemons of the control plane. A revision has a suffix: `pilot-canary`.
const CONTROL_PLANE: [&str; 3] = ["pilot", "citadel", "telemetry"];

/// Which mesh, and where its control plane lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub trust_domain: TrustDomain,
    pub namespace: String,
}

/// The DNS names that a certificate of this caller carries beside its identity: those of the Service of its own name,
/// for the daemons of the control plane only, as webhooks are called by DNS name. Never taken from a request.
pub fn dns_names(id: &SpiffeId, place: &Place) -> Vec<String> {
    let account = &id.service_account;
    let ours = id.namespace == place.namespace
        && CONTROL_PLANE.iter().any(|daemon| {
            account
                .strip_prefix(daemon)
                .is_some_and(|suffix| suffix.is_empty() || suffix.starts_with('-'))
        });
    let service = format!("{account}.{}.svc", id.namespace);
    // A label of a Service's name has no dots (RFC 1035); an account's name may have.
    if ours && !account.contains('.') {
        vec![format!("{service}.{}", names::CLUSTER_DOMAIN), service]
    } else {
        Vec::new()
    }
}

/// The name that citadel itself serves under. Clients trust it to sign, so nobody else gets it.
pub fn own_name(place: &Place) -> SpiffeId {
    SpiffeId {
        trust_domain: place.trust_domain.clone(),
        namespace: place.namespace.clone(),
        service_account: "citadel".to_owned(),
    }
}

pub fn authorize(caller: &Caller, place: &Place) -> Result<(), Refusal> {
    let trust_domain = &place.trust_domain;
    if caller.id.trust_domain != *trust_domain {
        let text = format!(
            "{} is not of this mesh, whose trust domain is {trust_domain}",
            caller.id
        );
        return Err(Refusal::NotAllowed(text));
    }
    if caller.id == own_name(place) {
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

    fn place() -> Place {
        Place {
            trust_domain: TrustDomain::default(),
            namespace: names::SYSTEM_NAMESPACE.to_owned(),
        }
    }

    #[test]
    fn only_the_control_plane_has_dns_names() {
        for (id, expect) in [
            ("istio-system/sa/pilot", Some("pilot.istio-system.svc")),
            (
                "istio-system/sa/pilot-canary",
                Some("pilot-canary.istio-system.svc"),
            ),
            ("istio-system/sa/citadel", Some("citadel.istio-system.svc")),
            ("istio-system/sa/telemetry", Some("telemetry.istio-system.svc")),
            ("istio-system/sa/pilots", None),
            ("istio-system/sa/pilot-a.b", None),
            ("istio-system/sa/istio-ingressgateway", None),
            ("default/sa/pilot", None),
        ] {
            let id = format!("spiffe://cluster.local/ns/{id}").parse().unwrap();
            let names = dns_names(&id, &place());
            match expect {
                Some(name) => assert_eq!(names, [format!("{name}.cluster.local"), name.to_owned()]),
                None => assert!(names.is_empty(), "{names:?}"),
            }
        }
    }

    #[test]
    fn who_may() {
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
            assert_eq!(authorize(&caller, &place()).is_ok(), allowed, "{id}");
        }
    }
}
