//! From the endpoints of a service port to groups: who counts, and how near each group is to the client.

use std::collections::BTreeMap;

use super::{Group, Member};
use crate::model::{Endpoint, Health, Labels, endpoint::Locality, policy::LocalityBalancing};

/// The client's side of the question.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    pub locality: &'a Locality,
    pub labels: &'a Labels,
    /// `None`: localities do not matter.
    pub balancing: Option<&'a LocalityBalancing>,
}

/// The endpoints that count, in groups. `mesh_tls` tells whether an endpoint takes the mesh's TLS.
pub fn groups(
    endpoints: &[&Endpoint],
    not_ready_too: bool,
    client: Client<'_>,
    mesh_tls: impl Fn(&Endpoint) -> bool,
) -> Vec<Group> {
    let balancing = client.balancing.filter(|balancing| balancing.enabled);
    let mut groups: BTreeMap<(u32, &Locality), Vec<Member>> = BTreeMap::new();
    for endpoint in usable(endpoints, not_ready_too) {
        let priority = balancing.map_or(0, |balancing| priority(balancing, client, endpoint));
        groups
            .entry((priority, &endpoint.locality))
            .or_default()
            .push(Member {
                address: endpoint.address.clone(),
                port: endpoint.port,
                weight: endpoint.weight.max(1),
                mesh_tls: mesh_tls(endpoint),
                workload: workload(endpoint),
            });
    }
    let mut renumbered: Vec<u32> = groups.keys().map(|(priority, _)| *priority).collect();
    renumbered.dedup();
    let weights = balancing.and_then(|balancing| weights(balancing, client.locality));
    groups
        .into_iter()
        .map(|((priority, locality), mut members)| {
            members.sort();
            members.dedup_by(|a, b| a.address == b.address && a.port == b.port);
            Group {
                locality: locality.clone(),
                // Envoy wants priorities without gaps.
                priority: renumbered
                    .iter()
                    .position(|p| *p == priority)
                    .and_then(|p| p.try_into().ok())
                    .unwrap_or(0),
                weight: weights.as_ref().map(|weights| share(weights, locality)),
                members,
            }
        })
        // A locality without a share gets no traffic.
        .filter(|group| group.weight != Some(0))
        .collect()
}

/// Ready ones; if there is none, those that drain.
fn usable<'a>(endpoints: &[&'a Endpoint], not_ready_too: bool) -> Vec<&'a Endpoint> {
    let of = |health: Health| {
        endpoints
            .iter()
            .copied()
            .filter(move |endpoint| endpoint.health == health)
    };
    let mut ready: Vec<&Endpoint> = of(Health::Ready).collect();
    if ready.is_empty() {
        ready = of(Health::Draining).collect();
    }
    if not_ready_too {
        ready.extend(of(Health::NotReady));
    }
    ready
}

/// `workload;namespace;canonical name;canonical revision;cluster`, Istio's form.
fn workload(endpoint: &Endpoint) -> String {
    if endpoint.workload_name.is_empty() && endpoint.canonical_name.is_empty() {
        return String::new();
    }
    format!(
        "{};{};{};{};Kubernetes",
        endpoint.workload_name, endpoint.namespace, endpoint.canonical_name, endpoint.canonical_revision
    )
}

fn priority(balancing: &LocalityBalancing, client: Client<'_>, endpoint: &Endpoint) -> u32 {
    if !balancing.distribute.is_empty() {
        return 0;
    }
    if !balancing.failover_priority.is_empty() {
        let same = |key: &&String| {
            let (name, wanted) = match key.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (key.as_str(), client.labels.get(key.as_str()).map(String::as_str)),
            };
            endpoint.labels.get(name).map(String::as_str) == wanted
        };
        let shared = balancing.failover_priority.iter().take_while(same).count();
        return u32::try_from(balancing.failover_priority.len() - shared).unwrap_or(u32::MAX);
    }
    let (own, other) = (client.locality, &endpoint.locality);
    if own.region != other.region {
        let preferred = balancing
            .failover
            .iter()
            .any(|(from, to)| *from == own.region && *to == other.region);
        return if preferred { 3 } else { 4 };
    }
    match (own.zone == other.zone, own.subzone == other.subzone) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => 2,
    }
}

/// The weights that count for a client there.
fn weights<'a>(balancing: &'a LocalityBalancing, own: &Locality) -> Option<&'a Vec<(Locality, u32)>> {
    balancing
        .distribute
        .iter()
        .find(|(from, _)| covers(from, own))
        .map(|(_, weights)| weights)
}

fn share(weights: &[(Locality, u32)], locality: &Locality) -> u32 {
    weights
        .iter()
        .find(|(to, _)| covers(to, locality))
        .map_or(0, |(_, weight)| *weight)
}

/// An empty part or `*` stands for all.
fn covers(pattern: &Locality, locality: &Locality) -> bool {
    let part = |pattern: &str, text: &str| pattern.is_empty() || pattern == "*" || pattern == text;
    part(&pattern.region, &locality.region)
        && part(&pattern.zone, &locality.zone)
        && part(&pattern.subzone, &locality.subzone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn endpoint(ip: &str, health: Health, locality: &str) -> Endpoint {
        Endpoint {
            health,
            locality: Locality::parse(locality),
            ..testing::endpoint(ip, 80)
        }
    }

    fn client<'a>(locality: &'a Locality, balancing: Option<&'a LocalityBalancing>) -> Client<'a> {
        static NONE: Labels = Labels::new();
        Client {
            locality,
            labels: &NONE,
            balancing,
        }
    }

    fn shape(groups: &[Group]) -> Vec<(String, u32, usize)> {
        groups
            .iter()
            .map(|g| (g.locality.zone.clone(), g.priority, g.members.len()))
            .collect()
    }

    #[test]
    fn draining_endpoints_are_the_last_resort() {
        let (ready, draining) = (
            endpoint("10.0.0.1", Health::Ready, ""),
            endpoint("10.0.0.2", Health::Draining, ""),
        );
        let not_ready = endpoint("10.0.0.3", Health::NotReady, "");
        let locality = Locality::default();
        let count = |endpoints: &[&Endpoint], too| {
            groups(endpoints, too, client(&locality, None), |_| false)
                .iter()
                .map(|g| g.members.len())
                .sum::<usize>()
        };
        assert_eq!(count(&[&ready, &draining, &not_ready], false), 1);
        assert_eq!(count(&[&draining, &not_ready], false), 1);
        assert_eq!(count(&[&not_ready], false), 0);
        assert_eq!(count(&[&ready, &not_ready], true), 2);
    }

    #[test]
    fn nearer_groups_come_first_without_gaps() {
        let a = endpoint("10.0.0.1", Health::Ready, "r1/a");
        let b = endpoint("10.0.0.2", Health::Ready, "r1/b");
        let far = endpoint("10.0.0.3", Health::Ready, "r2/c");
        let own = Locality::parse("r1/a");
        let on = LocalityBalancing {
            enabled: true,
            ..LocalityBalancing::default()
        };
        let all = groups(&[&far, &a, &b], false, client(&own, Some(&on)), |_| false);
        assert_eq!(
            shape(&all),
            [("a".into(), 0, 1), ("b".into(), 1, 1), ("c".into(), 2, 1)]
        );
        let flat = groups(&[&far, &a, &b], false, client(&own, None), |_| false);
        assert!(flat.iter().all(|group| group.priority == 0));
    }

    #[test]
    fn distribute_gives_weights() {
        let a = endpoint("10.0.0.1", Health::Ready, "r1/a");
        let b = endpoint("10.0.0.2", Health::Ready, "r1/b");
        let c = endpoint("10.0.0.3", Health::Ready, "r1/c");
        let on = LocalityBalancing {
            enabled: true,
            distribute: vec![(
                Locality::parse("r1/a/*"),
                vec![(Locality::parse("r1/a"), 80), (Locality::parse("r1/b"), 20)],
            )],
            ..LocalityBalancing::default()
        };
        let own = Locality::parse("r1/a");
        let all = groups(&[&a, &b, &c], false, client(&own, Some(&on)), |_| false);
        assert_eq!(
            all.iter().map(|g| g.weight).collect::<Vec<_>>(),
            [Some(80), Some(20)]
        );
    }
}
