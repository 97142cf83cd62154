//! Access logs: sinks and filters.

// Older fields, which configurations still use, are read too.
#![allow(deprecated)]

use std::{mem::take, sync::Arc, time::Duration};

use mesh_proto::{
    envoy::{
        config::{accesslog::v3 as pb, core::v3 as core},
        data::accesslog::v3::AccessLogType,
        extensions::access_loggers::{
            file::v3::{FileAccessLog, file_access_log},
            grpc::v3::{CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig},
            stream::v3::{StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log},
        },
    },
    node::to_json,
    pb::google::protobuf::{Any, Struct, Value, value::Kind},
};

use super::{
    At, Result, done, each, format as formats, matcher, open, opt_duration, refuse, required, required_text,
    scalar, tls, unsupported,
};
use crate::config::{
    flag::{Flag, Flags},
    log::{AccessLog, Compare, CompareOp, GrpcSink, JsonFormat, LogFilter, LogFormat, LogType, Sink},
};

const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
const BUFFER_BYTES: usize = 16 << 10;

pub fn access_logs(list: Vec<pb::AccessLog>, field: &str) -> Result<Vec<Arc<AccessLog>>> {
    each(list, field, |log| access_log(log).map(Arc::new))
}

fn access_log(value: pb::AccessLog) -> Result<AccessLog> {
    let Some(pb::access_log::ConfigType::TypedConfig(any)) = value.config_type else {
        return refuse("is missing").at("typed_config");
    };
    let sink = sink(&any).at("typed_config")?;
    let filter = value.filter.map(filter).transpose().at("filter")?;
    Ok(AccessLog { sink, filter })
}

fn sink(any: &Any) -> Result<Sink> {
    if let Some(file) = open::<FileAccessLog>(any)? {
        return self::file(file);
    }
    if let Some(log) = open::<StdoutAccessLog>(any)? {
        let stdout_access_log::AccessLogFormat::LogFormat(given) = match log.access_log_format {
            Some(given) => given,
            None => return Ok(Sink::Stdout(default_format()?)),
        };
        return Ok(Sink::Stdout(log_format(given).at("log_format")?));
    }
    if let Some(log) = open::<StderrAccessLog>(any)? {
        let stderr_access_log::AccessLogFormat::LogFormat(given) = match log.access_log_format {
            Some(given) => given,
            None => return Ok(Sink::Stderr(default_format()?)),
        };
        return Ok(Sink::Stderr(log_format(given).at("log_format")?));
    }
    if let Some(mut log) = open::<HttpGrpcAccessLogConfig>(any)? {
        let mut sink = grpc(required(take(&mut log.common_config), "common_config")?).at("common_config")?;
        let names = |list: Vec<String>, field: &str| each(list, field, |name| scalar::header_name(&name));
        sink.request_headers = names(
            log.additional_request_headers_to_log,
            "additional_request_headers_to_log",
        )?;
        sink.response_headers = names(
            log.additional_response_headers_to_log,
            "additional_response_headers_to_log",
        )?;
        sink.response_trailers = names(
            log.additional_response_trailers_to_log,
            "additional_response_trailers_to_log",
        )?;
        return Ok(Sink::HttpGrpc(sink));
    }
    if let Some(mut log) = open::<TcpGrpcAccessLogConfig>(any)? {
        let common = required(take(&mut log.common_config), "common_config")?;
        return Ok(Sink::TcpGrpc(grpc(common).at("common_config")?));
    }
    refuse(format!("{} is not supported by this proxy", any.type_url)).at("@type")
}

fn file(mut value: FileAccessLog) -> Result<Sink> {
    use file_access_log::AccessLogFormat as Given;
    let path = required_text(&mut value.path, "path")?;
    let format = match take(&mut value.access_log_format) {
        None => default_format()?,
        Some(Given::Format(text)) => LogFormat::Text(formats::format(&text, false).at("format")?),
        Some(Given::JsonFormat(json)) => LogFormat::Json(json_of(json, false).at("json_format")?),
        Some(Given::TypedJsonFormat(json)) => LogFormat::Json(json_of(json, false).at("typed_json_format")?),
        Some(Given::LogFormat(format)) => log_format(format).at("log_format")?,
    };
    Ok(match path.as_str() {
        "/dev/stdout" => Sink::Stdout(format),
        "/dev/stderr" => Sink::Stderr(format),
        _ => Sink::File {
            path: path.into(),
            format,
        },
    })
}

fn default_format() -> Result<LogFormat> {
    Ok(LogFormat::Text(formats::format(formats::DEFAULT, false)?))
}

fn log_format(mut value: core::SubstitutionFormatString) -> Result<LogFormat> {
    use core::substitution_format_string::Format as Given;
    let omit = take(&mut value.omit_empty_values);
    // All our operators are built in; the extensions that bring more of them have the same names.
    value.formatters.clear();
    value.json_format_options = None;
    value.content_type.clear();
    let format = match required(take(&mut value.format), "format")? {
        Given::TextFormat(text) => LogFormat::Text(formats::format(&text, omit).at("text_format")?),
        Given::TextFormatSource(source) => {
            let Some(core::data_source::Specifier::InlineString(text)) = source.specifier else {
                return refuse("only inline_string is supported by this proxy").at("text_format_source");
            };
            LogFormat::Text(formats::format(&text, omit).at("text_format_source")?)
        }
        Given::JsonFormat(json) => LogFormat::Json(json_of(json, omit).at("json_format")?),
    };
    done(&value)?;
    Ok(format)
}

fn json_of(json: Struct, omit: bool) -> Result<JsonFormat> {
    formats::json_format(
        &to_json(&Value {
            kind: Some(Kind::StructValue(json)),
        }),
        omit,
    )
}

fn grpc(mut value: CommonGrpcAccessLogConfig) -> Result<GrpcSink> {
    let service = required(take(&mut value.grpc_service), "grpc_service")?;
    let sink = GrpcSink {
        cluster: tls::grpc_service(service).at("grpc_service")?,
        log_name: required_text(&mut value.log_name, "log_name")?.into(),
        flush_interval: opt_duration(take(&mut value.buffer_flush_interval), "buffer_flush_interval")?
            .filter(|time| !time.is_zero())
            .unwrap_or(FLUSH_INTERVAL),
        buffer_bytes: super::number(&mut value.buffer_size_bytes)
            .map_or(BUFFER_BYTES, |bytes| bytes as usize),
        request_headers: Vec::new(),
        response_headers: Vec::new(),
        response_trailers: Vec::new(),
    };
    value.transport_api_version = 0;
    value.filter_state_objects_to_log.clear();
    // The stream is always tried again, with a back-off of our own.
    value.grpc_stream_retry_policy = None;
    done(&value)?;
    Ok(sink)
}

fn filter(value: pb::AccessLogFilter) -> Result<LogFilter> {
    use pb::access_log_filter::FilterSpecifier as Filter;
    Ok(match required(value.filter_specifier, "filter_specifier")? {
        Filter::StatusCodeFilter(filter) => {
            LogFilter::Status(compare(filter.comparison).at("status_code_filter")?)
        }
        Filter::DurationFilter(filter) => {
            LogFilter::Duration(compare(filter.comparison).at("duration_filter")?)
        }
        Filter::NotHealthCheckFilter(_) => LogFilter::NotHealthCheck,
        Filter::TraceableFilter(_) => LogFilter::Traceable,
        Filter::RuntimeFilter(filter) => {
            let percent = required(filter.percent_sampled, "percent_sampled").at("runtime_filter")?;
            LogFilter::Chance(scalar::fraction(&percent).at("runtime_filter.percent_sampled")?)
        }
        Filter::AndFilter(all) => LogFilter::And(each(all.filters, "filters", filter).at("and_filter")?),
        Filter::OrFilter(any) => LogFilter::Or(each(any.filters, "filters", filter).at("or_filter")?),
        Filter::HeaderFilter(header) => {
            let rule = required(header.header, "header").at("header_filter")?;
            LogFilter::Header(matcher::header(rule).at("header_filter.header")?)
        }
        Filter::ResponseFlagFilter(list) => {
            LogFilter::ResponseFlag(flags(&list.flags).at("response_flag_filter")?)
        }
        Filter::GrpcStatusFilter(filter) => LogFilter::GrpcStatus {
            statuses: filter.statuses.iter().map(|status| *status as u32).collect(),
            exclude: filter.exclude,
        },
        Filter::LogTypeFilter(filter) => LogFilter::LogType {
            types: filter.types.iter().filter_map(|kind| log_type(*kind)).collect(),
            exclude: filter.exclude,
        },
        Filter::ExtensionFilter(_) => return unsupported("extension_filter"),
        Filter::MetadataFilter(_) => return unsupported("metadata_filter"),
    })
}

fn compare(value: Option<pb::ComparisonFilter>) -> Result<Compare> {
    let value = required(value, "comparison")?;
    let op = match pb::comparison_filter::Op::try_from(value.op) {
        Ok(pb::comparison_filter::Op::Eq) => CompareOp::Eq,
        Ok(pb::comparison_filter::Op::Ne) => CompareOp::Ne,
        Ok(pb::comparison_filter::Op::Ge) => CompareOp::Ge,
        Ok(pb::comparison_filter::Op::Le) => CompareOp::Le,
        Err(_) => return refuse("is not known").at("comparison.op"),
    };
    let bound = required(value.value, "comparison.value")?;
    Ok(Compare {
        op,
        value: bound.default_value,
    })
}

fn flags(names: &[String]) -> Result<Flags> {
    let mut flags = Flags::none();
    for (n, name) in names.iter().enumerate() {
        match Flag::named(name) {
            Some(flag) => flags.add(flag),
            None => return refuse(format!("{name:?} is not a response flag")).nth("flags", n),
        }
    }
    Ok(flags)
}

/// Types that this proxy never logs are left out: they match nothing.
fn log_type(kind: i32) -> Option<LogType> {
    Some(match AccessLogType::try_from(kind).ok()? {
        AccessLogType::NotSet => LogType::NotSet,
        AccessLogType::TcpUpstreamConnected => LogType::TcpUpstreamConnected,
        AccessLogType::TcpPeriodic => LogType::TcpPeriodic,
        AccessLogType::TcpConnectionEnd => LogType::TcpConnectionEnd,
        AccessLogType::DownstreamStart => LogType::DownstreamStart,
        AccessLogType::DownstreamPeriodic => LogType::DownstreamPeriodic,
        AccessLogType::DownstreamEnd => LogType::DownstreamEnd,
        _ => return None,
    })
}
