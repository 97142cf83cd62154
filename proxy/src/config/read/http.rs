//! HTTP protocol options that listeners and clusters share.

// Older fields, which configurations still use, are read too.
#![allow(deprecated)]

use std::mem::take;

use mesh_proto::envoy::{
    config::core::v3 as core,
    extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig,
};

use super::{At, Result, done, number, open, opt_duration, refuse, required, unsupported};
use crate::config::{
    hcm::{Http1, Underscores},
    scalar::{Floods, Http2},
};

/// HTTP/2 must not be told frames or windows it cannot have.
const MAX_WINDOW: u32 = 0x7fff_ffff;

pub fn http1(value: Option<core::Http1ProtocolOptions>) -> Result<Http1> {
    let mut value = value.unwrap_or_default();
    let format = take(&mut value.header_key_format)
        .map(case)
        .transpose()
        .at("header_key_format")?;
    let http1 = Http1 {
        accept_http_10: take(&mut value.accept_http_10),
        preserve_case: format == Some(Case::Preserve),
        proper_case: format == Some(Case::Proper),
        enable_trailers: take(&mut value.enable_trailers),
    };
    // Absolute targets are always understood, errors always close, methods may be any token.
    value.allow_absolute_url = None;
    value.override_stream_error_on_invalid_http_message = None;
    value.allow_custom_methods = false;
    value.use_balsa_parser = None;
    done(&value)?;
    Ok(http1)
}

#[derive(PartialEq, Eq)]
enum Case {
    Proper,
    Preserve,
}

fn case(value: core::http1_protocol_options::HeaderKeyFormat) -> Result<Case> {
    use core::http1_protocol_options::header_key_format::HeaderFormat;
    match required(value.header_format, "header_format")? {
        HeaderFormat::ProperCaseWords(_) => Ok(Case::Proper),
        HeaderFormat::StatefulFormatter(extension) => {
            let any = required(extension.typed_config, "stateful_formatter.typed_config")?;
            match open::<PreserveCaseFormatterConfig>(&any)? {
                Some(_) => Ok(Case::Preserve),
                None => unsupported("stateful_formatter"),
            }
        }
    }
}

pub fn http2(value: Option<core::Http2ProtocolOptions>) -> Result<Http2> {
    let mut value = value.unwrap_or_default();
    let default = Http2::default();
    let keepalive = take(&mut value.connection_keepalive).unwrap_or_default();
    let window = |given: Option<u32>, default: u32, name: &str| match given {
        None => Ok(default),
        Some(size) if (65_535..=MAX_WINDOW).contains(&size) => Ok(size),
        Some(_) => refuse(format!("must be from 65535 to {MAX_WINDOW}")).at(name),
    };
    let http2 = Http2 {
        max_concurrent_streams: number(&mut value.max_concurrent_streams)
            .unwrap_or(default.max_concurrent_streams),
        initial_stream_window: window(
            number(&mut value.initial_stream_window_size),
            default.initial_stream_window,
            "initial_stream_window_size",
        )?,
        initial_connection_window: window(
            number(&mut value.initial_connection_window_size),
            default.initial_connection_window,
            "initial_connection_window_size",
        )?,
        keepalive_interval: opt_duration(keepalive.interval, "connection_keepalive.interval")?
            .filter(|time| !time.is_zero()),
        keepalive_timeout: opt_duration(keepalive.timeout, "connection_keepalive.timeout")?
            .unwrap_or(default.keepalive_timeout),
        allow_connect: take(&mut value.allow_connect),
        floods: floods(&mut value, default.floods),
    };
    // Frames to be written do not pile up: nothing is read before they have left. How headers are compressed is not visible
    // to anybody.
    value.hpack_table_size = None;
    value.max_outbound_frames = None;
    value.max_outbound_control_frames = None;
    value.override_stream_error_on_invalid_http_message = None;
    value.stream_error_on_invalid_http_messaging = false;
    value.use_oghttp2_codec = None;
    value.enable_huffman_encoding = None;
    done(&value)?;
    Ok(http2)
}

fn floods(value: &mut core::Http2ProtocolOptions, default: Floods) -> Floods {
    Floods {
        empty_in_a_row: number(&mut value.max_consecutive_inbound_frames_with_empty_payload)
            .unwrap_or(default.empty_in_a_row),
        priorities_per_stream: number(&mut value.max_inbound_priority_frames_per_stream)
            .unwrap_or(default.priorities_per_stream),
        updates_per_data: number(&mut value.max_inbound_window_update_frames_per_data_frame_sent)
            .unwrap_or(default.updates_per_data),
    }
}

pub fn underscores(action: i32) -> Result<Underscores> {
    use core::http_protocol_options::HeadersWithUnderscoresAction as Action;
    match Action::try_from(action) {
        Ok(Action::Allow) => Ok(Underscores::Allow),
        Ok(Action::RejectRequest) => Ok(Underscores::RejectRequest),
        Ok(Action::DropHeader) => Ok(Underscores::DropHeader),
        Err(_) => refuse("is not known").at("headers_with_underscores_action"),
    }
}
