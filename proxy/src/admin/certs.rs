//! `/certs`: every certificate this proxy holds, in Envoy's form: its own identity, and those of secrets.

use std::time::SystemTime;

use axum::response::Response;
use mesh_runtime::tls::read_certificates;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
    time::ASN1Time,
};

use super::{Admin, Query};
use crate::config::secret::{SecretKind, Source};

pub async fn page(admin: &Admin, _: Query) -> Response {
    let mut certificates = Vec::new();
    if let Some(identity) = admin.identity.get() {
        certificates.push(entry(&identity.roots, &identity.chain, "identity"));
    }
    let snapshot = admin.store.snapshot();
    let mut secrets: Vec<_> = snapshot.secrets.values().collect();
    secrets.sort_by(|a, b| a.name.cmp(&b.name));
    for secret in secrets {
        let path = format!("secret {}", secret.name);
        certificates.push(match &secret.kind {
            SecretKind::Certificate { chain, .. } => entry(&[], &read(chain), &path),
            SecretKind::Validation { roots, .. } => entry(&read(roots), &[], &path),
        });
    }
    super::json(&json!({"certificates": certificates}))
}

fn read(source: &Source) -> Vec<CertificateDer<'static>> {
    let pem = match source {
        Source::Inline(bytes) => bytes.to_vec(),
        Source::File(path) => std::fs::read(path).unwrap_or_default(),
        Source::Environment(name) => std::env::var(&**name).unwrap_or_default().into_bytes(),
    };
    read_certificates(&pem).unwrap_or_default()
}

fn entry(roots: &[CertificateDer<'static>], chain: &[CertificateDer<'static>], path: &str) -> Value {
    let list = |all: &[CertificateDer<'static>]| -> Vec<Value> {
        all.iter().filter_map(|der| certificate(der, path)).collect()
    };
    json!({"ca_cert": list(roots), "cert_chain": list(chain)})
}

fn certificate(der: &CertificateDer<'static>, path: &str) -> Option<Value> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let names = parsed.subject_alternative_name().ok().flatten();
    let names: Vec<Value> = names
        .into_iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(json!({"uri": uri})),
            GeneralName::DNSName(name) => Some(json!({"dns": name})),
            _ => None,
        })
        .collect();
    let validity = parsed.validity();
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let left = validity.not_after.timestamp() - i64::try_from(now).unwrap_or(i64::MAX);
    Some(json!({
        "path": path,
        "serial_number": parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        "subject_alt_names": names,
        "days_until_expiration": left.max(0).div_euclid(86_400).to_string(),
        "valid_from": time(validity.not_before),
        "expiration_time": time(validity.not_after),
    }))
}

fn time(time: ASN1Time) -> String {
    let time = OffsetDateTime::from_unix_timestamp(time.timestamp()).ok();
    time.and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}
