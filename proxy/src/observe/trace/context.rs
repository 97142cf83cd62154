//! Trace headers, read and written: W3C `traceparent`/`tracestate` (<https://www.w3.org/TR/trace-context/>) and B3
//! (<https://github.com/openzipkin/b3-propagation>). Pure.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::{hcm::Tracing, scalar::Fraction};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// The formats a request came with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Formats {
    pub w3c: bool,
    pub b3_single: bool,
    pub b3_multi: bool,
}

/// What a request's headers say about its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    pub formats: Formats,
    /// `None` with a sampling decision only (`b3: 0`).
    pub ids: Option<(u128, u64)>,
    /// `None`: not decided yet.
    pub sampled: Option<bool>,
}

/// The trace a request belongs to here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: u128,
    /// Of this hop's span.
    pub span_id: u64,
    pub parent_id: Option<u64>,
    pub sampled: bool,
    pub formats: Formats,
}

/// The connection manager's chances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// For requests whose caller asks for a trace (`x-client-trace-id`).
    pub client: Fraction,
    /// For requests without a decision.
    pub random: Fraction,
    /// Over all that would be sampled.
    pub overall: Fraction,
}

impl From<&Tracing> for Sampling {
    fn from(tracing: &Tracing) -> Self {
        Self {
            client: tracing.client,
            random: tracing.random,
            overall: tracing.overall,
        }
    }
}

/// Reads the trace headers. W3C wins where both are there and differ. A malformed header counts as absent, as both
/// specifications ask.
pub fn extract(headers: &HeaderMap) -> Option<Incoming> {
    let text = |name: &HeaderName| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::trim)
    };
    let w3c = text(&TRACEPARENT).and_then(traceparent);
    let single = text(&B3).and_then(b3_single);
    let multi = b3_multi(text);
    let formats = Formats {
        w3c: w3c.is_some(),
        b3_single: single.is_some(),
        b3_multi: multi.is_some(),
    };
    let (ids, sampled) = w3c.or(single).or(multi)?;
    Some(Incoming {
        formats,
        ids,
        sampled,
    })
}

type Parsed = (Option<(u128, u64)>, Option<bool>);

/// `00-<32 hex>-<16 hex>-<2 hex>`; later versions may have more at the end (§2.2.3 of trace context).
fn traceparent(text: &str) -> Option<Parsed> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if version.len() != 2
        || version == "ff"
        || flags.len() != 2
        || (version == "00" && parts.next().is_some())
    {
        return None;
    }
    hex(version)?;
    let ids = (ids(trace, span).filter(|_| trace.len() == 32))?;
    Some((Some(ids), Some(hex(flags)? & 1 == 1)))
}

/// `<trace>-<span>[-<sampled>[-<parent>]]`, or only a decision.
fn b3_single(text: &str) -> Option<Parsed> {
    if let Some(decision) = sampled(text) {
        return Some((None, Some(decision)));
    }
    let mut parts = text.split('-');
    let ids = ids(parts.next()?, parts.next()?)?;
    let decision = match parts.next() {
        None => None,
        Some(text) => Some(sampled(text)?),
    };
    Some((Some(ids), decision))
}

fn b3_multi<'a>(text: impl Fn(&HeaderName) -> Option<&'a str>) -> Option<Parsed> {
    let debug = text(&B3_FLAGS) == Some("1");
    let decision = if debug {
        Some(true)
    } else {
        text(&B3_SAMPLED).and_then(sampled)
    };
    let ids = text(&B3_TRACE)
        .zip(text(&B3_SPAN))
        .and_then(|(trace, span)| ids(trace, span));
    (ids.is_some() || decision.is_some()).then_some((ids, decision))
}

fn sampled(text: &str) -> Option<bool> {
    match text {
        "1" | "d" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

fn ids(trace: &str, span: &str) -> Option<(u128, u64)> {
    if !(trace.len() == 32 || trace.len() == 16) || span.len() != 16 {
        return None;
    }
    let (trace, span) = (hex(trace)?, u64::try_from(hex(span)?).ok()?);
    (trace != 0 && span != 0).then_some((trace, span))
}

/// Lower-case hexadecimal; `from_str_radix` alone would take a sign.
fn hex(text: &str) -> Option<u128> {
    text.bytes()
        .all(|b| b.is_ascii_hexdigit())
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
}

/// Opens this hop's span: the child of what came in, or the root of a new trace. `random` gives the ids and the dice.
pub fn begin(
    incoming: Option<Incoming>,
    sampling: Sampling,
    forced: bool,
    mut random: impl FnMut() -> u64,
) -> TraceContext {
    let decided = match incoming.and_then(|i| i.sampled) {
        Some(decision) => decision,
        None => (forced && sampling.client.hit(random())) || sampling.random.hit(random()),
    };
    let sampled = decided && sampling.overall.hit(random());
    let (trace_id, parent_id) = match incoming.and_then(|i| i.ids) {
        Some((trace, span)) => (trace, Some(span)),
        None => ((u128::from(random()) << 64 | u128::from(random())).max(1), None),
    };
    let formats = incoming.map_or(Formats::default(), |i| i.formats);
    TraceContext {
        trace_id,
        span_id: random().max(1),
        parent_id,
        sampled,
        formats,
    }
}

/// Writes the headers for the next hop. `tracestate` passes as it came; a new trace has none.
pub fn inject(context: &TraceContext, headers: &mut HeaderMap) {
    let TraceContext {
        trace_id,
        span_id,
        parent_id,
        sampled,
        formats,
    } = *context;
    set(
        headers,
        TRACEPARENT,
        &format!("00-{trace_id:032x}-{span_id:016x}-{:02x}", u8::from(sampled)),
    );
    if formats.b3_single {
        let parent = parent_id.map_or(String::new(), |parent| format!("-{parent:016x}"));
        set(
            headers,
            B3,
            &format!("{trace_id:032x}-{span_id:016x}-{}{parent}", u8::from(sampled)),
        );
    }
    if formats.b3_multi {
        set(headers, B3_TRACE, &format!("{trace_id:032x}"));
        set(headers, B3_SPAN, &format!("{span_id:016x}"));
        match parent_id {
            Some(parent) => set(headers, B3_PARENT, &format!("{parent:016x}")),
            None => {
                headers.remove(B3_PARENT);
            }
        }
        set(headers, B3_SAMPLED, if sampled { "1" } else { "0" });
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    // Hexadecimal digits and dashes are always a valid value.
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    }

    const ALL: Sampling = Sampling {
        client: Fraction::ALWAYS,
        random: Fraction::ALWAYS,
        overall: Fraction::ALWAYS,
    };
    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    const SPAN: u64 = 0x00f0_67aa_0ba9_02b7;

    #[test]
    fn reads_all_three_forms() {
        let w3c = extract(&headers(&[(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )]));
        let single = extract(&headers(&[(
            "b3",
            "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1-05e3ac9a4f6e3b90",
        )]));
        let multi = extract(&headers(&[
            ("x-b3-traceid", "4bf92f3577b34da6a3ce929d0e0e4736"),
            ("x-b3-spanid", "00f067aa0ba902b7"),
            ("x-b3-sampled", "1"),
        ]));
        for incoming in [w3c, single, multi] {
            let incoming = incoming.unwrap();
            assert_eq!(
                (incoming.ids, incoming.sampled),
                (Some((TRACE, SPAN)), Some(true))
            );
        }
        assert_eq!(extract(&headers(&[("b3", "0")])).unwrap().sampled, Some(false));
        assert_eq!(extract(&HeaderMap::new()), None);
    }

    #[test]
    fn malformed_counts_as_absent() {
        for bad in [
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(extract(&headers(&[("traceparent", bad)])), None, "{bad}");
        }
    }

    #[test]
    fn the_child_keeps_trace_and_decision() {
        let mut came = headers(&[
            (
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            ),
            ("x-b3-traceid", "4bf92f3577b34da6a3ce929d0e0e4736"),
            ("x-b3-spanid", "00f067aa0ba902b7"),
        ]);
        let context = begin(extract(&came), ALL, false, || 0xab);
        assert_eq!(
            (context.trace_id, context.parent_id, context.sampled),
            (TRACE, Some(SPAN), false)
        );
        inject(&context, &mut came);
        assert_eq!(
            came["traceparent"],
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00000000000000ab-00"
        );
        assert_eq!(came["x-b3-parentspanid"], "00f067aa0ba902b7");
        assert!(!came.contains_key("b3"));
    }

    #[test]
    fn a_new_trace_is_sampled_by_the_dice() {
        let sampling = Sampling {
            random: Fraction {
                numerator: 100,
                denominator: 10_000,
            },
            ..ALL
        };
        assert!(begin(None, sampling, false, || 99).sampled);
        assert!(!begin(None, sampling, false, || 100).sampled);
        assert!(begin(None, sampling, true, || 100).sampled);
        let context = begin(None, sampling, false, || 0);
        assert!(context.trace_id != 0 && context.span_id != 0 && context.parent_id.is_none());
    }
}
