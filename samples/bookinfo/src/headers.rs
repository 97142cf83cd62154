//! Which headers of a request travel on to the requests it causes. A proxy beside the application sees both, but cannot know
//! that one belongs to the other; only the application can say so, by copying these.

use http::{HeaderMap, HeaderName};

/// Trace context in the formats that meshes and tracers use, and the user of the request.
const TRAVELLING: [&str; 16] = [
    "x-request-id",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "b3",
    "traceparent",
    "tracestate",
    "x-ot-span-context",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "end-user",
    "user-agent",
    "cookie",
    "authorization",
];

/// The headers of `incoming` that must travel on, every value of each.
pub fn travelling(incoming: &HeaderMap) -> HeaderMap {
    let mut out = HeaderMap::new();
    for name in TRAVELLING {
        let name = HeaderName::from_static(name);
        for value in incoming.get_all(&name) {
            out.append(name.clone(), value.clone());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn trace_and_user_travel_the_rest_stays() {
        let mut incoming = HeaderMap::new();
        for (name, value) in [
            ("x-b3-traceid", "463ac35c9f6413ad"),
            ("end-user", "jason"),
            ("accept", "text/html"),
            ("host", "a"),
        ] {
            incoming.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        incoming.append("tracestate", HeaderValue::from_static("a=1"));
        incoming.append("tracestate", HeaderValue::from_static("b=2"));
        let out = travelling(&incoming);
        assert_eq!(out.len(), 4);
        assert_eq!(out["end-user"], "jason");
        assert_eq!(out.get_all("tracestate").iter().count(), 2);
        assert!(!out.contains_key("host") && !out.contains_key("accept"));
    }
}
