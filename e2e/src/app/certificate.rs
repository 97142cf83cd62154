//! What a data plane of somebody else's needs to join: a workload certificate in files. Gets it from citadel with the pod's own
//! token, over the same call that our proxy uses, writes key, chain and root, and then becomes the program it was given.
//!
//! The certificate is not renewed: this is for tests that end within its life.

use anyhow::{Context, ensure};
use clap::Args;
use mesh_proto::ca::{
    IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient,
};
use mesh_runtime::{grpc, tls};
use std::{
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    sync::Arc,
};

#[derive(Debug, Args)]
pub struct Settings {
    /// host:port of citadel.
    #[arg(long, default_value = "citadel.istio-system.svc:15013")]
    ca_address: String,
    #[arg(long, default_value = mesh_proto::names::path::TOKEN)]
    token_file: PathBuf,
    #[arg(long, default_value = mesh_proto::names::path::ROOT_CERT)]
    root_file: PathBuf,
    /// Where key.pem, chain.pem and root.pem are written.
    #[arg(long)]
    out: PathBuf,
    /// The program to become, with its arguments.
    #[arg(last = true, required = true)]
    program: Vec<String>,
}

pub async fn run(settings: &Settings) -> anyhow::Result<()> {
    let (key, chain) = certificate(settings).await?;
    std::fs::create_dir_all(&settings.out)
        .with_context(|| format!("cannot make {}", settings.out.display()))?;
    write(&settings.out.join("key.pem"), key.as_bytes())?;
    let root = chain.last().context("citadel answered an empty chain")?.clone();
    write(&settings.out.join("chain.pem"), chain.concat().as_bytes())?;
    write(&settings.out.join("root.pem"), root.as_bytes())?;
    let (program, arguments) = settings.program.split_first().context("no program")?;
    // Returns only when it failed.
    let error = std::process::Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {program}"))
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| file.write_all(bytes))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A fresh key, and the chain that citadel gives for it: leaf first, root last.
async fn certificate(settings: &Settings) -> anyhow::Result<(String, Vec<String>)> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let token = read(&settings.token_file)?;
    let roots = tls::read_certificates(read(&settings.root_file)?.as_bytes())?;
    let citadel = format!(
        "spiffe://{}/ns/{}/sa/citadel",
        mesh_proto::names::CLUSTER_DOMAIN,
        mesh_proto::names::SYSTEM_NAMESPACE
    );
    let tls = tls::client_config_with_roots(&roots, None, tls::PeerNames::Exact(vec![citadel]), &["h2"])?;
    let channel = grpc::connect(&settings.ca_address, Some(Arc::new(tls)))?;

    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)?
        .pem()?;
    let mut call = tonic::Request::new(IstioCertificateRequest {
        csr: request,
        validity_duration: 3600,
        metadata: None,
    });
    call.metadata_mut()
        .insert("authorization", format!("Bearer {}", token.trim()).parse()?);
    let answer = IstioCertificateServiceClient::new(channel)
        .create_certificate(call)
        .await
        .with_context(|| format!("citadel at {} gave no certificate", settings.ca_address))?;
    let chain = answer.into_inner().cert_chain;
    ensure!(
        !chain.is_empty(),
        "citadel at {} answered an empty chain",
        settings.ca_address
    );
    Ok((key.serialize_pem(), chain))
}
