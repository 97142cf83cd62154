//! Formats with Envoy's command operators, such as `%REQ(X-A?:AUTHORITY):10%`, parsed once.
//! See <https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#command-operators>.

use serde_json::Value;

use super::{Result, matcher, refuse};
use crate::config::log::{
    CertificateFact as Fact, Command, Format, HeaderPick, JsonFormat, Part, Piece, Point, TimeFormat, Unit,
};

/// The format of a log that names none.
pub const DEFAULT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// Text with operators.
pub fn format(text: &str, omit_empty: bool) -> Result<Format> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        literal.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let (operator, after) = operator(rest)?;
        if !literal.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut literal).into()));
        }
        pieces.push(operator);
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal.into()));
    }
    Ok(Format { pieces, omit_empty })
}

/// JSON with operators in its strings.
pub fn json_format(json: &Value, omit_empty: bool) -> Result<JsonFormat> {
    Ok(match json {
        Value::Object(map) => JsonFormat::Object(
            map.iter()
                .map(|(key, value)| {
                    let value = json_format(value, omit_empty).map_err(|reject| reject.under(key))?;
                    Ok((key.as_str().into(), value))
                })
                .collect::<Result<_>>()?,
        ),
        Value::Array(list) => JsonFormat::List(
            list.iter()
                .map(|value| json_format(value, omit_empty))
                .collect::<Result<_>>()?,
        ),
        Value::String(text) => JsonFormat::Text(format(text, omit_empty)?),
        // Protobuf knows no integers in a struct: write them as such again.
        Value::Number(number) => match number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 9e15) {
            Some(whole) => JsonFormat::Literal((whole as i64).to_string().into()),
            None => JsonFormat::Literal(number.to_string().into()),
        },
        Value::Bool(_) | Value::Null => JsonFormat::Literal(json.to_string().into()),
    })
}

/// One operator, after its opening `%`; gives what follows its closing one.
fn operator(text: &str) -> Result<(Piece, &str)> {
    let name_len = text
        .bytes()
        .take_while(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_');
    let (name, mut rest) = text.split_at(name_len.count());
    let mut argument = None;
    if let Some(inner) = rest.strip_prefix('(') {
        // A time format may have brackets of its own only at its end, where ")%" or "):" follows.
        let end = inner
            .match_indices(')')
            .map(|(at, _)| at)
            .find(|at| matches!(inner.as_bytes().get(at + 1), Some(b'%' | b':')));
        let Some(end) = end else {
            return refuse(format!("%{name}( is not closed"));
        };
        argument = Some(&inner[..end]);
        rest = &inner[end + 1..];
    }
    let mut length = None;
    if let Some(digits) = rest.strip_prefix(':') {
        let count = digits.bytes().take_while(u8::is_ascii_digit).count();
        let Ok(number) = digits[..count].parse() else {
            return refuse(format!("%{name}: a number of characters should follow the colon"));
        };
        length = Some(number);
        rest = &digits[count..];
    }
    let Some(after) = rest.strip_prefix('%') else {
        return refuse(format!("%{name} is not closed by another %"));
    };
    Ok((Piece::Command(command(name, argument)?, length), after))
}

fn command(name: &str, argument: Option<&str>) -> Result<Command> {
    if let Some(command) = simple(name) {
        return Ok(command);
    }
    if let Some(command) = address(name).or_else(|| certificate(name)) {
        return Ok(command);
    }
    match (name, argument) {
        ("START_TIME", None) => Ok(Command::StartTime(TimeFormat::Iso)),
        ("START_TIME", Some("")) => Ok(Command::StartTime(TimeFormat::Iso)),
        ("START_TIME", Some(pattern)) => Ok(Command::StartTime(TimeFormat::Pattern(pattern.into()))),
        ("REQ", Some(pick)) => Ok(Command::Request(headers(pick)?)),
        ("RESP", Some(pick)) => Ok(Command::Response(headers(pick)?)),
        ("TRAILER", Some(pick)) => Ok(Command::Trailer(headers(pick)?)),
        ("COMMON_DURATION", Some(points)) => duration(points),
        ("GRPC_STATUS", kind) => Ok(Command::GrpcStatus {
            number: kind == Some("NUMBER"),
            snake: kind == Some("SNAKE_STRING"),
        }),
        ("DYNAMIC_METADATA", Some(path)) => Ok(Command::DynamicMetadata(metadata(path))),
        ("CLUSTER_METADATA", Some(path)) => Ok(Command::ClusterMetadata(metadata(path))),
        ("UPSTREAM_METADATA", Some(path)) => Ok(Command::UpstreamMetadata(metadata(path))),
        ("METADATA", Some(path)) => match path.split_once(':') {
            Some(("DYNAMIC", path)) => Ok(Command::DynamicMetadata(metadata(path))),
            Some(("CLUSTER", path)) => Ok(Command::ClusterMetadata(metadata(path))),
            Some(("ROUTE", path)) => Ok(Command::RouteMetadata(metadata(path))),
            Some(("UPSTREAM_HOST", path)) => Ok(Command::UpstreamMetadata(metadata(path))),
            _ => refuse(format!(
                "%METADATA({path})% names no kind of metadata that is known"
            )),
        },
        ("FILTER_STATE", Some(key)) => Ok(Command::FilterState(
            key.split(':').next().unwrap_or_default().into(),
        )),
        ("ENVIRONMENT", Some(key)) => Ok(Command::Environment(
            std::env::var(key).unwrap_or_else(|_| "-".to_owned()).into(),
        )),
        _ => refuse(format!("%{name}% is not an operator that this proxy knows")),
    }
}

fn simple(name: &str) -> Option<Command> {
    Some(match name {
        "PROTOCOL" => Command::Protocol,
        "UPSTREAM_PROTOCOL" => Command::UpstreamProtocol,
        "RESPONSE_CODE" => Command::ResponseCode,
        "RESPONSE_CODE_DETAILS" => Command::ResponseCodeDetails,
        "RESPONSE_FLAGS" => Command::ResponseFlags,
        "RESPONSE_FLAGS_LONG" => Command::ResponseFlagsLong,
        "BYTES_RECEIVED" => Command::BytesReceived,
        "BYTES_SENT" => Command::BytesSent,
        "UPSTREAM_WIRE_BYTES_SENT" => Command::UpstreamWireBytesSent,
        "UPSTREAM_WIRE_BYTES_RECEIVED" => Command::UpstreamWireBytesReceived,
        "UPSTREAM_HEADER_BYTES_SENT" => Command::UpstreamHeaderBytesSent,
        "UPSTREAM_HEADER_BYTES_RECEIVED" => Command::UpstreamHeaderBytesReceived,
        "DOWNSTREAM_WIRE_BYTES_SENT" => Command::DownstreamWireBytesSent,
        "DOWNSTREAM_WIRE_BYTES_RECEIVED" => Command::DownstreamWireBytesReceived,
        "DOWNSTREAM_HEADER_BYTES_SENT" => Command::DownstreamHeaderBytesSent,
        "DOWNSTREAM_HEADER_BYTES_RECEIVED" => Command::DownstreamHeaderBytesReceived,
        "DURATION" => Command::Duration,
        "REQUEST_DURATION" => Command::RequestDuration,
        "REQUEST_TX_DURATION" => Command::RequestTxDuration,
        "RESPONSE_DURATION" => Command::ResponseDuration,
        "RESPONSE_TX_DURATION" => Command::ResponseTxDuration,
        "DOWNSTREAM_HANDSHAKE_DURATION" => Command::DownstreamHandshakeDuration,
        "UPSTREAM_CONNECTION_POOL_READY_DURATION" => Command::UpstreamConnectDuration,
        "ROUNDTRIP_DURATION" => Command::RoundtripDuration,
        "UPSTREAM_HOST" => Command::UpstreamHost,
        "UPSTREAM_HOST_NAME" => Command::UpstreamHostName,
        "UPSTREAM_HOST_NAME_WITHOUT_PORT" => Command::UpstreamHostNameWithoutPort,
        "UPSTREAM_CLUSTER" => Command::UpstreamCluster,
        "UPSTREAM_CLUSTER_RAW" => Command::UpstreamClusterRaw,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Command::UpstreamTransportFailure,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Command::UpstreamRequestAttempts,
        "UPSTREAM_CONNECTION_ID" => Command::UpstreamConnectionId,
        "UPSTREAM_TLS_VERSION" => Command::UpstreamTlsVersion,
        "UPSTREAM_TLS_CIPHER" => Command::UpstreamTlsCipher,
        "DOWNSTREAM_TLS_VERSION" => Command::DownstreamTlsVersion,
        "DOWNSTREAM_TLS_CIPHER" => Command::DownstreamTlsCipher,
        "DOWNSTREAM_TLS_SESSION_ID" => Command::DownstreamTlsSessionId,
        "DOWNSTREAM_TRANSPORT_FAILURE_REASON" => Command::DownstreamTransportFailure,
        "DOWNSTREAM_LOCAL_CLOSE_REASON" | "DOWNSTREAM_DETECTED_CLOSE_TYPE" => {
            Command::DownstreamDetectedCloseType
        }
        "CONNECTION_ID" => Command::ConnectionId,
        "STREAM_ID" => Command::StreamId,
        "UNIQUE_ID" => Command::UniqueId,
        "REQUESTED_SERVER_NAME" => Command::RequestedServerName,
        "ROUTE_NAME" => Command::RouteName,
        "VIRTUAL_HOST_NAME" => Command::VirtualHostName,
        "VIRTUAL_CLUSTER_NAME" => Command::VirtualClusterName,
        "FILTER_CHAIN_NAME" => Command::FilterChainName,
        "TRAFFIC_DIRECTION" => Command::ListenerDirection,
        "CONNECTION_TERMINATION_DETAILS" => Command::ConnectionTerminationDetails,
        "HOSTNAME" => Command::Hostname,
        "LOCAL_REPLY_BODY" => Command::LocalReplyBody,
        "ACCESS_LOG_TYPE" => Command::AccessLogType,
        "TRACE_ID" => Command::TraceId,
        "SPAN_ID" => Command::SpanId,
        "GRPC_STATUS_NUMBER" => Command::GrpcStatusNumber,
        _ => return None,
    })
}

fn address(name: &str) -> Option<Command> {
    let (base, part) = match (name.strip_suffix("_WITHOUT_PORT"), name.strip_suffix("_PORT")) {
        (Some(base), _) => (base, Part::WithoutPort),
        (None, Some(base)) => (base, Part::Port),
        (None, None) => (name, Part::Whole),
    };
    Some(match base {
        "UPSTREAM_LOCAL_ADDRESS" | "UPSTREAM_LOCAL" => Command::UpstreamLocalAddress(part),
        "UPSTREAM_REMOTE_ADDRESS" | "UPSTREAM_REMOTE" => Command::UpstreamRemoteAddress(part),
        "DOWNSTREAM_REMOTE_ADDRESS" | "DOWNSTREAM_REMOTE" => Command::DownstreamRemoteAddress(part),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" | "DOWNSTREAM_DIRECT_REMOTE" => {
            Command::DownstreamDirectRemoteAddress(part)
        }
        "DOWNSTREAM_LOCAL_ADDRESS" | "DOWNSTREAM_LOCAL" => Command::DownstreamLocalAddress(part),
        _ => return None,
    })
}

fn certificate(name: &str) -> Option<Command> {
    let (make, fact): (fn(Fact) -> Command, &str) = if let Some(fact) = name.strip_prefix("DOWNSTREAM_PEER_")
    {
        (Command::DownstreamPeer, fact)
    } else if let Some(fact) = name.strip_prefix("DOWNSTREAM_LOCAL_") {
        (Command::DownstreamLocal, fact)
    } else if let Some(fact) = name.strip_prefix("UPSTREAM_PEER_") {
        (Command::UpstreamPeer, fact)
    } else {
        (Command::UpstreamLocal, name.strip_prefix("UPSTREAM_LOCAL_")?)
    };
    Some(make(match fact {
        "URI_SAN" => Fact::UriSan,
        "DNS_SAN" => Fact::DnsSan,
        "IP_SAN" => Fact::IpSan,
        "SUBJECT" => Fact::Subject,
        "ISSUER" => Fact::Issuer,
        "SERIAL" => Fact::Serial,
        "FINGERPRINT_256" => Fact::Fingerprint256,
        "FINGERPRINT_1" => Fact::Fingerprint1,
        "CERT_V_START" => Fact::ValidFrom,
        "CERT_V_END" => Fact::ValidUntil,
        "CERT" => Fact::Pem,
        _ => return None,
    }))
}

fn headers(pick: &str) -> Result<HeaderPick> {
    let (first, second) = pick
        .split_once('?')
        .map_or((pick, None), |(first, second)| (first, Some(second)));
    let field = |name: &str| matcher::field(&name.to_ascii_lowercase());
    Ok(HeaderPick {
        first: field(first)?,
        second: second.map(field).transpose()?,
    })
}

fn metadata(path: &str) -> Box<[Box<str>]> {
    path.split(':').map(Into::into).collect()
}

fn duration(points: &str) -> Result<Command> {
    let parts: Vec<&str> = points.split(':').collect();
    let (from, to, unit) = match parts[..] {
        [from, to] => (from, to, "ms"),
        [from, to, unit] => (from, to, unit),
        _ => return refuse(format!("%COMMON_DURATION({points})% should have from:to:unit")),
    };
    let unit = match unit {
        "ms" => Unit::Millis,
        "us" => Unit::Micros,
        "ns" => Unit::Nanos,
        _ => return refuse(format!("{unit:?} is not a unit of %COMMON_DURATION%")),
    };
    Ok(Command::CommonDuration {
        from: point(from)?,
        to: point(to)?,
        unit,
    })
}

fn point(name: &str) -> Result<Point> {
    Ok(match name {
        "DS_RX_BEG" => Point::DownstreamStart,
        "DS_RX_END" => Point::DownstreamEnd,
        "US_TX_BEG" => Point::UpstreamStart,
        "US_TX_END" => Point::UpstreamEnd,
        "US_RX_BEG" => Point::UpstreamResponseStart,
        "US_RX_END" => Point::UpstreamResponseEnd,
        "DS_TX_BEG" => Point::DownstreamResponseStart,
        "DS_TX_END" => Point::DownstreamResponseEnd,
        "US_CX_BEG" => Point::UpstreamConnectStart,
        "US_CX_END" => Point::UpstreamConnectEnd,
        "US_HS_END" => Point::UpstreamHandshakeEnd,
        "DS_HS_END" => Point::DownstreamHandshakeEnd,
        _ => return refuse(format!("{name:?} is not a point in time of %COMMON_DURATION%")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::matcher::Field;

    #[test]
    fn the_default_format_is_understood() {
        let format = format(DEFAULT, false).unwrap();
        let commands = format
            .pieces
            .iter()
            .filter(|piece| matches!(piece, Piece::Command(..)))
            .count();
        assert_eq!(commands, 15);
        assert_eq!(format.pieces.last(), Some(&Piece::Text("\"\n".into())));
    }

    #[test]
    fn operators_with_arguments() {
        let one = |text: &str| match format(text, false).unwrap().pieces.remove(0) {
            Piece::Command(command, length) => (command, length),
            Piece::Text(text) => panic!("{text}"),
        };
        let pick = HeaderPick {
            first: Field::Header("x-a".parse().unwrap()),
            second: Some(Field::Authority),
        };
        assert_eq!(
            one("%REQ(X-A?:AUTHORITY):10%"),
            (Command::Request(pick), Some(10))
        );
        let pattern = TimeFormat::Pattern("%Y/%m/%dT%H:%M:%S%z %3f".into());
        assert_eq!(
            one("%START_TIME(%Y/%m/%dT%H:%M:%S%z %3f)%").0,
            Command::StartTime(pattern)
        );
        assert_eq!(
            one("%DOWNSTREAM_PEER_URI_SAN%").0,
            Command::DownstreamPeer(Fact::UriSan)
        );
        assert_eq!(
            one("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%").0,
            Command::DownstreamRemoteAddress(Part::WithoutPort)
        );
        assert_eq!(
            one("%DOWNSTREAM_LOCAL_PORT%").0,
            Command::DownstreamLocalAddress(Part::Port)
        );
        let path: Box<[Box<str>]> = ["a".into(), "b".into()].into();
        assert_eq!(one("%DYNAMIC_METADATA(a:b)%").0, Command::DynamicMetadata(path));
        assert_eq!(
            format("100%%", false).unwrap().pieces,
            [Piece::Text("100%".into())]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expect) in [
            ("%NO_SUCH%", "%NO_SUCH% is not an operator"),
            ("%REQ(x%", "is not closed"),
            ("%DURATION", "is not closed by another %"),
            ("%REQ(x):y%", "a number of characters"),
        ] {
            let error = format(text, false).unwrap_err();
            assert!(error.why.contains(expect), "{text}: {error}");
        }
    }

    #[test]
    fn json_keeps_its_types() {
        let json = serde_json::json!({"a": "%DURATION%", "b": {"c": 1.0, "d": true}, "e": ["x"]});
        let JsonFormat::Object(fields) = json_format(&json, false).unwrap() else {
            panic!()
        };
        assert_eq!(fields.len(), 3);
        let JsonFormat::Object(inner) = &fields[1].1 else {
            panic!()
        };
        assert_eq!(inner[0].1, JsonFormat::Literal("1".into()));
    }
}
