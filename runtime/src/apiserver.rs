//! The Kubernetes API server as the daemons see it: how a client is made, and what an error of it means to the person
//! who must repair it. From: a kubeconfig file, or the pod's service account. Nothing here retries: callers know best.

use std::{error::Error as StdError, path::Path, time::Duration};

use kube::{
    Client, Config, Error,
    config::{KubeConfigOptions, Kubeconfig},
    runtime::watcher,
};

/// How long a connection to the API server may take.
const CONNECT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
#[error("no client of the Kubernetes API: {0}")]
pub struct ClientError(String);

/// A client by this kubeconfig file; without one by `KUBECONFIG`, `~/.kube/config` or the pod's service account, the
/// first of them that is there. No call is made yet.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let wrong = |error: &dyn StdError| ClientError(format!("{}: {}", path.display(), chain(error)));
            let file = Kubeconfig::read_from(path).map_err(|error| wrong(&error))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(|error| wrong(&error))?
        }
        None => Config::infer().await.map_err(|error| {
            ClientError(format!(
                "neither a kubeconfig nor a pod's service account was found: {}",
                chain(&error)
            ))
        })?,
    };
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config).map_err(|error| ClientError(chain(&error)))
}

/// The status code of an answer; none when there was no answer.
pub fn code(error: &Error) -> Option<u16> {
    match error {
        Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// Somebody else was faster: the object exists already, or has changed since it was read.
pub fn is_conflict(error: &Error) -> bool {
    code(error) == Some(409)
}

pub fn is_not_found(error: &Error) -> bool {
    code(error) == Some(404)
}

/// What happened and what to do. `doing` says what was tried, with the object: `reading Secret istio-system/cacerts`.
pub fn explain(error: &Error, doing: &str) -> String {
    let Error::Api(status) = error else {
        return format!(
            "{doing}: the API server cannot be reached: {}; tried again by itself",
            chain(error)
        );
    };
    let message = status.message.trim();
    match status.code {
        401 => format!("{doing}: the API server does not accept this process' credentials: {message}"),
        403 => {
            format!("{doing}: the right is missing: {message}; grant it in the role of this service account")
        }
        404 => format!("{doing}: not there: {message}"),
        429 => format!("{doing}: the API server is busy: {message}; tried again by itself"),
        code if code >= 500 => {
            format!("{doing}: the API server failed with {code}: {message}; tried again by itself")
        }
        code => format!("{doing}: the API server refused with {code}: {message}"),
    }
}

/// The same for a watch. None: nothing is wrong, the API server has only forgotten the version that the watch was at
/// (410 Gone), and everything is listed anew.
pub fn explain_watch(error: &watcher::Error, doing: &str) -> Option<String> {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => (code(error) != Some(410)).then(|| explain(error, doing)),
        watcher::Error::WatchError(status) if status.code == 410 => None,
        watcher::Error::WatchError(status) => Some(explain(&Error::Api(status.clone()), doing)),
        other => Some(format!("{doing}: {}", chain(other))),
    }
}

/// An error with the reasons below it, each said once.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16, message: &str) -> Error {
        let status = serde_json::json!({"status": "Failure", "code": code, "message": message, "reason": ""});
        Error::Api(Box::new(serde_json::from_value(status).unwrap()))
    }

    #[test]
    fn errors_say_what_to_do() {
        for (code, expect) in [
            (401, "does not accept this process' credentials"),
            (403, "grant it in the role"),
            (404, "not there"),
            (422, "refused with 422"),
            (429, "busy"),
            (500, "failed with 500"),
        ] {
            let text = explain(&answer(code, "because"), "reading Secret a/b");
            assert!(text.contains(expect) && text.contains("because"), "{text}");
            assert!(text.starts_with("reading Secret a/b: "), "{text}");
        }
        assert!(is_conflict(&answer(409, "")) && is_not_found(&answer(404, "")));
        let away = Error::Service(std::io::Error::other("connection refused").into());
        let text = explain(&away, "reading x");
        assert!(
            text.contains("cannot be reached") && text.contains("connection refused"),
            "{text}"
        );
        assert_eq!(code(&away), None);
    }

    #[test]
    fn a_watch_that_begins_anew_is_no_trouble() {
        let status = |code| match answer(code, "because") {
            Error::Api(status) => watcher::Error::WatchError(status),
            other => panic!("{other}"),
        };
        assert_eq!(explain_watch(&status(410), "watching"), None);
        assert!(
            explain_watch(&status(403), "watching")
                .unwrap()
                .contains("right is missing")
        );
        let away = Error::Service(std::io::Error::other("refused").into());
        let text = explain_watch(&watcher::Error::WatchFailed(away), "watching Secrets").unwrap();
        assert!(text.contains("cannot be reached"), "{text}");
    }

    #[tokio::test]
    async fn a_wrong_kubeconfig_is_named() {
        let error = client(Some(Path::new("/no/such/kubeconfig")))
            .await
            .err()
            .unwrap();
        assert!(error.to_string().contains("/no/such/kubeconfig"), "{error}");
    }
}
