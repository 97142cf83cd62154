//! AuthorizationPolicies in, filters out.

use mesh_proto::{envoy_json, pb::google::protobuf::Any};
use serde_json::{Value, json};

use super::*;
use crate::testing::snapshot;

fn policies(specs: &[&str]) -> Vec<Arc<AuthorizationPolicy>> {
    let objects: Vec<String> = specs
        .iter()
        .enumerate()
        .map(|(index, spec)| {
            format!(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                 metadata: {{name: p{index}, namespace: default}}\nspec: {spec}\n"
            )
        })
        .collect();
    snapshot(&objects.join("---\n"))
        .authorization
        .of("istio-system", "default", &Default::default())
}

fn json_of(filters: Vec<Any>) -> Vec<Value> {
    filters
        .iter()
        .map(|filter| envoy_json::any_to_value(filter).unwrap())
        .collect()
}

#[test]
fn denial_comes_first() {
    let all = policies(&["{action: ALLOW, rules: [{}]}", "{action: DENY, rules: [{}]}"]);
    let filters = json_of(http(&all));
    assert_eq!(filters.len(), 2);
    assert_eq!(filters[0]["rules"]["action"], "DENY");
    let everything = json!({"permissions": [{"any": true}], "principals": [{"any": true}]});
    assert_eq!(
        filters[1]["rules"]["policies"]["ns[default]-policy[p0]-rule[0]"],
        everything
    );
}

#[test]
fn an_allow_without_rules_allows_nothing() {
    let filters = json_of(http(&policies(&["{}"])));
    assert_eq!(filters.len(), 1);
    assert!(filters[0]["rules"].get("policies").is_none());
    assert!(http(&[]).is_empty());
}

#[test]
fn sources_operations_and_conditions() {
    let filters = json_of(http(&policies(&[
        "{rules: [{from: [{source: {principals: ['cluster.local/ns/a/sa/b'], notNamespaces: [bad]}}, \
         {source: {ipBlocks: [10.0.0.0/8]}}], to: [{operation: {methods: [GET], paths: [/a*, '*.html', '/c/{*}/d.x/{**}'], ports: ['80']}}], \
         when: [{key: 'request.headers[x]', values: [v]}]}]}",
    ])));
    let rule = &filters[0]["rules"]["policies"]["ns[default]-policy[p0]-rule[0]"];
    let permissions = rule["permissions"][0]["and_rules"]["rules"].as_array().unwrap();
    assert_eq!(permissions[0]["or_rules"]["rules"][0]["destination_port"], 80);
    assert_eq!(
        permissions[1]["or_rules"]["rules"][0]["header"]["string_match"]["exact"],
        "GET"
    );
    let paths = permissions[2]["or_rules"]["rules"].as_array().unwrap();
    assert_eq!(paths[0]["url_path"]["path"]["prefix"], "/a");
    assert_eq!(paths[1]["url_path"]["path"]["suffix"], ".html");
    assert_eq!(
        paths[2]["url_path"]["path"]["safe_regex"]["regex"],
        r"/c/[^/]+/d\.x/.*"
    );
    let principals = rule["principals"].as_array().unwrap();
    assert_eq!(principals.len(), 2, "either of the sources");
    let text = principals[0].to_string();
    assert!(
        text.contains("spiffe://cluster.local/ns/a/sa/b") && text.contains("not_id"),
        "{text}"
    );
    assert!(
        text.contains("\"name\":\"x\""),
        "the condition holds for each source: {text}"
    );
    assert!(principals[1].to_string().contains("direct_remote_ip"));
}

#[test]
fn without_http_an_allow_falls_away_and_a_denial_grows() {
    let spec = |action: &str| {
        format!("{{action: {action}, rules: [{{to: [{{operation: {{methods: [GET], ports: ['80']}}}}]}}]}}")
    };
    let allow = json_of(network(&policies(&[&spec("ALLOW")])));
    assert!(allow[0]["rules"].get("policies").is_none(), "nothing is allowed");
    let deny = json_of(network(&policies(&[&spec("DENY")])));
    let rule = &deny[0]["rules"]["policies"]["ns[default]-policy[p0]-rule[0]"];
    assert_eq!(
        rule["permissions"][0],
        json!({"or_rules": {"rules": [{"destination_port": 80}]}})
    );
}

#[test]
fn what_tokens_say() {
    let filters = json_of(http(&policies(&[
        "{rules: [{from: [{source: {requestPrincipals: ['https://me/jane', 'a*', '*z', '*'], \
         notRequestPrincipals: [nobody]}}], when: [{key: 'request.auth.claims[realm][role]', values: [boss, '*']}, \
         {key: request.auth.audiences, notValues: [x]}]}]}",
    ])));
    let rule = &filters[0]["rules"]["policies"]["ns[default]-policy[p0]-rule[0]"];
    let ids = rule["principals"][0]["and_ids"]["ids"].as_array().unwrap();
    let claim = |name: &str, value: Value| {
        let path = json!([{"key": "payload"}, {"key": name}]);
        let matcher = json!({"filter": "envoy.filters.http.jwt_authn", "path": path, "value": value});
        json!({"sourced_metadata": {"metadata_matcher": matcher}})
    };
    let text = |rule: &str, text: &str| json!({"string_match": {rule: text}});
    let there = json!({"present_match": true});
    let source = ids[0]["and_ids"]["ids"].as_array().unwrap();
    let any = source[0]["or_ids"]["ids"].as_array().unwrap();
    let both = |issuer: Value, subject: Value| json!({"and_ids": {"ids": [claim("iss", issuer), claim("sub", subject)]}});
    // Each slash may be the one between issuer and subject.
    assert_eq!(
        any[0],
        json!({"or_ids": {"ids": [
            both(text("exact", "https:"), text("exact", "/me/jane")),
            both(text("exact", "https:/"), text("exact", "me/jane")),
            both(text("exact", "https://me"), text("exact", "jane")),
        ]}})
    );
    assert_eq!(
        any[1],
        json!({"or_ids": {"ids": [both(text("prefix", "a"), there.clone())]}})
    );
    assert_eq!(
        any[2],
        json!({"or_ids": {"ids": [both(there.clone(), text("suffix", "z"))]}})
    );
    assert_eq!(any[3], both(there.clone(), there.clone()));
    let none = json!({"not_id": {"or_ids": {"ids": [{"not_id": {"any": true}}]}}});
    assert_eq!(source[1], none, "without a slash it is nobody");
    let roles = ids[1]["or_ids"]["ids"].as_array().unwrap();
    let either = json!({"or_match": {"value_matchers": [text("exact", "boss"), {"list_match": {"one_of": text("exact", "boss")}}]}});
    assert_eq!(roles[0]["sourced_metadata"]["metadata_matcher"]["value"], either);
    assert_eq!(
        roles[0]["sourced_metadata"]["metadata_matcher"]["path"],
        json!([{"key": "payload"}, {"key": "realm"}, {"key": "role"}])
    );
    assert_eq!(roles[1]["sourced_metadata"]["metadata_matcher"]["value"], there);
    let none = &ids[2]["not_id"]["or_ids"]["ids"][0]["sourced_metadata"]["metadata_matcher"];
    assert_eq!(none["path"][1]["key"], "aud");
}
