//! From the endpoints of a service port to groups: who counts, and how near each group is to the client.

use std::collections::BTreeMap;

use super::{Group, Member};
use crate::model::{Distribution, Endpoint, Health, Labels, endpoint::Locality, policy::LocalityBalancing};

/// The client's side of the question.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    pub locality: &'a Locality,
    pub labels: &'a Labels,
    /// `None`: localities do not matter.
    pub balancing: Option<&'a LocalityBalancing>,
    /// Empty where it does not matter, or is not known.
    pub node: &'a str,
    /// What the service asks for where `balancing` says nothing.
    pub distribution: Distribution,
    /// Only endpoints of the client's own node.
    pub node_local: bool,
}

/// The endpoints that count, in groups. `mesh_tls` tells whether an endpoint takes the mesh's TLS.
pub fn groups(
    endpoints: &[&Endpoint],
    not_ready_too: bool,
    client: Client<'_>,
    mesh_tls: impl Fn(&Endpoint) -> bool,
) -> Vec<Group> {
    let balancing = client.balancing.filter(|balancing| balancing.enabled);
    let near: Vec<&Endpoint> = endpoints
        .iter()
        .copied()
        .filter(|endpoint| !client.node_local || endpoint.node == client.node)
        .collect();
    let (usable, ending) = usable(&near, not_ready_too);
    let mut groups: BTreeMap<(u32, &Locality), Vec<Member>> = BTreeMap::new();
    let mut add = |endpoint: &Endpoint, locality, priority, draining| {
        groups.entry((priority, locality)).or_default().push(Member {
            address: endpoint.address.clone(),
            port: endpoint.port,
            weight: endpoint.weight.max(1),
            mesh_tls: mesh_tls(endpoint),
            draining,
            workload: workload(endpoint),
        });
    };
    for endpoint in usable {
        let priority = match balancing {
            Some(balancing) => priority(balancing, client, endpoint),
            None => distance(client, endpoint),
        };
        add(endpoint, &endpoint.locality, priority, false);
    }
    // Where there are priorities, one that drains would count as a failure of its priority, and send others far away.
    if balancing.is_none() && client.distribution == Distribution::Any {
        for endpoint in ending {
            add(endpoint, &endpoint.locality, 0, true);
        }
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

/// Ready ones; if there is none, those that drain. And those that drain beside ready ones.
fn usable<'a>(endpoints: &[&'a Endpoint], not_ready_too: bool) -> (Vec<&'a Endpoint>, Vec<&'a Endpoint>) {
    let of = |health: Health| {
        endpoints
            .iter()
            .copied()
            .filter(move |endpoint| endpoint.health == health)
    };
    let mut ready: Vec<&Endpoint> = of(Health::Ready).collect();
    let mut ending: Vec<&Endpoint> = of(Health::Draining).collect();
    if ready.is_empty() {
        ready = std::mem::take(&mut ending);
    }
    if not_ready_too {
        ready.extend(of(Health::NotReady));
    }
    (ready, ending)
}

/// How far an endpoint is by what its service asks for; 0 for all where the client does not know its own place.
fn distance(client: Client<'_>, endpoint: &Endpoint) -> u32 {
    let same_node = !client.node.is_empty() && client.node == endpoint.node;
    let known = !client.locality.is_empty();
    let zones = match known {
        true if client.locality.same_zone(&endpoint.locality) => 0,
        true if client.locality.same_region(&endpoint.locality) => 1,
        true => 2,
        false => 0,
    };
    match client.distribution {
        Distribution::Any => 0,
        Distribution::Zone => zones,
        Distribution::Node if same_node => 0,
        Distribution::Node => 1 + zones,
    }
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
            node: "",
            distribution: Distribution::Any,
            node_local: false,
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
        assert_eq!(count(&[&ready, &draining, &not_ready], false), 2);
        let told = groups(&[&ready, &draining], false, client(&locality, None), |_| false);
        let told: Vec<bool> = told[0].members.iter().map(|member| member.draining).collect();
        assert_eq!(told, [false, true]);
        let alone = groups(&[&draining], false, client(&locality, None), |_| false);
        assert!(!alone[0].members[0].draining, "better than nothing");
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
    fn services_prefer_near_endpoints() {
        let on = |node: &str, endpoint: Endpoint| Endpoint {
            node: node.to_owned(),
            ..endpoint
        };
        let here = on("n1", endpoint("10.0.0.1", Health::Ready, "r1/a"));
        let zone = on("n2", endpoint("10.0.0.2", Health::Ready, "r1/a"));
        let region = on("n3", endpoint("10.0.0.3", Health::Ready, "r1/b"));
        let far = on("n4", endpoint("10.0.0.4", Health::Ready, "r2/c"));
        let ending = on("n1", endpoint("10.0.0.5", Health::Draining, "r1/a"));
        let own = Locality::parse("r1/a");
        let check = |distribution: Distribution,
                     node_local: bool,
                     node: &str,
                     locality: &Locality,
                     expect: &[(u32, usize)]| {
            let client = Client {
                node,
                distribution,
                node_local,
                ..client(locality, None)
            };
            let all = groups(&[&here, &zone, &region, &far, &ending], false, client, |_| false);
            let shape: Vec<(u32, usize)> = all.iter().map(|g| (g.priority, g.members.len())).collect();
            assert_eq!(shape, expect, "{distribution:?} {node_local} {node:?}");
        };
        check(Distribution::Any, false, "n1", &own, &[(0, 3), (0, 1), (0, 1)]);
        check(Distribution::Zone, false, "", &own, &[(0, 2), (1, 1), (2, 1)]);
        check(
            Distribution::Node,
            false,
            "n1",
            &own,
            &[(0, 1), (1, 1), (2, 1), (3, 1)],
        );
        check(
            Distribution::Node,
            false,
            "elsewhere",
            &own,
            &[(0, 2), (1, 1), (2, 1)],
        );
        check(Distribution::Any, true, "n1", &own, &[(0, 2)]);
        check(Distribution::Any, true, "elsewhere", &own, &[]);
        // Nobody knows where the client is.
        check(
            Distribution::Zone,
            false,
            "",
            &Locality::default(),
            &[(0, 2), (0, 1), (0, 1)],
        );
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
