//! What is asked, of each combination alike, and what must come of it whoever carries it.

use super::Way;
use mesh_e2e::client::ask::{Ask, What};

/// What a case's answers must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expect {
    /// Status and version of whoever answered, one for each request.
    Each(&'static [&'static str]),
    /// The first version gets so many, at least and at most.
    Share(usize, usize),
    /// Pairs of requests go to the same version; which one, is told by every combination alike.
    Pairs,
}

pub struct Case {
    pub name: &'static str,
    what: Kind,
    direct: Expect,
    /// Through a gateway, if it is different.
    gateway: Option<Expect>,
}

/// Method, path with query, headers.
type Row = (&'static str, String, Vec<(&'static str, String)>);
/// The same, as it is written down.
type Written<'a> = (&'static str, &'a str, &'a [(&'static str, &'a str)]);

enum Kind {
    Http(Vec<Row>),
    Line,
    /// By the server's own name.
    Tls,
    Grpc,
}

/// How often shares are asked for: 45 of 60 are expected, give or take 3.4.
const SHARES: usize = 60;

/// Requests without a body, one a row: method, path, headers.
fn http(name: &'static str, rows: &[Written<'_>], expect: Expect) -> Case {
    let rows = rows.iter().map(|(method, path, headers)| {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned()));
        (*method, (*path).to_owned(), headers.collect())
    });
    Case {
        name,
        what: Kind::Http(rows.collect()),
        direct: expect,
        gateway: None,
    }
}

fn get(name: &'static str, path: &str, expect: &'static [&'static str]) -> Case {
    http(name, &[("GET", path, &[])], Expect::Each(expect))
}

fn other(name: &'static str, what: Kind, expect: &'static [&'static str]) -> Case {
    Case {
        name,
        what,
        direct: Expect::Each(expect),
        gateway: None,
    }
}

/// All of them. `token` is a good one, `outcast` one of somebody who may not, `client` the client's plane.
pub fn all(token: &str, outcast: &str, client: &str) -> Vec<Case> {
    let mut cases = routing();
    cases.extend(resilience(client));
    cases.extend(headers());
    cases.extend(security(token, outcast));
    cases.extend([
        get("ServiceEntry", "/external", &["200 external"]),
        get("no endpoints", "/none", &["503"]),
        other("TCP route", Kind::Line, &["line"]),
        other("TLS route", Kind::Tls, &["200 v2"]),
        other("gRPC", Kind::Grpc, &["calls"]),
    ]);
    cases
}

fn routing() -> Vec<Case> {
    let jason: &[(&str, &str)] = &[("x-user", "jason")];
    let matched = [
        ("GET", "/match/a", jason),
        ("GET", "/match/a", &[("x-user", "jasonx")]),
        ("GET", "/match/a", &[("x-user", "bad")]),
        ("GET", "/match/a", &[("x-user", "badly")]),
        ("GET", "/match/a", &[("x-user", "prefixed")]),
        ("GET", "/match/a?user=q", &[]),
        ("GET", "/match/a?user=qq", &[]),
        ("PUT", "/match/a", &[]),
        ("GET", "/match/a", &[("x-must", "")]),
        ("GET", "/match/a", &[("x-must", "1"), ("x-not", "1")]),
        ("GET", "/MATCH/Case", &[]),
        ("GET", "/match/r17", &[]),
        ("GET", "/match/r17x", &[]),
        ("GET", "/match", &[]),
    ];
    let expect = Expect::Each(&[
        "200 v2", "200 v1", "200 v2", "200 v1", "200 v2", "200 v2", "200 v1", "200 v2", "200 v2", "200 v1",
        "200 v2", "200 v2", "200 v1", "200 v1",
    ]);
    let weights: Vec<_> = (0..SHARES).map(|_| ("GET", "/weights", &[][..])).collect();
    let keys: Vec<String> = (0..8).map(|key| format!("key-{key}")).collect();
    let rows = keys
        .iter()
        .flat_map(|key| [key, key])
        .map(|key| ("GET", "/hash".to_owned(), vec![("x-hash", key.clone())]));
    vec![
        http("match", &matched, expect),
        http("weights", &weights, Expect::Share(30, 58)),
        Case {
            name: "consistent hash",
            what: Kind::Http(rows.collect()),
            direct: Expect::Pairs,
            gateway: None,
        },
        get("rewrite", "/rewrite/a?b=c", &["200 v1"]),
        get("rewrite by expression", "/regex/one/two?x=y", &["200 v1"]),
        get("path normalized", "/match/../rewrite/./a//b", &["200 v1"]),
        http(
            "redirect",
            &[
                ("GET", "/redirect/there?a=b", &[]),
                ("GET", "/redirect/secure/x?a=b", &[]),
                ("GET", "/redirect/derived/x", &[]),
            ],
            Expect::Each(&["301", "308", "302"]),
        ),
        get("direct response", "/direct", &["418"]),
    ]
}

fn resilience(client: &str) -> Vec<Case> {
    let fragile = format!("/fragile/{client}?status=500");
    let row: Written<'_> = ("GET", &fragile, &[]);
    vec![
        get("delay", "/delay", &["200 v1"]),
        get("abort", "/abort", &["555"]),
        get("timeout", "/timeout?delay_ms=1500", &["504"]),
        get("retry", "/retry?fail_first=2&key=KEY", &["200 v1"]),
        get("retries exhausted", "/retry?status=503", &["503 v1"]),
        get("not retried", "/retry?status=404", &["404 v1"]),
        get("time of one try", "/per-try?delay_ms=1000", &["504"]),
        get("no retry", "/once?fail_first=1&key=KEY", &["503 v1"]),
        get("mirror", "/mirror", &["200 v1"]),
        http(
            "outlier",
            &[row; 4],
            Expect::Each(&["500 v1", "500 v1", "503", "503"]),
        ),
    ]
}

fn headers() -> Vec<Case> {
    let good: &[(&str, &str)] = &[("origin", "https://good.example")];
    let fine: &[(&str, &str)] = &[
        ("origin", "https://a.fine.example"),
        ("access-control-request-method", "PUT"),
    ];
    let bad: &[(&str, &str)] = &[
        ("origin", "https://bad.example"),
        ("access-control-request-method", "PUT"),
    ];
    vec![
        http(
            "headers",
            &[(
                "GET",
                "/headers?header=x-own:theirs&header=x-more:theirs&header=x-gone:1",
                &[
                    ("x-set", "mine"),
                    ("x-add", "mine"),
                    ("x-remove", "1"),
                    ("x-stay", "1"),
                ],
            )],
            Expect::Each(&["200 v1"]),
        ),
        http(
            "CORS",
            &[
                ("GET", "/cors", good),
                ("OPTIONS", "/cors", fine),
                ("OPTIONS", "/cors", bad),
            ],
            Expect::Each(&["200 v1", "200", "200 v1"]),
        ),
        http(
            "plain headers",
            &[
                ("GET", "/", &[("x-forwarded-for", "203.0.113.7")]),
                ("POST", "/", &[("x-forwarded-proto", "https")]),
                ("HEAD", "/", &[]),
            ],
            Expect::Each(&["200 v1", "200 v1", "200 v1"]),
        ),
    ]
}

fn security(token: &str, outcast: &str) -> Vec<Case> {
    let bearer = |token: &str| format!("Bearer {token}");
    let (good, outcast) = (bearer(token), bearer(outcast));
    let wrong = bearer(&format!("{token}x"));
    let rows: [Written<'_>; 5] = [
        ("GET", "/jwt", &[("authorization", &good)]),
        ("GET", "/jwt", &[]),
        ("GET", "/jwt", &[("authorization", &outcast)]),
        ("GET", "/jwt", &[("authorization", &wrong)]),
        ("GET", "/", &[("authorization", &wrong)]),
    ];
    vec![
        get("STRICT, with the mesh's certificate", "/strict", &["200 v1"]),
        get("STRICT, without TLS", "/plain", &["503"]),
        get("AuthorizationPolicy by path", "/denied/x", &["403"]),
        Case {
            gateway: Some(Expect::Each(&["200 v1"])),
            ..get("AuthorizationPolicy by principal", "/only-gateway", &["403"])
        },
        http(
            "RequestAuthentication",
            &rows,
            Expect::Each(&["200 v1", "403", "403", "401", "401"]),
        ),
    ]
}

impl Case {
    pub fn expect(&self, way: &Way) -> Expect {
        match (way.gateway, self.gateway) {
            (Some(_), Some(own)) => own,
            _ => self.direct,
        }
    }

    /// Its requests on one way.
    pub fn asks(&self, way: &Way) -> Vec<Ask> {
        let id = |number: usize| format!("{}/{}/{number}", way.name(), self.name.replace([' ', ','], "-"));
        let ask = |number: usize, port: u16, what: What| Ask {
            id: id(number),
            target: way.target(port),
            what,
        };
        let plain = |path: String, headers: Vec<(String, String)>, method: &str, tls| What::Http {
            method: method.to_owned(),
            path,
            headers,
            tls,
        };
        match &self.what {
            Kind::Http(rows) => rows
                .iter()
                .enumerate()
                .map(|(number, (method, path, headers))| {
                    let key = id(number).replace('/', "-");
                    let headers = headers
                        .iter()
                        .map(|(name, value)| ((*name).to_owned(), value.clone()));
                    ask(
                        number,
                        8080,
                        plain(path.replace("KEY", &key), headers.collect(), method, None),
                    )
                })
                .collect(),
            Kind::Line => vec![ask(0, 7002, What::Line("line".to_owned()))],
            Kind::Tls => {
                let name = format!("server-{}.matrix.svc.cluster.local", way.server);
                let host = vec![("host".to_owned(), name.clone())];
                vec![ask(0, 8443, plain("/".to_owned(), host, "GET", Some(name)))]
            }
            Kind::Grpc => vec![ask(0, 9090, What::Grpc)],
        }
    }
}
