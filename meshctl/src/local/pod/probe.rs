//! Probes. The counting is pure ([`Counter`]); the asking happens from inside the pod's network namespace, to 127.0.0.1
//! first and then to the pod's address, so that redirection and mutual TLS do not stand between the question and the
//! application.
//!
//! Until its first success a probe asks a few times within each period, so that a start is seen when it happens; only one
//! failure per period counts.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::local::netns;

/// How often an unanswered probe asks within its period.
const EAGER: Duration = Duration::from_millis(50);

/// Kubernetes' defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub successes: u32,
    pub failures: u32,
}

impl Timing {
    pub fn of(probe: &Probe) -> Self {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(
                value
                    .and_then(|value| u64::try_from(value).ok())
                    .unwrap_or(default),
            )
        };
        let count = |value: Option<i32>, default: u32| {
            value
                .and_then(|value| u32::try_from(value).ok())
                .filter(|value| *value > 0)
                .unwrap_or(default)
        };
        let at_least_one = |duration: Duration| duration.max(Duration::from_secs(1));
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: at_least_one(seconds(probe.period_seconds, 10)),
            timeout: at_least_one(seconds(probe.timeout_seconds, 1)),
            successes: count(probe.success_threshold, 1),
            failures: count(probe.failure_threshold, 3),
        }
    }
}

/// What the results so far mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    Passed,
    Failed,
    /// Not enough results in a row yet: what was true stays true.
    Unchanged,
}

/// Counts results in a row.
#[derive(Clone, Debug, Default)]
pub struct Counter {
    successes: u32,
    failures: u32,
}

impl Counter {
    pub fn record(&mut self, success: bool, timing: &Timing) -> Meaning {
        if success {
            self.successes = self.successes.saturating_add(1);
            self.failures = 0;
            if self.successes >= timing.successes {
                Meaning::Passed
            } else {
                Meaning::Unchanged
            }
        } else {
            self.failures = self.failures.saturating_add(1);
            self.successes = 0;
            if self.failures >= timing.failures {
                Meaning::Failed
            } else {
                Meaning::Unchanged
            }
        }
    }
}

/// Asks once; the error says what the answer was.
pub trait Ask {
    fn ask(&self) -> impl Future<Output = Result<(), String>> + Send;
}

/// Asks for ever, reporting every change of meaning; ends when `report` says so.
pub async fn watch(
    timing: Timing,
    asker: &impl Ask,
    mut report: impl FnMut(Meaning, Option<String>) -> bool,
) {
    tokio::time::sleep(timing.initial_delay).await;
    let mut counter = Counter::default();
    let mut answered = false;
    loop {
        let period = tokio::time::Instant::now() + timing.period;
        let mut result = once(timing, asker).await;
        while result.is_err() && !answered && tokio::time::Instant::now() + EAGER < period {
            tokio::time::sleep(EAGER).await;
            result = once(timing, asker).await;
        }
        answered |= result.is_ok();
        let meaning = counter.record(result.is_ok(), &timing);
        if report(meaning, result.err()) {
            return;
        }
        // Several successes in a row are wanted before the first: ask on without waiting a whole period for each.
        if meaning == Meaning::Unchanged && counter.failures == 0 {
            tokio::time::sleep(EAGER).await;
        } else {
            tokio::time::sleep_until(period).await;
        }
    }
}

async fn once(timing: Timing, asker: &impl Ask) -> Result<(), String> {
    match tokio::time::timeout(timing.timeout, asker.ask()).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} s", timing.timeout.as_secs())),
    }
}

/// A number, or the name of one of the container's ports.
pub fn port(written: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match written {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_deref() == Some(name));
            named
                .map(|port| port.container_port)
                .or_else(|| name.parse().ok())
        }
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .ok_or_else(|| format!("port {written:?} is not one of the container's"))
}

/// Can a connection be made?
pub async fn tcp(namespace: &str, addresses: &[SocketAddr]) -> Result<(), String> {
    open(namespace, addresses).await.map(drop)
}

async fn open(namespace: &str, addresses: &[SocketAddr]) -> Result<tokio::net::TcpStream, String> {
    let mut last = String::from("no address");
    for address in addresses {
        match netns::connect(namespace, *address).await {
            Ok(stream) => return Ok(stream),
            Err(netns::NetnsError::Enter { source, .. }) => last = format!("{address}: {source}"),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

/// Does a GET answer with 2xx or 3xx?
pub async fn http(namespace: &str, addresses: &[SocketAddr], action: &HTTPGetAction) -> Result<(), String> {
    if action
        .scheme
        .as_deref()
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
    {
        return Err("httpGet.scheme HTTPS is not known on the local platform; use tcpSocket or exec".into());
    }
    let stream = open(namespace, addresses).await?;
    let path = action
        .path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or("/");
    let mut request = http::Request::get(path).header("user-agent", "kube-probe/gossamer");
    let mut host = addresses.first().map(ToString::to_string).unwrap_or_default();
    for header in action.http_headers.iter().flatten() {
        if header.name.eq_ignore_ascii_case("host") {
            host.clone_from(&header.value);
        } else {
            request = request.header(&header.name, &header.value);
        }
    }
    let request = request
        .header("host", host)
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
        .await
        .map_err(|e| e.to_string())?;
    let exchange = async {
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        let status = answer.status();
        // The end of the body is not waited for: the status is the answer.
        drop(answer.into_body().boxed());
        if status.is_success() || status.is_redirection() {
            Ok(())
        } else {
            Err(format!("GET {path}: {status}"))
        }
    };
    tokio::select! {
        result = exchange => result,
        ended = connection => Err(ended.err().map_or("the connection ended".into(), |error| error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    };

    use serde_json::json;

    use super::*;

    fn timing(probe: serde_json::Value) -> Timing {
        Timing::of(&serde_json::from_value(probe).unwrap())
    }

    #[test]
    fn defaults_are_those_of_kubernetes() {
        let timing = timing(json!({}));
        assert_eq!(
            (
                timing.period.as_secs(),
                timing.timeout.as_secs(),
                timing.successes,
                timing.failures
            ),
            (10, 1, 1, 3)
        );
    }

    #[test]
    fn thresholds_count_in_a_row() {
        let timing = timing(json!({"successThreshold": 2, "failureThreshold": 3}));
        let check = |results: &[bool], expect: Meaning| {
            let mut counter = Counter::default();
            let last = results
                .iter()
                .map(|result| counter.record(*result, &timing))
                .last()
                .unwrap();
            assert_eq!(last, expect, "{results:?}");
        };
        check(&[true], Meaning::Unchanged);
        check(&[true, true], Meaning::Passed);
        check(&[true, false, true], Meaning::Unchanged);
        check(&[false, false], Meaning::Unchanged);
        check(&[false, false, false], Meaning::Failed);
        check(&[false, false, true, false], Meaning::Unchanged);
    }

    #[test]
    fn ports_by_name() {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}))
                .unwrap();
        assert_eq!(port(&IntOrString::String("web".into()), &container), Ok(8080));
        assert_eq!(port(&IntOrString::String("81".into()), &container), Ok(81));
        assert_eq!(port(&IntOrString::Int(80), &container), Ok(80));
        assert!(port(&IntOrString::String("other".into()), &container).is_err());
    }

    struct After(AtomicU32);

    impl Ask for After {
        async fn ask(&self) -> Result<(), String> {
            let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some(left.saturating_sub(1))
            });
            if left == Ok(0) {
                Ok(())
            } else {
                Err("not yet".into())
            }
        }
    }

    #[tokio::test]
    async fn a_start_is_seen_before_the_period_is_over() {
        let begin = tokio::time::Instant::now();
        let seen = Mutex::new(Vec::new());
        watch(timing(json!({})), &After(AtomicU32::new(4)), |meaning, _| {
            seen.lock().unwrap().push(meaning);
            true
        })
        .await;
        assert_eq!(*seen.lock().unwrap(), [Meaning::Passed]);
        assert!(begin.elapsed() < Duration::from_secs(1));
    }
}
