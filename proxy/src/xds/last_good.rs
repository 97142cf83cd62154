//! The last good configuration in a file, for a proxy that starts while pilot is away: it gets ready with what it, or the
//! workload's proxy before it, had acknowledged last, and says so in its log. As soon as pilot is back it tells pilot which
//! versions it has and gets what has changed since.
//!
//! Off unless a file is named. What is written: clusters, endpoints, listeners, routes and the name table, as they came.
//! Not written: secrets; a gateway whose listeners need one waits for pilot with these. The file belongs to one workload
//! (the node's `cluster`) and is left alone by others. It is written whole beside the old one and then renamed over it,
//! readable by its owner only, at most every [`PAUSE`], at most [`MOST`] bytes; what cannot be written costs nothing but
//! a warning.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_proto::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{DeltaDiscoveryResponse, Resource},
    },
    pb::google::protobuf::Any,
    xds::Type,
};
use mesh_runtime::drain::Drain;
use prost::Message;
use tokio::sync::Notify;

use crate::store::{Ledger, Row, Store};

/// How long pilot is waited for before the file is used.
pub const AWAY: Duration = Duration::from_secs(3);
/// The first change after a write waits this long for others.
pub const PAUSE: Duration = Duration::from_secs(2);
/// The largest file.
const MOST: usize = 64 << 20;
/// What is in it, in the order in which it is taken.
const TYPES: [Type; 5] = [
    Type::Cluster,
    Type::Endpoint,
    Type::Listener,
    Type::Route,
    Type::NameTable,
];
/// The first bytes of the file; the digit is the version of its form.
const MAGIC: &[u8] = b"gossamer last good 1\n";

/// Why there is nothing to use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}: {error}", .path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{} is larger than {MOST} bytes; delete it", .path.display())]
    TooLarge { path: PathBuf },
    #[error("{} is not a kept configuration, or a damaged one ({why}); delete it", .path.display())]
    Damaged { path: PathBuf, why: String },
    #[error("{} belongs to {owner}, not to {own}; name another file for this workload", .path.display())]
    Foreign {
        path: PathBuf,
        owner: String,
        own: String,
    },
}

/// What the file had.
#[derive(Debug)]
pub struct Kept {
    /// One response per type, as the server might have sent it.
    pub responses: Vec<DeltaDiscoveryResponse>,
    /// When it was written.
    pub written: Option<SystemTime>,
}

/// The file of one workload.
#[derive(Clone, Debug)]
pub struct LastGood {
    path: PathBuf,
    owner: String,
}

impl LastGood {
    pub fn new(path: &Path, node: &Node) -> Self {
        Self {
            path: path.to_owned(),
            owner: node.cluster.clone(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file; `None` if there is none.
    pub fn read(&self) -> Result<Option<Kept>, Error> {
        let path = || self.path.clone();
        let unreadable = |error| Error::Read { path: path(), error };
        let file = match fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let written = file.metadata().and_then(|about| about.modified()).ok();
        let mut bytes = Vec::new();
        file.take(MOST as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        if bytes.len() > MOST {
            return Err(Error::TooLarge { path: path() });
        }
        let damaged = |why: &dyn std::fmt::Display| Error::Damaged {
            path: path(),
            why: why.to_string(),
        };
        let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
            return Err(damaged(&"it begins differently"));
        };
        let owner = Node::decode_length_delimited(&mut rest).map_err(|error| damaged(&error))?;
        if owner.cluster != self.owner {
            return Err(Error::Foreign {
                path: path(),
                owner: owner.cluster,
                own: self.owner.clone(),
            });
        }
        let mut responses = Vec::new();
        while !rest.is_empty() {
            let response = DeltaDiscoveryResponse::decode_length_delimited(&mut rest);
            responses.push(response.map_err(|error| damaged(&error))?);
        }
        Ok(Some(Kept { responses, written }))
    }

    /// Writes the file anew.
    pub fn write(&self, responses: &[DeltaDiscoveryResponse]) -> io::Result<()> {
        let size: usize = responses.iter().map(|response| response.encoded_len() + 10).sum();
        if MAGIC.len() + size > MOST {
            let why = format!("the configuration is larger than {MOST} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        let mut bytes = Vec::with_capacity(size + 1024);
        bytes.extend_from_slice(MAGIC);
        let owner = Node {
            cluster: self.owner.clone(),
            ..Node::default()
        };
        // Writing to a vector does not fail for want of room.
        let _ = owner.encode_length_delimited(&mut bytes);
        for response in responses {
            let _ = response.encode_length_delimited(&mut bytes);
        }
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let beside = PathBuf::from(name);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)
    }
}

/// What the ledger says was taken, as responses: one for each of these types, even where there is nothing of it.
pub fn collect(ledger: &Ledger, types: &[Type]) -> Vec<DeltaDiscoveryResponse> {
    let row = |kind: Type, name: &str, row: &Row| Resource {
        name: name.to_owned(),
        version: row.version.clone(),
        resource: Some(Any {
            type_url: kind.url().to_owned(),
            value: row.body.to_vec(),
        }),
        ..Resource::default()
    };
    TYPES
        .iter()
        .filter(|kind| types.contains(kind))
        .map(|kind| DeltaDiscoveryResponse {
            type_url: kind.url().to_owned(),
            resources: ledger
                .of(*kind)
                .filter(|(_, row)| !row.version.is_empty())
                .map(|(name, found)| row(*kind, name, found))
                .collect(),
            ..DeltaDiscoveryResponse::default()
        })
        .collect()
}

/// Writes the file whenever `changed` says so, until the drain.
pub async fn keep(file: LastGood, types: Vec<Type>, store: Store, changed: Arc<Notify>, drain: Drain) {
    loop {
        tokio::select! {
            () = changed.notified() => tokio::time::sleep(PAUSE).await,
            () = drain.drained() => return,
        }
        let responses = store.ledger(|ledger| collect(ledger, &types));
        let writer = file.clone();
        let written = tokio::task::spawn_blocking(move || writer.write(&responses)).await;
        match written.map_err(io::Error::other).and_then(|result| result) {
            Ok(()) => tracing::debug!(path = %file.path.display(), "kept the configuration"),
            Err(error) => {
                tracing::warn!(path = %file.path.display(), %error, "cannot keep the configuration for a start without pilot");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::State;

    fn file(name: &str, owner: &str) -> LastGood {
        let path = std::env::temp_dir().join(format!("gossamer-last-good-{}-{name}", std::process::id()));
        let node = Node {
            cluster: owner.into(),
            ..Node::default()
        };
        LastGood::new(&path, &node)
    }

    #[test]
    fn what_is_written_is_read_by_its_owner_only() {
        let store = Store::new();
        let now = SystemTime::now();
        store.ledger(|ledger| {
            for (kind, name) in [(Type::Cluster, "a"), (Type::Listener, "l"), (Type::Secret, "s")] {
                ledger.taken(
                    kind,
                    name,
                    name.as_bytes().to_vec().into(),
                    "7",
                    now,
                    State::Active,
                );
            }
        });
        let types = [Type::Cluster, Type::Endpoint, Type::Listener, Type::Secret];
        let responses = store.ledger(|ledger| collect(ledger, &types));
        let good = file("owner", "reviews.default");
        assert!(good.read().unwrap().is_none());
        good.write(&responses).unwrap();
        let kept = good.read().unwrap().unwrap();
        assert_eq!(kept.responses, responses);
        let names: Vec<_> = kept
            .responses
            .iter()
            .map(|response| {
                (
                    Type::from_url(&response.type_url).unwrap(),
                    response.resources.len(),
                )
            })
            .collect();
        assert_eq!(
            names,
            [(Type::Cluster, 1), (Type::Endpoint, 0), (Type::Listener, 1)]
        );
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&good.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = file("owner", "ratings.default");
        assert!(matches!(other.read(), Err(Error::Foreign { .. })));
        // Any cut is noticed, none is taken for a configuration.
        let whole = fs::read(&good.path).unwrap();
        for length in 0..whole.len() {
            fs::write(&good.path, &whole[..length]).unwrap();
            if let Ok(Some(kept)) = good.read() {
                assert!(kept.responses.len() < 3, "{length} of {} bytes", whole.len());
            }
        }
        fs::remove_file(&good.path).unwrap();
    }

    #[test]
    fn what_is_too_large_is_not_written() {
        let good = file("large", "reviews.default");
        let response = DeltaDiscoveryResponse {
            nonce: "x".repeat(MOST),
            ..DeltaDiscoveryResponse::default()
        };
        assert_eq!(
            good.write(&[response]).unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
        assert!(good.read().unwrap().is_none());
    }
}
