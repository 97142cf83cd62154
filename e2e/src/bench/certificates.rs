//! A root and two workload certificates for the pair, as files, with SPIFFE names as the mesh's own have.

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    SanType,
};
use std::path::Path;

pub const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/client";
pub const SERVER: &str = "spiffe://cluster.local/ns/default/sa/server";

/// Writes `root.pem`, and `client.pem`, `client.key`, `server.pem`, `server.key`.
pub fn write(folder: &Path) -> anyhow::Result<()> {
    let root_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = params.self_signed(&root_key)?;
    let issuer = Issuer::new(params, root_key);
    keep(folder, "root.pem", &root.pem())?;
    for (name, uri) in [("client", CLIENT), ("server", SERVER)] {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let leaf = params.signed_by(&key, &issuer)?;
        keep(folder, &format!("{name}.pem"), &leaf.pem())?;
        keep(folder, &format!("{name}.key"), &key.serialize_pem())?;
    }
    Ok(())
}

fn keep(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = folder.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
