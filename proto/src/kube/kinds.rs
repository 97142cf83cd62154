//! The table of kinds.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Defines the enum and its table at once: kind, group, served versions (preferred first), plural, short names, scope.
macro_rules! kinds {
    ($($kind:ident $group:literal [$($version:literal)+] $dashed:literal $plural:literal [$($short:literal)*] $scope:ident;)*) => {
        /// A kind of object that the mesh reads.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Kind { $($kind),* }

        impl Kind {
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            fn row(self) -> &'static Row {
                match self {
                    $(Self::$kind => {
                        const ROW: Row = Row {
                            name: stringify!($kind),
                            group: $group,
                            versions: &[$($version),+],
                            dashed: $dashed,
                            plural: $plural,
                            short: &[$($short),*],
                            namespaced: scope!($scope),
                        };
                        &ROW
                    })*
                }
            }
        }
    };
}

macro_rules! scope {
    (Namespaced) => {
        true
    };
    (Cluster) => {
        false
    };
}

struct Row {
    name: &'static str,
    group: &'static str,
    versions: &'static [&'static str],
    dashed: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
}

kinds! {
    Namespace "" ["v1"] "namespace" "namespaces" ["ns"] Cluster;
    Service "" ["v1"] "service" "services" ["svc"] Namespaced;
    Pod "" ["v1"] "pod" "pods" ["po"] Namespaced;
    ServiceAccount "" ["v1"] "service-account" "serviceaccounts" ["sa"] Namespaced;
    ConfigMap "" ["v1"] "config-map" "configmaps" ["cm"] Namespaced;
    Secret "" ["v1"] "secret" "secrets" [] Namespaced;
    Node "" ["v1"] "node" "nodes" ["no"] Cluster;
    EndpointSlice "discovery.k8s.io" ["v1"] "endpoint-slice" "endpointslices" [] Namespaced;
    Deployment "apps" ["v1"] "deployment" "deployments" ["deploy"] Namespaced;
    ReplicaSet "apps" ["v1"] "replica-set" "replicasets" ["rs"] Namespaced;
    StatefulSet "apps" ["v1"] "stateful-set" "statefulsets" ["sts"] Namespaced;
    DaemonSet "apps" ["v1"] "daemon-set" "daemonsets" ["ds"] Namespaced;
    Job "batch" ["v1"] "job" "jobs" [] Namespaced;
    MutatingWebhookConfiguration "admissionregistration.k8s.io" ["v1"] "mutating-webhook-configuration" "mutatingwebhookconfigurations" [] Cluster;
    ValidatingWebhookConfiguration "admissionregistration.k8s.io" ["v1"] "validating-webhook-configuration" "validatingwebhookconfigurations" [] Cluster;
    CronJob "batch" ["v1"] "cron-job" "cronjobs" ["cj"] Namespaced;
    VirtualService "networking.istio.io" ["v1" "v1beta1" "v1alpha3"] "virtual-service" "virtualservices" ["vs"] Namespaced;
    DestinationRule "networking.istio.io" ["v1" "v1beta1" "v1alpha3"] "destination-rule" "destinationrules" ["dr"] Namespaced;
    Gateway "networking.istio.io" ["v1" "v1beta1" "v1alpha3"] "gateway" "gateways" ["gw"] Namespaced;
    ServiceEntry "networking.istio.io" ["v1" "v1beta1" "v1alpha3"] "service-entry" "serviceentries" ["se"] Namespaced;
    WorkloadEntry "networking.istio.io" ["v1" "v1beta1" "v1alpha3"] "workload-entry" "workloadentries" ["we"] Namespaced;
    WorkloadGroup "networking.istio.io" ["v1" "v1beta1" "v1alpha3"] "workload-group" "workloadgroups" ["wg"] Namespaced;
    Sidecar "networking.istio.io" ["v1" "v1beta1" "v1alpha3"] "sidecar" "sidecars" [] Namespaced;
    ProxyConfig "networking.istio.io" ["v1beta1"] "proxy-config" "proxyconfigs" [] Namespaced;
    EnvoyFilter "networking.istio.io" ["v1alpha3"] "envoy-filter" "envoyfilters" [] Namespaced;
    PeerAuthentication "security.istio.io" ["v1" "v1beta1"] "peer-authentication" "peerauthentications" ["pa"] Namespaced;
    RequestAuthentication "security.istio.io" ["v1" "v1beta1"] "request-authentication" "requestauthentications" ["ra"] Namespaced;
    AuthorizationPolicy "security.istio.io" ["v1" "v1beta1"] "authorization-policy" "authorizationpolicies" ["ap"] Namespaced;
    Telemetry "telemetry.istio.io" ["v1" "v1alpha1"] "telemetry" "telemetries" ["telemetry"] Namespaced;
    WasmPlugin "extensions.istio.io" ["v1alpha1"] "wasm-plugin" "wasmplugins" [] Namespaced;
    TrafficExtension "extensions.istio.io" ["v1alpha1"] "traffic-extension" "trafficextensions" [] Namespaced;
}

/// Why an `apiVersion` and `kind` are none of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotOurs {
    /// The kind is known, the version is not served.
    Version(Kind),
    /// In one of the mesh's groups, but not known.
    MeshKind,
    /// Of somebody else.
    Foreign,
}

impl Kind {
    /// From an object's `apiVersion` and `kind`.
    pub fn of(api_version: &str, kind: &str) -> Result<Self, NotOurs> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        match Self::ALL
            .iter()
            .find(|known| known.as_str() == kind && known.group() == group)
        {
            Some(known) if known.row().versions.contains(&version) => Ok(*known),
            Some(known) => Err(NotOurs::Version(*known)),
            None if group.ends_with(".istio.io") => Err(NotOurs::MeshKind),
            None => Err(NotOurs::Foreign),
        }
    }

    /// As people type it: `virtualservice`, `virtualservices`, `vs`, `virtualservices.networking.istio.io`.
    pub fn named(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let (name, group) = lower
            .split_once('.')
            .map_or((lower.as_str(), None), |(name, group)| (name, Some(group)));
        Self::ALL.iter().copied().find(|kind| {
            let row = kind.row();
            (kind.lower() == name || row.plural == name || row.short.contains(&name))
                && group.is_none_or(|group| group == row.group)
        })
    }

    pub fn as_str(self) -> &'static str {
        self.row().name
    }

    /// `virtualservice`
    pub fn lower(self) -> String {
        self.as_str().to_ascii_lowercase()
    }

    /// `virtual-service`
    pub fn dashed(self) -> &'static str {
        self.row().dashed
    }

    /// `virtualservices`
    pub fn plural(self) -> &'static str {
        self.row().plural
    }

    /// What else people type: `vs`.
    pub fn short_names(self) -> &'static [&'static str] {
        self.row().short
    }

    /// Empty for Kubernetes' core.
    pub fn group(self) -> &'static str {
        self.row().group
    }

    /// Served versions, the preferred one first.
    pub fn versions(self) -> &'static [&'static str] {
        self.row().versions
    }

    /// The preferred one: `networking.istio.io/v1`.
    pub fn api_version(self) -> String {
        let version = self.row().versions.first().copied().unwrap_or_default();
        if self.group().is_empty() {
            version.to_owned()
        } else {
            format!("{}/{version}", self.group())
        }
    }

    pub fn is_namespaced(self) -> bool {
        self.row().namespaced
    }

    /// Of the mesh's own API, in which unknown fields are errors.
    pub fn is_mesh(self) -> bool {
        self.group().ends_with(".istio.io")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of() {
        let check = |api_version: &str, kind: &str, expect: Result<Kind, NotOurs>| {
            assert_eq!(Kind::of(api_version, kind), expect, "{api_version} {kind}");
        };
        check("v1", "Service", Ok(Kind::Service));
        check("networking.istio.io/v1alpha3", "Gateway", Ok(Kind::Gateway));
        check(
            "networking.istio.io/v2",
            "Gateway",
            Err(NotOurs::Version(Kind::Gateway)),
        );
        check("gateway.networking.k8s.io/v1", "Gateway", Err(NotOurs::Foreign));
        check(
            "networking.istio.io/v1",
            "EnvoyFilter",
            Err(NotOurs::Version(Kind::EnvoyFilter)),
        );
        check("networking.istio.io/v1", "Ingress", Err(NotOurs::MeshKind));
    }

    #[test]
    fn named() {
        for text in [
            "vs",
            "VirtualService",
            "virtualservices",
            "virtualservices.networking.istio.io",
        ] {
            assert_eq!(Kind::named(text), Some(Kind::VirtualService), "{text}");
        }
        assert_eq!(Kind::named("virtualservices.apps"), None);
        assert_eq!(Kind::VirtualService.api_version(), "networking.istio.io/v1");
    }
}
