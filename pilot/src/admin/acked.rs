//! `/debug/acked`: have all proxies acknowledged the current version of an object?

use axum::{http::StatusCode, response::Response};
use mesh_proto::kube::{Kind, ObjectKey};
use serde::Serialize;

use super::{Wanted, answer, refuse};
use crate::push::Hub;

#[derive(Debug, PartialEq, Serialize)]
pub struct Acked {
    pub object: String,
    /// Every connected proxy has, and answered for, a configuration in which the object is as it is now.
    pub acked: bool,
    /// The version of the object as it was last applied.
    pub version: Option<String>,
    /// Whether that version is in effect; one with an error is not, and the last good one stays.
    pub in_effect: bool,
    /// The snapshot in which its meaning last changed.
    pub snapshot: Option<u64>,
    pub proxies: usize,
    /// Proxies that have not answered yet, and those that refused something.
    pub waiting: Vec<String>,
    pub rejected: Vec<String>,
}

pub fn page(hub: &Hub, wanted: &Wanted) -> Response {
    let Some(object) = &wanted.object else {
        return refuse(StatusCode::BAD_REQUEST, "say ?object=kind/namespace/name");
    };
    match parse(object) {
        None => refuse(
            StatusCode::BAD_REQUEST,
            format!("{object:?} is not kind/namespace/name of a known kind"),
        ),
        Some((kind, key)) => match acked(hub, kind, &key) {
            Some(acked) => answer(&acked),
            None => refuse(StatusCode::NOT_FOUND, format!("pilot has never seen {object}")),
        },
    }
}

/// `virtualservice/default/reviews`
pub fn parse(object: &str) -> Option<(Kind, ObjectKey)> {
    let parts: Vec<&str> = object.split('/').collect();
    match parts[..] {
        [kind, namespace, name] => Some((Kind::named(kind)?, ObjectKey::new(namespace, name))),
        [kind, name] => Some((Kind::named(kind)?, ObjectKey::new("", name))),
        _ => None,
    }
}

/// `None`: the object was never there.
pub fn acked(hub: &Hub, kind: Kind, key: &ObjectKey) -> Option<Acked> {
    let current = hub.with_store(|store| {
        let version = store.manifest(kind, key).map(|manifest| manifest.version());
        store.is_current(kind, key).map(|current| (current, version))
    });
    let moment = hub.moment(kind, key);
    if current.is_none() && moment.is_none() {
        return None;
    }
    let sequence = moment.map(|moment| moment.sequence);
    let proxies = hub.proxies();
    let (mut waiting, mut rejected) = (Vec::new(), Vec::new());
    for proxy in &proxies {
        if proxy.with_session(|session| session.rejections().next().is_some()) {
            rejected.push(proxy.name());
        } else if !proxy.acknowledged(sequence.unwrap_or(0)) {
            waiting.push(proxy.name());
        }
    }
    let (in_effect, version) = current.unwrap_or((false, None));
    Some(Acked {
        object: format!("{}/{}/{}", kind.lower(), key.namespace, key.name),
        acked: waiting.is_empty() && rejected.is_empty(),
        version,
        in_effect,
        snapshot: sequence,
        proxies: proxies.len(),
        waiting,
        rejected,
    })
}
