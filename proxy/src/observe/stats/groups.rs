//! The named numbers that Envoy users know, in groups: one group of cells per cluster, listener, connection manager
//! and TCP proxy and worker, allocated at once when the worker first touches the object. A name is in exactly one table
//! here. Fields ending in `_active` and the like are gauges; the rest only grow.

use super::cell::{Counter, Gauge, Histogram};

/// One number of a group, as the scrape meets it.
pub enum Cell<'a> {
    Counter(&'a Counter),
    Gauge(&'a Gauge),
    Histogram(&'a Histogram),
}

/// A set of cells that are born together.
pub trait Group: Default + Send + Sync + 'static {
    /// The first segment of the text name: `cluster`, `listener`, `http`, `tcp`.
    const SCOPE: &'static str;
    /// The Prometheus label that carries the object's name.
    const LABEL: &'static str;
    /// The group's cells, always in the same order.
    fn cells(&self) -> Vec<(&'static str, Cell<'_>)>;
}

macro_rules! group {
    ($(#[$doc:meta])* $name:ident, $scope:literal, $label:literal,
     counters { $($counter:ident),* $(,)? } gauges { $($gauge:ident),* $(,)? } histograms { $($histogram:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $name {
            $(pub $counter: Counter,)*
            $(pub $gauge: Gauge,)*
            $(pub $histogram: Histogram,)*
        }

        impl Group for $name {
            const SCOPE: &'static str = $scope;
            const LABEL: &'static str = $label;
            fn cells(&self) -> Vec<(&'static str, Cell<'_>)> {
                vec![
                    $((stringify!($counter), Cell::Counter(&self.$counter)),)*
                    $((stringify!($gauge), Cell::Gauge(&self.$gauge)),)*
                    $((stringify!($histogram), Cell::Histogram(&self.$histogram)),)*
                ]
            }
        }
    };
}

group! {
    /// `cluster.<name>.*`
    ClusterStats, "cluster", "envoy_cluster_name",
    counters {
        upstream_cx_total, upstream_cx_http1_total, upstream_cx_http2_total, upstream_cx_connect_fail,
        upstream_cx_connect_timeout, upstream_cx_idle_timeout, upstream_cx_destroy, upstream_cx_destroy_local,
        upstream_cx_destroy_remote, upstream_cx_overflow, upstream_cx_pool_overflow, upstream_cx_none_healthy,
        upstream_cx_max_requests, upstream_cx_protocol_error, upstream_cx_rx_bytes_total, upstream_cx_tx_bytes_total,
        upstream_rq_total, upstream_rq_completed, upstream_rq_1xx, upstream_rq_2xx, upstream_rq_3xx, upstream_rq_4xx,
        upstream_rq_5xx, upstream_rq_timeout, upstream_rq_per_try_timeout, upstream_rq_rx_reset, upstream_rq_tx_reset,
        upstream_rq_retry, upstream_rq_retry_success, upstream_rq_retry_limit_exceeded, upstream_rq_retry_overflow,
        upstream_rq_pending_total, upstream_rq_pending_overflow, upstream_rq_pending_failure_eject,
        upstream_rq_cancelled, upstream_rq_maintenance_mode,
        upstream_cx_ssl_handshake, upstream_cx_ssl_fail_verify_error, upstream_cx_ssl_connection_error,
        lb_healthy_panic, outlier_detection_ejections_enforced_total,
    }
    gauges { upstream_cx_active, upstream_rq_active, upstream_rq_pending_active, outlier_detection_ejections_active }
    histograms { upstream_rq_time, upstream_cx_connect_ms }
}

group! {
    /// One endpoint of one cluster; shown on `/clusters`, not among the stats, as in Envoy.
    HostStats, "host", "host",
    counters { cx_connect_fail, cx_total, rq_error, rq_success, rq_timeout, rq_total }
    gauges { cx_active, rq_active }
    histograms {}
}

group! {
    /// `listener.<address>.*`
    ListenerStats, "listener", "envoy_listener_address",
    counters {
        downstream_cx_total, downstream_cx_destroy, downstream_cx_overflow, downstream_pre_cx_timeout,
        downstream_listener_filter_error, no_filter_chain_match, no_certificate,
        ssl_handshake, ssl_connection_error, ssl_fail_verify_error, ssl_fail_verify_no_cert, ssl_fail_verify_san,
    }
    gauges { downstream_cx_active, downstream_pre_cx_active }
    histograms { downstream_cx_length_ms }
}

group! {
    /// `http.<stat prefix>.*`
    HttpStats, "http", "envoy_http_conn_manager_prefix",
    counters {
        downstream_cx_total, downstream_cx_http1_total, downstream_cx_http2_total, downstream_cx_upgrades_total,
        downstream_cx_ssl_total, downstream_cx_destroy, downstream_cx_destroy_remote_active_rq, downstream_cx_idle_timeout,
        downstream_cx_protocol_error, downstream_cx_rx_bytes_total, downstream_cx_tx_bytes_total,
        downstream_cx_drain_close, downstream_cx_max_duration_reached,
        downstream_rq_total, downstream_rq_http1_total, downstream_rq_http2_total, downstream_rq_completed,
        downstream_rq_1xx, downstream_rq_2xx, downstream_rq_3xx, downstream_rq_4xx, downstream_rq_5xx,
        downstream_rq_rx_reset, downstream_rq_tx_reset, downstream_rq_too_large, downstream_rq_timeout,
        downstream_rq_idle_timeout, downstream_rq_header_timeout, downstream_rq_max_duration_reached, downstream_rq_failed_path_normalization,
        downstream_rq_ws_on_non_ws_route, downstream_rq_redirected_with_normalized_path, rs_too_large,
        downstream_rq_too_many_premature_resets,
        no_route, no_cluster, rq_total, rq_redirect, rq_direct_response, rq_mirrored, rq_mirror_dropped,
        rbac_allowed, rbac_denied, rbac_shadow_allowed, rbac_shadow_denied, jwt_authn_allowed, jwt_authn_denied,
        fault_delays_injected, fault_aborts_injected, fault_faults_overflow, cors_origin_valid, cors_origin_invalid,
        tracing_random_sampling, tracing_service_forced, tracing_client_enabled, tracing_not_traceable,
    }
    gauges { downstream_cx_active, downstream_cx_http1_active, downstream_cx_http2_active, downstream_cx_upgrades_active, downstream_rq_active, fault_active_faults }
    histograms { downstream_rq_time }
}

group! {
    /// `tcp.<stat prefix>.*`
    TcpStats, "tcp", "envoy_tcp_prefix",
    counters {
        downstream_cx_total, downstream_cx_no_route, downstream_cx_rx_bytes_total, downstream_cx_tx_bytes_total,
        idle_timeout, max_downstream_connection_duration, upstream_flush_total, rbac_allowed, rbac_denied,
        rbac_shadow_allowed, rbac_shadow_denied,
    }
    gauges { downstream_cx_active }
    histograms {}
}

impl ClusterStats {
    /// Counts an answer by the class of its status.
    pub fn answered(&self, status: u16) {
        self.upstream_rq_completed.inc();
        match status / 100 {
            1 => self.upstream_rq_1xx.inc(),
            2 => self.upstream_rq_2xx.inc(),
            3 => self.upstream_rq_3xx.inc(),
            4 => self.upstream_rq_4xx.inc(),
            5 => self.upstream_rq_5xx.inc(),
            _ => {}
        }
    }
}

impl HttpStats {
    /// Counts an answer by the class of its status.
    pub fn answered(&self, status: u16) {
        self.downstream_rq_completed.inc();
        match status / 100 {
            1 => self.downstream_rq_1xx.inc(),
            2 => self.downstream_rq_2xx.inc(),
            3 => self.downstream_rq_3xx.inc(),
            4 => self.downstream_rq_4xx.inc(),
            5 => self.downstream_rq_5xx.inc(),
            _ => {}
        }
    }
}

/// Numbers of the control thread and its tasks: several threads may write, so writes go through
/// [`Counter::add_shared`] or [`Gauge::set`].
#[derive(Debug, Default)]
pub struct ControlStats {
    pub connected_state: Gauge,
    pub xds_reconnects: Counter,
    pub cds_update_success: Counter,
    pub cds_update_rejected: Counter,
    pub lds_update_success: Counter,
    pub lds_update_rejected: Counter,
    pub rds_update_success: Counter,
    pub rds_update_rejected: Counter,
    pub eds_update_success: Counter,
    pub eds_update_rejected: Counter,
    pub sds_update_success: Counter,
    pub sds_update_rejected: Counter,
    pub nds_update_success: Counter,
    pub nds_update_rejected: Counter,
    pub active_clusters: Gauge,
    pub warming_clusters: Gauge,
    pub total_listeners_active: Gauge,
    pub total_listeners_warming: Gauge,
    pub total_listeners_draining: Gauge,
    pub access_log_written: Counter,
    pub access_log_dropped: Counter,
    pub access_log_failed: Counter,
    pub report_sent: Counter,
    pub report_dropped: Counter,
    pub spans_sent: Counter,
    pub spans_dropped: Counter,
    pub dns_requests: Counter,
    pub dns_answered: Counter,
    pub dns_forwarded: Counter,
    pub dns_failed: Counter,
    pub dns_refused: Counter,
    pub label_sets_overflow: Counter,
    pub label_sets_expired: Counter,
}

impl ControlStats {
    /// Text name, Prometheus name and cell of each number.
    pub fn cells(&self) -> Vec<(&'static str, Cell<'_>)> {
        use Cell::{Counter as C, Gauge as G};
        vec![
            ("control_plane.connected_state", G(&self.connected_state)),
            ("control_plane.reconnects", C(&self.xds_reconnects)),
            ("cluster_manager.cds.update_success", C(&self.cds_update_success)),
            (
                "cluster_manager.cds.update_rejected",
                C(&self.cds_update_rejected),
            ),
            ("listener_manager.lds.update_success", C(&self.lds_update_success)),
            (
                "listener_manager.lds.update_rejected",
                C(&self.lds_update_rejected),
            ),
            ("rds.update_success", C(&self.rds_update_success)),
            ("rds.update_rejected", C(&self.rds_update_rejected)),
            ("eds.update_success", C(&self.eds_update_success)),
            ("eds.update_rejected", C(&self.eds_update_rejected)),
            ("sds.update_success", C(&self.sds_update_success)),
            ("sds.update_rejected", C(&self.sds_update_rejected)),
            ("nds.update_success", C(&self.nds_update_success)),
            ("nds.update_rejected", C(&self.nds_update_rejected)),
            ("cluster_manager.active_clusters", G(&self.active_clusters)),
            ("cluster_manager.warming_clusters", G(&self.warming_clusters)),
            (
                "listener_manager.total_listeners_active",
                G(&self.total_listeners_active),
            ),
            (
                "listener_manager.total_listeners_warming",
                G(&self.total_listeners_warming),
            ),
            (
                "listener_manager.total_listeners_draining",
                G(&self.total_listeners_draining),
            ),
            ("access_log.written", C(&self.access_log_written)),
            ("access_log.dropped", C(&self.access_log_dropped)),
            ("access_log.failed", C(&self.access_log_failed)),
            ("access_logs.grpc_access_log.logs_written", C(&self.report_sent)),
            (
                "access_logs.grpc_access_log.logs_dropped",
                C(&self.report_dropped),
            ),
            ("tracing.opentelemetry.spans_sent", C(&self.spans_sent)),
            ("tracing.opentelemetry.spans_dropped", C(&self.spans_dropped)),
            ("dns.requests", C(&self.dns_requests)),
            ("dns.answered", C(&self.dns_answered)),
            ("dns.forwarded", C(&self.dns_forwarded)),
            ("dns.failed", C(&self.dns_failed)),
            ("dns.refused", C(&self.dns_refused)),
            ("stats.label_sets_overflow", C(&self.label_sets_overflow)),
            ("stats.label_sets_expired", C(&self.label_sets_expired)),
        ]
    }
}
