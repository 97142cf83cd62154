//! The HTTP connection manager: one for each place where requests are looked into.

use std::{sync::Arc, time::Duration};

use mesh_proto::{
    envoy::{
        config::{
            core::v3::Http1ProtocolOptions,
            listener::v3::Filter,
            route::v3::{
                Decorator, Route, RouteAction, RouteConfiguration, VirtualHost, route::Action,
                route_action::ClusterSpecifier,
            },
        },
        extensions::filters::{
            http::router::v3::Router,
            network::http_connection_manager::v3::{
                HttpConnectionManager, HttpFilter, Rds,
                http_connection_manager::{
                    CodecType, ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
                    ServerHeaderTransformation, SetCurrentClientCertDetails, UpgradeConfig,
                },
                http_filter,
            },
        },
    },
    mesh::Normalization,
    pb::google::protobuf::Any,
};

use super::{
    access_log::{self, Logs, Of},
    cors, fault, jwt, rbac, tcp,
    tracing::{self, Tracing},
};
use crate::{
    generate::{
        route::matching,
        value::{ads, any, boolean, duration},
    },
    model::AuthorizationPolicy,
    snapshot::Issuer,
};

pub const NAME: &str = "envoy.filters.network.http_connection_manager";
const SERVER: &str = "gossamer";

/// Whose requests these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// To the workload.
    Inbound,
    /// From the workload.
    Outbound,
    /// From outside of the mesh.
    Gateway,
}

/// What all managers of one side of one proxy have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    pub side: Side,
    pub normalization: Normalization,
    pub logs: Logs,
    pub tracing: Option<Tracing>,
    pub issuers: Vec<Issuer>,
    pub authorization: Vec<Arc<AuthorizationPolicy>>,
}

/// Where the routes are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Routes {
    /// On the ADS stream, under this name.
    Named(String),
    /// All to one cluster.
    To { cluster: String, operation: String },
}

pub fn generate(stat_prefix: &str, settings: &Settings, routes: &Routes) -> Filter {
    let side = settings.side;
    let mut manager = HttpConnectionManager {
        codec_type: CodecType::Auto.into(),
        stat_prefix: stat_prefix.to_owned(),
        route_specifier: Some(specifier(routes)),
        http_filters: filters(settings),
        http_protocol_options: Some(Http1ProtocolOptions {
            accept_http_10: true,
            ..Http1ProtocolOptions::default()
        }),
        server_name: SERVER.to_owned(),
        server_header_transformation: match side {
            Side::Outbound => ServerHeaderTransformation::PassThrough,
            Side::Inbound | Side::Gateway => ServerHeaderTransformation::AppendIfAbsent,
        }
        .into(),
        // The limit of a request's time is the route's; a stream that waits is no error.
        stream_idle_timeout: Some(duration(Duration::ZERO)),
        use_remote_address: Some(boolean(side == Side::Gateway)),
        forward_client_cert_details: match side {
            Side::Inbound => ForwardClientCertDetails::AppendForward,
            Side::Outbound | Side::Gateway => ForwardClientCertDetails::Sanitize,
        }
        .into(),
        access_log: access_log::generate(&settings.logs, Of::Requests),
        tracing: settings.tracing.as_ref().map(tracing::generate),
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..UpgradeConfig::default()
        }],
        ..HttpConnectionManager::default()
    };
    if side == Side::Inbound {
        manager.set_current_client_cert_details = Some(SetCurrentClientCertDetails {
            subject: Some(boolean(true)),
            uri: true,
            ..SetCurrentClientCertDetails::default()
        });
    }
    normalize(&mut manager, settings.normalization);
    tcp::network(NAME, any(&manager))
}

fn normalize(manager: &mut HttpConnectionManager, normalization: Normalization) {
    manager.normalize_path = Some(boolean(normalization != Normalization::None));
    manager.merge_slashes = matches!(
        normalization,
        Normalization::MergeSlashes | Normalization::DecodeAndMergeSlashes
    );
    if normalization == Normalization::DecodeAndMergeSlashes {
        manager.set_path_with_escaped_slashes_action(PathWithEscapedSlashesAction::UnescapeAndForward);
    }
}

fn filters(settings: &Settings) -> Vec<HttpFilter> {
    let mut filters: Vec<HttpFilter> = Vec::new();
    if settings.side != Side::Outbound {
        // Rules may look at what tokens say.
        filters.extend(jwt::http(&settings.issuers).map(|config| filter(jwt::NAME, config)));
        filters.extend(
            rbac::http(&settings.authorization)
                .into_iter()
                .map(|config| filter(rbac::HTTP, config)),
        );
    }
    if settings.side != Side::Inbound {
        filters.push(filter(fault::NAME, fault::chain()));
        filters.push(filter(cors::NAME, cors::chain()));
    }
    filters.push(filter("envoy.filters.http.router", any(&Router::default())));
    filters
}

fn filter(name: &str, config: Any) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..HttpFilter::default()
    }
}

fn specifier(routes: &Routes) -> RouteSpecifier {
    match routes {
        Routes::Named(name) => RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: name.clone(),
        }),
        Routes::To { cluster, operation } => RouteSpecifier::RouteConfig(inline(cluster, operation)),
    }
}

/// The workload's own application: everything goes to it, for as long as it takes, and never twice.
fn inline(cluster: &str, operation: &str) -> RouteConfiguration {
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        timeout: Some(duration(Duration::ZERO)),
        ..RouteAction::default()
    };
    let route = Route {
        name: "default".to_owned(),
        r#match: Some(matching::everything()),
        decorator: Some(Decorator {
            operation: operation.to_owned(),
            // The names of operations are for spans; nobody else's headers need them.
            propagate: Some(boolean(false)),
        }),
        action: Some(Action::Route(action)),
        ..Route::default()
    };
    RouteConfiguration {
        name: cluster.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: cluster
                .replacen("inbound|", "inbound|http|", 1)
                .trim_end_matches('|')
                .to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..VirtualHost::default()
        }],
        validate_clusters: Some(boolean(false)),
        ..RouteConfiguration::default()
    }
}
