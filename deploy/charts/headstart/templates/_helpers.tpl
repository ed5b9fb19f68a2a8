{{/* Names are fixed: CRDs and admission policies are cluster-wide, so a cluster has one Headstart. */}}
{{- define "headstart.labels" -}}
app.kubernetes.io/part-of: headstart
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* headstart.annotations (list ROOT MORE...): "annotations:" with those of all objects and more; nothing where there are none. */}}
{{- define "headstart.annotations" -}}
{{- $root := index . 0 }}{{- $all := deepCopy $root.Values.commonAnnotations }}
{{- range rest . }}{{ $all = merge (deepCopy (default dict .)) $all }}{{ end }}
{{- with $all }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* headstart.image (list KEY ROOT): the image of "agent" or "controller". */}}
{{- define "headstart.image" -}}
{{- $key := index . 0 }}{{- $root := index . 1 }}{{- $image := (index $root.Values $key).image -}}
{{- if not $image.repository }}
{{- fail (printf "%s.image.repository is not set: there is no public registry of Headstart's images. \"make images REGISTRY=registry.example/headstart\" pushes them to yours and prints what to set: %s.image.repository and %s.image.digest" $key $key $key) }}
{{- end }}
{{- if and (eq $key "agent") (not $image.digest) }}
{{- fail "agent.image.digest is not set: the agent runs as root on every node, so its image is named by digest (sha256:...), as \"make images\" prints it" }}
{{- end }}
{{- $repository := $image.repository }}
{{- with $root.Values.global.imageRegistry }}
{{- $parts := splitList "/" $repository }}{{- $host := first $parts }}
{{- if and (gt (len $parts) 1) (or (contains "." $host) (contains ":" $host) (eq $host "localhost")) }}{{ $repository = join "/" (rest $parts) }}{{ end }}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository }}
{{- end -}}
{{- if $image.digest -}}
{{ $repository }}@{{ $image.digest }}
{{- else -}}
{{ $repository }}:{{ default $root.Chart.AppVersion $image.tag }}
{{- end }}
{{- end }}

{{/* "imagePullSecrets:", or nothing. */}}
{{- define "headstart.pullSecrets" -}}
{{- with concat (default list .Values.global.imagePullSecrets) .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
- {{ kindIs "string" . | ternary (dict "name" .) . | toJson }}
{{- end }}
{{- end }}
{{- end }}

{{/* The environment of a proxy, as list items, or nothing. */}}
{{- define "headstart.proxy" -}}
{{- range $name, $value := dict "HTTP_PROXY" .Values.proxy.httpProxy "HTTPS_PROXY" .Values.proxy.httpsProxy "NO_PROXY" .Values.proxy.noProxy }}
{{- if $value }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{/* Nine tenths of a memory limit, in bytes: the Go runtime then works harder before the kernel kills. */}}
{{- define "headstart.goMemLimit" -}}
{{- $text := kindIs "float64" . | ternary (int64 . | toString) (toString .) }}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- $number := regexFind "^[0-9.]+" $text }}
{{- $unit := trimPrefix $number $text }}
{{- if or (not $number) (not (hasKey $units $unit)) }}
{{- fail (printf "resources.limits.memory: %q: write a number with a unit such as 512Mi or 1Gi" $text) }}
{{- end }}
{{- mulf (float64 $number) (get $units $unit) 0.9 | int64 }}
{{- end }}

{{/* headstart.file (list PATH ROOT): a file that the chart shares with kustomize, written for the namespace headstart-system. */}}
{{- define "headstart.file" -}}
{{- $path := index . 0 }}{{- $root := index . 1 -}}
{{- $text := $root.Files.Get (printf "files/%s" $path) }}
{{- if not $text }}
{{- fail (printf "the chart has no files/%s: it is not complete (was it packed or fetched without some of its files?), and without that file it would not be safe" $path) }}
{{- end }}
{{- $text | replace "headstart-system" $root.Release.Namespace }}
{{- end }}

{{/* headstart.files (list FOLDER ROOT): the names of all files that belong into the folder, as JSON; fails where it cannot know. */}}
{{- define "headstart.files" -}}
{{- $folder := index . 0 }}{{- $root := index . 1 -}}
{{- $index := $root.Files.Get "files/index.yaml" | fromYaml }}
{{- if not (get $index $folder) }}
{{- fail (printf "the chart has no list of files/%s in files/index.yaml: it is not complete" $folder) }}
{{- end }}
{{- get $index $folder | toJson }}
{{- end }}

{{/* Whether a ResourceQuota must admit our priority classes. */}}
{{- define "headstart.quota" -}}
{{- if or .Values.resourceQuota.create (contains "-gke." .Capabilities.KubeVersion.Version) }}true{{ end }}
{{- end }}

{{/* The files of files/rbac/controller that the features which are on need. */}}
{{- define "headstart.roles" -}}
{{- $f := .Values.controller.features }}
{{- $roles := list "core" "rules" }}
{{- if has "guide" .Values.controller.rules }}{{ $roles = append $roles "rules-guide" }}{{ end }}
{{- if has "upstream" .Values.controller.rules }}{{ $roles = append $roles "rules-upstream" }}{{ end }}
{{- if .Values.metrics.secure }}{{ $roles = append $roles "metrics" }}{{ end }}
{{- if $f.deleteNodeClaims }}{{ $roles = append $roles "rules-nodeclaims" }}{{ end }}
{{- if $f.gates }}{{ $roles = append $roles "gates" }}{{ end }}
{{- if and $f.gates $f.secretReferences }}{{ $roles = append $roles "gates-references" }}{{ end }}
{{- if $f.prepull }}{{ $roles = append $roles "prepull" }}{{ end }}
{{- if $f.warmPools }}{{ $roles = append $roles "warmpool" }}{{ end }}
{{- if and $f.warmPools $f.capacityBuffers }}{{ $roles = append $roles "warmpool-capacitybuffers" }}{{ end }}
{{- if and $f.warmPools $f.staticNodePools }}{{ $roles = append $roles "warmpool-nodepools" }}{{ end }}
{{- $roles | toJson }}
{{- end }}

{{/* The controllers that run, as --controllers takes them. */}}
{{- define "headstart.controllers" -}}
{{- $f := .Values.controller.features }}
{{- $on := list "readiness" }}
{{- if $f.gates }}{{ $on = append $on "gates" }}{{ end }}
{{- if $f.prepull }}{{ $on = append $on "prepull" }}{{ end }}
{{- if $f.warmPools }}{{ $on = append $on "warmpool" }}{{ end }}
{{- join "," $on }}
{{- end }}

{{/* The port at which the agents' metrics are seen from outside of their node; empty where they are not. */}}
{{- define "headstart.agentMetricsPort" -}}
{{- $address := dig "metrics" "bindAddress" "" .Values.agent.config | toString }}
{{- if not (or (not (contains ":" $address)) (hasPrefix "127." $address) (hasPrefix "localhost:" $address) (hasPrefix "[::1]:" $address)) -}}
{{ regexFind "[0-9]+$" $address }}
{{- end }}
{{- end }}
