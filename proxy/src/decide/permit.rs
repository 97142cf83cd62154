//! Is it allowed? Role-based access as Envoy's RBAC filters decide it: a policy matches when one of its permissions and
//! one of its principals match; ALLOW needs a match, DENY must have none. The verdict names the policy.

use std::sync::Arc;

use super::{
    facts::{Connection, Facts},
    matching, metadata,
};
use crate::config::filter::{Permission, Policy, Principal, Rbac, RbacAction};

/// Allowed or not, and the policy that matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    pub allowed: bool,
    pub policy: Option<&'a Arc<str>>,
}

/// A request.
pub fn request<'a>(rules: &'a Rbac, facts: &Facts<'_>) -> Verdict<'a> {
    verdict(
        rules,
        &Asked {
            request: Some(facts),
            connection: facts.connection,
        },
    )
}

/// A connection without a request: whatever a policy asks of a request does not match.
pub fn connection<'a>(rules: &'a Rbac, connection: &Connection<'_>) -> Verdict<'a> {
    verdict(
        rules,
        &Asked {
            request: None,
            connection,
        },
    )
}

/// Policies that a refusal names, where none matched.
const NAMED: usize = 4;

/// What a log says of a refusal: Envoy's words, and where no policy allowed it, the policies that could have.
pub fn details(rules: &Rbac, verdict: &Verdict<'_>) -> String {
    if let Some(policy) = verdict.policy {
        return format!("rbac_access_denied_matched_policy[{policy}]");
    }
    let mut names: Vec<&str> = Vec::new();
    for policy in &rules.policies {
        let name = policy.name.split("-rule[").next().unwrap_or_default();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let more = if names.len() > NAMED { ",..." } else { "" };
    names.truncate(NAMED);
    match names.is_empty() {
        true => "rbac_access_denied_matched_policy[none]".to_owned(),
        false => format!(
            "rbac_access_denied_matched_policy[none]{{{}{more}}}",
            names.join(",")
        ),
    }
}

struct Asked<'a> {
    request: Option<&'a Facts<'a>>,
    connection: &'a Connection<'a>,
}

fn verdict<'a>(rules: &'a Rbac, asked: &Asked<'_>) -> Verdict<'a> {
    let policy = rules
        .policies
        .iter()
        .find(|policy| matches(policy, asked))
        .map(|policy| &policy.name);
    let allowed = match rules.action {
        RbacAction::Allow => policy.is_some(),
        RbacAction::Deny => policy.is_none(),
        RbacAction::Log => true,
    };
    Verdict { allowed, policy }
}

fn matches(policy: &Policy, asked: &Asked<'_>) -> bool {
    policy.permissions.iter().any(|rule| permission(rule, asked))
        && policy.principals.iter().any(|rule| principal(rule, asked))
}

fn permission(rule: &Permission, asked: &Asked<'_>) -> bool {
    let destination = asked.connection.destination;
    match rule {
        Permission::Any => true,
        Permission::All(rules) => rules.iter().all(|rule| permission(rule, asked)),
        Permission::AnyOf(rules) => rules.iter().any(|rule| permission(rule, asked)),
        Permission::Not(rule) => !permission(rule, asked),
        Permission::Header(rule) => asked.request.is_some_and(|facts| matching::header(rule, facts)),
        Permission::Path(rule) => asked
            .request
            .is_some_and(|facts| matching::string(rule, facts.path.as_bytes())),
        Permission::DestinationIp(network) => network.contains(&destination.ip().to_canonical()),
        Permission::DestinationPort(port) => destination.port() == *port,
        Permission::DestinationPorts(range) => range.contains(&u32::from(destination.port())),
        Permission::ServerName(rule) => {
            matching::string(rule, asked.connection.server_name.unwrap_or_default().as_bytes())
        }
        Permission::Metadata(rule) => asked.request.is_some_and(|facts| metadata::matches(rule, facts)),
    }
}

fn principal(rule: &Principal, asked: &Asked<'_>) -> bool {
    match rule {
        Principal::Any => true,
        Principal::All(rules) => rules.iter().all(|rule| principal(rule, asked)),
        Principal::AnyOf(rules) => rules.iter().any(|rule| principal(rule, asked)),
        Principal::Not(rule) => !principal(rule, asked),
        Principal::Authenticated(rule) => authenticated(rule.as_ref(), asked),
        Principal::DirectRemoteIp(network) => network.contains(&asked.connection.source.ip().to_canonical()),
        Principal::RemoteIp(network) => {
            let address = asked
                .request
                .map_or(asked.connection.source.ip(), |facts| facts.client);
            network.contains(&address.to_canonical())
        }
        Principal::Header(rule) => asked.request.is_some_and(|facts| matching::header(rule, facts)),
        Principal::Path(rule) => asked
            .request
            .is_some_and(|facts| matching::string(rule, facts.path.as_bytes())),
        Principal::Metadata(rule) => asked.request.is_some_and(|facts| metadata::matches(rule, facts)),
    }
}

/// Any URI name may match; only without one the DNS names, and only without those the subject.
fn authenticated(rule: Option<&crate::config::matcher::StringMatch>, asked: &Asked<'_>) -> bool {
    let Some(peer) = asked.connection.peer else {
        return false;
    };
    let Some(rule) = rule else { return true };
    let any = |names: &[Box<str>]| names.iter().any(|name| matching::string(rule, name.as_bytes()));
    if !peer.uris.is_empty() {
        any(&peer.uris)
    } else if !peer.dns.is_empty() {
        any(&peer.dns)
    } else {
        matching::string(rule, peer.subject.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::{
        config::matcher::StringMatch,
        decide::{facts::PeerNames, testing::with_facts},
    };

    fn exact(text: &str) -> StringMatch {
        StringMatch::Exact {
            value: text.as_bytes().into(),
            ignore_case: false,
        }
    }

    fn rules(action: RbacAction, permission: Permission, principal: Principal) -> Rbac {
        let policy = Policy {
            name: "p".into(),
            permissions: vec![permission],
            principals: vec![principal],
        };
        Rbac {
            action,
            policies: vec![policy],
        }
    }

    #[test]
    fn a_refusal_names_policies() {
        let mut rules = rules(RbacAction::Allow, Permission::Any, Principal::Any);
        let verdict = |policy| Verdict {
            allowed: false,
            policy,
        };
        rules.policies[0].name = "ns[a]-policy[b]-rule[0]".into();
        let mut second = rules.policies[0].clone();
        second.name = "ns[a]-policy[b]-rule[1]".into();
        rules.policies.push(second);
        assert_eq!(
            details(&rules, &verdict(None)),
            "rbac_access_denied_matched_policy[none]{ns[a]-policy[b]}"
        );
        assert_eq!(
            details(&rules, &verdict(Some(&rules.policies[0].name))),
            "rbac_access_denied_matched_policy[ns[a]-policy[b]-rule[0]]"
        );
    }

    #[test]
    fn a_path_by_a_principal() {
        let reviews = "spiffe://cluster.local/ns/default/sa/bookinfo-reviews";
        let rules = |action| {
            rules(
                action,
                Permission::All(vec![
                    Permission::Path(exact("/ratings/0")),
                    Permission::DestinationPort(80),
                ]),
                Principal::Authenticated(Some(exact(reviews))),
            )
        };
        let ask = |action, path: &str, name: Option<&str>| {
            with_facts("GET", "ratings:9080", path, &HeaderMap::new(), |facts| {
                let peer = name.map(|name| PeerNames {
                    uris: vec![name.into()],
                    ..PeerNames::default()
                });
                let connection = Connection {
                    peer: peer.as_ref(),
                    ..*facts.connection
                };
                let facts = Facts {
                    connection: &connection,
                    ..*facts
                };
                let rules = rules(action);
                let verdict = request(&rules, &facts);
                (verdict.allowed, verdict.policy.is_some())
            })
        };
        assert_eq!(ask(RbacAction::Allow, "/ratings/0", Some(reviews)), (true, true));
        assert_eq!(
            ask(RbacAction::Allow, "/ratings/1", Some(reviews)),
            (false, false)
        );
        assert_eq!(
            ask(RbacAction::Allow, "/ratings/0", Some("spiffe://other")),
            (false, false)
        );
        assert_eq!(ask(RbacAction::Allow, "/ratings/0", None), (false, false));
        assert_eq!(ask(RbacAction::Deny, "/ratings/0", Some(reviews)), (false, true));
        assert_eq!(ask(RbacAction::Deny, "/ratings/0", None), (true, false));
        assert_eq!(ask(RbacAction::Log, "/ratings/0", Some(reviews)), (true, true));
    }

    #[test]
    fn a_connection_has_no_path() {
        with_facts("GET", "x", "/", &HeaderMap::new(), |facts| {
            let path = rules(RbacAction::Allow, Permission::Path(exact("/")), Principal::Any);
            assert!(request(&path, facts).allowed && !connection(&path, facts.connection).allowed);
            let ip = rules(
                RbacAction::Allow,
                Permission::DestinationPorts(80..90),
                Principal::Not(Box::new(Principal::DirectRemoteIp(
                    "10.1.0.0/16".parse().unwrap(),
                ))),
            );
            assert!(connection(&ip, facts.connection).allowed);
            let empty = Rbac {
                action: RbacAction::Allow,
                policies: Vec::new(),
            };
            let refused = connection(&empty, facts.connection);
            assert!(!refused.allowed);
            assert_eq!(
                details(&empty, &refused),
                "rbac_access_denied_matched_policy[none]"
            );
        });
    }
}
