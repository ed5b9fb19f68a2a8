package userdata

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"headstart.dev/agent"
	"headstart.dev/readiness"
)

// OS is an operating system that Render knows.
type OS string

// The operating systems.
const (
	AL2023       OS = "al2023"
	Bottlerocket OS = "bottlerocket"
)

// Provisioner says who launches the instance, and so who registers taints and labels.
type Provisioner string

const (
	// Karpenter passes startupTaints and labels of the NodePool to kubelet itself; a second list in userData would
	// replace its own, karpenter.sh/unregistered included.
	Karpenter Provisioner = "Karpenter"
	// Other is a managed or self-managed node group: our userData registers the startup taint and the labels.
	Other Provisioner = "Other"
)

// Values is what a user may choose; the zero value plus Default is what a file without fields means.
type Values struct {
	// Provisioner defaults to Karpenter.
	Provisioner Provisioner `json:"provisioner,omitempty"`
	// Agent says where the agent's binary comes from.
	Agent Source `json:"agent,omitzero"`
	// Config is the agent's config file (kind AgentConfig); apiVersion and kind are filled in.
	Config map[string]any `json:"config,omitempty"`
	// FastImagePull turns on the operating system's own parallel pull (SOCI snapshotter without lazy loading).
	FastImagePull bool `json:"fastImagePull,omitempty"`
	// Proxy is for the agent and for what installs it (AL2023), by the names that the chart has too.
	Proxy Proxy `json:"proxy,omitzero"`
	// Cluster is for nodes that neither Karpenter nor a managed node group joins to the cluster.
	Cluster *Cluster `json:"cluster,omitempty"`

	// register is config.register, as the agent reads it: what kubelet must know before it creates the Node.
	register agent.Register
}

// Source names the agent's binary in exactly one way. There is no default: it runs as root on every node.
type Source struct {
	// Image is an OCI image with a digest. AL2023 pulls it through its own containerd and credential provider.
	Image string `json:"image,omitempty"`
	// URL is where the bare binary lies; "{arch}" stands for amd64 or arm64. SHA256 is then required.
	URL string `json:"url,omitempty"`
	// SHA256 holds the binary's checksum in hex, by architecture.
	SHA256 map[string]string `json:"sha256,omitempty"`
	// Path is where the AMI already has it.
	Path string `json:"path,omitempty"`
}

// Proxy is HTTP_PROXY and its like, for the download of the agent and for the API server, which belongs into NoProxy where the
// node reaches it directly. Pulls go by the proxy that containerd has, and by this one where it has none; probes by none.
type Proxy struct {
	HTTPProxy  string `json:"httpProxy,omitempty"`
	HTTPSProxy string `json:"httpsProxy,omitempty"`
	// NoProxy are hosts, domains and networks, with commas between them.
	NoProxy string `json:"noProxy,omitempty"`
}

// Cluster holds what nodeadm and Bottlerocket need to join a cluster.
type Cluster struct {
	Name string `json:"name"`
	// APIServerEndpoint is the https URL of the API server.
	APIServerEndpoint string `json:"apiServerEndpoint"`
	// CertificateAuthority is base64 of the cluster's CA in PEM.
	CertificateAuthority string `json:"certificateAuthority"`
	// CIDR is the service network; nodeadm (AL2023) demands it, Bottlerocket has no use for it.
	CIDR string `json:"cidr,omitempty"`
}

// Parse reads values from YAML. Unknown fields are errors. The result is complete and valid.
func Parse(text []byte) (Values, error) {
	var v Values
	raw, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return v, fmt.Errorf("parse values: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		return v, fmt.Errorf("parse values: %w", err)
	}
	v.setDefaults()
	return v, v.validate()
}

func (v *Values) setDefaults() {
	if v.Provisioner == "" {
		v.Provisioner = Karpenter
	}
	if v.Config == nil {
		v.Config = map[string]any{}
	}
	setDefault(v.Config, "agent.headstart.dev/v1alpha1", "apiVersion")
	setDefault(v.Config, "AgentConfig", "kind")
	setDefault(v.Config, []any{map[string]any{"name": "cni", "type": "cni"}}, "probes")
	if v.Provisioner == Other {
		setDefault(v.Config, []any{map[string]any{
			"key": readiness.TaintPrefix + "headstart", "value": readiness.DefaultTaintValue, "effect": string(corev1.TaintEffectNoSchedule),
		}}, "register", "taints")
	}
}

// setDefault sets the value at path unless something stands there. A parent that is no object is left to validation.
func setDefault(config map[string]any, value any, path ...string) {
	for _, key := range path[:len(path)-1] {
		child, ok := config[key].(map[string]any)
		if !ok {
			if config[key] != nil {
				return
			}
			child = map[string]any{}
			config[key] = child
		}
		config = child
	}
	if last := path[len(path)-1]; config[last] == nil {
		config[last] = value
	}
}

// Warnings tells a person what is allowed but unwise.
func (v *Values) Warnings(system OS) []string {
	var out []string
	if v.Provisioner == Karpenter && len(v.register.Taints)+len(v.register.Labels) > 0 {
		out = append(out, "config.register is left out of userData: with Karpenter, taints belong in the NodePool's startupTaints and labels in its template")
	}
	if system == Bottlerocket && v.Proxy != (Proxy{}) {
		out = append(out, "proxy is left out of Bottlerocket's userData: write settings.network.https-proxy and no-proxy, by which its containerd, and so every pull, goes")
	}
	if system == Bottlerocket && v.FastImagePull {
		out = append(out, "fastImagePull needs Bottlerocket 1.44 or newer; an older one refuses the whole userData")
	}
	return out
}

var errOneSource = errors.New("agent: give exactly one of image, url and path: there is no default for what runs as root on every node; " +
	"an image goes by digest (registry.example/headstart-agent@sha256:...), a url with its sha256")
