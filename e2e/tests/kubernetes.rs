//! The mesh on a real Kubernetes, shown: kubelets and containers included, installed by the commands of the guide. One cluster for
//! all tests, in this order; what takes the mesh out comes last. `cargo test -p mesh-e2e --test kubernetes -- lessons` runs some
//! of them, and with `KUBECONFIG` set they run on the cluster that it names (`e2e/src/installed.rs` says what that one needs).

#[path = "kubernetes/bookinfo.rs"]
mod bookinfo;
#[path = "kubernetes/end.rs"]
mod end;
#[path = "kubernetes/helm.rs"]
mod helm;
#[path = "kubernetes/injection.rs"]
mod injection;
#[path = "kubernetes/manifests.rs"]
mod manifests;
#[path = "kubernetes/outage.rs"]
mod outage;
#[path = "kubernetes/rights.rs"]
mod rights;
#[path = "kubernetes/rolling.rs"]
mod rolling;

fn main() -> std::process::ExitCode {
    mesh_e2e::run::main(mesh_e2e::tests![
        bookinfo: sidecars_by_themselves, proxies_are_synced, lessons;
        injection: the_table, again, lived, errors_are_events;
        manifests: samples_twice, samples_are_clean, schemas, beyond_schemas;
        rolling: gateway_grows, a_node_is_drained, everything_is_rolled, an_upgrade, an_upgrade_that_fails;
        outage: no_api_server_for_a_minute;
        rights: all_are_known, of_people, each_taken_and_given_back;
        end: nothing_is_left;
        helm: charts, profiles, tracing_values, a_revision, another_namespace
    ])
}
