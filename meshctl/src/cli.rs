//! The commands and flags. Names and flags are istioctl's and kubectl's where these have them; each command's own
//! arguments stand with the command.

use clap::{Parser, Subcommand};

use crate::{
    command::{
        admin, analyze, authz, bug_report, check, completion, dashboard, describe, injector, install,
        kube_inject, local::Local, manifest, precheck, proxy_config, proxy_status, uninstall, upgrade,
        validate, verify_install, version, wait,
    },
    context::Target,
};

#[cfg(test)]
mod pages;

/// See, check and run the mesh.
#[derive(Debug, Parser)]
#[command(name = "meshctl", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub target: Target,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The mesh on this machine: no Kubernetes, no containers
    Local {
        #[command(subcommand)]
        command: Local,
        #[command(flatten)]
        not_here: NotHere,
    },
    /// Puts the mesh into a cluster, or changes it there
    Install(install::Arguments),
    /// Whether the mesh can be installed in a cluster
    Precheck(precheck::Arguments),
    /// Whether everything that was installed is there, unchanged and ready
    VerifyInstall(verify_install::Arguments),
    /// Puts this program's version in place of the one that is there; takes it back when it does not get ready
    Upgrade(upgrade::Arguments),
    /// Takes the mesh out of a cluster
    Uninstall(uninstall::Arguments),
    /// What would be installed, as YAML, and how it differs from what is there
    #[command(visible_alias = "m")]
    Manifest(manifest::Arguments),
    /// Whether the mesh is well, point by point
    Check(check::Arguments),
    /// Which proxies have which configuration
    #[command(visible_alias = "ps")]
    ProxyStatus(proxy_status::Arguments),
    /// What a proxy is configured to do
    #[command(visible_alias = "pc")]
    ProxyConfig(proxy_config::Arguments),
    /// Finds mistakes in files, in the running mesh, or in the mesh as it would be with the files
    Analyze(analyze::Arguments),
    /// Whether single objects in files are valid
    #[command(visible_alias = "v")]
    Validate(validate::Arguments),
    /// What the mesh does with a pod or a service, and why
    #[command(visible_alias = "des")]
    Describe(describe::Arguments),
    /// Who may talk to a workload
    Authz(authz::Arguments),
    /// Waits until every proxy has an object as it is now
    Wait(wait::Arguments),
    /// Adds sidecars to the workloads in a file
    KubeInject(kube_inject::Arguments),
    /// Which namespaces get sidecars, and from which control plane
    Injector(injector::Arguments),
    /// Opens the way to a page of the mesh
    #[command(visible_aliases = ["dash", "d"])]
    Dashboard(dashboard::Arguments),
    /// The control plane's own settings
    #[command(visible_alias = "istiod")]
    Admin(admin::Arguments),
    /// Gathers what is needed to understand a fault into one archive, without secrets
    BugReport(bug_report::Arguments),
    /// Commands under the names of their experimental days
    #[command(visible_alias = "x")]
    Experimental {
        #[command(subcommand)]
        command: Experimental,
    },
    /// Versions of meshctl, of the control plane and of the proxies
    Version(version::Arguments),
    /// A completion script for a shell
    Completion(completion::Arguments),
}

/// What istioctl has, or had, under `experimental`.
#[derive(Debug, Subcommand)]
pub enum Experimental {
    /// As `meshctl describe`
    #[command(visible_alias = "des")]
    Describe(describe::Arguments),
    /// As `meshctl authz`
    Authz(authz::Arguments),
    /// As `meshctl wait`
    Wait(wait::Arguments),
    /// As `meshctl injector`
    Injector(injector::Arguments),
}

/// Flags that name a cluster: the local mesh is none. They are here so that they are told apart from flags of the same
/// letter below `meshctl local`.
#[derive(Debug, Default, clap::Args)]
pub struct NotHere {
    #[arg(long, hide = true)]
    pub kubeconfig: Option<std::path::PathBuf>,
    #[arg(long, hide = true)]
    pub context: Option<String>,
    #[arg(long, hide = true)]
    pub namespace: Option<String>,
    #[arg(long = "istioNamespace", hide = true)]
    pub istio_namespace: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn familiar_lines_are_understood() {
        for line in [
            "meshctl local up --gateway-port 8081 --image web=python3",
            "meshctl local apply -f a.yaml -f b/",
            "meshctl local get pods -A -o wide",
            "meshctl local get vs reviews -n default -o yaml",
            "meshctl local exec reviews -c app -- sh -c true",
            "meshctl local exec -i reviews -n default -- cat",
            "meshctl local logs reviews -c istio-proxy -f",
            "meshctl local delete pod x --grace-period 0",
            "meshctl local rollout restart deployment/reviews-v1",
            "meshctl local scale deployment/reviews-v1 --replicas 3",
            "meshctl proxy-status --dir /tmp/x",
            "meshctl ps reviews-v1.default --kubeconfig k -i istio-system",
            "meshctl proxy-config cluster reviews-v1.default -o json",
            "meshctl pc clusters reviews-v1.default --fqdn reviews --direction outbound --subset v1",
            "meshctl pc listeners reviews-v1 --port 15006 --address 0.0.0.0",
            "meshctl pc routes reviews-v1 --name 9080 -o yaml",
            "meshctl pc endpoints reviews-v1 --cluster x --status healthy",
            "meshctl pc log reviews-v1 --level debug",
            "meshctl pc all reviews-v1 -n default",
            "meshctl pc bootstrap reviews-v1",
            "meshctl pc ecds reviews-v1",
            "meshctl analyze samples/ -R --use-kube=false",
            "meshctl analyze -A --failure-threshold Warning --output-threshold=info -o yaml",
            "meshctl analyze -n default -S IST0102=Namespace*",
            "meshctl analyze -k a.yaml -",
            "meshctl validate -f a.yaml",
            "meshctl describe pod reviews-v1 -n default",
            "meshctl x describe service reviews.default",
            "meshctl x authz check reviews-v1",
            "meshctl x wait --for=distribution virtualservice reviews.default --timeout 10s",
            "meshctl kube-inject -f a.yaml -o b.yaml",
            "meshctl x injector list",
            "meshctl dashboard --port 8080",
            "meshctl dashboard envoy reviews-v1.default",
            "meshctl admin log --level debug",
            "meshctl bug-report --tail 100",
            "meshctl check -o json",
            "meshctl version --short -o json",
            "meshctl completion bash",
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }

    /// The flags of clusters do not reach below `local`, whose commands use their letters otherwise.
    #[test]
    fn the_local_mesh_has_its_own_letters() {
        let cli = Cli::parse_from("meshctl local logs reviews -c istio-proxy -n shop".split(' '));
        assert_eq!((cli.target.kubeconfig, cli.target.context), (None, None));
        let cli = Cli::parse_from("meshctl --kubeconfig k local status".split(' '));
        assert_eq!(cli.target.kubeconfig, Some("k".into()));
    }

    #[test]
    fn the_mesh_that_is_meant() {
        let cli = Cli::parse_from("meshctl ps -c k --context a -n shop -i mesh".split(' '));
        assert_eq!(cli.target.kubeconfig, Some("k".into()));
        assert_eq!(cli.target.context.as_deref(), Some("a"));
        assert_eq!(cli.target.namespace.as_deref(), Some("shop"));
        assert_eq!(cli.target.istio_namespace, "mesh");
        let cli = Cli::parse_from("meshctl ps".split(' '));
        assert_eq!(cli.target.istio_namespace, "istio-system");
    }
}
