//! `meshctl local status`: the supervisor, the control plane, the pods, in a few lines.

use serde_json::Value;

use super::get::columns;
use crate::{
    context::Context,
    output::{self, Format, Table},
};

pub async fn run(context: &Context) -> anyhow::Result<i32> {
    let status = context.client.status().await?;
    output::line(&format!(
        "mesh      {} (supervisor: process {}, since {})",
        status.version, status.pid, status.started
    ));
    output::line(&format!("state     {}", status.dir));
    output::line(&format!("network   namespace {}", status.node_namespace));
    match status.gateway_port {
        Some(port) => output::line(&format!("gateway   http://127.0.0.1:{port}/")),
        None => output::line("gateway   no port on the host"),
    }
    let pods = context.objects("pod", "", "").await?;
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    output::line(&format!("pods      {ready} of {} ready\n", pods.len()));
    let system = mesh_proto::names::SYSTEM_NAMESPACE;
    let mut table = Table::new(&columns::pod_heading(Format::Table));
    for pod in pods.iter().filter(|pod| pod["metadata"]["namespace"] == system) {
        table.row(columns::pod(pod, Format::Table));
    }
    output::print(&table.to_string());
    Ok(i32::from(ready < pods.len()))
}

fn is_ready(pod: &Value) -> bool {
    pod["status"]["phase"] == "Succeeded" || crate::local::controller::endpoint::is_ready(pod)
}
