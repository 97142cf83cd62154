//! The way to a Kubernetes cluster: from `--kubeconfig` and `--context`, `KUBECONFIG`, `~/.kube/config`, or the service
//! account of the pod that this runs in, in this order, as kubectl does. Making a client sends nothing yet.
//!
//! Every error says what was tried, what went wrong and what to do. Bounds: 5 s to connect, 60 s to send a request; an
//! answer may take as long as the API server lets it, since watches, logs and forwarded ports are answers too.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{anyhow, bail};
use kube::{
    Client, Config, Error,
    config::{KubeConfigOptions, Kubeconfig},
};
use mesh_runtime::apiserver::chain;

const CONNECT: Duration = Duration::from_secs(5);
const SEND: Duration = Duration::from_secs(60);

/// A cluster that can be spoken to.
#[derive(Clone)]
pub struct KubeCluster {
    pub client: Client,
    /// The API server's address.
    pub server: String,
    /// The kubeconfig's context; empty in a pod.
    pub context: String,
    /// Where objects go that name no namespace.
    pub namespace: String,
}

impl std::fmt::Debug for KubeCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KubeCluster({:?}, {})", self.context, self.server)
    }
}

impl std::fmt::Display for KubeCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.context.as_str() {
            "" => write!(f, "{} (by this pod's service account)", self.server),
            context => write!(f, "{} (context {context})", self.server),
        }
    }
}

/// A client alone.
pub async fn client(kubeconfig: Option<&Path>, context: Option<&str>) -> anyhow::Result<Client> {
    Ok(connect(kubeconfig, context).await?.client)
}

/// A client, and what it leads to.
pub async fn connect(kubeconfig: Option<&Path>, context: Option<&str>) -> anyhow::Result<KubeCluster> {
    let (mut config, context) = match read(kubeconfig)? {
        Some((file, path)) => from_file(file, &path, context).await?,
        None => (in_pod(context)?, String::new()),
    };
    config.connect_timeout = Some(CONNECT);
    // Answers may be streams that last for days: only writing has a bound.
    config.write_timeout = Some(SEND);
    let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config)
        .map_err(|error| anyhow!("no client for {server} can be made: {}", chain(&error)))?;
    Ok(KubeCluster {
        client,
        server,
        context,
        namespace,
    })
}

/// Whether a kubeconfig or a pod's service account is there at all.
pub fn is_configured(kubeconfig: Option<&Path>) -> bool {
    matches!(read(kubeconfig), Ok(Some(_)) | Err(_)) || Config::incluster().is_ok()
}

/// The kubeconfig, and its name for messages.
fn read(kubeconfig: Option<&Path>) -> anyhow::Result<Option<(Kubeconfig, String)>> {
    if let Some(path) = kubeconfig {
        let name = path.display().to_string();
        let file =
            Kubeconfig::read_from(path).map_err(|error| anyhow!("kubeconfig {name}: {}", chain(&error)))?;
        return Ok(Some((file, name)));
    }
    if let Some(named) = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty()) {
        let name = format!("$KUBECONFIG ({})", named.to_string_lossy());
        let file = Kubeconfig::from_env().map_err(|error| anyhow!("{name}: {}", chain(&error)))?;
        // Every file of the list may be missing, as for kubectl.
        return Ok(file.map(|file| (file, name)));
    }
    let Some(path) = std::env::home_dir().map(|home: PathBuf| home.join(".kube/config")) else {
        return Ok(None);
    };
    if !path.exists() {
        return Ok(None);
    }
    read(Some(&path))
}

async fn from_file(file: Kubeconfig, path: &str, context: Option<&str>) -> anyhow::Result<(Config, String)> {
    let names: Vec<&str> = file
        .contexts
        .iter()
        .map(|context| context.name.as_str())
        .collect();
    let wanted = context.or(file.current_context.as_deref()).unwrap_or_default();
    if wanted.is_empty() {
        bail!(
            "kubeconfig {path} has no current context; name one with --context: {}",
            names.join(", ")
        );
    }
    if !names.contains(&wanted) {
        bail!(
            "kubeconfig {path} has no context {wanted:?}; it has: {}",
            names.join(", ")
        );
    }
    let wanted = wanted.to_owned();
    let options = KubeConfigOptions {
        context: Some(wanted.clone()),
        ..KubeConfigOptions::default()
    };
    let config = Config::from_custom_kubeconfig(file, &options)
        .await
        .map_err(|error| anyhow!("kubeconfig {path}, context {wanted}: {}", chain(&error)))?;
    Ok((config, wanted))
}

fn in_pod(context: Option<&str>) -> anyhow::Result<Config> {
    if let Some(context) = context {
        bail!("--context {context} was given, but there is no kubeconfig; name one with --kubeconfig");
    }
    Config::incluster().map_err(|_| {
        anyhow!(
            "no Kubernetes is known: neither --kubeconfig nor $KUBECONFIG nor ~/.kube/config names one, and this is no \
             pod; name a kubeconfig with --kubeconfig FILE"
        )
    })
}

/// The error of a call, as a person needs it. `doing` says what was tried, with the object: `reading Secret a/b`.
pub fn explain(error: &Error, doing: &str) -> anyhow::Error {
    let Error::Api(status) = error else {
        return anyhow!(
            "{doing}: Kubernetes does not answer: {}; see whether the address in the kubeconfig is right and the API \
             server runs",
            chain(error)
        );
    };
    let message = status.message.trim();
    match status.code {
        401 => anyhow!("{doing}: Kubernetes does not accept the credentials of this kubeconfig: {message}"),
        403 => anyhow!(
            "{doing}: not allowed: {message}; use an account that may, or have the right given to this one"
        ),
        404 => anyhow!("{doing}: not there: {message}"),
        409 => anyhow!("{doing}: conflict: {message}"),
        429 => anyhow!("{doing}: the API server is busy: {message}; try again in a moment"),
        code if code >= 500 => anyhow!(
            "{doing}: the API server failed with {code}: {message}; if that names a value, correct it, else try again"
        ),
        _ => anyhow!("{doing}: refused: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
        clusters: [{name: one, cluster: {server: 'https://127.0.0.1:6443', insecure-skip-tls-verify: true}}]\n\
        users: [{name: me, user: {token: t}}]\n\
        contexts: [{name: a, context: {cluster: one, user: me, namespace: shop}}, {name: b, context: {cluster: two, user: me}}]\n";

    async fn open(text: &str, context: Option<&str>) -> Result<(Config, String), String> {
        let file = Kubeconfig::from_yaml(text).unwrap();
        from_file(file, "f", context)
            .await
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn contexts() {
        let (config, context) = open(FILE, None).await.unwrap();
        assert_eq!(
            (context.as_str(), config.default_namespace.as_str()),
            ("a", "shop")
        );
        let error = open(FILE, Some("c")).await.unwrap_err();
        assert!(
            error.contains("no context \"c\"") && error.contains("a, b"),
            "{error}"
        );
        let error = open(FILE, Some("b")).await.unwrap_err();
        assert!(error.contains("context b") && error.contains("two"), "{error}");
        let error = open(&FILE.replace("current-context: a", ""), None)
            .await
            .unwrap_err();
        assert!(error.contains("--context"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_file_is_named() {
        let error = connect(Some(Path::new("/no/such/file")), None)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("/no/such/file"), "{error}");
    }

    #[test]
    fn errors_say_what_to_do() {
        for (code, expect) in [
            (401, "credentials"),
            (403, "use an account that may"),
            (404, "not there"),
            (503, "try again"),
        ] {
            let status =
                serde_json::json!({"status": "Failure", "code": code, "message": "because", "reason": ""});
            let error = Error::Api(Box::new(serde_json::from_value(status).unwrap()));
            let text = explain(&error, "reading Secret a/b").to_string();
            assert!(
                text.starts_with("reading Secret a/b: ") && text.contains(expect),
                "{text}"
            );
        }
    }
}
