//! AuthorizationPolicy alone.

use super::{Validate, field};
use crate::{
    finding::Report,
    kube::{
        Object,
        security::{Action, AuthorizationPolicy, Condition, Operation, Source},
    },
};

/// What `when` may look at; names with brackets are prefixes.
pub const CONDITIONS: [&str; 13] = [
    "request.headers[",
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "request.auth.claims[",
    "destination.ip",
    "destination.port",
    "connection.sni",
];

impl Validate for AuthorizationPolicy {
    fn validate(&self, _: &Object<Self>, report: &mut Report) {
        if let Some(selector) = &self.selector {
            field::labels(&selector.match_labels, "spec.selector.matchLabels", report);
        }
        field::one_target(
            self.selector.is_some(),
            self.target_ref.as_ref(),
            &self.target_refs,
            report,
        );
        match self.action {
            Action::Custom => report.refuse_unsupported(
                "spec.action",
                "CUSTOM (an external authorizer) is not supported by this mesh yet; use ALLOW or DENY",
            ),
            _ if self.provider.is_some() => report.error("spec.provider", "belongs to action CUSTOM only"),
            _ => {}
        }
        if self.action == Action::Deny && self.rules.is_empty() {
            report.warn(
                "spec.rules",
                "DENY without rules denies nothing; write rules: [{}] to deny everything",
            );
        }
        for (i, rule) in self.rules.iter().enumerate() {
            let at = format!("spec.rules[{i}]");
            for (j, from) in rule.from.iter().enumerate() {
                let path = format!("{at}.from[{j}].source");
                match &from.source {
                    Some(source) if *source != Source::default() => check_source(source, &path, report),
                    _ => report.error(path, "says nothing; it needs at least one field"),
                }
            }
            for (j, to) in rule.to.iter().enumerate() {
                let path = format!("{at}.to[{j}].operation");
                match &to.operation {
                    Some(operation) if *operation != Operation::default() => {
                        check_operation(operation, &path, report);
                    }
                    _ => report.error(path, "says nothing; it needs at least one field"),
                }
            }
            for (j, condition) in rule.when.iter().enumerate() {
                check_condition(condition, &format!("{at}.when[{j}]"), report);
            }
        }
    }
}

fn check_source(source: &Source, at: &str, report: &mut Report) {
    let texts = [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
    ];
    for (name, list) in texts {
        not_empty(list, &format!("{at}.{name}"), report);
    }
    for (name, list) in [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
    ] {
        for (i, principal) in list.iter().enumerate() {
            if principal.starts_with("spiffe://") {
                report.error(
                    format!("{at}.{name}[{i}]"),
                    "principals are written without spiffe://, such as cluster.local/ns/default/sa/reviews; as it stands nothing matches",
                );
            }
        }
    }
    for (name, list) in [
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
    ] {
        for (i, account) in list.iter().enumerate() {
            if account.contains('*') || account.matches('/').count() > 1 {
                report.error(
                    format!("{at}.{name}[{i}]"),
                    "must be account or namespace/account, without wildcards",
                );
            }
        }
    }
    let said = !source.service_accounts.is_empty() || !source.not_service_accounts.is_empty();
    let beside = !source.principals.is_empty()
        || !source.not_principals.is_empty()
        || !source.namespaces.is_empty()
        || !source.not_namespaces.is_empty();
    if said && beside {
        report.error(at, "serviceAccounts cannot stand beside principals or namespaces");
    }
    let ranges = [
        ("ipBlocks", &source.ip_blocks),
        ("notIpBlocks", &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
    ];
    for (name, list) in ranges {
        for (i, range) in list.iter().enumerate() {
            field::address_range(range, &format!("{at}.{name}[{i}]"), report);
        }
    }
}

fn check_operation(operation: &Operation, at: &str, report: &mut Report) {
    let texts = [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
    ];
    for (name, list) in texts {
        not_empty(list, &format!("{at}.{name}"), report);
    }
    for (name, list) in [("ports", &operation.ports), ("notPorts", &operation.not_ports)] {
        for (i, port) in list.iter().enumerate() {
            if !port.parse::<u16>().is_ok_and(|port| port > 0) {
                report.error(
                    format!("{at}.{name}[{i}]"),
                    format!("{port:?} is not a port (1 to 65535)"),
                );
            }
        }
    }
    for (name, list) in [
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
    ] {
        for (i, method) in list.iter().enumerate() {
            if method.bytes().any(|b| b.is_ascii_lowercase()) {
                report.warn(
                    format!("{at}.{name}[{i}]"),
                    format!("{method:?}: methods are case-sensitive and usually upper case"),
                );
            }
        }
    }
    for (name, list) in [("paths", &operation.paths), ("notPaths", &operation.not_paths)] {
        for (i, path) in list.iter().enumerate() {
            check_template(path, &format!("{at}.{name}[{i}]"), report);
        }
    }
}

/// `{*}` and `{**}` stand for whole segments, `{**}` at most once and last of the templates.
fn check_template(path: &str, at: &str, report: &mut Report) {
    if !path.contains("{*}") && !path.contains("{**}") {
        return;
    }
    if !path.starts_with('/') {
        report.error(at, "a template must begin with /");
    }
    let mut rest_seen = false;
    for segment in path.split('/') {
        match segment {
            "{*}" if rest_seen => report.error(at, "{*} cannot follow {**}"),
            "{**}" if rest_seen => report.error(at, "{**} is possible once"),
            "{**}" => rest_seen = true,
            "{*}" => {}
            other if other.contains(['{', '}', '*']) => {
                report.error(at, format!("{other:?}: {{*}} and {{**}} must be whole segments, and no other wildcard can stand beside them"));
            }
            _ => {}
        }
    }
}

fn check_condition(condition: &Condition, at: &str, report: &mut Report) {
    let key = condition.key.as_str();
    let known = CONDITIONS.iter().any(|known| match known.strip_suffix('[') {
        Some(_) => key.starts_with(known) && key.ends_with(']') && key.len() > known.len() + 1,
        None => key == *known,
    });
    if !known {
        let path = format!("{at}.key");
        if key.starts_with("experimental.") || key == "source.trustDomain" {
            report.refuse_unsupported(path, format!("{key:?} is not supported yet"));
        } else {
            let known = CONDITIONS.join(", ").replace('[', "[…]");
            report.error(path, format!("{key:?} is not an attribute; known are {known}"));
        }
    }
    if condition.values.is_empty() && condition.not_values.is_empty() {
        report.error(at, "needs values or notValues");
    }
    for (name, list) in [
        ("values", &condition.values),
        ("notValues", &condition.not_values),
    ] {
        for (i, value) in list.iter().enumerate() {
            let path = format!("{at}.{name}[{i}]");
            match key {
                "source.ip" | "remote.ip" | "destination.ip" => field::address_range(value, &path, report),
                "destination.port" if !value.parse::<u16>().is_ok_and(|port| port > 0) => {
                    report.error(path, format!("{value:?} is not a port (1 to 65535)"));
                }
                _ => {}
            }
        }
    }
}

fn not_empty(list: &[String], at: &str, report: &mut Report) {
    for (i, value) in list.iter().enumerate() {
        if value.is_empty() {
            report.error(format!("{at}[{i}]"), "is empty");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{kube::Kind, validate::testing::expect};

    fn check(spec: &str, found: &[&str]) {
        expect(Kind::AuthorizationPolicy, spec, found);
    }

    #[test]
    fn policies() {
        check("{}", &[]);
        check("action: DENY", &["Warning spec.rules"]);
        check("action: CUSTOM\nprovider: {name: a}", &["Error spec.action"]);
        check("rules: [{}]", &[]);
        check("rules: [{from: [{}]}]", &["Error spec.rules[0].from[0].source"]);
        check(
            "rules: [{to: [{operation: {}}]}]",
            &["Error spec.rules[0].to[0].operation"],
        );
        check(
            "rules: [{from: [{source: {principals: ['spiffe://cluster.local/ns/a/sa/b']}}]}]",
            &["Error spec.rules[0].from[0].source.principals[0]"],
        );
        check(
            "rules: [{to: [{operation: {notPath: ['/a']}}]}]",
            &[
                "Error spec.rules[0].to[0].operation.notPath",
                "Error spec.rules[0].to[0].operation",
            ],
        );
        check(
            "rules: [{to: [{operation: {ports: ['http'], methods: [get]}}]}]",
            &[
                "Error spec.rules[0].to[0].operation.ports[0]",
                "Warning spec.rules[0].to[0].operation.methods[0]",
            ],
        );
        check(
            "rules: [{to: [{operation: {paths: ['/a/{*}/b/{**}', '/a{*}', '/{**}/{*}']}}]}]",
            &[
                "Error spec.rules[0].to[0].operation.paths[1]",
                "Error spec.rules[0].to[0].operation.paths[2]",
            ],
        );
        check(
            "rules: [{when: [{key: 'request.headers[x]', values: [a]}, {key: source.ip, values: [b]}]}]",
            &["Error spec.rules[0].when[1].values[0]"],
        );
        check(
            "rules: [{when: [{key: request.header, values: [a]}, {key: 'request.headers[]'}]}]",
            &[
                "Error spec.rules[0].when[0].key",
                "Error spec.rules[0].when[1].key",
                "Error spec.rules[0].when[1]",
            ],
        );
    }
}
