//! Facts for the tests of this module.

use http::{HeaderMap, Method};

use super::facts::{Connection, Facts};

/// Calls `run` with the facts of a plain request from 10.0.0.1.
pub fn with_facts<T>(
    method: &str,
    authority: &str,
    target: &str,
    headers: &HeaderMap,
    run: impl FnOnce(&Facts<'_>) -> T,
) -> T {
    let connection = Connection {
        source: ([10, 0, 0, 1], 4000).into(),
        destination: ([10, 0, 0, 2], 80).into(),
        server_name: None,
        tls: false,
        peer: None,
    };
    let method: Method = method.parse().unwrap();
    let (path, query) = target
        .split_once('?')
        .map_or((target, None), |(path, query)| (path, Some(query)));
    run(&Facts {
        method: &method,
        scheme: "http",
        authority,
        path,
        query,
        headers,
        client: connection.source.ip(),
        tokens: &[],
        connection: &connection,
    })
}
