package userdata

import (
	_ "embed" // the shell parts are files, so that shellcheck reads what runs
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"headstart.dev/deploy/systemd"
)

const (
	// boundary of our MIME parts; karpenterBoundary is that of the archive into which Karpenter writes them anew.
	// Source: aws/karpenter-provider-aws pkg/providers/amifamily/bootstrap/mime/mime.go.
	boundary          = "HEADSTART"
	karpenterBoundary = "//"
	// heredoc ends the files inside of the script.
	heredoc = "HEADSTART_EOF"
)

// AgentPath is where the agent's binary lies, on a node and in our image.
const AgentPath = "/usr/local/bin/headstart-agent"

//go:embed al2023.sh.tmpl
var scriptText string

//go:embed fetch-agent.sh
var fetchScript string

// renderAL2023 returns MIME multipart: the parts of an earlier userData, a NodeConfig where we have something to say to
// nodeadm, and one shell script.
func renderAL2023(v Values, earlier []byte) (string, error) {
	if v.Cluster != nil {
		if err := v.Cluster.validateForNodeadm(); err != nil {
			return "", err
		}
	}
	parts, err := earlierParts(earlier)
	if err != nil {
		return "", err
	}
	script, err := al2023Script(v)
	if err != nil {
		return "", err
	}
	taints, err := nodeConfigTaints(parts)
	if err != nil {
		return "", err
	}
	nodeConfig, err := nodeConfig(v, taints)
	if err != nil {
		return "", err
	}
	if nodeConfig != "" {
		parts = append(parts, mimePart{header: "Content-Type: " + nodeConfigType + "\n", body: nodeConfig})
	}
	parts = append(parts, mimePart{header: "Content-Type: " + shellType + "; charset=\"utf-8\"\n", body: script})
	return writeParts(parts)
}

func al2023Script(v Values) (string, error) {
	config, err := agentConfig(v)
	if err != nil {
		return "", err
	}
	data := map[string]string{
		"EOF": heredoc, "UnitName": systemd.UnitName, "Unit": systemd.Unit, "Config": config,
		"Fetch": "", "Env": "", "Link": "", "Proxy": proxyEnv(v.Proxy),
	}
	switch {
	case v.Agent.Path != "" && v.Agent.Path != AgentPath:
		data["Link"] = v.Agent.Path
	case v.Agent.Path == "":
		data["Fetch"], data["Env"] = fetchScript, installEnv(v.Agent)
	}
	for _, key := range []string{"Unit", "Config", "Fetch", "Env", "Proxy"} {
		for line := range strings.Lines(data[key]) {
			if strings.TrimSuffix(line, "\n") == heredoc || strings.HasPrefix(line, "--"+boundary) || strings.HasPrefix(line, "--"+karpenterBoundary) {
				return "", fmt.Errorf("render userData: the line %q ends a part of it; write it differently", line)
			}
		}
	}
	tmpl, err := template.New("al2023").Parse(scriptText)
	if err != nil {
		return "", fmt.Errorf("parse script template: %w", err)
	}
	var out strings.Builder
	if err := tmpl.Execute(&out, data); err != nil {
		return "", fmt.Errorf("render script: %w", err)
	}
	return out.String(), nil
}

// installEnv is the file that systemd and fetch-agent read. Validation keeps quotes and spaces out of the values.
func installEnv(s Source) string {
	if s.Image != "" {
		return "HEADSTART_IMAGE=" + s.Image + "\n"
	}
	var out strings.Builder
	fmt.Fprintf(&out, "HEADSTART_URL=%s\n", s.URL)
	for _, arch := range slices.Sorted(maps.Keys(s.SHA256)) {
		fmt.Fprintf(&out, "HEADSTART_SHA256_%s=%s\n", arch, s.SHA256[arch])
	}
	return out.String()
}

// proxyEnv is the file that systemd reads for the agent and its installer, "" without a proxy.
func proxyEnv(p Proxy) string {
	var out strings.Builder
	for _, v := range []struct{ name, value string }{{"HTTP_PROXY", p.HTTPProxy}, {"HTTPS_PROXY", p.HTTPSProxy}, {"NO_PROXY", p.NoProxy}} {
		if v.value != "" {
			fmt.Fprintf(&out, "%s=%s\n", v.name, v.value)
		}
	}
	return out.String()
}

// agentConfig is the agent's file. What kubelet registers is left out: userData or the NodePool says that to kubelet.
func agentConfig(v Values) (string, error) {
	config := maps.Clone(v.Config)
	delete(config, "register")
	out, err := yaml.Marshal(config)
	if err != nil {
		return "", fmt.Errorf("render agent config: %w", err)
	}
	return string(out), nil
}

// nodeConfig is what nodeadm merges into its own: kubelet's taints and labels where Karpenter does not pass them, and
// the parallel pull. Empty when there is nothing to say: with Karpenter, a list of taints here could replace Karpenter's.
func nodeConfig(v Values, earlier []corev1.Taint) (string, error) {
	spec := map[string]any{}
	if v.FastImagePull {
		spec["featureGates"] = map[string]bool{"FastImagePull": true}
	}
	if v.Provisioner == Other {
		spec["kubelet"] = map[string]any{
			"config": map[string]any{"registerWithTaints": plainTaints(joinTaints(earlier, v.register.Taints))},
			"flags":  labelFlags(v.register.Labels),
		}
	}
	if c := v.Cluster; c != nil {
		raw, err := json.Marshal(c)
		if err != nil {
			return "", fmt.Errorf("render cluster: %w", err)
		}
		spec["cluster"] = json.RawMessage(raw)
	}
	if len(spec) == 0 {
		return "", nil
	}
	out, err := yaml.Marshal(map[string]any{"apiVersion": "node.eks.aws/v1alpha1", "kind": "NodeConfig", "spec": spec})
	if err != nil {
		return "", fmt.Errorf("render NodeConfig: %w", err)
	}
	return nodeConfigMarker + string(out), nil
}

// nodeConfigMarker begins our NodeConfig, so that a second merge replaces the first.
const nodeConfigMarker = "# Headstart\n"

// joinTaints puts ours behind those of an earlier NodeConfig: nodeadm takes the last list whole.
func joinTaints(earlier, ours []corev1.Taint) []corev1.Taint {
	kept := slices.DeleteFunc(slices.Clone(earlier), func(t corev1.Taint) bool {
		return slices.ContainsFunc(ours, func(o corev1.Taint) bool { return o.MatchTaint(&t) })
	})
	return append(kept, ours...)
}

// plainTaints drops timeAdded, which a kubelet config has no use for.
func plainTaints(taints []corev1.Taint) []map[string]string {
	out := make([]map[string]string, len(taints))
	for i, t := range taints {
		out[i] = map[string]string{"key": t.Key, "value": t.Value, "effect": string(t.Effect)}
	}
	return out
}

// labelFlags is one --node-labels flag: nodeadm appends flags, and kubelet merges repeated ones.
func labelFlags(labels map[string]string) []string {
	if len(labels) == 0 {
		return []string{}
	}
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, key+"="+labels[key])
	}
	return []string{"--node-labels=" + strings.Join(pairs, ",")}
}
