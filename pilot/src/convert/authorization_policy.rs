//! AuthorizationPolicy.

pub mod salvage;

use mesh_proto::{
    kube::{Object, security as api},
    validate::field::parse_range,
};

use super::peer_authentication::selector;
use crate::model::{
    AuthorizationPolicy, Origin, PolicyAction,
    authz::{Attribute, Condition, Operation, Rule, Source, Values},
    matching::Pattern,
};

pub fn convert(object: &Object<api::AuthorizationPolicy>, origin: Origin) -> AuthorizationPolicy {
    let spec = &object.spec;
    AuthorizationPolicy {
        selector: selector(spec.selector.as_ref()),
        action: match spec.action {
            api::Action::Deny => PolicyAction::Deny,
            api::Action::Audit => PolicyAction::Audit,
            // `validate` refuses CUSTOM; if it came here, denying is the safe reading.
            api::Action::Custom => PolicyAction::Deny,
            api::Action::Allow => PolicyAction::Allow,
        },
        rules: spec
            .rules
            .iter()
            .map(|one| rule(one, &origin.namespace))
            .collect(),
        origin,
    }
}

fn rule(rule: &api::Rule, namespace: &str) -> Rule {
    Rule {
        from: rule
            .from
            .iter()
            .filter_map(|from| from.source.as_ref())
            .map(|one| source(one, namespace))
            .collect(),
        to: rule
            .to
            .iter()
            .filter_map(|to| to.operation.as_ref())
            .map(operation)
            .collect(),
        when: rule.when.iter().filter_map(condition).collect(),
    }
}

fn values<T>(any: &[String], none: &[String], read: impl Fn(&str) -> Option<T>) -> Values<T> {
    let list = |texts: &[String]| texts.iter().filter_map(|text| read(text)).collect();
    Values {
        any: list(any),
        none: list(none),
    }
}

fn source(source: &api::Source, namespace: &str) -> Source {
    let pattern = |text: &str| Some(Pattern::new(text));
    let account = |text: &str| {
        let (in_namespace, name) = text.split_once('/').unwrap_or((namespace, text));
        Some((in_namespace.to_owned(), name.to_owned()))
    };
    Source {
        principals: values(&source.principals, &source.not_principals, pattern),
        request_principals: values(
            &source.request_principals,
            &source.not_request_principals,
            pattern,
        ),
        namespaces: values(&source.namespaces, &source.not_namespaces, pattern),
        service_accounts: values(&source.service_accounts, &source.not_service_accounts, account),
        ip_blocks: values(&source.ip_blocks, &source.not_ip_blocks, parse_range),
        remote_ip_blocks: values(
            &source.remote_ip_blocks,
            &source.not_remote_ip_blocks,
            parse_range,
        ),
    }
}

fn operation(operation: &api::Operation) -> Operation {
    let pattern = |text: &str| Some(Pattern::new(text));
    Operation {
        hosts: values(&operation.hosts, &operation.not_hosts, pattern),
        ports: values(&operation.ports, &operation.not_ports, |text| text.parse().ok()),
        methods: values(&operation.methods, &operation.not_methods, pattern),
        paths: values(&operation.paths, &operation.not_paths, |text| {
            Some(Pattern::path(text))
        }),
    }
}

fn condition(condition: &api::Condition) -> Option<Condition> {
    Some(Condition {
        attribute: attribute(&condition.key)?,
        values: Values {
            any: condition.values.clone(),
            none: condition.not_values.clone(),
        },
    })
}

/// `None` for a name that `validate` refuses.
pub fn attribute(key: &str) -> Option<Attribute> {
    let bracketed = |prefix: &str| key.strip_prefix(prefix)?.strip_suffix(']');
    if let Some(name) = bracketed("request.headers[") {
        return Some(Attribute::RequestHeader(name.to_ascii_lowercase()));
    }
    if let Some(path) = bracketed("request.auth.claims[") {
        return Some(Attribute::RequestClaim(
            path.split("][").map(str::to_owned).collect(),
        ));
    }
    Some(match key {
        "source.ip" => Attribute::SourceIp,
        "remote.ip" => Attribute::RemoteIp,
        "source.namespace" => Attribute::SourceNamespace,
        "source.principal" => Attribute::SourcePrincipal,
        "source.serviceAccount" => Attribute::SourceServiceAccount,
        "request.auth.principal" => Attribute::RequestPrincipal,
        "request.auth.audiences" => Attribute::RequestAudiences,
        "request.auth.presenter" => Attribute::RequestPresenter,
        "destination.ip" => Attribute::DestinationIp,
        "destination.port" => Attribute::DestinationPort,
        "connection.sni" => Attribute::Sni,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        convert::testing::of_spec,
        model::{Item, Kind},
    };

    fn policy(spec: &str) -> AuthorizationPolicy {
        match of_spec(Kind::AuthorizationPolicy, spec) {
            Item::AuthorizationPolicy(policy) => policy.as_ref().clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn policies() {
        let policy = policy(
            "selector: {matchLabels: {app: ratings}}\naction: DENY\nrules:\n\
             - from: [{source: {notPrincipals: [cluster.local/ns/ns/sa/reviews], ipBlocks: [10.0.0.0/8]}}]\n\
             \x20 to: [{operation: {methods: [GET], paths: ['/a*', '*/b', '/c/{*}'], ports: ['9080']}}]\n\
             \x20 when: [{key: 'request.headers[X-Y]', values: [a*]}, {key: 'request.auth.claims[a][b]', notValues: [c]}]\n",
        );
        assert_eq!(policy.action, PolicyAction::Deny);
        let rule = &policy.rules[0];
        assert!(rule.needs_http());
        assert_eq!(
            rule.from[0].principals.none,
            [Pattern::Exact("cluster.local/ns/ns/sa/reviews".into())]
        );
        assert_eq!(rule.from[0].ip_blocks.any.len(), 1);
        assert_eq!(
            rule.to[0].paths.any,
            [
                Pattern::Prefix("/a".into()),
                Pattern::Suffix("/b".into()),
                Pattern::Template("/c/{*}".into()),
            ]
        );
        assert_eq!(rule.to[0].ports.any, [9080]);
        assert_eq!(rule.when[0].attribute, Attribute::RequestHeader("x-y".into()));
        assert_eq!(
            rule.when[1].attribute,
            Attribute::RequestClaim(vec!["a".into(), "b".into()])
        );
    }

    #[test]
    fn the_extremes() {
        assert_eq!(policy("{}").rules, []);
        assert_eq!(policy("rules: [{}]").rules, [Rule::default()]);
        let accounts =
            policy("rules: [{from: [{source: {serviceAccounts: [a, other/b]}}]}]").rules[0].from[0].clone();
        assert_eq!(
            accounts.service_accounts.any,
            [
                ("ns".to_owned(), "a".to_owned()),
                ("other".to_owned(), "b".to_owned()),
            ]
        );
    }

    #[test]
    fn every_attribute_that_is_valid_is_known() {
        for key in mesh_proto::validate::CONDITIONS {
            let key = if key.ends_with('[') {
                format!("{key}x]")
            } else {
                key.to_owned()
            };
            assert!(attribute(&key).is_some(), "{key}");
        }
    }
}
