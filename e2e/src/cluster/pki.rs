//! The cluster's certificates and kubeconfigs: one authority for servers and clients, one for the aggregator's front proxy, and
//! the key that signs service-account tokens. They live and die with the cluster, in its folder, readable by root only; they do
//! not expire, because nothing would renew them.

use super::layout::{API_PORT, API_SERVICE, CONTROL_ADDRESS, Layout, node_address, node_name};
use anyhow::Context;
use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use serde_json::json;
use std::{
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Whom a certificate is for: its file's name, its common name, its groups, and the names it may serve under.
struct Subject {
    file: String,
    name: String,
    group: Option<&'static str>,
    names: Vec<String>,
}

impl Subject {
    fn client(file: impl Into<String>, name: impl Into<String>, group: Option<&'static str>) -> Self {
        Self {
            file: file.into(),
            name: name.into(),
            group,
            names: Vec::new(),
        }
    }
}

fn subjects(nodes: u8) -> Vec<Subject> {
    let mut subjects = vec![
        Subject {
            names: [
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
                "localhost",
                "127.0.0.1",
            ]
            .into_iter()
            .map(str::to_owned)
            .chain([API_SERVICE.to_string(), CONTROL_ADDRESS.to_string()])
            .collect(),
            ..Subject::client("apiserver", "kube-apiserver", None)
        },
        Subject::client(
            "apiserver-kubelet-client",
            "kube-apiserver-kubelet-client",
            Some("system:masters"),
        ),
        Subject::client("admin", "cluster-admin", Some("system:masters")),
        Subject::client("controller-manager", "system:kube-controller-manager", None),
        Subject::client("scheduler", "system:kube-scheduler", None),
        Subject::client("proxy", "system:kube-proxy", None),
    ];
    subjects.extend((1..=nodes).map(|index| {
        let name = node_name(index);
        Subject {
            names: vec![name.clone(), node_address(index).to_string()],
            ..Subject::client(&name, format!("system:node:{name}"), Some("system:nodes"))
        }
    }));
    subjects
}

/// Makes everything new.
pub fn write(layout: &Layout, nodes: u8, api_port: u16) -> anyhow::Result<()> {
    let folder = layout.pki();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let issuer = authority(&folder, "ca", "cluster")?;
    for subject in subjects(nodes) {
        certificate(&folder, &issuer, &subject)?;
    }
    let front = authority(&folder, "front-proxy-ca", "front-proxy")?;
    certificate(
        &folder,
        &front,
        &Subject::client("front-proxy-client", "front-proxy-client", None),
    )?;
    let accounts = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    keep(&folder.join("accounts.key"), &accounts.serialize_pem())?;
    keep(&folder.join("accounts.pub"), &accounts.public_key_pem())?;

    let inside = format!("https://{CONTROL_ADDRESS}:{API_PORT}");
    for name in ["controller-manager", "scheduler", "proxy"] {
        kubeconfig(layout, name, &inside, &folder.join(format!("{name}.kubeconfig")))?;
    }
    for name in (1..=nodes).map(node_name) {
        kubeconfig(layout, &name, &inside, &folder.join(format!("{name}.kubeconfig")))?;
    }
    kubeconfig(
        layout,
        "admin",
        &format!("https://127.0.0.1:{api_port}"),
        &layout.kubeconfig(),
    )
}

fn authority(folder: &Path, file: &str, name: &str) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params.distinguished_name.push(DnType::CommonName, name);
    keep(
        &folder.join(format!("{file}.crt")),
        &params.self_signed(&key)?.pem(),
    )?;
    keep(&folder.join(format!("{file}.key")), &key.serialize_pem())?;
    Ok(Issuer::new(params, key))
}

fn certificate(folder: &Path, issuer: &Issuer<'static, KeyPair>, subject: &Subject) -> anyhow::Result<()> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(subject.names.clone())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, subject.name.as_str());
    if let Some(group) = subject.group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if !subject.names.is_empty() {
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    let file = |extension: &str| folder.join(format!("{}.{extension}", subject.file));
    keep(&file("crt"), &params.signed_by(&key, issuer)?.pem())?;
    keep(&file("key"), &key.serialize_pem())
}

/// A kubeconfig with everything in it, so that it can be copied.
fn kubeconfig(layout: &Layout, user: &str, server: &str, to: &Path) -> anyhow::Result<()> {
    let data = |name: String| {
        let path: PathBuf = layout.pki().join(name);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        anyhow::Ok(BASE64_STANDARD.encode(bytes))
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "gossamer", "cluster": {
            "server": server,
            "certificate-authority-data": data("ca.crt".to_owned())?,
        } }],
        "users": [{ "name": user, "user": {
            "client-certificate-data": data(format!("{user}.crt"))?,
            "client-key-data": data(format!("{user}.key"))?,
        } }],
        "contexts": [{ "name": "gossamer", "context": { "cluster": "gossamer", "user": user } }],
        "current-context": "gossamer",
    });
    keep(to, &format!("{config:#}\n"))
}

fn keep(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn every_part_has_its_own_name_and_no_key_is_readable_by_others() {
        let dir = std::env::temp_dir().join(format!("mesh-cluster-pki-{}", std::process::id()));
        let layout = Layout::new(&dir).unwrap();
        write(&layout, 2, 7777).unwrap();
        let admin = fs::read_to_string(layout.kubeconfig()).unwrap();
        assert!(admin.contains("https://127.0.0.1:7777"));
        let pem = fs::read(layout.pki().join("node-2.crt")).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
        let subject = pem.parse_x509().unwrap().subject().to_string();
        assert!(
            subject.contains("CN=system:node:node-2") && subject.contains("O=system:nodes"),
            "{subject}"
        );
        for entry in fs::read_dir(layout.pki()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", entry.path().display());
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
