use std::{collections::BTreeMap, fmt::Write as _};

use super::*;
use crate::config::read::testing::{assignment, cluster};

/// A set from lines of `priority locality health weight`.
fn set(policy: &str, lines: &[&str]) -> Set {
    let cluster = cluster(&format!("{{name: c, connect_timeout: 1s, {policy}}}"));
    let mut yaml = String::from("cluster_name: c\nendpoints:\n");
    for (n, line) in lines.iter().enumerate() {
        let parts: Vec<&str> = line.split(' ').collect();
        let [priority, locality, health, weight] = parts[..] else {
            panic!("{line}")
        };
        writeln!(
            yaml,
            "- {{priority: {priority}, load_balancing_weight: {weight}, locality: {{zone: '{locality}'}}, lb_endpoints: \
             [{{health_status: {health}, load_balancing_weight: {weight}, endpoint: {{address: {{socket_address: \
             {{address: 10.0.0.{n}, port_value: 80}}}}}}}}]}}"
        )
        .unwrap();
    }
    Set::build(&cluster, &assignment(&yaml), |address| {
        address.socket().into_iter().collect()
    })
}

/// How often each address is picked; the last byte of the address stands for it.
fn counts(set: &Set, ejected: &[bool], picks: u64, hash: bool) -> BTreeMap<u8, u64> {
    let mut cursor = Cursor::new(set, 1);
    let active = vec![0; set.hosts.len()];
    let view = View {
        ejected,
        active: &active,
        generation: 1,
        now: None,
    };
    let mut counts = BTreeMap::new();
    for n in 0..picks {
        let random = mix(n);
        let ask = Ask {
            hash: hash.then_some(mix(random)),
            random,
            tried: &[],
        };
        if let Some(host) = pick(set, &mut cursor, &view, &ask) {
            let std::net::IpAddr::V4(ip) = set.hosts[host as usize].address.ip() else {
                panic!()
            };
            *counts.entry(ip.octets()[3]).or_default() += 1;
        }
    }
    counts
}

fn near(got: u64, want: f64) -> bool {
    (got as f64 - want).abs() < 4.0 * want.sqrt() + 1.0
}

#[test]
fn every_policy_is_fair_and_weighted() {
    for policy in [
        "lb_policy: ROUND_ROBIN",
        "lb_policy: LEAST_REQUEST",
        "lb_policy: RANDOM",
        "lb_policy: RING_HASH",
        "lb_policy: MAGLEV",
    ] {
        let hash = policy.contains("HASH") || policy.contains("MAGLEV");
        let equal = set(policy, &["0 a HEALTHY 1"; 4]);
        let counts1 = counts(&equal, &[], 40_000, hash);
        let slack = if policy.contains("RING") { 0.35 } else { 0.05 };
        for (host, count) in &counts1 {
            assert!(
                (*count as f64 - 10_000.0).abs() < 10_000.0 * slack,
                "{policy} {host} {count}"
            );
        }
        assert_eq!(counts1.len(), 4, "{policy}");
        let weighted = set(policy, &["0 a HEALTHY 1", "0 a HEALTHY 3"]);
        let counts2 = counts(&weighted, &[], 40_000, hash);
        assert!(
            (counts2[&1] as f64 - 30_000.0).abs() < 30_000.0 * slack,
            "{policy} {counts2:?}"
        );
    }
}

#[test]
fn unhealthy_draining_and_ejected_hosts_are_left_out() {
    let lines = [
        "0 a HEALTHY 1",
        "0 a UNHEALTHY 1",
        "0 a DRAINING 1",
        "0 a HEALTHY 1",
        "0 a HEALTHY 1",
    ];
    for policy in [
        "lb_policy: ROUND_ROBIN",
        "lb_policy: RING_HASH",
        "lb_policy: MAGLEV",
    ] {
        let set = set(policy, &lines);
        let got = counts(&set, &[true], 1000, policy != "lb_policy: ROUND_ROBIN");
        assert_eq!(got.keys().copied().collect::<Vec<_>>(), [3, 4], "{policy}");
    }
}

#[test]
fn too_few_healthy_hosts_are_panic() {
    let lines = [
        "0 a HEALTHY 1",
        "0 a UNHEALTHY 1",
        "0 a UNHEALTHY 1",
        "0 a UNHEALTHY 1",
        "0 a DRAINING 1",
    ];
    let panic = set("lb_policy: ROUND_ROBIN", &lines);
    assert_eq!(counts(&panic, &[], 1000, false).len(), 4);
    let off = set("common_lb_config: {healthy_panic_threshold: {value: 0}}", &lines);
    assert_eq!(counts(&off, &[], 1000, false).len(), 1);
    let none = set(
        "common_lb_config: {healthy_panic_threshold: {value: 0}}",
        &["0 a UNHEALTHY 1"],
    );
    assert!(counts(&none, &[], 10, false).is_empty());
    assert!(counts(&set("lb_policy: RANDOM", &[]), &[], 10, false).is_empty());
}

#[test]
fn load_spills_to_the_next_priority() {
    // 140 % of one half is 70 %: the rest goes on.
    let spill = set(
        "lb_policy: ROUND_ROBIN",
        &["0 a HEALTHY 1", "0 a UNHEALTHY 1", "1 b HEALTHY 1"],
    );
    let got = counts(&spill, &[], 10_000, false);
    assert!(near(got[&0], 7000.0) && near(got[&2], 3000.0), "{got:?}");
    // Enough healthy hosts: nothing goes on.
    let enough = set(
        "lb_policy: ROUND_ROBIN",
        &[
            "0 a HEALTHY 1",
            "0 a HEALTHY 1",
            "0 a HEALTHY 1",
            "0 a UNHEALTHY 1",
            "1 b HEALTHY 1",
        ],
    );
    assert!(!counts(&enough, &[], 1000, false).contains_key(&4));
    // Nothing healthy in the first: all goes on.
    let failover = set("lb_policy: ROUND_ROBIN", &["0 a UNHEALTHY 1", "1 b HEALTHY 1"]);
    assert_eq!(counts(&failover, &[], 1000, false), [(1, 1000)].into());
    // Degraded hosts come after all healthy ones.
    let degraded = set("lb_policy: ROUND_ROBIN", &["0 a DEGRADED 1", "1 b HEALTHY 1"]);
    assert_eq!(counts(&degraded, &[], 1000, false), [(1, 1000)].into());
}

#[test]
fn localities_are_weighted_if_asked() {
    let policy = "common_lb_config: {locality_weighted_lb_config: {}}";
    let set = set(policy, &["0 a HEALTHY 1", "0 b HEALTHY 4"]);
    let got = counts(&set, &[], 10_000, false);
    assert!(near(got[&0], 2000.0), "{got:?}");
}

#[test]
fn a_key_stays_with_its_host_when_others_go() {
    for policy in ["lb_policy: RING_HASH", "lb_policy: MAGLEV"] {
        let set = set(policy, &["0 a HEALTHY 1"; 5]);
        let ask = |ejected: &[bool], key: u64| {
            let view = View {
                ejected,
                active: &[],
                generation: 1,
                now: None,
            };
            let ask = Ask {
                hash: Some(mix(key)),
                random: mix(key),
                tried: &[],
            };
            pick(&set, &mut Cursor::new(&set, 0), &view, &ask).unwrap()
        };
        for key in 0..300 {
            let before = ask(&[], key);
            let after = ask(&[true], key);
            assert_ne!(after, 0);
            assert!(before == 0 || before == after, "{policy} key {key}");
        }
    }
}

#[test]
fn a_retry_goes_elsewhere() {
    for policy in [
        "lb_policy: ROUND_ROBIN",
        "lb_policy: LEAST_REQUEST",
        "lb_policy: RING_HASH",
        "lb_policy: RANDOM",
    ] {
        let set = set(policy, &["0 a HEALTHY 1"; 3]);
        let mut cursor = Cursor::new(&set, 5);
        let view = View {
            ejected: &[],
            active: &[0; 3],
            generation: 0,
            now: None,
        };
        for n in 0..200 {
            let ask = Ask {
                hash: Some(mix(n)),
                random: mix(n),
                tried: &[0, 2],
            };
            assert_eq!(pick(&set, &mut cursor, &view, &ask), Some(1), "{policy}");
        }
        let all = Ask {
            hash: None,
            random: 3,
            tried: &[0, 1, 2],
        };
        assert!(pick(&set, &mut cursor, &view, &all).is_some());
    }
}

#[test]
fn a_new_host_gets_its_share_slowly() {
    use std::time::{Duration, Instant};
    for policy in [
        "lb_policy: ROUND_ROBIN, round_robin_lb_config: {slow_start_config: {slow_start_window: 100s}}",
        "lb_policy: LEAST_REQUEST, least_request_lb_config: {slow_start_config: {slow_start_window: 100s}}",
        "load_balancing_policy: {policies: [{typed_extension_config: {name: x, typed_config: {'@type': \
         type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin, slow_start_config: \
         {slow_start_window: 100s}}}}]}",
    ] {
        let start = Instant::now();
        let mut before = set(policy, &["0 a HEALTHY 1"; 3]);
        before.follow(&before.clone(), start);
        let joined = start + Duration::from_secs(1000);
        let mut after = set(policy, &["0 a HEALTHY 1"; 4]);
        after.follow(&before, joined);
        let mut cursor = Cursor::new(&after, 7);
        // The new host's part of the picks, of four hosts that are equal in the end.
        let mut part = |seconds: u64| {
            let picks = 30_000;
            let mut new = 0;
            for n in 0..picks {
                let view = View {
                    ejected: &[],
                    active: &[0; 4],
                    generation: 1,
                    now: Some(joined + Duration::from_millis(seconds * 1000 + n / 30)),
                };
                let ask = Ask {
                    random: mix(n ^ seconds << 32),
                    ..Ask::default()
                };
                new += u32::from(pick(&after, &mut cursor, &view, &ask) == Some(3));
            }
            f64::from(new) / picks as f64
        };
        for (seconds, weight) in [
            (0, 0.1),
            (25, 0.255),
            (50, 0.505),
            (75, 0.755),
            (100, 1.0),
            (5000, 1.0),
        ] {
            let (got, wanted) = (part(seconds), weight / (3.0 + weight));
            assert!(
                (got - wanted).abs() < 0.02,
                "{policy}: {seconds} s: {got}, not {wanted}"
            );
        }
        assert!(cursor.again_at().is_none(), "nothing grows any more");
    }
    // A host that was not healthy begins again.
    let sick = set(
        "lb_policy: ROUND_ROBIN, round_robin_lb_config: {slow_start_config: {slow_start_window: 100s}}",
        &["0 a HEALTHY 1", "0 a UNHEALTHY 1"],
    );
    let (start, mut sick) = (Instant::now(), sick);
    sick.follow(&sick.clone(), start);
    let mut well = sick.clone();
    well.hosts[1].health = crate::config::endpoint::Health::Healthy;
    let later = start + Duration::from_secs(5);
    well.follow(&sick, later);
    assert_eq!(
        (well.hosts[0].since, well.hosts[1].since),
        (Some(start), Some(later))
    );
}
