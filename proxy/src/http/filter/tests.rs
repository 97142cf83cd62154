//! Filters over real connections.

use crate::testing::{Proxy, Server};

const LIMIT: &str = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
const MUTATION: &str = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
const ALL: &str = "{default_value: {numerator: 100}}";

fn head(answer: &str) -> (&str, Vec<&str>) {
    let mut lines = answer.split("\r\n");
    (
        lines.next().unwrap(),
        lines.take_while(|line| !line.is_empty()).collect(),
    )
}

#[tokio::test]
async fn a_local_limit_refuses_what_is_too_much() {
    let server = Server::start().await;
    let filter = format!(
        "{{name: limit, typed_config: {{'@type': {LIMIT}, stat_prefix: front, token_bucket: {{max_tokens: 2, \
         tokens_per_fill: 1, fill_interval: 3600s}}, filter_enabled: {ALL}, filter_enforced: {ALL}, \
         enable_x_ratelimit_headers: DRAFT_VERSION_03, enable_retry_after_header: true, response_headers_to_add: \
         [{{header: {{key: x-why, value: too much}}}}]}}}},"
    );
    let own = format!(
        "{{match: {{prefix: /own}}, route: {{cluster: a}}, typed_per_filter_config: {{limit: {{'@type': {LIMIT}, \
         stat_prefix: own, token_bucket: {{max_tokens: 1, fill_interval: 3600s}}, status: {{code: ServiceUnavailable}}, \
         filter_enabled: {ALL}, filter_enforced: {ALL}, rate_limited_as_resource_exhausted: true}}}}}}"
    );
    let routes = format!("{own}, {{match: {{prefix: /}}, route: {{cluster: a}}}}");
    let proxy = Proxy::http(&filter, &routes, &[("a", server.address)]).await;
    let first = proxy.get("/", "").await;
    let (status, headers) = head(&first);
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(headers.contains(&"x-ratelimit-limit: 2"), "{headers:?}");
    assert!(headers.contains(&"x-ratelimit-remaining: 1"), "{headers:?}");
    assert!(proxy.get("/", "").await.starts_with("HTTP/1.1 200"));
    let refused = proxy.get("/", "").await;
    let (status, headers) = head(&refused);
    assert_eq!(status, "HTTP/1.1 429 Too Many Requests");
    for line in [
        "x-envoy-ratelimited: true",
        "x-why: too much",
        "x-ratelimit-remaining: 0",
        "retry-after: 3600",
    ] {
        assert!(headers.contains(&line), "{line} in {headers:?}");
    }
    assert!(refused.ends_with("local_rate_limited"), "{refused}");
    // The route's own limit stands in for it.
    assert!(proxy.get("/own", "").await.starts_with("HTTP/1.1 200"));
    let grpc = proxy.get("/own", "content-type: application/grpc\r\n").await;
    assert!(head(&grpc).1.contains(&"grpc-status: 8"), "{grpc}");
    assert!(proxy.get("/own", "").await.starts_with("HTTP/1.1 503"));
    for (name, count) in [
        ("front.http_local_rate_limit.enabled", 3),
        ("front.http_local_rate_limit.ok", 2),
        ("front.http_local_rate_limit.rate_limited", 1),
        ("front.http_local_rate_limit.enforced", 1),
        ("own.http_local_rate_limit.enforced", 2),
    ] {
        assert_eq!(proxy.number(name), count, "{name}");
    }
}

#[tokio::test]
async fn a_limit_that_is_not_enforced_only_marks() {
    let mut server = Server::start().await;
    let filter = format!(
        "{{name: limit, typed_config: {{'@type': {LIMIT}, stat_prefix: soft, token_bucket: {{max_tokens: 1, \
         fill_interval: 3600s}}, filter_enabled: {ALL}, request_headers_to_add_when_not_enforced: [{{header: {{key: \
         x-too-much, value: 'yes'}}}}]}}}},"
    );
    let route = "{match: {prefix: /}, route: {cluster: a}}";
    let proxy = Proxy::http(&filter, route, &[("a", server.address)]).await;
    for marked in [None, Some("yes")] {
        assert!(proxy.get("/", "").await.starts_with("HTTP/1.1 200"));
        let request = server.next().await;
        let mark = request
            .headers()
            .get("x-too-much")
            .map(|value| value.to_str().unwrap());
        assert_eq!(mark, marked);
    }
    assert_eq!(proxy.number("soft.http_local_rate_limit.rate_limited"), 1);
    assert_eq!(proxy.number("soft.http_local_rate_limit.enforced"), 0);
}

#[tokio::test]
async fn headers_change_both_ways() {
    let mut server = Server::start().await;
    let filter = format!(
        "{{name: change, typed_config: {{'@type': {MUTATION}, mutations: {{request_mutations: [{{append: {{header: \
         {{key: x-added, value: '1'}}}}}}, {{remove: x-gone}}, {{append: {{header: {{key: ':path', value: /other}}, \
         append_action: OVERWRITE_IF_EXISTS_OR_ADD}}}}], response_mutations: [{{append: {{header: {{key: x-answer, \
         value: '%PROTOCOL%'}}}}}}]}}}}}},"
    );
    let per_route = MUTATION.replace("HeaderMutation", "HeaderMutationPerRoute");
    let more = format!(
        "typed_per_filter_config: {{change: {{'@type': {per_route}, mutations: {{request_mutations: [{{append: {{header: \
         {{key: x-added, value: '2'}}}}}}]}}}}}}"
    );
    let off = "typed_per_filter_config: {change: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, \
               disabled: true}}";
    let routes = format!(
        "{{match: {{prefix: /more}}, route: {{cluster: a}}, {more}}}, {{match: {{prefix: /off}}, route: {{cluster: a}}, \
         {off}}}, {{match: {{prefix: /none}}, route: {{cluster_header: x-nowhere}}}}, {{match: {{prefix: /}}, route: {{cluster: a}}}}"
    );
    let proxy = Proxy::http(&filter, &routes, &[("a", server.address)]).await;
    let answer = proxy.get("/", "x-gone: 1\r\n").await;
    assert!(head(&answer).1.contains(&"x-answer: HTTP/1.1"), "{answer}");
    let request = server.next().await;
    assert_eq!(request.uri().path(), "/other");
    assert_eq!(request.headers()["x-added"], "1");
    assert!(!request.headers().contains_key("x-gone"));
    proxy.get("/more", "").await;
    let added: Vec<_> = server
        .next()
        .await
        .headers()
        .get_all("x-added")
        .iter()
        .cloned()
        .collect();
    assert_eq!(added, ["1", "2"]);
    let answer = proxy.get("/off", "").await;
    assert!(!answer.contains("x-answer"), "{answer}");
    assert_eq!(server.next().await.uri().path(), "/off");
    // The mesh's own answers are changed too.
    let answer = proxy.get("/none", "").await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("x-answer: HTTP/1.1"),
        "{answer}"
    );
}

#[test]
fn what_a_limit_cannot_do_here_is_refused_by_name() {
    use crate::config::read::testing::listener_refused;
    let manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    for field in [
        "descriptors: [{entries: [{key: a, value: b}], token_bucket: {max_tokens: 1, fill_interval: 1s}}]",
        "local_rate_limit_per_downstream_connection: true",
        "rate_limits: [{actions: [{request_headers: {header_name: a, descriptor_key: b}}]}]",
    ] {
        let reject = listener_refused(&format!(
            "{{name: in, address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}, filter_chains: [{{filters: \
             [{{name: http, typed_config: {{'@type': {manager}, stat_prefix: in, route_config: {{name: r}}, http_filters: \
             [{{name: limit, typed_config: {{'@type': {LIMIT}, stat_prefix: x, {field}}}}}]}}}}]}}]}}"
        ));
        let name = field.split(':').next().unwrap();
        assert!(
            reject
                .path
                .ends_with(&format!("http_filters[0].typed_config.{name}")),
            "{reject}"
        );
    }
}
