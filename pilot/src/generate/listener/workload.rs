//! Which inbound listeners a workload needs: one for all that is redirected, and one for each port that a Sidecar has the
//! proxy bound to.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use super::{Input, inbound, tls};
use crate::{
    generate::{
        filter::hcm::Side,
        own::{self, OwnPort},
    },
    model::{MtlsMode, authn::EffectiveMtls},
    view::View,
};

/// How long an inbound connection may stay silent before it counts as plain bytes. The client's proxy speaks at once,
/// so this is only about clients without one, and servers that speak first.
const DETECTION: Duration = Duration::from_secs(5);

pub(super) fn inputs(view: &View<'_>) -> Vec<Input> {
    let mtls = view.mtls();
    let (bound, redirected): (Vec<OwnPort>, Vec<OwnPort>) =
        own::ports(view).into_iter().partition(|port| port.bound);
    let everything = frame(view, &mtls);
    let listeners = bound.into_iter().map(|port| {
        let anywhere = if view.viewer.ipv6 {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        } else {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        };
        Input::BoundInbound(Box::new(inbound::Bound {
            address: port.bind.unwrap_or(anywhere),
            port: inbound::Port {
                bind: None,
                ..declared(&mtls, port)
            },
            all: everything.clone(),
        }))
    });
    let listeners: Vec<Input> = listeners.collect();
    let ports: Vec<inbound::Port> = redirected.into_iter().map(|port| declared(&mtls, port)).collect();
    let known = |number: u16| ports.iter().any(|port| port.number == number);
    let undeclared = mtls.ports.iter().filter(|(number, _)| !known(**number));
    let undeclared: Vec<(u16, MtlsMode)> = undeclared.map(|(number, mode)| (*number, *mode)).collect();
    let redirected = inbound::Input {
        ports,
        undeclared,
        ..everything
    };
    std::iter::once(Input::VirtualInbound(Box::new(redirected)))
        .chain(listeners)
        .collect()
}

fn declared(mtls: &EffectiveMtls, port: OwnPort) -> inbound::Port {
    inbound::Port {
        number: port.number,
        protocol: port.protocol,
        mode: mtls.for_port(port.number),
        operation: port.operation(),
        bind: port.bind.map(Into::into),
        tls: port.tls,
        idle: port.pool.and_then(|pool| pool.tcp_idle_timeout),
    }
}

/// What all inbound listeners have in common.
fn frame(view: &View<'_>, mtls: &EffectiveMtls) -> inbound::Input {
    let detection = view.mesh().protocol_detection_timeout.0;
    inbound::Input {
        ports: Vec::new(),
        undeclared: Vec::new(),
        mode: mtls.mode,
        tls: tls::Mesh {
            source: view.viewer.source.clone(),
            trust_domains: view.trust_domains(),
            minimum: view.mesh().mesh_mtls.min_protocol_version,
        },
        settings: view.http_settings(Side::Inbound),
        timeout: if detection.is_zero() { DETECTION } else { detection },
    }
}
