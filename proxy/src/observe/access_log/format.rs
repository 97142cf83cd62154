//! A record as a line: text with operators, or JSON whose strings hold them. Pure; the line ends with a newline exactly
//! once, whatever the format says.

use std::sync::Arc;

use crate::config::log::{Command, Format, HeaderPick, JsonFormat, LogFormat, Piece};
use crate::config::matcher::Field;

use super::{
    Wanted, add,
    operator::{Value, value},
};
use crate::observe::record::AccessRecord;

/// What lines and reports say about this proxy itself.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// The host's name (the pod's, in a pod).
    pub name: Arc<str>,
    /// The node id, for the access-log service.
    pub node: Option<Arc<mesh_proto::envoy::config::core::v3::Node>>,
}

/// The headers that a format mentions.
pub(super) fn wanted(format: &LogFormat, wanted: &mut Wanted) {
    match format {
        LogFormat::Text(format) => pieces(format, wanted),
        LogFormat::Json(json) => strings(json, wanted),
    }
}

fn strings(json: &JsonFormat, wanted: &mut Wanted) {
    match json {
        JsonFormat::Object(fields) => fields.iter().for_each(|(_, value)| strings(value, wanted)),
        JsonFormat::List(items) => items.iter().for_each(|value| strings(value, wanted)),
        JsonFormat::Text(format) => pieces(format, wanted),
        JsonFormat::Literal(_) => {}
    }
}

fn pieces(format: &Format, wanted: &mut Wanted) {
    for piece in &format.pieces {
        let Piece::Command(command, _) = piece else {
            continue;
        };
        let (names, pick) = match command {
            Command::Request(pick) => (&mut wanted.request, pick),
            Command::Response(pick) => (&mut wanted.response, pick),
            Command::Trailer(pick) => (&mut wanted.trailers, pick),
            _ => continue,
        };
        let HeaderPick { first, second } = pick;
        for field in std::iter::once(first).chain(second) {
            // The original path is a fact of the record, not a header that came.
            if let Field::Header(name) = field
                && name != "x-envoy-original-path"
            {
                add(names, name);
            }
        }
    }
}

/// Appends the record's line.
pub fn line(format: &LogFormat, record: &AccessRecord, wanted: &Wanted, host: &Host, out: &mut Vec<u8>) {
    match format {
        LogFormat::Text(format) => out.extend(text(format, record, wanted, host).as_bytes()),
        LogFormat::Json(json) => {
            let mut line = String::with_capacity(512);
            if !write_json(json, record, wanted, host, &mut line) {
                line.push_str("null");
            }
            out.extend(line.as_bytes());
        }
    }
    if out.last() != Some(&b'\n') {
        out.push(b'\n');
    }
}

fn text(format: &Format, record: &AccessRecord, wanted: &Wanted, host: &Host) -> String {
    let mut line = String::with_capacity(256);
    for piece in &format.pieces {
        match piece {
            Piece::Text(text) => line.push_str(text),
            Piece::Command(command, limit) => match value(command, record, wanted, host) {
                Value::Absent if format.omit_empty => {}
                Value::Absent => line.push('-'),
                Value::Number(number) => line.push_str(&number.to_string()),
                Value::Text(text) => line.push_str(cut(&text, *limit)),
            },
        }
    }
    line
}

fn cut(text: &str, limit: Option<usize>) -> &str {
    match limit {
        Some(limit) if text.len() > limit => &text[..text.floor_char_boundary(limit)],
        _ => text,
    }
}

/// False: there is nothing to write, and the format wants empty values left out.
fn write_json(
    json: &JsonFormat,
    record: &AccessRecord,
    wanted: &Wanted,
    host: &Host,
    out: &mut String,
) -> bool {
    match json {
        JsonFormat::Literal(text) => out.push_str(text),
        JsonFormat::Text(format) => return json_string(format, record, wanted, host, out),
        JsonFormat::List(items) => {
            out.push('[');
            for item in items {
                let start = out.len();
                if start > 0 && !out.ends_with('[') {
                    out.push(',');
                }
                if !write_json(item, record, wanted, host, out) {
                    out.truncate(start);
                }
            }
            out.push(']');
        }
        JsonFormat::Object(fields) => {
            out.push('{');
            let mut first = true;
            for (name, field) in fields {
                let start = out.len();
                if !first {
                    out.push(',');
                }
                out.push_str(&serde_json::Value::from(&**name).to_string());
                out.push(':');
                if write_json(field, record, wanted, host, out) {
                    first = false;
                } else {
                    out.truncate(start);
                }
            }
            out.push('}');
        }
    }
    true
}

/// A string that is one operator keeps the operator's type; any other is text.
fn json_string(
    format: &Format,
    record: &AccessRecord,
    wanted: &Wanted,
    host: &Host,
    out: &mut String,
) -> bool {
    let text = match format.pieces.as_slice() {
        [Piece::Command(command, limit)] => match value(command, record, wanted, host) {
            Value::Absent if format.omit_empty => return false,
            Value::Absent => {
                out.push_str("null");
                return true;
            }
            Value::Number(number) => {
                out.push_str(&number.to_string());
                return true;
            }
            Value::Text(text) => cut(&text, *limit).to_owned(),
        },
        _ => text(format, record, wanted, host),
    };
    out.push_str(&serde_json::Value::from(text).to_string());
    true
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::{
        config::log::{Part, TimeFormat},
        observe::record,
    };

    fn command(command: Command) -> Piece {
        Piece::Command(command, None)
    }

    fn header(name: &'static str) -> Field {
        Field::Header(HeaderName::from_static(name))
    }

    fn render(format: LogFormat) -> String {
        let mut names = Wanted {
            request: vec![HeaderName::from_static("accept")],
            ..Wanted::default()
        };
        wanted(&format, &mut names);
        let mut out = Vec::new();
        let host = Host {
            name: "pod-1".into(),
            node: None,
        };
        line(&format, &record::example(), &names, &host, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn envoys_default_line() {
        let pick = |first, second| HeaderPick { first, second };
        let pieces = vec![
            Piece::Text("[".into()),
            command(Command::StartTime(TimeFormat::Iso)),
            Piece::Text("] \"".into()),
            command(Command::Request(pick(Field::Method, None))),
            Piece::Text(" ".into()),
            command(Command::Request(pick(
                header("x-envoy-original-path"),
                Some(Field::Path),
            ))),
            Piece::Text(" ".into()),
            command(Command::Protocol),
            Piece::Text("\" ".into()),
            command(Command::ResponseCode),
            Piece::Text(" ".into()),
            command(Command::ResponseFlags),
            Piece::Text(" ".into()),
            command(Command::BytesReceived),
            Piece::Text(" ".into()),
            command(Command::BytesSent),
            Piece::Text(" ".into()),
            command(Command::Duration),
            Piece::Text(" \"".into()),
            command(Command::Request(pick(header("user-agent"), None))),
            Piece::Text("\" \"".into()),
            command(Command::Request(pick(header("x-request-id"), None))),
            Piece::Text("\" \"".into()),
            command(Command::UpstreamHost),
            Piece::Text("\" ".into()),
            command(Command::UpstreamTransportFailure),
        ];
        let line = render(LogFormat::Text(Format {
            pieces,
            omit_empty: false,
        }));
        let expected = "[2023-11-14T22:13:20.123Z] \"GET /r/0 HTTP/1.1\" 200 - 3 295 7 \"curl/8\" \"7d4f1b1e\" \
                        \"10.244.0.7:9080\" -\n";
        assert_eq!(line, expected);
    }

    #[test]
    fn json_keeps_numbers_and_drops_what_is_empty() {
        let one = |piece, omit_empty| {
            JsonFormat::Text(Format {
                pieces: vec![piece],
                omit_empty,
            })
        };
        let fields = vec![
            ("status".into(), one(command(Command::ResponseCode), true)),
            (
                "failure".into(),
                one(command(Command::UpstreamTransportFailure), true),
            ),
            ("grpc".into(), one(command(Command::GrpcStatusNumber), false)),
            (
                "port".into(),
                one(command(Command::UpstreamRemoteAddress(Part::Port)), true),
            ),
            (
                "cut".into(),
                one(Piece::Command(Command::UpstreamCluster, Some(8)), true),
            ),
            (
                "list".into(),
                JsonFormat::List(vec![
                    JsonFormat::Literal("true".into()),
                    one(command(Command::Hostname), true),
                ]),
            ),
        ];
        let line = render(LogFormat::Json(JsonFormat::Object(fields)));
        let expected =
            "{\"status\":200,\"grpc\":null,\"port\":9080,\"cut\":\"outbound\",\"list\":[true,\"pod-1\"]}\n";
        assert_eq!(line, expected);
    }
}
