{{- /* Which pods come to pilot, by labels of their namespace and of themselves. The words of the labels are Istio's; what
       a pod's own labels say goes before those of its namespace. */}}

{{- /* From a dict: root, service, name, namespace and object (lists of expressions). */}}
{{- define "control.injection" }}
- name: {{ .name }}
  clientConfig:
    service:
      name: {{ .service }}
      namespace: {{ .root.Release.Namespace }}
      path: /inject
      port: 443
  rules:
  - apiGroups: [""]
    apiVersions: [v1]
    operations: [CREATE]
    resources: [pods]
    scope: Namespaced
  namespaceSelector:
    matchExpressions:
    {{- toYaml .namespace | nindent 4 }}
    - key: kubernetes.io/metadata.name
      operator: NotIn
      values: [kube-system, kube-public, kube-node-lease]
  objectSelector:
    matchExpressions:
    {{- toYaml .object | nindent 4 }}
  failurePolicy: {{ .root.Values.sidecarInjectorWebhook.failurePolicy }}
  reinvocationPolicy: {{ .root.Values.sidecarInjectorWebhook.reinvocationPolicy }}
  matchPolicy: Exact
  sideEffects: None
  timeoutSeconds: {{ int .root.Values.sidecarInjectorWebhook.timeoutSeconds }}
  admissionReviewVersions: [v1]
{{- end }}

{{- /* What a revision's, or a revision tag's, own name brings. From a dict: root, service, revision. */}}
{{- define "control.injection-by-revision" }}
{{- $unlabelled := dict "key" "istio-injection" "operator" "DoesNotExist" }}
{{- $unrevised := dict "key" "istio.io/rev" "operator" "DoesNotExist" }}
{{- $revised := dict "key" "istio.io/rev" "operator" "In" "values" (list .revision) }}
{{- $willing := dict "key" "sidecar.istio.io/inject" "operator" "NotIn" "values" (list "false") }}
{{- include "control.injection" (merge (dict
      "name" "rev.namespace.sidecar-injector.istio.io"
      "namespace" (list $revised $unlabelled)
      "object" (list $willing)) .) }}
{{- include "control.injection" (merge (dict
      "name" "rev.object.sidecar-injector.istio.io"
      "namespace" (list $unrevised $unlabelled)
      "object" (list $willing $revised)) .) }}
{{- end }}

{{- /* What only the default control plane takes. From a dict: root, service. */}}
{{- define "control.injection-by-default" }}
{{- $unlabelled := dict "key" "istio-injection" "operator" "DoesNotExist" }}
{{- $unrevised := dict "key" "istio.io/rev" "operator" "DoesNotExist" }}
{{- $enabled := dict "key" "istio-injection" "operator" "In" "values" (list "enabled") }}
{{- $willing := dict "key" "sidecar.istio.io/inject" "operator" "NotIn" "values" (list "false") }}
{{- $asking := dict "key" "sidecar.istio.io/inject" "operator" "In" "values" (list "true") }}
{{- $silent := dict "key" "sidecar.istio.io/inject" "operator" "DoesNotExist" }}
{{- include "control.injection" (merge (dict
      "name" "namespace.sidecar-injector.istio.io"
      "namespace" (list $enabled)
      "object" (list $willing)) .) }}
{{- include "control.injection" (merge (dict
      "name" "object.sidecar-injector.istio.io"
      "namespace" (list $unlabelled $unrevised)
      "object" (list $asking $unrevised)) .) }}
{{- if .root.Values.sidecarInjectorWebhook.enableNamespacesByDefault }}
{{- include "control.injection" (merge (dict
      "name" "auto.sidecar-injector.istio.io"
      "namespace" (list $unlabelled $unrevised)
      "object" (list $silent $unrevised)) .) }}
{{- end }}
{{- end }}

{{- /* Objects of the mesh, on their way into Kubernetes. From a dict: root, service, name, object (an expression). */}}
{{- define "control.validation" }}
- name: {{ .name }}
  clientConfig:
    service:
      name: {{ .service }}
      namespace: {{ .root.Release.Namespace }}
      path: /validate
      port: 443
  rules:
  - apiGroups: [networking.istio.io, security.istio.io, telemetry.istio.io, extensions.istio.io]
    apiVersions: ["*"]
    operations: [CREATE, UPDATE]
    resources: ["*"]
    scope: "*"
  objectSelector:
    matchExpressions:
    {{- toYaml (list .object) | nindent 4 }}
  failurePolicy: {{ .root.Values.validation.failurePolicy }}
  matchPolicy: Exact
  sideEffects: None
  timeoutSeconds: {{ int .root.Values.validation.timeoutSeconds }}
  admissionReviewVersions: [v1]
{{- end }}
