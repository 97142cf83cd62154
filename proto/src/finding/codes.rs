//! The table of codes: the only place where a code is made. Numbers, names and levels are Istio's
//! (<https://istio.io/latest/docs/reference/config/analysis/>), ours begin with `GSM`. Each row also has what the
//! reference page (`docs/reference/findings.md`) says: what the code means, and what to do about it.

use super::Level;

/// One row of the table of codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    pub code: &'static str,
    pub name: &'static str,
    pub level: Level,
    /// One sentence for the reference page.
    pub meaning: &'static str,
    /// What to do about it, for the reference page.
    pub remedy: &'static str,
}

/// Defines the constants and the table of all of them at once.
macro_rules! codes {
    ($($constant:ident = $code:literal $name:literal $level:ident $meaning:literal $remedy:literal;)*) => {
        $(pub const $constant: Code = Code {
            code: $code,
            name: $name,
            level: Level::$level,
            meaning: $meaning,
            remedy: $remedy,
        };)*
        /// Every code there is, in the order of their numbers.
        pub const CODES: &[Code] = &[$($constant),*];
    };
}

codes! {
    DEPRECATED = "IST0002" "Deprecated" Warning
        "A field is on its way out of the API."
        "Use the field that the text names instead.";
    REFERENCED_RESOURCE_NOT_FOUND = "IST0101" "ReferencedResourceNotFound" Error
        "What the object refers to does not exist."
        "Correct the name (hosts without dots are looked up in the object's own namespace), or make what is missing.";
    NAMESPACE_NOT_INJECTED = "IST0102" "NamespaceNotInjected" Info
        "The namespace has no label that asks for sidecars or declines them."
        "Label it `istio-injection=enabled`, or `istio-injection=disabled` to say that this is meant.";
    POD_MISSING_PROXY = "IST0103" "PodMissingProxy" Warning
        "The pod should have a sidecar and has none; it was started before the namespace was labelled."
        "Restart it: `kubectl rollout restart deployment NAME`.";
    SCHEMA_VALIDATION_ERROR = "IST0106" "SchemaValidationError" Error
        "The object is not valid; its last good version stays in effect."
        "Correct the field that the text names.";
    MISPLACED_ANNOTATION = "IST0107" "MisplacedAnnotation" Warning
        "The annotation has no effect on this kind of object."
        "Move it to the kind that the text names; for workloads that is `spec.template.metadata`.";
    UNKNOWN_ANNOTATION = "IST0108" "UnknownAnnotation" Warning
        "An annotation in one of the mesh's domains that the mesh does not know."
        "Correct its name, or remove it.";
    CONFLICTING_MESH_HOSTS = "IST0109" "ConflictingMeshGatewayVirtualServiceHosts" Error
        "Two VirtualServices for the mesh's own traffic name the same host; only one of them counts."
        "Merge them into one, or narrow `exportTo` so that no namespace sees both.";
    CONFLICTING_SIDECAR_SELECTORS = "IST0110" "ConflictingSidecarWorkloadSelectors" Error
        "Two Sidecars select the same pod; only one of them counts."
        "Change the selectors so that each pod is selected once.";
    MULTIPLE_SIDECARS_WITHOUT_SELECTOR = "IST0111" "MultipleSidecarsWithoutWorkloadSelectors" Error
        "Two Sidecars of a namespace select all of its pods; only one of them counts."
        "Keep one, or give the others a `workloadSelector`.";
    DESTINATION_PORT_REQUIRED = "IST0112" "VirtualServiceDestinationPortSelectorRequired" Error
        "A destination has several ports and the route does not say which one."
        "Set `destination.port.number`.";
    MTLS_POLICY_CONFLICT = "IST0113" "MTLSPolicyConflict" Error
        "A DestinationRule sends plain text where a PeerAuthentication demands mTLS, or the other way round."
        "Remove `trafficPolicy.tls` from the DestinationRule: mTLS is automatic.";
    MULTIPLE_SERVICES_ONE_PORT = "IST0116" "DeploymentAssociatedToMultipleServices" Warning
        "Several Services select the workload's pods and use the same port with different protocols."
        "Give the Services different ports, or the same protocol.";
    PORT_NAME_CONVENTION = "IST0118" "PortNameIsNotUnderNamingConvention" Info
        "The port's protocol is not declared, so the proxy has to find it out."
        "Name the port `<protocol>-<anything>` (`http-web`, `tcp-db`), or set `appProtocol`.";
    JWT_PORT_NOT_HTTP = "IST0119" "JwtFailureDueToInvalidServicePortPrefix" Warning
        "A RequestAuthentication applies to a port that is not declared to be HTTP, so tokens are not looked at there."
        "Name the port `http-...`, `http2-...` or `grpc-...`, or set `appProtocol`.";
    INVALID_REGEXP = "IST0122" "InvalidRegexp" Warning
        "A regular expression cannot be read."
        "Correct it; the syntax is RE2's.";
    MULTIPLE_INJECTION_LABELS = "IST0123" "NamespaceMultipleInjectionLabels" Warning
        "The namespace has both istio-injection and istio.io/rev."
        "Remove one of the labels.";
    INVALID_ANNOTATION = "IST0125" "InvalidAnnotation" Warning
        "An annotation's value cannot be read."
        "Correct the value as the text says.";
    NO_MATCHING_WORKLOADS = "IST0127" "NoMatchingWorkloadsFound" Warning
        "No workload has the labels that the policy selects."
        "Correct the selector; labels are those of pods, not of Deployments.";
    NO_SERVER_VERIFICATION = "IST0128" "NoServerCertificateVerificationDestinationLevel" Warning
        "TLS to the destination has no caCertificates, so the server's certificate is not verified."
        "Set `tls.caCertificates` or `tls.credentialName`.";
    NO_SERVER_VERIFICATION_PORT = "IST0129" "NoServerCertificateVerificationPortLevel" Warning
        "TLS to one of the destination's ports has no caCertificates, so the server's certificate is not verified."
        "Set `tls.caCertificates` or `tls.credentialName` of that port.";
    UNREACHABLE_RULE = "IST0130" "VirtualServiceUnreachableRule" Warning
        "A route is never used, because an earlier one takes all of its requests."
        "Put the narrower route first, or remove it.";
    INEFFECTIVE_MATCH = "IST0131" "VirtualServiceIneffectiveMatch" Info
        "A match is never used, because an earlier one takes all of its requests."
        "Remove the match, or put its route first.";
    HOST_NOT_IN_GATEWAY = "IST0132" "VirtualServiceHostNotFoundInGateway" Warning
        "The gateway does not serve a host of the VirtualService."
        "Add the host to the Gateway's servers, or correct it.";
    SCHEMA_WARNING = "IST0133" "SchemaWarning" Warning
        "The object is valid, but a part of it has no effect or is doubtful."
        "Do as the text says.";
    SERVICE_ENTRY_ADDRESSES_REQUIRED = "IST0134" "ServiceEntryAddressesRequired" Warning
        "A ServiceEntry for plain TCP has no addresses of its own: its traffic cannot be told from other traffic to the same port."
        "Set `addresses`, or let the proxy answer DNS, so that the host gets an address by itself.";
    DEPRECATED_ANNOTATION = "IST0135" "DeprecatedAnnotation" Info
        "An annotation that still works, but has a successor."
        "Use what the text names instead.";
    CONFLICTING_SERVICE_PORTS = "IST0137" "DeploymentConflictingPorts" Warning
        "Several Services lead to the same port of the workload's pods from different ports of their own."
        "Use the same port in all of these Services, or another `targetPort`.";
    DUPLICATE_CERTIFICATE = "IST0138" "GatewayDuplicateCertificate" Warning
        "Several Gateways of the same workloads use the same certificate: browsers that reuse an HTTP/2 connection for another host get 404."
        "Serve these hosts from one Gateway, or use a certificate for each.";
    INVALID_WEBHOOK = "IST0139" "InvalidWebhook" Error
        "An injection webhook leads to a Service that does not exist, or two of them take the same pods."
        "Remove what an older installation left (`kubectl get mutatingwebhookconfiguration`), or install the control plane again.";
    INGRESS_WITHOUT_SUBSET = "IST0140" "IngressRouteRulesNotAffected" Warning
        "A gateway's route goes to a host as a whole, while another VirtualService divides the same host into subsets for the mesh's own traffic only."
        "Name the subset in the gateway's VirtualService too, if it is to count there.";
    INSUFFICIENT_PERMISSIONS = "IST0141" "InsufficientPermissions" Error
        "Whoever installs lacks a permission that the installation needs."
        "Ask for the right that the text names, or install as a cluster administrator.";
    UNSUPPORTED_KUBERNETES = "IST0142" "UnsupportedKubernetesVersion" Error
        "The Kubernetes version is older than the mesh needs."
        "Upgrade the cluster.";
    INVALID_APPLICATION_UID = "IST0144" "InvalidApplicationUID" Warning
        "The application runs as the proxy's user, so its traffic is not redirected."
        "Run it as another user than 1337.";
    CONFLICTING_GATEWAYS = "IST0145" "ConflictingGateways" Error
        "Two Gateways of the same workloads serve the same host on the same port."
        "Merge them, or give one of them other hosts.";
    IMAGE_AUTO_UNINJECTED_TEMPLATE = "IST0146" "ImageAutoWithoutInjectionWarning" Warning
        "A workload leaves the proxy's image to the injector (`image: auto`), but its pods will not be injected."
        "Label the namespace or the pod template for injection.";
    IMAGE_AUTO_UNINJECTED_POD = "IST0147" "ImageAutoWithoutInjectionError" Error
        "A pod runs with the image `auto`: it was made without injection and cannot start."
        "Label the namespace or the pod for injection, then delete the pod so that it is made again.";
    INJECTED_BY_DEFAULT = "IST0148" "NamespaceInjectionEnabledByDefault" Info
        "The namespace has no injection label; its pods get sidecars because the mesh was installed so."
        "Nothing; label it `istio-injection=disabled` if its pods are to have none.";
    EXTERNAL_NAME_PORT = "IST0150" "ExternalNameServiceTypeInvalidPortName" Warning
        "A port of an ExternalName Service is plain TCP or undeclared: it takes all traffic to that port number, whatever its destination."
        "Declare the protocol (`http`, `tls`, `tcp-<name>` with an own port number) by the port's name or `appProtocol`.";
    ENVOY_FILTER_RELATIVE = "IST0151" "EnvoyFilterUsesRelativeOperation" Warning
        "A patch stands relative to something that another EnvoyFilter may add later, and has no priority."
        "Set `priority`, or use INSERT_FIRST or ADD.";
    ENVOY_FILTER_REPLACE = "IST0152" "EnvoyFilterUsesReplaceOperationIncorrectly" Error
        "REPLACE is there for HTTP and network filters only."
        "Use MERGE, or REMOVE and ADD.";
    ENVOY_FILTER_ADD = "IST0153" "EnvoyFilterUsesAddOperationIncorrectly" Error
        "ADD has no effect on a route configuration or a single route."
        "Use MERGE, or INSERT_FIRST on a route.";
    ENVOY_FILTER_REMOVE = "IST0154" "EnvoyFilterUsesRemoveOperationIncorrectly" Error
        "REMOVE has no effect on a route configuration or a single route."
        "Change the VirtualService that makes the route.";
    ENVOY_FILTER_RELATIVE_TO_VERSION = "IST0155" "EnvoyFilterUsesRelativeOperationWithProxyVersion" Warning
        "A patch without a priority stands relative to something else and is for one proxy version only, so it may be lost during an upgrade."
        "Set `priority`, or use INSERT_FIRST or ADD.";
    INVALID_TELEMETRY_PROVIDER = "IST0157" "InvalidTelemetryProvider" Warning
        "A Telemetry asks for access logs without naming a provider, and the mesh has no default one: it has no effect."
        "Name `providers`, or set `defaultProviders.accessLogging` (or `accessLogFile`) in the mesh's settings.";
    PROXY_IMAGE_MISMATCH = "IST0158" "PodsIstioProxyImageMismatchInNamespace" Warning
        "Pods run another proxy image than new pods of this namespace would get; usual after an upgrade."
        "Restart them: `kubectl rollout restart deployment -n NAMESPACE`.";
    CONFLICTING_TELEMETRY_SELECTORS = "IST0159" "ConflictingTelemetryWorkloadSelectors" Error
        "Two Telemetries select the same pod; only one of them counts."
        "Change the selectors so that each pod is selected once.";
    MULTIPLE_TELEMETRIES_WITHOUT_SELECTOR = "IST0160" "MultipleTelemetriesWithoutWorkloadSelectors" Error
        "Two Telemetries of a namespace select all of its pods; only one of them counts."
        "Merge them, or give the others a `selector`.";
    INVALID_GATEWAY_CREDENTIAL = "IST0161" "InvalidGatewayCredential" Error
        "The Secret of a Gateway's server holds no usable certificate."
        "Make the Secret again, for instance by `kubectl create secret tls`.";
    GATEWAY_PORT_NOT_ON_SERVICE = "IST0162" "GatewayPortNotDefinedOnService" Warning
        "No Service leads to the Gateway's port on its workloads."
        "Add the port to the gateway's Service, or use one that it has: its port, or the targetPort behind it.";
    INVALID_EXTERNAL_CONTROL_PLANE = "IST0163" "InvalidExternalControlPlaneConfig" Warning
        "A webhook of the mesh leads neither to a Service nor to a URL with a host."
        "Correct `clientConfig` of the webhook.";
    EXTERNAL_CONTROL_PLANE_BY_ADDRESS = "IST0164" "ExternalControlPlaneAddressIsNotAHostname" Info
        "A webhook of the mesh leads to a URL with an address instead of a name: certificates for addresses are rare, and addresses change."
        "Use a name in `clientConfig.url`.";
    NEGATIVE_CONDITION = "IST0171" "NegativeConditionStatus" Warning
        "The object's status says that something about it is not as it should be."
        "Read the condition's message; the control plane writes it.";
    SUBSET_SELECTS_NO_PODS = "IST0173" "DestinationRuleSubsetNotSelectPods" Error
        "A subset selects no pod of the host: requests to it get 503."
        "Correct the subset's labels, or start pods with them.";
    UNKNOWN_DESTINATION_HOST = "IST0174" "UnknownDestinationRuleHost" Warning
        "No service that the rule's namespace can see has this host, so the rule has no effect."
        "Correct the host; without dots it is looked up in the rule's own namespace.";
    CONFLICTING_SERVICE_ENTRY_PROTOCOLS = "IST0177" "ConflictingServiceEntryProtocol" Warning
        "Several ServiceEntries declare the same port of the same host with different protocols; only one of them counts."
        "Declare the same protocol everywhere, or keep one of them.";
    UNREADABLE_FILE = "GSM0001" "UnreadableFile" Error
        "A file, or a document in it, is not YAML or not an object; its last good objects stay in effect."
        "Correct the file at the line that is named.";
    UNKNOWN_KIND = "GSM0002" "UnknownKind" Warning
        "The mesh does not read objects of this kind."
        "Nothing, if it belongs to somebody else; otherwise correct `apiVersion` and `kind`.";
    DUPLICATE_OBJECT = "GSM0003" "DuplicateObject" Error
        "Two files declare the same object; the first one counts."
        "Remove one of them.";
    NOT_SUPPORTED = "GSM0004" "NotSupportedYet" Warning
        "A field of Istio's API that this version of the mesh does not act on."
        "Remove it, or see the table of what is supported (docs/guide/coming-from-istio.md).";
    INJECTION_REFUSED = "GSM0005" "InjectionRefused" Error
        "A pod asks for a sidecar in a way that cannot be fulfilled."
        "Correct the pod as the text says; it is not started without a sidecar.";
}
