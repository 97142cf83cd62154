//! Where the stars are: a map in this process, or one Redis hash per product (`ratings:0`). A fresh Redis has no stars; what
//! readers gave before is then written first, with `HSETNX`, so that a rating that is already there stays.

use super::{MAX_READERS, Stars};
use anyhow::{Context, bail};
use redis::{AsyncConnectionConfig, Client, aio::MultiplexedConnection};
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::Mutex;

/// A Redis that takes longer than this counts as away.
const PATIENCE: Duration = Duration::from_secs(2);
/// At most so many products are remembered.
const MAX_PRODUCTS: usize = 1000;

pub enum Store {
    Memory(Mutex<BTreeMap<u32, Stars>>),
    Redis {
        client: Client,
        connection: Mutex<Option<MultiplexedConnection>>,
    },
}

/// What the two readers gave when the shop opened.
fn first() -> Stars {
    Stars::from([("Reviewer1".to_owned(), 5), ("Reviewer2".to_owned(), 4)])
}

impl Store {
    pub fn memory() -> Self {
        Self::Memory(Mutex::new(BTreeMap::new()))
    }

    pub fn redis(url: &str) -> anyhow::Result<Self> {
        let client = Client::open(url).with_context(|| format!("{url} is no address of a Redis"))?;
        Ok(Self::Redis {
            client,
            connection: Mutex::new(None),
        })
    }

    pub async fn read(&self, id: u32) -> anyhow::Result<Stars> {
        match self {
            Self::Memory(map) => Ok(map.lock().await.get(&id).cloned().unwrap_or_else(first)),
            Self::Redis { client, connection } => {
                let mut commands = redis::pipe();
                for (reader, stars) in first() {
                    commands.hset_nx(key(id), reader, stars).ignore();
                }
                commands.hgetall(key(id));
                ask(client, connection, &commands).await
            }
        }
    }

    /// Adds `stars` to what is there and answers all.
    pub async fn write(&self, id: u32, stars: &Stars) -> anyhow::Result<Stars> {
        match self {
            Self::Memory(map) => {
                let mut map = map.lock().await;
                if map.len() >= MAX_PRODUCTS && !map.contains_key(&id) {
                    bail!("more than {MAX_PRODUCTS} products have ratings; version v2 keeps more");
                }
                let all = map.entry(id).or_insert_with(first);
                all.extend(stars.iter().map(|(reader, n)| (reader.clone(), *n)));
                if all.len() > MAX_READERS {
                    bail!("more than {MAX_READERS} readers rated product {id}");
                }
                Ok(all.clone())
            }
            Self::Redis { client, connection } => {
                let mut commands = redis::pipe();
                for (reader, n) in stars {
                    commands.hset(key(id), reader, n).ignore();
                }
                commands.hgetall(key(id));
                ask(client, connection, &commands).await
            }
        }
    }
}

fn key(id: u32) -> String {
    format!("ratings:{id}")
}

/// Runs `commands` on the one connection that all requests share; a connection that failed is left behind and the next
/// question opens a new one.
async fn ask(
    client: &Client,
    kept: &Mutex<Option<MultiplexedConnection>>,
    commands: &redis::Pipeline,
) -> anyhow::Result<Stars> {
    let mut kept_connection = kept.lock().await;
    let mut connection = match kept_connection.take() {
        Some(connection) => connection,
        None => {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(PATIENCE))
                .set_response_timeout(Some(PATIENCE));
            client
                .get_multiplexed_async_connection_with_config(&config)
                .await
                .with_context(|| {
                    format!(
                        "no connection to Redis at {}",
                        client.get_connection_info().addr()
                    )
                })?
        }
    };
    *kept_connection = Some(connection.clone());
    drop(kept_connection);
    let answer: Result<(Stars,), _> = commands.query_async(&mut connection).await;
    match answer {
        Ok((stars,)) => Ok(stars),
        Err(error) => {
            *kept.lock().await = None;
            Err(error).context("Redis did not answer")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_begins_with_the_first_stars_and_keeps_changes() {
        let store = Store::memory();
        assert_eq!(store.read(0).await.unwrap(), first());
        let stars = store
            .write(0, &Stars::from([("Reviewer2".to_owned(), 1)]))
            .await
            .unwrap();
        assert_eq!(stars["Reviewer1"], 5);
        assert_eq!(store.read(0).await.unwrap()["Reviewer2"], 1);
        assert_eq!(
            store.read(7).await.unwrap(),
            first(),
            "another product is untouched"
        );
    }

    #[tokio::test]
    async fn a_redis_that_is_not_there_is_named() {
        let store = Store::redis("redis://127.0.0.1:1/").unwrap();
        let error = format!("{:#}", store.read(0).await.unwrap_err());
        assert!(error.contains("127.0.0.1:1"), "{error}");
    }
}
