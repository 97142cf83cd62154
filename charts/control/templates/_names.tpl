{{- /* Names, labels and pieces that several templates share. Only what both Helm and meshctl render is used here:
       meshctl refuses a function that it does not know. */}}

{{- define "control.revision" -}}
{{- .Values.revision | default "default" -}}
{{- end -}}

{{- /* "" or "-canary": what pilot's names end with. */}}
{{- define "control.suffix" -}}
{{- if .Values.revision }}-{{ .Values.revision }}{{ end -}}
{{- end -}}

{{- /* An image. From a dict: root, part (values of the part). A name with a slash or a colon is whole already. */}}
{{- define "control.image" -}}
{{- $global := .root.Values.global -}}
{{- if or (contains "/" .part.image) (contains ":" .part.image) -}}
{{- .part.image -}}
{{- else -}}
{{- .part.hub | default $global.hub }}/{{ .part.image }}:{{ .part.tag | default $global.tag | default .root.Chart.AppVersion -}}
{{- end -}}
{{- end -}}

{{- /* Labels of an object. From a dict: root, name (pilot, citadel, telemetry). */}}
{{- define "control.labels" -}}
app: {{ .name }}
istio: {{ .name }}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/part-of: gossamer
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- if eq .name "pilot" }}
istio.io/rev: {{ include "control.revision" .root | quote }}
{{- end }}
{{- end -}}

{{- /* Labels by which pods are found; never to be changed. From a dict: root, name. */}}
{{- define "control.selector" -}}
app: {{ .name }}
{{- if eq .name "pilot" }}
istio.io/rev: {{ include "control.revision" .root | quote }}
{{- end }}
{{- end -}}

{{- define "control.metadata-of-deployment" -}}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "control.labels" . | nindent 2 }}
  {{- with .part.deploymentLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .part.deploymentAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "control.metadata-of-pod" -}}
labels:
  {{- include "control.labels" . | nindent 2 }}
  sidecar.istio.io/inject: "false"
  {{- with .part.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  prometheus.io/scrape: "true"
  prometheus.io/port: "15014"
  prometheus.io/path: /metrics
  {{- with .part.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- /* What the pods of all parts have in common. From a dict: root, name, part. */}}
{{- define "control.pod" -}}
{{- with .root.Values.global.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- with .root.Values.global.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 1337
  runAsGroup: 1337
  fsGroup: 1337
  seccompProfile:
    type: RuntimeDefault
{{- with .part.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* What the containers of all parts have in common. */}}
{{- define "control.container" -}}
image: {{ include "control.image" . | quote }}
imagePullPolicy: {{ .root.Values.global.imagePullPolicy }}
readinessProbe:
  httpGet:
    path: /ready
    port: 15014
  periodSeconds: 3
  timeoutSeconds: 5
{{- with .part.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
env:
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- range $name, $value := .part.env }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end -}}

{{- /* Flags that all parts understand. */}}
{{- define "control.flags" -}}
- {{ printf "--log-level=%s" (trimPrefix "default:" .root.Values.global.logging.level) | quote }}
- --log-format={{ ternary "json" "text" .root.Values.global.logAsJson }}
- --trust-domain={{ .root.Values.meshConfig.trustDomain | default "cluster.local" }}
{{- with .part.extraContainerArgs }}
{{- range . }}
- {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* The token that proves the pod to citadel, and the roots that prove citadel. */}}
{{- define "control.identity-mounts" -}}
- name: istio-token
  mountPath: /var/run/secrets/tokens
  readOnly: true
- name: istiod-ca-cert
  mountPath: /var/run/secrets/istio
  readOnly: true
{{- end -}}

{{- define "control.identity-volumes" -}}
- name: istio-token
  projected:
    sources:
    - serviceAccountToken:
        audience: istio-ca
        expirationSeconds: 43200
        path: istio-token
- name: istiod-ca-cert
  configMap:
    name: istio-ca-root-cert
{{- end -}}

{{- define "control.service-account" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .object }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "control.labels" . | nindent 4 }}
  {{- with .part.serviceAccountAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- with .root.Values.global.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* A binding of a role to a part's account. From a dict: root, name, object (the account), kind, role. */}}
{{- define "control.binding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}Binding
metadata:
  name: {{ .role }}
  {{- if eq .kind "Role" }}
  namespace: {{ .root.Release.Namespace }}
  {{- end }}
  labels:
    {{- include "control.labels" . | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ .role }}
subjects:
- kind: ServiceAccount
  name: {{ .object }}
  namespace: {{ .root.Release.Namespace }}
{{- end -}}

{{- define "control.disruption-budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .object }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "control.labels" . | nindent 4 }}
spec:
  minAvailable: 1
  selector:
    matchLabels:
      {{- include "control.selector" . | nindent 6 }}
{{- end -}}
