//! How long does it take to choose an endpoint? Each policy over a few and over many.

use std::{fmt::Write as _, hint::black_box, net::SocketAddr};

use criterion::{Criterion, criterion_group, criterion_main};
use mesh_proto::envoy_json::from_text;
use mesh_proxy::{
    balance::{self, Ask, Cursor, Set, View, mix},
    config::read,
};

fn set(policy: &str, hosts: usize) -> Set {
    let mut text = String::from("cluster_name: c\nendpoints:\n- lb_endpoints:\n");
    for n in 0..hosts {
        let (a, b) = (n / 250, n % 250 + 1);
        let _ = writeln!(
            text,
            "  - {{endpoint: {{address: {{socket_address: {{address: 10.0.{a}.{b}, port_value: 80}}}}}}}}"
        );
    }
    let cluster =
        from_text(&format!("{{name: c, lb_policy: {policy}}}")).unwrap_or_else(|error| panic!("{error}"));
    let cluster = read::cluster(cluster).unwrap_or_else(|reject| panic!("{reject}"));
    let assignment = from_text(&text).unwrap_or_else(|error| panic!("{error}"));
    let assignment = read::assignment(assignment).unwrap_or_else(|reject| panic!("{reject}"));
    Set::build(&cluster, &assignment, |address| {
        address.socket().into_iter().collect::<Vec<SocketAddr>>()
    })
}

fn picking(criterion: &mut Criterion) {
    for policy in ["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "RING_HASH", "MAGLEV"] {
        for hosts in [3, 1000] {
            let set = set(policy, hosts);
            let mut cursor = Cursor::new(&set, 1);
            let active = vec![0; hosts];
            let view = View {
                ejected: &[],
                active: &active,
                generation: 1,
                now: None,
            };
            let mut random = 0u64;
            criterion.bench_function(&format!("pick/{policy}/{hosts} hosts"), |bench| {
                bench.iter(|| {
                    random = mix(random);
                    let ask = Ask {
                        hash: Some(random),
                        random,
                        tried: &[],
                    };
                    balance::pick(black_box(&set), &mut cursor, &view, &ask)
                });
            });
        }
    }
}

criterion_group!(benches, picking);
criterion_main!(benches);
