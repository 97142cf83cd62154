//! One canonical path: what routes and policies see is what the server gets, for each `pathNormalization` of the mesh, and
//! as a stock Envoy has it.

use super::bench::{Kind, Proxy, each, outcome, server};
use anyhow::ensure;
use serde_json::json;

/// A path, and what comes of it by NONE, BASE, MERGE_SLASHES and DECODE_AND_MERGE_SLASHES; `/admin` is refused.
const PATHS: [(&str, [&str; 4]); 17] = [
    ("/a/b", ["/a/b", "/a/b", "/a/b", "/a/b"]),
    ("/a/./b", ["/a/./b", "/a/b", "/a/b", "/a/b"]),
    ("/a/../admin", ["/a/../admin", "403", "403", "403"]),
    ("/../admin", ["/../admin", "403", "403", "403"]),
    ("/a/%2e%2E/admin", ["/a/%2e%2E/admin", "403", "403", "403"]),
    ("/%61dmin", ["/%61dmin", "403", "403", "403"]),
    ("/a\\..\\admin", ["/a\\..\\admin", "403", "403", "403"]),
    ("//admin", ["//admin", "//admin", "403", "403"]),
    ("/a//b", ["/a//b", "/a//b", "/a/b", "/a/b"]),
    ("/%2fadmin", ["/%2fadmin", "/%2fadmin", "/%2fadmin", "403"]),
    (
        "/a%2F..%2Fadmin",
        ["/a%2F..%2Fadmin", "/a%2F..%2Fadmin", "/a%2F..%2Fadmin", "403"],
    ),
    (
        "/a%5c..%5Cadmin",
        ["/a%5c..%5Cadmin", "/a%5c..%5Cadmin", "/a%5c..%5Cadmin", "403"],
    ),
    ("/a%252fb", ["/a%252fb", "/a%252fb", "/a%252fb", "/a%252fb"]),
    (
        "/a?b=/../admin",
        [
            "/a?b=/../admin",
            "/a?b=/../admin",
            "/a?b=/../admin",
            "/a?b=/../admin",
        ],
    ),
    ("/a/..", ["/a/..", "/", "/", "/"]),
    ("/a/b/.", ["/a/b/.", "/a/b/", "/a/b/", "/a/b/"]),
    ("/a;b/../admin", ["/a;b/../admin", "403", "403", "403"]),
];

#[test]
fn one_path_for_routes_and_server() -> anyhow::Result<()> {
    let server = server()?;
    let managers = [
        json!({"normalize_path": false}),
        json!({"normalize_path": true}),
        json!({"normalize_path": true, "merge_slashes": true}),
        json!({"normalize_path": true, "merge_slashes": true,
               "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD"}),
        json!({"normalize_path": true, "path_with_escaped_slashes_action": "REJECT_REQUEST"}),
    ];
    let ours = Proxy::start(Kind::Ours, server, &managers)?;
    let envoy = Proxy::start(Kind::Envoy, server, &managers)?;
    each(&PATHS, |(path, expected)| {
        for (nth, expected) in expected.iter().enumerate() {
            let ask = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
            let expected = match *expected {
                "403" => "403".to_owned(),
                path => format!("200 GET {path}"),
            };
            let one = outcome(ours.connect(nth)?, ask.as_bytes())?;
            let other = outcome(envoy.connect(nth)?, ask.as_bytes())?;
            ensure!(
                one == expected && other == expected,
                "{path} by setting {nth}: ours {one:?}, Envoy {other:?}, not {expected:?}"
            );
        }
        Ok(())
    })?;
    let name = "http.in.downstream_rq_failed_path_normalization";
    let before = ours.counter(name)?;
    let refused = outcome(ours.connect(4)?, b"GET /a%2fb HTTP/1.1\r\nhost: a\r\n\r\n")?;
    ensure!(
        refused == "400",
        "an escaped slash that is refused got {refused:?}"
    );
    ours.grows(name, before)
}
