//! Structured logs on standard error: text for people, JSON for machines. The level is a set of `tracing` filter
//! directives (`info,mesh_citadel=debug`) and can be changed while the process runs, by the admin page `/logging`.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    Json,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.to_ascii_lowercase().as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(Error::Format(text.to_owned())),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("log format {0:?} is neither text nor json")]
    Format(String),
    #[error(
        "log level {directives:?}: {reason}; expected directives such as \"info\" or \"info,mesh_proxy=debug\""
    )]
    Level { directives: String, reason: String },
    #[error("logs of this process are already set up")]
    AlreadySet,
    #[error("the log level can no longer be changed: {0}")]
    Gone(String),
}

/// Changes the level of a running process.
#[derive(Clone)]
pub struct LogHandle(Arc<Inner>);

struct Inner {
    component: &'static str,
    filter: reload::Handle<EnvFilter, Registry>,
    current: Mutex<String>,
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHandle")
            .field("component", &self.0.component)
            .field("current", &self.current())
            .finish()
    }
}

/// Sets up the logs of this process, once.
pub fn init(component: &'static str, level: &str, format: Format) -> Result<LogHandle, Error> {
    let (filter, handle) = reload::Layer::new(parse(level)?);
    let lines = match format {
        Format::Text => tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .boxed(),
        Format::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(std::io::stderr)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|_| Error::AlreadySet)?;
    tracing::info!(component, version = crate::build::VERSION, "starting");
    Ok(LogHandle(Arc::new(Inner {
        component,
        filter: handle,
        current: Mutex::new(level.to_owned()),
    })))
}

/// Checks directives without using them.
pub fn check(directives: &str) -> Result<(), Error> {
    parse(directives).map(drop)
}

fn parse(directives: &str) -> Result<EnvFilter, Error> {
    // "warning" and "critical" are Envoy's words.
    let directives_ours = match directives.trim().to_ascii_lowercase().as_str() {
        "warning" => "warn".to_owned(),
        "critical" => "error".to_owned(),
        _ => directives.trim().to_owned(),
    };
    // A word alone would be taken for the name of a module, all of whose lines are wanted.
    let words = ["off", "error", "warn", "info", "debug", "trace"];
    let alone = directives_ours.split(',').map(str::trim).find(|directive| {
        !directive.contains(['=', ':', '[']) && !words.contains(&directive.to_ascii_lowercase().as_str())
    });
    if let Some(word) = alone {
        return Err(Error::Level {
            directives: directives.to_owned(),
            reason: format!(
                "{word:?} is no level; levels are {}, and MODULE=LEVEL",
                words.join(", ")
            ),
        });
    }
    // Whoever calls the API server says what went wrong, once and with its reasons; its client would say it each time.
    let quiet = format!("kube_client=off,kube_runtime=off,{directives_ours}");
    EnvFilter::try_new(quiet).map_err(|error| Error::Level {
        directives: directives.to_owned(),
        reason: error.to_string(),
    })
}

impl LogHandle {
    /// Replaces the level of the whole process. Wrong directives change nothing.
    pub fn set(&self, directives: &str) -> Result<(), Error> {
        let filter = parse(directives)?;
        self.0
            .filter
            .reload(filter)
            .map_err(|error| Error::Gone(error.to_string()))?;
        let mut current = self.0.current.lock().unwrap_or_else(PoisonError::into_inner);
        directives.clone_into(&mut current);
        Ok(())
    }

    pub fn current(&self) -> String {
        self.0
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn component(&self) -> &'static str {
        self.0.component
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        for good in ["info", "warning", "critical", "info,mesh_proxy=debug", "off"] {
            assert!(check(good).is_ok(), "{good}");
        }
        let error = check("nonsense").unwrap_err().to_string();
        assert!(error.contains("\"nonsense\" is no level"), "{error}");
        let error = check("mesh=loud").unwrap_err().to_string();
        assert!(
            error.contains("mesh=loud") && error.contains("expected"),
            "{error}"
        );
    }

    #[test]
    fn changes_while_running() {
        let handle = init("test", "warn", Format::Text).unwrap();
        assert!(matches!(
            init("test", "warn", Format::Text),
            Err(Error::AlreadySet)
        ));
        handle.set("warn,mesh_runtime::log=debug").unwrap();
        assert!(handle.set("a=b=c").is_err());
        assert_eq!(handle.current(), "warn,mesh_runtime::log=debug");
        assert!(tracing::enabled!(tracing::Level::DEBUG));
    }
}
