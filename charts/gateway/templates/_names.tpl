{{- /* Names and labels of the gateway's objects. */}}

{{- define "gateway.name" -}}
{{- .Values.name | default .Release.Name -}}
{{- end -}}

{{- define "gateway.service-account" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "gateway.name" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- /* Labels by which pods, and the Gateway objects of users, find it: a gateway istio-ingressgateway has istio: ingressgateway. */}}
{{- define "gateway.selector" -}}
app: {{ .Values.labels.app | default (include "gateway.name" .) | quote }}
istio: {{ .Values.labels.istio | default (include "gateway.name" . | trimPrefix "istio-") | quote }}
{{- end -}}

{{- define "gateway.labels" -}}
{{- include "gateway.selector" . }}
app.kubernetes.io/name: {{ include "gateway.name" . | quote }}
app.kubernetes.io/part-of: gossamer
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- range $name, $value := omit .Values.labels "app" "istio" }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "gateway.metadata" -}}
name: {{ include "gateway.name" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "gateway.labels" . | nindent 2 }}
{{- with .Values.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
