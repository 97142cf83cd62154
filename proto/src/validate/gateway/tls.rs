//! TLS of a Gateway's server, or of a Sidecar's ingress listener.

use crate::{
    finding::Report,
    kube::networking::{ServerTls, ServerTlsMode, TlsVersion},
    validate::field,
};

/// What our proxy speaks of TLS 1.2. Stock Envoys speak more.
const CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305",
];
const CURVES: [&str; 4] = ["X25519", "P-256", "P-384", "X25519MLKEM768"];

pub(in crate::validate) fn check_tls(tls: &ServerTls, protocol: &str, at: &str, report: &mut Report) {
    let named = !tls.credential_name.is_empty() || !tls.credential_names.is_empty();
    field::at_most_one(
        &[
            ("credentialName", !tls.credential_name.is_empty()),
            ("credentialNames", !tls.credential_names.is_empty()),
        ],
        at,
        report,
    );
    field::at_most_one(
        &[
            ("tlsCertificates", !tls.tls_certificates.is_empty()),
            ("credentialName or credentialNames", named),
        ],
        at,
        report,
    );
    let named = named || !tls.tls_certificates.is_empty();
    match tls.mode.unwrap_or(ServerTlsMode::Simple) {
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual
            if !named && matches!(protocol, "HTTPS" | "TLS") =>
        {
            if tls.server_certificate.is_empty() {
                report.error(at, "needs credentialName, or serverCertificate and privateKey");
            } else if tls.private_key.is_empty() {
                report.error(format!("{at}.privateKey"), "must stand beside serverCertificate");
            }
        }
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough | ServerTlsMode::IstioMutual if named => {
            report.error(
                at,
                "this mode uses no credential of yours; remove credentialName or use SIMPLE or MUTUAL",
            );
        }
        _ => {}
    }
    if let (Some(minimum), Some(maximum)) = (tls.min_protocol_version, tls.max_protocol_version)
        && maximum != TlsVersion::Auto
        && minimum > maximum
    {
        report.error(format!("{at}.minProtocolVersion"), "is above maxProtocolVersion");
    }
    if tls
        .max_protocol_version
        .is_some_and(|version| matches!(version, TlsVersion::V1_0 | TlsVersion::V1_1))
    {
        report.warn(
            format!("{at}.maxProtocolVersion"),
            "TLS below 1.2 is broken and our proxy does not speak it; clients will fail",
        );
    }
    offer(tls, at, report);
    files(tls, at, report);
    clients(tls, at, report);
}

/// Cipher suites and curves: what our proxy does not speak is left out, and something must remain.
fn offer(tls: &ServerTls, at: &str, report: &mut Report) {
    let path = format!("{at}.cipherSuites");
    for (i, name) in tls.cipher_suites.iter().enumerate() {
        if !CIPHERS.contains(&name.as_str()) {
            let text = format!(
                "{name:?} is not spoken by our proxy and left out; it speaks {}",
                CIPHERS.join(", ")
            );
            report.warn(format!("{path}[{i}]"), text);
        }
    }
    let none = |names: &[String], known: &[&str]| {
        !names.is_empty() && !names.iter().any(|name| known.contains(&name.as_str()))
    };
    if none(&tls.cipher_suites, &CIPHERS) {
        if tls
            .max_protocol_version
            .is_some_and(|version| (TlsVersion::V1_0..=TlsVersion::V1_2).contains(&version))
        {
            report.error(
                &path,
                "none of them is spoken by our proxy, and TLS 1.3 is not allowed by maxProtocolVersion",
            );
        } else {
            report.warn(
                &path,
                "none of them is spoken by our proxy, so it speaks TLS 1.3 alone",
            );
        }
    }
    let path = format!("{at}.ecdhCurves");
    for (i, name) in tls.ecdh_curves.iter().enumerate() {
        if !CURVES.contains(&name.as_str()) {
            let text = format!(
                "{name:?} is not spoken by our proxy and left out; it speaks {}",
                CURVES.join(", ")
            );
            report.warn(format!("{path}[{i}]"), text);
        }
    }
    if none(&tls.ecdh_curves, &CURVES) {
        report.error(path, "none of them is spoken by our proxy");
    }
}

fn files(tls: &ServerTls, at: &str, report: &mut Report) {
    let first = tls.tls_certificates.first();
    for (i, pair) in tls.tls_certificates.iter().enumerate() {
        let at = format!("{at}.tlsCertificates[{i}]");
        if pair.server_certificate.is_empty() || pair.private_key.is_empty() {
            report.error(&at, "needs serverCertificate and privateKey");
        }
        if first.is_some_and(|first| first.ca_certificates != pair.ca_certificates) {
            report.error(
                format!("{at}.caCertificates"),
                "clients are verified by one set of authorities: say the same in each, or caCertificates of tls",
            );
        }
    }
    if !tls.tls_certificates.is_empty() && !tls.server_certificate.is_empty() {
        report.error(
            format!("{at}.serverCertificate"),
            "cannot stand beside tlsCertificates; put it there",
        );
    }
}

/// What is asked of clients.
fn clients(tls: &ServerTls, at: &str, report: &mut Report) {
    let asked = [
        ("caCertificates", !tls.ca_certificates.is_empty()),
        ("caCrl", !tls.ca_crl.is_empty()),
        ("caCertCredentialName", !tls.ca_cert_credential_name.is_empty()),
        ("subjectAltNames", !tls.subject_alt_names.is_empty()),
        ("verifyCertificateSpki", !tls.verify_certificate_spki.is_empty()),
        ("verifyCertificateHash", !tls.verify_certificate_hash.is_empty()),
        ("insecureSkipVerify", tls.insecure_skip_verify == Some(true)),
    ];
    let verifies = matches!(
        tls.mode,
        Some(ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual)
    );
    for (name, said) in asked {
        if said && !verifies {
            report.warn(
                format!("{at}.{name}"),
                "has an effect only with MUTUAL and OPTIONAL_MUTUAL: no client is asked for a certificate",
            );
        }
    }
    if tls.insecure_skip_verify == Some(true) {
        if verifies {
            report.warn(
                format!("{at}.insecureSkipVerify"),
                "any certificate will do, and who the client is is not known to policies",
            );
        }
    } else if verifies
        && tls.credential_name.is_empty()
        && tls.credential_names.is_empty()
        && tls.ca_cert_credential_name.is_empty()
        && tls.ca_certificates.is_empty()
        && tls
            .tls_certificates
            .iter()
            .all(|pair| pair.ca_certificates.is_empty())
    {
        let text = "the mode needs authorities to verify clients: caCertificates, caCertCredentialName or credentialName";
        report.error(format!("{at}.caCertificates"), text);
    }
    for (i, hash) in tls.verify_certificate_spki.iter().enumerate() {
        let letters = hash.strip_suffix('=').unwrap_or_default();
        let base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        if letters.len() != 43 || !letters.bytes().all(base64) {
            report.error(
                format!("{at}.verifyCertificateSpki[{i}]"),
                format!("{hash:?} is not the Base64 of 32 bytes"),
            );
        }
    }
    for (i, hash) in tls.verify_certificate_hash.iter().enumerate() {
        let digits: Vec<u8> = hash.bytes().filter(|byte| *byte != b':').collect();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            report.error(
                format!("{at}.verifyCertificateHash[{i}]"),
                format!("{hash:?} is not 32 bytes in hexadecimal digits, with colons or without"),
            );
        }
    }
    for (i, name) in tls.subject_alt_names.iter().enumerate() {
        if name.is_empty() {
            report.error(format!("{at}.subjectAltNames[{i}]"), "is empty");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{kube::Kind, validate::testing::expect};

    #[test]
    fn what_is_said_of_tls() {
        let check = |tls: &str, found: &[&str]| {
            let spec = format!(
                "selector: {{istio: ingressgateway}}\nservers: [{{port: {{number: 443, name: h, protocol: HTTPS}}, \
                 hosts: [a], tls: {{{tls}}}}}]"
            );
            let at = |line: &&str| line.replace("tls.", "spec.servers[0].tls.");
            let found: Vec<String> = found.iter().map(at).collect();
            let found: Vec<&str> = found.iter().map(String::as_str).collect();
            expect(Kind::Gateway, &spec, &found);
        };
        let mutual = "mode: MUTUAL, credentialName: c";
        check(mutual, &[]);
        check(&format!("{mutual}, caCertCredentialName: d, caCrl: /crl"), &[]);
        check(
            "mode: MUTUAL, serverCertificate: /c, privateKey: /k",
            &["Error tls.caCertificates"],
        );
        check(
            "mode: OPTIONAL_MUTUAL, tlsCertificates: [{serverCertificate: /c, privateKey: /k, caCertificates: /a}, \
             {serverCertificate: /d, privateKey: /l, caCertificates: /a}]",
            &[],
        );
        check(
            "mode: MUTUAL, tlsCertificates: [{serverCertificate: /c, caCertificates: /a}, \
             {serverCertificate: /d, privateKey: /l}]",
            &[
                "Error tls.tlsCertificates[0]",
                "Error tls.tlsCertificates[1].caCertificates",
            ],
        );
        check(
            "mode: SIMPLE, credentialName: c, caCrl: /crl, insecureSkipVerify: true",
            &["Warning tls.caCrl", "Warning tls.insecureSkipVerify"],
        );
        check(
            &format!("{mutual}, insecureSkipVerify: true"),
            &["Warning tls.insecureSkipVerify"],
        );
        check(
            &format!(
                "{mutual}, cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256, AES128-SHA], ecdhCurves: [P-521, P-256]"
            ),
            &["Warning tls.cipherSuites[1]", "Warning tls.ecdhCurves[0]"],
        );
        check(
            &format!(
                "{mutual}, cipherSuites: [AES128-SHA], maxProtocolVersion: TLSV1_2, ecdhCurves: [P-521]"
            ),
            &[
                "Warning tls.cipherSuites[0]",
                "Error tls.cipherSuites",
                "Warning tls.ecdhCurves[0]",
                "Error tls.ecdhCurves",
            ],
        );
        check(
            &format!("{mutual}, cipherSuites: [AES128-SHA]"),
            &["Warning tls.cipherSuites[0]", "Warning tls.cipherSuites"],
        );
        let (base64, hex) = ("A".repeat(43) + "=", "0f:".repeat(31) + "0f");
        check(
            &format!("{mutual}, verifyCertificateSpki: ['{base64}', x], verifyCertificateHash: ['{hex}', x]"),
            &[
                "Error tls.verifyCertificateSpki[1]",
                "Error tls.verifyCertificateHash[1]",
            ],
        );
    }
}
