//! Access logs: a file for people, and the stream to telemetry from which metrics and the graph are made.

use std::time::Duration;

use mesh_proto::{
    envoy::{
        config::{
            accesslog::v3::{AccessLog, access_log},
            core::v3::{
                ApiVersion, SubstitutionFormatString, substitution_format_string::Format as EnvoyFormat,
            },
        },
        extensions::access_loggers::{
            file::v3::{FileAccessLog, file_access_log::AccessLogFormat},
            grpc::v3::{CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig},
        },
    },
    pb::google::protobuf::Any,
};

use crate::generate::value::{any, duration, grpc, inline_string, object};

/// What one side of a proxy logs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Logs {
    pub files: Vec<FileLog>,
    pub streams: Vec<Stream>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileLog {
    pub path: String,
    pub format: Format,
}

/// How a line is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    Text(Option<String>),
    /// A JSON object of Envoy's operators.
    Json(Option<String>),
}

/// An access-log service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    pub cluster: String,
    pub log_name: String,
}

/// What passes: requests or connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Requests,
    Connections,
}

/// How long records may wait for company.
const FLUSH: Duration = Duration::from_secs(1);

/// The format that operators of such meshes know.
const TEXT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
);

/// Field and operator, one a row.
const JSON: &[(&str, &str)] = &[
    ("start_time", "%START_TIME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    (
        "connection_termination_details",
        "%CONNECTION_TERMINATION_DETAILS%",
    ),
    (
        "upstream_transport_failure_reason",
        "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    ),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("route_name", "%ROUTE_NAME%"),
];

pub fn generate(logs: &Logs, of: Of) -> Vec<AccessLog> {
    let files = logs
        .files
        .iter()
        .map(|log| entry("envoy.access_loggers.file", file(log)));
    let streams = logs.streams.iter().map(|stream| match of {
        Of::Requests => entry(
            "envoy.access_loggers.http_grpc",
            any(&HttpGrpcAccessLogConfig {
                common_config: Some(common(stream)),
                ..HttpGrpcAccessLogConfig::default()
            }),
        ),
        Of::Connections => entry(
            "envoy.access_loggers.tcp_grpc",
            any(&TcpGrpcAccessLogConfig {
                common_config: Some(common(stream)),
            }),
        ),
    });
    files.chain(streams).collect()
}

fn entry(name: &str, config: Any) -> AccessLog {
    AccessLog {
        name: name.to_owned(),
        config_type: Some(access_log::ConfigType::TypedConfig(config)),
        ..AccessLog::default()
    }
}

fn file(log: &FileLog) -> Any {
    let format = match &log.format {
        Format::Text(own) => {
            let mut line = own.clone().unwrap_or_else(|| TEXT.to_owned());
            if !line.ends_with('\n') {
                line.push('\n');
            }
            EnvoyFormat::TextFormatSource(inline_string(&line))
        }
        Format::Json(own) => {
            let own = own.as_deref().and_then(|text| serde_json::from_str(text).ok());
            EnvoyFormat::JsonFormat(object(own.unwrap_or_else(default_json)))
        }
    };
    any(&FileAccessLog {
        path: log.path.clone(),
        access_log_format: Some(AccessLogFormat::LogFormat(SubstitutionFormatString {
            format: Some(format),
            ..SubstitutionFormatString::default()
        })),
    })
}

fn default_json() -> serde_json::Value {
    JSON.iter()
        .map(|(key, operator)| ((*key).to_owned(), (*operator).into()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn common(stream: &Stream) -> CommonGrpcAccessLogConfig {
    CommonGrpcAccessLogConfig {
        log_name: stream.log_name.clone(),
        grpc_service: Some(grpc(&stream.cluster)),
        transport_api_version: ApiVersion::V3.into(),
        buffer_flush_interval: Some(duration(FLUSH)),
        ..CommonGrpcAccessLogConfig::default()
    }
}
