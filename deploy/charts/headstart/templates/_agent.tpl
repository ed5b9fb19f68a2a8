{{/* headstart.agent (dict "root" "suffix" "nodeSelector" "exclude" "config"): the ConfigMap and the DaemonSet of one config. */}}
{{- define "headstart.agent" -}}
{{- $root := .root }}{{- $values := .root.Values.agent }}
{{- $name := printf "headstart-agent%s" .suffix }}
{{- $config := .config }}
{{- $_ := set $config "apiVersion" "agent.headstart.dev/v1alpha1" }}
{{- $_ := set $config "kind" "AgentConfig" }}
{{- if and $values.kubeletDir (not $config.kubeletDir) }}{{ $_ := set $config "kubeletDir" $values.kubeletDir }}{{ end }}
{{- include "headstart.checkConfig" $config }}
{{- $types := list }}{{- range $config.probes }}{{ $types = append $types .type }}{{ end }}
{{- $host := include "headstart.host" (dict "config" $config "values" $values) | fromJson }}
{{- $mounts := include "headstart.mounts" (dict "host" $host "values" $values) | fromJson }}
{{- $image := include "headstart.image" (list "agent" $root) }}
{{- /* The restricted standard, but as root: containerd's socket, the CSI sockets and the kubelet's belong to root. */}}
{{- $security := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "runAsUser" 0 "capabilities" (dict "drop" (list "ALL")) }}
{{- $install := mergeOverwrite (deepCopy $security) (deepCopy $values.securityContext) }}
{{- if $host.capabilities }}{{ $_ := set $security "capabilities" (dict "drop" (list "ALL") "add" $host.capabilities) }}{{ end }}
{{- /* AppArmor's profile of container runtimes keeps D-Bus from containers, where the host mediates it (Ubuntu). */}}
{{- if hasKey $mounts "/run/dbus" }}{{ $_ := set $security "appArmorProfile" (dict "type" "Unconfined") }}{{ end }}
{{- $security = mergeOverwrite $security (deepCopy $values.securityContext) }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "headstart.labels" $root | nindent 4 }}
  {{- include "headstart.annotations" (list $root) | nindent 2 }}
data:
  agent.yaml: {{ toYaml $config | quote }}
---
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    app.kubernetes.io/name: {{ $name }}
    app.kubernetes.io/component: agent
    {{- include "headstart.labels" $root | nindent 4 }}
    {{- with $values.labels }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- include "headstart.annotations" (list $root $values.annotations) | nindent 2 }}
spec:
  selector:
    matchLabels: {app.kubernetes.io/name: {{ $name }}}
  updateStrategy: {{- toYaml $values.updateStrategy | nindent 4 }}
  revisionHistoryLimit: {{ $values.revisionHistoryLimit }}
  template:
    metadata:
      labels:
        {{- with $root.Values.commonLabels }}{{ toYaml . | nindent 8 }}{{ end }}
        {{- with $values.podLabels }}{{ toYaml . | nindent 8 }}{{ end }}
        app.kubernetes.io/name: {{ $name }}
        app.kubernetes.io/component: agent
        app.kubernetes.io/part-of: headstart
      annotations:
        checksum/config: {{ toYaml $config | sha256sum }}
        {{- with merge (deepCopy $values.podAnnotations) $root.Values.commonAnnotations }}{{ toYaml . | nindent 8 }}{{ end }}
    spec:
      serviceAccountName: headstart-agent
      automountServiceAccountToken: true
      {{- include "headstart.pullSecrets" $root | nindent 6 }}
      {{- with $values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      # It starts before the CNI, behind every taint, and needs no cluster DNS.
      hostNetwork: true
      dnsPolicy: Default
      {{- with $values.tolerations }}
      tolerations: {{- toYaml . | nindent 6 }}
      {{- end }}
      {{- with merge (deepCopy .nodeSelector) $values.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with include "headstart.affinity" (dict "affinity" $values.affinity "exclude" .exclude) | fromJson }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
      terminationGracePeriodSeconds: 10
      {{- with $values.podSecurityContext }}
      securityContext: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if $values.hostInstall }}
      initContainers:
      - name: install
        image: {{ $image }}
        imagePullPolicy: {{ $values.image.pullPolicy }}
        args: [install, --host-root, /host]
        resources: {{- toYaml $values.resources | nindent 10 }}
        securityContext: {{- toYaml $install | nindent 10 }}
        volumeMounts:
        - {name: host, mountPath: /host}
      {{- end }}
      containers:
      - name: agent
        image: {{ $image }}
        imagePullPolicy: {{ $values.image.pullPolicy }}
        args:
        - run
        - --config
        - /etc/headstart/agent.yaml
        {{- with $values.extraArgs }}{{ toYaml . | nindent 8 }}{{ end }}
        env:
        - name: NODE_NAME
          valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
        - {name: GOMEMLIMIT, value: {{ include "headstart.goMemLimit" $values.resources.limits.memory | quote }}}
        {{- if hasKey $mounts "/run/dbus" }}
        # The image has no /var/run that leads to /run.
        - {name: DBUS_SYSTEM_BUS_ADDRESS, value: "unix:path=/run/dbus/system_bus_socket"}
        {{- end }}
        {{- if has "gpu" $types }}
        # NVIDIA's container runtime, the default one of GPU nodes, then mounts the driver's library and devices. A driver that
        # runs in a container is found under /run/nvidia without it.
        - {name: NVIDIA_VISIBLE_DEVICES, value: all}
        - {name: NVIDIA_DRIVER_CAPABILITIES, value: utility}
        {{- end }}
        {{- include "headstart.proxy" $root | nindent 8 }}
        {{- with $values.env }}{{ toYaml . | nindent 8 }}{{ end }}
        {{- with include "headstart.agentMetricsPort" $root }}
        ports:
        - {name: metrics, containerPort: {{ . }}}
        {{- end }}
        resources: {{- toYaml $values.resources | nindent 10 }}
        securityContext: {{- toYaml $security | nindent 10 }}
        volumeMounts:
        - {name: config, mountPath: /etc/headstart, readOnly: true}
        {{- range $path, $writable := $mounts }}
        - {name: {{ include "headstart.volume" $path }}, mountPath: {{ $path }}{{ if not $writable }}, readOnly: true{{ end }}}
        {{- end }}
      volumes:
      - {name: config, configMap: {name: {{ $name }}}}
      {{- range $path, $_ := $mounts }}
      - {name: {{ include "headstart.volume" $path }}, hostPath: {path: {{ $path }}, type: DirectoryOrCreate}}
      {{- end }}
      {{- if $values.hostInstall }}
      - {name: host, hostPath: {path: /, type: Directory}}
      {{- end }}
{{ end }}
