//! Secrets of one namespace, by name. A Secret is created by whoever is first; everybody else takes what is there.
//! Rights: `get, list, watch` on the Secrets that are read, `create` and `update` on the one that is written.

use std::{collections::BTreeMap, time::Duration};

use futures::Stream;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client, Error,
    api::{ObjectMeta, PostParams},
    runtime::{WatchStreamExt, watcher, watcher::watch_object},
};
use mesh_runtime::apiserver;

use super::StoreError;
use crate::rotate::Entries;

/// How long one call may take.
const CALL: Duration = Duration::from_secs(10);
/// The type of the Secret with the root, as Istio has it.
const TYPE: &str = "istio.io/ca-root";

/// A Secret as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub entries: Entries,
    /// The rest of it. Its version goes along with a replacement, so that of two writers one is refused.
    object: Secret,
}

#[derive(Clone)]
pub struct Secrets {
    api: Api<Secret>,
    namespace: String,
}

fn found(mut object: Secret) -> Found {
    let data = object.data.take().unwrap_or_default();
    Found {
        entries: data.into_iter().map(|(name, bytes)| (name, bytes.0)).collect(),
        object,
    }
}

fn data(entries: &Entries) -> BTreeMap<String, ByteString> {
    entries
        .iter()
        .map(|(name, bytes)| (name.clone(), ByteString(bytes.clone())))
        .collect()
}

impl Secrets {
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
        }
    }

    /// How to call a Secret in messages.
    pub fn place(&self, name: &str) -> String {
        format!("Secret {}/{name}", self.namespace)
    }

    fn wrong(&self, name: &str, doing: &str, error: &Error) -> StoreError {
        let place = self.place(name);
        StoreError {
            reason: apiserver::explain(error, doing),
            place,
        }
    }

    async fn within<T>(
        &self,
        name: &str,
        doing: &str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(CALL, call).await {
            Ok(result) => result.map_err(|error| self.wrong(name, doing, &error)),
            Err(_) => Err(StoreError {
                place: self.place(name),
                reason: format!("{doing}: the API server did not answer within {CALL:?}"),
            }),
        }
    }

    pub async fn read(&self, name: &str) -> Result<Option<Found>, StoreError> {
        let secret = self.within(name, "reading it", self.api.get_opt(name)).await?;
        Ok(secret.map(found))
    }

    /// Makes the Secret; if somebody was faster, theirs is what is returned.
    pub async fn create(&self, name: &str, entries: &Entries) -> Result<Found, StoreError> {
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            data: Some(data(entries)),
            type_: Some(TYPE.to_owned()),
            ..Secret::default()
        };
        let create = async {
            match self.api.create(&PostParams::default(), &secret).await {
                Err(error) if apiserver::is_conflict(&error) => self.api.get(name).await,
                result => result,
            }
        };
        self.within(name, "creating it", create).await.map(found)
    }

    /// Replaces what was read. None: somebody has changed it meanwhile, nothing was written.
    pub async fn replace(
        &self,
        name: &str,
        before: &Found,
        entries: &Entries,
    ) -> Result<Option<Found>, StoreError> {
        let secret = Secret {
            data: Some(data(entries)),
            ..before.object.clone()
        };
        let replace = async {
            match self.api.replace(name, &PostParams::default(), &secret).await {
                Err(error) if apiserver::is_conflict(&error) => Ok(None),
                result => result.map(Some),
            }
        };
        Ok(self.within(name, "replacing it", replace).await?.map(found))
    }

    /// The Secret now and after each change; none while it does not exist. Errors are retried by the stream itself,
    /// with growing pauses.
    pub fn watch(
        &self,
        name: &'static str,
    ) -> impl Stream<Item = Result<Option<Found>, watcher::Error>> + Send + use<> {
        use futures::StreamExt;
        watch_object(self.api.clone(), name)
            .default_backoff()
            .map(|result| result.map(|secret| secret.map(found)))
    }
}
