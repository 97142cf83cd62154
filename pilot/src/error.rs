//! Why pilot cannot start. What is wrong with users' objects is never an error here: it is a finding.

use std::net::SocketAddr;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{what} cannot listen on {address}: {source}; is another process there? Use {flag} for another address"
    )]
    Listen {
        what: &'static str,
        address: SocketAddr,
        flag: &'static str,
        source: std::io::Error,
    },
    #[error("--config-dir {0} is not a folder; create it, or name the folder that holds the mesh's objects")]
    ConfigDir(String),
    #[error(
        "no source of objects: say --config-dir for folders, or --kube (perhaps with --kubeconfig) for Kubernetes"
    )]
    NoSource,
    #[error(transparent)]
    Client(#[from] mesh_runtime::apiserver::ClientError),
    #[error("the folders of --config-dir cannot be watched: {0}")]
    Watch(std::io::Error),
    #[error(transparent)]
    Tls(#[from] mesh_runtime::tls::TlsError),
    #[error("xDS server: {0}")]
    Serve(#[from] tonic::transport::Error),
}
