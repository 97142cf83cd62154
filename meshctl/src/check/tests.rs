//! Facts in, outcomes out; and the page behind the anchors.

use std::{collections::BTreeSet, fs, path::Path};

use mesh_proto::finding::{self, Finding, ObjectRef};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::*;

fn pod(app: &str, ready: &str) -> Value {
    json!({"metadata": {"name": format!("{app}-0"), "namespace": "istio-system", "labels": {"app": app}},
        "spec": {"containers": []},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}})
}

fn sidecar(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"initContainers": [{"name": "istio-proxy"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})
}

fn root(seconds_from_now: i64) -> String {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.not_before = OffsetDateTime::from_unix_timestamp(1_600_000_000).unwrap();
    parameters.not_after = OffsetDateTime::now_utc() + time::Duration::seconds(seconds_from_now);
    parameters.self_signed(&key).unwrap().pem()
}

fn map(namespace: &str, root: &str) -> Value {
    json!({"metadata": {"name": "istio-ca-root-cert", "namespace": namespace}, "data": {"root-cert.pem": root}})
}

/// A mesh in which everything is well.
fn well() -> Facts {
    let root = root(365 * 86_400);
    let hook = json!({"kind": "MutatingWebhookConfiguration", "metadata": {"name": "istio-sidecar-injector"}, "webhooks": [
        {"name": "rev.sidecar-injector.istio.io", "clientConfig": {"caBundle": "eA==", "service": {"name": "pilot", "namespace": "istio-system"}}}]});
    Facts {
        now: OffsetDateTime::now_utc(),
        version: "0.1.0".into(),
        system: "istio-system".into(),
        cluster: true,
        server: Ok("v1.36.0".into()),
        groups: Ok(["networking", "security", "telemetry", "extensions"]
            .map(|name| format!("{name}.istio.io"))
            .into()),
        namespaces: Ok(vec![
            json!({"metadata": {"name": "istio-system"}}),
            json!({"metadata": {"name": "shop", "labels": {"istio-injection": "enabled"}}}),
        ]),
        pods: Ok(vec![
            pod("pilot", "True"),
            pod("citadel", "True"),
            pod("telemetry", "True"),
            sidecar("web-0"),
        ]),
        services: Ok(vec![
            json!({"metadata": {"name": "pilot", "namespace": "istio-system"}}),
        ]),
        config_maps: Ok(vec![map("istio-system", &root), map("shop", &root)]),
        webhooks: Ok(vec![hook]),
        versions: [("pilot-0".to_owned(), Ok("0.1.0".to_owned()))].into(),
        proxies: Ok(vec![
            json!({"proxy": "web-0.shop", "version": "0.1.0", "types": {"CDS": {"state": "SYNCED"}}}),
        ]),
        findings: Ok(Vec::new()),
    }
}

fn outcome(facts: &Facts, anchor: &str) -> Outcome {
    let check = all().into_iter().find(|check| check.anchor == anchor).unwrap();
    (check.judge)(facts)
}

#[test]
fn a_mesh_that_is_well() {
    let facts = well();
    for check in all() {
        assert_eq!((check.judge)(&facts), Outcome::Passed, "{}", check.anchor);
    }
}

/// Each change makes one point fail, and the text names what is meant.
#[test]
fn what_is_wrong_is_said() {
    type Change = fn(&mut Facts);
    let cases: [(&str, &str, Change); 15] = [
        ("platform-answers", "nobody", |facts| {
            facts.server = Err("nobody".into())
        }),
        ("platform-version", "v1.20.1", |facts| {
            facts.server = Ok("v1.20.1".into())
        }),
        ("platform-kinds", "security.istio.io", |facts| {
            facts.groups = Ok(vec!["networking.istio.io".into()])
        }),
        ("control-plane-namespace", "istio-system", |facts| {
            facts.namespaces = Ok(Vec::new())
        }),
        ("control-plane-pilot", "app=pilot", |facts| {
            facts.pods = Ok(Vec::new())
        }),
        ("control-plane-citadel", "citadel-0", |facts| {
            facts.pods = Ok(vec![pod("citadel", "False")])
        }),
        ("control-plane-webhooks", "istio-system/pilot", |facts| {
            facts.services = Ok(Vec::new())
        }),
        ("control-plane-version", "0.0.9", |facts| {
            facts.versions.insert("pilot-1".into(), Ok("0.0.9".into()));
        }),
        ("identity-root-published", "shop", |facts| {
            facts.config_maps = Ok(vec![map("istio-system", "x")])
        }),
        ("identity-root-same", "shop", |facts| {
            facts.config_maps = Ok(vec![map("istio-system", "x"), map("shop", "y")]);
        }),
        ("identity-root-lasts", "10 days", |facts| {
            facts.config_maps = Ok(vec![map("istio-system", &root(10 * 86_400 + 3600))]);
        }),
        ("data-plane-ready", "app: ErrImagePull", |facts| {
            let mut pod = sidecar("web-0");
            pod["status"] = json!({"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}],
                "containerStatuses": [{"name": "app", "state": {"waiting": {"reason": "ErrImagePull"}}}]});
            facts.pods = Ok(vec![pod]);
        }),
        ("data-plane-connected", "web-0.shop", |facts| {
            facts.proxies = Ok(Vec::new())
        }),
        ("data-plane-synced", "no such cluster", |facts| {
            facts.proxies = Ok(vec![
                json!({"proxy": "web-0.shop", "types": {"RDS": {"state": "REJECTED", "nack": {"error": "no such cluster"}}}}),
            ]);
        }),
        ("configuration-errors", "IST0101", |facts| {
            let object = ObjectRef::new("VirtualService", "shop", "a");
            facts.findings = Ok(vec![Finding::new(
                finding::REFERENCED_RESOURCE_NOT_FOUND,
                object,
                "",
                "",
            )]);
        }),
    ];
    for (anchor, expect, change) in cases {
        let mut facts = well();
        change(&mut facts);
        match outcome(&facts, anchor) {
            Outcome::Failed(text) => assert!(text.contains(expect), "{anchor}: {text}"),
            other => panic!("{anchor}: {other:?}"),
        }
    }
}

#[test]
fn what_cannot_be_told_is_skipped() {
    let mut facts = well();
    facts.pods = Err("forbidden".into());
    facts.proxies = Err("away".into());
    assert_eq!(
        outcome(&facts, "control-plane-pilot"),
        Outcome::Skipped("forbidden".into())
    );
    assert_eq!(
        outcome(&facts, "data-plane-synced"),
        Outcome::Skipped("away".into())
    );
    facts.cluster = false;
    assert!(matches!(outcome(&facts, "platform-version"), Outcome::Skipped(_)));
}

#[test]
fn the_page_is_true() {
    let checks = all();
    let anchors: BTreeSet<&str> = checks.iter().map(|check| check.anchor).collect();
    assert_eq!(anchors.len(), checks.len(), "an anchor is used twice");
    let mut page = String::from(
        "# Checks\n\nThe points of `meshctl check`: what it means when one fails, and what to do. A warning does not change the \
         exit code.\n\nThis page is generated from `meshctl/src/check`.\n",
    );
    let mut category = "";
    for check in &checks {
        if check.category != category {
            category = check.category;
            page += &format!("\n# The {category}\n");
        }
        page += &format!(
            "\n## {}\n\n**{}** ({})\n\n{}\n\n{}\n",
            check.anchor,
            check.text,
            match check.level {
                Level::Warning => "warning",
                Level::Error => "error",
            },
            check.meaning,
            check.remedy
        );
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PAGE);
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &page).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == page,
        "{PAGE} is not up to date; UPDATE=1 writes it"
    );
}
