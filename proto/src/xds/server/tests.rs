//! The protocol page's rules, one test each.

use bytes::Bytes;

use super::*;

fn catalog(resources: &[(&str, u64)]) -> Resources {
    sized(resources, 0)
}

fn sized(resources: &[(&str, u64)], bytes: usize) -> Resources {
    let encoded = |(name, version): &(&str, u64)| {
        Arc::new(Encoded {
            name: (*name).into(),
            version: Version(*version),
            kind: Type::Cluster,
            body: Bytes::from(vec![0; bytes]),
        })
    };
    resources.iter().map(encoded).collect()
}

fn subscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn unsubscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_unsubscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn answer(nonce: &str, error: Option<&str>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        response_nonce: nonce.to_owned(),
        error_detail: error.map(|e| Status {
            code: 3,
            message: e.to_owned(),
            details: Vec::new(),
        }),
        ..DeltaDiscoveryRequest::default()
    }
}

fn contents(response: &DeltaDiscoveryResponse) -> (Vec<&str>, Vec<&str>) {
    let names = response
        .resources
        .iter()
        .map(|resource| resource.name.as_str())
        .collect();
    (
        names,
        response.removed_resources.iter().map(String::as_str).collect(),
    )
}

/// Sends what is due, expects it to be this, and has it accepted.
#[track_caller]
fn exchange(subscription: &mut Subscription, resources: &Resources, names: &[&str], removed: &[&str]) {
    let response = subscription
        .delta_response(resources, "v")
        .expect("nothing was due");
    assert_eq!(contents(&response), (names.to_vec(), removed.to_vec()));
    assert_eq!(
        subscription.delta_request(&answer(&response.nonce, None)),
        Event::Accepted
    );
}

fn clusters() -> Subscription {
    Subscription::new(Type::Cluster, 1)
}

fn endpoints() -> Subscription {
    Subscription::new(Type::Endpoint, 1)
}

#[test]
fn nothing_is_sent_before_it_is_asked_for() {
    assert_eq!(clusters().delta_response(&catalog(&[("a", 1)]), "v"), None);
}

#[test]
fn an_empty_first_request_means_everything() {
    for request in [subscribe(&[]), subscribe(&["*"])] {
        let mut s = clusters();
        assert_eq!(s.delta_request(&request), Event::Subscribed);
        exchange(&mut s, &catalog(&[("a", 1), ("b", 1)]), &["a", "b"], &[]);
        assert_eq!(s.delta_response(&catalog(&[("a", 1), ("b", 1)]), "v"), None);
        exchange(&mut s, &catalog(&[("a", 2), ("c", 1)]), &["a", "c"], &["b"]);
        assert_eq!(s.delta_response(&catalog(&[("a", 2), ("c", 1)]), "v"), None);
    }
}

#[test]
fn an_empty_first_request_of_a_named_type_means_nothing() {
    let mut s = endpoints();
    s.delta_request(&subscribe(&[]));
    assert_eq!(s.delta_response(&catalog(&[("a", 1)]), "v"), None);
    s.delta_request(&subscribe(&["*"]));
    assert_eq!(s.delta_response(&catalog(&[("a", 1)]), "v"), None);
}

#[test]
fn a_wildcard_is_answered_even_with_nothing() {
    let mut s = clusters();
    s.delta_request(&subscribe(&["*"]));
    exchange(&mut s, &catalog(&[]), &[], &[]);
    assert_eq!(s.delta_response(&catalog(&[]), "v"), None, "once");
}

#[test]
fn a_reconnect_gets_only_the_difference() {
    let mut s = clusters();
    let mut request = subscribe(&["*"]);
    let version = |v: u64| Version(v).to_string();
    request.initial_resource_versions = [
        ("same".to_owned(), version(1)),
        ("old".to_owned(), version(1)),
        ("gone".to_owned(), version(1)),
        ("foreign".to_owned(), "2026-01-01".to_owned()),
    ]
    .into();
    s.delta_request(&request);
    let now = catalog(&[("same", 1), ("old", 2), ("new", 1), ("foreign", 1)]);
    exchange(&mut s, &now, &["foreign", "new", "old"], &["gone"]);
    assert!(s.has("same", Version(1)));
}

#[test]
fn a_reconnect_by_name_gets_only_the_difference() {
    let mut s = endpoints();
    let mut request = subscribe(&["same", "gone"]);
    let version = Version(1).to_string();
    request.initial_resource_versions = [
        ("same".to_owned(), version.clone()),
        ("gone".to_owned(), version.clone()),
        ("other".to_owned(), version),
    ]
    .into();
    s.delta_request(&request);
    exchange(&mut s, &catalog(&[("same", 1), ("other", 2)]), &[], &["gone"]);
    assert_eq!(
        s.delta_response(&catalog(&[("same", 1), ("other", 2)]), "v"),
        None
    );
}

#[test]
fn an_unknown_name_is_told_absent_once_and_sent_when_it_appears() {
    let mut s = endpoints();
    s.delta_request(&subscribe(&["a"]));
    exchange(&mut s, &catalog(&[]), &[], &["a"]);
    assert_eq!(s.delta_response(&catalog(&[]), "v"), None);
    exchange(&mut s, &catalog(&[("a", 1)]), &["a"], &[]);
    exchange(&mut s, &catalog(&[]), &[], &["a"]);
    exchange(&mut s, &catalog(&[("a", 1)]), &["a"], &[]);
}

#[test]
fn subscribing_again_sends_again() {
    let mut s = endpoints();
    let now = catalog(&[("a", 1)]);
    s.delta_request(&subscribe(&["a"]));
    exchange(&mut s, &now, &["a"], &[]);
    assert_eq!(s.delta_request(&subscribe(&["a"])), Event::Changed);
    exchange(&mut s, &now, &["a"], &[]);
}

#[test]
fn unsubscribing_is_silent_and_forgets() {
    let mut s = endpoints();
    let now = catalog(&[("a", 1)]);
    s.delta_request(&subscribe(&["a"]));
    exchange(&mut s, &now, &["a"], &[]);
    s.delta_request(&unsubscribe(&["a"]));
    assert_eq!(s.delta_response(&catalog(&[("a", 2)]), "v"), None);
    assert_eq!(s.versions().count(), 0);
}

#[test]
fn unsubscribing_a_name_that_everything_contains_is_answered() {
    let mut s = clusters();
    s.delta_request(&subscribe(&["*", "a", "x"]));
    let now = catalog(&[("a", 1)]);
    exchange(&mut s, &now, &["a"], &["x"]);
    s.delta_request(&unsubscribe(&["a"]));
    exchange(&mut s, &now, &["a"], &[]);
    s.delta_request(&unsubscribe(&["x"]));
    exchange(&mut s, &now, &[], &["x"]);
    assert_eq!(s.delta_response(&now, "v"), None);
}

#[test]
fn leaving_everything_keeps_the_names() {
    let mut s = clusters();
    s.delta_request(&subscribe(&["*", "a"]));
    exchange(&mut s, &catalog(&[("a", 1), ("b", 1)]), &["a", "b"], &[]);
    s.delta_request(&unsubscribe(&["*"]));
    exchange(&mut s, &catalog(&[("a", 2), ("b", 2)]), &["a"], &[]);
}

#[test]
fn one_response_is_unanswered_at_a_time() {
    let mut s = clusters();
    s.delta_request(&subscribe(&["*"]));
    let first = s.delta_response(&catalog(&[("a", 1)]), "v").unwrap();
    assert_eq!(s.delta_response(&catalog(&[("a", 2)]), "v"), None);
    s.delta_request(&answer(&first.nonce, None));
    exchange(&mut s, &catalog(&[("a", 3)]), &["a"], &[]);
}

#[test]
fn a_stale_nonce_concludes_nothing_but_its_names_count() {
    let mut s = endpoints();
    s.delta_request(&subscribe(&["a"]));
    let now = catalog(&[("a", 1), ("b", 1)]);
    let response = s.delta_response(&now, "v").unwrap();
    let mut stale = subscribe(&["b"]);
    stale.response_nonce = "0-1".into();
    assert_eq!(s.delta_request(&stale), Event::Stale);
    assert!(s.waiting());
    s.delta_request(&answer(&response.nonce, None));
    exchange(&mut s, &now, &["b"], &[]);
    assert_eq!(
        s.delta_request(&answer(&response.nonce, None)),
        Event::Stale,
        "an answer counts once"
    );
}

#[test]
fn a_refused_resource_waits_for_its_change() {
    let mut s = clusters();
    s.delta_request(&subscribe(&["*"]));
    let now = catalog(&[("a", 1), ("b", 1)]);
    let response = s.delta_response(&now, "v").unwrap();
    let event = s.delta_request(&answer(&response.nonce, Some("cluster b: no such thing")));
    let expected = Rejection {
        error: "cluster b: no such thing".into(),
        resources: vec![("b".into(), Version(1))],
    };
    assert_eq!(event, Event::Rejected(expected.clone()));
    assert_eq!(s.delta_response(&now, "v"), None);
    assert_eq!(s.rejection(), Some(&expected));
    assert!(s.has("a", Version(1)) && !s.has("b", Version(1)));
    exchange(&mut s, &catalog(&[("a", 1), ("b", 2)]), &["b"], &[]);
    assert_eq!(s.rejection(), None);
}

#[test]
fn an_error_without_names_blames_the_whole_response() {
    let mut s = clusters();
    s.delta_request(&subscribe(&["*"]));
    let response = s.delta_response(&catalog(&[("aa", 1), ("bb", 1)]), "v").unwrap();
    let Event::Rejected(rejection) = s.delta_request(&answer(&response.nonce, Some("?"))) else {
        panic!()
    };
    assert_eq!(rejection.resources.len(), 2);
}

#[test]
fn a_refusal_stands_until_its_resources_change_or_go() {
    let mut s = clusters();
    s.delta_request(&subscribe(&["*"]));
    let response = s
        .delta_response(&catalog(&[("80", 1), ("8080", 1)]), "v")
        .unwrap();
    s.delta_request(&answer(&response.nonce, Some("route 80: no")));
    exchange(&mut s, &catalog(&[("80", 1), ("8080", 2)]), &["8080"], &[]);
    assert_eq!(
        s.rejection().unwrap().resources,
        [("80".into(), Version(1))],
        "another one's change heals nothing"
    );
    exchange(&mut s, &catalog(&[("8080", 2)]), &[], &["80"]);
    assert_eq!(s.rejection(), None);
}

#[test]
fn a_large_response_comes_in_parts() {
    let mut s = clusters();
    s.delta_request(&subscribe(&["*"]));
    let now = sized(&[("a", 1), ("b", 1), ("c", 1)], RESPONSE_BYTES / 2);
    exchange(&mut s, &now, &["a"], &[]);
    exchange(&mut s, &now, &["b"], &[]);
    exchange(&mut s, &now, &["c"], &[]);
    assert_eq!(s.delta_response(&now, "v"), None);
    let huge = sized(&[("a", 2)], RESPONSE_BYTES * 2);
    assert_eq!(
        s.delta_response(&huge, "v").unwrap().resources.len(),
        1,
        "one always goes"
    );
}

#[test]
fn repeating_sends_again_what_did_not_change() {
    let mut s = endpoints();
    s.delta_request(&subscribe(&["a", "b"]));
    let now = catalog(&[("a", 1), ("b", 1)]);
    exchange(&mut s, &now, &["a", "b"], &[]);
    s.repeat(["b", "never"]);
    exchange(&mut s, &now, &["b"], &[]);
}

// ---- state of the world ----

fn sotw(names: &[&str], nonce: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        response_nonce: nonce.to_owned(),
        ..DiscoveryRequest::default()
    }
}

#[test]
fn sotw_sends_clusters_whole() {
    let mut s = clusters();
    assert_eq!(s.sotw_request(&sotw(&[], "")), Event::Subscribed);
    let response = s.sotw_response(&catalog(&[("a", 1), ("b", 1)]), "v1").unwrap();
    assert_eq!(
        (response.resources.len(), response.version_info.as_str()),
        (2, "v1")
    );
    assert_eq!(s.sotw_request(&sotw(&[], &response.nonce)), Event::Accepted);
    assert_eq!(s.sotw_response(&catalog(&[("a", 1), ("b", 1)]), "v2"), None);
    let response = s.sotw_response(&catalog(&[("a", 2), ("b", 1)]), "v3").unwrap();
    assert_eq!(response.resources.len(), 2, "whole, though one changed");
    s.sotw_request(&sotw(&[], &response.nonce));
    let response = s.sotw_response(&catalog(&[("b", 1)]), "v4").unwrap();
    assert_eq!(response.resources.len(), 1, "a removal is said by leaving out");
    s.sotw_request(&sotw(&[], &response.nonce));
    assert_eq!(s.sotw_response(&catalog(&[("b", 1)]), "v5"), None);
}

#[test]
fn sotw_sends_endpoints_by_name_and_only_news() {
    let mut s = endpoints();
    s.sotw_request(&sotw(&["a"], ""));
    let now = catalog(&[("a", 1), ("b", 1)]);
    let response = s.sotw_response(&now, "v").unwrap();
    assert_eq!(response.resources.len(), 1);
    assert_eq!(
        s.sotw_request(&sotw(&["a", "b"], &response.nonce)),
        Event::Accepted
    );
    let response = s.sotw_response(&now, "v").unwrap();
    assert_eq!(response.resources.len(), 1, "only b is new");
    s.sotw_request(&sotw(&["a", "b"], &response.nonce));
    assert_eq!(s.sotw_response(&now, "v"), None);
    s.sotw_request(&sotw(&["b"], &response.nonce));
    s.sotw_request(&sotw(&["a", "b"], &response.nonce));
    assert_eq!(
        s.sotw_response(&now, "v").unwrap().resources.len(),
        1,
        "a was forgotten meanwhile"
    );
}

#[test]
fn sotw_ignores_a_request_with_a_stale_nonce() {
    let mut s = endpoints();
    s.sotw_request(&sotw(&["a"], ""));
    let now = catalog(&[("a", 1), ("b", 1)]);
    let first = s.sotw_response(&now, "v").unwrap();
    s.sotw_request(&sotw(&["a", "b"], &first.nonce));
    s.sotw_response(&now, "v").unwrap();
    assert_eq!(s.sotw_request(&sotw(&["a"], &first.nonce)), Event::Stale);
    assert_eq!(s.names().count(), 2);
}

#[test]
fn sotw_takes_another_streams_nonce_as_a_first_request() {
    let mut s = clusters();
    assert_eq!(s.sotw_request(&sotw(&[], "0-9")), Event::Subscribed);
    assert!(s.sotw_response(&catalog(&[("a", 1)]), "v").is_some());
}

#[test]
fn sotw_an_empty_list_after_names_means_nothing() {
    let mut s = clusters();
    s.sotw_request(&sotw(&["a"], ""));
    let now = catalog(&[("a", 1), ("b", 1)]);
    let response = s.sotw_response(&now, "v").unwrap();
    assert_eq!(response.resources.len(), 1);
    s.sotw_request(&sotw(&[], &response.nonce));
    assert!(!s.wildcard());
    assert_eq!(s.sotw_response(&now, "v"), None);
    s.sotw_request(&sotw(&["*"], &response.nonce));
    assert_eq!(s.sotw_response(&now, "v").unwrap().resources.len(), 2);
}

#[test]
fn sotw_notes_absence_and_sends_on_appearance() {
    let mut s = endpoints();
    s.sotw_request(&sotw(&["a"], ""));
    assert_eq!(s.sotw_response(&catalog(&[]), "v"), None);
    assert!(s.sotw_response(&catalog(&[("a", 1)]), "v").is_some());
}

#[test]
fn sotw_nack_keeps_quiet_until_a_change() {
    let mut s = clusters();
    s.sotw_request(&sotw(&[], ""));
    let response = s.sotw_response(&catalog(&[("a", 1)]), "v").unwrap();
    let mut nack = sotw(&[], &response.nonce);
    nack.error_detail = Some(Status {
        code: 3,
        message: "no".into(),
        details: Vec::new(),
    });
    assert!(matches!(s.sotw_request(&nack), Event::Rejected(_)));
    assert_eq!(s.sotw_response(&catalog(&[("a", 1)]), "v"), None);
    assert!(s.sotw_response(&catalog(&[("a", 2)]), "v").is_some());
}
