{{/* Names are fixed: CRDs and admission policies are cluster-wide, so a cluster has one Headstart. */}}
{{- define "headstart.labels" -}}
app.kubernetes.io/part-of: headstart
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "headstart.image" -}}
{{- $image := index . 0 }}{{- $root := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default $root.Chart.AppVersion $image.tag }}
{{- end }}
{{- end }}

{{/* What the restricted Pod Security Standard asks for. */}}
{{- define "headstart.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* The types of the agent's probes, as a list. */}}
{{- define "headstart.probeTypes" -}}
{{- $types := list }}
{{- range .Values.agent.config.probes }}{{ $types = append $types .type }}{{ end }}
{{- $types | uniq | toJson }}
{{- end }}

{{/* A file that the chart shares with kustomize: written for the namespace headstart-system. */}}
{{- define "headstart.file" -}}
{{- $text := index . 0 }}{{- $root := index . 1 -}}
{{ $text | replace "headstart-system" $root.Release.Namespace }}
{{- end }}

{{/* The port at which the agents' metrics are seen from outside of their node; empty where they are not. */}}
{{- define "headstart.agentMetricsPort" -}}
{{- $address := dig "metrics" "bindAddress" "" .Values.agent.config | toString }}
{{- if not (or (not (contains ":" $address)) (hasPrefix "127." $address) (hasPrefix "localhost:" $address) (hasPrefix "[::1]:" $address)) -}}
{{ regexFind "[0-9]+$" $address }}
{{- end }}
{{- end }}
