//! Which program stands for an image. There are no containers here, so `image:` is a name that is looked up: first in the
//! user's table (`D/images.yaml`, and `--image NAME=PROGRAM [ARGS]`), then among our own parts, which lie beside
//! `meshctl`, and the few that everybody needs. An image that is in no table is an error with the way out in it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// A program of this machine, and the arguments that come before the container's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    pub program: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
}

/// Image name → program. Names may carry a tag; one without a tag stands for every tag.
pub type Table = BTreeMap<String, Program>;

/// Why an image has no program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    #[error(
        "no program is known for image {image:?}: add one to {table}, or run \
         `meshctl local apply --image '{name}=PROGRAM [ARGS]'`"
    )]
    Unknown {
        image: String,
        name: String,
        table: String,
    },
    #[error("image {image:?} stands for program {program:?}, which is not on this machine ({hint})")]
    NoProgram {
        image: String,
        program: String,
        hint: String,
    },
    #[error("{0:?} is not NAME=PROGRAM [ARGS]")]
    Argument(String),
    #[error("{path} cannot be used: {text}")]
    Table { path: String, text: String },
}

const HEADER: &str = "\
# Which program of this machine runs for an image (there are no containers here):
#   NAME: {program: PROGRAM, args: [ARGUMENT, ...]}
# A name without a tag stands for every tag. Changes count from the next start of a container.
";

/// The user's table; empty when the file is not there.
pub fn load(path: &Path) -> Result<Table, ImageError> {
    let error = |text: String| ImageError::Table {
        path: path.display().to_string(),
        text,
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(io) if io.kind() == std::io::ErrorKind::NotFound => return Ok(Table::new()),
        Err(io) => return Err(error(io.to_string())),
    };
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(Table::new());
    }
    serde_saphyr::from_str(&text).map_err(|yaml| error(yaml.to_string()))
}

/// Adds rows to the user's table, keeping the others.
pub fn add(path: &Path, rows: &Table) -> Result<(), ImageError> {
    let mut table = load(path)?;
    table.extend(rows.clone());
    let error = |text: String| ImageError::Table {
        path: path.display().to_string(),
        text,
    };
    let rows = if table.is_empty() {
        String::new()
    } else {
        serde_saphyr::to_string(&table).map_err(|yaml| error(yaml.to_string()))?
    };
    super::store::write_atomically(path, format!("{HEADER}{rows}").as_bytes(), 0o644)
        .map_err(|io| error(io.to_string()))
}

/// `--image NAME=PROGRAM [ARGS]`, one argument; words in single or double quotes stay together.
pub fn parse_argument(argument: &str) -> Result<(String, Program), ImageError> {
    let bad = || ImageError::Argument(argument.to_owned());
    let (name, command) = argument.split_once('=').ok_or_else(bad)?;
    let mut words = split_words(command).ok_or_else(bad)?.into_iter();
    let program = words.next().ok_or_else(bad)?;
    if name.is_empty() {
        return Err(bad());
    }
    Ok((
        name.to_owned(),
        Program {
            program,
            args: words.collect(),
        },
    ))
}

/// Words as a shell would see them, without expansions. None when a quote is left open.
fn split_words(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut inside) = (Vec::new(), String::new(), false);
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.push(c),
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                inside = true;
            }
            None if c.is_whitespace() => {
                if inside {
                    words.push(std::mem::take(&mut word));
                    inside = false;
                }
            }
            None => {
                word.push(c);
                inside = true;
            }
        }
    }
    if inside {
        words.push(word);
    }
    quote.is_none().then_some(words)
}

/// The program of an image: the user's table, then ours. `siblings` is the folder of our own programs.
pub fn lookup(image: &str, table: &Table, siblings: &Path) -> Option<Program> {
    let names = [image, without_tag(image), short_name(image)];
    for name in names {
        // The table may name the image in any of its forms.
        let row = table
            .iter()
            .find(|(row, _)| *row == name || (short_name(row) == name && !has_tag(row)));
        if let Some((_, program)) = row {
            return Some(program.clone());
        }
    }
    builtin(short_name(image), siblings)
}

/// Our own parts, the Bookinfo sample under our name and Istio's, and redis.
fn builtin(name: &str, siblings: &Path) -> Option<Program> {
    let sibling = |file: &str, args: &[&str]| {
        let program = siblings.join(file).display().to_string();
        Some(Program {
            program,
            args: args.iter().map(ToString::to_string).collect(),
        })
    };
    if let Some(part) = name
        .strip_prefix("gossamer/bookinfo-")
        .or(name.strip_prefix("istio/examples-bookinfo-"))
    {
        let (service, version) = part
            .rsplit_once("-v")
            .map_or((part, "1"), |(service, version)| (service, version));
        let known = ["productpage", "details", "reviews", "ratings"];
        let digits = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
        if !known.contains(&service) || !digits {
            return None;
        }
        return match service {
            "reviews" | "ratings" => sibling("bookinfo", &[service, "--version", &format!("v{version}")]),
            _ => sibling("bookinfo", &[service]),
        };
    }
    match name {
        mesh_proto::names::image::PROXY => sibling("mesh-proxy", &[]),
        // Envoy itself is looked for by the agent; see `resolve`.
        mesh_proto::names::image::PROXY_ENVOY => sibling("mesh-proxy", &[]),
        mesh_proto::names::image::PILOT => sibling("mesh-pilot", &[]),
        mesh_proto::names::image::CITADEL => sibling("mesh-citadel", &[]),
        mesh_proto::names::image::TELEMETRY => sibling("mesh-telemetry", &[]),
        "redis" => Some(Program {
            program: "redis-server".into(),
            args: Vec::new(),
        }),
        _ => None,
    }
}

/// The program of an image, and that it is there.
pub fn resolve(image: &str, table_path: &Path, siblings: &Path) -> Result<Program, ImageError> {
    let table = load(table_path)?;
    let Some(program) = lookup(image, &table, siblings) else {
        return Err(ImageError::Unknown {
            image: image.into(),
            name: without_tag(image).into(),
            table: table_path.display().to_string(),
        });
    };
    let ours = builtin(short_name(image), siblings).as_ref() == Some(&program);
    if ours && short_name(image) == mesh_proto::names::image::PROXY_ENVOY && !has_envoy() {
        return Err(ImageError::NoProgram {
            image: image.into(),
            program: "envoy".into(),
            hint: "put Envoy's program into a folder of PATH, then `meshctl local down` and `up`".into(),
        });
    }
    if find_program(&program.program, &search_path()).is_none() {
        let hint = if program.program == "redis-server" {
            "Debian package redis-server".to_owned()
        } else if Path::new(&program.program).parent() == Some(siblings) {
            "build it: it should lie beside meshctl".to_owned()
        } else {
            format!("correct the row in {}", table_path.display())
        };
        return Err(ImageError::NoProgram {
            image: image.into(),
            program: program.program,
            hint,
        });
    }
    Ok(program)
}

/// Our agent starts Envoy by its name.
fn has_envoy() -> bool {
    find_program("envoy", &search_path()).is_some()
}

/// Where our own programs lie: beside this one.
pub fn siblings() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let folder = program.parent().unwrap_or(Path::new("/")).to_owned();
    // A test's own binary lies one folder deeper than the programs.
    if folder.ends_with("deps") {
        folder.parent().unwrap_or(&folder).to_owned()
    } else {
        folder
    }
}

/// Where programs without a folder in their name are looked for, on the host and in pods.
pub fn search_path() -> String {
    let usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    std::env::var("PATH")
        .ok()
        .filter(|path| !path.is_empty())
        .unwrap_or_else(|| usual.into())
}

pub fn find_program(program: &str, search_path: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let runs = |path: &Path| {
        path.metadata()
            .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| runs(path));
    }
    search_path
        .split(':')
        .map(|folder| Path::new(folder).join(program))
        .find(|path| runs(path))
}

fn has_tag(image: &str) -> bool {
    without_tag(image) != image
}

/// `docker.io/library/redis:7@sha256:…` → `docker.io/library/redis`. A colon before a slash is a port, not a tag.
fn without_tag(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

/// Without tag, and without what every engine fills in: `docker.io/` and `library/`.
fn short_name(image: &str) -> &str {
    let name = without_tag(image);
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(program: &str, args: &[&str]) -> Program {
        Program {
            program: program.into(),
            args: args.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn lookups() {
        let table: Table = [
            ("curl".to_owned(), program("sleep", &["infinity"])),
            ("docker.io/some/app".to_owned(), program("app", &[])),
            ("tagged:1".to_owned(), program("one", &[])),
            ("redis:5".to_owned(), program("old-redis", &[])),
        ]
        .into();
        let siblings = Path::new("/opt/bin");
        let check = |image: &str, expect: Option<Program>| {
            assert_eq!(lookup(image, &table, siblings), expect, "{image}")
        };
        check("curl", Some(program("sleep", &["infinity"])));
        check(
            "docker.io/library/curl:8@sha256:00",
            Some(program("sleep", &["infinity"])),
        );
        check("some/app:2", Some(program("app", &[])));
        check("tagged:1", Some(program("one", &[])));
        check("tagged:2", None);
        check("redis:5", Some(program("old-redis", &[])));
        check("redis:7-alpine", Some(program("redis-server", &[])));
        check("localhost:5000/redis", None);
        check("gossamer/proxy:0.1.0", Some(program("/opt/bin/mesh-proxy", &[])));
        check(
            "docker.io/istio/examples-bookinfo-reviews-v3:1.20.3",
            Some(program("/opt/bin/bookinfo", &["reviews", "--version", "v3"])),
        );
        check(
            "gossamer/bookinfo-productpage-v1",
            Some(program("/opt/bin/bookinfo", &["productpage"])),
        );
        check("gossamer/bookinfo-nonsense-v1", None);
        check(
            "gossamer/proxy-envoy:0.1.0",
            Some(program("/opt/bin/mesh-proxy", &[])),
        );
    }

    #[test]
    fn arguments() {
        assert_eq!(
            parse_argument("web=python3 -m http.server '80 80'").unwrap(),
            (
                "web".to_owned(),
                program("python3", &["-m", "http.server", "80 80"])
            )
        );
        for bad in ["web", "=x", "web=", "web='x"] {
            assert!(parse_argument(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_table_is_kept_in_a_file() {
        let path = std::env::temp_dir().join(format!("gossamer-images-{}.yaml", std::process::id()));
        let _ = std::fs::remove_file(&path);
        assert!(load(&path).unwrap().is_empty());
        add(&path, &Table::new()).unwrap();
        assert!(load(&path).unwrap().is_empty());
        add(&path, &[("a".to_owned(), program("b", &["c: d"]))].into()).unwrap();
        assert_eq!(load(&path).unwrap()["a"], program("b", &["c: d"]));
        let error = resolve("nothing:1", &path, Path::new("/opt/bin"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("nothing=PROGRAM") && error.contains("images-"),
            "{error}"
        );
        let error = resolve("gossamer/pilot", &path, Path::new("/opt/bin"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("beside meshctl"), "{error}");
        std::fs::remove_file(path).unwrap();
    }
}
