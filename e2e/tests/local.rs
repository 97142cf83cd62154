//! The mesh on one machine, shown: real network namespaces, real processes, real peers. One mesh for all tests, in this order;
//! what takes it apart comes last. `cargo test -p mesh-e2e --test local -- traffic::weights` runs some of them.

#[path = "local/authorization.rs"]
mod authorization;
#[path = "local/configuration.rs"]
mod configuration;
#[path = "local/end.rs"]
mod end;
#[path = "local/lessons.rs"]
mod lessons;
#[path = "local/matrix.rs"]
mod matrix;
#[path = "local/mtls.rs"]
mod mtls;
#[path = "local/protocols.rs"]
mod protocols;
#[path = "local/resilience.rs"]
mod resilience;
#[path = "local/sidecar.rs"]
mod sidecar;
#[path = "local/stock.rs"]
mod stock;
#[path = "local/telemetry.rs"]
mod telemetry;
#[path = "local/traffic.rs"]
mod traffic;
#[path = "local/up.rs"]
mod up;

fn main() -> std::process::ExitCode {
    mesh_e2e::run::main(mesh_e2e::tests![
        up: control_plane_is_ready, proxies_are_synced, page_answers_through_the_gateway, page_in_a_browser, unknown_image_hurts_no_other;
        traffic: weights_80_20, weights_change_under_load;
        lessons: all_versions, all_v1, shares, by_user, delay, abort, timeout, rewrite_and_redirect, redis, others;
        traffic: retry, timeout_names_its_reason;
        mtls: permissive_takes_both, strict_refuses_plaintext, wire_is_tls_only;
        authorization: by_principal, by_path_and_method, denial_names_the_policy;
        protocols: grpc, websocket, server_first, sniffed_http, spelling_is_kept, redis_client, upload_1_gib, download_1_gib, idle_connections_8000;
        configuration: malformed_virtual_service, reference_to_nothing, invalid_yaml, unknown_field;
        telemetry: prometheus_agrees, graph_shows_the_edges, dashboard_in_a_browser, telemetry_away;
        resilience: certificates_rotate_under_load, wrong_token_is_refused, citadel_away, pilot_away, rolling_restart;
        sidecar: egress_by_port, egress_proxy, ingress, proxy_config;
        stock: envoy_gateway;
        matrix: same_outcome;
        end: kill_everything_then_up, down_leaves_nothing
    ])
}
