{{/*
headstart.host (dict "config" AGENTCONFIG "values" .Values.agent): what an agent of this config needs of its host, as JSON:
{"paths": {PATH: WRITABLE}, "capabilities": [NAME]}. It says the same as HostPaths and Capabilities of the Go package agent,
which a test holds it to.
*/}}
{{- define "headstart.host" -}}
{{- $c := .config }}{{- $values := .values }}
{{- $kubeletDir := default "/var/lib/kubelet" $c.kubeletDir }}
{{- $paths := dict }}{{- $capabilities := list }}
{{- $_ := set $paths (dig "stateDir" "/run/headstart" $c | clean) true }}
{{- $_ := set $paths (dig "containerd" "address" "/run/containerd/containerd.sock" $c | trimPrefix "unix://" | dir) false }}
{{- $_ := set $paths (printf "%s/pods-api" $kubeletDir | clean) false }}
{{- with $c.register }}
{{- if .taints }}{{ $_ := set $paths (default "/etc/kubernetes/kubelet/config.json.d" .kubeletConfigDir | dir) true }}{{ end }}
{{- if .labels }}{{ $_ := set $paths (default "/run/headstart/kubelet.env" .kubeletArgsFile | dir) true }}{{ end }}
{{- end }}
{{- $read := list }}
{{- with dig "registry" "credentialProviderConfig" "" $c }}{{ $read = append $read (dir .) }}{{ end }}
{{- with dig "registry" "credentialProviderBinDir" "" $c }}{{ $read = append $read . }}{{ end }}
{{- range $c.probes }}
{{- $root := default $kubeletDir .kubeletDir }}
{{- $plugin := default "auto" .plugin }}
{{- if eq .type "cni" }}
{{- $read = append $read (default "/etc/cni/net.d" .confDir) }}
{{- $address := default "" .address }}
{{- if hasPrefix "unix://" $address }}
{{- if has $plugin (list "auto" "aws-vpc-cni" "cilium") }}{{ $read = append $read (trimPrefix "unix://" $address | dir) }}{{ end }}
{{- else }}
{{- if and (or (not $address) (contains "://" $address)) (has $plugin (list "auto" "aws-vpc-cni")) }}{{ $read = append $read "/var/run/aws-node" }}{{ end }}
{{- if and (not $address) (has $plugin (list "auto" "cilium")) }}{{ $read = append $read "/var/run/cilium" }}{{ end }}
{{- end }}
{{- else if has .type (list "csi" "dra") }}
{{- $read = concat $read (list (printf "%s/plugins" $root) (printf "%s/plugins_registry" $root)) }}
{{- else if eq .type "gpu" }}
{{- $read = concat $read (list (printf "%s/device-plugins" $root) (printf "%s/pod-resources" $root) "/run/nvidia" "/run/dbus") }}
{{- else if eq .type "neuron" }}
{{- $read = concat $read (list (printf "%s/device-plugins" $root) (printf "%s/pod-resources" $root)) }}
{{- else if eq .type "efa" }}
{{- $read = append $read "/dev/infiniband" }}
{{- else if eq .type "systemd" }}
{{- $read = append $read "/run/dbus" }}
{{- else if eq .type "unix" }}
{{- $read = append $read (dir .path) }}{{ $capabilities = append $capabilities "DAC_OVERRIDE" }}
{{- else if eq .type "file" }}
{{- $read = append $read (dir .path) }}{{ $capabilities = append $capabilities "DAC_READ_SEARCH" }}
{{- else if eq .type "exec" }}
{{- $read = append $read (first .command | dir) }}{{ $capabilities = concat $capabilities (list "KILL" "SETGID" "SETUID") }}
{{- else if and (eq .type "grpc") (hasPrefix "unix://" .address) }}
{{- $read = append $read (trimPrefix "unix://" .address | dir) }}{{ $capabilities = append $capabilities "DAC_OVERRIDE" }}
{{- else if not (has .type (list "http" "tcp" "grpc")) }}
{{- fail (printf "agent.config.probes: the chart does not know what a probe of type %q needs" .type) }}
{{- end }}
{{- end }}
{{- range $read }}
{{- $path := clean . }}
{{- if not (or (hasKey $paths $path) (regexMatch "^/(proc|sys)(/|$)" $path)) }}{{ $_ := set $paths $path false }}{{ end }}
{{- end }}
{{- if $values.directPull }}
{{- /* Layers hold files of any owner, devices, file capabilities and overlay attributes. */}}
{{- $capabilities = concat $capabilities (list "CHOWN" "DAC_OVERRIDE" "FOWNER" "FSETID" "MKNOD" "SETFCAP" "SYS_ADMIN") }}
{{- end }}
{{- dict "paths" $paths "capabilities" ($capabilities | uniq | sortAlpha) | toJson }}
{{- end }}

{{/* headstart.mounts (dict "host" HOST "values" .Values.agent): the paths that the pod mounts, those of the chart's own values too. */}}
{{- define "headstart.mounts" -}}
{{- $paths := deepCopy .host.paths }}{{- $values := .values }}
{{- $more := list (list $values.containerdConfigDir false) }}
{{- with $values.credentialProviderDir }}{{ $more = append $more (list . false) }}{{ end }}
{{- range $values.hostPaths }}{{ $more = append $more (list . false) }}{{ end }}
{{- if $values.directPull }}{{ $more = append $more (list $values.containerdRoot true) }}{{ end }}
{{- range $more }}
{{- $path := clean (first .) }}{{- $_ := set $paths $path (or (last .) (get $paths $path | default false)) }}
{{- end }}
{{- /* What the image, the pod or the kubelet has there would be hidden, or could not be mounted any more. */}}
{{- range $path, $_ := $paths }}
{{- if regexMatch "^/(|etc|etc/ssl|etc/ssl/certs|etc/headstart|run|var|var/run|dev|usr|usr/local|usr/local/bin|lib|lib/[a-z0-9_]+-linux-gnu|lib64)$" $path }}
{{- fail (printf "agent: a probe or a value needs the host's folder %s, which cannot be mounted into the agent's pod without hiding the pod's own: move the file or socket into a folder of its own (such as /run/mine), or run the agent as the host's unit (agent.hostInstall, or kubectl headstart userdata)" $path) }}
{{- end }}
{{- end }}
{{- $paths | toJson }}
{{- end }}

{{/* The name of a host path's volume: readable, and unlike that of any other path. */}}
{{- define "headstart.volume" -}}
{{- regexReplaceAll "[^a-z0-9]+" (lower . | trimPrefix "/") "-" | trunc 40 | trimAll "-" }}-{{ sha256sum . | trunc 6 }}
{{- end }}

{{/* headstart.affinity (dict "affinity" AFFINITY "exclude" EXPRESSIONS): the affinity, with the expressions in each term of what is required of nodes. */}}
{{- define "headstart.affinity" -}}
{{- $affinity := deepCopy (default dict .affinity) }}{{- $exclude := .exclude }}
{{- if $exclude }}
{{- $node := default dict $affinity.nodeAffinity }}
{{- $required := default dict $node.requiredDuringSchedulingIgnoredDuringExecution }}
{{- $terms := list }}
{{- range default (list dict) $required.nodeSelectorTerms }}
{{- $terms = append $terms (merge (dict "matchExpressions" (concat (default list .matchExpressions) $exclude)) (omit . "matchExpressions")) }}
{{- end }}
{{- $_ := set $required "nodeSelectorTerms" $terms }}
{{- $_ := set $node "requiredDuringSchedulingIgnoredDuringExecution" $required }}
{{- $_ := set $affinity "nodeAffinity" $node }}
{{- end }}
{{- $affinity | toJson }}
{{- end }}

{{/* Fails where two probes would publish one condition, which crashes the agent. */}}
{{- define "headstart.checkConfig" -}}
{{- $seen := dict }}
{{- range .probes }}
{{- $key := .name | replace "-" " " | lower | nospace }}
{{- if hasKey $seen $key }}{{ fail (printf "agent.config.probes: %q and %q would be one condition: give each a name of its own" (get $seen $key) .name) }}{{ end }}
{{- $_ := set $seen $key .name }}
{{- end }}
{{- end }}
