//! `meshctl describe pod|service`: what the mesh does with it, and why. The objects are read from the mesh and understood
//! as pilot understands them; no proxy is asked.

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use mesh_proto::kube::Kind;

use crate::{
    context::Mesh,
    describe, output,
    world::{self, Part, Understood},
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Debug, Subcommand)]
pub enum What {
    /// Services that lead to it, rules that count for it, mTLS, policies
    #[command(visible_alias = "po")]
    Pod {
        /// POD, POD.NAMESPACE or deployment/NAME
        pod: String,
        /// Say as much of a pod without a sidecar
        #[arg(long = "ignoreUnmeshed", visible_alias = "ignore-unmeshed")]
        ignore_unmeshed: bool,
    },
    /// The same for a Service and all of its pods
    #[command(visible_alias = "svc")]
    Service {
        /// SERVICE or SERVICE.NAMESPACE
        service: String,
    },
}

pub async fn run(arguments: Arguments, mesh: &Mesh) -> anyhow::Result<i32> {
    match arguments.what {
        What::Pod { pod, ignore_unmeshed } => {
            let object = mesh.pod(&pod).await?;
            let understood = Understood::new(world::objects(mesh, Part::Traffic).await?);
            output::print(&describe::pod(&understood, &object, ignore_unmeshed));
        }
        What::Service { service } => {
            let (name, namespace) = split(&service, &mesh.namespace);
            let found = mesh.objects(Kind::Service, namespace, name).await?;
            if found.is_empty() {
                bail!("there is no Service {name} in namespace {namespace} of {mesh}");
            }
            let understood = Understood::new(world::objects(mesh, Part::Traffic).await?);
            let known = understood
                .world()
                .services
                .values()
                .find(|known| known.name == name && known.namespace == namespace)
                .with_context(|| {
                    format!(
                        "Service {namespace}/{name} has an error; `meshctl analyze -n {namespace}` says which"
                    )
                })?;
            output::print(&describe::service(&understood, known));
        }
    }
    Ok(0)
}

/// `name.namespace`; names of Services have no dots.
fn split<'a>(written: &'a str, namespace: &'a str) -> (&'a str, &'a str) {
    written.split_once('.').unwrap_or((written, namespace))
}
