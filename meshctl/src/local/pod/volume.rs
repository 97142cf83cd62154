//! The volumes of a pod: what files they hold (decided here, pure but for the lookups), written under
//! `D/pods/<pod>/volumes/<volume>` and bound into the containers. The files follow their ConfigMaps and Secrets while the
//! pod runs, each replaced whole; tokens are renewed when a fifth of their life is left.
//!
//! Kinds: emptyDir, configMap, secret, projected (with serviceAccountToken), downwardAPI, hostPath. Another kind is an
//! error that names it.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, SecretProjection,
    Volume, VolumeProjection,
};

use super::environment::{self, Data, Facts, Sources};
use crate::local::{enter::Mount, store::write_atomically};

/// What lookups a volume needs beyond those of the environment.
pub trait Tokens {
    /// A token of the pod's account for the audience, good for so many seconds.
    fn token(&self, audience: &str, seconds: i64) -> Result<String, String>;
}

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub bytes: Vec<u8>,
    pub mode: u32,
}

pub type Files = BTreeMap<PathBuf, Wanted>;

/// A token that was issued, so that it is not issued again before its time.
#[derive(Clone, Debug)]
struct Issued {
    token: String,
    renew_at: i64,
}

/// The volumes of one pod, with what was written last.
#[derive(Debug, Default)]
pub struct Volumes {
    written: BTreeMap<String, Files>,
    tokens: BTreeMap<(String, String), Issued>,
}

/// Where a volume's content lies.
enum Place {
    /// Made of these files.
    Files(Files),
    /// A folder that the pod writes.
    Empty,
    /// Somewhere on the host.
    Host,
}

impl Volumes {
    /// Brings every volume up to date; an error names the volume and what it waits for.
    pub fn refresh(
        &mut self,
        folder: &Path,
        volumes: &[Volume],
        facts: &Facts,
        lookups: &(impl Sources + Tokens),
        now: i64,
    ) -> Result<(), String> {
        for volume in volumes {
            let at = |text: String| format!("volume {:?}: {text}", volume.name);
            let io = |error: std::io::Error| at(error.to_string());
            let root = folder.join(&volume.name);
            match self.place(volume, facts, lookups, now).map_err(at)? {
                Place::Host => {}
                Place::Empty => {
                    if !root.exists() {
                        std::fs::create_dir_all(&root).map_err(io)?;
                        std::fs::set_permissions(&root, PermissionsExt::from_mode(0o777)).map_err(io)?;
                    }
                }
                Place::Files(files) => {
                    let before = self.written.remove(&volume.name).unwrap_or_default();
                    write(&root, &before, &files).map_err(io)?;
                    self.written.insert(volume.name.clone(), files);
                }
            }
        }
        Ok(())
    }

    fn place(
        &mut self,
        volume: &Volume,
        facts: &Facts,
        lookups: &(impl Sources + Tokens),
        now: i64,
    ) -> Result<Place, String> {
        let mut files = Files::new();
        if volume.empty_dir.is_some() {
            return Ok(Place::Empty);
        }
        if let Some(source) = &volume.host_path {
            return host_path(source).map(|()| Place::Host);
        }
        if let Some(source) = &volume.config_map {
            let data = lookups.config_map(&source.name);
            let mode = mode(source.default_mode);
            add(
                &mut files,
                "ConfigMap",
                &source.name,
                source.optional,
                data,
                source.items.as_deref(),
                mode,
            )?;
        } else if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            let data = lookups.secret(name);
            let mode = mode(source.default_mode);
            add(
                &mut files,
                "Secret",
                name,
                source.optional,
                data,
                source.items.as_deref(),
                mode,
            )?;
        } else if let Some(source) = &volume.downward_api {
            downward(
                &mut files,
                source.items.as_deref().unwrap_or_default(),
                facts,
                mode(source.default_mode),
            )?;
        } else if let Some(source) = &volume.projected {
            for (index, part) in source.sources.iter().flatten().enumerate() {
                self.project(
                    &mut files,
                    &volume.name,
                    part,
                    mode(source.default_mode),
                    facts,
                    lookups,
                    now,
                )
                .map_err(|text| format!("projected.sources[{index}]: {text}"))?;
            }
        } else {
            return Err("its kind is not known on the local platform (known: emptyDir, configMap, secret, projected, \
                        downwardAPI, hostPath)"
                .into());
        }
        Ok(Place::Files(files))
    }

    #[allow(clippy::too_many_arguments)]
    fn project(
        &mut self,
        files: &mut Files,
        volume: &str,
        part: &VolumeProjection,
        mode: u32,
        facts: &Facts,
        lookups: &(impl Sources + Tokens),
        now: i64,
    ) -> Result<(), String> {
        if let Some(ConfigMapProjection {
            name,
            items,
            optional,
        }) = &part.config_map
        {
            add(
                files,
                "ConfigMap",
                name,
                *optional,
                lookups.config_map(name),
                items.as_deref(),
                mode,
            )?;
        }
        if let Some(SecretProjection {
            name,
            items,
            optional,
        }) = &part.secret
        {
            add(
                files,
                "Secret",
                name,
                *optional,
                lookups.secret(name),
                items.as_deref(),
                mode,
            )?;
        }
        if let Some(source) = &part.downward_api {
            downward(files, source.items.as_deref().unwrap_or_default(), facts, mode)?;
        }
        if let Some(source) = &part.service_account_token {
            let seconds = source.expiration_seconds.unwrap_or(3600).max(600);
            let key = (volume.to_owned(), source.path.clone());
            let issued = match self.tokens.get(&key) {
                Some(issued) if now < issued.renew_at => issued.clone(),
                _ => {
                    let audience = source.audience.as_deref().unwrap_or(crate::local::issuer::ISSUER);
                    let token = lookups.token(audience, seconds)?;
                    Issued {
                        token,
                        renew_at: now + seconds - seconds / 5,
                    }
                }
            };
            files.insert(
                inside(&source.path)?,
                Wanted {
                    bytes: issued.token.clone().into_bytes(),
                    mode,
                },
            );
            self.tokens.insert(key, issued);
        }
        Ok(())
    }
}

fn mode(written: Option<i32>) -> u32 {
    written.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644) & 0o777
}

/// The entries of a ConfigMap or Secret, all or the named ones.
fn add(
    files: &mut Files,
    kind: &str,
    name: &str,
    optional: Option<bool>,
    data: Option<Data>,
    items: Option<&[KeyToPath]>,
    mode: u32,
) -> Result<(), String> {
    let data = match data {
        Some(data) => data,
        None if optional == Some(true) => return Ok(()),
        None => return Err(format!("{kind} {name:?} is not there (yet)")),
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        for (key, bytes) in data {
            files.insert(inside(&key)?, Wanted { bytes, mode });
        }
        return Ok(());
    };
    for item in items {
        match data.get(&item.key) {
            Some(bytes) => {
                let mode = item
                    .mode
                    .and_then(|mode| u32::try_from(mode).ok())
                    .unwrap_or(mode);
                files.insert(
                    inside(&item.path)?,
                    Wanted {
                        bytes: bytes.clone(),
                        mode,
                    },
                );
            }
            None if optional == Some(true) => {}
            None => return Err(format!("{kind} {name:?} has no key {:?}", item.key)),
        }
    }
    Ok(())
}

fn downward(
    files: &mut Files,
    items: &[DownwardAPIVolumeFile],
    facts: &Facts,
    mode: u32,
) -> Result<(), String> {
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => environment::field(&field.field_path, facts)?,
            (None, Some(selector)) => {
                let named = selector.container_name.as_deref();
                let containers = facts
                    .pod
                    .spec
                    .as_ref()
                    .map(|spec| spec.containers.as_slice())
                    .unwrap_or_default();
                let container: &Container = containers
                    .iter()
                    .find(|container| Some(container.name.as_str()) == named)
                    .ok_or_else(|| format!("{}: resourceFieldRef.containerName is needed", item.path))?;
                environment::resource(selector, container, facts)?
            }
            (None, None) => return Err(format!("{}: needs fieldRef or resourceFieldRef", item.path)),
        };
        files.insert(
            inside(&item.path)?,
            Wanted {
                bytes: text.into_bytes(),
                mode,
            },
        );
    }
    Ok(())
}

fn host_path(source: &HostPathVolumeSource) -> Result<(), String> {
    let path = PathBuf::from(&source.path);
    let made = match source.type_.as_deref().unwrap_or_default() {
        "DirectoryOrCreate" => std::fs::create_dir_all(&path),
        "FileOrCreate" => std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map(drop),
        _ => path.metadata().map(drop),
    };
    made.map_err(|error| format!("hostPath {}: {error}", source.path))
}

/// A path that stays inside its volume.
fn inside(path: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(path);
    if path.as_os_str().is_empty() || !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(format!(
            "path {:?} leads out of the volume",
            path.display().to_string()
        ));
    }
    Ok(path)
}

/// Writes what changed and removes what is no longer wanted.
fn write(root: &Path, before: &Files, files: &Files) -> std::io::Result<()> {
    std::fs::create_dir_all(root)?;
    for (path, wanted) in files {
        if before.get(path) != Some(wanted) {
            write_atomically(&root.join(path), &wanted.bytes, wanted.mode)?;
            std::fs::set_permissions(root.join(path), PermissionsExt::from_mode(wanted.mode))?;
        }
    }
    for path in before.keys().filter(|path| !files.contains_key(*path)) {
        let _ = std::fs::remove_file(root.join(path));
    }
    Ok(())
}

/// Where a container sees the pod's volumes.
pub fn mounts(container: &Container, volumes: &[Volume], folder: &Path) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let at = format!("volumeMounts[{index}]");
        let volume = volumes
            .iter()
            .find(|volume| volume.name == mount.name)
            .ok_or_else(|| format!("{at}.name: the pod has no volume {:?}", mount.name))?;
        let mut source = match &volume.host_path {
            Some(host) => PathBuf::from(&host.path),
            None => folder.join(&volume.name),
        };
        let sub_path = mount
            .sub_path
            .as_deref()
            .or(mount.sub_path_expr.as_deref())
            .filter(|path| !path.is_empty());
        if let Some(sub_path) = sub_path {
            source.push(inside(sub_path).map_err(|text| format!("{at}.subPath: {text}"))?);
        }
        let target = PathBuf::from(&mount.mount_path);
        mounts.push(Mount {
            source,
            target,
            read_only: mount.read_only == Some(true),
        });
    }
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    struct Fixed(u32);

    impl Sources for Fixed {
        fn config_map(&self, name: &str) -> Option<Data> {
            let number = self.0.to_string().into_bytes();
            (name == "settings").then(|| [("a".to_owned(), number), ("b".to_owned(), b"2".to_vec())].into())
        }

        fn secret(&self, _: &str) -> Option<Data> {
            None
        }
    }

    impl Tokens for Fixed {
        fn token(&self, audience: &str, seconds: i64) -> Result<String, String> {
            Ok(format!("{audience} {seconds} {}", self.0))
        }
    }

    fn pod() -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "p", "labels": {"app": "a"}}, "spec": {"containers": []}}),
        )
        .unwrap()
    }

    fn refresh(
        volumes: &mut Volumes,
        folder: &Path,
        volume: serde_json::Value,
        round: u32,
        now: i64,
    ) -> Result<(), String> {
        let pod = pod();
        let facts = Facts {
            pod: &pod,
            pod_address: String::new(),
            pod_addresses: String::new(),
            host_address: String::new(),
            node: "",
            cpus: 1,
            memory: 1,
        };
        volumes.refresh(
            folder,
            &[serde_json::from_value(volume).unwrap()],
            &facts,
            &Fixed(round),
            now,
        )
    }

    #[test]
    fn files_follow_their_sources() {
        let folder = std::env::temp_dir().join(format!("gossamer-volume-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let mut volumes = Volumes::default();
        let read = |path: &str| std::fs::read_to_string(folder.join(path)).ok();
        let config = json!({"name": "v", "configMap": {"name": "settings"}});
        refresh(&mut volumes, &folder, config.clone(), 1, 0).unwrap();
        assert_eq!((read("v/a"), read("v/b")), (Some("1".into()), Some("2".into())));
        refresh(&mut volumes, &folder, config, 3, 0).unwrap();
        assert_eq!(read("v/a"), Some("3".into()));
        refresh(
            &mut volumes,
            &folder,
            json!({"name": "v", "configMap": {"name": "settings", "items": [{"key": "b", "path": "d/b"}]}}),
            3,
            0,
        )
        .unwrap();
        assert_eq!((read("v/a"), read("v/d/b")), (None, Some("2".into())));

        let token = json!({"name": "t", "projected": {"sources": [
            {"serviceAccountToken": {"audience": "istio-ca", "path": "istio-token", "expirationSeconds": 1000}},
            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}});
        refresh(&mut volumes, &folder, token.clone(), 1, 0).unwrap();
        assert_eq!(read("t/istio-token"), Some("istio-ca 1000 1".into()));
        assert_eq!(read("t/labels"), Some("app=\"a\"".into()));
        refresh(&mut volumes, &folder, token.clone(), 2, 799).unwrap();
        assert_eq!(read("t/istio-token"), Some("istio-ca 1000 1".into()));
        refresh(&mut volumes, &folder, token, 3, 800).unwrap();
        assert_eq!(read("t/istio-token"), Some("istio-ca 1000 3".into()));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn errors_name_the_volume() {
        let check = |volume: serde_json::Value, expect: &str| {
            let error = refresh(&mut Volumes::default(), Path::new("/nowhere"), volume, 1, 0).unwrap_err();
            assert!(error.contains(expect), "{error}");
        };
        check(
            json!({"name": "v", "secret": {"secretName": "s"}}),
            "volume \"v\": Secret \"s\" is not there",
        );
        check(
            json!({"name": "v", "nfs": {"server": "x", "path": "/"}}),
            "its kind is not known",
        );
        let escape =
            json!({"name": "v", "configMap": {"name": "settings", "items": [{"key": "b", "path": "../b"}]}});
        check(escape, "leads out of the volume");
    }
}
