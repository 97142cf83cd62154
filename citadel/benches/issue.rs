//! What one certificate costs: checking the request, and signing.

use std::{hint::black_box, time::Duration, time::SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use mesh_citadel::{
    csr,
    issue::{self, Order},
    testing,
};

fn issue_one(c: &mut Criterion) {
    let (root, (_, request)) = (testing::root(), testing::request());
    let id = "spiffe://cluster.local/ns/default/sa/reviews"
        .parse()
        .expect("an identity");
    c.bench_function("csr/check", |b| b.iter(|| csr::proven_key(black_box(&request))));
    let key = csr::proven_key(&request).expect("its own request");
    c.bench_function("issue/sign", |b| {
        b.iter(|| {
            let (life, now) = (Duration::from_secs(86_400), SystemTime::now());
            let order = Order {
                id: &id,
                dns: &[],
                key: black_box(&key),
                life,
                serial: [1; 16],
                now,
            };
            issue::issue(&order, &root.issuer, root.not_after)
        });
    });
}

criterion_group!(benches, issue_one);
criterion_main!(benches);
