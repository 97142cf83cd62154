//! Helm's functions one by one, and that mistakes are named. That whole charts come out as from Helm is shown by
//! `e2e/tests/charts.rs`, beside Helm itself.

use super::*;
use crate::install::chart::{BASE, CONTROL, GATEWAY};

const RELEASE: Release<'_> = Release {
    name: "r",
    namespace: "ns",
};

fn try_render(template: &'static str, values: Value) -> Result<Vec<Document>, RenderError> {
    let templates: &'static [File] = Box::leak(Box::new([
        (
            "t/templates/_d.tpl",
            "{{ define \"d\" -}}\na: {{ .x }}\nb: 2\n{{- end }}",
        ),
        ("t/templates/a.yaml", template),
    ]));
    let chart = Chart {
        name: "t",
        metadata: ("t/Chart.yaml", "name: t\nappVersion: 0.1.0\n"),
        values: ("t/values.yaml", ""),
        schema: ("t/values.schema.json", "{}"),
        templates,
        crds: None,
    };
    render(&chart, &values, RELEASE)
}

fn out(template: &'static str, values: Value) -> Value {
    let documents = try_render(template, values).unwrap_or_else(|error| panic!("{template}: {error}"));
    documents
        .into_iter()
        .next()
        .map(|document| document.object)
        .unwrap_or_default()
}

#[test]
fn functions_give_what_helm_gives() {
    let check = |template: &'static str, values: Value, expect: Value| {
        assert_eq!(out(template, values), expect, "{template}");
    };
    let none = || json!({});
    check("v: {{ .Values.a | default \"x\" }}", none(), json!({"v": "x"}));
    check(
        "v: {{ .Values.a | default \"x\" | quote }}",
        json!({"a": 5}),
        json!({"v": "5"}),
    );
    check(
        "v: {{ int \"7\" }}{{ int 2.9 }}{{ int true }}",
        none(),
        json!({"v": 721}),
    );
    check(
        "v: {{ ternary 1 2 (eq .Values.a \"y\") }}",
        json!({"a": "y"}),
        json!({"v": 1}),
    );
    check(
        "v: {{ has \"b\" .Values.l }}",
        json!({"l": ["a", "b"]}),
        json!({"v": true}),
    );
    check("v: {{ contains \"/\" \"a/b\" }}", none(), json!({"v": true}));
    check(
        "v: {{ \"istio-x\" | trimPrefix \"istio-\" }}",
        none(),
        json!({"v": "x"}),
    );
    check(
        "v: {{ toJson .Values.m }}",
        json!({"m": {"b": [1, 1.5, null], "a": "x\"y"}}),
        json!({"v": {"a": "x\"y", "b": [1, 1.5, null]}}),
    );
    check(
        "v:\n  {{- toYaml .Values.m | nindent 2 }}",
        json!({"m": {"a": {"b": ["8080", 8080, "on"]}}}),
        json!({"v": {"a": {"b": ["8080", 8080, "on"]}}}),
    );
    check(
        "v:\n{{ include \"d\" (dict \"x\" 1) | indent 2 }}",
        none(),
        json!({"v": {"a": 1, "b": 2}}),
    );
    check(
        "v: {{ toJson (omit .Values \"a\" \"b\") }}",
        json!({"a": 1, "b": 2, "c": 3}),
        json!({"v": {"c": 3}}),
    );
    check(
        "v: {{ toJson (deepCopy .Values) }}",
        json!({"a": 1}),
        json!({"v": {"a": 1}}),
    );
    check(
        "v: {{ .Release.Name }}{{ .Release.Namespace }}{{ .Chart.AppVersion }}",
        none(),
        json!({"v": "rns0.1.0"}),
    );
    check(
        "v: {{ range $k, $v := .Values.m }}{{ $k }}{{ $v }}{{ end }}",
        json!({"m": {"b": 2, "a": 1}}),
        json!({"v": "a1b2"}),
    );
}

/// As seen with Helm 3: `merge` fills what is missing or empty, `mergeOverwrite` takes what is there, empty or not.
#[test]
fn merging_as_helm_does() {
    assert_eq!(
        out(
            "v: {{ toJson (merge (dict \"a\" 0 \"b\" \"x\" \"n\" (dict \"s\" 0 \"t\" 1)) .Values) }}",
            json!({"a": 7, "b": "y", "c": 0, "n": {"s": 9, "t": 2}})
        ),
        json!({"v": {"a": 7, "b": "x", "c": 0, "n": {"s": 9, "t": 1}}})
    );
    assert_eq!(
        out(
            "v: {{ toJson (mergeOverwrite (dict \"a\" 1 \"l\" (list 1) \"m\" (dict \"q\" 1)) .Values) }}",
            json!({"a": 0, "l": [], "m": {}, "z": ""})
        ),
        json!({"v": {"a": 0, "l": [], "m": {"q": 1}, "z": ""}})
    );
}

#[test]
fn mistakes_are_named() {
    for (template, expect) in [
        ("a: {{ nosuch 1 }}", "nosuch"),
        ("x: 1\na: {{ if }}", "t/templates/a.yaml:2:"),
        (
            "a: {{ fail \"choose a port\" }}",
            "t/templates/a.yaml: choose a port",
        ),
        (
            "a: {{ required \"a hub is needed\" .Values.hub }}",
            "a hub is needed",
        ),
        ("a: {{ include \"nowhere\" . }}", "nowhere"),
        ("a: {{ default 1 }}", "default: wants 2 arguments, not 1"),
        ("a: [", "no YAML"),
    ] {
        let error = try_render(template, json!({})).unwrap_err().to_string();
        assert!(error.contains(expect), "{template}: {error}");
    }
}

#[test]
fn our_charts_with_their_own_values() {
    for chart in [&BASE, &CONTROL, &GATEWAY] {
        let values: Value = serde_saphyr::from_str(chart.values.1).unwrap();
        let documents = render(chart, &values, RELEASE).unwrap();
        assert!(documents.len() >= 3, "{}", chart.name);
        for Document { object, source } in documents {
            assert!(
                object["kind"].is_string() && object["metadata"]["name"].is_string(),
                "{source}"
            );
        }
    }
}

/// Every pod of ours is one that the level "restricted" of Pod Security lets in.
#[test]
fn pods_are_restricted() {
    let mut seen = 0;
    for chart in [&CONTROL, &GATEWAY] {
        let values: Value = serde_saphyr::from_str(chart.values.1).unwrap();
        for Document { object, .. } in render(chart, &values, RELEASE).unwrap() {
            let pod = &object["spec"]["template"]["spec"];
            let Some(containers) = pod["containers"].as_array() else {
                continue;
            };
            seen += 1;
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            for field in ["hostNetwork", "hostPID", "hostIPC"] {
                assert!(pod[field].is_null());
            }
            for volume in pod["volumes"].as_array().into_iter().flatten() {
                assert!(volume["hostPath"].is_null());
            }
            for container in containers {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], false);
                assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
                assert_eq!(context["readOnlyRootFilesystem"], true);
            }
        }
    }
    assert_eq!(seen, 4);
}
