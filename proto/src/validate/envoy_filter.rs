//! EnvoyFilter alone: whether its patches fit together. What a patch says is Envoy's and is not judged here.

use super::{Validate, field};
use crate::{
    finding::Report,
    kube::{
        Object,
        networking::{
            ApplyTo, EnvoyFilter, EnvoyMatch, EnvoyPatch, FilterMatch, PatchContext, PatchOperation,
        },
    },
};

/// Network filters that have HTTP filters in them, by the current and the old name.
const CONNECTION_MANAGERS: [&str; 2] = [
    "envoy.filters.network.http_connection_manager",
    "envoy.http_connection_manager",
];

impl Validate for EnvoyFilter {
    fn validate(&self, _: &Object<Self>, report: &mut Report) {
        field::at_most_one(
            &[
                ("workloadSelector", self.workload_selector.is_some()),
                ("targetRefs", !self.target_refs.is_empty()),
            ],
            "spec",
            report,
        );
        field::one_target(false, None, &self.target_refs, report);
        if let Some(selector) = &self.workload_selector {
            field::labels(&selector.labels, "spec.workloadSelector.labels", report);
        }
        for (i, patch) in self.config_patches.iter().enumerate() {
            check_patch(patch, &format!("spec.configPatches[{i}]"), report);
        }
    }
}

fn check_patch(patch: &EnvoyPatch, at: &str, report: &mut Report) {
    let waypoint = patch
        .matches
        .as_ref()
        .is_some_and(|matched| matched.context == Some(PatchContext::Waypoint));
    if patch.apply_to == ApplyTo::Invalid {
        report.error(
            format!("{at}.applyTo"),
            "must say what is changed, such as HTTP_FILTER",
        );
    }
    match &patch.patch {
        None => report.error(format!("{at}.patch"), "must say how it is changed"),
        Some(patch) if patch.operation == PatchOperation::Invalid => {
            report.error(
                format!("{at}.patch.operation"),
                "must say what is done, such as MERGE",
            );
        }
        Some(patch) if patch.operation != PatchOperation::Remove && patch.value.is_none() => {
            report.error(
                format!("{at}.patch.value"),
                "must be given for all operations but REMOVE",
            );
        }
        Some(_) => {}
    }
    if let Some(matched) = &patch.matches {
        check_match(matched, patch.apply_to, waypoint, &format!("{at}.match"), report);
    }
}

fn check_match(matched: &EnvoyMatch, apply_to: ApplyTo, waypoint: bool, at: &str, report: &mut Report) {
    if let Some(proxy) = &matched.proxy
        && !proxy.proxy_version.is_empty()
    {
        field::regex(&proxy.proxy_version, &format!("{at}.proxy.proxyVersion"), report);
    }
    let kinds = [
        ("listener", matched.listener.is_some()),
        ("routeConfiguration", matched.route_configuration.is_some()),
        ("cluster", matched.cluster.is_some()),
        ("waypoint", matched.waypoint.is_some()),
    ];
    field::at_most_one(&kinds, at, report);
    if matched.waypoint.is_some() != waypoint {
        report.error(
            at,
            "context WAYPOINT and waypoint go together: one cannot stand without the other",
        );
    }
    let fits = match apply_to {
        ApplyTo::Listener | ApplyTo::FilterChain | ApplyTo::NetworkFilter | ApplyTo::HttpFilter => "listener",
        ApplyTo::RouteConfiguration | ApplyTo::VirtualHost | ApplyTo::HttpRoute => "routeConfiguration",
        ApplyTo::Cluster => "cluster",
        ApplyTo::Invalid | ApplyTo::ExtensionConfig | ApplyTo::Bootstrap | ApplyTo::ListenerFilter => "",
    };
    for (name, said) in kinds {
        if said && !fits.is_empty() && !waypoint && name != fits {
            report.error(
                format!("{at}.{name}"),
                format!("what applyTo says is found by {fits}, not by {name}"),
            );
        }
    }
    let filter = matched
        .listener
        .as_ref()
        .and_then(|listener| listener.filter_chain.as_ref());
    if let Some(filter) = filter.and_then(|chain| chain.filter.as_ref()) {
        check_filter(
            filter,
            apply_to,
            &format!("{at}.listener.filterChain.filter"),
            report,
        );
    }
}

fn check_filter(filter: &FilterMatch, apply_to: ApplyTo, at: &str, report: &mut Report) {
    if matches!(apply_to, ApplyTo::Listener | ApplyTo::FilterChain) {
        report.warn(
            at,
            "has no effect: applyTo changes listeners or chains, not filters",
        );
    }
    if filter.name.is_empty() {
        report.error(format!("{at}.name"), "must be given");
        return;
    }
    let Some(inner) = &filter.sub_filter else { return };
    if apply_to != ApplyTo::HttpFilter {
        report.error(
            format!("{at}.subFilter"),
            "is possible with applyTo: HTTP_FILTER only",
        );
    }
    if !CONNECTION_MANAGERS.contains(&filter.name.as_str()) {
        report.error(
            format!("{at}.name"),
            format!("only {} has HTTP filters in it", CONNECTION_MANAGERS[0]),
        );
    }
    if inner.name.is_empty() {
        report.error(format!("{at}.subFilter.name"), "must be given");
    }
}

#[cfg(test)]
mod tests {
    use crate::{kube::Kind, validate::testing::expect};

    fn check(spec: &str, found: &[&str]) {
        let mut expected = found.to_vec();
        expected.push("Warning spec");
        expect(Kind::EnvoyFilter, spec, &expected);
    }

    #[test]
    fn patches() {
        let patch = |text: &str, found: &[&str]| check(&format!("configPatches: [{text}]"), found);
        patch(
            "{applyTo: CLUSTER, patch: {operation: MERGE, value: {name: a}}}",
            &[],
        );
        patch("{applyTo: HTTP_FILTER, patch: {operation: REMOVE}}", &[]);
        patch(
            "{}",
            &[
                "Error spec.configPatches[0].applyTo",
                "Error spec.configPatches[0].patch",
            ],
        );
        patch(
            "{applyTo: CLUSTER, patch: {}}",
            &["Error spec.configPatches[0].patch.operation"],
        );
        patch(
            "{applyTo: CLUSTER, patch: {operation: ADD}}",
            &["Error spec.configPatches[0].patch.value"],
        );
    }

    #[test]
    fn matches() {
        let matched = |apply_to: &str, text: &str, found: &[&str]| {
            let patch = "patch: {operation: REMOVE}";
            check(
                &format!("configPatches: [{{applyTo: {apply_to}, match: {text}, {patch}}}]"),
                found,
            );
        };
        matched("CLUSTER", "{cluster: {name: a}, context: GATEWAY}", &[]);
        matched(
            "CLUSTER",
            "{listener: {name: a}}",
            &["Error spec.configPatches[0].match.listener"],
        );
        matched(
            "HTTP_ROUTE",
            "{proxy: {proxyVersion: '('}}",
            &["Error spec.configPatches[0].match.proxy.proxyVersion"],
        );
        matched(
            "HTTP_ROUTE",
            "{waypoint: {}}",
            &[
                "Error spec.configPatches[0].match",
                "Error spec.configPatches[0].match.waypoint",
            ],
        );
        let filter = "{listener: {filterChain: {filter: {name: x, subFilter: {name: z}}}}}";
        matched(
            "HTTP_FILTER",
            filter,
            &["Error spec.configPatches[0].match.listener.filterChain.filter.name"],
        );
        matched(
            "LISTENER",
            "{listener: {filterChain: {filter: {name: x}}}}",
            &["Warning spec.configPatches[0].match.listener.filterChain.filter"],
        );
    }
}
