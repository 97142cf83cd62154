//! Routes of a VirtualService that can never be used, because an earlier one takes their requests: Istio's IST0130 and
//! IST0131. Only what is certain is told: an earlier match counts as wider when each of its conditions is there in the
//! later match with the same value, or with a value it covers.

use std::collections::BTreeMap;

use crate::{
    finding::{self, Report},
    kube::networking::{HttpMatch, StringMatch, TcpMatch, TlsMatch, VirtualService},
};

/// What an earlier route takes.
enum Earlier<'a, M> {
    Everything,
    Match(&'a M),
}

pub fn check(service: &VirtualService, report: &mut Report) {
    let http: Vec<&[HttpMatch]> = service
        .http
        .iter()
        .map(|route| route.matches.as_slice())
        .collect();
    let tls: Vec<&[TlsMatch]> = service.tls.iter().map(|route| route.matches.as_slice()).collect();
    let tcp: Vec<&[TcpMatch]> = service.tcp.iter().map(|route| route.matches.as_slice()).collect();
    // What the other VirtualService does not take goes on to the next route.
    let delegates: Vec<bool> = service
        .http
        .iter()
        .map(|route| route.delegate.is_some())
        .collect();
    routes("http", &http, &delegates, wider_http, report);
    routes("tls", &tls, &[], wider_tls, report);
    routes("tcp", &tcp, &[], wider_tcp, report);
}

fn routes<M>(
    protocol: &str,
    routes: &[&[M]],
    let_pass: &[bool],
    wider: fn(&M, &M) -> bool,
    report: &mut Report,
) {
    let mut earlier: Vec<(usize, Earlier<'_, M>)> = Vec::new();
    for (i, matches) in routes.iter().enumerate() {
        let taker = |matched: Option<&M>| {
            earlier.iter().find_map(|(number, taken)| {
                let takes = match (taken, matched) {
                    (Earlier::Everything, _) => true,
                    (Earlier::Match(taken), Some(matched)) => wider(taken, matched),
                    (Earlier::Match(_), None) => false,
                };
                takes.then_some(*number)
            })
        };
        let path = format!("spec.{protocol}[{i}]");
        let passes = let_pass.get(i).is_some_and(|passes| *passes);
        if matches.is_empty() {
            if let Some(by) = taker(None) {
                report.add(
                    finding::UNREACHABLE_RULE,
                    path,
                    format!("never used: {protocol}[{by}] before it takes every request; only the last route may be without match"),
                );
            }
            if !passes {
                earlier.push((i, Earlier::Everything));
            }
            continue;
        }
        let takers: Vec<Option<usize>> = matches.iter().map(|matched| taker(Some(matched))).collect();
        if let Some(Some(by)) = takers
            .iter()
            .all(Option::is_some)
            .then(|| takers.first().copied().flatten())
        {
            report.add(
                finding::UNREACHABLE_RULE,
                path,
                format!("never used: all of its matches are taken by earlier routes, such as {protocol}[{by}]; move it up or narrow that one"),
            );
        } else {
            for (j, by) in takers.iter().enumerate() {
                if let Some(by) = by {
                    report.add(
                        finding::INEFFECTIVE_MATCH,
                        format!("{path}.match[{j}]"),
                        format!("never used: {protocol}[{by}] before it takes its requests"),
                    );
                }
            }
        }
        if !passes {
            earlier.extend(matches.iter().map(|matched| (i, Earlier::Match(matched))));
        }
    }
}

/// Does `wide` take everything that `narrow` takes?
fn wider_http(wide: &HttpMatch, narrow: &HttpMatch) -> bool {
    text(wide.uri.as_ref(), narrow.uri.as_ref(), wide.ignore_uri_case == narrow.ignore_uri_case)
        && text(wide.scheme.as_ref(), narrow.scheme.as_ref(), true)
        && text(wide.method.as_ref(), narrow.method.as_ref(), true)
        && text(wide.authority.as_ref(), narrow.authority.as_ref(), true)
        && texts(&wide.headers, &narrow.headers)
        && texts(&wide.query_params, &narrow.query_params)
        // A negative condition is wider the less it forbids; only the same ones are certain.
        && wide.without_headers.iter().all(|(name, value)| narrow.without_headers.get(name) == Some(value))
        && place(
            (wide.port, &wide.source_labels, &wide.gateways, &wide.source_namespace),
            (narrow.port, &narrow.source_labels, &narrow.gateways, &narrow.source_namespace),
        )
}

fn wider_tls(wide: &TlsMatch, narrow: &TlsMatch) -> bool {
    let server_name = |sni: &String| {
        wide.sni_hosts
            .iter()
            .any(|host| host == sni || host.strip_prefix('*').is_some_and(|suffix| sni.ends_with(suffix)))
    };
    narrow.sni_hosts.iter().all(server_name)
        && same_or_open(&wide.destination_subnets, &narrow.destination_subnets)
        && place(
            (
                wide.port,
                &wide.source_labels,
                &wide.gateways,
                &wide.source_namespace,
            ),
            (
                narrow.port,
                &narrow.source_labels,
                &narrow.gateways,
                &narrow.source_namespace,
            ),
        )
}

fn wider_tcp(wide: &TcpMatch, narrow: &TcpMatch) -> bool {
    same_or_open(&wide.destination_subnets, &narrow.destination_subnets)
        && place(
            (
                wide.port,
                &wide.source_labels,
                &wide.gateways,
                &wide.source_namespace,
            ),
            (
                narrow.port,
                &narrow.source_labels,
                &narrow.gateways,
                &narrow.source_namespace,
            ),
        )
}

/// Port, source labels, gateways, source namespace.
type Place<'a> = (
    Option<u32>,
    &'a BTreeMap<String, String>,
    &'a Vec<String>,
    &'a String,
);

fn place(wide: Place<'_>, narrow: Place<'_>) -> bool {
    (wide.0.is_none() || wide.0 == narrow.0)
        && wide.1.iter().all(|(key, value)| narrow.1.get(key) == Some(value))
        && same_or_open(wide.2, narrow.2)
        && (wide.3.is_empty() || wide.3 == narrow.3)
}

fn same_or_open(wide: &[String], narrow: &[String]) -> bool {
    wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(|entry| wide.contains(entry)))
}

fn texts(wide: &BTreeMap<String, StringMatch>, narrow: &BTreeMap<String, StringMatch>) -> bool {
    wide.iter().all(|(name, wide)| {
        narrow
            .get(name)
            .is_some_and(|narrow| text(Some(wide), Some(narrow), true))
    })
}

fn text(wide: Option<&StringMatch>, narrow: Option<&StringMatch>, same_case: bool) -> bool {
    let Some(wide) = wide else { return true };
    let Some(narrow) = narrow else {
        return wide.prefix.as_deref() == Some("/");
    };
    if wide == narrow {
        return same_case;
    }
    match wide {
        StringMatch {
            exact: None,
            prefix: None,
            regex: None,
        } => true,
        StringMatch {
            prefix: Some(prefix), ..
        } if same_case => {
            let value = narrow.exact.as_ref().or(narrow.prefix.as_ref());
            value.is_some_and(|value| value.starts_with(prefix)) || prefix == "/"
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::{kube::Kind, validate::testing::expect};

    /// Routes with these matches (YAML, `null` for none), and the paths of what is found.
    fn check(matches: &[&str], found: &[&str]) {
        let route = "route: [{destination: {host: a}}]";
        let routes: Vec<String> = matches
            .iter()
            .map(|matched| match *matched {
                "" => format!("- {route}"),
                matched => format!("- match: {matched}\n  {route}"),
            })
            .collect();
        expect(
            Kind::VirtualService,
            &format!("hosts: [a]\nhttp:\n{}", routes.join("\n")),
            found,
        );
    }

    #[test]
    fn unreachable() {
        check(&["", ""], &["Warning spec.http[1]"]);
        check(&["[{uri: {exact: /a}}]", ""], &[]);
        check(&["", "[{uri: {exact: /a}}]"], &["Warning spec.http[1]"]);
        check(
            &["[{uri: {prefix: /}}]", "[{uri: {prefix: /a}}]"],
            &["Warning spec.http[1]"],
        );
        check(
            &["[{uri: {prefix: /a}}]", "[{uri: {exact: /ab}}]"],
            &["Warning spec.http[1]"],
        );
        check(&["[{uri: {prefix: /ab}}]", "[{uri: {prefix: /a}}]"], &[]);
        check(
            &[
                "[{uri: {prefix: /a}, method: {exact: GET}}]",
                "[{uri: {prefix: /a}}]",
            ],
            &[],
        );
        check(
            &[
                "[{uri: {prefix: /a}}]",
                "[{uri: {prefix: /a}, method: {exact: GET}}]",
            ],
            &["Warning spec.http[1]"],
        );
        check(
            &["[{headers: {x: {}}}]", "[{headers: {x: {exact: z}}}]"],
            &["Warning spec.http[1]"],
        );
        check(&["[{headers: {x: {exact: z}}}]", "[{headers: {x: {}}}]"], &[]);
        check(&["[{port: 80}]", "[{port: 81}]"], &[]);
        check(&["[{sourceLabels: {a: b}}]", "[{port: 80}]"], &[]);
        check(&["[{withoutHeaders: {x: {}}}]", "[{uri: {exact: /a}}]"], &[]);
    }

    #[test]
    fn ineffective() {
        check(
            &["[{uri: {exact: /a}}]", "[{uri: {exact: /a}}, {uri: {exact: /b}}]"],
            &["Info spec.http[1].match[0]"],
        );
    }
}
